"""rotary on the CPU. Equations (1)-(5) are derived in minigpt/ops/rotary.py."""
from functools import lru_cache

import numpy as np
from cython cimport floating


@lru_cache(maxsize=16)
def angles(T, D, begin, base, dtype):
    """cos and sin of (1), arrays (1, T, D/2), or (B, T, D/2) where `begin` is a tuple."""
    t = np.add.outer(np.atleast_1d(begin), np.arange(T))
    angle = t[:, :, None] * base ** (-np.arange(0, D, 2) / D)                               # (1)
    return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def rotary_forward(x, *, begin=0, base=10000.0):
    cos, sin = angles(x.shape[1], x.shape[3], begin, base, x.dtype)
    return turned(x, cos, sin, 1), (cos, sin)


def rotary_backward(dy, saved):
    cos, sin = saved
    return turned(dy, cos, sin, -1),


def turned(x, cos, sin, int sign):
    """x turned by the angles (sign 1), or back (sign -1)."""
    y = np.empty_like(x)
    if x.dtype == np.float32:
        turn[float](x, cos, sin, sign, y)
    else:
        turn[double](x, cos, sin, sign, y)
    return y


cdef void turn(const floating[:, :, :, ::1] x, const floating[:, :, ::1] cos,
               const floating[:, :, ::1] sin, int sign, floating[:, :, :, ::1] y):
    cdef Py_ssize_t b, t, h, i, own, half = cos.shape[2]
    cdef floating s = sign
    cdef const floating *p
    cdef floating *q
    with nogil:
        for b in range(x.shape[0]):
            own = b if cos.shape[0] > 1 else 0
            for t in range(x.shape[1]):
                for h in range(x.shape[2]):
                    p = &x[b, t, h, 0]
                    q = &y[b, t, h, 0]
                    for i in range(half):
                        q[i] = p[i] * cos[own, t, i] + s * p[half + i] * sin[own, t, i]               # (2) (4)
                        q[half + i] = p[half + i] * cos[own, t, i] - s * p[i] * sin[own, t, i]        # (3) (5)
