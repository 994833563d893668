"""rotary: tell attention where things are by turning them (Su et al. 2021, RoFormer).

The D numbers of a query or key are D/2 pairs, (x_i, x_{i + D/2}), each a point in a plane. At position t, pair i is
turned by the angle t f_i: the first pairs fast, the last ones slowly, like the hands of a clock.

    (1)  angle[t, i] = t base^(-2i / D)             i = 0 ... D/2 - 1
    (2)  y1 =  x1 cos + x2 sin                      x1, y1: the first halves of the D numbers
    (3)  y2 = -x1 sin + x2 cos                      x2, y2: the second halves

The product of a query turned by t f and a key turned by s f depends on (t - s) f alone: attention sees distances, and
no table of positions has to be learnt. A turn changes no length, and its transpose is the turn back:

    (4)  dx1 = dy1 cos - dy2 sin
    (5)  dx2 = dy1 sin + dy2 cos

x (B, T, H, D), D even; `begin` is the position of the first of the T: a number, or a tuple of one for each of the B.
Saved: nothing but the angles' sines and cosines, (T, D/2). Cost: 3 D operations a position and head.
"""
from functools import lru_cache

import numpy as np

from ..op import op


@lru_cache(maxsize=8)
def angles(T, D, begin, base):
    """cos and sin of (1), float64 arrays (T, 1, D/2), or (B, T, 1, D/2) where `begin` is a tuple."""
    t = np.add.outer(begin, np.arange(T))                                   # (T,) or (B, T)
    angle = t[..., None, None] * base ** (-np.arange(0, D, 2) / D)          # (1)
    return np.cos(angle), np.sin(angle)


def turned(x, cos, sin, sign):
    """x turned by the angles (sign 1), or back (sign -1)."""
    x1, x2 = x[..., :x.shape[-1] // 2], x[..., x.shape[-1] // 2:]
    y = np.empty_like(x)
    y[..., :x1.shape[-1]] = x1 * cos + x2 * (sign * sin)                    # (2) (4)
    y[..., x1.shape[-1]:] = x2 * cos - x1 * (sign * sin)                    # (3) (5)
    return y


def rotary_forward(x, *, begin=0, base=10000.0):
    cos, sin = (np.asarray(a, x.dtype, like=x) for a in angles(x.shape[1], x.shape[3], begin, base))
    return turned(x, cos, sin, 1), (cos, sin)


def rotary_backward(dy, saved):
    cos, sin = saved
    return (turned(dy, cos, sin, -1),)


def check(x, *, begin=0, base=10000.0):
    if x.ndim != 4 or x.shape[3] % 2:
        raise ValueError(f"rotary: turns pairs of numbers in an array (B, T, H, D) with an even D, not {x.shape}")
    if isinstance(begin, tuple) and len(begin) != len(x):
        raise ValueError(f"rotary: {len(x)} sequences need as many positions to begin at, not {len(begin)}")


def examples(rng):
    yield (rng.normal(size=(2, 5, 3, 4)),), {}
    yield (rng.normal(size=(1, 3, 2, 6)),), {"begin": 7, "base": 100.0}
    yield (rng.normal(size=(2, 3, 1, 8)),), {"begin": (4, 9)}


rotary = op(rotary_forward, rotary_backward, examples, check)
