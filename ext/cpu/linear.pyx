"""linear on the CPU. Equations (1)-(7) are derived in minigpt/ops/linear.py.

A product of many rows is BLAS's business. Of few rows, as where a model makes token after token, it is bound by memory,
and few_rows.h does it: the matrix is read once, by all threads of the pool.
"""
import numpy as np
from cython cimport floating

from minigpt.kernels.cpu.pool cimport Task, run, threads_now

cdef extern from "few_rows.h" nogil:
    enum: FEW
    enum: WIDTH
    enum: SMALL
    void few_rows_float(void (*run)(Task, void *, long) noexcept nogil, long row_parts, long n, long I, long O,
                        const float *x, const float *w, const float *b, float *sums, int transposed)
    void few_rows_double(void (*run)(Task, void *, long) noexcept nogil, long row_parts, long n, long I, long O,
                         const double *x, const double *w, const double *b, double *sums, int transposed)


def linear_forward(x, w, b=None, *, bint transposed=False):
    n_in, n_out = (w.shape[1], w.shape[0]) if transposed else w.shape
    rows = x.reshape(-1, n_in)                                              # (N, I)
    if 0 < len(rows) <= FEW:
        y = few[float](rows, w, b, transposed) if x.dtype == np.float32 else few[double](rows, w, b, transposed)
    else:
        y = rows @ (w.T if transposed else w)                               # (1) (5)  (N, O)
        if b is not None:
            y += b
    return y.reshape(*x.shape[:x.ndim - 1], n_out), (x, w, b is not None, transposed)


def linear_backward(dy, saved):
    x, w, has_b, transposed = saved
    n_in, n_out = (w.shape[1], w.shape[0]) if transposed else w.shape
    rows, dy = x.reshape(-1, n_in), dy.reshape(-1, n_out)
    dx = dy @ (w if transposed else w.T)                                    # (2) (6)  (N, I)
    dw = dy.T @ rows if transposed else rows.T @ dy                         # (3) (7)  as w
    return dx.reshape(x.shape), dw, dy.sum(0) if has_b else None            # (4)


cdef few(const floating[:, ::1] x, const floating[:, ::1] w, const floating[::1] b, bint transposed):
    """y (N, O) of (1) or (5)."""
    cdef long N = x.shape[0], I = x.shape[1], O = w.shape[0] if transposed else w.shape[1], row_parts = 1
    cdef const floating *shift = NULL
    if N * I * O > SMALL:                           # else it takes less time than to share it
        row_parts = min(2 * threads_now(), w.shape[0]) if threads_now() > 1 else 1
        if not transposed:                          # a wide matrix has its columns to share
            row_parts = max(1, row_parts // ((O + WIDTH - 1) // WIDTH))
    y = np.empty((1 if transposed else row_parts, N, O), np.float32 if floating is float else np.float64)
    cdef floating[:, :, ::1] sums = y
    if O == 0:
        return y[0]
    if b is not None:
        shift = &b[0]
    with nogil:
        if floating is float:
            few_rows_float(run, row_parts, N, I, O, &x[0, 0], &w[0, 0], shift, &sums[0, 0, 0], transposed)
        else:
            few_rows_double(run, row_parts, N, I, O, &x[0, 0], &w[0, 0], shift, &sums[0, 0, 0], transposed)
    return y[0]
