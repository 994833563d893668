// The sum of a row's exponentials, read once: m is the largest number so far, and the sum is rescaled whenever a larger
// one comes (Milakov and Gimelshein 2018, Online normalizer calculation for softmax). Needs common.cuh.

struct Exponentials {
    real m, sum;                                                        // sum of exp(x - m), m the largest of the row
};

// Every thread of the block has to call it, and gets it.
__device__ Exponentials exponentials(const real *x, int S)
{
    real m = real(-3.4e38), sum = 0;                                    // finite: -inf - (-inf) would be no number
    for (int s = threadIdx.x; s < S; s += blockDim.x)
        if (x[s] > m) {
            sum = sum * exp(m - x[s]) + 1;
            m = x[s];
        } else
            sum += exp(x[s] - m);
    const real largest = over_block<Maximum>(m);
    return {largest, over_block<Sum>(sum * exp(m - largest))};
}
