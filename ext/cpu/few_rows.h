/* y = x w + b or y = x w^T + b for at most 8 rows of x, as a model that makes one token after the other needs it.
 *
 * There is no arithmetic to speak of: each number of w is read from memory once, multiplied n times, and not needed
 * again. All that counts is that memory delivers without a break, and it does so where a core reads a few long stretches
 * from front to back. So
 *
 *     parts       the rows of w are cut into parts, stretches of memory, which the threads of the pool share
 *     streams     a thread reads several rows of its part at a time, not neighbours (each of them would end where the
 *                 next one began) but rows a fraction of the part apart: each stream goes on where it was
 *
 * Of w (I, O) several rows are multiplied into y (n, O) at a time, so that y is read and written once for them; each part
 * has a sum of its own, and these are added up in the end. Of w (O, I) each row gives a number of y. Rows longer than
 * WIDTH are taken in columns of that width, so that the piece of y that grows stays in the first cache. */
#ifndef MINIGPT_FEW_ROWS_H
#define MINIGPT_FEW_ROWS_H
#include <string.h>

enum { FEW = 8, WIDTH = 4096, SMALL = 1 << 15 };

typedef void (*Run)(void (*task)(void *what, long part), void *what, long parts);

static inline long first_row(long part, long parts, long rows) { return rows * part / parts; }

#define REAL float
#define VECTOR vector_float
#define LANES 8
#define NAME(x) x##_float
#include "few_rows.inc"
#undef REAL
#undef VECTOR
#undef LANES
#undef NAME

#define REAL double
#define VECTOR vector_double
#define LANES 4
#define NAME(x) x##_double
#include "few_rows.inc"
#undef REAL
#undef VECTOR
#undef LANES
#undef NAME

#endif
