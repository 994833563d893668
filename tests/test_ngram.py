"""The counting model: against the same equations written out with dictionaries, and what must hold for any text."""
import math
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import models
from minigpt.models.ngram import NGram, discounts
from minigpt.settings import UserError


def slow_model(text, V, n):
    """p(w, context) with modified Kneser-Ney smoothing, in exact fractions: one token, one loop, one dictionary."""
    text = tuple(text)
    counts = {}
    for k in range(1, n + 1):
        grams = [(i, text[i:i + k]) for i in range(len(text) - k + 1)]
        if k == n:
            counts[k] = Counter(gram for _, gram in grams)
        else:
            neighbours = defaultdict(set)
            for i, gram in grams:
                neighbours[gram].add(text[i - 1] if i else "beginning")
            counts[k] = {gram: len(tokens) for gram, tokens in neighbours.items()}
    cuts = {k: slow_discounts(list(counts[k].values())) for k in counts}

    def p(w, context):
        context = tuple(context)[max(len(context) - n + 1, 0):]
        k = len(context) + 1
        shorter = p(w, context[1:]) if context else Fraction(1, V)
        after = {gram[-1]: c for gram, c in counts[k].items() if gram[:-1] == context}
        if not after:
            return shorter
        cut = {token: cuts[k][min(c, 3)] for token, c in after.items()}
        own = after[w] - cut[w] if w in after else 0
        return (own + sum(cut.values()) * shorter) / sum(after.values())

    return p


def slow_discounts(counts):
    n1, n2, n3, n4 = (counts.count(i) for i in (1, 2, 3, 4))
    d = {1: Fraction(1, 2), 2: Fraction(1), 3: Fraction(3, 2)}      # where the estimates below make no sense
    if n1:
        y = Fraction(n1, n1 + 2 * n2)
        estimates = {1: 1 - 2 * y * Fraction(n2, n1)}
        estimates |= {2: 2 - 3 * y * Fraction(n3, n2)} if n2 else {}
        estimates |= {3: 3 - 4 * y * Fraction(n4, n3)} if n3 else {}
        d |= {i: value for i, value in estimates.items() if 0 < value < i}
    return d


@st.composite
def cases(draw, most=60):
    """(V, order, text, another text), the latter of any tokens, seen or not; the text is sometimes repetitive."""
    V = draw(st.integers(1, 6))
    tokens = st.integers(0, V - 1)
    text = draw(st.lists(tokens, max_size=most)) * draw(st.integers(1, 3))
    return V, draw(st.integers(1, 9)), text, draw(st.lists(tokens, max_size=12))


def longer_text(seed, V=9, N=3000):
    """A random walk: what comes next depends on the token before, so that all counts of counts are there."""
    rng = np.random.default_rng(seed)
    steps = np.minimum(rng.geometric(0.4, size=N), V)
    return np.cumsum(steps) % V


# ---- the same as written out ----

