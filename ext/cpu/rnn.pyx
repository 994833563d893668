"""rnn on the CPU. Equations (1)-(5) are derived in minigpt/ops/rnn.py.

The matrix is packed once for all steps (tile.h), and each step's product is added where its result is to lie.
"""
import numpy as np
from cython cimport floating

from steps cimport add_product, hyperbolic_tangent, packed_size
from tile cimport pack


def rnn_forward(a, h, u):
    y = a.copy()
    if a.dtype == np.float32:
        forward[float](h, u, y)
    else:
        forward[double](h, u, y)
    return y, (h, u, y)


def rnn_backward(dy, saved):
    h, u, y = saved
    dz, dh, C = dy.copy(), np.zeros_like(h), len(u)
    if dy.dtype == np.float32:
        backward[float](u, y, dz, dh)
    else:
        backward[double](u, y, dz, dh)
    old = np.concatenate([h[:, None], y[:, :y.shape[1] - 1]], 1)            # (B, T, C)
    return dz, dh, old.reshape(-1, C).T @ dz.reshape(-1, C)                 # (5)


cdef forward(const floating[:, ::1] h, const floating[:, ::1] u, floating[:, :, ::1] y):
    """y is a on the way in."""
    cdef Py_ssize_t B = y.shape[0], T = y.shape[1], C = y.shape[2], b, t, c
    room = np.empty(packed_size(C, C, &u[0, 0]), np.float32 if floating is float else np.float64)
    cdef floating[::1] packed = room
    with nogil:
        pack(C, C, &u[0, 0], C, 1, &packed[0])
        for t in range(T):
            if t == 0:
                add_product(B, C, C, &h[0, 0], C, &packed[0], &y[0, 0, 0], T * C)               # (1)
            else:
                add_product(B, C, C, &y[0, t - 1, 0], T * C, &packed[0], &y[0, t, 0], T * C)    # (1)
            for b in range(B):
                for c in range(C):
                    y[b, t, c] = hyperbolic_tangent(y[b, t, c])                                 # (1)


cdef backward(const floating[:, ::1] u, const floating[:, :, ::1] y, floating[:, :, ::1] dz, floating[:, ::1] dh):
    """dz is dy on the way in, dh is 0."""
    cdef Py_ssize_t B = y.shape[0], T = y.shape[1], C = y.shape[2], b, t, c
    room = np.empty(packed_size(C, C, &u[0, 0]), np.float32 if floating is float else np.float64)
    cdef floating[::1] packed = room
    cdef floating one = 1
    with nogil:
        pack(C, C, &u[0, 0], 1, C, &packed[0])                                                  # u^T
        for t in range(T - 1, -1, -1):
            if t < T - 1:
                add_product(B, C, C, &dz[0, t + 1, 0], T * C, &packed[0], &dz[0, t, 0], T * C)  # (2)
            for b in range(B):
                for c in range(C):
                    dz[b, t, c] *= one - y[b, t, c] * y[b, t, c]                                # (3)
        add_product(B, C, C, &dz[0, 0, 0], T * C, &packed[0], &dh[0, 0], C)                     # (4)
