"""Arrays that are not NumPy's: every reference pair runs through NumPy's dispatch protocol, as it has to for CuPy.

Elsewhere wraps an array as CuPy would: NumPy's functions work on it by __array_function__ and __array_ufunc__, its
methods by name, and whatever would mix it with an array of NumPy's, or turn it into one, is an error. What it can't
show: which of NumPy's functions CuPy lacks.
"""
import numpy as np
import pytest
from numerics import EXAMPLES, assert_close, examples

from minigpt import Tensor, op


class Elsewhere:
    """An array in a place that NumPy can't reach."""

    def __init__(self, hidden):
        self.hidden = np.asarray(hidden)

    shape, dtype, ndim, size, flags = (property(lambda self, name=name: getattr(self.hidden, name))
                                       for name in ("shape", "dtype", "ndim", "size", "flags"))
    T = property(lambda self: Elsewhere(self.hidden.T))

    def __array__(self, *args, **kwargs):
        raise TypeError("an array from elsewhere does not become one of NumPy's by itself")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return wrapped(getattr(ufunc, method)(*map(bare, inputs), **{k: bare(v) for k, v in kwargs.items()}))

    def __array_function__(self, function, types, args, kwargs):
        kwargs = {k: v for k, v in kwargs.items() if k != "like"}
        if function is np.asarray:                  # with like=: the one way to bring an array here
            return Elsewhere(np.asarray(*args, **kwargs))
        return wrapped(function(*bare(args), **{k: bare(v) for k, v in kwargs.items()}))

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        method = getattr(self.hidden, name)
        return lambda *args, **kwargs: wrapped(method(*bare(args), **{k: bare(v) for k, v in kwargs.items()}))

    def __getitem__(self, index):
        return wrapped(self.hidden[bare(index)])

    def __setitem__(self, index, value):
        self.hidden[bare(index)] = bare(value)

    def __len__(self):
        return len(self.hidden)


for operator in "add sub mul truediv pow matmul and or xor rshift lshift lt le gt ge eq ne".split():
    for name in {f"__{operator}__", f"__r{operator}__"} - {f"__r{o}__" for o in ("lt", "le", "gt", "ge", "eq", "ne")}:
        def method(self, other, name=name):
            return wrapped(getattr(self.hidden, name)(bare(other)))
        setattr(Elsewhere, name, method)
for operator in "add sub mul and".split():
    def in_place(self, other, name=f"__i{operator}__"):
        self.hidden = np.asarray(getattr(self.hidden, name)(bare(other)))
        return self
    setattr(Elsewhere, f"__i{operator}__", in_place)
Elsewhere.__neg__ = lambda self: wrapped(-self.hidden)


def bare(x):
    """The hidden array, or whatever is no array; an array of NumPy's, but for scalars, must not come here."""
    if isinstance(x, (tuple, list)):
        return type(x)(bare(part) for part in x)
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError("an array of NumPy's meets one from elsewhere")
    return x.hidden if isinstance(x, Elsewhere) else x


def wrapped(x):
    if isinstance(x, (tuple, list)):
        return type(x)(wrapped(part) for part in x)
    return Elsewhere(x) if isinstance(x, (np.ndarray, np.generic)) else x


@pytest.mark.parametrize("name, i", EXAMPLES)
def test_the_reference_runs_on_arrays_from_elsewhere(name, i):
    arrays, constants = examples(name)[i]
    forward, backward = op.ALL[name].pairs["reference"]
    y, saved = forward(*map(wrapped, arrays), **constants)
    expected_y, expected_saved = forward(*arrays, **constants)
    dy = np.asarray(np.random.default_rng(0).normal(size=np.shape(expected_y)))
    for dx, expected in zip(backward(Elsewhere(dy), saved), backward(dy, expected_saved), strict=True):
        assert (dx is None) == (expected is None)
        if dx is not None:
            assert_close(dx.hidden, expected)
    assert isinstance(y, Elsewhere)
    assert_close(y.hidden, expected_y)


def test_a_tensor_from_elsewhere_takes_python_numbers_and_differentiates():
    x = Tensor(Elsewhere(np.array([1.0, 2.0])), requires_grad=True)
    y = (x * 2 + 1).sum()
    y.backward()
    assert isinstance(x.grad, Elsewhere) and x.grad.hidden.tolist() == [2, 2]


def test_mixing_is_noticed():
    with pytest.raises(TypeError, match="meets one from elsewhere"):
        Elsewhere(np.ones(3)) + np.ones(3)
    with pytest.raises(TypeError, match="does not become"):
        np.asarray(Elsewhere(np.ones(3)))
