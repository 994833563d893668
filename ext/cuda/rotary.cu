// rotary on a GPU. Equations (1)-(5) are derived in minigpt/ops/rotary.py.
#include "common.cuh"

// A thread has a pair. x (B, T, H, 2 half), N pairs in all; cos and sin (T, half), or (B, T, half) with `each` = T, else 0;
// sign 1 turns, -1 turns back.
extern "C" __global__ void turn(
    const real *__restrict__ x, const real *__restrict__ cos, const real *__restrict__ sin, real sign,
    real *__restrict__ y, long long N, int T, int H, int half, int each)
{
    const long long i = place();
    if (i >= N)
        return;
    const int pair = i % half, t = i / half / H % T;
    const long long row = i / half / H / T * each + t;
    const long long first = i / half * 2 * half + pair, second = first + half;
    const real c = cos[row * half + pair], s = sign * sin[row * half + pair];
    y[first] = x[first] * c + x[second] * s;                            // (2) (4)
    y[second] = x[second] * c - x[first] * s;                           // (3) (5)
}
