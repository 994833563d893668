"""rms_norm: give every row the length sqrt(C), then a learned scale, or none (Zhang and Sennrich 2019).

Layer norm without the mean and the shift: what matters for training is that rows have one size.
x (..., C); w (C,) or None.

    (1)  r    = 1 / sqrt(mean(x^2) + eps)      one number a row
    (2)  xhat = x r                            (..., C): its numbers are 1 in the root of their mean square
    (3)  y    = xhat w

Backward, as for layer_norm, but for the mean:

    (4)  dw   = sum over rows of dy xhat       (C,)
    (5)  dxh  = dy w                           the gradient by xhat
    (6)  dx   = r (dxh - xhat mean(dxh xhat))

since  d xhat_i / d x_j = r ((i = j) - xhat_i xhat_j / C): the gradient loses the one direction that a row can't move
in, its length. Without w, (3) and (5) are copies, and there is no dw.
Saved: x, w, and one number a row. Cost: a few operations a number; it is bound by memory.
"""
import numpy as np

from ..op import op


def rms_norm_forward(x, w=None, *, eps=1e-6):
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)                  # (1)  (..., 1)
    y = x * r                                                               # (2)  (..., C)
    return (y if w is None else y * w), (x, w, r)                           # (3)  (..., C)


def rms_norm_backward(dy, saved):
    x, w, r = saved
    xhat = x * r                                                            # (2)  (..., C)
    dw = None if w is None else (dy * xhat).sum(tuple(range(x.ndim - 1)))   # (4)  (C,)
    dxh = dy if w is None else dy * w                                       # (5)  (..., C)
    return r * (dxh - xhat * (dxh * xhat).mean(-1, keepdims=True)), dw      # (6)  (..., C)


def check(x, w=None, *, eps=1e-6):
    if w is not None and w.shape != x.shape[-1:]:
        raise ValueError(f"rms_norm: rows of {x.shape[-1:]} numbers do not fit a scale of {w.shape}")


def examples(rng):
    yield (rng.normal(size=(3, 7)), rng.normal(size=7)), {}
    yield (rng.normal(size=(2, 3, 20)) + 1, rng.normal(size=20)), {"eps": 1e-3}
    yield (rng.normal(size=(2, 3, 4, 9)),), {}


rms_norm = op(rms_norm_forward, rms_norm_backward, examples, check)
