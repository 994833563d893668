"""attention on the CPU. Equations (1)-(8) are derived in minigpt/ops/attention.py.

Head by head (n = 0 ... B H - 1), and in it block by block of COLUMNS queries: their scores with all keys that they may see
stand in a small buffer that stays in the cache, never the whole (T, S). They stand transposed, X^T = K Q^T, a key a row and
a query a column: so LANES queries fill a vector's lanes, and their softmax runs down the columns, without a step across a
vector. The products run on tile.h; what stands on their right is packed for it, and costs as much as one query or key.

A group of LANES queries (or of a panel, where that is wider) has rows for the keys that its last query sees, and zeros in
the next STRIP of them, which products of STRIP keys may meet.
"""
import numpy as np
from cython cimport floating
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t

from minigpt.kernels.cpu import each_part
from philox_words cimport words_of_columns
from tile cimport pack, panel_columns, panels

cdef extern from "columns.h" nogil:
    enum: LANES                                     # queries whose softmax runs side by side
    void softmax_columns_float(float *x, long n, long stride, float scale, float *l)
    void softmax_columns_double(double *x, long n, long stride, double scale, double *l)
    void scores_columns_float(float *x, float *dx, long n, long stride, float scale, const float *l, const float *c)
    void scores_columns_double(double *x, double *dx, long n, long stride, double scale, const double *l, const double *c)

cdef enum:
    COLUMNS = 64                                    # queries in a block
    STRIP = 12                                      # keys in a product for their gradients: two tiles
    WIDEST = 32                                     # columns of the widest panel
    LINE = 64                                       # bytes that the cache moves at a time


def attention_forward(q, k, v, mask=None, seeds=None, *, bint causal=True, double dropout=0.0):
    B, T, H, D = q.shape
    S = k.shape[1]
    y, l = np.empty_like(q), np.empty((B, H, T), q.dtype)
    depth = padded_to(D, WIDEST)
    size = D * COLUMNS + S * depth + S * COLUMNS + (S + 4) * LANES + LINE
    allowed, seeds_used, share = seen_and_kept(mask, seeds, dropout)

    def heads(begin, end):
        scratch = np.zeros(size, q.dtype)
        if q.dtype == np.float32:
            forward[float](q, k, v, allowed, seeds_used, causal, share, y, l, begin, end, depth, scratch)
        else:
            forward[double](q, k, v, allowed, seeds_used, causal, share, y, l, begin, end, depth, scratch)

    each_part(heads, B * H, 1)
    return y, (q, k, v, y, l, allowed, seeds_used, causal, share)


def attention_backward(dy, saved):
    q, k, v, y, l, allowed, seeds_used, causal, share = saved
    dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    S, D = k.shape[1], k.shape[3]
    depth = padded_to(D, WIDEST)
    size = 2 * D * COLUMNS + 2 * depth * COLUMNS + S * depth + 2 * S * COLUMNS + (S + 4) * LANES + LINE

    def heads(begin, end):
        arrays = dy, q, k, v, y, l, allowed, seeds_used, causal, share, dq, dk, dv, begin, end, depth
        scratch = np.zeros(size, q.dtype)
        if q.dtype == np.float32:
            backward[float](*arrays, scratch)
        else:
            backward[double](*arrays, scratch)

    each_part(heads, q.shape[0] * q.shape[2], 1)
    return dq, dk, dv, None, None


def seen_and_kept(mask, seeds, dropout):
    """mask and seeds as arrays, None where they do nothing, and the share that is dropped."""
    dropping = seeds is not None and dropout > 0
    return None if mask is None else mask.view(np.uint8), seeds if dropping else None, dropout if dropping else 0.0


cdef void forward(const floating[:, :, :, ::1] q, const floating[:, :, :, ::1] k, const floating[:, :, :, ::1] v,
                  const uint8_t[:, ::1] mask, const uint64_t[::1] seeds, bint causal, double dropout,
                  floating[:, :, :, ::1] y, floating[:, :, ::1] l, Py_ssize_t begin, Py_ssize_t end,
                  Py_ssize_t depth, floating[::1] scratch):
    cdef Py_ssize_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], S = k.shape[1]
    cdef Py_ssize_t n, b, h, t0, t, i, j, rows, group, columns, seen
    cdef Py_ssize_t stride = H * D, panel = panel_columns(&scratch[0])
    cdef floating scale = <floating> (1 / sqrt(<double> D))
    cdef bint masked = mask is not None, dropping = seeds is not None
    cdef floating *nothing = NULL
    cdef floating l_of_block[COLUMNS]
    cdef floating *vs = aligned(&scratch[0])                                # V as panels, (S, D)
    cdef floating *qt = vs + S * depth                                      # of a block: Q^T as panels, (D, COLUMNS)
    cdef floating *p = qt + D * COLUMNS                                     # X^T, then P^T, (S, COLUMNS)
    cdef floating *M = p + S * COLUMNS                                      # of LANES queries: dropout's mask, (S, LANES)
    if S == 0 or D == 0:
        y[...] = 0
        l[...] = 0
        return
    with nogil:
        for n in range(begin, end):
            b = n // H
            h = n % H
            pack(D, S, &v[b, 0, h, 0], stride, 1, vs)
            t0 = 0
            while t0 < T:
                rows = min(COLUMNS, T - t0)
                pack(rows, D, &q[b, t0, h, 0], 1, stride, qt)
                i = 0
                while i < rows:
                    t = t0 + i
                    group = min(max(panel, LANES), rows - i)
                    columns = padded_to(group, panel)
                    seen = visible(t + group - 1, T, S, causal)             # keys that the last query of the group sees
                    panels(seen, columns, D, &k[b, 0, h, 0], stride, 1, qt + i * D, panel * D, p + i, COLUMNS, False,
                           nothing)                                                                             # (1)
                    j = 0
                    while j < group:
                        hide(p + i + j, t + j, T, S, seen, causal, &mask[b, 0] if masked else NULL)
                        softmax(p + i + j, seen, scale, l_of_block + i + j)                                     # (2)
                        if dropping:
                            draw(seeds[b], h, t + j, seen, dropout, M)
                            drop(p + i + j, M, seen)                                                            # (3)
                        j += LANES
                    panels(group, D, seen, p + i, 1, COLUMNS, vs, panel * S, &y[b, t, h, 0], stride, False, nothing)    # (3)
                    i += group
                for i in range(rows):
                    l[b, h, t0 + i] = l_of_block[i]
                t0 += COLUMNS


