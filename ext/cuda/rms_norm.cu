// rms_norm on a GPU. Equations (1)-(6) are derived in minigpt/ops/rms_norm.py. A block works on a row at a time.
#include "common.cuh"

extern "C" __global__ void rms_norm_forward(
    const real *__restrict__ x, const real *__restrict__ w, real eps, real *__restrict__ y, real *__restrict__ r, int C)
{
    const long long row = blockIdx.x, begin = row * C;
    real squares = 0;
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        squares += x[begin + c] * x[begin + c];
    const real scale = 1 / sqrt(over_block<Sum>(squares) / C + eps);    // (1)
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        y[begin + c] = x[begin + c] * scale * (w ? w[c] : 1);           // (2) (3)
    if (threadIdx.x == 0)
        r[row] = scale;
}

// A block takes every gridDim.x-th row, and sums what these rows give to dw in a row of its own, (gridDim.x, C), which
// begins at 0 (see layer_norm.cu).
extern "C" __global__ void rms_norm_backward(
    const real *__restrict__ dy, const real *__restrict__ x, const real *__restrict__ w, const real *__restrict__ r,
    real *__restrict__ dx, real *__restrict__ dw, long long N, int C)
{
    const long long own = (long long)blockIdx.x * C;
    for (long long row = blockIdx.x; row < N; row += gridDim.x) {
        const real scale = r[row];
        real sum = 0;
        for (int c = threadIdx.x; c < C; c += blockDim.x) {
            const real xhat = x[row * C + c] * scale;                   // (2)
            if (dw)
                dw[own + c] += dy[row * C + c] * xhat;                  // (4)
            sum += dy[row * C + c] * (w ? w[c] : 1) * xhat;             // (5)
        }
        const real mean = over_block<Sum>(sum) / C;
        for (int c = threadIdx.x; c < C; c += blockDim.x)
            dx[row * C + c] = scale * (dy[row * C + c] * (w ? w[c] : 1) - x[row * C + c] * scale * mean);      // (6)
    }
}
