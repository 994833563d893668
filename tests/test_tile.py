"""The compiled matrix products of linear and mlp, at sizes that cross the limits at which ext/cpu/tile.h cuts them up."""
import numpy as np
import pytest
from inputs import assert_all_close, value_and_gradients

from minigpt import ops, use

SIZES = [(97, 385, 513), (193, 100, 31), (17, 769, 5), (100, 7, 1025)]     # 96 rows, 384 deep, 512 wide; tiles of 6 x 16


def agree(f, *arrays):
    """f on the usual backend gives what it gives on NumPy, and so do its gradients."""
    with use("reference"):
        expected = value_and_gradients(f, *arrays)
    assert_all_close(value_and_gradients(f, *arrays), expected, size=1)


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
    agree(lambda *arrays: ops.mlp(*arrays, activation=activation), *(array.astype(dtype) for array in arrays))
