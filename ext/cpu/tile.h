/* Matrix products on one thread, for attention's small ones and for the large ones of linear layers.
 *
 *     product(m, n, k, a, a_row, a_col, b, b_row, b_col, c, bias, sums, work):   c = a b + bias
 *
 * a is m x k, element (i, p) at a[i * a_row + p * a_col], one of the two strides being 1: so a transpose is read by exchanging
 * them. b is k x n likewise, c is m x n and contiguous. bias (n) or NULL is added to each row. sums (n) or NULL: the sum over
 * the rows of b is added to it, as b passes by anyway (not where b is a transpose). work: workspace().
 *
 * It is made of two steps, which attention takes one by one. `pack` copies b into panels: columns side by side, as many as
 * a tile is wide (PANEL), row after row; then the next panel, the last one filled up with zeros. `panels` multiplies:
 *
 *     pack(n, k, b, b_row, b_col, to, sums)                       to: k times n rounded up to panels
 *     panels(m, n, k, a, a_row, a_col, b, b_panel, c, c_row, add, bias, few)      c = a b + bias, or c += a b
 *
 * pack_large and product_large do the same for a b that may not fit the cache, piece by piece.
 *
 * b_panel is the distance of one panel from the next, c_row that of rows of c. few: room for BLOCK rows of a, or NULL to
 * read a transpose where it lies, too, which is faster where it is small.
 *
 * A tile of c stays in vector registers while the sum over p runs: 6 x 16 numbers take 12 of AVX2's 16 registers. For each
 * p two more load a row of b, and each element of a is broadcast and multiplied into both: 12 multiply-adds for 8 loads.
 * AVX-512 has 32 registers of twice the size, and a tile of 12 x 32; it is taken where the CPU has it. The loops over a
 * tile are unrolled by pragma, since only then do the sums stay in registers.
 *
 * BLOCK rows of a go through all panels before the next: so a panel stays in the first cache while the block passes by it,
 * and the block in the second. Where the rows of a are contiguous they are read where they are; a transpose is copied first,
 * in strips as high as a tile, all of a block at once, as its rows in memory are read from front to back so. */
#ifndef MINIGPT_TILE_H
#define MINIGPT_TILE_H
#include <stdlib.h>
#include "avx512.h"

#define DEEP 384                                    /* of k, and */
#define WIDE 512                                    /* of n, numbers of b that are packed at a time: 768 KB of floats */
#define BLOCK 96                                    /* rows of a that pass by a panel at a time */

/* Room for `product`, one piece a thread for as long as that lives; NULL where there is no memory. */
static inline void *workspace(void)
{
    static _Thread_local void *room;
    if (!room)
        room = aligned_alloc(64, sizeof(double) * DEEP * (WIDE + BLOCK));
    return room;
}

#define LANES 8
#define ROWS 6
#define REAL float
#define INTEGER int
#define NAME(x) x##_float8
#include "tile.inc"
#undef NAME
#undef INTEGER
#undef REAL
#undef LANES

#define LANES 4
#define REAL double
#define INTEGER long long
#define NAME(x) x##_double
#include "tile.inc"
#undef NAME
#undef INTEGER
#undef REAL
#undef LANES
#undef ROWS

#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw")
#define LANES 16
#define ROWS 12
#define REAL float
#define INTEGER int
#define NAME(x) x##_float16
#include "tile.inc"
#undef NAME
#undef INTEGER
#undef REAL
#undef LANES
#undef ROWS
#pragma GCC pop_options

#define BEST_FLOAT(f) (has_avx512() ? f##_float16 : f##_float8)
#define PANEL_FLOAT (has_avx512() ? 32 : 16)
#else
#define BEST_FLOAT(f) f##_float8
#define PANEL_FLOAT 16
#endif
#define PANEL_DOUBLE 8

static inline void pack_float(long n, long k, const float *b, long b_row, long b_col, float *to, float *sums)
{
    BEST_FLOAT(pack)(n, k, b, b_row, b_col, to, sums);
}

static inline void panels_float(long m, long n, long k, const float *a, long a_row, long a_col, const float *b,
                                long b_panel, float *c, long c_row, int add, const float *bias, float *few)
{
    BEST_FLOAT(panels)(m, n, k, a, a_row, a_col, b, b_panel, c, c_row, add, bias, few);
}

static inline void pack_large_float(long n, long k, const float *b, long b_row, long b_col, float *to)
{
    BEST_FLOAT(pack_large)(n, k, b, b_row, b_col, to);
}

static inline void product_large_float(long m, long n, long k, const float *a, long a_row, const float *b, float *c, long c_row,
                                       int add, const float *bias)
{
    BEST_FLOAT(product_large)(m, n, k, a, a_row, b, c, c_row, add, bias);
}

static inline void product_float(long m, long n, long k, const float *a, long a_row, long a_col, const float *b, long b_row,
                                 long b_col, float *c, const float *bias, float *sums, float *work)
{
    BEST_FLOAT(product)(m, n, k, a, a_row, a_col, b, b_row, b_col, c, bias, sums, work);
}

#endif
