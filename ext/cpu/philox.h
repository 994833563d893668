/* Philox4x32-10. Equations (1)-(6) are derived in minigpt/ops/philox.py. */
#ifndef MINIGPT_PHILOX_H
#define MINIGPT_PHILOX_H
#include <stdint.h>

static inline void philox4x32(const uint32_t counter[4], uint64_t seed, uint32_t word[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;              /* (1) */
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;                                                    /* (2) */
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;                                                                      /* (3) */
        k1 += 0xBB67AE85u;
    }
    word[0] = c0; word[1] = c1; word[2] = c2; word[3] = c3;
}

static inline uint64_t fold_in_one(uint64_t seed, uint32_t n)                                   /* (4) */
{
    uint32_t counter[4] = { n, 0, 0, 1 }, word[4];
    philox4x32(counter, seed, word);
    return word[0] | (uint64_t)word[1] << 32;
}

/* keep[i] = 1 where dropout keeps column i of (plane, row), else 0; keep holds 4 * ceil(columns / 4) bytes. */
static inline void keep_row(uint64_t seed, uint32_t plane, uint32_t row, long columns, uint32_t threshold, uint8_t *keep)
{
    for (long block = 0; 4 * block < columns; block++) {
        uint32_t counter[4] = { (uint32_t)block, row, plane, 0 }, word[4];                      /* (5) */
        philox4x32(counter, seed, word);
        for (int i = 0; i < 4; i++)
            keep[4 * block + i] = word[i] >= threshold;                                         /* (6) */
    }
}

#endif
