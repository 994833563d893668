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
    void product_float(long m, long n, long k, const float *a, long a_row, long a_col, const float *b, long b_row,
                       long b_col, float *c, const float *bias, float *sums, float *work)
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


cdef inline void panels(long m, long n, long k, const floating *a, long a_row, long a_col, const floating *b,
                        long b_panel, floating *c, long c_row, bint add) noexcept nogil:
    """c = a b, or c += a b; a is read where it lies."""
    if floating is float:
        panels_float(m, n, k, a, a_row, a_col, b, b_panel, c, c_row, add, NULL, NULL)
    else:
        panels_double(m, n, k, a, a_row, a_col, b, b_panel, c, c_row, add, NULL, NULL)


cdef inline void product(long m, long n, long k, const floating *a, long a_row, long a_col, const floating *b,
                         long b_row, long b_col, floating *c, const floating *bias, floating *sums,
                         void *work) noexcept nogil:
    if floating is float:
        product_float(m, n, k, a, a_row, a_col, b, b_row, b_col, c, bias, sums, <float *> work)
    else:
        product_double(m, n, k, a, a_row, a_col, b, b_row, b_col, c, bias, sums, <double *> work)
