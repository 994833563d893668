"""f(x) and f'(x) of n numbers in a row, for the activations of an MLP: y = f(x), and where dx is not NULL, it holds the
gradients by y and is multiplied by f'(x)."""
from cython cimport floating

from vectorised cimport exponential


cdef inline void gelu(const floating *x, Py_ssize_t n, floating *y, floating *dx, bint times) noexcept nogil:
    """By tanh: equations (1)-(4) of minigpt/ops/gelu.py; where not `times`, dx becomes f'(x) itself. Constants are variables
    of the type: a literal in a float expression would make all of it double, and slow."""
    cdef Py_ssize_t i
    cdef floating x_i, s, d, square, one = 1, three = 3, k = <floating> 1.5957691216057308, cubic = <floating> 0.044715
    if dx == NULL:
        for i in range(n):
            x_i = x[i]
            y[i] = x_i / (one + exponential(-k * x_i * (one + cubic * x_i * x_i)))      # (1) (3)  k = 2 sqrt(2 / pi)
    else:
        for i in range(n):
            x_i = x[i]
            square = cubic * x_i * x_i
            s = one / (one + exponential(-k * x_i * (one + square)))                    # (3)
            y[i] = x_i * s                                                              # (1)
            d = s + x_i * s * (one - s) * k * (one + three * square)                    # (2) (4)
            dx[i] = dx[i] * d if times else d


cdef inline void relu_squared(const floating *x, Py_ssize_t n, floating *y, floating *dx) noexcept nogil:
    """Equations (1)-(2) of minigpt/ops/relu_squared.py."""
    cdef Py_ssize_t i
    cdef floating positive, zero = 0
    for i in range(n):
        positive = zero if x[i] < zero else x[i]                                        # in this order a NaN stays one
        if dx != NULL:
            dx[i] *= positive + positive                                                # (2)
        y[i] = positive * positive                                                      # (1)
