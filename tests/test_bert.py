"""BERT as a whole: its slope, that padding changes nothing, and that every position sees all others."""
import numpy as np
import pytest
from numerics import assert_close, check_model

from minigpt import ops
from minigpt.data import sequence_seeds
from minigpt.models.bert import Bert, BertConfig, mean_state, pad
from minigpt.settings import UserError

SHAPE = {"vocabulary_size": 11, "context": 7, "layers": 2, "heads": 3, "width": 12, "hidden": 20, "token_types": 2}
MASK = np.array([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
TYPES = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


def small_bert(dtype=np.float64, **changes):
    """A BERT of unequal sizes whose parameters are all of a size that matters, so that no mistake hides."""
    model = Bert(BertConfig(**SHAPE | changes), seed=1, dtype=dtype)
    model.flat.data += 0.2 * np.random.default_rng(2).normal(size=len(model.flat)).astype(dtype)
    return model


def some_tokens():
    return np.random.default_rng(3).integers(11, size=(3, 5))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "padded"])
def test_the_gradient_of_the_whole_model_is_its_slope(mask, dropout, backend):
    model, ids, rng = small_bert(dropout=dropout), some_tokens(), np.random.default_rng(4)
    by_states, by_pooled, by_mean = rng.normal(size=(3, 5, 12)), rng.normal(size=(3, 12)), rng.normal(size=(3, 12))
    seeds = sequence_seeds(seed=5, step=0, size=3) if dropout else None

    def loss():
        states = model(ids, mask, TYPES, seeds)
        mean = mean_state(states, MASK if mask is None else mask)
        return ops.mean(states * by_states) + ops.mean(model.pooled(states) * by_pooled) + ops.mean(mean * by_mean)

    check_model(loss, model.flat)


def test_the_gradient_reaches_every_parameter():
    model = small_bert()
    states = model(some_tokens(), MASK, TYPES)
    (ops.sum(states * states * states) + ops.sum(model.pooled(states))).backward()
    for name, p in model.flat.parameters.items():
        assert np.abs(p.grad).sum() > 0 or name.endswith("key.b"), f"{name} got no gradient"    # softmax ignores key.b


def test_what_stands_in_the_padding_changes_nothing(backend):
    model, ids = small_bert(), some_tokens()
    states = model(ids, MASK).data
    other = model(np.where(MASK, ids, 9 - ids % 10), MASK).data
    np.testing.assert_array_equal(states[MASK], other[MASK])
    spoilt = np.where(MASK[:, :, None], states, 7)
    np.testing.assert_array_equal(mean_state(states, MASK).data, mean_state(spoilt, MASK).data)
    for i, length in enumerate(MASK.sum(1)):
        assert_close(model(ids[i:i + 1, :length]).data[0], states[i, :length])


def test_every_position_sees_all_others(backend):
    model, ids = small_bert(), some_tokens()
    before = model(ids).data
    for t in range(ids.shape[1]):
        changed = ids.copy()
        changed[:, t] = (changed[:, t] + 1) % 11
        assert (np.abs(model(changed).data - before).max(-1) > 1e-6).all()


def test_token_types_are_0_unless_given():
    model, ids = small_bert(), some_tokens()
    np.testing.assert_array_equal(model(ids).data, model(ids, token_types=np.zeros_like(ids)).data)
    assert not np.allclose(model(ids).data, model(ids, token_types=TYPES).data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_keep_the_dtype_of_the_parameters(dtype, backend):
    model = small_bert(dtype)
    states = model(some_tokens(), MASK)
    assert {states.dtype, model.pooled(states).dtype, mean_state(states, MASK).dtype} == {np.dtype(dtype)}


@pytest.mark.parametrize("changes", [{}, {"pooler": False}, {"token_types": 1, "hidden": 7}], ids=str)
def test_the_parameters_can_be_counted_without_making_a_model(changes):
    model = small_bert(**changes)
    assert model.config.parameter_count() == len(model.flat)


def test_texts_of_different_lengths_are_padded():
    ids, mask = pad([[3, 4], [5], [6, 7, 8]])
    assert ids.tolist() == [[3, 4, 0], [5, 0, 0], [6, 7, 8]]
    assert mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def test_the_mean_state_is_of_length_1_and_counts_what_the_mask_shows():
    states = np.array([[[3.0, 0], [3, 8], [100, 100]], [[1, 1], [0, 0], [0, 0]]])
    mask = np.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(mean_state(states, mask).data, [[0.6, 0.8], [0.5 ** 0.5, 0.5 ** 0.5]])


@pytest.mark.parametrize("wrong, said", [({"heads": 5}, "heads"), ({"hidden": 0}, "hidden"), ({"context": 0}, "context"),
                                         ({"token_types": -1}, "token_types"), ({"dropout": 1.0}, "dropout")])
def test_a_shape_that_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        BertConfig(**SHAPE | wrong)


def test_more_positions_than_the_context_are_refused():
    with pytest.raises(ValueError, match="context of 7"):
        small_bert()(np.zeros((1, 8), int))
