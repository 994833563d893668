"""f(x) and f'(x) of n numbers in a row, for the activations of an MLP: y = f(x), and where dx is not NULL, it holds the
gradients by y and is multiplied by f'(x)."""
from cython cimport floating

cdef extern from "gelu.h" nogil:
    enum: AT_ONCE                                   # numbers that go through all steps together
    void gelu_float(const float *x, float *y, float *dx, int times)
    void gelu_double(const double *x, double *y, double *dx, int times)


cdef inline void gelu(const floating *x, Py_ssize_t n, floating *y, floating *dx, bint times) noexcept nogil:
    """By tanh: equations (1)-(4) of minigpt/ops/gelu.py; where not `times`, dx becomes f'(x) itself."""
    cdef floating last[3][AT_ONCE]                  # x, y and dx of the last numbers, filled up with zeros
    cdef Py_ssize_t i
    while n >= AT_ONCE:
        gelu_together(x, y, dx, times)
        x += AT_ONCE
        y += AT_ONCE
        dx = dx + AT_ONCE if dx != NULL else NULL
        n -= AT_ONCE
    if n > 0:
        for i in range(AT_ONCE):
            last[0][i] = x[i] if i < n else 0
            last[2][i] = dx[i] if dx != NULL and i < n else 0
        gelu_together(last[0], last[1], last[2], times)
        for i in range(n):
            y[i] = last[1][i]
            if dx != NULL:
                dx[i] = last[2][i]


cdef inline void gelu_together(const floating *x, floating *y, floating *dx, bint times) noexcept nogil:
    if floating is float:
        gelu_float(x, y, dx, times)
    else:
        gelu_double(x, y, dx, times)


cdef inline void relu_squared(const floating *x, Py_ssize_t n, floating *y, floating *dx) noexcept nogil:
    """Equations (1)-(2) of minigpt/ops/relu_squared.py."""
    cdef Py_ssize_t i
    cdef floating positive, zero = 0
    for i in range(n):
        positive = zero if x[i] < zero else x[i]                                        # in this order a NaN stays one
        if dx != NULL:
            dx[i] *= positive + positive                                                # (2)
        y[i] = positive * positive                                                      # (1)
