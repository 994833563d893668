"""attention on the CPU. Equations (1)-(8) are derived in minigpt/ops/attention.py.

Head by head (n = 0 ... B H - 1), and in it block by block of ROWS queries: their scores with all keys that they may see stand in a small
buffer that stays in the cache, never the whole (T, S). The products of a block run on tile.h; what stands on their right,
K^T and V for each head, is packed for it once, and costs as much as one query. Rows of scores are padded to whole panels.
"""
import numpy as np
from cython cimport floating
from libc.math cimport INFINITY, log, sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t

from minigpt.kernels.cpu import each_part
from philox_words cimport KEEP_BATCH, keep_row
from tile cimport pack, panel_columns, panels
from vectorised cimport exponentials, largest

cdef enum:
    ROWS = 24                                       # queries in a block: two tiles
    WIDEST = 32                                     # columns of the widest panel
    LINE = 64                                       # bytes that the cache moves at a time


def attention_forward(q, k, v, mask=None, seeds=None, *, bint causal=True, double dropout=0.0):
    B, T, H, D = q.shape
    S = k.shape[1]
    y, l = np.empty_like(q), np.empty((B, H, T), q.dtype)
    width, depth = padded_to(S, WIDEST), padded_to(D, WIDEST)
    size = D * width + S * depth + ROWS * width
    allowed, seeds_used, share = seen_and_kept(mask, seeds, dropout)

    def heads(begin, end):
        scratch = np.empty(size + LINE, q.dtype), np.empty(width + KEEP_BATCH, np.uint8)
        if q.dtype == np.float32:
            forward[float](q, k, v, allowed, seeds_used, causal, share, y, l, begin, end, width, depth, *scratch)
        else:
            forward[double](q, k, v, allowed, seeds_used, causal, share, y, l, begin, end, width, depth, *scratch)

    each_part(heads, B * H, 1)
    return y, (q, k, v, y, l, allowed, seeds_used, causal, share)


def attention_backward(dy, saved):
    q, k, v, y, l, allowed, seeds_used, causal, share = saved
    dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    S, D = k.shape[1], k.shape[3]
    width, depth = padded_to(S, WIDEST), padded_to(D, WIDEST)
    size = 2 * D * width + S * depth + 2 * ROWS * width + 2 * ROWS * depth

    def heads(begin, end):
        arrays = dy, q, k, v, y, l, allowed, seeds_used, causal, share, dq, dk, dv, begin, end, width, depth
        scratch = np.empty(size + LINE, q.dtype), np.empty(width + KEEP_BATCH, np.uint8)
        if q.dtype == np.float32:
            backward[float](*arrays, *scratch)
        else:
            backward[double](*arrays, *scratch)

    each_part(heads, q.shape[0] * q.shape[2], 1)
    return dq, dk, dv, None, None


def seen_and_kept(mask, seeds, dropout):
    """mask and seeds as arrays, None where they do nothing, and the share that is dropped."""
    dropping = seeds is not None and dropout > 0
    return None if mask is None else mask.view(np.uint8), seeds if dropping else None, dropout if dropping else 0.0


cdef void forward(const floating[:, :, :, ::1] q, const floating[:, :, :, ::1] k, const floating[:, :, :, ::1] v,
                  const uint8_t[:, ::1] mask, const uint64_t[::1] seeds, bint causal, double dropout,
                  floating[:, :, :, ::1] y, floating[:, :, ::1] l, Py_ssize_t begin, Py_ssize_t end,
                  Py_ssize_t width, Py_ssize_t depth, floating[::1] scratch, uint8_t[::1] keep):
    cdef Py_ssize_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], S = k.shape[1]
    cdef Py_ssize_t n, b, h, t, t0, i, rows, seen, padded
    cdef Py_ssize_t stride = H * D, panel = panel_columns(&scratch[0])
    cdef floating scale = <floating> (1 / sqrt(<double> D))
    cdef bint masked = mask is not None, dropping = seeds is not None
    cdef floating *nothing = NULL
    cdef floating *kt = aligned(&scratch[0])                                # K^T as panels, (D, S)
    cdef floating *vs = kt + D * width                                      # V as panels, (S, D)
    cdef floating *p = vs + S * depth                                       # scores of a block, (ROWS, width)
    if S == 0 or D == 0:
        y[...] = 0
        l[...] = 0
        return
    with nogil:
        for n in range(begin, end):
            b = n // H
            h = n % H
            pack(S, D, &k[b, 0, h, 0], 1, stride, kt)
            pack(D, S, &v[b, 0, h, 0], stride, 1, vs)
            t0 = 0
            while t0 < T:
                rows = min(ROWS, T - t0)
                seen = visible(t0 + rows - 1, T, S, causal)             # keys that the last query of the block sees
                padded = padded_to(seen, panel)
                panels(rows, padded, D, &q[b, t0, h, 0], stride, 1, kt, panel * D, p, width, False, nothing)     # (1)
                for i in range(rows):
                    t = t0 + i
                    l[b, h, t] = softmax(p + i * width, visible(t, T, S, causal), padded, scale,
                                         &mask[b, 0] if masked else NULL)                                   # (2)
                    if dropping:
                        keep_row(seeds[b], <uint32_t> h, <uint32_t> t, seen, threshold(dropout), &keep[0])
                        drop(p + i * width, seen, dropout, &keep[0])                                        # (3)
                panels(rows, D, seen, p, width, 1, vs, panel * S, &y[b, t0, h, 0], stride, False, nothing)       # (3)
                t0 += ROWS


