"""tile.h for both float types: c = a b, or c += a b where add is true."""
from cython cimport floating

cdef extern from "tile.h" nogil:
    void multiply_float(long m, long n, long k, const float *a, long a_row, long a_col, const float *b, long b_row,
                        float *c, long c_row, int add)
    void multiply_double(long m, long n, long k, const double *a, long a_row, long a_col, const double *b, long b_row,
                         double *c, long c_row, int add)


cdef inline void multiply(long m, long n, long k, const floating *a, long a_row, long a_col, const floating *b,
                          long b_row, floating *c, long c_row, bint add) noexcept nogil:
    if floating is float:
        multiply_float(m, n, k, a, a_row, a_col, b, b_row, c, c_row, add)
    else:
        multiply_double(m, n, k, a, a_row, a_col, b, b_row, c, c_row, add)
