"""Arguments that do not fit, numbers that are none, and no numbers at all: the same for kernels and reference."""

import numpy as np
import pytest
from inputs import random_seeds, value_and_gradients

from minigpt import ops

ADAMW = {"lr": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "decay": 0.1, "scale": 0.5}


# Arguments that do not fit each other: NumPy notices, and a kernel, which would read past an array's end, must too

def qkv(*lengths, B=2, H=2, D=3):
    return [np.ones((B, length, H, D)) for length in lengths]


MISFITS = {
    "layer_norm with another width of w": lambda: ops.layer_norm(np.ones((4, 6)), np.ones(3), np.ones(6)),
    "layer_norm with another width of b": lambda: ops.layer_norm(np.ones((4, 6)), np.ones(6), np.ones(3)),
    "linear with another width": lambda: ops.linear(np.ones((3, 7)), np.ones((5, 2))),
    "linear with another width of b": lambda: ops.linear(np.ones((3, 7)), np.ones((7, 2)), np.ones(3)),
    "cross_entropy with too many targets": lambda: ops.cross_entropy(np.ones((3, 7)), np.zeros(4, int)),
    "cross_entropy with too few targets": lambda: ops.cross_entropy(np.ones((3, 7)), np.zeros(2, int)),
    "attention with fewer values than keys": lambda: ops.attention(*qkv(4, 5, 3)),
    "attention with another width of keys": lambda: ops.attention(*qkv(4), *qkv(5, 5, D=2)),
    "attention with other heads": lambda: ops.attention(*qkv(4), *qkv(5, 5, H=3)),
    "attention with another batch of keys": lambda: ops.attention(*qkv(4), *qkv(5, 5, B=3)),
    "attention with a mask of another length": lambda: ops.attention(*qkv(4, 5, 5), np.ones((2, 4), bool)),
    "attention with a mask of another batch": lambda: ops.attention(*qkv(4, 5, 5), np.ones((3, 5), bool)),
    "attention with a mask of integers": lambda: ops.attention(*qkv(4, 5, 5), np.ones((2, 5), int)),
    "cross_entropy with targets of floats": lambda: ops.cross_entropy(np.ones((3, 7)), np.ones(3)),
    "attention with too few seeds": lambda: ops.attention(*qkv(4, 5, 5, B=3), None, random_seeds(2), dropout=0.5),
    "dropout with too few seeds": lambda: ops.dropout(np.ones((4, 3)), random_seeds(2), p=0.5),
    "adamw with a short gradient": lambda: ops.adamw_step(
        np.ones(5), np.ones(4), np.ones(5), np.ones(5), **ADAMW, step=1),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_arguments_that_do_not_fit_are_an_error(misfit, backend):
    with pytest.raises((ValueError, IndexError, TypeError)):
        MISFITS[misfit]()


# Numbers that are none, and no numbers at all

NOT_A_NUMBER = {
    "gelu": ops.gelu, "softmax": ops.softmax, "log_softmax": ops.log_softmax,
    "layer_norm": lambda x: ops.layer_norm(x, np.ones_like(x[0]), np.ones_like(x[0])),
    "cross_entropy": lambda x: ops.cross_entropy(x, np.array([1, 1])),
    "attention": lambda x: ops.attention(x.reshape(2, 1, 1, 4), *np.ones((2, 2, 5, 1, 4), x.dtype)),
    "dropout": lambda x: ops.dropout(x, random_seeds(2), p=0.0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NOT_A_NUMBER)
def test_not_a_number_stays_in_sight(name, dtype, backend):
    """A run that has diverged should look like one."""
    some = np.ones((2, 4), dtype)
    some[1, 2] = np.nan
    for x in np.full((2, 4), np.nan, dtype), some:
        y = NOT_A_NUMBER[name](x).data
        assert np.isnan(y).any()
        assert np.isnan(y).all() == (not np.isfinite(x).any() or name == "cross_entropy")


EMPTY = np.zeros((2, 0, 4))
WITHOUT_ROWS = {
    "linear": lambda x: ops.linear(x, np.ones((4, 5)), np.ones(5)), "gelu": ops.gelu, "softmax": ops.softmax,
    "layer_norm": lambda x: ops.layer_norm(x, np.ones(4), np.ones(4)), "log_softmax": ops.log_softmax,
    "cross_entropy": lambda x: ops.cross_entropy(x, np.zeros((2, 0), int)),
    "dropout": lambda x: ops.dropout(x, random_seeds(2), p=0.5),
    "attention": lambda x: ops.attention(*[x.reshape(2, 0, 2, 2)] * 3),
    "matmul": lambda x: x @ np.ones((4, 3)), "sum": lambda x: x.sum(-1),
}


@pytest.mark.parametrize("name", WITHOUT_ROWS)
def test_a_batch_without_rows_is_no_error(name, backend):
    """As when a file ends just there; the last axis, the width, is never 0."""
    _, dx = value_and_gradients(WITHOUT_ROWS[name], EMPTY)
    assert dx.shape == EMPTY.shape
