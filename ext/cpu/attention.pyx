"""attention on the CPU. Equations (1)-(8) are derived in minigpt/ops/attention.py.

Head by head, and in it block by block of ROWS queries: their scores with all keys that they may see stand in a small
buffer that stays in the cache, never the whole (T, S). The five products of a block run on the register tile of
tile.h, which reads a transpose by exchanging strides; only K^T and V^T, whose columns have to lie side by side, are
copied. The columns of scores are padded to a multiple of 16, so that the tile meets no odd ends there.
"""
import numpy as np
from cython cimport floating
from libc.math cimport INFINITY, log, sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from philox_words cimport keep_row
from tile cimport multiply
from vectorised cimport exponentials, largest

cdef enum:
    ROWS = 24                                       # queries in a block; of 12, 24 and 48 the fastest at T = 64 and 256


def attention_forward(q, k, v, mask=None, seeds=None, *, bint causal=True, double dropout=0.0):
    B, T, H, D = q.shape
    S = k.shape[1]
    y, l = np.empty_like(q), np.empty((B, H, T), q.dtype)
    scratch = buffers(q.dtype, S, D, 1, 1)
    allowed, seeds_used, share = seen_and_kept(mask, seeds, dropout)
    if q.dtype == np.float32:
        forward[float](q, k, v, allowed, seeds_used, causal, share, y, l, *scratch)
    else:
        forward[double](q, k, v, allowed, seeds_used, causal, share, y, l, *scratch)
    return y, (q, k, v, y, l, allowed, seeds_used, causal, share)


def attention_backward(dy, saved):
    q, k, v, y, l, allowed, seeds_used, causal, share = saved
    dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    scratch = buffers(q.dtype, k.shape[1], q.shape[3], 2, 2)
    if q.dtype == np.float32:
        backward[float](dy, q, k, v, y, l, allowed, seeds_used, causal, share, dq, dk, dv, *scratch)
    else:
        backward[double](dy, q, k, v, y, l, allowed, seeds_used, causal, share, dq, dk, dv, *scratch)
    return dq, dk, dv, None, None


def buffers(dtype, S, D, transposes, blocks):
    """`transposes` arrays for K^T and V^T, `blocks` for a block of scores, and one for a row of dropout's mask."""
    width = -(-max(S, 1) // 16) * 16
    return np.zeros((transposes, D, width), dtype), np.empty((blocks, ROWS, width), dtype), np.empty(width, np.uint8)


def seen_and_kept(mask, seeds, dropout):
    """mask and seeds as arrays, None where they do nothing, and the share that is dropped."""
    dropping = seeds is not None and dropout > 0
    return None if mask is None else mask.view(np.uint8), seeds if dropping else None, dropout if dropping else 0.0


cdef void forward(const floating[:, :, :, ::1] q, const floating[:, :, :, ::1] k, const floating[:, :, :, ::1] v,
                  const uint8_t[:, ::1] mask, const uint64_t[::1] seeds, bint causal, double dropout,
                  floating[:, :, :, ::1] y, floating[:, :, ::1] l,
                  floating[:, :, ::1] transposes, floating[:, :, ::1] blocks, uint8_t[::1] keep):
    cdef Py_ssize_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], S = k.shape[1]
    cdef Py_ssize_t b, h, t, t0, i, block, rows, seen, padded
    cdef Py_ssize_t n_blocks = (T + ROWS - 1) // ROWS, stride = H * D, width = blocks.shape[2]
    cdef floating scale = <floating> (1 / sqrt(<double> D))
    cdef bint masked = mask is not None, dropping = seeds is not None
    cdef floating *kt = &transposes[0, 0, 0]
    cdef floating *p = &blocks[0, 0, 0]
    cdef floating *row
    with nogil:
        for b in range(B):
            for h in range(H):
                transpose(S, D, k, b, h, kt, width)
                for block in range(n_blocks):
                    t0 = block * ROWS
                    rows = min(ROWS, T - t0)
                    seen = visible(t0 + rows - 1, T, S, causal)         # keys that the last query of the block sees
                    padded = round_up(seen)
                    multiply(rows, padded, D, &q[b, t0, h, 0], stride, 1, kt, width, p, width, False)       # (1)
                    for i in range(rows):
                        t = t0 + i
                        row = p + i * width
                        l[b, h, t] = softmax(row, visible(t, T, S, causal), padded, scale,
                                             &mask[b, 0] if masked else NULL)                  # (2)
                        if dropping:
                            drop(row, seen, seeds[b], h, t, dropout, &keep[0])                  # (3)
                    multiply(rows, D, seen, p, width, 1, &v[b, 0, h, 0], stride, &y[b, t0, h, 0], stride, False)  # (3)


