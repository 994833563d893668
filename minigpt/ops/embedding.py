"""embedding: row ids[n] of a table, for every n. How a token becomes a vector.

    (1)  y[n] = w[ids[n]]                      w (V, C); ids of integers, any shape  ->  y (..., C)

It is the product of a one-hot matrix with w, without the product. A row of w that was taken several times gets the
sum of the gradients of all places that took it:

    (2)  dw[v] = sum of dy[n] over all n with ids[n] = v

Saved: the ids. Raises IndexError where an id is outside 0 ... V-1 (NumPy would take a negative one from the end). On a
GPU, where looking at ids would mean to wait for all that was asked of it before, such a row becomes NaN instead.
"""
import numpy as np

from ..op import op


def embedding_forward(w, ids):
    return w[ids], (w, ids)                                                 # (1)  (..., C)


def embedding_backward(dy, saved):
    w, ids = saved
    dw = np.zeros_like(w)
    np.add.at(dw, ids, dy)                                                  # (2)  (V, C)
    return dw, None


def check(w, ids):
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: ids are integers, not {ids.dtype}")
    if isinstance(ids, np.ndarray) and ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < len(w):
        wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise IndexError(f"embedding: id {wrong} is outside the table's 0 ... {len(w) - 1}")


def examples(rng):
    yield (rng.normal(size=(5, 3)), np.array([4, 0, 4, 1])), {}
    yield (rng.normal(size=(7, 4)), rng.integers(7, size=(2, 6))), {}
    yield (rng.normal(size=(7, 4)), np.zeros((2, 0), np.int64)), {}


embedding = op(embedding_forward, embedding_backward, examples, check)
