"""A stand-in for CuPy: the names of it that the project uses, on NumPy arrays and the emulator, and nothing else.

Installed as the module `cupy` (see conftest.py), it lets the launch code, and every NumPy pair that runs on CuPy arrays
by NumPy's dispatch, run where there is no GPU. It is stricter than CuPy: what on a GPU would be a wrong result or a
crash somewhere later is an error here. Where CuPy is installed, test_cuda_launch.py checks that it has every name that
stands here. It can't show what CuPy computes, only how it is asked. It notes each launch, and each copy between host
and device.
"""
import os
import types

import numpy as np

from . import emulator

__version__ = "0 (a stand-in for tests)"

# What of NumPy may be called on device arrays: CuPy has all of these under the same names. Whoever needs another one
# adds it here.
FUNCTIONS = set("""argsort asarray arange broadcast_arrays broadcast_to clip concatenate diag dot empty empty_like nonzero
    ones ones_like split stack sum tri where zeros zeros_like linalg.norm""".split())
UFUNCS = set("add divide exp log logaddexp maximum minimum multiply sqrt subtract tanh add.at".split())
METHODS = set("astype copy max mean min reshape sum swapaxes transpose var".split())
OPERATORS = set("""add sub mul truediv pow matmul and or xor rshift lshift lt le gt ge eq ne radd rsub rmul rtruediv iadd
    isub imul iand""".split())


class ndarray:
    """An array on the device: NumPy's functions, methods and operators work on it, and mixing it with one on the
    host, or turning it into one other than by get(), is an error."""

    def __init__(self, hidden):
        self.hidden = np.asarray(hidden)

    shape, dtype, ndim, size, nbytes, flags = (
        property(lambda self, name=name: getattr(self.hidden, name))
        for name in ("shape", "dtype", "ndim", "size", "nbytes", "flags"))
    T = property(lambda self: ndarray(self.hidden.T))

    def get(self):
        """A copy on the host."""
        COPIES.append(("out", self.nbytes))
        return self.hidden.copy()

    def item(self):
        return self.get().item()

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if name not in UFUNCS:
            raise TypeError(f"numpy.{name} is not among the names of CuPy that the stand-in has")
        return wrapped(getattr(ufunc, method)(*map(bare, inputs), **{key: bare(value) for key, value in kwargs.items()}))

    def __array_function__(self, function, types, args, kwargs):
        name = f"{function.__module__}.{function.__name__}".removeprefix("numpy.")
        if name not in FUNCTIONS:
            raise TypeError(f"numpy.{name} is not among the names of CuPy that the stand-in has")
        kwargs.pop("like", None)
        if name == "asarray":                       # with like=: the way to bring an array here
            return asarray(*args, **kwargs)
        made = function(*bare(args), **{key: bare(value) for key, value in kwargs.items()})
        return poisoned(made) if name in ("empty", "empty_like") else wrapped(made)

    def __getitem__(self, index):
        return wrapped(self.hidden[bare(index)])

    def __setitem__(self, index, value):
        self.hidden[bare(index)] = bare(value)

    def __len__(self):
        return len(self.hidden)

    def __iter__(self):
        return (wrapped(part) for part in self.hidden)

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __neg__(self):
        return wrapped(-self.hidden)

    def __repr__(self):
        return f"device {self.hidden!r}"


def method_of(name):
    return lambda self, *args, **kwargs: wrapped(
        getattr(self.hidden, name)(*bare(args), **{key: bare(value) for key, value in kwargs.items()}))


def operator_of(name):
    if name.startswith("i"):
        def in_place(self, other):
            getattr(self.hidden, f"__{name}__")(bare(other))        # the same memory, so that a view stays a view
            return self
        return in_place
    if name == "matmul":
        return lambda self, other: wrapped(factor(self.hidden) @ factor(bare(other)))
    return lambda self, other: wrapped(getattr(self.hidden, f"__{name}__")(bare(other)))


def factor(x):
    """A factor of a matrix product as a GPU takes it: with CUPY_TF32=1, float32 is cut off after 10 bits of mantissa
    (a GPU may round instead, which is off by half of that)."""
    if os.environ.get("CUPY_TF32") != "1" or x.dtype != np.float32:
        return x
    return (x.copy(order="C").view(np.uint32) & np.uint32(0xffffe000)).view(np.float32)


for name in METHODS:
    setattr(ndarray, name, method_of(name))
for name in OPERATORS:
    setattr(ndarray, f"__{name}__", operator_of(name))
ndarray.__hash__ = None


def bare(x):
    """The hidden array, or whatever is no array. An array on the host must not come here: CuPy takes numbers only."""
    if isinstance(x, (tuple, list)):
        return type(x)(bare(part) for part in x)
    if isinstance(x, np.ndarray):
        raise TypeError("an array on the host meets one on the device")
    return x.hidden if isinstance(x, ndarray) else x


