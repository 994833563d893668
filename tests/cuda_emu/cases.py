"""What is run on a device and compared with the NumPy version: the same cases on the stand-in for CuPy and on a GPU."""
import importlib

import numpy as np
import pytest
from numerics import assert_close, cast, examples

from minigpt import Tensor, op, ops
from minigpt.kernels.cuda import launch

ON_CUDA = [name for name in op.ALL if "cuda" in op.ALL[name].pairs]


def constants_of(chapter, real):
    """The sets of constants that a chapter's text is compiled with: for most only an empty one."""
    code = importlib.import_module(f"minigpt.kernels.cuda.{chapter}")
    if not hasattr(code, "WIDTHS"):
        return [()]
    return [code.constants(width, np.dtype(launch.DTYPES[real]).itemsize) for width in code.WIDTHS]


# Sizes that cross every limit of a kernel: rows longer than a block and not a multiple of one, more rows than there are
# parts of a sum, a last block that is almost empty, no rows at all. The small ones are the operation's own examples.

SIZES = (3, 700), (1100, 5), (2, 2, 64), (1, 3), (0, 9)


def rows(rng):
    return [((2 * rng.normal(size=shape),), {}) for shape in SIZES]


def rows_and_weights(rng):
    for (x,), _ in rows(rng):
        yield (x, rng.normal(size=x.shape[-1]), rng.normal(size=x.shape[-1])), {}


def rows_and_scale(rng):
    for (x, w, _), _ in rows_and_weights(rng):
        yield (x, w), {}
        yield (x, None), {}


def rows_and_targets(rng):
    for (x,), _ in rows(rng):
        t = rng.integers(-1, x.shape[-1], size=x.shape[:-1])
        yield (x, t), {}
        yield (x, np.full_like(t, 3)), {"ignore_index": 3, "total": 7}
    yield (np.array([[-np.inf, 1, -np.inf, 2], [88, -88, 700, 0]]), np.array([3, 2])), {}


def rows_and_matrices(rng):
    for (x,), _ in rows(rng):
        C, F = x.shape[-1], max(1, 600 - x.shape[-1])
        for activation, b in ("gelu", rng.normal(size=F)), ("relu_squared", None):
            w1, w2 = rng.normal(size=(C, F)) / C ** 0.5, rng.normal(size=(F, 3))
            yield (x, w1, b, w2, None if b is None else rng.normal(size=3)), {"activation": activation}
            branch = rng.normal(size=(F, C)), None, rng.normal(size=C), None if b is None else rng.normal(size=C)
            yield (x, w1, b, *branch), {"activation": activation}


def tables_and_ids(rng):
    for V, C, N in (3, 70, 500), (300, 33, 41), (1, 1, 1), (5, 3, 0), (2100, 33, 9):
        yield (rng.normal(size=(V, C)), rng.integers(V, size=N)), {}


def numbers(rng):
    return [((3 * rng.normal(size=shape),), {}) for shape in ((255,), (256,), (3, 171), (0,))]


def sequences_and_seeds(rng):
    for shape in (2, 3, 701), (3, 5, 2, 4), (2, 0, 8), (1, 1):
        seeds = rng.integers(2 ** 64, size=shape[0], dtype=np.uint64)
        yield (rng.normal(size=shape), seeds), {"p": 0.3}


def heads(rng):
    for shape in (2, 3, 4, 64), (1, 70, 2, 16), (0, 3, 2, 4), (1, 1, 1, 2):
        yield (rng.normal(size=shape),), {"begin": 5}


def queries_and_keys(rng):
    """Tiles that are full, almost empty and one number too small; a cache; keys that nobody sees; wide heads."""
    for (B, T, S, H, D), masked, dropout, causal in (
            ((2, 67, 33, 1, 5), True, 0.3, True), ((1, 35, 99, 2, 3), False, 0.0, True),
            ((2, 33, 70, 1, 20), True, 0.4, False), ((3, 1, 65, 2, 16), False, 0.0, True),
            ((1, 1, 1, 1, 1), False, 0.0, True), ((0, 3, 5, 2, 8), False, 0.0, True),
            ((1, 65, 34, 1, 64), False, 0.2, True), ((1, 34, 66, 1, 100), True, 0.1, True)):
        q, k, v = (3 * rng.normal(size=(B, N, H, D)) for N in (T, S, S))
        mask, seeds = rng.random((B, S)) < 0.7, rng.integers(2 ** 64, size=B, dtype=np.uint64)
        mask[1:] = False
        yield (q, k, v, mask if masked else None, seeds), {"causal": causal, "dropout": dropout}


