"""rotary on a GPU: launches ext/cuda/rotary.cu. Angles are computed on the host once, and then lie on the device."""
from functools import lru_cache

import numpy as np

from .launch import THREADS, blocks, cupy, launch


@lru_cache(maxsize=16)
def angles(cupy, T, D, begin, base, dtype):
    """cos and sin of (1), arrays (T, D/2) on the device; (B, T, D/2) where `begin` is a tuple."""
    angle = np.add.outer(begin, np.arange(T))[..., None] * base ** (-np.arange(0, D, 2) / D)        # (1)
    return cupy.asarray(np.cos(angle).astype(dtype)), cupy.asarray(np.sin(angle).astype(dtype))


def rotary_forward(x, *, begin=0, base=10000.0):
    cos, sin = angles(cupy(), x.shape[1], x.shape[3], begin, base, x.dtype)
    return turned(x, cos, sin, 1), (cos, sin)


def rotary_backward(dy, saved):
    cos, sin = saved
    return (turned(dy, cos, sin, -1),)


def turned(x, cos, sin, sign):
    """x turned by the angles (sign 1), or back (sign -1)."""
    (_, T, H, D), y = x.shape, np.empty_like(x)
    each = T if cos.ndim == 3 else 0                        # angles from one sequence to the next: none where all share them
    launch("rotary", "turn", blocks(x.size // 2), THREADS, x, cos, sin, sign, y, x.size // 2, T, H, D // 2, each)
    return y
