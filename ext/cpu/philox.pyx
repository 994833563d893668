"""philox on the CPU. Equations (1)-(6) are derived in minigpt/ops/philox.py and computed in ext/cpu/philox.h."""
import numpy as np
from libc.stdint cimport uint32_t, uint64_t

from philox_words cimport fold_in_one


def fold_in(seeds, *, uint32_t n):
    new = np.empty_like(seeds)
    cdef const uint64_t[::1] old_seeds = seeds.reshape(-1)
    cdef uint64_t[::1] new_seeds = new.reshape(-1)
    cdef Py_ssize_t i
    for i in range(old_seeds.shape[0]):
        new_seeds[i] = fold_in_one(old_seeds[i], n)                     # (4)
    return new
