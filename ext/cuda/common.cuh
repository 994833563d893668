// What the kernels share: which number is mine, and sums over a block. `real` is float or double: see
// minigpt/kernels/cuda/launch.py, which also puts this text in place of each #include.

// The place of this thread among all threads of the launch, for kernels where each has a number of its own.
__device__ __forceinline__ long long place()
{
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

struct Sum {
    template <class T> static __device__ T of(T a, T b) { return a + b; }
};

struct Maximum {
    template <class T> static __device__ T of(T a, T b) { return a > b ? a : b; }
};

// The sum (or maximum) over the 32 threads of a warp: after exchanging with the neighbours at distance 16, 8, 4, 2, 1
// each thread has all of it, and all have the same bits.
template <class How, class T> __device__ __forceinline__ T over_warp(T value)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value = How::of(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// The same over a block of whole warps, at most 32 of them. Every thread of the block has to call it, and gets it.
template <class How, class T> __device__ T over_block(T value)
{
    __shared__ T of_warp[32];
    value = over_warp<How>(value);
    if (threadIdx.x % 32 == 0)
        of_warp[threadIdx.x / 32] = value;
    __syncthreads();                                                    // all warps have written theirs
    value = of_warp[0];
    for (int warp = 1; warp < blockDim.x / 32; warp++)
        value = How::of(value, of_warp[warp]);
    __syncthreads();                                                    // all have read, before the next call writes
    return value;
}

__device__ __forceinline__ real not_a_number()
{
    return sqrt(real(-1));
}
