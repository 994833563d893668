"""attention of a few queries over a cache, on the CPU. Equations (1)-(3): minigpt/ops/attention.py.

Keys and values are read once, in the order in which they lie, by the threads of the pool: a part is a few heads of one
sequence. Nothing is transposed and no tile is filled, since a query or two make no matrix product.
"""
import numpy as np
from cython cimport floating
from libc.math cimport sqrt
from libc.stdint cimport int64_t

from minigpt.kernels.cpu.pool cimport Task, run, threads_now
from vectorised cimport dot, exponentials, largest

cdef enum:
    ENOUGH = 1 << 15                                # multiplications that are worth sharing


cdef struct Work:
    const void *q
    const void *k
    const void *v
    void *y
    void *scores                                    # (B, H, longest): of one query at a time
    const int64_t *slots
    const int64_t *lengths
    Py_ssize_t T, H, D, capacity, longest, groups


def cached_attention(q, k, v, slots, lengths):
    y = np.empty_like(q)
    longest = max(lengths.tolist(), default=0) + q.shape[1]
    scores = np.empty((q.shape[0], q.shape[2], longest), q.dtype)
    if y.size == 0:
        return y
    if q.dtype == np.float32:
        attend[float](q, k, v, slots, lengths, y, scores)
    else:
        attend[double](q, k, v, slots, lengths, y, scores)
    return y


cdef void attend(const floating[:, :, :, ::1] q, const floating[:, :, :, ::1] k, const floating[:, :, :, ::1] v,
                 const int64_t[::1] slots, const int64_t[::1] lengths, floating[:, :, :, ::1] y,
                 floating[:, :, ::1] scores):
    cdef Work work
    cdef Py_ssize_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], longest = scores.shape[2]
    work.q, work.k, work.v = &q[0, 0, 0, 0], &k[0, 0, 0, 0], &v[0, 0, 0, 0]
    work.y, work.scores = &y[0, 0, 0, 0], &scores[0, 0, 0]
    work.slots, work.lengths = &slots[0], &lengths[0]
    work.T, work.H, work.D, work.capacity, work.longest = T, H, D, k.shape[1], longest
    with nogil:
        work.groups = min(H, 2 * threads_now()) if longest * T * H * D > ENOUGH and threads_now() > 1 else 1
        if floating is float:
            run(work_on_float, &work, B * work.groups)
        else:
            run(work_on_double, &work, B * work.groups)


cdef void work_on_float(void *what, long part) noexcept nogil:
    heads_of_one[float](<const Work *> what, part, <float *> NULL)


cdef void work_on_double(void *what, long part) noexcept nogil:
    heads_of_one[double](<const Work *> what, part, <double *> NULL)


cdef void heads_of_one(const Work *w, long part, floating *of_this_type) noexcept nogil:
    """All queries of some heads of one sequence."""
    cdef Py_ssize_t b = part // w.groups, group = part % w.groups, stride = w.H * w.D, t, s, h, d
    cdef Py_ssize_t first = w.H * group // w.groups, last = w.H * (group + 1) // w.groups, S
    cdef const floating *keys = <const floating *> w.k + w.slots[b] * w.capacity * stride
    cdef const floating *values = <const floating *> w.v + w.slots[b] * w.capacity * stride
    cdef floating *scores = <floating *> w.scores + b * w.H * w.longest
    cdef const floating *q
    cdef const floating *row
    cdef floating *y
    cdef floating *p
    cdef floating scale = <floating> (1 / sqrt(<double> w.D)), total, m, share
    for t in range(w.T):
        q = <const floating *> w.q + (b * w.T + t) * stride
        y = <floating *> w.y + (b * w.T + t) * stride
        S = w.lengths[b] + t + 1                                            # keys that query t sees
        for s in range(S):
            for h in range(first, last):
                scores[h * w.longest + s] = dot(q + h * w.D, keys + s * stride + h * w.D, w.D)     # (1)
        for h in range(first, last):
            p = scores + h * w.longest
            m = largest(p, S)
            total = exponentials(p, S, scale, scale * m, p)                 # (2)
            share = 1 / total
            for s in range(S):
                p[s] *= share
            for d in range(w.D):
                y[h * w.D + d] = 0
        for s in range(S):
            row = values + s * stride
            for h in range(first, last):
                share = scores[h * w.longest + s]
                for d in range(w.D):
                    y[h * w.D + d] += share * row[h * w.D + d]              # (3)
