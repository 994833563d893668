"""Generation: the sampling rules, the key/value cache, and the text that comes out."""
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt import Tensor
from minigpt.generate import generate, generate_text, probabilities
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer

TOKENIZER = CharTokenizer("abcdefg\n .é")


def lively_model(context=8, dropout=0.0, dtype=np.float64):
    """A model whose weights are so large that its logits differ clearly from each other and from place to place."""
    model = GPT(GPTConfig(TOKENIZER.vocabulary_size, context, 2, 3, 12, dropout=dropout), dtype=dtype)
    model.flat.data[...] += 0.3 * np.random.default_rng(5).normal(size=len(model.flat))
    model.positions.w.data[...] *= 5
    return model


def text_of(model, prompt="abc", length=30, **rules):
    return "".join(generate_text(model, TOKENIZER, prompt, length, **rules))


# ---- sampling rules ----

LOGITS = st.lists(st.floats(-5, 5), min_size=1, max_size=12).map(np.array)
TEMPERATURES, TOP_K, TOP_P = st.floats(0.1, 10), st.integers(1, 15), st.floats(0.01, 1)


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


@given(LOGITS, TEMPERATURES)
def test_without_rules_it_is_the_softmax(logits, temperature):
    p = probabilities(logits, temperature)
    np.testing.assert_allclose(p, softmax(logits / temperature), atol=1e-15)
    for off in {"top_k": 0}, {"top_k": None}, {"top_k": len(logits)}, {"top_p": None}, {"top_p": 1.0}:
        assert (probabilities(logits, temperature, **off) == p).all()


@given(LOGITS, TOP_K, TOP_P)
def test_temperature_0_takes_the_likeliest(logits, top_k, top_p):
    p = probabilities(logits, 0, top_k, top_p)
    assert p.tolist() == [float(i == logits.argmax()) for i in range(len(logits))]


@pytest.mark.filterwarnings("error")
def test_a_temperature_close_to_0_overflows_quietly():
    assert probabilities([1, 3, 2], temperature=1e-320).tolist() == [0, 1, 0]


@given(LOGITS, TEMPERATURES, TOP_K, TOP_P)
def test_what_is_left_are_the_likeliest_in_their_proportions(logits, temperature, top_k, top_p):
    p, before = probabilities(logits, temperature, top_k, top_p), softmax(logits / temperature)
    left = p > 0
    assert logits[left].min() >= max(logits[~left], default=-np.inf)
    np.testing.assert_allclose(p[left], before[left] / before[left].sum(), rtol=1e-9)


@given(LOGITS, TEMPERATURES, TOP_K)
def test_top_k_leaves_k(logits, temperature, top_k):
    assert (probabilities(logits, temperature, top_k) > 0).sum() == min(top_k, len(logits))


@given(LOGITS, TEMPERATURES, TOP_K, TOP_P)
def test_top_p_leaves_the_smallest_nucleus_of_what_top_k_leaves(logits, temperature, top_k, top_p):
    before, p = (probabilities(logits, temperature, top_k, top_p) for top_p in (1, top_p))
    reached = np.sort(before[p > 0])
    assert reached.sum() >= top_p - 1e-9                    # it reaches top_p,
    assert reached[1:].sum() < top_p + 1e-9                 # and without its last it would not


def test_a_worked_example():
    logits = np.log([0.125, 0.5, 0.125, 0.25])
    for rules, expected in [({"top_k": 2}, [0, 2 / 3, 0, 1 / 3]), ({"top_p": 0.6}, [0, 2 / 3, 0, 1 / 3]),
                            ({"top_p": 0.8}, [1 / 7, 4 / 7, 0, 2 / 7]), ({"top_p": 0.4}, [0, 1, 0, 0]),
                            ({"temperature": 0.5}, [1 / 22, 16 / 22, 1 / 22, 4 / 22])]:
        np.testing.assert_allclose(probabilities(logits, **rules), expected, rtol=1e-12)


@pytest.mark.parametrize("rules", [
    {"temperature": -1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_k": -1}, {"top_p": 0},
    {"top_p": -0.5}, {"top_p": 1.5}, {"top_p": float("nan")},
], ids=str)
def test_rules_that_make_no_sense_are_one_sentence(rules):
    name, = rules
    with pytest.raises(UserError, match=f"^{name} is "):
        probabilities(np.zeros(3), **rules)
    with pytest.raises(UserError, match=f"^{name} is "):
        text_of(lively_model(), **rules)


def test_tokens_are_drawn_as_often_as_their_probabilities_say():
    model, rng, ids, n = lively_model(), np.random.default_rng(0), [2, 0, 1], 1000
    drawn = [next(generate(model, ids, rng, temperature=1.5)) for _ in range(n)]
    p = probabilities(model(np.array([ids])).data[0, -1], temperature=1.5)
    deviation = np.sqrt(p * (1 - p) / n)
    assert (abs(np.bincount(drawn, minlength=len(p)) / n - p) < 4 * deviation).all()


# ---- the cache ----

@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.integers(1, 3), st.sampled_from(["float32", "float64"]))
def test_any_split_into_pieces_gives_the_logits_of_one_pass(lengths, B, dtype):
    model, T = lively_model(context=32, dtype=dtype), sum(lengths)
    ids = np.random.default_rng(T).integers(TOKENIZER.vocabulary_size, size=(B, T))
    caches, ends = model.new_caches(B), np.cumsum(lengths)
    pieces = [model(ids[:, end - length:end], caches).data for length, end in zip(lengths, ends)]
    whole = model(ids).data
    assert np.abs(whole).max() > 1
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=0,
                               atol={"float32": 1e-4, "float64": 1e-10}[dtype])


