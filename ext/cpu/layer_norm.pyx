"""layer_norm on the CPU: norm.pxd. Equations (1)-(7) are derived in minigpt/ops/layer_norm.py; op.py dispatches to here."""
import numpy as np
from cython cimport floating

from norm cimport normalise, normalise_backward
from tile cimport pointer


def layer_norm_forward(x, w, b=None, *, double eps=1e-5):
    C = len(w)
    rows = x.reshape(-1, C)
    y, mean, r = np.empty_like(rows), np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    if x.dtype == np.float32:
        forward[float](rows, w, b, eps, y, mean, r)
    else:
        forward[double](rows, w, b, eps, y, mean, r)
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
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1]
    cdef const floating *shift = pointer(b)
    with nogil:
        normalise(&x[0, 0], N, C, &w[0], shift, eps, &y[0, 0], &mean[0], &r[0])


cdef void backward(const floating[:, ::1] dy, const floating[:, ::1] x, const floating[::1] w,
                   const floating[::1] mean, const floating[::1] r,
                   floating[:, ::1] dx, floating[::1] dw, floating[::1] db):
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1]
    with nogil:
        normalise_backward(&dy[0, 0], &x[0, 0], N, C, &w[0], &mean[0], &r[0], &dx[0, 0], &dw[0], &db[0])
