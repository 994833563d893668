"""What must hold for all inputs, on inputs that hypothesis draws (tests/inputs.py): shapes, values, masks, constants.

After the two properties that all operations share come those that make each operation what it is; those of attention
and of what follows from it stand in test_attention.py.
"""
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from inputs import INPUTS, assert_all_close, cross_entropy_inputs, embedding_inputs, floats, rows, value_and_gradients
from numerics import PAIRS, assert_close, cast, check_pair

from minigpt import Tensor, op, ops


def test_every_operation_has_a_strategy():
    assert set(INPUTS) == set(op.ALL)


# What all operations share

@pytest.mark.parametrize("name, backend", PAIRS)
@given(data=st.data())
def test_the_backward_pass_is_the_derivative(name, backend, data):
    arrays, constants = data.draw(INPUTS[name])
    check_pair(*op.ALL[name].pairs[backend], arrays, constants, f"{name}, {backend}")


@pytest.mark.parametrize("name", [name for name, backend in PAIRS if backend == "cpu"])
@given(data=st.data())
def test_the_compiled_kernel_agrees_with_the_reference(name, data):
    arrays, constants = data.draw(INPUTS[name])
    rounded = cast(arrays, np.float32)
    for dtype in np.float32, np.float64:
        results = []
        for backend, its_dtype in ("cpu", dtype), ("reference", np.float64):
            forward, backward = op.ALL[name].pairs[backend]
            y, saved = forward(*cast(rounded, its_dtype), **constants)
            dy = np.cos(np.arange(np.size(y), dtype=np.float32)).reshape(np.shape(y)).astype(its_dtype)
            results.append([y, *(dx for dx in backward(dy, saved) if dx is not None)])
        for fast, reference in zip(*results, strict=True):
            assert_close(fast, reference, name, size=1)


# softmax and log_softmax

@given(x=rows(st.floats(-50, 50)), shift=st.floats(-1000, 1000))
def test_softmax_gives_probabilities_and_ignores_a_shift(x, shift, backend):
    p = ops.softmax(x).data
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(ops.softmax(x + shift).data, p, atol=1e-10)


@given(x=rows(), data=st.data())
def test_minus_infinity_gets_probability_zero_and_no_gradient(x, data, backend):
    hidden = data.draw(hnp.arrays(bool, x.shape))
    hidden[..., 0] = False                          # something is left to choose from
    p, dx = value_and_gradients(ops.softmax, np.where(hidden, -np.inf, x))
    assert (p[hidden] == 0).all() and (dx[hidden] == 0).all() and np.isfinite(dx).all()
    log_p, dx = value_and_gradients(ops.log_softmax, np.where(hidden, -np.inf, x))
    assert (log_p[hidden] == -np.inf).all() and np.isfinite(dx).all()
    assert_close(np.exp(log_p), p)


@given(x=rows())
def test_log_softmax_is_the_logarithm_of_softmax(x, backend):
    assert_all_close(value_and_gradients(ops.log_softmax, x), value_and_gradients(lambda x: ops.log(ops.softmax(x)), x))


def test_softmax_of_large_numbers_does_not_overflow(backend):
    for dtype in np.float32, np.float64:
        x = np.array([[1e4, -1e4, 0], [1e4, 1e4, -1e30], [-1e4, -1e4, -2e4]], dtype)
        np.testing.assert_allclose(ops.softmax(x).data, [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]], atol=1e-3)
        assert np.isfinite(ops.log_softmax(x).data).all()


# layer_norm

@given(x=rows())
def test_layer_norm_gives_rows_of_mean_0_and_variance_1(x, backend):
    C = x.shape[-1]
    x = x + np.linspace(0, 9, C)                    # not constant
    y = ops.layer_norm(x, np.ones(C), np.zeros(C), eps=0.0 if C > 1 else 1.0).data
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(-1), min(C - 1, 1), rtol=1e-10)


def test_layer_norm_of_numbers_far_from_zero_does_not_cancel(backend):
    """In float32, the mean of the squares less the square of the mean would be nothing but rounding here."""
    x = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32) + np.float32(1000)
    y = ops.layer_norm(x, np.ones(40, np.float32), np.zeros(40, np.float32)).data
    exact = ops.layer_norm(x.astype(np.float64), np.ones(40), np.zeros(40)).data
    np.testing.assert_allclose(y, exact, atol=2e-3)


# gelu

@given(x=st.floats(-30, 30))
def test_gelu_is_the_one_of_the_papers(x, backend):
    exact = x * 0.5 * (1 + math.erf(x / math.sqrt(2)))
    assert ops.gelu(x, approximate=False).item() == pytest.approx(exact, rel=1e-12, abs=1e-14)
    assert ops.gelu(x).item() == pytest.approx(exact, abs=1e-3)


