"""gelu on the CPU. Equations (1)-(4) are derived in minigpt/ops/gelu.py.

The forward pass has everything at hand that the slope of (2) is made of, so it keeps dy/dx in the place of x: then the
backward pass is one multiplication, where the exponential would take four times as long.
"""
import numpy as np
from cython cimport floating
from libc.math cimport erf, exp, sqrt

from activations cimport gelu

cdef double ROOT_2_OVER_PI = sqrt(2 / np.pi), ROOT_HALF = sqrt(0.5)


def gelu_forward(x, *, bint approximate=True):
    y, slope = np.empty_like(x), np.empty_like(x)
    if x.dtype == np.float32:
        forward[float](x.reshape(-1), approximate, y.reshape(-1), slope.reshape(-1))
    else:
        forward[double](x.reshape(-1), approximate, y.reshape(-1), slope.reshape(-1))
    return y, slope


def gelu_backward(dy, saved):
    return dy * saved,                                                                      # (2)


cdef void forward(const floating[::1] x, bint approximate, floating[::1] y, floating[::1] slope):
    cdef Py_ssize_t n, N = x.shape[0]
    cdef double phi
    with nogil:
        if approximate and N:
            gelu(&x[0], N, &y[0], &slope[0], False)                                                # (1) (2) (3) (4)
        elif not approximate:
            for n in range(N):
                phi = 0.5 * (1 + erf(x[n] * ROOT_HALF))                                     # (1)
                y[n] = <floating> (x[n] * phi)                                              # (1)
                slope[n] = <floating> (phi + x[n] * exp(-0.5 * x[n] * x[n]) * 0.5 * ROOT_2_OVER_PI)     # (2)
