"""dropout on the CPU. Equations (1)-(2) are derived in minigpt/ops/dropout.py, the mask in philox.py."""
import numpy as np
from cython cimport floating
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from philox_words cimport KEEP_BATCH, keep_row


def dropout_forward(x, seeds, *, double p):
    return masked(x, seeds, p), (seeds, p)                              # (1)


def dropout_backward(dy, saved):
    seeds, p = saved
    return masked(dy, seeds, p), None                                   # (2)


def masked(x, seeds, double p):
    C = x.shape[x.ndim - 1]
    y = np.empty_like(x)
    keep = np.empty(C + KEEP_BATCH, np.uint8)
    by_sequence = (len(seeds), -1, C)
    if x.dtype == np.float32:
        multiply[float](x.reshape(by_sequence), seeds, p, keep, y.reshape(by_sequence))
    else:
        multiply[double](x.reshape(by_sequence), seeds, p, keep, y.reshape(by_sequence))
    return y


cdef void multiply(const floating[:, :, ::1] x, const uint64_t[::1] seeds, double p, uint8_t[::1] keep,
                   floating[:, :, ::1] y):
    cdef Py_ssize_t b, row, c, B = x.shape[0], rows = x.shape[1], C = x.shape[2]
    cdef uint32_t threshold = <uint32_t> (p * 4294967296.0)
    cdef floating scale = <floating> (1 / (1 - p))
    with nogil:
        for b in range(B):
            for row in range(rows):
                keep_row(seeds[b], 0, <uint32_t> row, C, threshold, &keep[0])
                for c in range(C):
                    y[b, row, c] = x[b, row, c] * (scale * keep[c])         # (1) (2)
