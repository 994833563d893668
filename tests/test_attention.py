"""attention: what its equations say, who may look where, padding, and dropout."""
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from inputs import assert_all_close, attention_inputs, random_seeds, value_and_gradients
from numerics import assert_close

from minigpt import Tensor, ops, use
from minigpt.ops.philox import keep_mask


def seen_by(mask, causal, B, T, S):
    """Which keys each query may look at: (B, 1, T, S)."""
    seen = np.tri(T, S, S - T, dtype=bool) if causal else np.ones((T, S), bool)
    return seen & (np.ones((B, 1, 1, S), bool) if mask is None else mask[:, None, None])


def attention_by_primitives(q, k, v, mask, seeds, *, causal, dropout):
    """Equations (1) to (3), an operation of its own each, and differentiated by the engine."""
    B, T, H, D = q.shape
    S = k.shape[1]
    x = (q.transpose(0, 2, 1, 3) @ k.transpose(0, 2, 3, 1)) * D ** -0.5
    p = ops.softmax(x + np.where(seen_by(mask, causal, B, T, S), 0, -np.inf))
    M = keep_mask(seeds, shape=(H, T, S), p=dropout) / (1 - dropout)
    return ((p * M) @ v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)


@given(inputs=attention_inputs())
def test_attention_is_what_its_equations_say(inputs, backend):
    (q, k, v, mask, seeds), constants = inputs
    seen = seen_by(mask, constants["causal"], len(q), q.shape[1], k.shape[1])
    assume(seen.any(-1).all())                      # the softmax of nothing is none
    assert_all_close(
        value_and_gradients(lambda *qkv: ops.attention(*qkv, mask, seeds, **constants), q, k, v),
        value_and_gradients(lambda *qkv: attention_by_primitives(*qkv, mask, seeds, **constants), q, k, v),
        size=1)                                     # of one key, P (dP - c) is the difference of equal numbers


def test_without_queries_no_key_gets_a_gradient(backend):
    k, v = (Tensor(np.ones((2, 5, 3, 4)), requires_grad=True) for _ in range(2))
    np.full_like(k.data, np.nan)                    # where memory is used again, it holds this
    y = ops.attention(np.ones((2, 0, 3, 4)), k, v)
    y.backward(np.empty_like(y.data))
    assert (k.grad == 0).all() and (v.grad == 0).all()


@given(inputs=attention_inputs())
def test_a_query_that_sees_no_key_gives_zero_and_finite_gradients(inputs, backend):
    (q, k, v, mask, seeds), constants = inputs
    y, dq, dk, dv = value_and_gradients(lambda *qkv: ops.attention(*qkv, mask, seeds, **constants), q, k, v)
    blind = ~seen_by(mask, constants["causal"], len(q), q.shape[1], k.shape[1]).any(-1)[:, 0]     # (B, T)
    assert (y[blind] == 0).all() and (dq[blind] == 0).all()
    assert all(np.isfinite(x).all() for x in (y, dq, dk, dv))


@given(inputs=attention_inputs(), data=st.data())
def test_what_comes_later_changes_nothing_earlier(inputs, data, backend):
    (q, k, v, mask, seeds), constants = inputs
    T, S = q.shape[1], k.shape[1]
    now = data.draw(st.integers(0, T - 1))          # the query looks at keys up to `now` + S - T
    later = max(0, now + S - T + 1)
    changed_k, changed_v = k.copy(), v.copy()
    changed_k[:, later:], changed_v[:, later:] = 7, -7
    settings = {**constants, "causal": True}
    np.testing.assert_array_equal(ops.attention(q, k, v, mask, seeds, **settings).data[:, :now + 1],
                                  ops.attention(q, changed_k, changed_v, mask, seeds, **settings).data[:, :now + 1])


def test_a_key_in_sight_does_matter(backend):
    """So that the test above can't pass because nothing matters."""
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, 5, 2, 4))
    changed = k.copy()
    changed[:, 3] += 1
    moved = (ops.attention(q, k, v).data != ops.attention(q, changed, v).data).any((0, 2, 3))
    assert moved.tolist() == [False, False, False, True, True]


@given(inputs=attention_inputs(dropouts=[0.0]))
def test_padding_is_as_if_these_keys_were_not_there(inputs, backend):
    (q, k, v, mask, _), _ = inputs
    mask = np.ones(k.shape[:2], bool) if mask is None else mask
    y, dq, dk, dv = value_and_gradients(lambda *qkv: ops.attention(*qkv, mask, causal=False), q, k, v)
    assert (dk[~mask] == 0).all() and (dv[~mask] == 0).all()
    for b in np.nonzero(mask.any(1))[0]:
        one = slice(b, b + 1)
        assert_close(ops.attention(q[one], k[one, mask[b]], v[one, mask[b]], causal=False).data, y[one])


@given(inputs=attention_inputs())
def test_a_batch_is_its_sequences_each_alone(inputs, backend):
    (q, k, v, mask, seeds), constants = inputs
    together = value_and_gradients(lambda *qkv: ops.attention(*qkv, mask, seeds, **constants), q, k, v)
    dy = np.cos(np.arange(q.size)).reshape(q.shape)
    for b in range(len(q)):
        one = slice(b, b + 1)
        leaves = [Tensor(x[one].copy(), requires_grad=True) for x in (q, k, v)]
        y = ops.attention(*leaves, None if mask is None else mask[one], seeds[one], **constants)
        y.backward(dy[one])
        assert_all_close([y.data] + [x.grad for x in leaves], [x[one] for x in together])


def test_dropout_in_attention_keeps_the_mean_and_repeats_itself(backend):
    """Values of 1 and no queries: each y is the share of keys that was kept, over 1 - p."""
    B, T, S = 50, 4, 60
    q, k, v = np.zeros((B, T, 2, 3)), np.ones((B, S, 2, 3)), np.ones((B, S, 2, 3))
    y, again, other = (ops.attention(q, k, v, None, seeds, causal=False, dropout=0.25).data
                       for seeds in (random_seeds(B), random_seeds(B), random_seeds(B) + np.uint64(1)))
    np.testing.assert_array_equal(y, again)
    assert (y != other).any()
    assert abs(y.mean() - 1) < 6 * math.sqrt(0.25 / 0.75 / (B * T * 2 * S))
    np.testing.assert_array_equal(ops.attention(q, k, v, None, random_seeds(B), causal=False).data,
                                  ops.attention(q, k, v, causal=False).data)


@pytest.mark.parametrize("T, S", [(64, 64), (65, 65), (130, 130), (17, 150), (150, 70), (81, 93)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_queries_and_keys_give_what_numpy_gives(T, S, causal, dtype):
    """Compiled versions go through them block by block; these sizes begin several, and end in the middle of one."""
    rng, B, H, D = np.random.default_rng(T), 2, 3, 20
    q, k, v = (rng.normal(size=(B, N, H, D)).astype(dtype) for N in (T, S, S))
    mask, seeds = rng.random((B, S)) < 0.8, random_seeds(B)
    for padding, share in (None, 0.0), (mask, 0.3):
        def attend(*qkv):
            return ops.attention(*qkv, padding, seeds, causal=causal, dropout=share)

        with use("reference"):
            expected = value_and_gradients(attend, q, k, v)
        assert_all_close(value_and_gradients(attend, q, k, v), expected, size=1)
