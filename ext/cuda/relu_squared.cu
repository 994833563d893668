// relu_squared on a GPU. Equations (1)-(2) stand in minigpt/ops/relu_squared.py.
#include "common.cuh"

// x < 0 ? 0 : x, and not max(x, 0), which would turn what is no number into 0.
extern "C" __global__ void relu_squared_forward(const real *__restrict__ x, real *__restrict__ y, long long N)
{
    const long long i = place();
    if (i < N)
        y[i] = x[i] < 0 ? 0 : x[i] * x[i];                              // (1)
}

extern "C" __global__ void relu_squared_backward(
    const real *__restrict__ dy, const real *__restrict__ x, real *__restrict__ dx, long long N)
{
    const long long i = place();
    if (i < N)
        dx[i] = x[i] < 0 ? 0 : dy[i] * 2 * x[i];                        // (2)
}
