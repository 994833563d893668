"""Arrays that are not NumPy's: every reference pair runs through NumPy's dispatch protocol, as it has to for CuPy.

The stand-in for CuPy (tests/cuda_emu) lets NumPy's functions work on its arrays by __array_function__ and
__array_ufunc__, those that CuPy has and no others; mixing its arrays with NumPy's, or turning one into another, is an
error.
"""
import numpy as np
import pytest
from cuda_emu.stand_in import ndarray, wrapped
from numerics import EXAMPLES, assert_close, examples

from minigpt import Tensor, op


@pytest.mark.parametrize("name, i", EXAMPLES)
def test_the_reference_runs_on_arrays_from_elsewhere(name, i):
    arrays, constants = examples(name)[i]
    forward, backward = op.ALL[name].pairs["reference"]
    y, saved = forward(*map(wrapped, arrays), **constants)
    expected_y, expected_saved = forward(*arrays, **constants)
    dy = np.asarray(np.random.default_rng(0).normal(size=np.shape(expected_y)))
    for dx, expected in zip(backward(ndarray(dy), saved), backward(dy, expected_saved), strict=True):
        assert (dx is None) == (expected is None)
        if dx is not None:
            assert_close(dx.hidden, expected)
    assert isinstance(y, ndarray)
    assert_close(y.hidden, expected_y)


def test_a_tensor_from_elsewhere_takes_python_numbers_and_differentiates():
    x = Tensor(ndarray(np.array([1.0, 2.0])), requires_grad=True)
    y = (x * 2 + 1).sum()
    y.backward()
    assert isinstance(x.grad, ndarray) and x.grad.hidden.tolist() == [2, 2]


def test_mixing_is_noticed():
    with pytest.raises(TypeError, match="on the host meets one on the device"):
        ndarray(np.ones(3)) + np.ones(3)
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(ndarray(np.ones(3)))
    with pytest.raises(TypeError, match="numpy.kron is not among the names"):
        np.kron(ndarray(np.ones(3)), ndarray(np.ones(3)))
    with pytest.raises(TypeError, match="numpy.arctan is not among the names"):
        np.arctan(ndarray(np.ones(3)))
