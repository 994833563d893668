"""Queries and keys on their way into attention, in place: given one length, then turned by their position; and their gradients
on the way out. Equations (4) and (11) of minigpt/ops/self_attention.py.

N positions, the first of which is number `first` of sequences of T; of each, `heads` vectors of D numbers, side by side, and
`row` numbers to the next position. angles: the cosines (T, D/2), then the sines. r (N, heads): what each vector was scaled by.
"""
from cython cimport floating
from libc.math cimport sqrt

from vectorised cimport dot


cdef inline void norm_and_turn(floating *z, Py_ssize_t N, Py_ssize_t row, Py_ssize_t heads, Py_ssize_t D, Py_ssize_t T,
                               Py_ssize_t first, const floating *angles, floating *r) noexcept nogil:
    cdef Py_ssize_t n, h, i, half = D // 2
    cdef const floating *cos
    cdef const floating *sin
    cdef floating *x
    cdef floating scale, x1, x2
    for n in range(N):
        cos = angles + (first + n) % T * half
        sin = cos + T * half
        for h in range(heads):
            x = z + n * row + h * D
            scale = <floating> (1 / sqrt(dot(x, x, D) / D + 1e-6))      # rms_norm's own eps
            r[n * heads + h] = scale
            for i in range(half):
                x1, x2 = x[i] * scale, x[half + i] * scale
                x[i] = x1 * cos[i] + x2 * sin[i]
                x[half + i] = x2 * cos[i] - x1 * sin[i]


cdef inline void turn_back(floating *dz, const floating *z, Py_ssize_t N, Py_ssize_t row, Py_ssize_t heads, Py_ssize_t D,
                           Py_ssize_t T, Py_ssize_t first, const floating *angles, const floating *r) noexcept nogil:
    """dz, by z as it is after norm_and_turn, becomes the gradient by what it was before."""
    cdef Py_ssize_t n, h, i, half = D // 2
    cdef const floating *cos
    cdef const floating *sin
    cdef const floating *x
    cdef floating *d
    cdef floating scale, mean, d1, d2
    for n in range(N):
        cos = angles + (first + n) % T * half
        sin = cos + T * half
        for h in range(heads):
            x, d = z + n * row + h * D, dz + n * row + h * D
            scale = r[n * heads + h]
            mean = dot(d, x, D) / D
            for i in range(half):
                d1, d2 = scale * (d[i] - x[i] * mean), scale * (d[half + i] - x[half + i] * mean)
                d[i] = d1 * cos[i] - d2 * sin[i]
                d[half + i] = d1 * sin[i] + d2 * cos[i]
