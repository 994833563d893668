"""layer_norm on the CPU. Equations (1)-(7) are derived in minigpt/ops/layer_norm.py; op.py dispatches to here."""
import numpy as np
from cython cimport floating
from libc.math cimport sqrt

from gil cimport PyThreadState, release, take_back


def layer_norm_forward(x, w, b=None, *, double eps=1e-5):
    C = len(w)
    rows = x.reshape(-1, C)
    y, mean, r = np.empty_like(rows), np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    shift = np.zeros_like(w) if b is None else b
    if x.dtype == np.float32:
        forward[float](rows, w, shift, eps, y, mean, r)
    else:
        forward[double](rows, w, shift, eps, y, mean, r)
    return y.reshape(x.shape), (x, w, mean, r, b is not None)


def layer_norm_backward(dy, saved):
    x, w, mean, r, has_b = saved
    C = len(w)
    dx, dw, db = np.empty_like(x), np.zeros_like(w), np.zeros_like(w)
    if x.dtype == np.float32:
        backward[float](dy.reshape(-1, C), x.reshape(-1, C), w, mean, r, dx.reshape(-1, C), dw, db)
    else:
        backward[double](dy.reshape(-1, C), x.reshape(-1, C), w, mean, r, dx.reshape(-1, C), dw, db)
    return dx, dw, db if has_b else None


cdef void forward(const floating[:, ::1] x, const floating[::1] w, const floating[::1] b, double eps,
                  floating[:, ::1] y, floating[::1] mean, floating[::1] r):
    cdef Py_ssize_t n, c, N = x.shape[0], C = x.shape[1]
    cdef floating m, variance, scale
    cdef PyThreadState *state = release(N * C)
    for n in range(N):
        m = 0
        for c in range(C):
            m += x[n, c]
        m /= C
        variance = 0
        for c in range(C):
            variance += (x[n, c] - m) * (x[n, c] - m)
        scale = <floating> (1 / sqrt(variance / C + eps))               # (1)
        for c in range(C):
            y[n, c] = (x[n, c] - m) * scale * w[c] + b[c]               # (2) (3)
        mean[n] = m
        r[n] = scale
    take_back(state)


cdef void backward(const floating[:, ::1] dy, const floating[:, ::1] x, const floating[::1] w,
                   const floating[::1] mean, const floating[::1] r,
                   floating[:, ::1] dx, floating[::1] dw, floating[::1] db):
    cdef Py_ssize_t n, c, N = x.shape[0], C = x.shape[1]
    cdef floating m, scale, xhat, dxh, mean_dxh, mean_dxh_xhat
    cdef PyThreadState *state = release(N * C)
    for n in range(N):
        m = mean[n]
        scale = r[n]
        mean_dxh = 0
        mean_dxh_xhat = 0
        for c in range(C):
            xhat = (x[n, c] - m) * scale                                # (2)
            dxh = dy[n, c] * w[c]                                       # (6)
            db[c] += dy[n, c]                                           # (4)
            dw[c] += dy[n, c] * xhat                                    # (5)
            mean_dxh += dxh
            mean_dxh_xhat += dxh * xhat
        mean_dxh /= C
        mean_dxh_xhat /= C
        for c in range(C):
            xhat = (x[n, c] - m) * scale
            dx[n, c] = scale * (dy[n, c] * w[c] - mean_dxh - xhat * mean_dxh_xhat)      # (7)
    take_back(state)
