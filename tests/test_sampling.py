"""The sampling rules, random choices that repeat, and the text that comes out of tokens."""
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lively import TOKENIZER

from minigpt.sampling import Chance, Rules, Text, log_probabilities, next_token, nucleus, probabilities, top
from minigpt.settings import UserError

FEW_VALUES = st.sampled_from([-1.5, 0.0, 0.25, 2.0])        # so that many are equal
LOGITS = st.one_of(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.lists(FEW_VALUES, min_size=1, max_size=12),
                   ).map(np.array)
TEMPERATURES, TOP_K, TOP_P = st.floats(0.1, 10), st.integers(1, 15), st.floats(0.01, 1)


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def ranked(x):
    """Token numbers, the likeliest first; of equals, the one of lower number."""
    return sorted(range(len(x)), key=lambda i: (-x[i], i))


# ---- the rules ----

@given(LOGITS, TEMPERATURES)
def test_without_rules_it_is_the_softmax(logits, temperature):
    p = probabilities(logits, Rules(temperature))
    np.testing.assert_allclose(p, softmax(logits / temperature), atol=1e-15)
    for off in {"top_k": 0}, {"top_k": None}, {"top_k": len(logits)}, {"top_k": 10 ** 9}, {"top_p": None}, {"top_p": 1.0}:
        assert (probabilities(logits, Rules(temperature, **off)) == p).all()


@given(LOGITS, TEMPERATURES, TOP_K, TOP_P)
def test_whatever_the_rules_the_probabilities_sum_to_1_and_none_is_negative(logits, temperature, top_k, top_p):
    p = probabilities(logits, Rules(temperature, top_k, top_p))
    assert (p >= 0).all() and p.sum() == pytest.approx(1, abs=1e-12) and p.dtype == np.float64


@given(LOGITS, TOP_K, TOP_P, st.integers(0, 99))
def test_temperature_0_takes_the_likeliest_and_of_equals_the_first(logits, top_k, top_p, seed):
    rules = Rules(0, top_k, top_p)
    assert probabilities(logits, rules).tolist() == [float(i == ranked(logits)[0]) for i in range(len(logits))]
    assert next_token(logits, rules, Chance(seed)) == ranked(logits)[0]


@pytest.mark.filterwarnings("error")
def test_a_temperature_close_to_0_overflows_quietly():
    assert probabilities([1, 3, 2], Rules(1e-320)).tolist() == [0, 1, 0]


@given(LOGITS, TEMPERATURES, TOP_K, TOP_P)
def test_what_is_left_are_the_likeliest_in_their_proportions(logits, temperature, top_k, top_p):
    p, before = probabilities(logits, Rules(temperature, top_k, top_p)), softmax(logits / temperature)
    left = np.flatnonzero(p)
    assert set(left) == set(ranked(logits)[:len(left)])     # of equals at the border, those of lower number
    np.testing.assert_allclose(p[left], before[left] / before[left].sum(), rtol=1e-9)


@given(LOGITS, TEMPERATURES, TOP_K)
def test_top_k_leaves_k(logits, temperature, top_k):
    assert (probabilities(logits, Rules(temperature, top_k)) > 0).sum() == min(top_k, len(logits))


@given(LOGITS, TEMPERATURES, TOP_K, TOP_P)
def test_top_p_leaves_the_smallest_nucleus_of_what_top_k_leaves(logits, temperature, top_k, top_p):
    before, p = (probabilities(logits, Rules(temperature, top_k, top_p)) for top_p in (1, top_p))
    reached = np.sort(before[p > 0])
    assert reached.sum() >= top_p - 1e-9                    # it reaches top_p,
    assert reached[1:].sum() < top_p + 1e-9                 # and without its last it would not


@given(st.integers(1, 400), st.floats(0.01, 0.999), st.floats(0, 6), st.integers(0, 99))
def test_the_nucleus_is_that_of_sorting_everything(size, top_p, spread, seed):
    p = softmax(spread * np.random.default_rng(seed).normal(size=size))
    order = ranked(p)
    reached_before = np.cumsum(p[order]) - p[order]
    assert set(np.flatnonzero(nucleus(p, top_p))) == {i for i, reached in zip(order, reached_before) if reached < top_p}


def test_a_worked_example():
    logits = np.log([0.125, 0.5, 0.125, 0.25])
    for rules, expected in [({"top_k": 2}, [0, 2 / 3, 0, 1 / 3]), ({"top_p": 0.6}, [0, 2 / 3, 0, 1 / 3]),
                            ({"top_p": 0.8}, [1 / 7, 4 / 7, 0, 2 / 7]), ({"top_p": 0.4}, [0, 1, 0, 0]),
                            ({"top_k": 3}, [1 / 7, 4 / 7, 0, 2 / 7]),
                            ({"temperature": 0.5}, [1 / 22, 16 / 22, 1 / 22, 4 / 22])]:
        np.testing.assert_allclose(probabilities(logits, Rules(**rules)), expected, rtol=1e-12)


