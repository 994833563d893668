// embedding on a GPU. Equations (1)-(2) are derived in minigpt/ops/embedding.py.
#include "common.cuh"

// A block copies a row. An id outside 0 ... V-1 gives no numbers.
extern "C" __global__ void embedding_forward(
    const real *__restrict__ w, const long long *__restrict__ ids, real *__restrict__ y, long long V, int C)
{
    const long long n = blockIdx.x, id = ids[n];
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        y[n * C + c] = id < 0 || id >= V ? not_a_number() : w[id * C + c];      // (1)
}

// The first of N sorted numbers that is not below `bound`, or N.
__device__ long long first_not_below(const long long *sorted, long long N, long long bound)
{
    long long low = 0, high = N;
    while (low < high) {
        const long long middle = (low + high) / 2;
        if (sorted[middle] < bound)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The block (v, j) sums the columns 32 j ... 32 j + 31 of row v, then every gridDim.y-th such strip: its warps share
// the rows of dy that belong to v, the lanes have a column each. `sorted` are the ids in order, `order` where they stood.
//
// Adding each row of dy at its place by atomicAdd would need no sorting, but takes sums in the order in which threads
// happen to come, so that no run could be repeated bit for bit; and threads of a frequent token wait for each other.
extern "C" __global__ void embedding_backward(
    const real *__restrict__ dy, const long long *__restrict__ sorted, const long long *__restrict__ order,
    real *__restrict__ dw, long long N, int C)
{
    __shared__ real of_warp[32][32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const long long v = blockIdx.x, begin = first_not_below(sorted, N, v), end = first_not_below(sorted, N, v + 1);
    for (int strip = 32 * blockIdx.y; strip < C; strip += 32 * gridDim.y) {
        const int c = strip + lane;
        real sum = 0;
        for (long long n = begin + warp; n < end && c < C; n += warps)
            sum += dy[order[n] * C + c];                                // (2)
        of_warp[warp][lane] = sum;
        __syncthreads();                                                // all warps have written theirs
        if (warp == 0 && c < C) {
            for (int other = 1; other < warps; other++)
                sum += of_warp[other][lane];
            dw[v * C + c] = sum;                                        // (2)
        }
        __syncthreads();                                                // all are read, before the next strip
    }
}