def positions_and_layers(rng):
    """More heads than one, a mask, dropout; layers without shifts."""
    for (B, T, C, E, O, H), biased, dropout in ((2, 35, 5, 12, 7, 3), True, 0.3), ((1, 70, 9, 8, 3, 1), False, 0.0):
        layers = [array for n_in, n_out in [(C, E)] * 3 + [(E, O)]
                  for array in (rng.normal(size=(n_in, n_out)) / n_in ** 0.5, rng.normal(size=n_out) if biased else None)]
        layers[3] = None                            # its gradient is nothing but rounding
        mask, seeds = rng.random((B, T)) < 0.7, rng.integers(2 ** 64, size=B, dtype=np.uint64)
        constants = {"heads": H, "causal": biased, "dropout": dropout}
        yield (rng.normal(size=(B, T, C)), *layers, mask, seeds), constants
        layers[6:] = rng.normal(size=(E, C)), rng.normal(size=C)
        yield (rng.normal(size=(B, T, C)), *layers, mask, seeds, rng.normal(size=C), rng.normal(size=C)), constants


LARGE = {
    "attention": queries_and_keys, "cross_entropy": rows_and_targets, "dropout": sequences_and_seeds,
    "embedding": tables_and_ids, "gelu": numbers, "layer_norm": rows_and_weights, "log_softmax": rows,
    "mlp": rows_and_matrices, "relu": numbers, "relu_squared": numbers, "rms_norm": rows_and_scale, "rotary": heads,
    "self_attention": positions_and_layers, "sigmoid": numbers, "softmax": rows, "tanh": numbers,
}


def large(name):
    """(arrays, constants) of the operation in sizes that cross its kernel's limits."""
    return list(LARGE[name](np.random.default_rng(1)))


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


def check_fold_in(cupy, dtype):
    for shape in (0,), (3,), (2, 129):
        seeds = np.random.default_rng(0).integers(2 ** 64, size=shape, dtype=np.uint64)
        for n in 0, 5, 2 ** 32 - 1:
            new = cupy.asnumpy(ops.fold_in(cupy.asarray(seeds), n=n))
            np.testing.assert_array_equal(new, ops.fold_in.versions["reference"](seeds, n=n))


SINGLE = {"fold_in": check_fold_in, "adamw_step": check_adamw_step, "gradient_norm": check_gradient_norm}


# Values that the reference would refuse: looking at them would mean to wait for the device

def check_wrong_ids(cupy):
    for wrong in -1, 5, 2 ** 40:
        w = Tensor(cupy.asarray(np.ones((5, 40), np.float32)), requires_grad=True)
        y = ops.embedding(w, cupy.asarray(np.array([2, wrong, 4])))
        assert np.isnan(cupy.asnumpy(y.data)).all(1).tolist() == [False, True, False]
        y.backward(cupy.asarray(np.ones((3, 40), np.float32)))
        assert cupy.asnumpy(w.grad).sum(1).tolist() == [0, 0, 40, 0, 40]


def check_wrong_targets(cupy):
    for wrong in -2, 7, 2 ** 40:
        logits = cupy.asarray(np.ones((3, 7), np.float32))
        assert np.isnan(ops.cross_entropy(logits, cupy.asarray(np.array([2, wrong, -1]))).item())


WRONG_VALUES = {"embedding": check_wrong_ids, "cross_entropy": check_wrong_targets}


def check_chapter(cupy, chapter, dtype=np.float32):
    """Run everything that is in a chapter; an AssertionError where it differs from the reference."""
    for name in ON_CUDA:
        if op.ALL[name].pairs["cuda"][0].__module__.endswith(f".{chapter}"):
            for arrays, constants in [*examples(name), *large(name)]:
                assert_like_the_reference(cupy, name, arrays, constants, dtype)
    for name, check in SINGLE.items():
        if getattr(ops, name).versions["cuda"].__module__.endswith(f".{chapter}"):
            check(cupy, dtype)
    if chapter in WRONG_VALUES:
        WRONG_VALUES[chapter](cupy)
