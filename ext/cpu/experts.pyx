"""experts on the CPU. Equations (1)-(6) are derived in minigpt/ops/experts.py.

The rows of an expert are brought together, so that the compiled mlp finds a matrix; what comes back is scaled on its way
to where it belongs.
"""
import numpy as np
from cython cimport floating
from libc.string cimport memcpy

from minigpt.kernels.cpu.mlp import mlp_backward, mlp_forward


def experts_forward(x, gate, w1, w2, choice, *, capacity=None, activation="gelu"):
    E, C, O = len(w1), w1.shape[1], w2.shape[2]
    rows, gates = x.reshape(-1, C), gate.reshape(-1)
    order, ends = sorted_rows(choice.reshape(-1).astype(np.int64, copy=False), E, capacity)        # (1)
    brought, u = np.empty((len(order), C), x.dtype), np.empty((len(order), O), x.dtype)
    y, kept = np.zeros((len(rows), O), x.dtype), []
    if x.dtype == np.float32:
        bring[float](rows, order, brought)
    else:
        bring[double](rows, order, brought)
    for e in range(E):
        part, of_mlp = slice(ends[e], ends[e + 1]), None
        if part.start < part.stop:
            u[part], of_mlp = mlp_forward(brought[part], w1[e], None, w2[e], None, activation=activation)   # (2)
        kept.append(of_mlp)
    if x.dtype == np.float32:
        scale_to[float](u, gates, order, y)
    else:
        scale_to[double](u, gates, order, y)
    return y.reshape(x.shape[:x.ndim - 1] + (O,)), (x.shape, gate, order, ends, u, kept, w1, w2)


def experts_backward(dy, saved):
    shape, gate, order, ends, u, kept, w1, w2 = saved
    dy, gates = dy.reshape(-1, w2.shape[2]), gate.reshape(-1)
    du, dx_brought = np.empty_like(u), np.empty((len(order), w1.shape[1]), dy.dtype)
    dx, dgate = np.zeros((len(dy), w1.shape[1]), dy.dtype), np.zeros_like(gates)
    dw1, dw2 = np.zeros_like(w1), np.zeros_like(w2)
    if dy.dtype == np.float32:
        through_gates[float](dy, u, gates, order, du, dgate)
    else:
        through_gates[double](dy, u, gates, order, du, dgate)
    for e, of_mlp in enumerate(kept):
        if of_mlp is not None:
            part = slice(ends[e], ends[e + 1])
            dx_brought[part], dw1[e], _, dw2[e], *_ = mlp_backward(du[part], of_mlp)                 # (6)
    if dy.dtype == np.float32:
        put[float](dx_brought, order, dx)
    else:
        put[double](dx_brought, order, dx)
    return dx.reshape(shape), dgate.reshape(gate.shape), dw1, dw2, None


def sorted_rows(const long long[::1] choice, Py_ssize_t E, capacity):
    """The rows of all experts, one expert after the other, and where each begins and the last ends (1)."""
    cdef Py_ssize_t n, e, N = choice.shape[0], most = N if capacity is None else capacity
    counts, ends = np.zeros(E, np.int64), np.zeros(E + 1, np.int64)
    cdef long long[::1] count = counts
    for n in range(N):
        count[choice[n]] += count[choice[n]] < most
    ends[1:] = np.cumsum(counts)
    order, counts[:] = np.empty(ends[E], np.int64), 0
    cdef long long[::1] to = order, begin = ends
    for n in range(N):
        e = choice[n]
        if count[e] < most:
            to[begin[e] + count[e]] = n
            count[e] += 1
    return order, ends.tolist()


cdef void bring(const floating[:, ::1] x, const long long[::1] order, floating[:, ::1] to):
    cdef Py_ssize_t m
    with nogil:
        for m in range(order.shape[0]):
            memcpy(&to[m, 0], &x[order[m], 0], x.shape[1] * sizeof(floating))


cdef void put(const floating[:, ::1] rows, const long long[::1] order, floating[:, ::1] to):
    cdef Py_ssize_t m
    with nogil:
        for m in range(order.shape[0]):
            memcpy(&to[order[m], 0], &rows[m, 0], rows.shape[1] * sizeof(floating))


cdef void scale_to(const floating[:, ::1] u, const floating[::1] gate, const long long[::1] order, floating[:, ::1] y):
    cdef Py_ssize_t m, c, n
    with nogil:
        for m in range(order.shape[0]):
            n = order[m]
            for c in range(u.shape[1]):
                y[n, c] = gate[n] * u[m, c]                                 # (3)


cdef void through_gates(const floating[:, ::1] dy, const floating[:, ::1] u, const floating[::1] gate,
                        const long long[::1] order, floating[:, ::1] du, floating[::1] dgate):
    cdef Py_ssize_t m, c, n
    cdef floating total
    with nogil:
        for m in range(order.shape[0]):
            n = order[m]
            total = 0
            for c in range(u.shape[1]):
                total += dy[n, c] * u[m, c]                                 # (4)
                du[m, c] = gate[n] * dy[n, c]                               # (5)
            dgate[n] = total
