"""tile.h for both float types, and the room that kernels work in."""
from cython cimport floating
from libc.stdint cimport uintptr_t

cdef extern from "tile.h" nogil:
    enum:
        PANEL_FLOAT
        PANEL_DOUBLE
        BLOCK                                       # rows of the left side that are copied at a time
        DEEP                                        # the longest row of a tile that is packed
    void *workspace()
    void pack_float(long n, long k, const float *b, long b_row, long b_col, float *to, float *sums)
    void pack_double(long n, long k, const double *b, long b_row, long b_col, double *to, double *sums)
    void panels_float(long m, long n, long k, const float *a, long a_row, long a_col, const float *b, long b_panel,
                      float *c, long c_row, int add, const float *bias, float *few)
    void panels_double(long m, long n, long k, const double *a, long a_row, long a_col, const double *b, long b_panel,
                       double *c, long c_row, int add, const double *bias, double *few)
    void pack_large_float(long n, long k, const float *b, long b_row, long b_col, float *to)
    void product_large_float(long m, long n, long k, const float *a, long a_row, const float *b, float *c, long c_row,
                             int add, const float *bias)
    void product_float(long m, long n, long k, const float *a, long a_row, long a_col, const float *b, long b_row,
                       long b_col, float *c, const float *bias, float *sums, float *work)
    void pack_large_double(long n, long k, const double *b, long b_row, long b_col, double *to)
    void product_large_double(long m, long n, long k, const double *a, long a_row, const double *b, double *c, long c_row,
                              int add, const double *bias)
    void product_double(long m, long n, long k, const double *a, long a_row, long a_col, const double *b, long b_row,
                        long b_col, double *c, const double *bias, double *sums, double *work)


cdef enum:
    WIDEST = 32                                     # columns of the widest panel
    LINE = 64                                       # bytes that the cache moves at a time


cdef inline Py_ssize_t padded(Py_ssize_t n) noexcept nogil:
    """n columns, filled up to whole panels."""
    return (n + WIDEST - 1) // WIDEST * WIDEST


cdef inline Py_ssize_t lay_out(Py_ssize_t *sizes, int n) noexcept nogil:
    """n pieces of a room, one behind the other, each from a cache line on: their sizes become where they begin. Returns
    how many numbers the room needs, which begins where `aligned` says."""
    cdef Py_ssize_t size, total = 0
    cdef int i
    for i in range(n):
        size = (sizes[i] + 15) // 16 * 16
        sizes[i] = total
        total += size
    return total + LINE


cdef inline floating *aligned(floating *x) noexcept nogil:
    """The first place at or behind x where a cache line begins."""
    return <floating *> ((<uintptr_t> x + LINE - 1) // LINE * LINE)


cdef inline const floating *pointer(const floating[::1] x) noexcept:
    """Where the numbers of x are; NULL for None."""
    return &x[0] if x is not None else NULL


cdef inline long panel_columns(const floating *x) noexcept nogil:
    """The columns of a panel of numbers like x."""
    return PANEL_FLOAT if floating is float else PANEL_DOUBLE


cdef inline void pack(long n, long k, const floating *b, long b_row, long b_col, floating *to) noexcept nogil:
    if floating is float:
        pack_float(n, k, b, b_row, b_col, to, NULL)
    else:
        pack_double(n, k, b, b_row, b_col, to, NULL)


cdef inline void pack_summing(long n, long k, const floating *b, long b_row, floating *to, floating *sums) noexcept nogil:
    """pack for rows of b that are contiguous, which are added up in sums (or NULL) on the way."""
    if floating is float:
        pack_float(n, k, b, b_row, 1, to, sums)
    else:
        pack_double(n, k, b, b_row, 1, to, sums)


cdef inline void panels(long m, long n, long k, const floating *a, long a_row, long a_col, const floating *b,
                        long b_panel, floating *c, long c_row, bint add, floating *few) noexcept nogil:
    """c = a b, or c += a b; where few is NULL, a is read where it lies."""
    if floating is float:
        panels_float(m, n, k, a, a_row, a_col, b, b_panel, c, c_row, add, NULL, few)
    else:
        panels_double(m, n, k, a, a_row, a_col, b, b_panel, c, c_row, add, NULL, few)


cdef inline void pack_large(long n, long k, const floating *b, long b_row, long b_col, floating *to) noexcept nogil:
    if floating is float:
        pack_large_float(n, k, b, b_row, b_col, to)
    else:
        pack_large_double(n, k, b, b_row, b_col, to)


cdef inline void product_large(long m, long n, long k, const floating *a, long a_row, const floating *b, floating *c,
                               long c_row, bint add, const floating *bias) noexcept nogil:
    """c (m, n) = a (m, k) b + bias, or c += a b, with b from pack_large."""
    if floating is float:
        product_large_float(m, n, k, a, a_row, b, c, c_row, add, bias)
    else:
        product_large_double(m, n, k, a, a_row, b, c, c_row, add, bias)


cdef inline void product(long m, long n, long k, const floating *a, long a_row, long a_col, const floating *b,
                         long b_row, long b_col, floating *c, const floating *bias, floating *sums,
                         void *work) noexcept nogil:
    if floating is float:
        product_float(m, n, k, a, a_row, a_col, b, b_row, b_col, c, bias, sums, <float *> work)
    else:
        product_double(m, n, k, a, a_row, a_col, b, b_row, b_col, c, bias, sums, <double *> work)
