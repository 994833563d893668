// gelu on a GPU. Equations (1)-(4) are derived in minigpt/ops/gelu.py.
#include "common.cuh"

__device__ __forceinline__ real sigmoid_of_2u(real x)
{
    return 1 / (1 + exp(real(-1.5957691216057308) * (x + real(0.044715) * x * x * x)));       // (3), 2 sqrt(2 / pi)
}

__device__ __forceinline__ real phi(real x, int approximate)
{
    return approximate ? sigmoid_of_2u(x) : real(0.5) * (1 + erf(x * real(0.7071067811865476)));        // (3) or (1)
}

extern "C" __global__ void gelu_forward(const real *__restrict__ x, int approximate, real *__restrict__ y, long long N)
{
    const long long i = place();
    if (i < N)
        y[i] = x[i] * phi(x[i], approximate);                           // (1)
}

extern "C" __global__ void gelu_backward(
    const real *__restrict__ dy, const real *__restrict__ x, int approximate, real *__restrict__ dx, long long N)
{
    const long long i = place();
    if (i >= N)
        return;
    const real p = phi(x[i], approximate);
    const real slope = approximate
        ? p * (1 - p) * real(1.5957691216057308) * (1 + real(0.134145) * x[i] * x[i])          // (4)
        : exp(real(-0.5) * x[i] * x[i]) * real(0.3989422804014327);     // (2), 1 / sqrt(2 pi)
    dx[i] = dy[i] * (p + x[i] * slope);                                 // (2)
}
