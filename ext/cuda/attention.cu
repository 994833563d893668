// attention on a GPU. Equations (1)-(8) are derived in minigpt/ops/attention.py, the mask of dropout in philox.py.
//
// A block has a tile of one head's queries, or, for dk and dv, of its keys, and tiles of the other kind come by: of the
// scores (T, S) there is never more than one tile by another, in registers. Each number of dq, dk and dv has one thread
// that sums it, in an order that is always the same: the backward pass computes the scores twice, once for dq and once
// for dk and dv, and needs no atomics.
//
// The launcher defines what tiles.cuh needs, OWN_FORWARD and OWN_BACKWARD, the R of either pass, and BLOCKS: as many are
// to find room on a multiprocessor, so that a thread has 65536 / (BLOCKS THREADS) registers at most.
#include "common.cuh"
#include "philox.cuh"
#include "tiles.cuh"

__device__ __forceinline__ real minus_infinity()
{
    return log(real(0));
}

// What a block works on: one of `tiles` tiles of head h of sequence b. Arrays are (B, N, H, D), N being T or S.
struct Head {
    int tile, b, h, T, S;
    long long number, stride, D;                                        // number of the head among all B H

    __device__ __forceinline__ Head(int tiles, int T, int S, int H, int D)
        : tile(blockIdx.x % tiles), b(blockIdx.x / tiles / H), h(blockIdx.x / tiles % H), T(T), S(S),
          number(blockIdx.x / tiles), stride((long long)H * D), D(D) {}

    __device__ __forceinline__ long long begin(int N) const             // of the head, in such an array
    {
        return b * N * stride + h * D;
    }

    __device__ __forceinline__ bool sees(int t, int s, const bool *mask, int causal) const      // mask (B, S), or null
    {
        return t < T && s < S && (!causal || s - S <= t - T) && (!mask || mask[(long long)b * S + s]);
    }
};

// M of (3), if seeds (B,) are not null: drawn for four keys at once, 4 block ... 4 block + 3.
struct Dropout {
    const unsigned long long *seeds;
    unsigned threshold;
    real scale;

    // For each key a bit that says whether query t may look at it.
    __device__ __forceinline__ unsigned four_kept(const Head &head, int t, int block) const
    {
        const Words words = words_of_place(seeds[head.b], head.h, t, block);
        unsigned kept = 0;
        for (int n = 0; n < 4; n++)
            kept |= (words.word[n] >= threshold) << n;
        return kept;
    }

    // m = M for the block's own queries from t0, and keys from s0. Of eight threads that share a query, each draws for
    // four keys, and they tell each other.
    template <int R> __device__ __forceinline__ void of_queries(Four *m, const Head &head, int t0, int s0) const
    {
        const int x = threadIdx.x % 8, first = threadIdx.x % 32 - x;
        #pragma unroll 1
        for (int i = 0; i < R; i++) {
            const unsigned kept = four_kept(head, t0 + own_row(i), s0 / 4 + x % (2 * OTHER));
            for (int j = 0; j < OTHER; j++)
                weight(m, i, j) = __shfl_sync(0xffffffffu, kept, first + other_row(j) / 4) >> x % 4 & 1 ? scale : 0;
        }
    }

    // m = M for the block's own keys from s0, and queries from t0. The own keys of a warp are four that are drawn at
    // once: of four threads that share the queries, each draws for one of these, and they tell each other.
    template <int R> __device__ __forceinline__ void of_keys(Four *m, const Head &head, int s0, int t0) const
    {
        const int x = threadIdx.x % 8, y = threadIdx.x % 32 / 8;
        #pragma unroll 1
        for (int i = 0; i < R; i++) {
            const unsigned kept = four_kept(head, t0 + other_row(y % OTHER), (s0 + own_row(i)) / 4);
            for (int j = 0; j < OTHER; j++)
                weight(m, i, j) = __shfl_sync(0xffffffffu, kept, 8 * j + x) >> y & 1 ? scale : 0;
        }
    }
};