@pytest.mark.parametrize("rules", [
    {"temperature": -1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_k": -1}, {"top_p": 0},
    {"top_p": -0.5}, {"top_p": 1.5}, {"top_p": float("nan")},
], ids=str)
def test_rules_that_make_no_sense_are_one_sentence(rules):
    name, = rules
    with pytest.raises(UserError, match=f"^{name} is "):
        Rules(**rules)


@pytest.mark.parametrize("logits", [[0, np.nan, 1], [-np.inf, -np.inf], [np.inf, 0]], ids=str)
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_no_numbers_are_one_sentence(logits, temperature):
    with pytest.raises(UserError, match="its weights are damaged"):
        next_token(np.array(logits), Rules(temperature), Chance(0))


# ---- log-probabilities ----

@given(LOGITS, st.integers(0, 15))
def test_log_probabilities_are_the_models_own_and_the_top_ones_come_in_order(logits, n):
    log_p = log_probabilities(logits.astype(np.float32))
    np.testing.assert_allclose(log_p, np.log(softmax(logits.astype(np.float32).astype(float))), atol=1e-12)
    assert top(log_p, n) == [(i, log_p[i]) for i in ranked(log_p)[:n]]


# ---- chance ----

class Fixed:
    def __init__(self, number):
        self.number = number

    def random(self):
        return self.number


@given(hnp.arrays(float, st.integers(1, 9), elements=st.sampled_from([0.0, 0.1, 0.7, 1e-9])),
       st.one_of(st.floats(0, 1, exclude_max=True), st.just(math.nextafter(1, 0)), st.just(0.0)))
def test_a_choice_is_never_one_of_probability_0(p, random):
    p[len(p) // 2] = 0.3
    chance = Chance(0)
    chance.rng = Fixed(random)
    i = chance.choose(p)
    assert p[i] > 0
    assert p[:i].sum() <= random * p.sum() + 1e-12 and random * p.sum() <= p[:i + 1].sum() + 1e-12


def test_tokens_are_chosen_as_often_as_their_probabilities_say():
    p, chance, n = np.array([0.5, 0.1, 0, 0.4]), Chance(3), 4000
    chosen = np.bincount([chance.choose(p) for _ in range(n)], minlength=4) / n
    assert (abs(chosen - p) <= 4 * np.sqrt(p * (1 - p) / n)).all()
    happened = sum(chance.happens(0.3) for _ in range(n)) / n
    assert abs(happened - 0.3) < 4 * math.sqrt(0.21 / n)


def test_the_same_seed_makes_the_same_choices_and_another_seed_others():
    p = np.full(50, 0.02)
    drawn = [[chance.choose(p) for _ in range(20)] for chance in (Chance(1), Chance(1), Chance(2))]
    assert drawn[0] == drawn[1] != drawn[2]


# ---- text ----

class Pieces:
    """A tokenizer whose tokens are the pieces of a text. Its stream holds back the last character until the next comes."""

    def __init__(self, pieces, holding):
        self.pieces, self.holding = pieces, holding

    def stream(self):
        return self if not self.holding else HoldingBack(self.pieces)

    def add(self, ids):
        return "".join(self.pieces[i] for i in ids)

    def end(self):
        return ""


class HoldingBack:
    def __init__(self, pieces):
        self.pieces, self.held = pieces, ""

    def add(self, ids):
        text = self.held + "".join(self.pieces[i] for i in ids)
        self.held = text[-1:]
        return text[:-1]

    def end(self):
        return self.held




def could_become(text, stop):
    """How many characters at the end of a text may be the beginning of `stop`."""
    return max(n for n in range(len(stop)) if text.endswith(stop[:n]))


TEXTS = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


@given(TEXTS, STOPS, st.booleans())
@example(["aab"], ["b", "ab"], False)                       # two are complete at once
@example(["a", "a", "b"], ["aab"], False)                   # two beginnings of one
def test_the_text_ends_before_the_first_stop_text(pieces, stops, holding):
    """Also where the stop text is spread over several tokens, where a token goes on behind it, and at the very end."""
    text, shown, whole = Text(Pieces(pieces, holding), stops), "", "".join(pieces)
    heads = ["".join(pieces[:i + 1])[:-1 if holding else None] for i in range(len(pieces))]
    for i in range(len(pieces)):
        shown += text.add(i)
        if text.stopped:
            break
    shown += text.end()
    said = next((said for said in heads if any(stop in said for stop in stops)), whole)   # when one was first complete
    places = [said.find(stop) for stop in stops if stop in said]
    assert text.stopped == bool(places) and shown == (said[:min(places)] if places else whole)


@given(TEXTS, st.text("ab", min_size=1, max_size=4))
@example(["a", "a", "b"], "aab")
def test_all_that_is_clear_is_shown_at_once(pieces, stop):
    text, shown, said = Text(Pieces(pieces, False), [stop]), "", ""
    for i, piece in enumerate(pieces):
        shown, said = shown + text.add(i), said + piece
        if text.stopped:
            break
        assert shown == said[:len(said) - could_become(said, stop)]


@pytest.mark.parametrize("stops", [(), ("",)])
def test_without_a_stop_text_each_token_is_shown_at_once(stops):
    text = Text(Pieces(["a", "bc", "d"], False), stops)
    assert [text.add(i) for i in range(3)] == ["a", "bc", "d"] and text.end() == ""


def test_the_stream_of_characters_is_what_decode_gives():
    stream, ids = TOKENIZER.stream(), TOKENIZER.encode("bad é.")
    assert "".join(stream.add([i]) for i in ids) + stream.end() == "bad é."
