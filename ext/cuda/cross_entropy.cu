// cross_entropy on a GPU. Equations (1)-(3) are derived in minigpt/ops/cross_entropy.py. A block works on a row.
//
// Nothing is brought to the host: total is counted on the device and kept there. A target that is neither in 0 ... V-1
// nor ignored makes the loss no number.
#include "common.cuh"
#include "softmax.cuh"

// l (N,), and what each row adds to the loss, (N,).
extern "C" __global__ void cross_entropy_rows(
    const real *__restrict__ x, const long long *__restrict__ t, long long ignored, real *__restrict__ l,
    real *__restrict__ losses, int V)
{
    const long long row = blockIdx.x, target = t[row];
    if (target == ignored) {
        if (threadIdx.x == 0)
            losses[row] = 0;
        return;
    }
    const Exponentials e = exponentials(x + row * V, V);
    if (threadIdx.x == 0) {
        l[row] = e.m + log(e.sum);                                      // (1)
        losses[row] = target < 0 || target >= V ? not_a_number() : l[row] - x[row * V + target];       // (2)
    }
}

// The loss and the total, by one block. given: the total, or 0 where the rows that count are to be counted.
extern "C" __global__ void cross_entropy_mean(
    const real *__restrict__ losses, const long long *__restrict__ t, long long ignored, double given,
    real *__restrict__ loss, real *__restrict__ total, long long N)
{
    double sum = 0;                                                     // in double: the sum is long
    long long counted = 0;
    for (long long row = threadIdx.x; row < N; row += blockDim.x) {
        sum += losses[row];
        counted += t[row] != ignored;
    }
    sum = over_block<Sum>(sum);
    counted = over_block<Sum>(counted);
    if (threadIdx.x == 0) {
        const double by = given ? given : counted ? counted : 1;
        loss[0] = sum / by;                                             // (2)
        total[0] = by;
    }
}

extern "C" __global__ void cross_entropy_backward(
    const real *__restrict__ dy, const real *__restrict__ x, const real *__restrict__ l,
    const long long *__restrict__ t, long long ignored, const real *__restrict__ total, real *__restrict__ dx, int V)
{
    const long long row = blockIdx.x, target = t[row];
    const real scale = dy[0] / total[0];
    for (int v = threadIdx.x; v < V; v += blockDim.x)
        dx[row * V + v] = target == ignored ? 0 : scale * (exp(x[row * V + v] - l[row]) - (v == target));     // (3)
}
