/* Small functions written so that a loop over them vectorises, for float and double. */
#ifndef MINIGPT_VECTORISED_H
#define MINIGPT_VECTORISED_H
#include <math.h>
#include <stdint.h>

/* exp(x) = 2^n 2^f, where n + f = x / ln 2 and |f| <= 1/2. 2^n is made by writing n into a float's exponent bits. 2^f is a
 * polynomial, the one of degree 5 that is 1 at 0 and whose largest relative error is least, 9e-8. x / ln 2 is rounded once,
 * so the relative error grows with |x|: 2e-7 near 0, 2e-6 at x = -60, where the result itself is 1e-26. libm's expf is
 * exact to the last digit, but a loop that calls it does not vectorise.
 * exp(-inf) is 0, a NaN stays one; results below 2^-126.5 become 0, those above 2^127.5 inf.
 *
 * n is rounded by adding 1.5 * 2^23, from where on floats are the integers, in the lower bits; and 127, which a float's
 * exponent has in addition, so that the lower bits are the exponent's. Limits of x are limits of n, integers, since of two
 * limits of floats gcc makes three cases, each computed for all x, at twice the time. Where x may be below -10^6, say -inf,
 * a float has to be limited all the same.
 *
 * power_of_two_within is for an exponent that was limited to -127 ... 127 beforehand, and exp_within for -88 ... 88: by loops
 * of their own, one a limit, since gcc would make cases again; and a short loop, of 16 numbers, vectorises only so. */
#define ROUNDING 12583039.0f                        /* 1.5 * 2^23 + 127 */
#define BITS_OF_0 0x4B40007F                        /* its bits: what an n of 0 becomes */

static inline float limited_float(float x) { return x < -88.0f ? -88.0f : x; }

static inline int32_t rounded_float(float y)
{
    union { float value; int32_t bits; } rounded = { y + ROUNDING };
    return rounded.bits;
}

/* 2^y, where the bits are those of y rounded, or of the limit that a float can hold. */
static inline float power_of_two_float(float y, int32_t bits)
{
    union { float value; uint32_t bits; } power;
    float f = y - (float)(bits - BITS_OF_0);
    float p = 1.32647272e-3f;
    p = p * f + 9.67151264e-3f;
    p = p * f + 5.55073374e-2f;
    p = p * f + 2.40222421e-1f;
    p = p * f + 6.93146978e-1f;
    p = p * f + 1.0f;
    power.bits = (uint32_t)bits << 23;
    return p * power.value;
}

static inline float power_of_two_within_float(float y) { return power_of_two_float(y, rounded_float(y)); }
static inline float exp_within_float(float x) { return power_of_two_within_float(x * 1.44269504f); }

static inline float exp_float(float x)
{
    float y = limited_float(x) * 1.44269504f;
    int32_t bits = rounded_float(y), most = BITS_OF_0 + 128;
    return power_of_two_float(y, bits < most ? bits : most);
}

/* In float64 the kernels are there to be checked, not to be fast: the library's functions will do. */
static inline double exp_double(double x) { return exp(x); }
static inline double exp_within_double(double x) { return exp(x); }
static inline double power_of_two_within_double(double y) { return exp2(y); }
static inline double limited_double(double x) { return x; }

/* y = exp(scale x - shift), n numbers, and their sum; y may be x. Without the pragma gcc makes branches of exp_float's two
 * limits, and of the whole a loop over single numbers, six times as slow. */
static inline float exp_sum_float(const float *x, long n, float scale, float shift, float *y)
{
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (long i = 0; i < n; i++) {
        y[i] = exp_float(scale * x[i] - shift);
        sum += y[i];
    }
    return sum;
}

static inline double exp_sum_double(const double *x, long n, double scale, double shift, double *y)
{
    double sum = 0;
    for (long i = 0; i < n; i++)
        sum += y[i] = exp_double(scale * x[i] - shift);
    return sum;
}

/* The largest of n numbers, -inf of none. The pragma allows the order of comparisons to change (a NaN may be missed). */
static inline float max_float(const float *x, long n)
{
    float m = -HUGE_VALF;
    #pragma omp simd reduction(max : m)
    for (long i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static inline double max_double(const double *x, long n)
{
    double m = -HUGE_VAL;
    #pragma omp simd reduction(max : m)
    for (long i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

#endif
