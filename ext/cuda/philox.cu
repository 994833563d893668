// fold_in on a GPU. Equations (1)-(4) are derived in minigpt/ops/philox.py.
#include "common.cuh"
#include "philox.cuh"

extern "C" __global__ void fold_in(
    const unsigned long long *__restrict__ seeds, unsigned n, unsigned long long *__restrict__ new_seeds, long long N)
{
    const long long i = place();
    if (i >= N)
        return;
    const Words words = philox4x32(n, 0, 0, 1, seeds[i]);
    new_seeds[i] = words.word[0] | (unsigned long long)words.word[1] << 32;     // (4)
}
