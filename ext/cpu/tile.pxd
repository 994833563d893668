"""tile.h for both float types."""
from cython cimport floating

cdef extern from "tile.h" nogil:
    enum:
        PANEL_FLOAT
        PANEL_DOUBLE
    void *workspace()
    void pack_float(long n, long k, const float *b, long b_row, long b_col, float *to, float *sums)
    void pack_double(long n, long k, const double *b, long b_row, long b_col, double *to, double *sums)
    void panels_float(long m, long n, long k, const float *a, long a_row, long a_col, const float *b, long b_panel,
                      float *c, long c_row, int add, const float *bias, float *few)
    void panels_double(long m, long n, long k, const double *a, long a_row, long a_col, const double *b, long b_panel,
                       double *c, long c_row, int add, const double *bias, double *few)
    void pack_large_float(long n, long k, const float *b, long b_row, long b_col, float *to)
    void product_large_float(long m, long n, long k, const float *a, const float *b, float *c, const float *bias, float *few)
    void product_float(long m, long n, long k, const float *a, long a_row, long a_col, const float *b, long b_row,
                       long b_col, float *c, const float *bias, float *sums, float *work)
    void pack_large_double(long n, long k, const double *b, long b_row, long b_col, double *to)
    void product_large_double(long m, long n, long k, const double *a, const double *b, double *c, const double *bias, double *few)
    void product_double(long m, long n, long k, const double *a, long a_row, long a_col, const double *b, long b_row,
                        long b_col, double *c, const double *bias, double *sums, double *work)


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


cdef inline void product_large(long m, long n, long k, const floating *a, const floating *b, floating *c,
                               const floating *bias, floating *few) noexcept nogil:
    """c (m, n) = a (m, k) b + bias, with b from pack_large."""
    if floating is float:
        product_large_float(m, n, k, a, b, c, bias, few)
    else:
        product_large_double(m, n, k, a, b, c, bias, few)


cdef inline void product(long m, long n, long k, const floating *a, long a_row, long a_col, const floating *b,
                         long b_row, long b_col, floating *c, const floating *bias, floating *sums,
                         void *work) noexcept nogil:
    if floating is float:
        product_float(m, n, k, a, a_row, a_col, b, b_row, b_col, c, bias, sums, <float *> work)
    else:
        product_double(m, n, k, a, a_row, a_col, b, b_row, b_col, c, bias, sums, <double *> work)
