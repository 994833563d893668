"""quantized_linear on the CPU. Equations (4)-(6) are derived in minigpt/ops/quantized_linear.py; quantized_linear.h computes.

A few rows are bound by memory and share the panels of w among the threads of the pool. Many rows are the work of one
thread, as those of linear are: others have rows of their own.
"""
import numpy as np
from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t

from minigpt.kernels.cpu.pool cimport Task, run, threads_now

cdef extern from "quantized_linear.h" nogil:
    enum: GROUP
    ctypedef struct Product:
        long n, groups, n_out, parts
        int bits
        const int8_t *x
        const float *steps
        const int32_t *sums
        const uint8_t *q
        const uint16_t *scales
        const float *b
        float *y
    void quantize_row(long n_in, const float *x, int8_t *q, float *steps, int32_t *sums)
    void product_part(void *what, long part)

cdef enum:
    FEW = 8                                         # rows that the pool shares
    MOST = 4                                        # matrices that it takes at a time
    SMALL = 1 << 16                                 # multiplications that one thread does in less time than sharing takes


def quantized_linear(x, q, scales, b=None, *, long n_out):
    return products(x, (q, scales, b), n_out)[0]


def quantized_linear_each(x, *layers, long n_out):
    if len(layers) > 3 * MOST:
        return [products(x, layers[i:i + 3], n_out)[0] for i in range(0, len(layers), 3)]
    return products(x, layers, n_out)


cdef products(x, tuple layers, long n_out):
    """[y, ...] for each q, scales and b of layers, at most MOST."""
    cdef long n, i, n_in = x.shape[x.ndim - 1], N = x.size // n_in, groups = layers[1].shape[1], matrices = len(layers) // 3
    ys = np.empty((matrices, *x.shape[:x.ndim - 1], n_out), np.float32)
    if not ys.size:
        return list(ys)
    cdef Product p[MOST]
    cdef const float[::1] numbers = x.reshape(-1), b
    cdef float[::1] y = ys.reshape(-1)
    cdef int8_t[::1] rows = np.empty(N * groups * GROUP, np.int8)
    cdef float[::1] steps = np.empty(N * groups, np.float32)
    cdef int32_t[::1] sums = np.empty(N * groups, np.int32)
    cdef const uint8_t[:, :, :, ::1] q
    cdef const uint16_t[:, :, ::1] scales
    cdef int bits = 8 if layers[0].dtype == np.int8 else 4
    cdef long parts = 1
    if N <= FEW and matrices * N * groups * GROUP * n_out > SMALL and threads_now() > 1:
        parts = (2 * threads_now() + matrices - 1) // matrices
    for i in range(matrices):                       # the tuple keeps what they point to
        q, scales, b = layers[3 * i].view(np.uint8), layers[3 * i + 1], layers[3 * i + 2]
        p[i].n, p[i].groups, p[i].n_out, p[i].parts, p[i].bits = N, groups, n_out, parts, bits
        p[i].x, p[i].steps, p[i].sums = &rows[0], &steps[0], &sums[0]
        p[i].q, p[i].scales, p[i].b = &q[0, 0, 0, 0], &scales[0, 0, 0], &b[0] if b is not None else NULL
        p[i].y = &y[i * N * n_out]
    with nogil:
        for n in range(N):
            quantize_row(n_in, &numbers[n * n_in], &rows[n * groups * GROUP], &steps[n * groups], &sums[n * groups])    # (4)
        run(product_part, p, parts * matrices)                                                                      # (5) (6)
    return list(ys)
