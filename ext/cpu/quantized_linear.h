/* y = x w + b where w is of integers: equations (4)-(6) of minigpt/ops/quantized_linear.py, whose layout this is.
 *
 * A panel is 16 columns of w. Of these, 4 rows at a time lie together, each column's 4 numbers side by side: 64 bytes.
 * For that there are instructions: 4 bytes of x are copied into all lanes, and each lane adds to its own sum the four
 * products of its column. With int4 the 64 bytes hold 8 rows, the first 4 in the low halves of the bytes.
 *
 *     VNNI        one instruction, on 16 columns; of its two factors one has no sign, so w is moved by `offset` to above
 *                 0, and the sum begins at -offset times the sum of x, which takes that back
 *     AVX2        three instructions on 8 columns, in which int8's sign is moved from w to x, as pairs of products have to
 *                 fit 16 bits
 *     else        plain C
 *
 * After the 32 rows of a group, the sums become floats and are scaled.
 *
 * Few rows of x read w once, as memory delivers it, and that is faster where a core reads several streams (few_rows.h): one
 * tile then is several panels, a fraction of the thread's part apart. For many rows, each panel is read from the cache again
 * and again, with ROWS rows of x at a time. The sums of a tile have to fit the registers. */
#ifndef MINIGPT_QUANTIZED_LINEAR_H
#define MINIGPT_QUANTIZED_LINEAR_H
#include <float.h>
#include <stdint.h>
#include <string.h>
#include "avx512.h"
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

enum { GROUP = 32, COLUMNS = 16, PACKED = 64, MOST_ROWS = 12, MOST_VECTORS = 4 };
enum { INFINITE = 0x7f800000 };                     /* bits of a float; those of nan are above */

typedef struct {
    long n, groups, n_out, parts;
    int bits;                                       /* of a number of w: 8 or 4 */
    const int8_t *x;                                /* (n, groups, 32) */
    const float *steps;                             /* (n, groups): of x */
    const int32_t *sums;                            /* (n, groups): of the integers of x */
    const uint8_t *q;                               /* (panels, groups, 8 or 4, 64) */
    const uint16_t *scales;                         /* (panels, groups, 16) of bfloat16 */
    const float *b;                                 /* (n_out) or NULL */
    float *y;                                       /* (n, n_out) */
} Product;

typedef int32_t bits_of_float __attribute__((may_alias));

/* Equation (4): a group of x as integers q, their sum, and the step. */
static inline void quantize_group(const float *x, int8_t *q, float *step, int32_t *sum)
{
    const bits_of_float *bits = (const bits_of_float *)x;
    int32_t largest = 0, total = 0;
    float most, inverse;
    #pragma omp simd reduction(max : largest)
    for (int j = 0; j < GROUP; j++) {               /* as integers, magnitudes are in the same order, and nan is above all */
        int32_t magnitude = bits[j] & 0x7fffffff;
        largest = magnitude > largest ? magnitude : largest;
    }
    memcpy(&most, &largest, sizeof most);
    *step = most * (1.0f / 127) < FLT_MIN ? 0 : most * (1.0f / 127);
    if (largest >= INFINITE)                        /* no integer is near: y becomes nan by its step */
        memcpy(step, &(int32_t){INFINITE + 1}, sizeof *step);
    inverse = *step == 0 || largest >= INFINITE ? 0 : 127 / most;
    #pragma omp simd reduction(+ : total)
    for (int j = 0; j < GROUP; j++) {
        int32_t rounded = largest >= INFINITE ? 0 : (int32_t)__builtin_rintf(x[j] * inverse);
        total += rounded;
        q[j] = (int8_t)rounded;
    }
    *sum = total;
}

/* A row of x, in groups, the last one filled up with zeros. */
static void quantize_row(long n_in, const float *x, int8_t *q, float *steps, int32_t *sums)
{
    long g = 0;
    for (; (g + 1) * GROUP <= n_in; g++)
        quantize_group(x + g * GROUP, q + g * GROUP, steps + g, sums + g);
    if (g * GROUP < n_in) {
        float rest[GROUP] = {0};
        memcpy(rest, x + g * GROUP, (n_in - g * GROUP) * sizeof *rest);
        quantize_group(rest, q + g * GROUP, steps + g, sums + g);
    }
}

/* The columns of one panel, as many as there are. */
static inline void copy_columns(const Product *p, long panel, float *to, const float *from)
{
    long left = p->n_out - panel * COLUMNS;
    if (left >= COLUMNS)
        memcpy(to, from, COLUMNS * sizeof *to);
    else
        memcpy(to, from, left * sizeof *to);
}

/* Versions of what the tiles are made of. BYTES: w of LANES columns and 4 rows. byte8, low4, high4: its numbers, without a
 * sign or with (OFFSET8). copies: 4 numbers of x for each column. dot8, dot4: sum + w x. scaled: y + scale step sum. */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx512vnni")
