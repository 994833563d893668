// GELU of a number and its slope. Equations (1)-(4) are derived in minigpt/ops/gelu.py.

__device__ __forceinline__ real sigmoid_of_2u(real x)
{
    return 1 / (1 + exp(real(-1.5957691216057308) * (x + real(0.044715) * x * x * x)));       // (3), 2 sqrt(2 / pi)
}

__device__ __forceinline__ real phi(real x, int approximate)
{
    return approximate ? sigmoid_of_2u(x) : real(0.5) * (1 + erf(x * real(0.7071067811865476)));        // (3) or (1)
}

__device__ __forceinline__ real gelu(real x, int approximate)
{
    return x * phi(x, approximate);                                     // (1)
}

__device__ __forceinline__ real gelu_slope(real x, int approximate)
{
    const real p = phi(x, approximate);
    const real slope = approximate
        ? p * (1 - p) * real(1.5957691216057308) * (1 + real(0.134145) * x * x)        // (4)
        : exp(real(-0.5) * x * x) * real(0.3989422804014327);           // (2), 1 / sqrt(2 pi)
    return p + x * slope;                                               // (2)
}
