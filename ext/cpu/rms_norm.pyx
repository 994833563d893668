"""rms_norm on the CPU. Equations (1)-(6) are derived in minigpt/ops/rms_norm.py."""
import numpy as np
from cython cimport floating
from libc.math cimport sqrt


def rms_norm_forward(x, w=None, *, double eps=1e-6):
    C = x.shape[x.ndim - 1]
    y, r = np.empty_like(x), np.empty(x.size // max(C, 1), x.dtype)
    if x.dtype == np.float32:
        forward[float](x.reshape(-1, C), w, eps, y.reshape(-1, C), r)
    else:
        forward[double](x.reshape(-1, C), w, eps, y.reshape(-1, C), r)
    return y, (x, w, r)


def rms_norm_backward(dy, saved):
    x, w, r = saved
    C = x.shape[x.ndim - 1]
    dx, dw = np.empty_like(x), None if w is None else np.zeros_like(w)
    if x.dtype == np.float32:
        backward[float](dy.reshape(-1, C), x.reshape(-1, C), w, r, dx.reshape(-1, C), dw)
    else:
        backward[double](dy.reshape(-1, C), x.reshape(-1, C), w, r, dx.reshape(-1, C), dw)
    return dx, dw


cdef void forward(const floating[:, ::1] x, const floating[::1] w, double eps, floating[:, ::1] y, floating[::1] r):
    cdef Py_ssize_t n, c, N = x.shape[0], C = x.shape[1]
    cdef bint scaled = w is not None
    cdef floating squares, scale
    with nogil:
        for n in range(N):
            squares = 0
            for c in range(C):
                squares += x[n, c] * x[n, c]
            scale = <floating> (1 / sqrt(squares / C + eps))            # (1)
            r[n] = scale
            if scaled:
                for c in range(C):
                    y[n, c] = x[n, c] * scale * w[c]                    # (2) (3)
            else:
                for c in range(C):
                    y[n, c] = x[n, c] * scale                           # (2)


cdef void backward(const floating[:, ::1] dy, const floating[:, ::1] x, const floating[::1] w, const floating[::1] r,
                   floating[:, ::1] dx, floating[::1] dw):
    cdef Py_ssize_t n, c, N = x.shape[0], C = x.shape[1]
    cdef bint scaled = w is not None
    cdef floating scale, mean
    with nogil:
        for n in range(N):
            scale = r[n]
            mean = 0
            if scaled:
                for c in range(C):
                    dw[c] += dy[n, c] * x[n, c] * scale                 # (4)
                    dx[n, c] = dy[n, c] * w[c]                          # (5)
                    mean += dx[n, c] * x[n, c]
            else:
                for c in range(C):
                    dx[n, c] = dy[n, c]                                 # (5)
                    mean += dx[n, c] * x[n, c]
            mean *= scale * scale / C
            for c in range(C):
                dx[n, c] = scale * (dx[n, c] - x[n, c] * mean)          # (6)
