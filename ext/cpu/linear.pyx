"""linear on the CPU. Equations (1)-(7) are derived in minigpt/ops/linear.py.

Many rows are multiplied on tile.h: at the shapes of a small model, with activations that come from the shared cache, it
takes about 0.9 of the time of OpenBLAS, since x and dy are read where they lie, not copied first, and the shift b and
its gradient cost no pass of their own. A few rows, as where a model makes token after token, are bound by memory:
few_rows.h reads the matrix once, on all threads of the pool. What is left, in between or empty, NumPy does.
"""
import numpy as np
from cython cimport floating

from minigpt.kernels.cpu import each_part
from minigpt.kernels.cpu.pool cimport Task, run, threads_now
from tile cimport product, workspace
from vectorised cimport add

cdef extern from "few_rows.h" nogil:
    enum: FEW
    enum: WIDTH
    enum: SMALL
    void few_rows_float(void (*run)(Task, void *, long) noexcept nogil, long row_parts, long n, long I, long O,
                        const float *x, const float *w, const float *b, float *sums, int transposed)
    void few_rows_double(void (*run)(Task, void *, long) noexcept nogil, long row_parts, long n, long I, long O,
                         const double *x, const double *w, const double *b, double *sums, int transposed)


cdef enum:
    MANY = 16                                       # rows from which on copying w takes less time than it saves


def linear_forward(x, w, b=None, *, bint transposed=False):
    n_in, n_out = (w.shape[1], w.shape[0]) if transposed else w.shape
    rows = x.reshape(-1, n_in)                                              # (N, I)
    if 0 < len(rows) <= FEW:
        y = few[float](rows, w, b, transposed) if x.dtype == np.float32 else few[double](rows, w, b, transposed)
    elif len(rows) < MANY or not w.size:
        y = rows @ (w.T if transposed else w)                               # (1) (5)
        if b is not None:
            y += b
    else:
        y = np.empty((len(rows), n_out), x.dtype)

        def part(begin, end):
            if y.dtype == np.float32:
                forward[float](rows[begin:end], w, b, transposed, y[begin:end])
            else:
                forward[double](rows[begin:end], w, b, transposed, y[begin:end])

        each_part(part, len(rows), MANY)
    return y.reshape(x.shape[:x.ndim - 1] + (n_out,)), (x, w, b is not None, transposed)


def linear_backward(dy, saved):
    x, w, has_b, transposed = saved
    n_in, n_out = (w.shape[1], w.shape[0]) if transposed else w.shape
    rows, dy = x.reshape(-1, n_in), dy.reshape(-1, n_out)
    if len(rows) < MANY or not w.size:
        dx = dy @ (w if transposed else w.T)                                # (2) (6)
        dw = dy.T @ rows if transposed else rows.T @ dy                     # (3) (7)
        return dx.reshape(x.shape), dw, dy.sum(0) if has_b else None        # (4)
    dx, dw, db = np.empty_like(rows), np.empty_like(w), np.zeros(n_out, w.dtype) if has_b else None

    def part_of_dx(begin, end):
        if x.dtype == np.float32:
            backward_x[float](dy[begin:end], w, transposed, dx[begin:end])
        else:
            backward_x[double](dy[begin:end], w, transposed, dx[begin:end])

    def part_of_dw(begin, end):
        if x.dtype == np.float32:
            backward_w[float](dy, rows, transposed, begin, end, dw, db)
        else:
            backward_w[double](dy, rows, transposed, begin, end, dw, db)

    each_part(part_of_dx, len(rows), MANY)
    each_part(part_of_dw, len(w), MANY)
    return dx.reshape(x.shape), dw, db


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


cdef void *room() except NULL:
    cdef void *work = workspace()
    if work == NULL:
        raise MemoryError("no memory for a matrix product")
    return work


cdef forward(const floating[:, ::1] x, const floating[:, ::1] w, const floating[::1] b, bint transposed,
             floating[:, ::1] y):
    cdef long N = x.shape[0], n_in = x.shape[1], n_out = y.shape[1]
    cdef const floating *shift = &b[0] if b is not None else NULL
    cdef void *work = room()
    with nogil:
        if transposed:
            product(N, n_out, n_in, &x[0, 0], n_in, 1, &w[0, 0], 1, n_in, &y[0, 0], shift, NULL, work)          # (5)
        else:
            product(N, n_out, n_in, &x[0, 0], n_in, 1, &w[0, 0], n_out, 1, &y[0, 0], shift, NULL, work)         # (1)


cdef backward_x(const floating[:, ::1] dy, const floating[:, ::1] w, bint transposed, floating[:, ::1] dx):
    cdef long N = dy.shape[0], n_in = dx.shape[1], n_out = dy.shape[1]
    cdef void *work = room()
    with nogil:
        if transposed:
            product(N, n_in, n_out, &dy[0, 0], n_out, 1, &w[0, 0], n_in, 1, &dx[0, 0], NULL, NULL, work)        # (6)
        else:
            product(N, n_in, n_out, &dy[0, 0], n_out, 1, &w[0, 0], 1, n_out, &dx[0, 0], NULL, NULL, work)       # (2)


cdef backward_w(const floating[:, ::1] dy, const floating[:, ::1] x, bint transposed, long begin, long end,
                floating[:, ::1] dw, floating[::1] db):
    """Rows begin ... end of dw, and db where these are the first."""
    cdef long N = x.shape[0], n_in = x.shape[1], n_out = dy.shape[1], n
    cdef floating *sums = &db[0] if db is not None and begin == 0 else NULL
    cdef void *work = room()
    with nogil:
        if transposed:
            product(end - begin, n_in, N, &dy[0, begin], 1, n_out, &x[0, 0], n_in, 1, &dw[begin, 0], NULL, NULL,
                    work)                                                                                       # (7)
            if sums != NULL:
                for n in range(N):
                    add(&dy[n, 0], n_out, sums)                                                                 # (4)
        else:
            product(end - begin, n_out, N, &x[0, begin], 1, n_in, &dy[0, 0], n_out, 1, &dw[begin, 0], NULL, sums,
                    work)                                                                                   # (3) (4)
