"""Every operation, every backend, every example: enumerated from minigpt.op.ALL, so a new operation is tested too.

An operation is a pair of functions with rules (minigpt/op.py); each test here checks one of the rules.
"""
import inspect

import numpy as np
import pytest
from numerics import PAIRS_AND_EXAMPLES, assert_close, cast, check_pair, examples, is_float

from minigpt import Tensor, op, use

each_pair = pytest.mark.parametrize("name, backend, i", PAIRS_AND_EXAMPLES)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def both_passes(pair, arrays, constants, seed=1):
    """y, the gradients, and dy: drawn in float64 whatever the dtype, so that two dtypes can be compared."""
    forward, backward = pair
    y, saved = forward(*arrays, **constants)
    dtype = next(x.dtype for x in arrays if is_float(x))
    dy = np.asarray(np.random.default_rng(seed).normal(size=np.shape(y))).astype(np.float32).astype(dtype)
    return y, backward(dy, saved), dy


@each_pair
def test_the_backward_pass_is_the_derivative_of_the_forward_pass(name, backend, i):
    arrays, constants = examples(name)[i]
    check_pair(*op.ALL[name].pairs[backend], arrays, constants, f"{name}, example {i}, {backend}")


@each_dtype
@each_pair
def test_every_backend_agrees_with_the_reference_in_float64(name, backend, i, dtype):
    arrays, constants = examples(name)[i]
    arrays = cast(arrays, np.float32)               # the same numbers in both dtypes
    y, gradients, _ = both_passes(op.ALL[name].pairs[backend], cast(arrays, dtype), constants)
    true_y, true_gradients, _ = both_passes(op.ALL[name].pairs["reference"], cast(arrays, np.float64), constants)
    assert_close(y, true_y, f"{name}, example {i}: y")
    for j, (dx, true_dx) in enumerate(zip(gradients, true_gradients, strict=True)):
        if true_dx is None:
            assert dx is None
        else:
            assert_close(dx, true_dx, f"{name}, example {i}: gradient of argument {j}")


@each_dtype
@each_pair
def test_the_dtype_that_goes_in_comes_out(name, backend, i, dtype):
    arrays, constants = examples(name)[i]
    y, gradients, _ = both_passes(op.ALL[name].pairs[backend], cast(arrays, dtype), constants)
    assert y.dtype == dtype
    assert {dx.dtype for dx in gradients if dx is not None} <= {np.dtype(dtype)}


@each_pair
def test_there_is_one_gradient_for_each_argument_in_its_shape(name, backend, i):
    arrays, constants = examples(name)[i]
    _, gradients, _ = both_passes(op.ALL[name].pairs[backend], arrays, constants)
    parameters = inspect.signature(op.ALL[name].pairs["reference"][0]).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    assert len(gradients) == (len(arrays) if any_number else len(positional))
    for j, dx in enumerate(gradients):
        x = arrays[j] if j < len(arrays) else None
        assert (None if dx is None else dx.shape) == (x.shape if is_float(x) else None), f"argument {j}"


def arrays_in(saved):
    """The arrays in what a forward pass kept, however deep."""
    if isinstance(saved, np.ndarray):
        return [saved]
    return [array for part in saved for array in arrays_in(part)] if isinstance(saved, (tuple, list)) else []


def read_only(arrays):
    for x in arrays:
        x.flags.writeable = False
    return arrays


@each_pair
def test_neither_pass_writes_to_what_it_was_given(name, backend, i):
    """The arrays are read-only, which NumPy and Cython respect, and compared, should a pointer not care."""
    arrays, constants = examples(name)[i]
    forward, backward = op.ALL[name].pairs[backend]
    inputs = read_only([x for x in arrays if x is not None])
    y, saved = forward(*arrays, **constants)
    kept = read_only([np.asarray(np.random.default_rng(2).normal(size=np.shape(y))), *arrays_in(saved)])
    bytes_before = [x.tobytes() for x in kept]
    once, twice = backward(kept[0], saved), backward(kept[0], saved)
    assert [x.tobytes() for x in kept] == bytes_before
    assert [x.tobytes() for x in inputs] == [x.tobytes() for x in examples(name)[i][0] if x is not None]
    for dx, dx_again in zip(once, twice, strict=True):
        np.testing.assert_array_equal(dx, dx_again)


def through_the_engine(name, backend, arrays, constants, dy):
    tensors = [Tensor(x, requires_grad=True) if is_float(x) else x for x in arrays]
    with use(backend):
        y = op.ALL[name](*tensors, **constants)
    y.backward(dy)
    return [y.data] + [x.grad for x in tensors if isinstance(x, Tensor)]


def other_layouts(x):
    """The numbers of x as they may lie in memory: by columns, with gaps, backwards."""
    if x is None:
        return [None] * 3
    with_gaps = np.repeat(x[..., None], 2, -1)[..., 0]
    return [x.copy(order="F"), with_gaps, np.ascontiguousarray(x[..., ::-1])[..., ::-1] if x.ndim else x]


@each_pair
def test_the_layout_of_arrays_and_dy_in_memory_does_not_matter(name, backend, i):
    arrays, constants = examples(name)[i]
    dy = both_passes(op.ALL[name].pairs[backend], arrays, constants)[2]
    expected = through_the_engine(name, backend, arrays, constants, dy)
    for layout in range(3):
        laid_out = [other_layouts(x)[layout] for x in arrays]
        for result in (through_the_engine(name, backend, laid_out, constants, dy),
                       through_the_engine(name, backend, arrays, constants, other_layouts(dy)[layout])):
            for actual, wanted in zip(result, expected, strict=True):
                np.testing.assert_array_equal(actual, wanted)


@each_pair
def test_dy_may_be_a_number_that_was_broadcast(name, backend, i):
    arrays, constants = examples(name)[i]
    y = op.ALL[name].pairs[backend][0](*arrays, **constants)[0]
    stretched = np.broadcast_to(np.float64(0.7), np.shape(y))
    for actual, wanted in zip(through_the_engine(name, backend, arrays, constants, stretched),
                              through_the_engine(name, backend, arrays, constants, stretched.copy()), strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_there_are_operations_and_each_has_examples_of_several_sizes():
    assert len(op.ALL) >= 20
    for name in op.ALL:
        sizes = {size for arrays, _ in examples(name) for x in arrays if x is not None for size in x.shape}
        assert len(sizes - {0, 1}) >= 2, f"{name}: a mixed-up axis could hide"
