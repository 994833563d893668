"""cross_entropy on the CPU. Equations (1)-(3) are derived in minigpt/ops/cross_entropy.py."""
import numpy as np
from cython cimport floating
from libc.math cimport log

from vectorised cimport exponentials, largest, sum_of_exponentials


def cross_entropy_forward(logits, targets, *, ignore_index=-1, total=None):
    V = logits.shape[logits.ndim - 1]
    t = targets.reshape(-1).astype(np.int64, copy=False)
    if ignore_index != -1:                                              # from here on -1 marks what does not count
        t = np.where(t == ignore_index, -1, t)
    total = float(max(np.count_nonzero(t >= 0), 1) if total is None else total)
    l = np.empty(len(t), logits.dtype)
    if logits.dtype == np.float32:
        loss = forward[float](logits.reshape(-1, V), t, l)
    else:
        loss = forward[double](logits.reshape(-1, V), t, l)
    return np.asarray(loss / total, logits.dtype), (logits, l, t, total)


def cross_entropy_backward(dy, saved):
    logits, l, t, total = saved
    V = logits.shape[logits.ndim - 1]
    dx = np.empty_like(logits)
    if logits.dtype == np.float32:
        backward[float](logits.reshape(-1, V), l, t, dy.item() / total, dx.reshape(-1, V))
    else:
        backward[double](logits.reshape(-1, V), l, t, dy.item() / total, dx.reshape(-1, V))
    return dx, None


cdef double forward(const floating[:, ::1] x, const long long[::1] t, floating[::1] l):
    cdef Py_ssize_t n, v, N = x.shape[0], V = x.shape[1]
    cdef floating m
    cdef double loss = 0
    with nogil:
        for n in range(N):
            if t[n] < 0:
                continue
            m = largest(&x[n, 0], V)
            l[n] = m + <floating> log(sum_of_exponentials(&x[n, 0], V, m))      # (1)
            loss += l[n] - x[n, t[n]]                                       # (2)
        return loss


cdef void backward(const floating[:, ::1] x, const floating[::1] l, const long long[::1] t, double scale,
                   floating[:, ::1] dx):
    cdef Py_ssize_t n, v, N = x.shape[0], V = x.shape[1]
    cdef floating s = <floating> scale
    with nogil:
        for n in range(N):
            if t[n] < 0:
                for v in range(V):
                    dx[n, v] = 0
                continue
            exponentials(&x[n, 0], V, <floating> 1, l[n], &dx[n, 0])        # (3)
            for v in range(V):
                dx[n, v] *= s                                               # (3)
            dx[n, t[n]] -= s                                                # (3)
