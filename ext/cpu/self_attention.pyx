"""self_attention on the CPU. Equations (1)-(15) are derived in minigpt/ops/self_attention.py.

A few sequences at a time, of about ROWS positions, go through all steps, so that what one step writes the next one reads
from the cache; the matrices are packed once for all of them (tile.h). Where threads share the rows of a call, each step is
made by all of them, then the next. q, k and v of a position stand side by side, in one row of 3 E numbers.
"""
from functools import lru_cache

import numpy as np
from cython cimport floating
from libc.stdint cimport uint8_t, uint64_t

from heads cimport Heads, backward_heads, backward_room, forward_heads, forward_room, heads_of
from minigpt.kernels.cpu import each_part, rotary, sharing
from norm cimport normalise, normalise_again, normalise_backward
from tile cimport (BLOCK, DEEP, aligned, lay_out, pack_large, pack_summing, padded, panel_columns, panels, pointer,
                   product_large)
from turn cimport norm_and_turn, turn_back
from vectorised cimport add

cdef enum:
    ROWS = 192                                      # positions that are taken at a time, where sequences are shorter
    COLUMNS = 512                                   # of dq, dk, dv that are packed at a time
    FIRST = 1                                       # the steps of a pass: (1) to (4), (5), (6); backward (7), (10), the rest
    HEADS = 2
    LAST = 4
    ALL = 7


