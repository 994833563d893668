// mlp on a GPU: what is done between its matrix products, which are CuPy's, in one reading of h. Equations (1)-(10) stand
// in minigpt/ops/mlp.py, those of the two activations in gelu.py and relu_squared.py.
#include "common.cuh"
#include "gelu.cuh"

// h (N, F) comes as x w1, and gets its shift b (F,), or null; a = f(h). A block works on a row.
extern "C" __global__ void mlp_forward(
    real *__restrict__ h, const real *__restrict__ b, int is_gelu, real *__restrict__ a, int F)
{
    const long long begin = (long long)blockIdx.x * F;
    for (int f = threadIdx.x; f < F; f += blockDim.x) {
        const real x = h[begin + f] + (b ? b[f] : 0);                   // (1)
        h[begin + f] = x;
        a[begin + f] = is_gelu ? gelu(x, 1) : x < 0 ? 0 : x * x;        // (2)
    }
}

// a once more, and da becomes dh.
extern "C" __global__ void mlp_backward(
    const real *__restrict__ h, int is_gelu, real *__restrict__ a, real *__restrict__ da, long long N)
{
    const long long i = place();
    if (i >= N)
        return;
    const real x = h[i];
    a[i] = is_gelu ? gelu(x, 1) : x < 0 ? 0 : x * x;                    // (2)
    da[i] *= is_gelu ? gelu_slope(x, 1) : x < 0 ? 0 : 2 * x;            // (7)
}
