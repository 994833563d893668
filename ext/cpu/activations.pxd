"""f(x) and f'(x) of n numbers in a row, for the activations of an MLP: y = f(x), and where dx is not NULL, it holds the
gradients by y and is multiplied by f'(x)."""
from cython cimport floating

from vectorised cimport exponential_within

cdef enum:
    CHUNK = 128                                     # numbers that go through one loop, then through the next


cdef inline void gelu(const floating *x, Py_ssize_t n, floating *y, floating *dx, bint times) noexcept nogil:
    """By tanh: equations (1)-(4) of minigpt/ops/gelu.py; where not `times`, dx becomes f'(x) itself. Constants are variables
    of the type: a literal in a float expression would make all of it double, and slow."""
    cdef Py_ssize_t i, some
    cdef floating x_i, s, y_i, d, one = 1, three = 3, k = <floating> 1.5957691216057308, cubic = <floating> 0.044715
    cdef floating most = 88
    cdef floating z[CHUNK]
    while n > 0:
        some = min(CHUNK, n)
        for i in range(some):
            z[i] = -k * x[i] * (one + cubic * x[i] * x[i])                              # (3)  k = 2 sqrt(2 / pi)
            z[i] = -most if z[i] < -most else z[i]          # two loops, as vectorised.h says why
        for i in range(some):
            z[i] = most if z[i] > most else z[i]
        if dx == NULL:
            for i in range(some):
                y[i] = x[i] / (one + exponential_within(z[i]))                          # (1) (3)
        else:
            for i in range(some):
                x_i = x[i]
                s = one / (one + exponential_within(z[i]))                              # (3)
                y_i = x_i * s
                y[i] = y_i                                                              # (1)
                d = s + (y_i - y_i * s) * (k + three * k * cubic * x_i * x_i)           # (2) (4)
                dx[i] = dx[i] * d if times else d
            dx += some
        x += some
        y += some
        n -= some


cdef inline void relu_squared(const floating *x, Py_ssize_t n, floating *y, floating *dx) noexcept nogil:
    """Equations (1)-(2) of minigpt/ops/relu_squared.py."""
    cdef Py_ssize_t i
    cdef floating positive, zero = 0
    for i in range(n):
        positive = zero if x[i] < zero else x[i]                                        # in this order a NaN stays one
        if dx != NULL:
            dx[i] *= positive + positive                                                # (2)
        y[i] = positive * positive                                                      # (1)