// y (B, T, H, D), l (B, H, T). As keys come tile by tile, so does (2): m is a row's largest score so far, `total` the
// sum of its exp(x - m), and when a larger score comes, what was summed is rescaled.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention_forward(
    const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v, const bool *__restrict__ mask,
    const unsigned long long *__restrict__ seeds, unsigned threshold, real scale_of_kept, int causal, real scale,
    real *__restrict__ y, real *__restrict__ l, int T, int S, int H, int D)
{
    constexpr int R = OWN_FORWARD, QUERIES = 16 * R, KEYS = 8 * OTHER;
    extern __shared__ Four memory[];
    Four *queries = memory, *keys = queries + QUERIES * ROW, *values = keys + KEYS * ROW;
    Four *weights = values + KEYS * ROW;
    const int tiles = (T + QUERIES - 1) / QUERIES;
    const Head head(tiles, T, S, H, D);
    const Dropout dropout = {seeds, threshold, scale_of_kept};
    const int t0 = (tiles - 1 - head.tile) * QUERIES;                   // first the blocks that have the most to do
    const int end = causal ? min(S, S - T + min(T, t0 + QUERIES)) : S;
    real m[R], total[R], sum[R][COLUMNS];
    clear(sum);
    #pragma unroll
    for (int i = 0; i < R; i++) {
        m[i] = real(-3.4e38);                                           // finite: -inf - (-inf) would be no number
        total[i] = 0;
    }
    load<QUERIES>(queries, q + head.begin(T), head.stride, t0, T, D);
    for (int s0 = 0; s0 < end; s0 += KEYS) {
        load<KEYS>(keys, k + head.begin(S), head.stride, s0, S, D);
        load<KEYS>(values, v + head.begin(S), head.stride, s0, S, D);
        __syncthreads();                                                // all tiles are there
        if (seeds)
            dropout.of_queries<R>(weights, head, t0, s0);
        real x[R][OTHER];
        products(x, queries, keys);                                     // (1)
        #pragma unroll
        for (int i = 0; i < R; i++) {
            real largest = m[i];
            #pragma unroll
            for (int j = 0; j < OTHER; j++) {
                const bool seen = head.sees(t0 + own_row(i), s0 + other_row(j), mask, causal);
                x[i][j] = seen ? x[i][j] * scale : minus_infinity();    // (1)
                largest = max(largest, x[i][j]);
            }
            largest = over_eight<Maximum>(largest);
            const real rescale = exp(m[i] - largest);
            m[i] = largest;
            total[i] *= rescale;
            #pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                sum[i][j] *= rescale;
            #pragma unroll
            for (int j = 0; j < OTHER; j++) {
                const real p = exp(x[i][j] - largest);                  // (2), but for the sum of the row
                total[i] += p;
                weight(weights, i, j) = seeds ? p * weight(weights, i, j) : p;      // (3)
            }
        }
        __syncwarp();                                                   // the weights of its rows are there
        add_products(sum, weights, values);                             // (3)
        __syncthreads();                                                // all are done, before the next tiles come
    }
    #pragma unroll
    for (int i = 0; i < R; i++) {
        const int t = t0 + own_row(i);
        total[i] = over_eight<Sum>(total[i]);
        total[i] = total[i] == 0 ? 1 : total[i];                        // no key is seen: y = 0
        if (threadIdx.x % 8 == 0 && t < T)
            l[head.number * T + t] = m[i] + log(total[i]);              // (2)
        #pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            sum[i][j] /= total[i];                                      // (2)
    }
    store(y + head.begin(T), sum, head.stride, t0, T, D);
}

// dq (B, T, H, D), and c (B, H, T) for attention_backward_keys.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention_backward_queries(
    const real *__restrict__ dy, const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v,
    const bool *__restrict__ mask, const unsigned long long *__restrict__ seeds, unsigned threshold,
    real scale_of_kept, int causal, real scale, const real *__restrict__ y, const real *__restrict__ l,
    real *__restrict__ c, real *__restrict__ dq, int T, int S, int H, int D)
{
    constexpr int R = OWN_BACKWARD, QUERIES = 16 * R, KEYS = 8 * OTHER;
    extern __shared__ Four memory[];
    Four *queries = memory, *dys = queries + QUERIES * ROW, *keys = dys + QUERIES * ROW, *values = keys + KEYS * ROW;
    Four *weights = values + KEYS * ROW;
    const int tiles = (T + QUERIES - 1) / QUERIES;
    const Head head(tiles, T, S, H, D);
    const Dropout dropout = {seeds, threshold, scale_of_kept};
    const int t0 = (tiles - 1 - head.tile) * QUERIES;                   // first the blocks that have the most to do
    const int end = causal ? min(S, S - T + min(T, t0 + QUERIES)) : S;
    real l_of[R], c_of[R], sum[R][COLUMNS];
    clear(sum);
    #pragma unroll
    for (int i = 0; i < R; i++) {
        const int t = t0 + own_row(i);
        const long long row = head.begin(T) + t * head.stride;
        c_of[i] = 0;
        for (int d = threadIdx.x % 8; d < D && t < T; d += 8)
            c_of[i] += dy[row + d] * y[row + d];
        c_of[i] = over_eight<Sum>(c_of[i]);                             // (6)
        l_of[i] = t < T ? l[head.number * T + t] : 0;
        if (threadIdx.x % 8 == 0 && t < T)
            c[head.number * T + t] = c_of[i];
    }
    load<QUERIES>(queries, q + head.begin(T), head.stride, t0, T, D);
    load<QUERIES>(dys, dy + head.begin(T), head.stride, t0, T, D);
    for (int s0 = 0; s0 < end; s0 += KEYS) {
        load<KEYS>(keys, k + head.begin(S), head.stride, s0, S, D);
        load<KEYS>(values, v + head.begin(S), head.stride, s0, S, D);
        __syncthreads();                                                // all tiles are there
        if (seeds)
            dropout.of_queries<R>(weights, head, t0, s0);
        real x[R][OTHER], dp[R][OTHER];
        products(x, queries, keys);                                     // (1)
        products(dp, dys, values);                                      // (5), but for M
        #pragma unroll
        for (int i = 0; i < R; i++)
            for (int j = 0; j < OTHER; j++) {
                const bool seen = head.sees(t0 + own_row(i), s0 + other_row(j), mask, causal);
                const real p = seen ? exp(x[i][j] * scale - l_of[i]) : 0;               // (2)
                const real M = seeds ? weight(weights, i, j) : 1;
                weight(weights, i, j) = p * (dp[i][j] * M - c_of[i]) * scale;           // (5) (6), the factor of (7)
            }
        __syncwarp();                                                   // the weights of its rows are there
        add_products(sum, weights, keys);                               // (7)
        __syncthreads();                                                // all are done, before the next tiles come
    }
    store(dq + head.begin(T), sum, head.stride, t0, T, D);
}

