"""attention on the CPU: head by head, as heads.pxd does each. Equations (1)-(8) are derived in minigpt/ops/attention.py."""
import numpy as np
from cython cimport floating
from libc.stdint cimport uint8_t, uint64_t

from heads cimport Heads, backward_heads, backward_room, forward_heads, forward_room, heads_of
from minigpt.kernels.cpu import each_part


def attention_forward(q, k, v, mask=None, seeds=None, *, bint causal=True, double dropout=0.0):
    B, T, H, D = q.shape
    y, l = np.empty_like(q), np.empty((B, H, T), q.dtype)
    allowed = None if mask is None else mask.view(np.uint8)

    def heads(begin, end):
        room = np.empty(forward_room(k.shape[1], D), q.dtype)
        if q.dtype == np.float32:
            forward[float](q, k, v, allowed, seeds, causal, dropout, y, l, begin, end, room)
        else:
            forward[double](q, k, v, allowed, seeds, causal, dropout, y, l, begin, end, room)

    each_part(heads, B * H, 1)
    return y, (q, k, v, y, l, allowed, seeds, causal, dropout)


def attention_backward(dy, saved):
    q, k, v, y, l, allowed, seeds, causal, dropout = saved
    dq, dk, dv = np.empty_like(q), np.empty_like(k), np.empty_like(v)

    def heads(begin, end):
        arrays = dy, q, k, v, y, l, allowed, seeds, causal, dropout, dq, dk, dv, begin, end
        room = np.empty(backward_room(k.shape[1], k.shape[3]), q.dtype)
        if q.dtype == np.float32:
            backward[float](*arrays, room)
        else:
            backward[double](*arrays, room)

    each_part(heads, q.shape[0] * q.shape[2], 1)
    return dq, dk, dv, None, None


cdef void forward(const floating[:, :, :, ::1] q, const floating[:, :, :, ::1] k, const floating[:, :, :, ::1] v,
                  const uint8_t[:, ::1] mask, const uint64_t[::1] seeds, bint causal, double dropout,
                  floating[:, :, :, ::1] y, floating[:, :, ::1] l, Py_ssize_t begin, Py_ssize_t end, floating[::1] room):
    cdef Py_ssize_t T = q.shape[1], H = q.shape[2], D = q.shape[3]
    cdef Heads of = heads_of(T, k.shape[1], H, D, H * D, mask, seeds, causal, dropout)
    if of.S == 0 or of.D == 0:
        y[...] = 0
        l[...] = 0
        return
    with nogil:
        forward_heads(&of, &q[0, 0, 0, 0], &k[0, 0, 0, 0], &v[0, 0, 0, 0], &y[0, 0, 0, 0], &l[0, 0, 0], begin, end, &room[0])


cdef void backward(const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] q, const floating[:, :, :, ::1] k,
                   const floating[:, :, :, ::1] v, const floating[:, :, :, ::1] y, const floating[:, :, ::1] l,
                   const uint8_t[:, ::1] mask, const uint64_t[::1] seeds, bint causal, double dropout,
                   floating[:, :, :, ::1] dq, floating[:, :, :, ::1] dk, floating[:, :, :, ::1] dv,
                   Py_ssize_t begin, Py_ssize_t end, floating[::1] room):
    cdef Py_ssize_t T = q.shape[1], H = q.shape[2], D = q.shape[3]
    cdef Heads of = heads_of(T, k.shape[1], H, D, H * D, mask, seeds, causal, dropout)
    if of.S == 0 or of.D == 0:
        dq[...] = 0
        return
    with nogil:
        backward_heads(&of, &dy[0, 0, 0, 0], &q[0, 0, 0, 0], &k[0, 0, 0, 0], &v[0, 0, 0, 0], &y[0, 0, 0, 0], &l[0, 0, 0],
                       &dq[0, 0, 0, 0], &dk[0, 0, 0, 0], &dv[0, 0, 0, 0], begin, end, &room[0])
