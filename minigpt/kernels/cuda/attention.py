"""attention on a GPU: launches ext/cuda/attention.cu, which says what a block does, and with which threads.

The more bytes a row has, the fewer rows fit into a tile: what a block takes of shared memory stays below 64 KB, the least
that any GPU since 2017 has, for every width and dtype, and below the 48 KB that need not be asked for in float32 up to a
width of 64. Heads of more than 128 numbers run the NumPy version.
"""
import numpy as np

from .launch import launch

THREADS = 128                       # 16 by 8
BLOCKS = 3                          # on a multiprocessor, as far as registers go
WIDTHS = 32, 64, 128                # of a row in a tile: the least that holds a head is taken


def constants(D, itemsize):
    """What attention.cu needs for heads of D numbers: a tuple of pairs."""
    width = next(width for width in WIDTHS if D <= width)
    forward, backward, other = {256: (4, 2, 4), 512: (4, 2, 2), 1024: (2, 1, 1)}[max(256, width * itemsize)]
    return (("WIDTH", width), ("OWN_FORWARD", forward), ("OWN_BACKWARD", backward), ("OTHER", other),
            ("THREADS", THREADS), ("BLOCKS", BLOCKS))


def tiles(which, D, itemsize, *, own, other, weights):
    """Rows of the block's own tile, and what else a launch needs.

    which: "OWN_FORWARD" or "OWN_BACKWARD"; own, other, weights: how many tiles of each kind there are in shared memory.
    """
    of = dict(constants(D, itemsize))
    row, rows, others = of["WIDTH"] + 4, 16 * of[which], 8 * of["OTHER"]
    numbers = own * rows * row + other * others * row + weights * rows * (others + 4)
    return rows, {"shared": numbers * itemsize, "constants": constants(D, itemsize)}


def attention_forward(q, k, v, mask=None, seeds=None, *, causal=True, dropout=0.0):
    (B, T, H, D), S = q.shape, k.shape[1]
    if D > WIDTHS[-1]:
        return NotImplemented                                               # its tiles would not fit
    y, l = np.empty_like(q), np.empty((B, H, T), q.dtype, like=q)
    rows, needs = tiles("OWN_FORWARD", D, q.dtype.itemsize, own=1, other=2, weights=1)
    launch("attention", "attention_forward", -(-T // rows) * B * H, THREADS, q, k, v,
           *options(mask, seeds, causal, dropout, D), y, l, T, S, H, D, **needs)
    return y, (q, k, v, mask, seeds, y, l, causal, dropout)


def attention_backward(dy, saved):
    q, k, v, mask, seeds, y, l, causal, dropout = saved
    (B, T, H, D), S = q.shape, k.shape[1]
    c, dq, dk, dv = np.empty_like(l), np.empty_like(q), np.empty_like(k), np.empty_like(v)
    given = dy, q, k, v, *options(mask, seeds, causal, dropout, D)
    rows, needs = tiles("OWN_BACKWARD", D, q.dtype.itemsize, own=2, other=2, weights=1)
    launch("attention", "attention_backward_queries", -(-T // rows) * B * H, THREADS, *given, y, l, c, dq, T, S, H, D,
           **needs)
    rows, needs = tiles("OWN_BACKWARD", D, q.dtype.itemsize, own=2, other=2, weights=2)
    launch("attention", "attention_backward_keys", -(-S // rows) * B * H, THREADS, *given, l, c, dk, dv, T, S, H, D,
           **needs)
    return dq, dk, dv, None, None


def options(mask, seeds, causal, dropout, D):
    """What stands between the arrays and the results in each kernel's list of arguments."""
    return (mask, seeds if dropout > 0 else None, int(dropout * 2 ** 32), 1 / (1 - dropout), int(causal), D ** -0.5)
