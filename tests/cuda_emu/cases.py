"""What is run on a device and compared with the NumPy version: the same cases on the stand-in for CuPy and on a GPU."""
import numpy as np
import pytest
from numerics import assert_close, cast, examples

from minigpt import op, ops

ON_CUDA = [name for name in op.ALL if "cuda" in op.ALL[name].pairs]


# Sizes that cross every limit of a kernel: rows longer than a block and not a multiple of one, more rows than there are
# parts of a sum, a last block that is almost empty, no rows at all. The small ones are the operation's own examples.

def rows_and_weights(rng):
    for shape in (3, 700), (1100, 5), (2, 2, 64), (1, 1), (0, 9):
        yield (rng.normal(size=shape), rng.normal(size=shape[-1]), rng.normal(size=shape[-1])), {}


LARGE = {
    "layer_norm": rows_and_weights,
}


def large(name):
    """(arrays, constants) of the operation in sizes that cross its kernel's limits."""
    return LARGE[name](np.random.default_rng(1)) if name in LARGE else []


# Pairs

def on_device(cupy, forward, backward):
    """A pair that works on CuPy's arrays as a pair that takes and returns NumPy's."""
    def put(x):
        return None if x is None else cupy.asarray(x)

    def get(x):
        return None if x is None else cupy.asnumpy(x)

    def host_forward(*arrays, **constants):
        y, saved = forward(*map(put, arrays), **constants)
        return get(y), saved

    return host_forward, lambda dy, saved: [get(dx) for dx in backward(put(dy), saved)]


def both_passes(pair, arrays, constants, dtype):
    """y and the gradients, for a dy that is the same for all dtypes and devices."""
    forward, backward = pair
    y, saved = forward(*cast(arrays, dtype), **constants)
    dy = np.cos(np.arange(np.size(y), dtype=np.float32)).reshape(np.shape(y)).astype(dtype)
    return [y, *backward(dy, saved)]


def assert_like_the_reference(cupy, name, arrays, constants, dtype, size=1e-3):
    arrays = cast(arrays, np.float32)               # the same numbers in both dtypes
    expected = both_passes(op.ALL[name].pairs["reference"], arrays, constants, np.float64)
    actual = both_passes(on_device(cupy, *op.ALL[name].pairs["cuda"]), arrays, constants, dtype)
    for i, (found, wanted) in enumerate(zip(actual, expected, strict=True)):
        assert (found is None) == (wanted is None)
        if wanted is not None:
            assert found.dtype == dtype
            assert_close(found, wanted, f"{name}: " + (f"gradient of argument {i - 1}" if i else "y"), size)


# Kernels without a gradient

ADAMW = {"step": 3, "lr": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-2, "decay": 0.1, "scale": 0.5}


def check_adamw_step(cupy, dtype):
    """Slices of a block change, and what lies beside them does not."""
    for P in 0, 1, 37, 256, 1000:
        block = np.random.default_rng(P).uniform(0.1, 1, size=(4, P + 7)).astype(np.float32)
        expected, actual = block.astype(np.float64), cupy.asarray(block.astype(dtype))
        ops.adamw_step.versions["reference"](*(row[3:P + 3] for row in expected), **ADAMW)
        ops.adamw_step(*(row[3:P + 3] for row in actual), **ADAMW)
        for found, wanted in zip(cupy.asnumpy(actual), expected):
            assert_close(found, wanted)


def check_gradient_norm(cupy, dtype):
    for P in 0, 1, 300, 300_000:
        gradient = np.random.default_rng(P).normal(size=P).astype(dtype)
        norm, expected = ops.gradient_norm(cupy.asarray(gradient)), np.linalg.norm(gradient.astype(np.float64))
        assert type(norm) is float and norm == pytest.approx(expected, rel={4: 1e-6, 8: 1e-13}[gradient.itemsize])


SINGLE = {"adamw_step": check_adamw_step, "gradient_norm": check_gradient_norm}


def check_chapter(cupy, chapter, dtype=np.float32):
    """Run everything that is in a chapter; an AssertionError where it differs from the reference."""
    for name in ON_CUDA:
        if op.ALL[name].pairs["cuda"][0].__module__.endswith(f".{chapter}"):
            for arrays, constants in [*examples(name), *large(name)]:
                assert_like_the_reference(cupy, name, arrays, constants, dtype)
    for name, check in SINGLE.items():
        if getattr(ops, name).versions["cuda"].__module__.endswith(f".{chapter}"):
            check(cupy, dtype)
