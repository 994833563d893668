// Random words that follow from a seed and a place. Equations (1)-(6) are derived in minigpt/ops/philox.py.

struct Words {
    unsigned word[4];
};

__device__ __forceinline__ Words philox4x32(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned long long seed)
{
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;     // (1)
        c0 = (unsigned)(p1 >> 32) ^ c1 ^ k0;                            // (2)
        c1 = (unsigned)p1;
        c2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned)p0;
        k0 += 0x9E3779B9u;                                              // (3)
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// The four words of the columns 4 block ... 4 block + 3 of a place: dropout keeps a column if its word is not below
// p 2^32, the threshold (6).
__device__ __forceinline__ Words words_of_place(unsigned long long seed, unsigned plane, unsigned row, unsigned block)
{
    return philox4x32(block, row, plane, 0, seed);                      // (5)
}