#define NAME(x) x##_vnni
#define LANES 16
#define ROWS 12
#define STREAMS(rows) (rows <= 2 ? 4 : rows <= 6 ? 2 : 1)
#define OFFSET8 128
#define BYTES __m512i
#define INTS __m512i
#define FLOATS __m512
static inline BYTES load_vnni(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline BYTES byte8_vnni(BYTES w) { return _mm512_xor_si512(w, _mm512_set1_epi8((char)OFFSET8)); }
static inline BYTES low4_vnni(BYTES w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
static inline BYTES high4_vnni(BYTES w) { return _mm512_and_si512(_mm512_srli_epi16(w, 4), _mm512_set1_epi8(15)); }
static inline BYTES copies_vnni(int32_t x) { return _mm512_set1_epi32(x); }
static inline INTS all_vnni(int32_t n) { return _mm512_set1_epi32(n); }
static inline INTS dot8_vnni(INTS sum, BYTES w, BYTES x) { return _mm512_dpbusd_epi32(sum, w, x); }
static inline INTS dot4_vnni(INTS sum, BYTES w, BYTES x) { return _mm512_dpbusd_epi32(sum, w, x); }
static inline FLOATS scale_vnni(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
static inline FLOATS scaled_vnni(FLOATS y, FLOATS scale, float step, INTS sum)
{
    return _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(step)), _mm512_cvtepi32_ps(sum), y);
}
#include "quantized_linear.inc"
#pragma GCC pop_options
#endif

#define NAME(x) x##_base
#define ROWS 4
#define OFFSET8 0
#ifdef __AVX2__
#define LANES 8
#define STREAMS(rows) (rows == 1 ? 2 : 1)
#define BYTES __m256i
#define INTS __m256i
#define FLOATS __m256
static inline BYTES load_base(const uint8_t *p) { return _mm256_loadu_si256((const void *)p); }
static inline BYTES byte8_base(BYTES w) { return w; }
static inline BYTES low4_base(BYTES w) { return _mm256_and_si256(w, _mm256_set1_epi8(15)); }
static inline BYTES high4_base(BYTES w) { return _mm256_and_si256(_mm256_srli_epi16(w, 4), _mm256_set1_epi8(15)); }
static inline BYTES copies_base(int32_t x) { return _mm256_set1_epi32(x); }
static inline INTS all_base(int32_t n) { return _mm256_set1_epi32(n); }
static inline INTS dot4_base(INTS sum, BYTES w, BYTES x)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
static inline INTS dot8_base(INTS sum, BYTES w, BYTES x)
{
    return dot4_base(sum, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}
static inline FLOATS scale_base(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
static inline FLOATS scaled_base(FLOATS y, FLOATS scale, float step, INTS sum)
{
    return _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_set1_ps(step)), _mm256_cvtepi32_ps(sum), y);
}
#else
#define LANES 4
#define STREAMS(rows) 1
#define BYTES struct bytes
#define INTS vector_int
#define FLOATS vector_float
typedef int32_t vector_int __attribute__((vector_size(16)));
typedef float vector_float __attribute__((vector_size(16)));
struct bytes { int8_t of[16]; };
static inline BYTES load_base(const uint8_t *p) { BYTES w; memcpy(&w, p, sizeof w); return w; }
static inline BYTES byte8_base(BYTES w) { return w; }
static inline BYTES low4_base(BYTES w)
{
    for (int j = 0; j < 16; j++)
        w.of[j] &= 15;
    return w;
}
static inline BYTES high4_base(BYTES w)
{
    for (int j = 0; j < 16; j++)
        w.of[j] = w.of[j] >> 4 & 15;
    return w;
}
static inline BYTES copies_base(int32_t x)
{
    BYTES copies;
    for (int column = 0; column < LANES; column++)
        memcpy(copies.of + 4 * column, &x, 4);
    return copies;
}
static inline INTS all_base(int32_t n) { return (INTS){n, n, n, n}; }
static inline INTS dot8_base(INTS sum, BYTES w, BYTES x)
{
    for (int j = 0; j < 16; j++)
        sum[j / 4] += w.of[j] * x.of[j];
    return sum;
}
static inline INTS dot4_base(INTS sum, BYTES w, BYTES x) { return dot8_base(sum, w, x); }
static inline FLOATS scale_base(const uint16_t *p)
{
    uint32_t bits[LANES] = {(uint32_t)p[0] << 16, (uint32_t)p[1] << 16, (uint32_t)p[2] << 16, (uint32_t)p[3] << 16};
    FLOATS scale;
    memcpy(&scale, bits, sizeof scale);
    return scale;
}
static inline FLOATS scaled_base(FLOATS y, FLOATS scale, float step, INTS sum)
{
    return y + scale * step * __builtin_convertvector(sum, FLOATS);
}
#endif
#include "quantized_linear.inc"

/* Part `part` of a Product: a stretch of the panels, all rows of x. */
static void product_part(void *what, long part)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (has_vnni()) {
        work_on_part_vnni(what, part);
        return;
    }
#endif
    work_on_part_base(what, part);
}

#endif
