// gelu on a GPU. Equations (1)-(4) are derived in minigpt/ops/gelu.py.
#include "common.cuh"
#include "gelu.cuh"

extern "C" __global__ void gelu_forward(const real *__restrict__ x, int approximate, real *__restrict__ y, long long N)
{
    const long long i = place();
    if (i < N)
        y[i] = gelu(x[i], approximate);                                 // (1)
}

extern "C" __global__ void gelu_backward(
    const real *__restrict__ dy, const real *__restrict__ x, int approximate, real *__restrict__ dx, long long N)
{
    const long long i = place();
    if (i < N)
        dx[i] = dy[i] * gelu_slope(x[i], approximate);                  // (2)
}