@settings(max_examples=150)
@given(cases())
def test_it_is_what_the_equations_say_written_out_with_dictionaries(case):
    V, order, text, context = case
    p = slow_model(text, V, order)
    model = NGram(V, order).fit(np.array(text, np.int64))
    for begin in range(len(context) + 1):
        expected = [float(p(w, context[begin:])) for w in range(V)]
        np.testing.assert_allclose(model.distribution(context[begin:]), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_it_is_the_same_on_a_text_that_has_all_counts(order):
    text, other = longer_text(1, N=700), longer_text(2, N=40)
    model, p = NGram(9, order).fit(text), slow_model(text.tolist(), 9, order)
    expected = [math.log(p(w, other[:t])) for t, w in enumerate(other.tolist()) if t]
    np.testing.assert_allclose(model.log_probabilities(other), expected, rtol=1e-11)


def test_worked_by_hand():
    # "ab" "ab" "ac": pairs ab 2, ba 2, ac 1. m_1 = 1 (ac), m_2 = 2 (ab, ba): Y = 1/5, D_1 = 1 - 2/5 * 2 = 1/5, D_2 = 1.
    # Single tokens by their left neighbours: a 2 (beginning, b), b 1, c 1. m_1 = 2, m_2 = 1: Y = 1/2 = D_1, D_2 = 1.
    model = NGram(4, order=2).fit([0, 1, 0, 1, 0, 2])
    single = np.array([1, 0.5, 0.5, 0]) / 4 + 2 / 4 * 1 / 4
    np.testing.assert_allclose(model.distribution([]), single, rtol=1e-15)
    after_a = np.array([0, 2 - 1, 1 - 0.2, 0]) / 3 + (1 + 0.2) / 3 * single
    np.testing.assert_allclose(model.distribution([0]), after_a, rtol=1e-15)
    np.testing.assert_array_equal(model.distribution([2]), model.distribution([]))      # nothing ever followed c
    np.testing.assert_array_equal(model.distribution([3]), model.distribution([]))      # d was never seen


def test_the_worked_discounts():
    counts = np.repeat([1, 2, 3, 4, 5, 9], [100, 40, 20, 10, 3, 2])
    Y = 100 / 180
    np.testing.assert_allclose(discounts(counts), [0, Y, 2 - 3 * Y * 20 / 40, 3 - 4 * Y * 10 / 20], rtol=1e-15)


@settings(max_examples=300)
@given(st.lists(st.integers(1, 8), max_size=30))
def test_discounts_leave_something_and_cut_something(counts):
    d = discounts(np.array(counts, np.int64))
    assert d[0] == 0 and all(0 < d[i] < i for i in (1, 2, 3))
    np.testing.assert_allclose(d[1:], [float(slow_discounts(counts)[i]) for i in (1, 2, 3)], rtol=1e-12)


# ---- what must hold for any text ----

@given(cases())
def test_probabilities_sum_to_one_and_none_is_zero(case):
    V, order, text, other = case
    model = NGram(V, order).fit(np.array(text, np.int64))
    for context in ([], other, other[:2], text[-3:], text[:7], [V - 1] * 9):
        p = model.distribution(context)
        assert p.shape == (V,) and p.dtype == np.float64 and p.min() > 0
        assert p.sum() == pytest.approx(1, abs=1e-13)


@given(cases())
def test_log_probabilities_are_those_of_the_distributions(case):
    V, order, text, other = case
    model = NGram(V, order).fit(np.array(text, np.int64))
    for ids in text, other, text[-4:] + other:
        found = model.log_probabilities(np.array(ids, np.int64))
        assert found.dtype == np.float64 and found.shape == (max(len(ids) - 1, 0),)
        expected = [math.log(model.distribution(ids[:t])[ids[t]]) for t in range(1, len(ids))]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
        if len(ids) > 1:
            assert model.loss(ids) == pytest.approx(-np.mean(expected), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_looks_back_order_minus_one_tokens_and_no_further(order):
    model, text = NGram(9, order).fit(longer_text(0)), longer_text(0)
    context = text[200:210]
    assert not np.array_equal(context, text[:10])
    for changed in range(10):
        other = context.copy()
        other[changed] = (other[changed] + 1) % 9
        same = np.array_equal(model.distribution(other), model.distribution(context))
        assert same == (changed < 10 - (order - 1))


@pytest.mark.parametrize("period", [1, 2, 5])
def test_a_periodic_text_becomes_certain(period):
    losses = [NGram(7, order=4).fit(np.arange(N) % period).loss(np.arange(100) % period) for N in (20, 200, 2000, 20000)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.01 < losses[0]


def test_a_longer_memory_helps_on_what_has_one():
    text = np.random.default_rng(0).integers(2, size=20000)
    text[2:] = [text[t] if t % 10 == 0 else -1 for t in range(2, len(text))]
    for t in np.nonzero(text == -1)[0]:
        text[t] = text[t - 1] ^ text[t - 2]                     # the sum of the two before: pairs alone tell nothing
    one, two, three = (NGram(2, order).fit(text[:15000]).loss(text[15000:]) for order in (1, 2, 3))
    assert three < 0.35 and min(one, two) > 0.55


def test_random_tokens_cannot_be_foretold():
    rng = np.random.default_rng(0)
    for order in 1, 3, 6:
        assert NGram(5, order).fit(rng.integers(5, size=20000)).loss(rng.integers(5, size=5000)) > math.log(5) - 0.01


# ---- texts that are hardly texts ----

DEGENERATE = {"empty": [], "one token": [1], "twice the same": [1, 1], "only one token": [1] * 40, "all different": [0, 1, 2],
              "shorter than the order": [2, 0, 2], "all tokens equally often": [0, 1, 2] * 8}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("order", [1, 2, 7])
def test_degenerate_texts(name, order):
    text = np.array(DEGENERATE[name], np.int64)
    model, p = NGram(3, order).fit(text), slow_model(text.tolist(), 3, order)
    for context in [], [1], [1, 1], [0, 1], [2, 0], [0, 1, 2] * 5:
        np.testing.assert_allclose(model.distribution(context), [float(p(w, context)) for w in range(3)], rtol=1e-12)
    assert np.isfinite(model.log_probabilities([0, 1, 2, 2, 1])).all()


def test_a_vocabulary_of_one_holds_no_surprise():
    for text in [], [0], [0] * 30:
        model = NGram(1, order=3).fit(text)
        assert model.distribution([0, 0]) == pytest.approx(1, abs=1e-15)
        assert model.loss([0, 0, 0]) == pytest.approx(0, abs=1e-15)


def test_before_fit_all_tokens_are_equally_likely_and_fit_forgets_what_was_counted_before():
    np.testing.assert_array_equal(NGram(4).distribution([1, 2]), [0.25] * 4)
    again = NGram(9, 3).fit(longer_text(1)).fit(longer_text(2))
    assert again.loss(longer_text(3)) == NGram(9, 3).fit(longer_text(2)).loss(longer_text(3))


def test_a_large_vocabulary_and_a_long_memory_fit_into_the_keys():
    V = 2 ** 31 - 1
    text = longer_text(4) * (V // 9) + 5
    model, small = NGram(V, order=12).fit(text), NGram(9, order=12).fit(longer_text(4))
    difference = model.log_probabilities(text) - small.log_probabilities(longer_text(4))
    assert -0.1 < difference.min() and abs(difference).max() < 0.1          # but for the 1 / V the counts are the same


def test_it_gives_the_same_every_time_and_keeps_the_text_as_it_was():
    text = longer_text(5).astype(np.int32)
    before = text.copy()
    one, two = (NGram(9, order=4).fit(text).log_probabilities(longer_text(6)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(text, before)


# ---- what does not fit ----

@pytest.mark.parametrize("V, order", [(0, 3), (5, 0), (5, -1)])
def test_a_vocabulary_and_an_order_are_at_least_one(V, order):
    with pytest.raises(UserError, match="at least 1"):
        NGram(V, order)


@pytest.mark.parametrize("wrong, error", [([0, 4], IndexError), ([-1, 0], IndexError), ([0.5, 1.0], ValueError),
                                          ([[0, 1], [2, 3]], ValueError)])
def test_what_is_no_row_of_tokens_is_refused(wrong, error):
    model = NGram(4, order=2).fit([0, 1, 2])
    for call in model.fit, model.log_probabilities, model.distribution, model.loss:
        with pytest.raises(error):
            call(wrong)
    with pytest.raises(ValueError, match="two tokens"):
        model.loss([1])


def test_it_is_no_network_that_a_checkpoint_could_name():
    with pytest.raises(UserError, match="config.json names the model 'ngram', and there are only .*gpt"):
        models.load("ngram", "config.json")
    assert models.load("gpt", "config.json").name == "gpt"


@given(cases())
def test_what_is_known_of_a_context_is_the_longest_end_that_was_followed(case):
    V, order, text, other = case
    model = NGram(V, order).fit(np.array(text, np.int64))
    for context in [], other, text[-3:], text[:5]:
        followed = [k for k in range(min(len(context), order - 1) + 1) if k == 0 or any(
            text[i:i + k] == context[len(context) - k:] for i in range(len(text) - k))]
        assert model.known(np.array(context, np.int64)) == max(followed)
