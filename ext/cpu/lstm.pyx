"""lstm on the CPU. Equations (1)-(10) are derived in minigpt/ops/lstm.py.

The matrix is packed once for all steps (tile.h), and each step's product is added where its result is to lie.
"""
import numpy as np
from cython cimport floating

from steps cimport add_product, hyperbolic_tangent, logistic, packed_size
from tile cimport pack


def lstm_forward(a, state, u):
    gates, y = a.copy(), np.empty((*a.shape[:2], 2 * len(u)), a.dtype)
    if a.dtype == np.float32:
        forward[float](state, u, gates, y)
    else:
        forward[double](state, u, gates, y)
    return y, (state, u, gates, y)


def lstm_backward(dy, saved):
    state, u, gates, y = saved
    dz, d_state, C = np.empty_like(gates), np.zeros_like(state), len(u)
    old = np.concatenate([state[:, None], y[:, :y.shape[1] - 1]], 1)        # (B, T, 2 C)
    if dy.dtype == np.float32:
        backward[float](dy, old, u, gates, y, dz, d_state)
    else:
        backward[double](dy, old, u, gates, y, dz, d_state)
    return dz, d_state, old[:, :, :C].reshape(-1, C).T @ dz.reshape(-1, 4 * C)                  # (10)


cdef forward(const floating[:, ::1] state, const floating[:, ::1] u, floating[:, :, ::1] gates, floating[:, :, ::1] y):
    """gates is a on the way in."""
    cdef Py_ssize_t B = y.shape[0], T = y.shape[1], C = u.shape[0], b, t, c
    cdef const floating *old                                                # h and c of the step before
    cdef floating *z
    cdef floating *new
    cdef Py_ssize_t old_row
    room = np.empty(packed_size(4 * C, C, &u[0, 0]), np.float32 if floating is float else np.float64)
    cdef floating[::1] packed = room
    with nogil:
        pack(4 * C, C, &u[0, 0], 4 * C, 1, &packed[0])
        for t in range(T):
            old, old_row = &state[0, 0] if t == 0 else &y[0, t - 1, 0], 2 * C if t == 0 else T * 2 * C
            add_product(B, 4 * C, C, old, old_row, &packed[0], &gates[0, t, 0], T * 4 * C)      # (1)
            for b in range(B):
                z, new = &gates[b, t, 0], &y[b, t, 0]
                for c in range(3 * C):
                    z[c] = logistic(z[c])                                                       # (2)
                for c in range(3 * C, 4 * C):
                    z[c] = hyperbolic_tangent(z[c])                                             # (2)
                for c in range(C):
                    new[C + c] = z[C + c] * old[b * old_row + C + c] + z[c] * z[3 * C + c]      # (3)
                for c in range(C):
                    new[c] = z[2 * C + c] * hyperbolic_tangent(new[C + c])                      # (4)


cdef backward(const floating[:, :, ::1] dy, const floating[:, :, ::1] old, const floating[:, ::1] u,
              const floating[:, :, ::1] gates, const floating[:, :, ::1] y, floating[:, :, ::1] dz,
              floating[:, ::1] d_state):
    """d_state is 0 on the way in; meanwhile it holds what the next step hands back."""
    cdef Py_ssize_t B = y.shape[0], T = y.shape[1], C = u.shape[0], b, t, c
    cdef const floating *z
    cdef floating *d
    cdef floating *back
    cdef floating i, f, o, g, m, s, r, one = 1
    room = np.empty(packed_size(C, 4 * C, &u[0, 0]), np.float32 if floating is float else np.float64)
    cdef floating[::1] packed = room
    with nogil:
        pack(C, 4 * C, &u[0, 0], 1, 4 * C, &packed[0])                      # u^T
        for t in range(T - 1, -1, -1):
            for b in range(B):
                z, d, back = &gates[b, t, 0], &dz[b, t, 0], &d_state[b, 0]
                for c in range(C):
                    i, f, o, g = z[c], z[C + c], z[2 * C + c], z[3 * C + c]
                    m = hyperbolic_tangent(y[b, t, C + c])
                    s = dy[b, t, c] + back[c]                                                   # (5)
                    r = dy[b, t, C + c] + s * o * (one - m * m) + back[C + c]                   # (6)
                    d[c] = r * g * i * (one - i)                                                # (7)
                    d[C + c] = r * old[b, t, C + c] * f * (one - f)                             # (7)
                    d[2 * C + c] = s * m * o * (one - o)                                        # (7)
                    d[3 * C + c] = r * i * (one - g * g)                                        # (7) (8)
                    back[C + c] = f * r                                                         # (6), (9)
                    back[c] = 0
            add_product(B, C, 4 * C, &dz[0, t, 0], T * 4 * C, &packed[0], &d_state[0, 0], 2 * C)    # (5), (9)
