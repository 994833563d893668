// dropout on a GPU. Equations (1)-(2) are derived in minigpt/ops/dropout.py, the mask in philox.py.
#include "common.cuh"
#include "philox.cuh"

// A thread has four columns, those of one counter. x (B, rows, C), the places of the mask being (0, row, column).
extern "C" __global__ void dropout(
    const real *__restrict__ x, const unsigned long long *__restrict__ seeds, unsigned threshold, real scale,
    real *__restrict__ y, long long N, long long rows, int C)
{
    const int blocks = (C + 3) / 4;
    const long long i = place(), row = i / blocks;                      // row of all N: sequence by sequence
    if (row >= N)
        return;
    const int block = i % blocks;
    const Words words = words_of_place(seeds[row / rows], 0, row % rows, block);
    for (int j = 0; j < 4 && 4 * block + j < C; j++) {
        const long long at = row * C + 4 * block + j;
        y[at] = x[at] * (words.word[j] >= threshold ? scale : 0);       // (1) (2)
    }
}
