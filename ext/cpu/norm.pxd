"""Layer norm of a few rows, for layer_norm.pyx and for operations that begin with it. Equations (1)-(7) are derived in
minigpt/ops/layer_norm.py. b may be NULL."""
from cython cimport floating
from libc.math cimport sqrt


cdef inline void normalise(const floating *x, Py_ssize_t N, Py_ssize_t C, const floating *w, const floating *b, double eps,
                           floating *y, floating *mean, floating *r) noexcept nogil:
    """y (N, C), and what the backward pass needs of each row, from x."""
    cdef Py_ssize_t n, c
    cdef floating m, variance
    for n in range(N):
        m = 0
        for c in range(C):
            m += x[n * C + c]
        m /= C
        variance = 0
        for c in range(C):
            variance += (x[n * C + c] - m) * (x[n * C + c] - m)
        mean[n] = m
        r[n] = <floating> (1 / sqrt(variance / C + eps))                    # (1)
        scale_and_shift(x + n * C, C, m, r[n], w, b, y + n * C)


cdef inline void normalise_again(const floating *x, Py_ssize_t N, Py_ssize_t C, const floating *w, const floating *b,
                                 const floating *mean, const floating *r, floating *y) noexcept nogil:
    """The same y, from what was kept."""
    cdef Py_ssize_t n
    for n in range(N):
        scale_and_shift(x + n * C, C, mean[n], r[n], w, b, y + n * C)


cdef inline void scale_and_shift(const floating *x, Py_ssize_t C, floating m, floating r, const floating *w,
                                 const floating *b, floating *y) noexcept nogil:
    cdef Py_ssize_t c
    if b != NULL:
        for c in range(C):
            y[c] = (x[c] - m) * r * w[c] + b[c]                             # (2) (3)
    else:
        for c in range(C):
            y[c] = (x[c] - m) * r * w[c]                                    # (2) (3)


cdef inline void normalise_backward(const floating *dy, const floating *x, Py_ssize_t N, Py_ssize_t C, const floating *w,
                                    const floating *mean, const floating *r, floating *dx, floating *dw,
                                    floating *db) noexcept nogil:
    """dx, and the rows' shares added to dw and db."""
    cdef Py_ssize_t n, c
    cdef const floating *x_n
    cdef const floating *dy_n
    cdef floating *dx_n
    cdef floating m, scale, xhat, dxh, mean_dxh, mean_dxh_xhat
    for n in range(N):
        x_n, dy_n, dx_n = x + n * C, dy + n * C, dx + n * C
        m = mean[n]
        scale = r[n]
        mean_dxh = 0
        mean_dxh_xhat = 0
        for c in range(C):
            xhat = (x_n[c] - m) * scale                                     # (2)
            dxh = dy_n[c] * w[c]                                            # (6)
            db[c] += dy_n[c]                                                # (4)
            dw[c] += dy_n[c] * xhat                                         # (5)
            mean_dxh += dxh
            mean_dxh_xhat += dxh * xhat
        mean_dxh /= C
        mean_dxh_xhat /= C
        for c in range(C):
            xhat = (x_n[c] - m) * scale
            dx_n[c] = scale * (dy_n[c] * w[c] - mean_dxh - xhat * mean_dxh_xhat)    # (7)
