"""The Transformer of 2017 as a whole, and beam search against trying everything."""
from itertools import product

import numpy as np
import pytest
from numerics import check_model

from minigpt import no_grad, ops
from minigpt.data import sequence_seeds
from minigpt.models.transformer import Transformer, TransformerConfig, beam_search, waves
from minigpt.optim import AdamW
from minigpt.settings import UserError

SHAPE = {"vocabulary_size": 11, "context": 9, "layers": 2, "heads": 3, "width": 12, "hidden": 20}
BEGIN, END = 0, 1


def small_model(dtype=np.float64, **changes):
    model = Transformer(TransformerConfig(**SHAPE | changes), seed=1, dtype=dtype)
    model.flat.data += 0.1 * np.random.default_rng(2).normal(size=len(model.flat)).astype(dtype)
    return model


def some_texts(B=3, S=6, T=5):
    """Sources with padding, targets, and what follows in them, with padding."""
    rng = np.random.default_rng(3)
    mask = np.arange(S) < np.array([S, 2, 4])[:B, None]
    following = rng.integers(11, size=(B, T))
    following[1, 3:] = -1
    return rng.integers(11, size=(B, S)), mask, rng.integers(11, size=(B, T)), following


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_of_the_whole_model_is_its_slope(dropout, backend):
    """Where no small step turns the sign of what goes into a relu: with these seeds."""
    model, texts = small_model(dropout=dropout), some_texts()
    seeds = sequence_seeds(seed=6, step=0, size=3) if dropout else None
    check_model(lambda: model.loss(*texts, seeds), model.flat)


def test_the_decoder_sees_what_was_read_and_what_was_written_before_and_nothing_else(backend):
    model, (source, mask, target, _) = small_model(), some_texts()
    before = model(source, mask, target).data
    for t in range(1, target.shape[1]):
        changed = target.copy()
        changed[:, t] = (changed[:, t] + 1) % 11
        after = model(source, mask, changed).data
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert not np.allclose(after[:, t], before[:, t])
    for s in range(source.shape[1]):
        changed = source.copy()
        changed[:, s] = (changed[:, s] + 1) % 11
        moved = np.abs(model(changed, mask, target).data - before).max((1, 2)) > 1e-9
        np.testing.assert_array_equal(moved, mask[:, s])                    # padding is seen by nobody


def test_without_positions_an_order_could_not_be_read():
    model, (source, mask, target, _) = small_model(), some_texts()
    turned = model(source[:1, ::-1].copy(), mask[:1], target[:1]).data
    assert not np.allclose(turned, model(source[:1], mask[:1], target[:1]).data)


def test_waves_are_those_of_the_paper_and_turn_with_the_distance():
    x = waves(50, 8)
    assert x[3, 2] == pytest.approx(np.sin(3 / 10000 ** (2 / 8))) and x[3, 3] == pytest.approx(np.cos(3 / 10000 ** (2 / 8)))
    np.testing.assert_allclose((x[7] * x[12]).sum(), (x[30] * x[35]).sum(), rtol=1e-12)


def test_it_learns_to_turn_texts_around():
    """Nothing but looking at the right place of the source helps here."""
    rng = np.random.default_rng(0)
    source = rng.integers(2, 11, size=(6, 5))
    texts = np.concatenate([np.full((6, 1), BEGIN), source[:, ::-1], np.full((6, 1), END)], 1)
    model, mask = Transformer(TransformerConfig(11, 9, 2, 2, 32, 64), seed=0), np.ones((6, 5), bool)
    optimizer = AdamW(model.flat, decay=0.0)
    for _ in range(200):
        model.flat.grad[...] = 0
        loss = model.loss(source, mask, texts[:, :-1], texts[:, 1:])
        loss.backward()
        optimizer.step(2e-3, 1.0)
    assert loss.item() < 0.05
    for beams in 1, 3:
        written = beam_search(model, source, mask, BEGIN, END, 8, beams)
        assert [text.tolist() for text in written] == source[:, ::-1].tolist()


def test_the_parameters_can_be_counted_without_making_a_model():
    config = TransformerConfig(**SHAPE)
    assert config.parameter_count() == len(Transformer(config).flat)


@pytest.mark.parametrize("wrong, said", [({"heads": 5}, "heads"), ({"hidden": 0}, "hidden is 0"),
                                         ({"width": 9}, "the width even"), ({"layers": 0}, "layers is 0")])
def test_a_shape_that_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        TransformerConfig(**SHAPE | wrong)


# ---- beam search ----

def log_probability(model, source, mask, text):
    """Of a text, a tuple of tokens, after `begin`."""
    with no_grad():
        log_p = ops.log_softmax(model(source, mask, np.array([[BEGIN, *text[:-1]]]))).data[0]
    return sum(log_p[t, token] for t, token in enumerate(text))


def all_texts(V, longest):
    """Every text that ends with END, and those that reach the longest without one."""
    others = [token for token in range(V) if token != END]
    for n in range(1, longest + 1):
        yield from ((*text, END) for text in product(others, repeat=n - 1))
    yield from product(others, repeat=longest)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_with_beams_for_everything_it_finds_the_best_of_all_texts(alpha, backend):
    model, (source, mask, _, _) = small_model(vocabulary_size=4), some_texts()
    model.tokens.w.data *= 3                                # probabilities that differ
    source %= 4
    found = beam_search(model, source, mask, BEGIN, END, 3, beams=64, alpha=alpha)
    for n in range(3):
        one = source[n:n + 1], mask[n:n + 1]
        best = max(all_texts(4, 3), key=lambda text: log_probability(model, *one, text) / len(text) ** alpha)
        assert found[n].tolist() == [token for token in best if token != END]


def test_with_one_beam_it_is_greedy_and_more_beams_find_nothing_less_likely(backend):
    model, (source, mask, _, _) = small_model(), some_texts()
    model.tokens.w.data *= 2
    one, many = (beam_search(model, source, mask, BEGIN, END, 7, beams, alpha=0.0) for beams in (1, 5))
    for n in range(3):
        s, m, ids = source[n:n + 1], mask[n:n + 1], [BEGIN]
        while len(ids) < 8 and ids[-1] != END:
            ids.append(int(model(s, m, np.array([ids])).data[0, -1].argmax()))
        assert one[n].tolist() == [token for token in ids[1:] if token != END]
        whole = [tuple(text.tolist()) + (END,) * (len(text) < 7) for text in (one[n], many[n])]
        assert log_probability(model, s, m, whole[1]) >= log_probability(model, s, m, whole[0]) - 1e-9


def test_what_is_written_does_not_depend_on_its_company():
    model, (source, mask, _, _) = small_model(), some_texts()
    together = beam_search(model, source, mask, BEGIN, END, 7, 3)
    alone = [beam_search(model, source[n:n + 1], mask[n:n + 1], BEGIN, END, 7, 3)[0] for n in range(3)]
    assert [text.tolist() for text in together] == [text.tolist() for text in alone]
