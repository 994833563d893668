"""What rnn.pyx and lstm.pyx share: one step's product, and tanh."""
from cython cimport floating

from tile cimport pack, panel_columns, panels
from vectorised cimport exponential


cdef inline Py_ssize_t packed_size(Py_ssize_t n, Py_ssize_t k, const floating *like) noexcept nogil:
    """The numbers that `pack` writes for a matrix of k rows and n columns."""
    cdef Py_ssize_t panel = panel_columns(like)
    return (n + panel - 1) // panel * panel * k


cdef inline void add_product(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const floating *a, Py_ssize_t a_row,
                             const floating *b, floating *c, Py_ssize_t c_row) noexcept nogil:
    """c (m, n) += a (m, k) b, with b (k, n) from `pack`; the rows of a and c lie a_row and c_row numbers apart."""
    panels(m, n, k, a, a_row, 1, b, panel_columns(b) * k, c, c_row, True, <floating *> NULL)


cdef inline floating hyperbolic_tangent(floating x) noexcept nogil:
    cdef floating one = 1, two = 2
    return one - two / (one + exponential(two * x))


cdef inline floating logistic(floating x) noexcept nogil:
    cdef floating one = 1
    return one / (one + exponential(-x))
