"""The compiled matrix products of linear, mlp and self_attention, at sizes that cross the limits at which ext/cpu/tile.h cuts them up."""
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from inputs import assert_all_close, value_and_gradients

from minigpt import ops, use
from minigpt.kernels.cpu import share_rows

SIZES = [(97, 385, 513), (193, 100, 31), (17, 769, 5), (100, 7, 1025)]     # 96 rows, 384 deep, 512 wide; tiles of 6 x 16


def agree(f, *arrays, size=1):
    """f on the usual backend gives what it gives on NumPy, and so do its gradients."""
    with use("reference"):
        expected = value_and_gradients(f, *arrays)
    assert_all_close(value_and_gradients(f, *arrays), expected, size)


@pytest.mark.parametrize("N, n_in, n_out", SIZES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_of_any_size_is_numpys(N, n_in, n_out, transposed, dtype):
    rng = np.random.default_rng(N)
    w = rng.normal(size=(n_out, n_in) if transposed else (n_in, n_out)) * n_in ** -0.5
    x, b = rng.normal(size=(N, n_in)), rng.normal(size=n_out)
    x, w, b = (array.astype(dtype) for array in (x, w, b))
    agree(lambda *arrays: ops.linear(*arrays, transposed=transposed), x, w, b)


@pytest.mark.parametrize("N, C, F", SIZES)
@pytest.mark.parametrize("activation", ["gelu", "relu_squared"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mlp_of_any_size_is_numpys(N, C, F, activation, dtype):
    rng = np.random.default_rng(N)
    arrays = (rng.normal(size=(N, C)), rng.normal(size=(C, F)) * C ** -0.5, rng.normal(size=F),
              rng.normal(size=(F, C)) * F ** -0.5, rng.normal(size=C))
    arrays = [array.astype(dtype) for array in arrays]
    norm = [rng.normal(size=C).astype(dtype) for _ in range(2)]
    agree(lambda *arrays: ops.mlp(*arrays, activation=activation), *arrays)
    agree(lambda *arrays: ops.mlp(*arrays, activation=activation), *arrays, *norm)
    with ThreadPoolExecutor(3) as pool, share_rows(pool, 3):
        agree(lambda *arrays: ops.mlp(*arrays, activation=activation), *np.tile(arrays[0], (8, 1))[None], *arrays[1:], *norm,
              size=10)


@pytest.mark.parametrize("B, T, C, E, O", [(5, 97, 33, 132, 17), (1, 201, 400, 24, 530), (7, 40, 17, 200, 9), (4, 3, 5, 400, 31)])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_self_attention_of_any_size_is_numpys_however_many_threads_share_it(B, T, C, E, O, workers, dtype):
    """192 positions are taken at a time, and 512 columns of q, k and v packed; a sequence may be longer, and a batch larger.
    The gradient of what is added to all keys is a sum of T numbers up to 10 that cancel."""
    rng = np.random.default_rng(T)
    layers = [array for n_in, n_out in [(C, E)] * 3 + [(E, O)]
              for array in (rng.normal(size=(n_in, n_out)) * n_in ** -0.5, rng.normal(size=n_out))]
    mask = rng.random((B, T)) < 0.8
    seeds = rng.integers(2 ** 64, size=B, dtype=np.uint64)
    arrays = [array.astype(dtype) for array in (rng.normal(size=(B, T, C)), *layers)]
    branch = [array.astype(dtype) for array in (rng.normal(size=(E, C)) * E ** -0.5, rng.normal(size=C))]
    norm = [array.astype(dtype) for array in (rng.normal(size=C), rng.normal(size=C))]
    with ThreadPoolExecutor(workers) as pool, share_rows(pool, workers) if workers > 1 else nullcontext():
        agree(lambda *arrays: ops.self_attention(*arrays, heads=4, dropout=0.2), *arrays, mask, seeds, size=10)
        agree(lambda *arrays: ops.self_attention(*arrays, heads=4), *arrays[:7], *branch, mask, None, *norm, size=10)
        if E % 8 == 0:
            agree(lambda *arrays: ops.self_attention(*arrays, heads=4, turned=True), *arrays, mask, size=10)


def test_self_attention_says_what_does_not_fit():
    rng = np.random.default_rng(0)
    w, b, x = rng.normal(size=(6, 8)), np.zeros(8), rng.normal(size=(2, 3, 6))
    layers = (w, b, w, None, w, b, rng.normal(size=(8, 5)), None)
    assert ops.self_attention(x, *layers, heads=2).shape == (2, 3, 5)
    with pytest.raises(ValueError, match="8 numbers can't be divided among 3 heads"):
        ops.self_attention(x, *layers, heads=3)
    with pytest.raises(ValueError, match=r"positions of 6 numbers were expected in \(B, T, C\), not \(2, 3, 5\)"):
        ops.self_attention(x[..., :5], *layers, heads=2)
    with pytest.raises(ValueError, match="matrices and shifts of .* do not fit together"):
        ops.self_attention(x, *layers[:3], np.zeros(7), *layers[4:], heads=2)
    with pytest.raises(ValueError, match="heads of 1 numbers can't be turned in pairs"):
        ops.self_attention(x, *layers, heads=8, turned=True)
    with pytest.raises(ValueError, match="there are no positions"):
        ops.self_attention(x[:, :0], *layers, heads=2)
    with pytest.raises(ValueError, match=r"need a mask of \(2, 3\) bools"):
        ops.self_attention(x, *layers, np.ones((2, 4), bool), heads=2)
    with pytest.raises(ValueError, match="self_attention: a branch reads and writes rows of one size"):
        ops.self_attention(x, *layers, None, None, np.ones(6), heads=2)
    with pytest.raises(ValueError, match="mlp: a shift without a scale is none of a norm"):
        ops.mlp(x, np.ones((6, 7)), None, np.ones((7, 6)), None, None, np.ones(6))
    with pytest.raises(ValueError, match=r"mlp: rows of 6 numbers do not fit a shift of \(5,\)"):
        ops.mlp(x, np.ones((6, 7)), None, np.ones((7, 6)), None, np.ones(6), np.ones(5))
