"""mlp on the CPU. Equations (1)-(12) are derived in minigpt/ops/mlp.py.

Block by block of ROWS rows, so that what has F numbers a row (h, a, da, dh) is used while it is in the cache: of
it, only h is written to memory. The matrices are packed once for all blocks (tile.h).
"""
import numpy as np
from cython cimport floating

from minigpt.kernels.cpu import each_part
from activations cimport gelu, relu_squared
from norm cimport normalise, normalise_again, normalise_backward
from tile cimport (BLOCK, DEEP, aligned, lay_out, pack_large, pack_summing, padded, panel_columns, panels, pointer,
                   product_large)
from vectorised cimport add

cdef enum:
    ROWS = 192                                      # of a block: sixteen tiles; 96 is as fast at width 128, 3% slower at 384
    COLUMNS = 512                                   # of dh that are packed at a time


def mlp_forward(x, w1, b1, w2, b2, scale=None, shift=None, *, activation="gelu", double eps=1e-5):
    C, F = w1.shape
    O = w2.shape[1]
    rows = x.reshape(-1, C)                                                 # (N, C)
    h, y = np.empty((len(rows), F), x.dtype), np.empty((len(rows), O), x.dtype)
    mean, r = np.empty((2, len(rows)), x.dtype)
    by_gelu = activation == "gelu"

    def part(begin, end):
        some = slice(begin, end)
        arrays = rows[some], w1, b1, w2, b2, scale, shift, eps, by_gelu, mean[some], r[some], h[some], y[some]
        if x.dtype == np.float32:
            forward[float](*arrays)
        else:
            forward[double](*arrays)

    each_part(part, len(rows), ROWS)
    saved = x, w1, b1 is not None, w2, b2 is not None, scale, shift, mean, r, h, by_gelu
    return y.reshape(x.shape[:x.ndim - 1] + (O,)), saved


def mlp_backward(dy, saved):
    x, w1, has_b1, w2, has_b2, scale, shift, mean, r, h, by_gelu = saved
    rows, dy = x.reshape(-1, w1.shape[0]), dy.reshape(-1, w2.shape[1])
    dx = np.empty_like(rows)

    def part(begin, end):
        some = slice(begin, end)
        matrices = np.empty if end > begin else np.zeros                    # written by the first block, if there is one
        sums = [matrices(w1.shape, x.dtype), np.zeros(w1.shape[1], x.dtype), matrices(w2.shape, x.dtype),
                np.zeros(w2.shape[1], x.dtype), *np.zeros((2, w1.shape[0]), x.dtype)]
        arrays = dy[some], rows[some], w1, w2, scale, shift, mean[some], r[some], h[some], by_gelu, dx[some], *sums
        if x.dtype == np.float32:
            backward[float](*arrays)
        else:
            backward[double](*arrays)
        return sums

    (dw1, db1, dw2, db2, dscale, dshift), *others = each_part(part, len(rows), ROWS)
    for part_of_sums in others:
        for total, array in zip((dw1, db1, dw2, db2, dscale, dshift), part_of_sums):
            total += array
    return (dx.reshape(x.shape), dw1, db1 if has_b1 else None, dw2, db2 if has_b2 else None,
            None if scale is None else dscale, None if shift is None else dshift)


cdef inline void activate(const floating *h, Py_ssize_t n, bint by_gelu, floating *a, floating *dh) noexcept nogil:
    """a = f(h) (3); where dh is not NULL, it is times f'(h) afterwards (8)."""
    if by_gelu:
        gelu(h, n, a, dh, True)
    else:
        relu_squared(h, n, a, dh)


