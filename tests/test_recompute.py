"""recompute: what is computed again in the backward pass is not kept, and nothing else changes."""
import tracemalloc

import numpy as np
from numerics import assert_close
from test_tensor import leaf

from minigpt import Tensor, no_grad, op, ops, recompute, use

W = leaf(4, 4, seed=2).data
SEEDS = np.arange(2, dtype=np.uint64)


def block(x, y, w):
    """Two inputs, a parameter that is no input, dropout, and a part that is used twice."""
    h = ops.tanh((x * y) @ w)
    return ops.dropout(h, SEEDS, p=0.5) * x + h


def gradients_of_block(wrap):
    """The value and all gradients of a chain of two blocks, each called through `wrap`."""
    x, y, w = leaf(2, 4), leaf(2, 4, seed=1), Tensor(W, requires_grad=True)
    h = wrap(lambda a, b: block(a, b, w), x * 2, y)
    z = wrap(lambda a, b: block(a, b, w), h, y)
    z.backward(np.arange(8.0).reshape(2, 4))
    return [z.data, x.grad, y.grad, w.grad]


def test_recompute_changes_neither_values_nor_gradients(backend):
    plain = gradients_of_block(lambda f, *inputs: f(*inputs))
    nested = gradients_of_block(lambda f, *inputs: recompute(lambda *again: recompute(f, *again), *inputs))
    for wrapped in gradients_of_block(recompute), nested:
        for actual, expected in zip(wrapped, plain, strict=True):
            assert_close(actual, expected)


def test_recompute_keeps_integers_as_they_are():
    table, ids = leaf(5, 3), np.array([1, 4, 1])
    recompute(lambda w, i: ops.embedding(w, i), table, ids).backward(np.ones((3, 3)))
    np.testing.assert_array_equal(table.grad[:, 0], [0, 2, 0, 0, 1])


def test_recompute_of_what_needs_no_gradient_is_harmless():
    """A frozen part of a model may be wrapped as well."""
    x = leaf(3)
    frozen = recompute(lambda a: a * 2, Tensor(np.ones(3)))
    (frozen * x).sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 2, 2])


def kept_bytes(wrap):
    """How many bytes a chain of ten blocks keeps for its backward pass."""
    x, w = leaf(64, 100), leaf(100, 100)
    tracemalloc.start()
    try:
        for _ in range(10):
            x = wrap(lambda a: ops.tanh(ops.gelu(ops.tanh(a @ w)) * ops.exp(a)), x)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_recompute_keeps_only_the_inputs_of_blocks():
    one = 64 * 100 * 8
    assert kept_bytes(recompute) < 11 * one < 40 * one < kept_bytes(lambda f, *inputs: f(*inputs))


def test_recompute_runs_the_same_backend_the_second_time_and_builds_a_graph_only_then():
    """backward() may be called outside of the use() that the forward pass ran in."""
    seen = []

    def spy(x):
        y = x * 2
        seen.append((op.forced.get(), y.requires_grad))
        return y

    with use("reference"):
        y = recompute(spy, leaf(3))
    y.backward(np.ones(3))
    assert seen == [("reference", False), ("reference", True)]


def test_recompute_without_a_graph_computes_once():
    calls = []
    with no_grad():
        recompute(lambda x: calls.append(1) or x * 2, leaf(3))
    assert calls == [1]
