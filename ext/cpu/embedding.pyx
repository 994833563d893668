"""embedding on the CPU. Equations (1)-(2) are derived in minigpt/ops/embedding.py.

The backward pass is the reason: np.add.at adds number by number, this adds row by row.
"""
import numpy as np
from cython cimport floating
from libc.string cimport memcpy


def embedding_forward(w, ids):
    C = w.shape[1]
    rows = ids.reshape(-1).astype(np.int64, copy=False)
    y = np.empty((*ids.shape, C), w.dtype)
    if w.dtype == np.float32:
        forward[float](w, rows, y.reshape(-1, C))
    else:
        forward[double](w, rows, y.reshape(-1, C))
    return y, (w.shape, rows)


def embedding_backward(dy, saved):
    (V, C), rows = saved
    dw = np.zeros((V, C), dy.dtype)
    if dy.dtype == np.float32:
        backward[float](dy.reshape(-1, C), rows, dw)
    else:
        backward[double](dy.reshape(-1, C), rows, dw)
    return dw, None


cdef void forward(const floating[:, ::1] w, const long long[::1] ids, floating[:, ::1] y):
    cdef Py_ssize_t n, N = ids.shape[0], C = w.shape[1]
    with nogil:
        for n in range(N):
            memcpy(&y[n, 0], &w[ids[n], 0], C * sizeof(floating))           # (1)


cdef void backward(const floating[:, ::1] dy, const long long[::1] ids, floating[:, ::1] dw):
    cdef Py_ssize_t n, c, N = ids.shape[0], C = dw.shape[1]
    with nogil:
        for n in range(N):
            for c in range(C):
                dw[ids[n], c] += dy[n, c]                                   # (2)
