"""Attention of one sequence and head on the CPU, for attention.pyx and self_attention.pyx. Equations (1)-(8) are derived in
minigpt/ops/attention.py.

Block by block of COLUMNS queries: their scores with all keys that they may see stand in a small buffer that stays in the
cache, never the whole (T, S). They stand transposed, X^T = K Q^T, a key a row and a query a column: so LANES queries fill a
vector's lanes, and their softmax runs down the columns, without a step across a vector. The products run on tile.h; what
stands on their right is packed for it, and costs as much as one query or key.

A group of LANES queries (or of a panel, where that is wider) has rows for the keys that its last query sees, and zeros in
the next STRIP of them, which products of STRIP keys may meet.

A head's queries, keys and values are `row` numbers from one position to the next, and their gradients too; y and dy are
H D numbers.
"""
from cython cimport floating
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from philox_words cimport words_of_columns
from tile cimport LINE, aligned, pack, padded, panel_columns, panels
from vectorised cimport dot

cdef extern from "columns.h" nogil:
    enum: LANES                                     # queries whose softmax runs side by side
    void softmax_columns_float(float *x, long n, long stride, float scale, float *l)
    void softmax_columns_double(double *x, long n, long stride, double scale, double *l)
    void scores_columns_float(float *x, float *dx, long n, long stride, float scale, const float *l, const float *c)
    void scores_columns_double(double *x, double *dx, long n, long stride, double scale, const double *l, const double *c)

cdef enum:
    COLUMNS = 64                                    # queries in a block
    STRIP = 12                                      # keys in a product for their gradients: two tiles


cdef struct Heads:
    Py_ssize_t T, S, H, D                           # queries and keys of a sequence, heads, numbers of a head
    Py_ssize_t row                                  # numbers from one position's queries (keys, values) to the next one's
    const uint8_t *mask                             # (B, S): which keys may be seen; NULL: all
    const uint64_t *seeds                           # (B,): dropout's; NULL: without
    bint causal
    double dropout


cdef inline Heads heads_of(Py_ssize_t T, Py_ssize_t S, Py_ssize_t H, Py_ssize_t D, Py_ssize_t row, const uint8_t[:, ::1] mask,
                           const uint64_t[::1] seeds, bint causal, double dropout) noexcept:
    """mask and seeds may be None; without dropout seeds do nothing."""
    cdef Heads of
    of.T, of.S, of.H, of.D, of.row = T, S, H, D, row
    of.mask = &mask[0, 0] if mask is not None else NULL
    of.seeds = &seeds[0] if seeds is not None and dropout > 0 else NULL
    of.causal, of.dropout = causal, dropout
    return of


cdef inline Py_ssize_t forward_room(Py_ssize_t S, Py_ssize_t D) noexcept nogil:
    """Numbers of the room that forward_heads works in."""
    return D * COLUMNS + S * padded(D) + S * COLUMNS + (S + 4) * LANES + LINE


cdef inline Py_ssize_t backward_room(Py_ssize_t S, Py_ssize_t D) noexcept nogil:
    """The same for backward_heads."""
    return 2 * (D + padded(D)) * COLUMNS + S * padded(D) + 2 * S * COLUMNS + (S + 4) * LANES + LINE


cdef inline void forward_heads(const Heads *of, const floating *q, const floating *k, const floating *v, floating *y,
                               floating *l, Py_ssize_t begin, Py_ssize_t end, floating *room) noexcept nogil:
    """Heads begin ... end of all B H: y and l, from q, k and v of all B sequences."""
    cdef Py_ssize_t n, b, h, T = of.T, S = of.S, D = of.D, row = of.row, width = of.H * of.D
    memset(room, 0, forward_room(S, D) * sizeof(floating))                  # what fills panels up has to be finite
    for n in range(begin, end):
        b = n // of.H
        h = n % of.H
        forward_head(of, b, h, q + b * T * row + h * D, k + b * S * row + h * D, v + b * S * row + h * D,
                     y + b * T * width + h * D, l + n * T, room)


