"""gelu on the CPU. Equations (1)-(4) are derived in minigpt/ops/gelu.py.

By tanh it takes one exponential a number each way: sigmoid(2u) = 1 / (1 + exp(-2u)), and the slope uses the same.
Constants are variables of the arrays' type: a literal in a float expression would make all of it double, and slow.
"""
import numpy as np
from cython cimport floating
from libc.math cimport erf, exp, sqrt

from vectorised cimport exponential


cdef double ROOT_2_OVER_PI = sqrt(2 / np.pi), ROOT_HALF = sqrt(0.5)


def gelu_forward(x, *, bint approximate=True):
    y = np.empty_like(x)
    if x.dtype == np.float32:
        forward[float](x.reshape(-1), y.reshape(-1), approximate)
    else:
        forward[double](x.reshape(-1), y.reshape(-1), approximate)
    return y, (x, approximate)


def gelu_backward(dy, saved):
    x, approximate = saved
    dx = np.empty_like(x)
    if x.dtype == np.float32:
        backward[float](dy.reshape(-1), x.reshape(-1), dx.reshape(-1), approximate)
    else:
        backward[double](dy.reshape(-1), x.reshape(-1), dx.reshape(-1), approximate)
    return dx,


cdef inline floating sigmoid_of_2u(floating x) noexcept nogil:
    cdef floating one = 1, k = <floating> (-2 * ROOT_2_OVER_PI), cubic = <floating> 0.044715
    return one / (one + exponential(k * (x + cubic * x * x * x)))                       # (3)


cdef void forward(const floating[::1] x, floating[::1] y, bint approximate):
    cdef Py_ssize_t n, N = x.shape[0]
    with nogil:
        if approximate:
            for n in range(N):
                y[n] = x[n] * sigmoid_of_2u(x[n])                                           # (1) (3)
        else:
            for n in range(N):
                y[n] = <floating> (x[n] * 0.5 * (1 + erf(x[n] * ROOT_HALF)))                # (1)


cdef void backward(const floating[::1] dy, const floating[::1] x, floating[::1] dx, bint approximate):
    cdef Py_ssize_t n, N = x.shape[0]
    cdef floating s, slope, one = 1, k = <floating> (2 * ROOT_2_OVER_PI), cubic = <floating> (3 * 0.044715)
    cdef double phi
    with nogil:
        if approximate:
            for n in range(N):
                s = sigmoid_of_2u(x[n])                                                     # (3)
                slope = s * (one - s) * k * (one + cubic * x[n] * x[n])                     # (4)
                dx[n] = dy[n] * (s + x[n] * slope)                                          # (2)
        else:
            for n in range(N):
                phi = 0.5 * (1 + erf(x[n] * ROOT_HALF))                                     # (1)
                dx[n] = <floating> (dy[n] * (phi + x[n] * exp(-0.5 * x[n] * x[n]) * 0.5 * ROOT_2_OVER_PI))      # (2)
