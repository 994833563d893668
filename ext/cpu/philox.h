/* Philox4x32-10. Equations (1)-(6) are derived in minigpt/ops/philox.py. */
#ifndef MINIGPT_PHILOX_H
#define MINIGPT_PHILOX_H
#include <stdint.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

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

#ifdef __AVX2__
/* The words of the 4 counters (c0, c1, plane, 0), each number in the lower half of 64 bits, as _mm256_mul_epu32 multiplies
 * them; what lies in the upper halves is ignored. */
static inline void philox_of_four(uint64_t seed, uint32_t plane, __m256i c0, __m256i c1, __m256i word[4])
{
    __m256i c2 = _mm256_set1_epi64x(plane), c3 = _mm256_setzero_si256();
    __m256i m0 = _mm256_set1_epi64x(0xD2511F53u), m1 = _mm256_set1_epi64x(0xCD9E8D57u);
    __m256i k0 = _mm256_set1_epi64x(seed & 0xFFFFFFFFu), k1 = _mm256_set1_epi64x(seed >> 32);
    __m256i step0 = _mm256_set1_epi64x(0x9E3779B9u), step1 = _mm256_set1_epi64x(0xBB67AE85u);
    #pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        __m256i p0 = _mm256_mul_epu32(m0, c0), p1 = _mm256_mul_epu32(m1, c2);                   /* (1) */
        c0 = _mm256_srli_epi64(p1, 32) ^ c1 ^ k0;                                               /* (2) */
        c2 = _mm256_srli_epi64(p0, 32) ^ c3 ^ k1;
        c1 = p1;
        c3 = p0;
        k0 = _mm256_add_epi32(k0, step0);                                                       /* (3) */
        k1 = _mm256_add_epi32(k1, step1);
    }
    word[0] = c0; word[1] = c1; word[2] = c2; word[3] = c3;
}

/* a's lower halves of 64 bits, and between them b's. */
static inline __m256i alternating(__m256i a, __m256i b)
{
    return _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xAA);
}
#endif

/* The words of the 4 counters (block ... block + 3, row, plane, 0), in order: 16 columns of a row. */
static inline void words_of_row(uint64_t seed, uint32_t plane, uint32_t row, uint32_t block, uint32_t word[16])
{
#ifdef __AVX2__
    __m256i w[4], blocks = _mm256_add_epi64(_mm256_set1_epi64x(block), _mm256_set_epi64x(3, 2, 1, 0));      /* (5) */
    philox_of_four(seed, plane, blocks, _mm256_set1_epi64x(row), w);
    __m256i w01 = alternating(w[0], w[1]), w23 = alternating(w[2], w[3]);                       /* of each counter */
    __m256i even = _mm256_unpacklo_epi64(w01, w23), odd = _mm256_unpackhi_epi64(w01, w23);
    _mm256_storeu_si256((__m256i *)word, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256((__m256i *)(word + 8), _mm256_permute2x128_si256(even, odd, 0x31));
#else
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t counter[4] = { block + i, row, plane, 0 };                                     /* (5) */
        philox4x32(counter, seed, word + 4 * i);
    }
#endif
}

/* The words of the 8 counters (block, row ... row + 7, plane, 0): 4 columns of 8 rows, column by column. */
static inline void words_of_columns(uint64_t seed, uint32_t plane, uint32_t row, uint32_t block, uint32_t word[32])
{
#ifdef __AVX2__
    __m256i even[4], odd[4], blocks = _mm256_set1_epi64x(block), rows = _mm256_set1_epi64x(row);            /* (5) */
    philox_of_four(seed, plane, blocks, _mm256_add_epi64(rows, _mm256_set_epi64x(6, 4, 2, 0)), even);
    philox_of_four(seed, plane, blocks, _mm256_add_epi64(rows, _mm256_set_epi64x(7, 5, 3, 1)), odd);
    for (int i = 0; i < 4; i++)
        _mm256_storeu_si256((__m256i *)(word + 8 * i), alternating(even[i], odd[i]));
#else
    for (uint32_t r = 0; r < 8; r++) {
        uint32_t counter[4] = { block, row + r, plane, 0 }, four[4];                            /* (5) */
        philox4x32(counter, seed, four);
        for (int i = 0; i < 4; i++)
            word[8 * i + r] = four[i];
    }
#endif
}

/* keep[i] = 1 where dropout keeps column i of (plane, row), else 0; keep holds KEEP_BATCH * ceil(columns / KEEP_BATCH) bytes. */
enum { KEEP_BATCH = 64 };

static inline void keep_row(uint64_t seed, uint32_t plane, uint32_t row, long columns, uint32_t threshold, uint8_t *keep)
{
    uint32_t words[KEEP_BATCH];
    for (long begin = 0; begin < columns; begin += KEEP_BATCH) {
        for (int i = 0; i < KEEP_BATCH; i += 16)
            words_of_row(seed, plane, row, (uint32_t)((begin + i) / 4), words + i);
        for (int i = 0; i < KEEP_BATCH; i++)
            keep[begin + i] = words[i] >= threshold;                                            /* (6) */
    }
}

#endif
