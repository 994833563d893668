"""matmul: matrix product, y[t, s] = sum over k of a[t, k] b[k, s], for one pair of matrices or a batch of pairs.

    (1)  y = a b                     a (..., T, K), b (..., K, S)  ->  y (..., T, S); leading axes broadcast

The number a[t, k] enters y[t, s] times b[k, s], for every s. By the chain rule, and likewise for b,

         da[t, k] = sum over s of dy[t, s] b[k, s]
    (2)  da = dy b^T
    (3)  db = a^T dy

and where a leading axis was broadcast, the sum over its copies is taken (elementwise.py, equation 11).
Saved: a and b. Cost: 2 T K S floating point operations forward, twice that backward.
"""
from ..op import op
from ..tensor import Tensor
from .elementwise import unbroadcast


def matmul_forward(a, b):
    return a @ b, (a, b)                                                    # (1)  (..., T, S)


def matmul_backward(dy, saved):
    a, b = saved
    da = dy @ b.swapaxes(-1, -2)                                            # (2)  (..., T, K)
    db = a.swapaxes(-1, -2) @ dy                                            # (3)  (..., K, S)
    return unbroadcast(da, a.shape), unbroadcast(db, b.shape)


def check(a, b):
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError(f"matmul: multiplies matrices (..., T, K) and (..., K, S), not {a.shape} and {b.shape}")


def examples(rng):
    yield (rng.normal(size=(3, 4)), rng.normal(size=(4, 5))), {}
    yield (rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 5))), {}
    yield (rng.normal(size=(2, 1, 3, 4)), rng.normal(size=(5, 4, 6))), {}


matmul = op(matmul_forward, matmul_backward, examples, check)

Tensor.__matmul__ = matmul
Tensor.__rmatmul__ = lambda b, a: matmul(a, b)
