"""philox.h: random words that follow from a seed and a place."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "philox.h" nogil:
    enum:
        KEEP_BATCH
    uint64_t fold_in_one(uint64_t seed, uint32_t n)
    void keep_row(uint64_t seed, uint32_t plane, uint32_t row, long columns, uint32_t threshold, uint8_t *keep)
    void words_of_columns(uint64_t seed, uint32_t plane, uint32_t row, uint32_t block, uint32_t *word)
