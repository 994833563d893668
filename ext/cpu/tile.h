/* Small matrix products near the speed of large ones, for attention: multiply_float and multiply_double.
 *
 *     multiply(m, n, k, a, a_row, a_col, b, b_row, c, c_row, add):   c = a b   (add = 0)   or   c += a b   (add = 1)
 *
 * a is m x k, element (i, p) at a[i * a_row + p * a_col]: so a transpose is read by exchanging the two strides.
 * b is k x n, c is m x n; their rows are contiguous, b_row and c_row apart.
 *
 * A 6 x 16 tile of c (6 x 8 for double) stays in 12 of the 16 vector registers of AVX2. For each p two more load a row
 * of b, and each element of a is broadcast and multiplied into both: 12 multiply-adds for 8 loads. The loops over the
 * tile are unrolled by pragma, since only then do the sums stay in registers. */
#ifndef MINIGPT_TILE_H
#define MINIGPT_TILE_H

#define REAL float
#define VECTOR vector_float
#define LANES 8
#define NAME(x) x##_float
#include "tile.inc"
#undef REAL
#undef VECTOR
#undef LANES
#undef NAME

#define REAL double
#define VECTOR vector_double
#define LANES 4
#define NAME(x) x##_double
#include "tile.inc"
#undef REAL
#undef VECTOR
#undef LANES
#undef NAME

#endif
