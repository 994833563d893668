// layer_norm on a GPU. Equations (1)-(7) are derived in minigpt/ops/layer_norm.py. A block works on a row at a time.
#include "common.cuh"

extern "C" __global__ void layer_norm_forward(
    const real *__restrict__ x, const real *__restrict__ w, const real *__restrict__ b, real eps,
    real *__restrict__ y, real *__restrict__ mean, real *__restrict__ r, int C)
{
    const long long row = blockIdx.x, begin = row * C;
    real sum = 0, squares = 0;
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        sum += x[begin + c];
    const real m = over_block<Sum>(sum) / C;
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        squares += (x[begin + c] - m) * (x[begin + c] - m);
    const real scale = 1 / sqrt(over_block<Sum>(squares) / C + eps);    // (1)
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        y[begin + c] = (x[begin + c] - m) * scale * w[c] + (b ? b[c] : 0);      // (2) (3)
    if (threadIdx.x == 0) {
        mean[row] = m;
        r[row] = scale;
    }
}

// A block takes every gridDim.x-th row, and sums what these rows give to dw and db in rows of its own, (gridDim.x, C),
// which begin at 0: a thread always adds at the same columns, so there is no race, and the order is always the same.
extern "C" __global__ void layer_norm_backward(
    const real *__restrict__ dy, const real *__restrict__ x, const real *__restrict__ w,
    const real *__restrict__ mean, const real *__restrict__ r,
    real *__restrict__ dx, real *__restrict__ dw, real *__restrict__ db, long long N, int C)
{
    const long long own = (long long)blockIdx.x * C;
    for (long long row = blockIdx.x; row < N; row += gridDim.x) {
        const real m = mean[row], scale = r[row];
        real sum = 0, sum_xhat = 0;
        for (int c = threadIdx.x; c < C; c += blockDim.x) {
            const real xhat = (x[row * C + c] - m) * scale;             // (2)
            const real dxh = dy[row * C + c] * w[c];                    // (6)
            db[own + c] += dy[row * C + c];                             // (4)
            dw[own + c] += dy[row * C + c] * xhat;                      // (5)
            sum += dxh;
            sum_xhat += dxh * xhat;
        }
        const real mean_dxh = over_block<Sum>(sum) / C, mean_dxh_xhat = over_block<Sum>(sum_xhat) / C;
        for (int c = threadIdx.x; c < C; c += blockDim.x) {
            const real xhat = (x[row * C + c] - m) * scale;
            dx[row * C + c] = scale * (dy[row * C + c] * w[c] - mean_dxh - xhat * mean_dxh_xhat);      // (7)
        }
    }
}
