/* Small functions written so that a loop over them vectorises, for float and double. */
#ifndef MINIGPT_VECTORISED_H
#define MINIGPT_VECTORISED_H
#include <math.h>
#include <stdint.h>

/* exp(x) = 2^n 2^f, where n + f = x / ln 2 and |f| <= 1/2. 2^n is made by writing n into a float's exponent bits. 2^f is a
 * polynomial, the one of degree 6 that is 1 at 0 and whose largest relative error is least, 2e-9. x / ln 2 is rounded once,
 * so the relative error grows with |x|: 1e-7 near 0, 2e-6 at x = -60, where the result itself is 1e-26. libm's expf is
 * exact to the last digit, but a loop that calls it does not vectorise.
 * exp(-inf) is 0, a NaN stays one; results below 2^-126.5 become 0, those above 2^127.5 inf.
 *
 * n is rounded by adding 1.5 * 2^23, from where on floats are the integers, in the lower bits. Limits of x are limits of n,
 * integers, since of two limits of floats gcc makes three cases, each computed for all x, at twice the time. Where x may be
 * below -10^6, say -inf, a float has to be limited all the same.
 *
 * exp_within is for an x that was limited to -88 ... 88 beforehand, by loops of their own, one a limit, since gcc would
 * make cases again; and a short loop, of 16 numbers, vectorises only so. GELU takes 0.8 to 0.9 of the time that way. */
static inline float limited_float(float x) { return x < -88.0f ? -88.0f : x; }

static inline int32_t rounded_float(float y)
{
    union { float value; int32_t bits; } rounded = { y + 12582912.0f };
    return rounded.bits - 0x4B400000;
}

/* 2^y, where n is y rounded, or limited to what a float can hold. */
static inline float power_of_two_float(float y, int32_t n)
{
    union { float value; uint32_t bits; } power;
    float f = y - (float)n;
    float p = 1.53533596e-4f;
    p = p * f + 1.33988759e-3f;
    p = p * f + 9.61843738e-3f;
    p = p * f + 5.55033247e-2f;
    p = p * f + 2.40226479e-1f;
    p = p * f + 6.93147203e-1f;
    p = p * f + 1.0f;
    power.bits = (uint32_t)(n + 127) << 23;
    return p * power.value;
}

static inline float exp_within_float(float x)
{
    float y = x * 1.44269504f;
    return power_of_two_float(y, rounded_float(y));
}

static inline float exp_float(float x)
{
    float y = limited_float(x) * 1.44269504f;
    int32_t n = rounded_float(y);
    return power_of_two_float(y, n < 128 ? n : 128);
}

/* In float64 the kernels are there to be checked, not to be fast: the library's exp will do. */
static inline double exp_double(double x) { return exp(x); }
static inline double exp_within_double(double x) { return exp(x); }
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