cdef inline void backward_heads(const Heads *of, const floating *dy, const floating *q, const floating *k, const floating *v,
                                const floating *y, const floating *l, floating *dq, floating *dk, floating *dv,
                                Py_ssize_t begin, Py_ssize_t end, floating *room) noexcept nogil:
    """dq, dk and dv of heads begin ... end."""
    cdef Py_ssize_t n, b, h, queries, keys, out, T = of.T, S = of.S, D = of.D, row = of.row, width = of.H * of.D
    memset(room, 0, backward_room(S, D) * sizeof(floating))
    for n in range(begin, end):
        b = n // of.H
        h = n % of.H
        queries = b * T * row + h * D
        keys = b * S * row + h * D
        out = b * T * width + h * D
        backward_head(of, b, h, dy + out, q + queries, k + keys, v + keys, y + out, l + n * T, dq + queries, dk + keys,
                      dv + keys, room)


cdef inline void forward_head(const Heads *of, Py_ssize_t b, Py_ssize_t h, const floating *q, const floating *k,
                              const floating *v, floating *y, floating *l, floating *room) noexcept nogil:
    """The arrays begin at this sequence's and head's numbers."""
    cdef Py_ssize_t T = of.T, S = of.S, D = of.D, row = of.row, width = of.H * of.D, panel = panel_columns(room)
    cdef Py_ssize_t t0, t, i, j, rows, group, columns, seen
    cdef const uint8_t *allowed = of.mask + b * S if of.mask != NULL else NULL
    cdef floating scale = <floating> (1 / sqrt(<double> D))
    cdef floating *nothing = NULL
    cdef floating l_of_block[COLUMNS]
    cdef floating *vs = aligned(room)                                       # V as panels, (S, D)
    cdef floating *qt = vs + S * padded(D)                                  # of a block: Q^T as panels, (D, COLUMNS)
    cdef floating *p = qt + D * COLUMNS                                     # X^T, then P^T, (S, COLUMNS)
    cdef floating *M = p + S * COLUMNS                                      # of LANES queries: dropout's mask, (S, LANES)
    pack(D, S, v, row, 1, vs)
    t0 = 0
    while t0 < T:
        rows = min(COLUMNS, T - t0)
        pack(rows, D, q + t0 * row, 1, row, qt)
        i = 0
        while i < rows:
            t = t0 + i
            group = min(max(panel, LANES), rows - i)
            columns = padded_to(group, panel)
            seen = visible(t + group - 1, T, S, of.causal)                  # keys that the last query of the group sees
            panels(seen, columns, D, k, row, 1, qt + i * D, panel * D, p + i, COLUMNS, False, nothing)          # (1)
            j = 0
            while j < group:
                hide(p + i + j, t + j, T, S, seen, of.causal, allowed)
                softmax(p + i + j, seen, scale, l_of_block + i + j)                                             # (2)
                if of.seeds != NULL:
                    draw(of.seeds[b], h, t + j, seen, of.dropout, M)
                    drop(p + i + j, M, seen)                                                                    # (3)
                j += LANES
            panels(group, D, seen, p + i, 1, COLUMNS, vs, panel * S, y + t * width, width, False, nothing)      # (3)
            i += group
        for i in range(rows):
            l[t0 + i] = l_of_block[i]
        t0 += COLUMNS