cdef forward(const floating[:, ::1] x, const floating[:, ::1] w1, const floating[::1] b1, const floating[:, ::1] w2,
             const floating[::1] b2, const floating[::1] scale, const floating[::1] shift, double eps, bint by_gelu,
             floating[::1] mean, floating[::1] r, floating[:, ::1] h, floating[:, ::1] y):
    cdef Py_ssize_t N = x.shape[0], C = w1.shape[0], F = w1.shape[1], O = w2.shape[1], n, rows
    cdef const floating *shift1 = pointer(b1)
    cdef const floating *shift2 = pointer(b2)
    cdef const floating *s = pointer(scale)
    cdef const floating *t = pointer(shift)
    cdef const floating *left
    cdef Py_ssize_t at[4]
    at[:] = [C * padded(F), F * padded(O), ROWS * F, ROWS * C]
    cdef floating[::1] numbers = np.empty(lay_out(at, 4), np.float32 if floating is float else np.float64)
    cdef floating *room = aligned(&numbers[0])
    cdef floating *v1 = room + at[0]                                        # w1 and w2, packed
    cdef floating *v2 = room + at[1]
    cdef floating *a = room + at[2]                                         # of a block, (ROWS, F)
    cdef floating *u = room + at[3]                                         # of a block, (ROWS, C)
    with nogil:
        pack_large(F, C, &w1[0, 0], F, 1, v1)
        pack_large(O, F, &w2[0, 0], O, 1, v2)
        n = 0
        while n < N:
            rows = min(ROWS, N - n)
            left = &x[n, 0]
            if s != NULL:
                normalise(&x[n, 0], rows, C, s, t, eps, u, &mean[n], &r[n])                 # (1)
                left = u
            product_large(rows, F, C, left, C, v1, &h[n, 0], F, False, shift1)              # (2)
            activate(&h[n, 0], rows * F, by_gelu, a, <floating *> NULL)                     # (3)
            product_large(rows, O, F, a, F, v2, &y[n, 0], O, False, shift2)                 # (4)
            if s != NULL:
                add(&x[n, 0], rows * O, &y[n, 0])                                           # (4)
            n += ROWS


cdef backward(const floating[:, ::1] dy, const floating[:, ::1] x, const floating[:, ::1] w1, const floating[:, ::1] w2,
              const floating[::1] scale, const floating[::1] shift, const floating[::1] mean, const floating[::1] r,
              const floating[:, ::1] h, bint by_gelu, floating[:, ::1] dx, floating[:, ::1] dw1, floating[::1] db1,
              floating[:, ::1] dw2, floating[::1] db2, floating[::1] dscale, floating[::1] dshift):
    cdef Py_ssize_t N = x.shape[0], C = w1.shape[0], F = w1.shape[1], O = w2.shape[1], n, f, rows, columns
    cdef const floating *s = pointer(scale)
    cdef const floating *t = pointer(shift)
    cdef const floating *left
    cdef Py_ssize_t at[8]
    at[:] = [O * padded(F), F * padded(C), ROWS * F, ROWS * F, ROWS * padded(max(O, COLUMNS)), BLOCK * DEEP, ROWS * C, ROWS * C]
    cdef floating[::1] numbers = np.empty(lay_out(at, 8), np.float32 if floating is float else np.float64)
    cdef floating *room = aligned(&numbers[0])
    cdef floating *v2 = room + at[0]                                        # w2^T and w1^T, packed
    cdef floating *v1 = room + at[1]
    cdef floating *a = room + at[2]                                         # of a block, (ROWS, F)
    cdef floating *dh = room + at[3]
    cdef floating *right = room + at[4]                                     # dy, then dh, of a block, packed
    cdef floating *few = room + at[5]
    cdef floating *u = room + at[6]                                         # of a block, (ROWS, C)
    cdef floating *du = room + at[7]
    cdef Py_ssize_t panel = panel_columns(&dx[0, 0])
    with nogil:
        pack_large(F, O, &w2[0, 0], 1, O, v2)
        pack_large(C, F, &w1[0, 0], 1, F, v1)
        n = 0
        while n < N:
            rows = min(ROWS, N - n)
            left = &x[n, 0]
            if s != NULL:
                normalise_again(&x[n, 0], rows, C, s, t, &mean[n], &r[n], u)                            # (1)
                left = u
            product_large(rows, F, O, &dy[n, 0], O, v2, dh, F, False, <floating *> NULL)                # (5)  da
            activate(&h[n, 0], rows * F, by_gelu, a, dh)                                                # (3) (8)
            pack_summing(O, rows, &dy[n, 0], O, right, &db2[0])                                         # (7)
            panels(F, O, rows, a, 1, F, right, panel * rows, &dw2[0, 0], O, n > 0, few)                 # (6)
            f = 0
            while f < F:
                columns = min(COLUMNS, F - f)
                pack_summing(columns, rows, dh + f, F, right, &db1[f])                                  # (11)
                panels(C, columns, rows, left, 1, C, right, panel * rows, &dw1[0, f], F, n > 0, few)    # (10)
                f += COLUMNS
            if s == NULL:
                product_large(rows, C, F, dh, F, v1, &dx[n, 0], C, False, <floating *> NULL)            # (9)
            else:
                product_large(rows, C, F, dh, F, v1, du, C, False, <floating *> NULL)                   # (9)  du
                normalise_backward(du, &x[n, 0], rows, C, s, &mean[n], &r[n], &dx[n, 0], &dscale[0], &dshift[0])    # (12)
                add(&dy[n, 0], rows * C, &dx[n, 0])                                                     # (12)
            n += ROWS
