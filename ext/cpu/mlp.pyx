"""mlp on the CPU. Equations (1)-(10) are derived in minigpt/ops/mlp.py.

Block by block of ROWS rows, so that what has F numbers a row (h, a, da, dh) is used while it is in the cache: of
it, only h is written to memory. The matrices are packed once for all blocks (tile.h).
"""
import numpy as np
from cython cimport floating

from minigpt.kernels.cpu import each_part
from activations cimport gelu, relu_squared
from tile cimport BLOCK, DEEP, aligned, lay_out, pack_large, pack_summing, padded, panel_columns, panels, product_large

cdef enum:
    ROWS = 192                                      # of a block: sixteen tiles; 96 is as fast at width 128, 3% slower at 384
    COLUMNS = 512                                   # of dh that are packed at a time


def mlp_forward(x, w1, b1, w2, b2, *, activation="gelu"):
    C, F = w1.shape
    O = w2.shape[1]
    rows = x.reshape(-1, C)                                                 # (N, C)
    h, y = np.empty((len(rows), F), x.dtype), np.empty((len(rows), O), x.dtype)
    by_gelu = activation == "gelu"

    def part(begin, end):
        if x.dtype == np.float32:
            forward[float](rows[begin:end], w1, b1, w2, b2, by_gelu, h[begin:end], y[begin:end])
        else:
            forward[double](rows[begin:end], w1, b1, w2, b2, by_gelu, h[begin:end], y[begin:end])

    each_part(part, len(rows), ROWS)
    return y.reshape(x.shape[:x.ndim - 1] + (O,)), (x, w1, b1 is not None, w2, b2 is not None, h, by_gelu)


def mlp_backward(dy, saved):
    x, w1, has_b1, w2, has_b2, h, by_gelu = saved
    rows, dy = x.reshape(-1, w1.shape[0]), dy.reshape(-1, w2.shape[1])
    dx = np.empty_like(rows)

    def part(begin, end):
        matrices = np.empty if end > begin else np.zeros                    # written by the first block, if there is one
        sums = (matrices(w1.shape, x.dtype), np.zeros(w1.shape[1], x.dtype), matrices(w2.shape, x.dtype),
                np.zeros(w2.shape[1], x.dtype))
        if x.dtype == np.float32:
            backward[float](dy[begin:end], rows[begin:end], w1, w2, h[begin:end], by_gelu, dx[begin:end], *sums)
        else:
            backward[double](dy[begin:end], rows[begin:end], w1, w2, h[begin:end], by_gelu, dx[begin:end], *sums)
        return sums

    (dw1, db1, dw2, db2), *others = each_part(part, len(rows), ROWS)
    for part_of_sums in others:
        for total, array in zip((dw1, db1, dw2, db2), part_of_sums):
            total += array
    return dx.reshape(x.shape), dw1, db1 if has_b1 else None, dw2, db2 if has_b2 else None


cdef inline void activate(const floating *h, Py_ssize_t n, bint by_gelu, floating *a, floating *dh) noexcept nogil:
    """a = f(h) (2); where dh is not NULL, it is times f'(h) afterwards (7)."""
    if by_gelu:
        gelu(h, n, a, dh, True)
    else:
        relu_squared(h, n, a, dh)


cdef forward(const floating[:, ::1] x, const floating[:, ::1] w1, const floating[::1] b1, const floating[:, ::1] w2,
             const floating[::1] b2, bint by_gelu, floating[:, ::1] h, floating[:, ::1] y):
    cdef Py_ssize_t N = x.shape[0], C = w1.shape[0], F = w1.shape[1], O = w2.shape[1], n, rows
    cdef const floating *shift1 = &b1[0] if b1 is not None else NULL
    cdef const floating *shift2 = &b2[0] if b2 is not None else NULL
    cdef Py_ssize_t at[3]
    at[:] = [C * padded(F), F * padded(O), ROWS * F]
    cdef floating[::1] numbers = np.empty(lay_out(at, 3), np.float32 if floating is float else np.float64)
    cdef floating *room = aligned(&numbers[0])
    cdef floating *v1 = room + at[0]                                        # w1 and w2, packed
    cdef floating *v2 = room + at[1]
    cdef floating *a = room + at[2]                                         # of a block, (ROWS, F)
    with nogil:
        pack_large(F, C, &w1[0, 0], F, 1, v1)
        pack_large(O, F, &w2[0, 0], O, 1, v2)
        n = 0
        while n < N:
            rows = min(ROWS, N - n)
            product_large(rows, F, C, &x[n, 0], C, v1, &h[n, 0], F, False, shift1)          # (1)
            activate(&h[n, 0], rows * F, by_gelu, a, <floating *> NULL)                     # (2)
            product_large(rows, O, F, a, F, v2, &y[n, 0], O, False, shift2)                 # (3)
            n += ROWS


cdef backward(const floating[:, ::1] dy, const floating[:, ::1] x, const floating[:, ::1] w1, const floating[:, ::1] w2,
              const floating[:, ::1] h, bint by_gelu,
              floating[:, ::1] dx, floating[:, ::1] dw1, floating[::1] db1, floating[:, ::1] dw2, floating[::1] db2):
    cdef Py_ssize_t N = x.shape[0], C = w1.shape[0], F = w1.shape[1], O = w2.shape[1], n, f, rows, columns
    cdef Py_ssize_t at[6]
    at[:] = [O * padded(F), F * padded(C), ROWS * F, ROWS * F, ROWS * padded(max(O, COLUMNS)), BLOCK * DEEP]
    cdef floating[::1] numbers = np.empty(lay_out(at, 6), np.float32 if floating is float else np.float64)
    cdef floating *room = aligned(&numbers[0])
    cdef floating *v2 = room + at[0]                                        # w2^T and w1^T, packed
    cdef floating *v1 = room + at[1]
    cdef floating *a = room + at[2]                                         # of a block, (ROWS, F)
    cdef floating *dh = room + at[3]
    cdef floating *right = room + at[4]                                     # dy, then dh, of a block, packed
    cdef floating *few = room + at[5]
    cdef Py_ssize_t panel = panel_columns(&dx[0, 0])
    with nogil:
        pack_large(F, O, &w2[0, 0], 1, O, v2)
        pack_large(C, F, &w1[0, 0], 1, F, v1)
        n = 0
        while n < N:
            rows = min(ROWS, N - n)
            product_large(rows, F, O, &dy[n, 0], O, v2, dh, F, False, <floating *> NULL)                # (4)  da
            activate(&h[n, 0], rows * F, by_gelu, a, dh)                                                # (2) (7)
            pack_summing(O, rows, &dy[n, 0], O, right, &db2[0])                                         # (6)
            panels(F, O, rows, a, 1, F, right, panel * rows, &dw2[0, 0], O, n > 0, few)                 # (5)
            f = 0
            while f < F:
                columns = min(COLUMNS, F - f)
                pack_summing(columns, rows, dh + f, F, right, &db1[f])                                  # (10)
                panels(C, columns, rows, &x[n, 0], 1, C, right, panel * rows, &dw1[0, f], F, n > 0, few)    # (9)
                f += COLUMNS
            product_large(rows, C, F, dh, F, v1, &dx[n, 0], C, False, <floating *> NULL)                # (8)
            n += ROWS
