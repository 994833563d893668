/* GELU by tanh, and its slope, of AT_ONCE numbers: equations (1)-(4) of minigpt/ops/gelu.py.
 *
 * A loop a step. Each becomes two vectors, and what one hands to the next stays in registers: 0.9 of the time of loops over
 * more numbers, which hand it on in memory. The two limits have a loop each, since of two in one gcc makes three cases, each
 * computed for all numbers. */
#ifndef MINIGPT_GELU_H
#define MINIGPT_GELU_H
#include "vectorised.h"

enum { AT_ONCE = 16 };

#define REAL float
#define NAME(x) x##_float
#include "gelu.inc"
#undef NAME
#undef REAL

#define REAL double
#define NAME(x) x##_double
#include "gelu.inc"
#undef NAME
#undef REAL

#endif
