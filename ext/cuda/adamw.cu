// adamw on a GPU. Equations (1)-(6) are derived in minigpt/ops/adamw.py.
#include "common.cuh"

extern "C" __global__ void adamw_step(
    real *__restrict__ w, const real *__restrict__ gradient, real *__restrict__ m, real *__restrict__ v, long long P,
    real scale, real new1, real new2, real shrink, real rate, real unbias, real eps)
{
    const long long p = place();
    if (p >= P)
        return;
    const real g = gradient[p] * scale;                                 // (1)
    m[p] += new1 * (g - m[p]);                                          // (2)
    v[p] += new2 * (g * g - v[p]);                                      // (3)
    w[p] = shrink * w[p] - rate * m[p] / (sqrt(unbias * v[p]) + eps);   // (4) (5)
}

// The sum of squares of every gridDim.x-th block of numbers: parts (gridDim.x).
extern "C" __global__ void sums_of_squares(const real *__restrict__ gradient, real *__restrict__ parts, long long P)
{
    real sum = 0;
    for (long long p = place(); p < P; p += (long long)gridDim.x * blockDim.x)
        sum += gradient[p] * gradient[p];
    sum = over_block<Sum>(sum);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;                                        // (6)
}
