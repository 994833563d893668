// softmax and log_softmax on a GPU. Equations (1)-(6) are derived in minigpt/ops/softmax.py. A block works on a row.
#include "common.cuh"
#include "softmax.cuh"

extern "C" __global__ void softmax_forward(const real *__restrict__ x, real *__restrict__ p, int S)
{
    const long long begin = (long long)blockIdx.x * S;
    const Exponentials e = exponentials(x + begin, S);                  // (2)
    for (int s = threadIdx.x; s < S; s += blockDim.x)
        p[begin + s] = exp(x[begin + s] - e.m) / e.sum;                 // (3)
}

extern "C" __global__ void softmax_backward(
    const real *__restrict__ dp, const real *__restrict__ p, real *__restrict__ dx, int S)
{
    const long long begin = (long long)blockIdx.x * S;
    real sum = 0;
    for (int s = threadIdx.x; s < S; s += blockDim.x)
        sum += p[begin + s] * dp[begin + s];
    sum = over_block<Sum>(sum);
    for (int s = threadIdx.x; s < S; s += blockDim.x)
        dx[begin + s] = p[begin + s] * (dp[begin + s] - sum);           // (5)
}

extern "C" __global__ void log_softmax_forward(const real *__restrict__ x, real *__restrict__ y, int S)
{
    const long long begin = (long long)blockIdx.x * S;
    const Exponentials e = exponentials(x + begin, S);                  // (2)
    const real l = e.m + log(e.sum);                                    // (4)
    for (int s = threadIdx.x; s < S; s += blockDim.x)
        y[begin + s] = x[begin + s] - l;                                // (4)
}

extern "C" __global__ void log_softmax_backward(
    const real *__restrict__ dy, const real *__restrict__ y, real *__restrict__ dx, int S)
{
    const long long begin = (long long)blockIdx.x * S;
    real sum = 0;
    for (int s = threadIdx.x; s < S; s += blockDim.x)
        sum += dy[begin + s];
    sum = over_block<Sum>(sum);
    for (int s = threadIdx.x; s < S; s += blockDim.x)
        dx[begin + s] = dy[begin + s] - exp(y[begin + s]) * sum;        // (6)
}