cdef void backward(const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] q, const floating[:, :, :, ::1] k,
                   const floating[:, :, :, ::1] v, const floating[:, :, :, ::1] y, const floating[:, :, ::1] l,
                   const uint8_t[:, ::1] mask, const uint64_t[::1] seeds, bint causal, double dropout,
                   floating[:, :, :, ::1] dq, floating[:, :, :, ::1] dk, floating[:, :, :, ::1] dv,
                   Py_ssize_t begin, Py_ssize_t end, Py_ssize_t width, Py_ssize_t depth,
                   floating[::1] scratch, uint8_t[::1] keep):
    cdef Py_ssize_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], S = k.shape[1]
    cdef Py_ssize_t n, b, h, t, t0, i, rows, seen, padded
    cdef Py_ssize_t stride = H * D, panel = panel_columns(&scratch[0])
    cdef floating scale = <floating> (1 / sqrt(<double> D)), c
    cdef bint masked = mask is not None, dropping = seeds is not None
    cdef floating *nothing = NULL
    cdef floating *kt = aligned(&scratch[0])                                # K^T and V^T as panels, (D, S)
    cdef floating *vt = kt + D * width
    cdef floating *ks = vt + D * width                                      # K as panels, (S, D)
    cdef floating *p = ks + S * depth                                       # of a block: p and dx, (ROWS, width)
    cdef floating *dx = p + ROWS * width
    cdef floating *qs = dx + ROWS * width                                   # of a block: q and dy as panels, (ROWS, D)
    cdef floating *dys = qs + ROWS * depth
    if S == 0 or D == 0:
        dq[...] = 0
        return
    with nogil:
        for n in range(begin, end):
            b = n // H
            h = n % H
            pack(S, D, &k[b, 0, h, 0], 1, stride, kt)
            pack(S, D, &v[b, 0, h, 0], 1, stride, vt)
            pack(D, S, &k[b, 0, h, 0], stride, 1, ks)
            t0 = 0
            while t0 < T:
                rows = min(ROWS, T - t0)
                seen = visible(t0 + rows - 1, T, S, causal)
                padded = padded_to(seen, panel)
                panels(rows, padded, D, &q[b, t0, h, 0], stride, 1, kt, panel * D, p, width, False, nothing)     # (1)
                panels(rows, padded, D, &dy[b, t0, h, 0], stride, 1, vt, panel * D, dx, width, False, nothing)   # (5)
                for i in range(rows):
                    t = t0 + i
                    again(p + i * width, visible(t, T, S, causal), padded, scale, l[b, h, t],
                          &mask[b, 0] if masked else NULL)                                                      # (2)
                    c = dot(&dy[b, t, h, 0], &y[b, t, h, 0], D)                                                 # (6)
                    if dropping:
                        keep_row(seeds[b], <uint32_t> h, <uint32_t> t, seen, threshold(dropout), &keep[0])
                        drop(dx + i * width, seen, dropout, &keep[0])                                           # (5)
                    to_scores(p + i * width, dx + i * width, padded, c, scale)                                  # (6)
                    if dropping:
                        drop(p + i * width, seen, dropout, &keep[0])                                            # (4)
                pack(D, rows, &q[b, t0, h, 0], stride, 1, qs)
                pack(D, rows, &dy[b, t0, h, 0], stride, 1, dys)
                panels(seen, D, rows, p, 1, width, dys, panel * rows, &dv[b, 0, h, 0], stride, True, nothing)    # (4)
                panels(rows, D, seen, dx, width, 1, ks, panel * S, &dq[b, t0, h, 0], stride, False, nothing)             # (7)
                panels(seen, D, rows, dx, 1, width, qs, panel * rows, &dk[b, 0, h, 0], stride, True, nothing)    # (8)
                t0 += ROWS


cdef inline floating *aligned(floating *x) noexcept nogil:
    """The first place at or behind x where a cache line begins."""
    return <floating *> ((<uintptr_t> x + LINE - 1) // LINE * LINE)


cdef inline Py_ssize_t padded_to(Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    return (n + step - 1) // step * step


cdef inline Py_ssize_t visible(Py_ssize_t t, Py_ssize_t T, Py_ssize_t S, bint causal) noexcept nogil:
    """How many keys query t may look at, padding aside: they are the first ones."""
    return max(0, min(S, t + 1 + S - T)) if causal else S


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


cdef inline void to_scores(const floating *p, floating *dx, Py_ssize_t n, floating c, floating scale) noexcept nogil:
    """(6) of one row, in place: from the gradient of p to that of the scores. Where p is 0, it is 0."""
    cdef Py_ssize_t s
    for s in range(n):
        dx[s] = p[s] * (dx[s] - c) * scale


cdef inline uint32_t threshold(double dropout) noexcept nogil:
    return <uint32_t> (dropout * 4294967296.0)


cdef inline void drop(floating *x, Py_ssize_t n, double dropout, const uint8_t *keep) noexcept nogil:
    """x times dropout's mask M of (3), in place."""
    cdef Py_ssize_t s
    cdef floating scale = <floating> (1 / (1 - dropout))
    for s in range(n):
        x[s] *= scale * keep[s]
