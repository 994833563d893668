"""Launching a kernel of ext/cuda: the one place that compiles, checks arguments, and knows sizes of blocks.

A chapter's launch code, minigpt/kernels/cuda/CHAPTER.py, exports the pair of minigpt/ops/CHAPTER.py. It makes the
output arrays and calls

    launch("CHAPTER", "kernel", grid, threads, *arguments)

where grid is a number of blocks, or a tuple of two or three; the arguments are the kernel's, in its order: CuPy arrays
or None for its pointers, Python numbers for the rest. What CuPy does not check is checked here, against the kernel's
own declaration, because on a GPU a wrong argument is no error but a wrong result, or a crash somewhere later.

A .cu is written for one type of floats, `real`, and perhaps for sizes that have to be constants, because numbers in
registers can't be counted while the kernel runs. Its text is compiled once for each type and sizes that are used.
"""
import functools
import operator
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

INSTALLED = Path(__file__).parent / "source"                # in an installed package; in a checkout there is ext/cuda
SOURCES = INSTALLED if INSTALLED.is_dir() else Path(__file__).parents[3] / "ext" / "cuda"
OPTIONS = ("--std=c++17",)

WARP = 32                           # threads that run in step
THREADS = 256                       # a block, where every thread has a number of its own to work on
ROW_THREADS = 512                   # a block at most, where all its threads work on one row
PARTS = 1024                        # blocks at most, where each takes many rows and what they sum is added up later

DTYPES = {"float": np.float32, "double": np.float64, "int": np.int32, "unsigned": np.uint32, "long long": np.int64,
          "unsigned long long": np.uint64, "bool": np.bool_}
REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


def blocks(numbers):
    """How many blocks of THREADS threads give each of `numbers` numbers a thread."""
    return -(-numbers // THREADS)


def row_threads(columns):
    """How many threads a block has that works on a row: whole warps, no more than the row can use."""
    return min(ROW_THREADS, max(1, -(-columns // WARP)) * WARP)


def launch(chapter, kernel, grid, threads, *arguments, shared=0, constants=()):
    """Run a kernel of ext/cuda/CHAPTER.cu on `grid` blocks of `threads` threads, with `shared` bytes of dynamic
    shared memory each; nothing where the grid is empty. constants: pairs (name, integer) that its text needs.

    Inputs (pointers to const) are made contiguous. Raises TypeError, ValueError or OverflowError for arguments that do
    not fit.
    """
    grid = grid if isinstance(grid, tuple) else (grid,)
    if 0 in grid:
        return
    parameters = declarations(chapter)[kernel]
    if len(arguments) != len(parameters):
        raise TypeError(f"{kernel} takes {len(parameters)} arguments, not {len(arguments)}")
    real = type_of_reals(kernel, parameters, arguments)
    fitting = [fit(kernel, parameter, argument, real) for parameter, argument in zip(parameters, arguments)]
    function = compiled(cupy(), chapter, kernel, real, constants, shared)
    function(grid, (threads,), tuple(fitting), shared_mem=shared)


def launch_each(chapter, kernel, *inputs):
    """An array like the first input, that the kernel fills with a thread for each number: it takes the inputs, the
    array, and how many numbers that has."""
    y = np.empty_like(inputs[0])
    launch(chapter, kernel, blocks(y.size), THREADS, *inputs, y, y.size)
    return y


def cupy():
    """The module CuPy, imported the first time that somebody hands in one of its arrays."""
    import cupy
    return cupy


@functools.cache
def compiled(cupy, chapter, kernel, real, constants, shared):
    """The kernel, compiled for this type of floats and these constants, and allowed its share of shared memory."""
    function = module(cupy, chapter, real, constants).get_function(kernel)
    if shared > 48 * 1024:                                  # what a block gets without asking
        function.max_dynamic_shared_size_bytes = shared
    return function


@functools.cache
def module(cupy, chapter, real, constants):
    return cupy.RawModule(code=source(chapter, real, constants), options=OPTIONS)


# What stands in a .cu

def source(chapter, real, constants=()):
    """The text to compile: `real` and the constants defined, and each #include "NAME.cuh" replaced by that file (CuPy's
    cache of compiled kernels goes by the text alone, so an included file that was changed would go unnoticed)."""
    lines = (SOURCES / f"{chapter}.cu").read_text(encoding="utf-8").splitlines()
    for i, line in enumerate(lines):
        if included := re.fullmatch(r'#include "(\w+\.cuh)"', line):
            text = (SOURCES / included[1]).read_text(encoding="utf-8")
            lines[i] = f'#line 1 "{included[1]}"\n{text}#line {i + 2} "{chapter}.cu"'
    defined = [f"typedef {real} real;", *(f"constexpr int {name} = {value};" for name, value in constants)]
    return "\n".join([*defined, f'#line 1 "{chapter}.cu"', *lines, ""])


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: a number, or a pointer to numbers; `type` is a key of DTYPES, or "real"."""
    name: str
    type: str
    pointer: bool
    const: bool

    def dtype(self, real):
        return np.dtype(DTYPES[real if self.type == "real" else self.type])


@functools.cache
def declarations(chapter):
    """{kernel: its parameters} of ext/cuda/CHAPTER.cu, read from the text."""
    text = (SOURCES / f"{chapter}.cu").read_text(encoding="utf-8")
    kernels = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)', text)
    return {name: [declared(parameter) for parameter in parameters.split(",")] for name, parameters in kernels}


def declared(text):
    """The Parameter that a piece of C like `const real *__restrict__ x` declares."""
    const, kind, star, name = re.fullmatch(r"\s*(const )?([\w ]+?) (\*(?:__restrict__ )?)?(\w+)\s*", text).groups()
    if kind not in DTYPES and kind != "real":
        raise TypeError(f"a kernel's parameter is `{text.strip()}`, but has to be of real, {', '.join(DTYPES)}")
    return Parameter(name, kind, bool(star), bool(const))


# Arguments

def type_of_reals(kernel, parameters, arguments):
    """What `real` is for these arguments: "float" or "double", the type of the arrays that are handed in as reals."""
    dtypes = {argument.dtype for parameter, argument in zip(parameters, arguments)
              if parameter.pointer and parameter.type == "real" and hasattr(argument, "dtype")}
    if len(dtypes) > 1 or not dtypes <= set(REALS):
        raise TypeError(f"{kernel} takes arrays of float32 or of float64, not of {', '.join(sorted(map(str, dtypes)))}")
    return REALS[dtypes.pop()] if dtypes else "float"


def fit(kernel, parameter, argument, real):
    """The argument as CuPy has to get it: an array that the kernel can read, or a number of its parameter's type."""
    dtype, what = parameter.dtype(real), f"{kernel}: {parameter.name}"
    if not parameter.pointer:
        if not isinstance(argument, (int, float, np.generic)):
            raise TypeError(f"{what} is a number, not {type(argument).__module__}.{type(argument).__name__}")
        return dtype.type(operator.index(argument) if dtype.kind in "iu" else argument)     # never 2 for 2.5
    if argument is None:
        return None
    if not isinstance(argument, cupy().ndarray):
        raise TypeError(f"{what} is an array of CuPy's, not {type(argument).__module__}.{type(argument).__name__}")
    if argument.dtype != dtype:
        raise TypeError(f"{what} is an array of {dtype}, not of {argument.dtype}")
    if argument.flags.c_contiguous:
        return argument
    if parameter.const:
        return argument.copy(order="C")
    raise ValueError(f"{what} is written to, so it has to be contiguous")