cdef void backward(const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] q, const floating[:, :, :, ::1] k,
                   const floating[:, :, :, ::1] v, const floating[:, :, :, ::1] y, const floating[:, :, ::1] l,
                   const uint8_t[:, ::1] mask, const uint64_t[::1] seeds, bint causal, double dropout,
                   floating[:, :, :, ::1] dq, floating[:, :, :, ::1] dk, floating[:, :, :, ::1] dv,
                   floating[:, :, ::1] transposes, floating[:, :, ::1] blocks, uint8_t[::1] keep):
    cdef Py_ssize_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], S = k.shape[1]
    cdef Py_ssize_t b, h, t, t0, i, s, block, rows, seen, padded
    cdef Py_ssize_t n_blocks = (T + ROWS - 1) // ROWS, stride = H * D, width = blocks.shape[2]
    cdef floating scale = <floating> (1 / sqrt(<double> D)), c
    cdef bint masked = mask is not None, dropping = seeds is not None
    cdef floating *kt = &transposes[0, 0, 0]
    cdef floating *vt = &transposes[1, 0, 0]
    cdef floating *p = &blocks[0, 0, 0]
    cdef floating *dx = &blocks[1, 0, 0]
    with nogil:
        for b in range(B):
            for h in range(H):
                transpose(S, D, k, b, h, kt, width)
                transpose(S, D, v, b, h, vt, width)
                for block in range(n_blocks):
                    t0 = block * ROWS
                    rows = min(ROWS, T - t0)
                    seen = visible(t0 + rows - 1, T, S, causal)
                    padded = round_up(seen)
                    multiply(rows, padded, D, &q[b, t0, h, 0], stride, 1, kt, width, p, width, False)               # (1)
                    multiply(rows, padded, D, &dy[b, t0, h, 0], stride, 1, vt, width, dx, width, False)     # (5)
                    for i in range(rows):
                        t = t0 + i
                        again(p + i * width, visible(t, T, S, causal), padded, scale, l[b, h, t],
                              &mask[b, 0] if masked else NULL)                                                      # (2)
                        c = dot(&dy[b, t, h, 0], &y[b, t, h, 0], D)                                                 # (6)
                        if dropping:
                            drop(dx + i * width, seen, seeds[b], h, t, dropout, &keep[0])                           # (5)
                        for s in range(padded):
                            dx[i * width + s] = p[i * width + s] * (dx[i * width + s] - c) * scale                  # (6)
                        if dropping:
                            drop(p + i * width, seen, seeds[b], h, t, dropout, &keep[0])                            # (4)
                    multiply(seen, D, rows, p, 1, width, &dy[b, t0, h, 0], stride, &dv[b, 0, h, 0], stride, True)   # (4)
                    multiply(rows, D, seen, dx, width, 1, &k[b, 0, h, 0], stride, &dq[b, t0, h, 0], stride, False)  # (7)
                    multiply(seen, D, rows, dx, 1, width, &q[b, t0, h, 0], stride, &dk[b, 0, h, 0], stride, True)   # (8)


cdef inline Py_ssize_t visible(Py_ssize_t t, Py_ssize_t T, Py_ssize_t S, bint causal) noexcept nogil:
    """How many keys query t may look at, padding aside: they are the first ones."""
    return max(0, min(S, t + 1 + S - T)) if causal else S


cdef inline Py_ssize_t round_up(Py_ssize_t n) noexcept nogil:
    return (n + 15) // 16 * 16


cdef inline void transpose(Py_ssize_t S, Py_ssize_t D, const floating[:, :, :, ::1] k, Py_ssize_t b, Py_ssize_t h,
                           floating *kt, Py_ssize_t width) noexcept nogil:
    """kt (D, width) from head h of sequence b; what lies behind column S stays 0."""
    cdef Py_ssize_t s, d
    for s in range(S):
        for d in range(D):
            kt[d * width + s] = k[b, s, h, d]


cdef inline Py_ssize_t hide(floating *x, Py_ssize_t n, const uint8_t *allowed) noexcept nogil:
    """-inf for what a query may not look at: padding, and from column n to the next multiple of 8, which is returned.

    So the loops that follow take whole vectors, where odd ends of a few numbers would cost as much as the rest.
    """
    cdef Py_ssize_t s, end = (n + 7) // 8 * 8
    if allowed != NULL:
        for s in range(n):
            x[s] = x[s] if allowed[s] else -INFINITY
    for s in range(n, end):
        x[s] = -INFINITY
    return end


cdef inline floating softmax(floating *x, Py_ssize_t n, Py_ssize_t padded, floating scale,
                             const uint8_t *allowed) noexcept nogil:
    """(2) of one row, in place: x becomes p, 0 behind the n visible keys. Returns l, 0 where no key is seen."""
    cdef Py_ssize_t s, end = hide(x, n, allowed)
    cdef floating total_inverse = 0, total, m = largest(x, end)
    if m == -INFINITY:
        m = 0                                       # no key is seen, or only NaNs, which `total` will tell
    total = exponentials(x, end, scale, scale * m, x)
    if total != 0:
        total_inverse = 1 / total
    for s in range(end):
        x[s] *= total_inverse
    for s in range(end, padded):
        x[s] = 0
    return scale * m + <floating> log(total) if total != 0 else 0


cdef inline void again(floating *x, Py_ssize_t n, Py_ssize_t padded, floating scale, floating l,
                       const uint8_t *allowed) noexcept nogil:
    """(2) of one row from the l that the forward pass kept: x becomes p, in place."""
    cdef Py_ssize_t s, end = hide(x, n, allowed)
    exponentials(x, end, scale, l, x)
    for s in range(end, padded):
        x[s] = 0


cdef inline floating dot(const floating *a, const floating *b, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating total = 0
    for i in range(n):
        total += a[i] * b[i]
    return total


cdef inline void drop(floating *x, Py_ssize_t n, uint64_t seed, Py_ssize_t h, Py_ssize_t t, double dropout,
                      uint8_t *keep) noexcept nogil:
    """x times dropout's mask M of (3), for query t of head h, in place."""
    cdef Py_ssize_t s
    cdef floating scale = <floating> (1 / (1 - dropout))
    keep_row(seed, <uint32_t> h, <uint32_t> t, n, <uint32_t> (dropout * 4294967296.0), keep)
    for s in range(n):
        x[s] *= scale * keep[s]
