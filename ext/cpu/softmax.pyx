"""softmax and log_softmax on the CPU. Equations (1)-(6) are derived in minigpt/ops/softmax.py."""
import numpy as np
from cython cimport floating
from libc.math cimport log

from vectorised cimport exponential, exponentials, largest, sum_of_exponentials


def softmax_forward(x):
    p = np.empty_like(x)
    if x.dtype == np.float32:
        forward[float](as_rows(x), as_rows(p), False)
    else:
        forward[double](as_rows(x), as_rows(p), False)
    return p, p


def softmax_backward(dp, p):
    dx = np.empty_like(dp)
    if p.dtype == np.float32:
        backward[float](as_rows(dp), as_rows(p), as_rows(dx), False)
    else:
        backward[double](as_rows(dp), as_rows(p), as_rows(dx), False)
    return dx,


def log_softmax_forward(x):
    y = np.empty_like(x)
    if x.dtype == np.float32:
        forward[float](as_rows(x), as_rows(y), True)
    else:
        forward[double](as_rows(x), as_rows(y), True)
    return y, y


def log_softmax_backward(dy, y):
    dx = np.empty_like(dy)
    if y.dtype == np.float32:
        backward[float](as_rows(dy), as_rows(y), as_rows(dx), True)
    else:
        backward[double](as_rows(dy), as_rows(y), as_rows(dx), True)
    return dx,


def as_rows(x):
    return x.reshape(-1, x.shape[x.ndim - 1])


cdef void forward(const floating[:, ::1] x, floating[:, ::1] y, bint logarithm):
    cdef Py_ssize_t n, s, N = x.shape[0], S = x.shape[1]
    cdef floating m, l, total_inverse
    cdef double total
    with nogil:
        for n in range(N):
            m = largest(&x[n, 0], S)                                    # (2)
            total = sum_of_exponentials(&x[n, 0], S, m)
            if logarithm:
                l = m + <floating> log(total)                           # (4)
                for s in range(S):
                    y[n, s] = x[n, s] - l                               # (4)
            else:
                total_inverse = <floating> (1 / total)
                exponentials(&x[n, 0], S, <floating> 1, m, &y[n, 0])    # (2)
                for s in range(S):
                    y[n, s] *= total_inverse                            # (3)


cdef void backward(const floating[:, ::1] dy, const floating[:, ::1] y, floating[:, ::1] dx,
                   bint logarithm):
    cdef Py_ssize_t n, s, N = y.shape[0], S = y.shape[1]
    cdef floating total
    with nogil:
        for n in range(N):
            total = 0
            if logarithm:
                for s in range(S):
                    total += dy[n, s]
                for s in range(S):
                    dx[n, s] = dy[n, s] - exponential(y[n, s]) * total  # (6)
            else:
                for s in range(S):
                    total += y[n, s] * dy[n, s]
                for s in range(S):
                    dx[n, s] = y[n, s] * (dy[n, s] - total)             # (5)