cdef inline void backward_head(const Heads *of, Py_ssize_t b, Py_ssize_t h, const floating *dy, const floating *q,
                               const floating *k, const floating *v, const floating *y, const floating *l, floating *dq,
                               floating *dk, floating *dv, floating *room) noexcept nogil:
    """The arrays begin at this sequence's and head's numbers."""
    cdef Py_ssize_t T = of.T, S = of.S, D = of.D, row = of.row, width = of.H * of.D, panel = panel_columns(room)
    cdef Py_ssize_t t0, t, i, j, s, rows, group, columns, seen, first, strip, begun = 0
    cdef const uint8_t *allowed = of.mask + b * S if of.mask != NULL else NULL
    cdef floating scale = <floating> (1 / sqrt(<double> D))
    cdef floating *nothing = NULL
    cdef floating l_of_block[COLUMNS]
    cdef floating c[COLUMNS]
    cdef floating *ks = aligned(room)                                       # K as panels, (S, D)
    cdef floating *qt = ks + S * padded(D)                                  # of a block: Q^T and dY^T, (D, COLUMNS)
    cdef floating *dyt = qt + D * COLUMNS
    cdef floating *qs = dyt + D * COLUMNS                                   # Q and dY, (COLUMNS, D), all four as panels
    cdef floating *dys = qs + padded(D) * COLUMNS
    cdef floating *p = dys + padded(D) * COLUMNS                 # P^T and dX^T, (S, COLUMNS)
    cdef floating *dx = p + S * COLUMNS
    cdef floating *M = dx + S * COLUMNS                                     # of LANES queries: dropout's mask, (S, LANES)
    for i in range(COLUMNS):
        l_of_block[i] = c[i] = 0
    pack(D, S, k, row, 1, ks)
    t0 = 0
    while t0 < T:
        rows = min(COLUMNS, T - t0)
        pack(rows, D, q + t0 * row, 1, row, qt)
        pack(rows, D, dy + t0 * width, 1, width, dyt)
        pack(D, rows, q + t0 * row, row, 1, qs)
        pack(D, rows, dy + t0 * width, width, 1, dys)
        for i in range(rows):
            l_of_block[i] = l[t0 + i]
            c[i] = dot(dy + (t0 + i) * width, y + (t0 + i) * width, D)                                          # (6)
        i = 0
        while i < rows:
            t = t0 + i
            group = min(max(panel, LANES), rows - i)
            columns = padded_to(group, panel)
            seen = visible(t + group - 1, T, S, of.causal)
            panels(seen, columns, D, k, row, 1, qt + i * D, panel * D, p + i, COLUMNS, False, nothing)          # (1)
            panels(seen, columns, D, v, row, 1, dyt + i * D, panel * D, dx + i, COLUMNS, False, nothing)        # (5)
            j = 0
            while j < group:
                hide(p + i + j, t + j, T, S, seen, of.causal, allowed)
                if of.seeds != NULL:
                    draw(of.seeds[b], h, t + j, seen, of.dropout, M)
                    drop(dx + i + j, M, seen)                                                                   # (5)
                to_scores(p + i + j, dx + i + j, seen, scale, l_of_block + i + j, c + i + j)                    # (2) (6)
                if of.seeds != NULL:
                    drop(p + i + j, M, seen)                                                                    # (4)
                clear(p + i + j, seen, S)
                clear(dx + i + j, seen, S)
                j += LANES
            panels(group, D, seen, dx + i, 1, COLUMNS, ks, panel * S, dq + t * row, row, False, nothing)        # (7)
            i += group
        seen = visible(t0 + rows - 1, T, S, of.causal)
        if t0 > 0:                                                          # the first block writes, later ones add
            begin_with_zeros(dk, dv, begun, seen, D, row)
        s = 0
        while s < seen:
            strip = min(STRIP, seen - s)
            first = max(0, s - (S - T) - t0) if of.causal else 0            # the first query of the block that sees key s
            panels(strip, D, rows - first, p + s * COLUMNS + first, COLUMNS, 1, dys + first * panel, panel * rows,
                   dv + s * row, row, t0 > 0, nothing)                                                          # (4)
            panels(strip, D, rows - first, dx + s * COLUMNS + first, COLUMNS, 1, qs + first * panel, panel * rows,
                   dk + s * row, row, t0 > 0, nothing)                                                          # (8)
            s += STRIP
        begun = seen
        t0 += COLUMNS
    begin_with_zeros(dk, dv, begun, S, D, row)                              # where there are no queries


cdef inline void begin_with_zeros(floating *dk, floating *dv, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t D,
                                  Py_ssize_t row) noexcept nogil:
    """Zeros in dk and dv of the keys begin ... end, to which no block has come yet."""
    cdef Py_ssize_t s, i
    for s in range(begin, end):
        for i in range(D):
            dk[s * row + i] = dv[s * row + i] = 0


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