cdef void backward(const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] q, const floating[:, :, :, ::1] k,
                   const floating[:, :, :, ::1] v, const floating[:, :, :, ::1] y, const floating[:, :, ::1] l,
                   const uint8_t[:, ::1] mask, const uint64_t[::1] seeds, bint causal, double dropout,
                   floating[:, :, :, ::1] dq, floating[:, :, :, ::1] dk, floating[:, :, :, ::1] dv,
                   Py_ssize_t begin, Py_ssize_t end, Py_ssize_t depth, floating[::1] scratch):
    cdef Py_ssize_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], S = k.shape[1]
    cdef Py_ssize_t n, b, h, t0, t, i, j, s, rows, group, columns, seen, first, strip
    cdef Py_ssize_t stride = H * D, panel = panel_columns(&scratch[0])
    cdef floating scale = <floating> (1 / sqrt(<double> D))
    cdef bint masked = mask is not None, dropping = seeds is not None
    cdef floating *nothing = NULL
    cdef floating l_of_block[COLUMNS]
    cdef floating c[COLUMNS]
    cdef floating *ks = aligned(&scratch[0])                                # K as panels, (S, D)
    cdef floating *qt = ks + S * depth                                      # of a block: Q^T and dY^T, (D, COLUMNS)
    cdef floating *dyt = qt + D * COLUMNS
    cdef floating *qs = dyt + D * COLUMNS                                   # Q and dY, (COLUMNS, D), all four as panels
    cdef floating *dys = qs + depth * COLUMNS
    cdef floating *p = dys + depth * COLUMNS                                # P^T and dX^T, (S, COLUMNS)
    cdef floating *dx = p + S * COLUMNS
    cdef floating *M = dx + S * COLUMNS                                     # of LANES queries: dropout's mask, (S, LANES)
    if S == 0 or D == 0:
        dq[...] = 0
        return
    with nogil:
        for i in range(COLUMNS):
            l_of_block[i] = c[i] = 0
        for n in range(begin, end):
            b = n // H
            h = n % H
            pack(D, S, &k[b, 0, h, 0], stride, 1, ks)
            t0 = 0
            while t0 < T:
                rows = min(COLUMNS, T - t0)
                pack(rows, D, &q[b, t0, h, 0], 1, stride, qt)
                pack(rows, D, &dy[b, t0, h, 0], 1, stride, dyt)
                pack(D, rows, &q[b, t0, h, 0], stride, 1, qs)
                pack(D, rows, &dy[b, t0, h, 0], stride, 1, dys)
                for i in range(rows):
                    l_of_block[i] = l[b, h, t0 + i]
                    c[i] = dot(&dy[b, t0 + i, h, 0], &y[b, t0 + i, h, 0], D)                                    # (6)
                i = 0
                while i < rows:
                    t = t0 + i
                    group = min(max(panel, LANES), rows - i)
                    columns = padded_to(group, panel)
                    seen = visible(t + group - 1, T, S, causal)
                    panels(seen, columns, D, &k[b, 0, h, 0], stride, 1, qt + i * D, panel * D, p + i, COLUMNS, False,
                           nothing)                                                                             # (1)
                    panels(seen, columns, D, &v[b, 0, h, 0], stride, 1, dyt + i * D, panel * D, dx + i, COLUMNS, False,
                           nothing)                                                                             # (5)
                    j = 0
                    while j < group:
                        hide(p + i + j, t + j, T, S, seen, causal, &mask[b, 0] if masked else NULL)
                        if dropping:
                            draw(seeds[b], h, t + j, seen, dropout, M)
                            drop(dx + i + j, M, seen)                                                           # (5)
                        to_scores(p + i + j, dx + i + j, seen, scale, l_of_block + i + j, c + i + j)        # (2) (6)
                        if dropping:
                            drop(p + i + j, M, seen)                                                            # (4)
                        clear(p + i + j, seen, S)
                        clear(dx + i + j, seen, S)
                        j += LANES
                    panels(group, D, seen, dx + i, 1, COLUMNS, ks, panel * S, &dq[b, t, h, 0], stride, False, nothing)  # (7)
                    i += group
                seen = visible(t0 + rows - 1, T, S, causal)
                s = 0
                while s < seen:
                    strip = min(STRIP, seen - s)
                    first = max(0, s - (S - T) - t0) if causal else 0       # the first query of the block that sees key s
                    panels(strip, D, rows - first, p + s * COLUMNS + first, COLUMNS, 1, dys + first * panel, panel * rows,
                           &dv[b, s, h, 0], stride, True, nothing)                                              # (4)
                    panels(strip, D, rows - first, dx + s * COLUMNS + first, COLUMNS, 1, qs + first * panel, panel * rows,
                           &dk[b, s, h, 0], stride, True, nothing)                                              # (8)
                    s += STRIP
                t0 += COLUMNS


