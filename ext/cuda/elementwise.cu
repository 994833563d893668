// Activations on a GPU: those of minigpt/ops/elementwise.py, by its equation numbers, whose NumPy version would be
// several kernels of CuPy's. The others (add, exp ...) are one of CuPy's kernels each already.
#include "common.cuh"

extern "C" __global__ void tanh_forward(const real *__restrict__ x, real *__restrict__ y, long long N)
{
    const long long i = place();
    if (i < N)
        y[i] = tanh(x[i]);                                              // (8)
}

extern "C" __global__ void tanh_backward(
    const real *__restrict__ dy, const real *__restrict__ y, real *__restrict__ dx, long long N)
{
    const long long i = place();
    if (i < N)
        dx[i] = dy[i] * (1 - y[i] * y[i]);                              // (8)
}

extern "C" __global__ void sigmoid_forward(const real *__restrict__ x, real *__restrict__ y, long long N)
{
    const long long i = place();
    if (i < N)
        y[i] = 1 / (1 + exp(-x[i]));                                    // (9), where 1 / inf is 0
}

extern "C" __global__ void sigmoid_backward(
    const real *__restrict__ dy, const real *__restrict__ y, real *__restrict__ dx, long long N)
{
    const long long i = place();
    if (i < N)
        dx[i] = dy[i] * y[i] * (1 - y[i]);                              // (9)
}

extern "C" __global__ void relu_forward(const real *__restrict__ x, real *__restrict__ y, long long N)
{
    const long long i = place();
    if (i < N)
        y[i] = x[i] < 0 ? 0 : x[i];                                     // (10), and what is no number stays so
}

extern "C" __global__ void relu_backward(
    const real *__restrict__ dy, const real *__restrict__ x, real *__restrict__ dx, long long N)
{
    const long long i = place();
    if (i < N)
        dx[i] = x[i] > 0 ? dy[i] : 0;                                   // (10)
}
