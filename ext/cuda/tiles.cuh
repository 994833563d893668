// Products of tiles: rows of numbers that a block holds in shared memory. Needs common.cuh, and of the launcher:
//
//     WIDTH      the numbers that a row has here; there may be fewer outside, then zeros follow
//     OTHER      a multiple of 8 rows, in eights, that the block's other tiles have
//     THREADS    of a block: 128, as 16 by 8
//
// The block's own tiles have 16 R rows, R being a template's argument. Of the pairs of an own row and another, thread
// (y, x) has the own rows y, y + 16, ... and the others x, x + 8, ...: R OTHER pairs, with their products in registers.
// It reads four numbers of a row at once, and uses each of them R or OTHER times. A warp has four y and all x, so what
// stands in shared memory for own rows, made and read by the threads of these rows, needs no more than __syncwarp.

struct alignas(16) Four {
    real of[4];
};

constexpr int ROW = WIDTH / 4 + 1;              // Fours from one row of a tile to the next: odd, so that eight threads
constexpr int ROW_OF_WEIGHTS = 2 * OTHER + 1;   // that read one column of eight rows find them in different banks
constexpr int COLUMNS = WIDTH / 8;              // of a row of WIDTH: a thread has its Fours x, x + 8, ...

__device__ __forceinline__ int own_row(int i)
{
    return threadIdx.x / 8 + 16 * i;
}

__device__ __forceinline__ int other_row(int j)
{
    return threadIdx.x % 8 + 8 * j;
}

__device__ __forceinline__ int column(int j)
{
    return 4 * (threadIdx.x % 8 + 8 * (j / 4)) + j % 4;
}

// The place of an own row and another in weights, (16 R, 8 OTHER).
__device__ __forceinline__ real &weight(Four *weights, int i, int j)
{
    return ((real *)(weights + own_row(i) * ROW_OF_WEIGHTS))[other_row(j)];
}

// The sum (or maximum) over the eight threads that share their own rows.
template <class How> __device__ __forceinline__ real over_eight(real value)
{
    for (int distance = 4; distance > 0; distance /= 2)
        value = How::of(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// Rows first ... first + ROWS - 1 of the N rows of D numbers that x has, `stride` numbers from one to the next; zeros
// behind the last row and the last column.
template <int ROWS>
__device__ __forceinline__ void load(Four *tile, const real *x, long long stride, int first, int N, int D)
{
    #pragma unroll 4
    for (int i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
        const int row = i / WIDTH, d = i % WIDTH;
        ((real *)(tile + row * ROW))[d] = first + row < N && d < D ? x[(first + row) * stride + d] : 0;
    }
}

// x = a b^T: a the block's own tile, b another one.
template <int R> __device__ __forceinline__ void products(real (&x)[R][OTHER], const Four *a, const Four *b)
{
    #pragma unroll
    for (int i = 0; i < R; i++)
        for (int j = 0; j < OTHER; j++)
            x[i][j] = 0;
    #pragma unroll 2
    for (int d = 0; d < WIDTH / 4; d++) {
        Four own[R];
        #pragma unroll
        for (int i = 0; i < R; i++)
            own[i] = a[own_row(i) * ROW + d];
        #pragma unroll
        for (int j = 0; j < OTHER; j++) {
            const Four other = b[other_row(j) * ROW + d];
            #pragma unroll
            for (int i = 0; i < R; i++)
                for (int n = 0; n < 4; n++)
                    x[i][j] += own[i].of[n] * other.of[n];
        }
    }
}

// sum += weights b: weights (16 R, 8 OTHER), b another tile; a thread has its own rows and COLUMNS columns of the sum.
template <int R>
__device__ __forceinline__ void add_products(real (&sum)[R][COLUMNS], const Four *weights, const Four *b)
{
    #pragma unroll 1
    for (int s = 0; s < 2 * OTHER; s++) {
        Four own[R];
        #pragma unroll
        for (int i = 0; i < R; i++)
            own[i] = weights[own_row(i) * ROW_OF_WEIGHTS + s];
        #pragma unroll
        for (int n = 0; n < 4; n++)
            for (int j = 0; j < COLUMNS; j += 4) {
                const Four other = b[(4 * s + n) * ROW + column(j) / 4];
                for (int i = 0; i < R; i++)
                    for (int m = 0; m < 4; m++)
                        sum[i][j + m] += own[i].of[n] * other.of[m];
            }
    }
}

template <int R> __device__ __forceinline__ void clear(real (&sum)[R][COLUMNS])
{
    #pragma unroll
    for (int i = 0; i < R; i++)
        for (int j = 0; j < COLUMNS; j++)
            sum[i][j] = 0;
}

// A sum, to rows first, first + 1, ... of the N rows of D numbers that y has.
template <int R>
__device__ __forceinline__ void store(real *y, const real (&sum)[R][COLUMNS], long long stride, int first, int N, int D)
{
    #pragma unroll
    for (int i = 0; i < R; i++)
        for (int j = 0; j < COLUMNS; j++)
            if (first + own_row(i) < N && column(j) < D)
                y[(first + own_row(i)) * stride + column(j)] = sum[i][j];
}
