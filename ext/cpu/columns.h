/* Softmax, and back through it, down LANES columns side by side: of attention's transposed scores, a key a row and a query
 * a column. Rows are `stride` numbers apart. Loops over the LANES numbers of a row become two vectors, and what is summed up
 * or compared stays in registers; a step across a vector, as a softmax along rows takes for each, there is none.
 * Equations (2) and (6) are derived in minigpt/ops/attention.py. */
#ifndef MINIGPT_COLUMNS_H
#define MINIGPT_COLUMNS_H
#include "vectorised.h"

enum { LANES = 16 };

#define REAL float
#define LOG logf
#define NAME(x) x##_float
#include "columns.inc"
#undef NAME
#undef LOG
#undef REAL

#define REAL double
#define LOG log
#define NAME(x) x##_double
#include "columns.inc"
#undef NAME
#undef LOG
#undef REAL

#endif