def self_attention_forward(x, wq, bq, wk, bk, wv, bv, wo, bo, mask=None, seeds=None, scale=None, shift=None, *, heads,
                           bint turned=False, bint causal=True, double dropout=0.0, double eps=1e-5):
    B, T, C = x.shape
    E, O = wo.shape
    allowed = None if mask is None else mask.view(np.uint8)
    qkv, a, l = (np.empty(shape, x.dtype) for shape in ((B, T, 3 * E), (B, T, E), (B, heads, T)))
    y, (mean, r) = np.empty((B, T, O), x.dtype), np.empty((2, B * T), x.dtype)
    turns, lengths = (angles(T, E // heads, x.dtype), np.empty((B * T, 2 * heads), x.dtype)) if turned else (None, None)
    arrays = (x, wq, bq, wk, bk, wv, bv, wo, bo, allowed, seeds, scale, shift, turns, causal, dropout, eps, mean, r, lengths,
              qkv, a, l, y)

    def step(which, begin, end):
        if x.dtype == np.float32:
            forward[float](which, begin, end, *arrays)
        else:
            forward[double](which, begin, end, *arrays)

    in_steps(step, B, T, heads)
    has_b = [b is not None for b in (bq, bk, bv, bo)]
    return y, (x, wq, wk, wv, wo, has_b, allowed, seeds, scale, shift, turns, causal, dropout, mean, r, lengths, qkv, a, l)


def self_attention_backward(dy, saved):
    x, wq, wk, wv, wo, has_b, allowed, seeds, scale, shift, turns, causal, dropout, mean, r, lengths, qkv, a, l = saved
    B, T, C = x.shape
    E, O = wo.shape
    dx = np.empty_like(x)
    block = B if sharing.get() else min(B, sequences(T))
    da, dqkv = np.empty((block, T, E), x.dtype), np.empty((block, T, 3 * E), x.dtype)
    arrays = (dy, x, wq, wk, wv, wo, allowed, seeds, scale, shift, turns, causal, dropout, mean, r, lengths, qkv, a, l, da,
              dqkv, dx)

    def step(which, begin, end):
        sums = [np.empty((C, 3 * E), x.dtype), np.zeros(3 * E, x.dtype), np.empty((E, O), x.dtype), np.zeros(O, x.dtype),
                *np.zeros((2, C), x.dtype)]
        if x.dtype == np.float32:
            backward[float](which, begin, end, *arrays, *sums)
        else:
            backward[double](which, begin, end, *arrays, *sums)
        return sums

    (dw, db, dwo, dbo, dscale, dshift), *others = in_steps(step, B, T, l.shape[1])
    for part_of_sums in others:
        for total, array in zip((dw, db, dwo, dbo, dscale, dshift), part_of_sums):
            total += array
    of_layers = []
    for i in range(3):
        part = slice(i * E, (i + 1) * E)
        of_layers += [dw[:, part], db[part] if has_b[i] else None]
    return (dx, *of_layers, dwo, dbo if has_b[3] else None, None, None, None if scale is None else dscale,
            None if shift is None else dshift)


@lru_cache(maxsize=16)
def angles(T, D, dtype):
    """The cosines, then the sines, of rotary's (1) with its own base, (2 T, D/2)."""
    return np.concatenate([part[0] for part in rotary.angles(T, D, 0, 10000.0, dtype)])


cdef inline Py_ssize_t sequences(Py_ssize_t T) noexcept nogil:
    """How many sequences are taken at a time."""
    return max(1, ROWS // T)


def in_steps(step, B, T, H):
    """All steps for all sequences; or where threads share the work, one by one: the first and the last for their rows, that
    between for their heads. What the last step returns, for each part."""
    if not sharing.get():
        return [step(ALL, 0, B)]
    each_part(lambda begin, end: step(FIRST, begin, end), B * T, ROWS)
    each_part(lambda begin, end: step(HEADS, begin, end), B * H, 1)
    return each_part(lambda begin, end: step(LAST, begin, end), B * T, ROWS)


cdef forward(int which, Py_ssize_t begin, Py_ssize_t end, const floating[:, :, ::1] x, const floating[:, ::1] wq,
             const floating[::1] bq, const floating[:, ::1] wk, const floating[::1] bk, const floating[:, ::1] wv,
             const floating[::1] bv, const floating[:, ::1] wo, const floating[::1] bo, const uint8_t[:, ::1] mask,
             const uint64_t[::1] seeds, const floating[::1] scale, const floating[::1] shift,
             const floating[:, ::1] turns, bint causal, double dropout, double eps, floating[::1] mean, floating[::1] r,
             floating[:, ::1] lengths, floating[:, :, ::1] qkv, floating[:, :, ::1] a, floating[:, :, ::1] l,
             floating[:, :, ::1] y):
    """Steps for the sequences begin ... end, if it is all of them; else for these rows, or heads."""
    cdef Py_ssize_t T = x.shape[1], C = x.shape[2], E = wo.shape[0], O = wo.shape[1], H = l.shape[1]
    cdef Py_ssize_t i, n, row, rows, some, next_begin
    cdef Heads of = heads_of(T, T, H, E // H, 3 * E, mask, seeds, causal, dropout)
    cdef const floating *w[3]
    w[:] = [&wq[0, 0], &wk[0, 0], &wv[0, 0]]
    cdef const floating *b[3]
    b[:] = [pointer(bq), pointer(bk), pointer(bv)]
    cdef const floating *b_out = pointer(bo)
    cdef const floating *s = pointer(scale)
    cdef const floating *t = pointer(shift)
    cdef const floating *left
    cdef floating *q = &qkv[0, 0, 0]
    cdef Py_ssize_t sizes[6]
    sizes[:] = [C * padded(E), C * padded(E), C * padded(E), E * padded(O), forward_room(T, of.D), ROWS * C]
    cdef floating[::1] numbers = np.empty(lay_out(sizes, 6), np.float32 if floating is float else np.float64)
    cdef floating *room = aligned(&numbers[0])
    cdef floating *u = room + sizes[5]                                      # of ROWS rows
    with nogil:
        if which & FIRST:
            for i in range(3):
                pack_large(E, C, w[i], E, 1, room + sizes[i])
        if which & LAST:
            pack_large(O, E, &wo[0, 0], O, 1, room + sizes[3])
        while begin < end:
            next_begin = min(end, begin + sequences(T)) if which == ALL else end
            row = begin * T if which == ALL else begin
            rows = (next_begin - begin) * T if which == ALL else end - begin
            n = row
            while which & FIRST and n < row + rows:
                some = min(ROWS, row + rows - n)
                left = &x[0, 0, 0] + n * C
                if s != NULL:
                    normalise(left, some, C, s, t, eps, u, &mean[n], &r[n])                                     # (1)
                    left = u
                for i in range(3):
                    product_large(some, E, C, left, C, room + sizes[i], q + n * 3 * E + i * E, 3 * E, False, b[i])  # (2) (3)
                if turns is not None:
                    norm_and_turn(q + n * 3 * E, some, 3 * E, 2 * H, of.D, T, n, &turns[0, 0], &lengths[n, 0])  # (4)
                n += ROWS
            if which & HEADS:
                forward_heads(&of, q, q + E, q + 2 * E, &a[0, 0, 0], &l[0, 0, 0], begin * H if which == ALL else begin,
                              next_begin * H if which == ALL else end, room + sizes[4])                         # (5)
            if which & LAST:
                product_large(rows, O, E, &a[0, 0, 0] + row * E, E, room + sizes[3], &y[0, 0, 0] + row * O, O, False,
                              b_out)                                                                            # (6)
                if s != NULL:
                    add(&x[0, 0, 0] + row * C, rows * C, &y[0, 0, 0] + row * C)                                 # (6)
            begin = next_begin


cdef backward(int which, Py_ssize_t begin, Py_ssize_t end, const floating[:, :, ::1] dy, const floating[:, :, ::1] x,
              const floating[:, ::1] wq, const floating[:, ::1] wk, const floating[:, ::1] wv, const floating[:, ::1] wo,
              const uint8_t[:, ::1] mask, const uint64_t[::1] seeds, const floating[::1] scale, const floating[::1] shift,
              const floating[:, ::1] turns, bint causal, double dropout, const floating[::1] mean, const floating[::1] r,
              const floating[:, ::1] lengths, const floating[:, :, ::1] qkv, const floating[:, :, ::1] a,
              const floating[:, :, ::1] l, floating[:, :, ::1] da, floating[:, :, ::1] dqkv, floating[:, :, ::1] dx,
              floating[:, ::1] dw, floating[::1] db, floating[:, ::1] dwo, floating[::1] dbo, floating[::1] dscale, floating[::1] dshift):
    """Steps for the sequences begin ... end, if it is all of them: then da and dqkv have room for those that are taken at a
    time. Else for these rows, or heads."""
    cdef Py_ssize_t T = x.shape[1], C = x.shape[2], E = wo.shape[0], O = wo.shape[1], H = l.shape[1]
    cdef Py_ssize_t i, f, n, row, rows, here, some, columns, next_begin, first = begin, panel = panel_columns(&dx[0, 0, 0])
    cdef bint more
    cdef Heads some_heads, of = heads_of(T, T, H, E // H, 3 * E, mask, seeds, causal, dropout)
    cdef const floating *w[3]
    w[:] = [&wq[0, 0], &wk[0, 0], &wv[0, 0]]
    cdef floating *d = &dqkv[0, 0, 0]
    cdef const floating *q
    cdef const floating *s = pointer(scale)
    cdef const floating *t = pointer(shift)
    cdef const floating *left
    cdef floating *to
    cdef Py_ssize_t sizes[9]
    sizes[:] = [E * padded(C), E * padded(C), E * padded(C), O * padded(E), backward_room(T, of.D),
                ROWS * padded(max(O, COLUMNS)), BLOCK * DEEP, ROWS * C, ROWS * C]
    cdef floating[::1] numbers = np.empty(lay_out(sizes, 9), np.float32 if floating is float else np.float64)
    cdef floating *room = aligned(&numbers[0])
    cdef floating *right = room + sizes[5]                                  # dy, then dqkv, of ROWS rows, packed
    cdef floating *few = room + sizes[6]
    cdef floating *u = room + sizes[7]                                      # of ROWS rows
    cdef floating *du = room + sizes[8]
    with nogil:
        if which & FIRST:
            pack_large(E, O, &wo[0, 0], 1, O, room + sizes[3])
        if which & LAST:
            for i in range(3):
                pack_large(C, E, w[i], 1, E, room + sizes[i])
        while begin < end:
            next_begin = min(end, begin + sequences(T)) if which == ALL else end
            row = begin * T if which == ALL else begin
            rows = (next_begin - begin) * T if which == ALL else end - begin
            here = 0 if which == ALL else begin                             # where these rows are in da and dqkv
            if which & FIRST:
                product_large(rows, E, O, &dy[0, 0, 0] + row * O, O, room + sizes[3], &da[0, 0, 0] + here * E, E, False,
                              <floating *> NULL)                                                                # (7)
            if which == ALL:
                some_heads = of_sequences(of, begin)
                q = &qkv[0, 0, 0] + row * 3 * E
                backward_heads(&some_heads, &da[0, 0, 0], q, q + E, q + 2 * E, &a[0, 0, 0] + row * E,
                               &l[0, 0, 0] + begin * H * T, d, d + E, d + 2 * E, 0, (next_begin - begin) * H,
                               room + sizes[4])                                                                 # (10)
            elif which & HEADS:
                q = &qkv[0, 0, 0]
                backward_heads(&of, &da[0, 0, 0], q, q + E, q + 2 * E, &a[0, 0, 0], &l[0, 0, 0], d, d + E, d + 2 * E, begin,
                               end, room + sizes[4])                                                            # (10)
            if which & LAST:
                n = 0
                while n < rows:
                    some = min(ROWS, rows - n)
                    more = begin > first or n > 0
                    left, to = &x[0, 0, 0] + (row + n) * C, &dx[0, 0, 0] + (row + n) * C
                    if s != NULL:
                        normalise_again(left, some, C, s, t, &mean[row + n], &r[row + n], u)                    # (1)
                        left, to = u, du
                    pack_summing(O, some, &dy[0, 0, 0] + (row + n) * O, O, right, &dbo[0])                      # (9)
                    panels(E, O, some, &a[0, 0, 0] + (row + n) * E, 1, E, right, panel * some, &dwo[0, 0], O, more,
                           few)                                                                                 # (8)
                    if turns is not None:
                        turn_back(d + (here + n) * 3 * E, &qkv[0, 0, 0] + (row + n) * 3 * E, some, 3 * E, 2 * H, of.D, T,
                                  row + n, &turns[0, 0], &lengths[row + n, 0])                                  # (11)
                    f = 0
                    while f < 3 * E:
                        columns = min(COLUMNS, 3 * E - f)
                        pack_summing(columns, some, d + (here + n) * 3 * E + f, 3 * E, right, &db[f])           # (14)
                        panels(C, columns, some, left, 1, C, right, panel * some, &dw[0, f], 3 * E, more, few)  # (13)
                        f += COLUMNS
                    for i in range(3):
                        product_large(some, C, E, d + (here + n) * 3 * E + i * E, 3 * E, room + sizes[i], to, C, i > 0,
                                      <floating *> NULL)                                                        # (12)
                    if s != NULL:
                        normalise_backward(du, &x[0, 0, 0] + (row + n) * C, some, C, s, &mean[row + n], &r[row + n],
                                           &dx[0, 0, 0] + (row + n) * C, &dscale[0], &dshift[0])                # (15)
                        add(&dy[0, 0, 0] + (row + n) * C, some * C, &dx[0, 0, 0] + (row + n) * C)               # (15)
                    n += ROWS
            begin = next_begin


cdef inline Heads of_sequences(Heads of, Py_ssize_t begin) noexcept nogil:
    """What `of` says, for arrays that begin at a later sequence."""
    if of.mask != NULL:
        of.mask += begin * of.S
    if of.seeds != NULL:
        of.seeds += begin
    return of
