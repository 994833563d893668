"""For both float types: exponential(x) and root(x) of a number, largest(x, n) of n numbers in a row."""
from cython cimport floating
from libc.math cimport sqrt, sqrtf

cdef extern from "vectorised.h" nogil:
    float exp_float(float x)
    double exp_double(double x)
    float max_float(const float *x, long n)
    double max_double(const double *x, long n)


cdef inline floating exponential(floating x) noexcept nogil:
    if floating is float:
        return exp_float(x)
    else:
        return exp_double(x)


cdef inline floating root(floating x) noexcept nogil:
    if floating is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef inline double sum_of_exponentials(const floating *x, Py_ssize_t n, floating m) noexcept nogil:
    """sum of exp(x - m): 512 numbers at a time in their own type, the sums of these in double, so that none is lost."""
    cdef Py_ssize_t i, begin = 0, end
    cdef floating part
    cdef double total = 0
    while begin < n:
        end = min(begin + 512, n)
        part = 0
        for i in range(begin, end):
            part += exponential(x[i] - m)
        total += part
        begin = end
    return total


cdef inline floating largest(const floating *x, Py_ssize_t n) noexcept nogil:
    if floating is float:
        return max_float(x, n)
    else:
        return max_double(x, n)
