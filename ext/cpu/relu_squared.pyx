"""relu_squared on the CPU, in one pass each way. Equations (1)-(2) are in minigpt/ops/relu_squared.py."""
import numpy as np
from cython cimport floating


def relu_squared_forward(x):
    y = np.empty_like(x)
    if x.dtype == np.float32:
        forward[float](x.reshape(-1), y.reshape(-1))
    else:
        forward[double](x.reshape(-1), y.reshape(-1))
    return y, x


def relu_squared_backward(dy, x):
    dx = np.empty_like(x)
    if x.dtype == np.float32:
        backward[float](dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
    else:
        backward[double](dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return dx,


cdef void forward(const floating[::1] x, floating[::1] y):
    cdef Py_ssize_t n
    cdef floating positive, zero = 0
    with nogil:
        for n in range(x.shape[0]):
            positive = zero if x[n] < zero else x[n]                        # in this order a NaN stays one
            y[n] = positive * positive                                      # (1)


cdef void backward(const floating[::1] dy, const floating[::1] x, floating[::1] dx):
    cdef Py_ssize_t n
    cdef floating positive, zero = 0, two = 2
    with nogil:
        for n in range(x.shape[0]):
            positive = zero if x[n] < zero else x[n]
            dx[n] = dy[n] * two * positive                                  # (2)
