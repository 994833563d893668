"""philox: random numbers without a state, so that a mask need never be stored.

A usual generator makes its next number from its last one; what it gives depends on how often it was called. A
counter-based generator is a function: (seed, place) -> random bits. The forward pass asks for the bits of a place,
the backward pass asks again and gets the same, in any order, on any thread, in any split of the batch.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, Parallel random numbers: as easy as 1, 2, 3; equations of section 3)
turns a counter of four 32-bit words c and a key of two words k into four random words, by ten rounds of

    (1)  h0, l0 = high and low word of 0xD2511F53 * c0          h1, l1 = those of 0xCD9E8D57 * c2
    (2)  c = (h1 ^ c1 ^ k0,  l1,  h0 ^ c3 ^ k1,  l0)
    (3)  k = (k0 + 0x9E3779B9,  k1 + 0xBB67AE85)                mod 2^32, between rounds

A seed here is one 64-bit number, k0 its low word and k1 its high one; every sequence of a batch has its own.

    fold_in(seed, n)    a new seed from a seed and a number: how (seed, step, sequence, site) becomes one seed.    (4)
                        It is words 0 and 1 of the counter (n, 0, 0, 1).
    keep_mask           the places (plane, row, column) of a sequence that dropout keeps: each with probability
                        1 - p. The counter is (column div 4, row, plane, 0), the word of a place column mod 4,     (5)
                        and it is kept where its word is at least p 2^32.                                          (6)
"""
import numpy as np

from ..op import kernel

LOW = np.uint64(0xFFFFFFFF)


def philox4x32(c, key):
    """Four arrays of random words from a counter of four and a key of two; all of uint64 holding 32 bits, or integers."""
    c0, c1, c2, c3 = (np.uint64(word) if isinstance(word, int) else word for word in c)
    k0, k1 = (np.uint64(word) if isinstance(word, int) else word for word in key)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2     # (1)  each at most 64 bits
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & LOW, (p0 >> 32) ^ c3 ^ k1, p0 & LOW        # (2)
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & LOW, (k1 + np.uint64(0xBB67AE85)) & LOW        # (3)
    return c0, c1, c2, c3


def words_of(seeds):
    return seeds & LOW, seeds >> np.uint64(32)


def fold_in(seeds, *, n):
    """New seeds, an array of uint64 like `seeds`, from seeds and a number n of 0 ... 2^32 - 1."""
    w0, w1, _, _ = philox4x32((n, 0, 0, 1), words_of(seeds))
    return w0 | (w1 << np.uint64(32))                                       # (4)


def keep_mask(seeds, *, shape, p):
    """(B, planes, rows, columns) bools for B seeds and shape (planes, rows, columns); False with probability p."""
    planes, rows, columns = shape
    blocks = -(-columns // 4)
    block, row, plane = (np.arange(n, dtype=np.uint64, like=seeds) for n in (blocks, rows, planes))
    counter = block, row[:, None], plane[:, None, None], 0
    words = philox4x32(counter, words_of(seeds[:, None, None, None]))       # (5)  four of (B, planes, rows, blocks)
    words = np.stack(np.broadcast_arrays(*words), -1)
    words = words.reshape(len(seeds), planes, rows, 4 * blocks)[..., :columns]
    return words >= np.uint64(int(p * 2 ** 32))                             # (6)


def check_share(p):
    if not 0 <= p < 1:
        raise ValueError(f"dropout keeps a share 1 - p of the numbers: p is at least 0 and below 1, not {p}")


def check_seeds(seeds, *, n):
    if seeds.dtype != np.uint64 or not 0 <= n < 2 ** 32:
        raise ValueError(f"fold_in: seeds are of uint64 and n is in 0 ... 2^32 - 1, not {seeds.dtype} and {n}")


fold_in = kernel(fold_in, check_seeds)
