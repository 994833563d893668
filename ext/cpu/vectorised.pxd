"""For both float types: exponential(x) and root(x) of a number; of n in a row largest, exponentials,
sum_of_exponentials, add and dot."""
from cython cimport floating
from libc.math cimport sqrt, sqrtf

cdef extern from "vectorised.h" nogil:
    float exp_float(float x)
    double exp_double(double x)
    float exp_sum_float(const float *x, long n, float scale, float shift, float *y)
    double exp_sum_double(const double *x, long n, double scale, double shift, double *y)
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


cdef inline floating exponentials(const floating *x, Py_ssize_t n, floating scale, floating shift,
                                  floating *y) noexcept nogil:
    """y = exp(scale x - shift), and the sum of them; y may be x."""
    if floating is float:
        return exp_sum_float(x, n, scale, shift, y)
    else:
        return exp_sum_double(x, n, scale, shift, y)


cdef inline double sum_of_exponentials(const floating *x, Py_ssize_t n, floating m) noexcept nogil:
    """sum of exp(x - m): 512 numbers at a time in their own type, the sums of these in double, so that none is lost."""
    cdef Py_ssize_t begin = 0
    cdef double total = 0
    cdef floating thrown_away[512]
    while begin < n:
        total += exponentials(x + begin, min(512, n - begin), <floating> 1, m, thrown_away)
        begin += 512
    return total


cdef inline floating largest(const floating *x, Py_ssize_t n) noexcept nogil:
    if floating is float:
        return max_float(x, n)
    else:
        return max_double(x, n)


cdef inline void add(const floating *x, Py_ssize_t n, floating *to) noexcept nogil:
    """The n numbers x, added to those at `to`."""
    cdef Py_ssize_t i
    for i in range(n):
        to[i] += x[i]


cdef inline floating dot(const floating *a, const floating *b, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating total = 0
    for i in range(n):
        total += a[i] * b[i]
    return total
