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
    SMALL = 1 << 16                                 # multiplications that one thread does in less time than sharing takes


def quantized_linear(x, q, scales, b=None, *, long n_out):
    y = np.empty((*x.shape[:x.ndim - 1], n_out), np.float32)
    if y.size:
        product(x.reshape(-1, x.shape[x.ndim - 1]), q.reshape(-1).view(np.uint8), scales.reshape(-1), b,
                8 if q.dtype == np.int8 else 4, scales.shape[1], y.reshape(-1, n_out))
    return y


cdef product(const float[:, ::1] x, const uint8_t[::1] q, const uint16_t[::1] scales, const float[::1] b, int bits,
             long groups, float[:, ::1] y):
    cdef Product p
    cdef long n
    cdef int8_t[:, ::1] rows = np.empty((x.shape[0], groups * GROUP), np.int8)
    cdef float[:, ::1] steps = np.empty((x.shape[0], groups), np.float32)
    cdef int32_t[:, ::1] sums = np.empty((x.shape[0], groups), np.int32)
    p.n, p.groups, p.n_out, p.bits = x.shape[0], groups, y.shape[1], bits
    p.x, p.steps, p.sums = &rows[0, 0], &steps[0, 0], &sums[0, 0]
    p.q, p.scales, p.y, p.b = &q[0], &scales[0], &y[0, 0], &b[0] if b is not None else NULL
    with nogil:
        p.parts = 2 * threads_now() if p.n <= FEW and p.n * groups * GROUP * p.n_out > SMALL else 1
        for n in range(p.n):
            quantize_row(x.shape[1], &x[n, 0], &rows[n, 0], &steps[n, 0], &sums[n, 0])                      # (4)
        run(product_part, &p, p.parts)                                                                      # (5) (6)
