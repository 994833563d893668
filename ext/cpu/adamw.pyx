"""adamw on the CPU: one pass over the block. Equations (1)-(5) are in minigpt/ops/adamw.py."""
import numpy as np
from cython cimport floating

from vectorised cimport root


def adamw_step(w, gradient, m, v, *, int step, double lr, double beta1, double beta2, double eps, double decay,
               double scale):
    cdef double rate = lr / (1 - beta1 ** step), unbias = 1 / (1 - beta2 ** step), shrink = 1 - lr * decay
    cdef double new1 = 1 - beta1, new2 = 1 - beta2      # in double: 1 - 0.999 in float is off by 1e-5 of itself
    if w.dtype == np.float32:
        update[float](w, gradient, m, v, rate, unbias, shrink, new1, new2, eps, scale)
    else:
        update[double](w, gradient, m, v, rate, unbias, shrink, new1, new2, eps, scale)


cdef void update(floating[::1] w, const floating[::1] gradient, floating[::1] m, floating[::1] v,
                 floating rate, floating unbias, floating shrink, floating new1, floating new2, floating eps,
                 floating scale):
    cdef Py_ssize_t n, N = w.shape[0]
    cdef floating g
    with nogil:
        for n in range(N):
            g = scale * gradient[n]                                         # (1)
            m[n] += new1 * (g - m[n])                                       # (2)
            v[n] += new2 * (g * g - v[n])                                   # (3)
            w[n] = shrink * w[n] - rate * m[n] / (root(unbias * v[n]) + eps)     # (4) (5)