def test_gelu_of_numbers_of_any_size_is_right_in_float32_too(backend):
    """What it is made of, exp(-2u), is beyond a float32 from x = 10 on."""
    sizes = np.geomspace(1e-3, 1e12, 999, dtype=np.float32)
    one = np.ones((1, 1), np.float32)
    for f in ops.gelu, lambda x: ops.mlp(x.reshape(-1, 1), one, None, one, None).reshape(-1):
        x = Tensor(np.concatenate([-sizes, sizes]), requires_grad=True)
        exact = Tensor(x.data.astype(np.float64), requires_grad=True)
        with np.errstate(over="ignore"):
            y, exact_y = f(x), ops.gelu(exact)
            y.backward(np.ones_like(y.data))
            exact_y.backward(np.ones_like(exact_y.data))
        np.testing.assert_allclose(y.data, exact_y.data, rtol=2e-6, atol=1e-6)
        np.testing.assert_allclose(x.grad, exact.grad, rtol=2e-6, atol=2e-6)


# cross_entropy

def cross_entropy_by_primitives(logits, targets, ignore_index, total):
    """Equations (1) and (2), a sum over one-hot rows; a row that doesn't count has none."""
    one_hot = (targets[..., None] == np.arange(logits.shape[-1])) & (targets != ignore_index)[..., None]
    counted = max(int((targets != ignore_index).sum()), 1)
    return (ops.log_softmax(logits) * one_hot).sum() * (-1 / (counted if total is None else total))


@given(inputs=cross_entropy_inputs())
def test_cross_entropy_is_log_softmax_and_a_choice(inputs, backend):
    (x, t), constants = inputs
    assert_all_close(value_and_gradients(lambda x: ops.cross_entropy(x, t, **constants), x),
                     value_and_gradients(lambda x: cross_entropy_by_primitives(x, t, **constants), x))


@given(inputs=cross_entropy_inputs(), data=st.data())
def test_rows_that_are_ignored_do_not_matter(inputs, data, backend):
    (x, t), constants = inputs
    ignored = t == constants["ignore_index"]
    other = np.where(ignored[..., None], data.draw(floats(x.shape)), x)
    loss, dx = value_and_gradients(lambda x: ops.cross_entropy(x, t, **constants), x)
    other_loss, other_dx = value_and_gradients(lambda x: ops.cross_entropy(x, t, **constants), other)
    assert loss == other_loss and (dx[ignored] == 0).all()
    np.testing.assert_array_equal(dx, other_dx)


@given(k=st.integers(1, 4), seed=st.integers(0, 99))
def test_micro_batches_with_a_common_total_sum_to_the_batch(k, seed, backend):
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(12, 3, 7)), rng.integers(-1, 7, size=(12, 3))
    assume((t >= 0).any())
    loss, dx = value_and_gradients(lambda x: ops.cross_entropy(x, t), x)
    parts = [value_and_gradients(lambda x, i=i: ops.cross_entropy(x, t[i::k], total=int((t >= 0).sum())), x[i::k])
             for i in range(k)]
    assert_close(np.array(sum(part for part, _ in parts)), loss)
    for i in range(k):
        assert_close(parts[i][1], dx[i::k])


def test_a_batch_of_nothing_but_ignored_rows_costs_nothing(backend):
    loss, dx = value_and_gradients(lambda x: ops.cross_entropy(x, np.full(3, -1)), np.ones((3, 5)))
    assert loss == 0 and (dx == 0).all()


@pytest.mark.parametrize("wrong", [-2, 5, 2 ** 40])
def test_a_target_that_is_no_token_is_an_error(wrong, backend):
    with pytest.raises(IndexError, match=r"0 \.\.\. 4"):
        ops.cross_entropy(np.ones((3, 5)), np.array([0, wrong, -1]))


# embedding

@pytest.mark.parametrize("wrong", [-1, 5, 2 ** 40])
def test_an_id_that_is_not_in_the_table_is_an_error(wrong, backend):
    with pytest.raises(IndexError, match=f"id {wrong} is outside"):
        ops.embedding(np.ones((5, 2)), np.array([[0, wrong]]))


def test_ids_are_integers(backend):
    for ids in np.array([0.0, 1.0]), np.array([True, False]):
        with pytest.raises(TypeError, match="ids are integers"):
            ops.embedding(np.ones((5, 2)), ids)


@given(inputs=embedding_inputs())
def test_embedding_is_the_product_with_one_hot_rows(inputs, backend):
    (w, ids), _ = inputs
    one_hot = (ids.reshape(-1, 1) == np.arange(len(w))).astype(float)
    assert_all_close(value_and_gradients(lambda w: ops.embedding(w, ids), w),
                     value_and_gradients(lambda w: (one_hot @ w).reshape(*ids.shape, w.shape[1]), w))