def generated_without_cache(model, ids, rng, number, temperature):
    """`number` tokens, each from a pass over the window; when the context is full, its later half goes in anew."""
    context, ids = model.config.context, list(ids)
    begin = max(0, len(ids) - context)
    for _ in range(number):
        if len(ids) - begin > context:
            begin = len(ids) - max(1, context // 2)
        p = probabilities(model(np.array([ids[begin:]])).data[0, -1], temperature)
        ids.append(int(rng.choice(len(p), p=p)))
    return ids[-number:]


@pytest.mark.parametrize("temperature", [0, 2])
@pytest.mark.parametrize("context, prompt", [(1, 1), (2, 1), (5, 2), (8, 3), (8, 8), (8, 11)])
def test_generation_is_the_same_with_the_cache_and_without(context, prompt, temperature):
    model, ids = lively_model(context), [1, 4, 0, 2, 7, 3, 3, 9, 1, 5, 6][:prompt]
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    with_cache = list(islice(generate(model, ids, rng, temperature), 4 * context))
    assert with_cache == generated_without_cache(model, ids, same, 4 * context, temperature)


# ---- the text ----

def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    model = lively_model()
    texts = [text_of(model, seed=seed) for seed in (0, 1, 2)]
    assert len(set(texts)) == 3
    assert texts == [text_of(model, seed=seed) for seed in (0, 1, 2)]
    assert all(len(text) == 30 for text in texts)


def test_of_a_long_prompt_the_last_tokens_of_the_context_count():
    model, prompt = lively_model(context=8), "gfe.dca bbb"
    assert text_of(model, prompt) == text_of(model, prompt[-8:]) != text_of(model, prompt[-7:])


def test_nothing_is_dropped_in_generation():
    assert text_of(lively_model(dropout=0.5)) == text_of(lively_model())


@pytest.mark.parametrize("prompt, part", [("", "the prompt is empty"), ("abxz", "'x', 'z'")])
def test_a_prompt_that_cannot_be_used_is_one_sentence(prompt, part):
    with pytest.raises(UserError, match=part):
        text_of(lively_model(), prompt)


class Reciter:
    """A model and a tokenizer in one: it says the pieces of a text one after the other, whatever it is told."""
    config = SimpleNamespace(context=1000)

    def __init__(self, pieces):
        self.pieces, self.said = pieces, 0

    def __call__(self, ids, caches):
        self.said += 1
        return Tensor(np.eye(len(self.pieces))[None, None, self.said - 1])

    def new_caches(self):
        return [SimpleNamespace(length=0)]

    def encode(self, text):
        return [0]

    def decoder(self):
        return self

    def decode(self, ids, final=False):
        return "".join(self.pieces[i] for i in ids)


def could_become(text, stop):
    """How many characters at the end of a text may be the beginning of `stop`."""
    return max(n for n in range(len(stop)) if text.endswith(stop[:n]))


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=12), st.text("ab", min_size=1, max_size=4))
def test_the_text_ends_before_the_stop_text_and_streams_all_that_is_clear(pieces, stop):
    """Also where the stop text is spread over several tokens, and where a token goes on behind it."""
    model, text, shown = Reciter(pieces), "".join(pieces), [""] * (len(pieces) + 1)     # after so many tokens
    for piece in generate_text(model, model, "prompt", len(pieces), stop=stop, temperature=0):
        shown[model.said:] = [shown[-1] + piece] * (len(pieces) + 1 - model.said)
    assert shown[-1] == (text[:text.find(stop)] if stop in text else text)
    for n in range(model.said):
        said = "".join(pieces[:n])
        assert shown[n] == said[:len(said) - could_become(said, stop)]
    assert model.said == next((n for n in range(len(pieces)) if stop in "".join(pieces[:n])), len(pieces))


@pytest.mark.parametrize("stop", [None, ""])
def test_without_a_stop_text_each_token_is_shown_at_once(stop):
    model = Reciter(["a", "bc", "d"])
    assert list(generate_text(model, model, "prompt", 2, stop=stop, temperature=0)) == ["a", "bc"]
    assert model.said == 2
