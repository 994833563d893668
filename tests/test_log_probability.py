"""log_probability and entropy: what makes them what they are, on inputs that hypothesis draws."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import any_number, floats, log_probability_inputs, rows, value_and_gradients
from numerics import assert_close

from minigpt import Tensor, ops


@given(inputs=log_probability_inputs())
def test_a_log_probability_is_a_choice_from_log_softmax(inputs):
    (logits, ids), _ = inputs
    chosen = np.eye(logits.shape[-1])[ids]
    expected = value_and_gradients(lambda x: (ops.log_softmax(x) * chosen).sum(-1), logits)
    for actual, wanted in zip(value_and_gradients(lambda x: ops.log_probability(x, ids), logits), expected, strict=True):
        assert_close(actual, wanted, size=3)


@given(inputs=log_probability_inputs())
def test_cross_entropy_is_minus_its_mean(inputs):
    (logits, ids), _ = inputs
    if ids.size:
        assert ops.cross_entropy(logits, ids).item() == pytest.approx(-ops.log_probability(logits, ids).data.mean())


@given(x=rows(), dtype=st.sampled_from([np.float32, np.float64]), scale=st.sampled_from([1, 100, 1e4]))
def test_log_probabilities_are_never_above_zero_and_entropy_never_below(x, dtype, scale):
    x = (scale * x).astype(dtype)
    for t in range(x.shape[-1]):
        assert (ops.log_probability(x, np.full(x.shape[:-1], t)).data <= 0).all()
    h = ops.entropy(x).data
    assert h.dtype == dtype and (h >= 0).all() and (h <= np.log(x.shape[-1]) + 1e-5).all()


@given(x=rows())
def test_entropy_is_the_sum_that_defines_it(x):
    def by_its_parts(x):
        log_p = ops.log_softmax(x)
        return -(ops.exp(log_p) * log_p).sum(-1)

    for actual, wanted in zip(value_and_gradients(ops.entropy, x), value_and_gradients(by_its_parts, x), strict=True):
        assert_close(actual, wanted, size=3)


def test_entropy_of_a_sure_choice_is_zero_and_of_equal_ones_log_v():
    x = Tensor(np.array([[0, -np.inf, -np.inf], [2.0, 2.0, 2.0]]), requires_grad=True)
    h = ops.entropy(x)
    np.testing.assert_allclose(h.data, [0, np.log(3)], atol=1e-15)
    h.backward(np.ones(2))
    np.testing.assert_allclose(x.grad, 0, atol=1e-15)


@given(a=floats((3, 4), any_number))
def test_of_equal_numbers_the_gradient_flows_once(a):
    for choose in ops.minimum, ops.maximum:
        x, y = (Tensor(a.copy(), requires_grad=True) for _ in range(2))
        choose(x, y).backward(np.ones_like(a))
        np.testing.assert_array_equal(x.grad, 1)
        np.testing.assert_array_equal(y.grad, 0)


def test_softplus_of_large_numbers_does_not_overflow():
    for dtype in np.float32, np.float64:
        np.testing.assert_allclose(ops.softplus(np.array([-1e4, 0, 1e4], dtype)).data, [0, np.log(2), 1e4], rtol=1e-6)


@pytest.mark.parametrize("ids, error", [([0, 3], IndexError), ([0, -1], IndexError), ([0.0, 1.0], ValueError),
                                        ([0], ValueError)])
def test_tokens_that_do_not_fit_are_an_error(ids, error):
    with pytest.raises(error, match="log_probability"):
        ops.log_probability(np.zeros((2, 3)), np.array(ids))
