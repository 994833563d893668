"""dropout: while training, set each number to 0 with probability p, and scale the others up (Srivastava et al. 2014).

No unit can rely on another one being there, so what is learnt is spread over many.

    (1)  y  = x m / (1 - p)            m = 1 with probability 1 - p, else 0: then the mean of y is x
    (2)  dx = dy m / (1 - p)

x (B, ...): the mask of sequence b follows from seeds[b] and the place alone (philox.py), so it is drawn again in the
backward pass, and nothing is stored. seeds (B,) of uint64. The trainer makes them from (seed, step, index of the
sequence in the global batch), the model folds in the place where it drops: then a block that is recomputed draws the
same mask, and one micro-batch of two sequences draws the masks of two of one.
"""
import numpy as np

from ..op import op
from .philox import check_share, keep_mask


def scaled_mask(x, seeds, p):
    rows = x.reshape(len(seeds), 1, -1, x.shape[-1])                        # one plane of rows for each sequence
    mask = keep_mask(seeds, shape=rows.shape[1:], p=p).reshape(x.shape)
    return mask.astype(x.dtype) * (1 / (1 - p))                             # (1)  0 or 1 / (1 - p)


def dropout_forward(x, seeds, *, p):
    return x * scaled_mask(x, seeds, p), (seeds, p)                         # (1)


def dropout_backward(dy, saved):
    seeds, p = saved
    return dy * scaled_mask(dy, seeds, p), None                             # (2)


def check(x, seeds, *, p):
    if seeds.shape != x.shape[:1] or seeds.dtype != np.uint64:
        raise ValueError(f"dropout: {len(x)} sequences need as many seeds of uint64, not {seeds.shape} of {seeds.dtype}")
    check_share(p)


def examples(rng):
    seeds = rng.integers(2 ** 64, size=3, dtype=np.uint64)
    yield (rng.normal(size=(3, 4, 6)), seeds), {"p": 0.3}
    yield (rng.normal(size=(3, 2, 5, 7)), seeds), {"p": 0.5}
    yield (rng.normal(size=(3, 5)), seeds), {"p": 0.0}


dropout = op(dropout_forward, dropout_backward, examples, check)