def wrapped(x):
    """What NumPy returned, its arrays on the device; scalars too, since CuPy's reductions give arrays of shape ()."""
    if isinstance(x, (tuple, list)):
        return type(x)(wrapped(part) for part in x)
    return ndarray(x) if isinstance(x, (np.ndarray, np.generic)) else x


def poisoned(array):
    """Memory that was not written yet: NaN, or numbers that are far out of any range."""
    array.reshape(-1).view(np.uint8).fill(0xff)
    return ndarray(array)


def asarray(x, dtype=None):
    """The array on the device; from the host it is copied."""
    if not isinstance(x, ndarray):
        made = np.array(x, dtype)
        COPIES.append(("in", made.nbytes))
        return ndarray(made)
    return x if dtype in (None, x.dtype) else x.astype(dtype)


def asnumpy(x):
    """The array on the host."""
    return x.get() if isinstance(x, ndarray) else np.asarray(x)


# Kernels

ORDER = "forward"                                   # in which the emulator runs threads, warps and blocks
LAUNCHES = []                                       # (kernel, grid, block), for tests that ask what was launched
COPIES = []                                         # ("in" or "out", bytes), for tests that ask what was copied


class RawModule:
    """A text of CUDA C, compiled for the emulator."""

    def __init__(self, *, code, options=()):
        if options != ("--std=c++17",):
            raise ValueError(f"the emulator is compiled with --std=c++17, not with {options}")
        self.module = emulator.Module(code.split('"')[1].removesuffix(".cu"), code)

    def get_function(self, name):
        if name not in self.module.types:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found ({name})")
        return RawKernel(self.module, name)


class RawKernel:
    """One kernel of a module, to be called with a grid, a block and arguments."""
    MOST_SHARED = 99 * 1024                         # the least of what GPUs of compute capability 8.0 to 9.0 grant

    def __init__(self, module, name):
        self.module, self.name, self.granted = module, name, 48 * 1024

    @property
    def max_dynamic_shared_size_bytes(self):
        return self.granted

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        if size > self.MOST_SHARED:
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {size} bytes of shared memory")
        self.granted = size

    def __call__(self, grid, block, args, *, shared_mem=0):
        if type(grid) is not tuple or type(block) is not tuple:
            raise TypeError("a grid and a block are tuples")
        grid, block = ((*size, 1, 1)[:3] for size in (grid, block))
        threads = block[0] * block[1] * block[2]
        if (min(*grid, *block) < 1 or threads > 1024 or threads % 32 or grid[0] >= 2 ** 31
                or max(grid[1:]) > 65535 or shared_mem > self.granted):
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: grid {grid}, block {block}, {shared_mem} bytes shared")
        types = self.module.types[self.name]
        if len(args) != len(types):
            raise TypeError(f"{self.name} takes {len(types)} arguments, not {len(args)}")
        given = [self.argument(i, arg, *types[i]) for i, arg in enumerate(args)]
        buffers = [(i, arg.hidden.ctypes.data, arg.nbytes, arg.dtype.itemsize)
                   for i, arg in enumerate(args) if isinstance(arg, ndarray)]
        LAUNCHES.append((self.name, grid, block))
        self.module.launch(self.name, grid, block, given, buffers, shared_mem, ORDER)

    def argument(self, i, arg, kind, dtype):
        """The bytes that CuPy would pass, as an array of one number, if they are those that the kernel reads: CuPy
        passes Python's floats as float64 and integers as int64, and does not ask what the kernel takes."""
        what = f"argument {i} of {self.name}"
        if kind == " ":
            if not isinstance(arg, (bool, int, float, np.generic)):
                raise TypeError(f"{what}: a number of {dtype} is expected, not {type(arg).__name__}")
            given = np.array([arg])
            if given.dtype != dtype:
                raise TypeError(f"{what}: a number of {dtype} is expected, but CuPy would pass one of {given.dtype}")
            return given
        if arg is None:
            return np.zeros(1, np.uint64)
        if not isinstance(arg, ndarray):
            raise TypeError(f"{what}: an array on the device is expected, not {type(arg).__name__}")
        if arg.dtype != dtype or not arg.flags.c_contiguous:
            raise TypeError(f"{what}: a contiguous array of {dtype} is expected, not one of {arg.dtype} with strides "
                            f"{arg.hidden.strides}")
        return np.array([arg.hidden.ctypes.data], np.uint64)


class CUDARuntimeError(RuntimeError):
    """What a call of CUDA's runtime raises."""


cuda = types.SimpleNamespace(
    Device=lambda: types.SimpleNamespace(id=0, compute_capability="80", synchronize=lambda: None),
    runtime=types.SimpleNamespace(CUDARuntimeError=CUDARuntimeError, driverGetVersion=lambda: 12090,
                                  getDeviceCount=lambda: 1, getDeviceProperties=lambda i: {"name": b"an emulator"}))


def get_default_memory_pool():
    """What CuPy has taken of the device's memory; the emulator has none."""
    return types.SimpleNamespace(total_bytes=lambda: 0)
