"""BERT in training: the 80/10/10 rule, and the model that fills in blanks as a whole."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numerics import check_model

from minigpt.data import mask_tokens, sequence_seeds
from minigpt.models.masked_bert import MaskedBert, MaskedBertConfig
from minigpt.optim import AdamW

SHAPE = {"vocabulary_size": 11, "context": 7, "layers": 2, "heads": 3, "width": 12, "hidden": 20}


def small_model(dtype=np.float64, **changes):
    model = MaskedBert(MaskedBertConfig(**SHAPE | changes), seed=1, dtype=dtype)
    model.flat.data += 0.1 * np.random.default_rng(2).normal(size=len(model.flat)).astype(dtype)
    return model


def some_tokens(B=3, T=5):
    rng = np.random.default_rng(3)
    return mask_tokens(rng.integers(10, size=(B, T)), 10, 11, rng, 0.4)


def test_of_what_is_asked_80_percent_are_blanks_10_others_and_10_left():
    ids = np.random.default_rng(0).integers(10, size=(200, 500))
    inputs, targets = mask_tokens(ids, 10, 11, np.random.default_rng(1))
    asked = targets >= 0
    assert asked.mean() == pytest.approx(0.15, abs=0.005)
    np.testing.assert_array_equal(targets[asked], ids[asked])
    np.testing.assert_array_equal(inputs[~asked], ids[~asked])
    seen = inputs[asked]
    assert (seen == 10).mean() == pytest.approx(0.8, abs=0.01)
    assert (seen == ids[asked]).mean() == pytest.approx(0.1 + 0.1 / 10, abs=0.01)   # a random one may be the same
    others = seen[(seen != 10) & (seen != ids[asked])]
    assert np.bincount(others, minlength=11)[10] == 0 and (np.bincount(others) > 0).sum() == 10


@given(shape=st.tuples(st.integers(1, 5), st.integers(1, 9)), blank=st.integers(0, 6), seed=st.integers(0, 99))
def test_every_row_has_something_to_learn_and_random_tokens_are_tokens(shape, blank, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(7, size=shape)
    before = ids.copy()
    inputs, targets = mask_tokens(ids, blank, 7, rng, 0.05)
    assert (targets >= 0).any(1).all() and inputs.min() >= 0 and inputs.max() < 7
    np.testing.assert_array_equal(ids, before)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_of_the_whole_model_is_its_slope(dropout, backend):
    model, (x, y) = small_model(dropout=dropout), some_tokens()
    seeds = sequence_seeds(seed=5, step=0, size=3) if dropout else None
    check_model(lambda: model.loss(x, y, seeds), model.flat)


def test_a_blank_is_guessed_from_both_sides(backend):
    model = small_model()
    x = np.array([[1, 2, 10, 3, 4]])
    before = model(x).data[0, 2]
    for t in 0, 1, 3, 4:
        changed = x.copy()
        changed[0, t] = 7
        assert not np.allclose(model(changed).data[0, 2], before)


def test_it_learns_to_fill_in_what_only_the_right_side_tells():
    """Each text is a token, then the same again: the first one is a blank."""
    ids = np.repeat(np.arange(10)[:, None], 2, 1)
    x, y = ids.copy(), np.full(ids.shape, -1)
    x[:, 0], y[:, 0] = 10, ids[:, 0]
    model = MaskedBert(MaskedBertConfig(**SHAPE | {"width": 24}), seed=0)
    optimizer = AdamW(model.flat, decay=0.0)
    for _ in range(150):
        model.flat.grad[...] = 0
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step(5e-3, 1.0)
    assert loss.item() < 0.05


def test_the_parameters_can_be_counted_without_making_a_model():
    config = MaskedBertConfig(**SHAPE)
    assert config.parameter_count() == len(MaskedBert(config).flat)
