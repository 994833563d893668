"""op(): joins a forward and a backward into one function of Tensors, and picks the kernel that runs it.

An operation is a pair of plain functions of arrays:

    y, saved     = NAME_forward(*arrays, **constants)
    dx, dw, ...  = NAME_backward(dy, saved)             one gradient (or None) for each array, in order

The chapter minigpt/ops/CHAPTER.py holds the pair in NumPy: the reference. A compiled version, if there is one, is a
pair of the same two names in ext/cpu/CHAPTER.pyx, built into minigpt/kernels/cpu; one for a GPU stands in
ext/cuda/CHAPTER.cu, launched by minigpt/kernels/cuda/CHAPTER.py. Which of them runs is decided at each call: CuPy
arrays run the CUDA version, NumPy arrays the compiled one, and either the reference where there is no such version
(CuPy's through NumPy's own dispatch), where its forward pass returns NotImplemented because it was not made for such
sizes, or inside `with use("reference")`. Both passes of one call run on the same one.

What every pair may rely on, because it is seen to here and in tensor.py: arrays are C-contiguous; arrays of floats,
dy included, are of one dtype; Python numbers have become arrays of that dtype; integer and bool arrays and None come
as they are. What every pair promises: it writes to none of them, and the dtype that goes in comes out.
"""
import contextvars
import functools
import numbers
from contextlib import contextmanager

import numpy as np

from . import kernels
from .tensor import Node, Tensor, contiguous, parents_of, recording

ALL = {}                                            # every operation by name: filled by op(), read by the tests
forced = contextvars.ContextVar("forced", default=None)


def op(forward, backward, examples, check=None):
    """The operation, as a function of Tensors, arrays and Python numbers (and constants by keyword) to a Tensor.

    examples(rng) yields (arrays, constants) in float64, every size different: what the tests run it on.
    check(*arrays, **constants), where NumPy would not notice by itself, raises a ValueError, IndexError or TypeError
    for arguments that do not fit: before either version runs, so that a compiled one needs no checks of its own.
    """
    name = forward.__name__.removesuffix("_forward")
    if name in ALL:
        raise ValueError(f"there is an operation called {name} already")
    pairs = versions(forward, backward)

    @functools.wraps(forward)
    def run(*inputs, **constants):
        arrays = as_arrays(name, inputs)
        if check is not None:
            check(*arrays, **constants)
        forward, backward = chosen(pairs, arrays)
        result = forward(*arrays, **constants)
        if result is NotImplemented:
            forward, backward = pairs["reference"]
            result = forward(*arrays, **constants)
        y, saved = result
        if recording.get() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
            return Tensor(y, node=Node(backward, saved, parents_of(inputs), y))
        return Tensor(y)

    run.__name__ = run.__qualname__ = name
    run.pairs, run.examples = pairs, examples
    ALL[name] = run
    return run


def kernel(reference, check=None):
    """A function of arrays without a gradient, with the same choice between its NumPy and its compiled version."""
    functions = {backend: single for backend, (single,) in versions(reference).items()}

    @functools.wraps(reference)
    def run(*arrays, **constants):
        arrays = [None if x is None else contiguous(x) for x in arrays]
        if check is not None:
            check(*arrays, **constants)
        return chosen(functions, arrays)(*arrays, **constants)

    run.versions = functions
    return run


def versions(*functions):
    """{"reference": functions, and "cpu" and "cuda": their namesakes, if the chapter has a kernel file with them}."""
    chapter = functions[0].__module__.rpartition(".")[2]
    found = {"reference": functions}
    for backend in kernels.BACKENDS:
        module = kernels.load(backend, chapter)
        if all(hasattr(module, function.__name__) for function in functions):
            found[backend] = tuple(getattr(module, function.__name__) for function in functions)
    return found


def chosen(available, arrays):
    """What runs on these arrays: the forced backend, else the fastest one for their kind."""
    backend = forced.get() or ("cpu" if isinstance(arrays[0], np.ndarray) else "cuda")
    return available.get(backend) or available["reference"]


@contextmanager
def use(backend):
    """Inside `with use("reference"):` every operation runs its NumPy version; use("cpu") asks for the compiled ones,
    use("cuda") for those of a GPU, which take CuPy arrays."""
    if backend not in ("reference", *kernels.BACKENDS):
        raise ValueError(f"no backend is called {backend!r}: there are 'reference', 'cpu' and 'cuda'")
    if backend == "cpu" and not kernels.cpu.available():
        raise RuntimeError(f"no compiled kernels: {kernels.cpu.why_not()}")
    if backend == "cuda" and not kernels.cuda.available():
        raise RuntimeError(f"no CUDA kernels: {kernels.cuda.why_not()}")
    token = forced.set(backend)
    try:
        yield
    finally:
        forced.reset(token)


def as_arrays(name, inputs):
    """The arrays of an operation's inputs: contiguous, the floats among them of one dtype."""
    arrays, dtype = [], None
    for x in inputs:
        if isinstance(x, Tensor):
            array = x.data
            if array.dtype is not dtype and array.dtype.kind == "f":
                if dtype is not None and array.dtype != dtype:
                    raise TypeError(f"{name}: a tensor of {dtype} and one of {array.dtype} do not mix; convert one of them")
                dtype = array.dtype
            arrays.append(array)
        elif x is None:
            arrays.append(None)
    if len(arrays) == len(inputs):                  # the usual case, only tensors, and tensors are contiguous
        return arrays
    if dtype is None:                               # no tensor of floats: the first array of floats decides
        dtype = next((x.dtype for x in inputs if hasattr(x, "dtype") and x.dtype.kind == "f"), np.dtype(np.float64))
    like = next((x.data for x in inputs if isinstance(x, Tensor)), None)
    return [as_array(x, dtype, like) for x in inputs]


def as_array(x, dtype, like):
    """One input as a contiguous array: floats and Python numbers of `dtype`, integers and bools as they are.

    A number becomes an array of the kind of `like`, a NumPy or CuPy array (or None).
    """
    if x is None:
        return None
    if isinstance(x, Tensor):
        return x.data
    if isinstance(x, numbers.Real) and not isinstance(x, bool):
        return np.asarray(x, dtype, like=like)
    if not hasattr(x, "dtype"):
        return as_array(np.asarray(x, like=like), dtype, like)
    return contiguous(x.astype(dtype, copy=False) if x.dtype.kind == "f" else x)
