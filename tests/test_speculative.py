"""Speculative decoding: the very distribution of the target, checked by going through all that chance could do."""
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lively import TOKENIZER, V, greedy, lively_model

from minigpt.models.gpt import GPT, GPTConfig
from minigpt.sampling import Chance, Rules, probabilities
from minigpt.settings import UserError
from minigpt.speculative import Speculation, kept, remaining

DISTRIBUTIONS = hnp.arrays(float, 6, elements=st.sampled_from([0.0, 0.1, 0.5, 1e-9, 2.0])).filter(np.any).map(
    lambda x: x / x.sum())


# ---- the equations ----

@given(DISTRIBUTIONS, DISTRIBUTIONS)
def test_one_guess_or_what_takes_its_place_is_distributed_as_the_target(p, q):
    guess_kept = np.array([q[x] * kept(p, q, x) if q[x] else 0 for x in range(6)])
    np.testing.assert_allclose(guess_kept + (1 - guess_kept.sum()) * remaining(p, q), p, atol=1e-12)     # (3)
    assert remaining(p, q).sum() == pytest.approx(1)


def test_equal_distributions_keep_every_guess():
    p = np.array([0.2, 0.5, 0.3])
    assert [kept(p, p, x) for x in range(3)] == [1, 1, 1] and remaining(p, p).tolist() == p.tolist()


# ---- every possible run ----

class EveryChance:
    """Goes through all that chance could choose: each run takes the next path, and knows how likely it was."""

    def __init__(self):
        self.path, self.weights = [], []

    def options(self, weights):
        """The option that this path takes here, among those that are possible."""
        step = len(self.weights)
        if step == len(self.path):
            self.path.append(next(i for i, weight in enumerate(weights) if weight > 0))
        self.weights.append(list(weights))
        return self.path[step]

    def choose(self, p):
        return self.options(p)

    def happens(self, probability):
        return self.options([1 - probability, probability]) == 1

    def runs(self, function):
        """(result, probability) of function() on every path."""
        while True:
            self.weights = []
            result = function()
            yield result, prod(weights[i] for weights, i in zip(self.weights, self.path))
            while self.path and not any(self.weights[len(self.path) - 1][self.path[-1] + 1:]):
                self.path.pop()
                self.weights.pop()
            if not self.path:
                return
            rest = self.weights[-1][self.path[-1] + 1:]
            self.path[-1] += 1 + next(i for i, weight in enumerate(rest) if weight > 0)


def tiny(seed, layers=1):
    model = GPT(GPTConfig(3, 8, layers, 1, 4), dtype=np.float64)
    model.flat.data[...] += 0.8 * np.random.default_rng(seed).normal(size=len(model.flat))
    return model


def exact_distribution(model, ids, length, rules):
    """{tokens: probability} of all continuations, from the model's own distributions."""
    found = {(): 1.0}
    for _ in range(length):
        found = {(*tokens, x): weight * p for tokens, weight in found.items()
                 for x, p in enumerate(probabilities(model(np.array([[*ids, *tokens]])).data[0, -1], rules)) if p > 0}
    return found


@pytest.mark.parametrize("rules", [Rules(), Rules(0.7, top_k=2), Rules(1.3, top_p=0.8)], ids=str)
@pytest.mark.parametrize("guesses, length", [(1, 3), (2, 3), (3, 3), (2, 4)])
def test_every_continuation_is_as_likely_as_from_the_target_alone(rules, guesses, length):
    """All paths of the draft's guesses and of what is kept are walked; the probabilities of each text add up."""
    target, draft, ids, total = tiny(1, layers=2), tiny(2), [2, 0, 1], {}
    chance = EveryChance()
    with Speculation(target, draft, rules, chance, guesses, workers=1) as speculation:
        for tokens, weight in chance.runs(lambda: tuple(speculation.generate(ids, length))):
            total[tokens] = total.get(tokens, 0) + weight
    exact = exact_distribution(target, ids, length, rules)
    from_draft = exact_distribution(draft, ids, length, rules)
    assert max(abs(exact.get(tokens, 0) - from_draft.get(tokens, 0)) for tokens in {*exact, *from_draft}) > 0.01
    assert sum(total.values()) == pytest.approx(1, abs=1e-12)
    assert {tokens for tokens, weight in total.items() if weight > 1e-15} <= set(exact)
    for tokens, weight in exact.items():
        assert total.get(tokens, 0) == pytest.approx(weight, abs=1e-12), tokens


# ---- greedy, and what it saves ----

@given(length=st.integers(1, 20), guesses=st.integers(1, 7), n=st.integers(1, 18), same=st.booleans())
def test_greedy_text_is_the_very_one_of_the_target(length, guesses, n, same, backend):
    target = lively_model("gpt_modern", context=40)
    draft = target if same else lively_model("gpt", context=38, seed=9, layers=1)
    ids = np.random.default_rng(n).integers(V, size=n).tolist()
    with Speculation(target, draft, Rules(0), Chance(0), guesses, workers=2) as speculation:
        assert list(speculation.generate(ids, length)) == greedy(target, ids, length)
    if same:
        assert speculation.accepted == speculation.guessed


def test_a_draft_that_is_the_target_needs_one_step_for_all_its_guesses(monkeypatch):
    model, steps = lively_model(context=64), []
    with Speculation(model, model, Rules(1.0), Chance(4), guesses=4, workers=1) as speculation:
        each = speculation.target.each
        monkeypatch.setattr(speculation.target, "each", lambda slots, ids: steps.append(ids.shape) or each(slots, ids))
        assert len(list(speculation.generate([1, 2, 3], 20))) == 20
    assert steps == [(1, 5)] * 4 and (speculation.accepted, speculation.guessed) == (16, 16)


def test_it_can_be_used_for_one_text_after_the_other():
    target, draft = lively_model(context=40), lively_model(seed=9, context=40)
    with Speculation(target, draft, Rules(0), Chance(0), workers=1) as speculation:
        for ids in [1, 2, 3], [4], [5, 6, 7, 8]:
            assert list(speculation.generate(ids, 9)) == greedy(target, ids, 9)


def test_its_text_ends_before_a_stop_text():
    target, draft = lively_model(context=64), lively_model(seed=9, context=64)

    def text(stop):
        with Speculation(target, draft, Rules(1.5), Chance(0), workers=1) as speculation:
            return "".join(speculation.text(TOKENIZER, "abc", 40, stop))

    whole = text(None)
    assert len(whole) == 40 and text(whole[20:23]) == whole.partition(whole[20:23])[0]


# ---- bad input ----

def test_models_of_different_vocabularies_are_one_sentence():
    with pytest.raises(UserError, match=f"the draft has 3 tokens, and the model has {V}: they have to share a tokenizer"):
        Speculation(lively_model(), tiny(0), Rules(), Chance(0))


@pytest.mark.parametrize("guesses", [0, 8])
def test_as_many_guesses_as_are_read_for_the_price_of_one(guesses):
    with pytest.raises(UserError, match=f"guesses is {guesses}"):
        Speculation(lively_model(), lively_model(), Rules(), Chance(0), guesses)


@pytest.mark.parametrize("ids, length, part", [([], 3, "the prompt is empty"), ([1] * 6, 4, "do not fit a context of 8")])
def test_a_prompt_that_cannot_be_used_is_one_sentence(ids, length, part):
    speculation = Speculation(lively_model(), lively_model(), Rules(), Chance(0))
    with speculation, pytest.raises(UserError, match=part):
        list(speculation.generate(ids, length))
