"""layer_norm: give every row mean 0 and variance 1, then a learned scale and shift (Ba, Kiros, Hinton 2016).

Whatever the layers below do to a row's size, the layer above sees numbers of one size, so depth can be trained.
x (..., C); w (C,); b (C,) or None.

    (1)  r    = 1 / sqrt(var(x) + eps)         one number a row; var divides by C
    (2)  xhat = (x - mean(x)) r                (..., C)
    (3)  y    = xhat w + b

Backward. w and b were used by every row, so their gradients are sums over rows:

    (4)  db   = sum over rows of dy            (C,)
    (5)  dw   = sum over rows of dy xhat       (C,)
    (6)  dxh  = dy w                           the gradient by xhat

xhat depends on x_j directly, by the mean (each x_j is 1/C of it), and by r:  d xhat_i / d x_j = r ((i = j) - 1/C -
xhat_i xhat_j / C), where the last term is d r / d x_j = -r^2 xhat_j / C  times  x_i - mean = xhat_i / r.  Hence

    (7)  dx   = r (dxh - mean(dxh) - xhat mean(dxh xhat))

In words: the gradient loses the two directions that the row can't move in, its mean and its length.
Saved: x, w, and two numbers a row. Cost: a few operations a number; it is bound by memory.
"""
import numpy as np

from ..op import op


def layer_norm_forward(x, w, b=None, *, eps=1e-5):
    mean = x.mean(-1, keepdims=True)                                        # (..., 1)
    r = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)                         # (1)  (..., 1)
    y = (x - mean) * r * w                                                  # (2) (3)  (..., C)
    return (y if b is None else y + b), (x, w, mean, r, b is not None)      # (3)


def layer_norm_backward(dy, saved):
    x, w, mean, r, has_b = saved
    xhat = (x - mean) * r                                                   # (2)  (..., C)
    rows = tuple(range(x.ndim - 1))
    db = dy.sum(rows) if has_b else None                                    # (4)  (C,)
    dw = (dy * xhat).sum(rows)                                              # (5)  (C,)
    dxh = dy * w                                                            # (6)  (..., C)
    dx = dxh - dxh.mean(-1, keepdims=True) - xhat * (dxh * xhat).mean(-1, keepdims=True)
    return dx * r, dw, db                                                   # (7)  (..., C)


def check(x, w, b=None, *, eps=1e-5):
    if w.shape != x.shape[-1:] or (b is not None and b.shape != w.shape):
        raise ValueError(f"layer_norm: rows of {x.shape[-1:]} numbers do not fit a scale of {w.shape}"
                         + ("" if b is None else f" and a shift of {b.shape}"))


def check_branch(name, C, O, scale, shift):
    """Raise ValueError where an operation from C numbers a row to O can't be a branch with this scale and shift."""
    if scale is None and shift is not None:
        raise ValueError(f"{name}: a shift without a scale is none of a norm")
    if scale is not None and not scale.shape == (C,) == (O,):
        raise ValueError(f"{name}: a branch reads and writes rows of one size, that of its scale; here they have {C} and {O}, "
                         f"and the scale {scale.shape}")
    if shift is not None and shift.shape != (C,):
        raise ValueError(f"{name}: rows of {C} numbers do not fit a shift of {shift.shape}")


def examples(rng):
    yield (rng.normal(size=(3, 7)), rng.normal(size=7), rng.normal(size=7)), {}
    yield (rng.normal(size=(2, 3, 20)) + 5, rng.normal(size=20)), {"eps": 1e-3}
    yield (rng.normal(size=4), rng.normal(size=4), rng.normal(size=4)), {}


layer_norm = op(layer_norm_forward, layer_norm_backward, examples, check)