// dk and dv (B, S, H, D): the block's own rows are keys here, the others queries.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention_backward_keys(
    const real *__restrict__ dy, const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v,
    const bool *__restrict__ mask, const unsigned long long *__restrict__ seeds, unsigned threshold,
    real scale_of_kept, int causal, real scale, const real *__restrict__ l, const real *__restrict__ c,
    real *__restrict__ dk, real *__restrict__ dv, int T, int S, int H, int D)
{
    constexpr int R = OWN_BACKWARD, KEYS = 16 * R, QUERIES = 8 * OTHER;
    extern __shared__ Four memory[];
    Four *keys = memory, *values = keys + KEYS * ROW, *queries = values + KEYS * ROW, *dys = queries + QUERIES * ROW;
    Four *weights = dys + QUERIES * ROW, *dxs = weights + KEYS * ROW_OF_WEIGHTS;
    const Head head((S + KEYS - 1) / KEYS, T, S, H, D);
    const Dropout dropout = {seeds, threshold, scale_of_kept};
    const int s0 = head.tile * KEYS, begin = causal ? max(0, T - S + s0) / QUERIES * QUERIES : 0;
    real sum_k[R][COLUMNS], sum_v[R][COLUMNS];
    clear(sum_k);
    clear(sum_v);
    load<KEYS>(keys, k + head.begin(S), head.stride, s0, S, D);
    load<KEYS>(values, v + head.begin(S), head.stride, s0, S, D);
    for (int t0 = begin; t0 < T; t0 += QUERIES) {
        load<QUERIES>(queries, q + head.begin(T), head.stride, t0, T, D);
        load<QUERIES>(dys, dy + head.begin(T), head.stride, t0, T, D);
        __syncthreads();                                                // all tiles are there
        if (seeds)
            dropout.of_keys<R>(weights, head, s0, t0);
        real x[R][OTHER], dp[R][OTHER];
        products(x, keys, queries);                                     // (1)
        products(dp, values, dys);                                      // (5), but for M
        #pragma unroll
        for (int j = 0; j < OTHER; j++) {
            const int t = t0 + other_row(j);
            const real l_of = t < T ? l[head.number * T + t] : 0, c_of = t < T ? c[head.number * T + t] : 0;
            for (int i = 0; i < R; i++) {
                const bool seen = head.sees(t, s0 + own_row(i), mask, causal);
                const real p = seen ? exp(x[i][j] * scale - l_of) : 0;                  // (2)
                const real M = seeds ? weight(weights, i, j) : 1;
                weight(weights, i, j) = p * M;                                          // (4)
                weight(dxs, i, j) = p * (dp[i][j] * M - c_of) * scale;                  // (5) (6), the factor of (8)
            }
        }
        __syncwarp();                                                   // the weights of its rows are there
        add_products(sum_v, weights, dys);                              // (4)
        add_products(sum_k, dxs, queries);                              // (8)
        __syncthreads();                                                // all are done, before the next tiles come
    }
    store(dk + head.begin(S), sum_k, head.stride, s0, S, D);
    store(dv + head.begin(S), sum_v, head.stride, s0, S, D);
}