cdef inline floating *aligned(floating *x) noexcept nogil:
    """The first place at or behind x where a cache line begins."""
    return <floating *> ((<uintptr_t> x + LINE - 1) // LINE * LINE)


cdef inline Py_ssize_t padded_to(Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    return (n + step - 1) // step * step


cdef inline Py_ssize_t visible(Py_ssize_t t, Py_ssize_t T, Py_ssize_t S, bint causal) noexcept nogil:
    """How many keys query t may look at, padding aside: they are the first ones."""
    return max(0, min(S, t + 1 + S - T)) if causal else S


cdef inline void hide(floating *x, Py_ssize_t t, Py_ssize_t T, Py_ssize_t S, Py_ssize_t n, bint causal,
                      const uint8_t *allowed) noexcept nogil:
    """-inf, in the columns x of queries t ... t + LANES - 1, for the keys of 0 ... n - 1 that they may not look at."""
    cdef Py_ssize_t s, i
    if causal:
        for s in range(visible(t, T, S, causal), n):
            for i in range(min(LANES, s - (S - T) - t)):                    # those before the first one that sees s
                x[s * COLUMNS + i] = -INFINITY
    if allowed != NULL:
        for s in range(n):
            if not allowed[s]:
                for i in range(LANES):
                    x[s * COLUMNS + i] = -INFINITY


cdef inline void softmax(floating *x, Py_ssize_t n, floating scale, floating *l) noexcept nogil:
    """(2) of LANES columns of n numbers, in place: x becomes p. l is 0 where no key is seen."""
    if floating is float:
        softmax_columns_float(x, n, COLUMNS, scale, l)
    else:
        softmax_columns_double(x, n, COLUMNS, scale, l)


cdef inline void to_scores(floating *x, floating *dx, Py_ssize_t n, floating scale, const floating *l,
                           const floating *c) noexcept nogil:
    """LANES columns, in place: from the l that the forward pass kept, x becomes p (2); dx, the gradient of p, becomes that
    of the scores (6). Where p is 0, it is 0."""
    if floating is float:
        scores_columns_float(x, dx, n, COLUMNS, scale, l, c)
    else:
        scores_columns_double(x, dx, n, COLUMNS, scale, l, c)


cdef inline void clear(floating *x, Py_ssize_t n, Py_ssize_t S) noexcept nogil:
    """Zeros in the next STRIP rows of LANES columns of n numbers, where there are so many."""
    cdef Py_ssize_t s, i
    for s in range(n, min(S, n + STRIP)):
        for i in range(LANES):
            x[s * COLUMNS + i] = 0


cdef inline floating dot(const floating *a, const floating *b, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating total = 0
    for i in range(n):
        total += a[i] * b[i]
    return total


cdef inline void draw(uint64_t seed, Py_ssize_t h, Py_ssize_t t, Py_ssize_t n, double dropout, floating *M) noexcept nogil:
    """Dropout's mask for queries t ... t + LANES - 1 and n keys, (n, LANES): 0, or 1 over the share that is kept."""
    cdef Py_ssize_t s, half, i, j
    cdef uint32_t words[32]
    cdef uint32_t threshold = <uint32_t> (dropout * 4294967296.0)
    cdef floating kept = <floating> (1 / (1 - dropout)), zero = 0
    for s in range(0, n, 4):
        for half in range(0, LANES, 8):
            words_of_columns(seed, <uint32_t> h, <uint32_t> (t + half), <uint32_t> (s // 4), words)
            for i in range(4):
                for j in range(8):
                    M[(s + i) * LANES + half + j] = kept if words[8 * i + j] >= threshold else zero


cdef inline void drop(floating *x, const floating *M, Py_ssize_t n) noexcept nogil:
    """LANES columns times dropout's mask, in place."""
    cdef Py_ssize_t s, i
    for s in range(n):
        for i in range(LANES):
            x[s * COLUMNS + i] *= M[s * LANES + i]
