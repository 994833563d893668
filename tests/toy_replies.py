"""Replies and models of a few thousand numbers, for the tests of what learns from preferences and rewards."""
import numpy as np
from hypothesis import strategies as st
from lively import V, lively_model

from minigpt.align.comparisons import Comparison
from minigpt.align.replies import Reply
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig

CONTEXT, END, FAVOURITE = 16, 1, 3
NAMES = st.sampled_from(["gpt", "gpt_modern"])
PROMPTS = [np.array([0, i, 2]) for i in range(4, 12)]


def model_of(name="gpt_modern", dtype=np.float64, seed=5):
    return lively_model(name, CONTEXT, dtype, seed)


@st.composite
def some_replies(draw, least=1):
    """Replies of different lengths to prompts of different lengths, within the context."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    lengths = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 8)), min_size=least, max_size=7))
    return [Reply(rng.integers(V, size=p), rng.integers(V, size=r), draw(st.booleans())) for p, r in lengths]


def replies_of(number, seed=0):
    rng = np.random.default_rng(seed)
    return [Reply(rng.integers(V, size=rng.integers(1, 7)), rng.integers(V, size=rng.integers(1, 8))) for _ in range(number)]


def comparisons_of(number, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        prompt = rng.integers(V, size=rng.integers(1, 6))
        found.append(Comparison(*(Reply(prompt, rng.integers(V, size=rng.integers(1, 7))) for _ in range(2))))
    return found


def toy():
    """2 layers, width 32, 16 tokens, which has learnt to end a reply about every fourth token."""
    model = GPTModern(GPTModernConfig(16, CONTEXT, 2, 2, 32), seed=0)
    model.head.w.data[:, END] = 0.0
    model.flat.data[...] += 0.05 * np.random.default_rng(1).standard_normal(len(model.flat), np.float32)
    return model


def favour(replies):
    """The share of the favourite among a reply's tokens."""
    return np.array([np.mean(reply.ids[:-1] == FAVOURITE) if len(reply.ids) > 1 else 0.0 for reply in replies])
