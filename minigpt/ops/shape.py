"""Operations that move numbers without changing them: the gradient moves back along the same way.

    reshape        the same numbers in the same order in another shape      dx = dy in the old shape            (1)
    transpose      axes in another order: y's axis i is x's axis axes[i]    dx = dy with the axes put back      (2)
    getitem        y = x[index], index of integers, slices and None         dx = 0, except dx[index] = dy       (3)
    concatenate    arrays one after another along an axis                   each gets its own piece of dy       (4)

A view is a valid output, as nothing ever writes to an array that an operation got or gave.
"""
import numbers

import numpy as np

from ..op import op
from ..tensor import Tensor


def reshape_forward(x, *, shape):
    return x.reshape(shape), x.shape                                        # (1)


def reshape_backward(dy, shape):
    return (dy.reshape(shape),)                                             # (1)


def reshape_examples(rng):
    yield (rng.normal(size=(2, 3, 4)),), {"shape": (6, 4)}
    yield (rng.normal(size=(6, 5)),), {"shape": (2, -1)}


def transpose_forward(x, *, axes):
    return x.transpose(axes), axes                                          # (2)


def transpose_backward(dy, axes):
    back = [0] * len(axes)
    for i, axis in enumerate(axes):
        back[axis] = i
    return (dy.transpose(back),)                                            # (2)


def transpose_examples(rng):
    yield (rng.normal(size=(2, 3)),), {"axes": (1, 0)}
    yield (rng.normal(size=(2, 3, 4, 5)),), {"axes": (2, 0, 3, 1)}


def getitem_forward(x, *, index):
    return x[index], (x, index)                                             # (3)


def getitem_backward(dy, saved):
    x, index = saved
    dx = np.zeros_like(x)
    dx[index] = dy                                                          # (3)
    return (dx,)


def check_index(x, *, index):
    for part in index if isinstance(index, tuple) else (index,):
        if not (part is None or part is Ellipsis or isinstance(part, (numbers.Integral, slice))) or isinstance(part, bool):
            raise TypeError(f"a tensor is indexed by integers and slices, not by {type(part).__name__}; "
                            "embedding(x, ids) picks rows by an array of integers")


def getitem_examples(rng):
    yield (rng.normal(size=(4, 5)),), {"index": 2}
    yield (rng.normal(size=(4, 5, 3)),), {"index": (slice(1, 3), slice(None, None, 2))}
    yield (rng.normal(size=(4, 5)),), {"index": (Ellipsis, -1)}


def concatenate_forward(*arrays, axis=-1):
    ends = np.cumsum([x.shape[axis] for x in arrays]).tolist()
    return np.concatenate(arrays, axis), (ends[:-1], axis)                  # (4)


def concatenate_backward(dy, saved):
    ends, axis = saved
    return np.split(dy, ends, axis)                                         # (4)


def concatenate_examples(rng):
    yield (rng.normal(size=(2, 3)), rng.normal(size=(2, 4)), rng.normal(size=(2, 1))), {}
    yield (rng.normal(size=(3, 4)), rng.normal(size=(2, 4))), {"axis": 0}


reshape = op(reshape_forward, reshape_backward, reshape_examples)
transpose = op(transpose_forward, transpose_backward, transpose_examples)
getitem = op(getitem_forward, getitem_backward, getitem_examples, check_index)
concatenate = op(concatenate_forward, concatenate_backward, concatenate_examples)


Tensor.reshape = lambda x, *shape: reshape(x, shape=shape)
Tensor.transpose = lambda x, *axes: transpose(x, axes=axes)
Tensor.__getitem__ = lambda x, index: getitem(x, index=index)
