"""Sum and mean over axes.

    (1)  sum     y = sum of x over the axes             every x entered y once:   dx = dy, copied along the axes
    (2)  mean    y = sum / n, n numbers to each sum     every x entered as x/n:   dx = dy / n, copied likewise

axis: None (all axes), an integer or a tuple of them. keepdims=True keeps them with size 1.
"""
import numpy as np

from ..op import op
from ..tensor import Tensor


def copy_back(dy, shape, axis):
    """dy, the gradient of a reduction of an array of `shape`, copied along the axes that were summed away."""
    axes = range(len(shape)) if axis is None else [a % len(shape) for a in np.atleast_1d(axis).tolist()]
    kept = tuple(1 if i in axes else size for i, size in enumerate(shape))
    return np.broadcast_to(dy.reshape(kept), shape)


def sum_forward(x, *, axis=None, keepdims=False):
    return x.sum(axis, keepdims=keepdims, dtype=x.dtype), (x.shape, axis)   # (1)


def sum_backward(dy, saved):
    shape, axis = saved
    return (copy_back(dy, shape, axis),)                                    # (1)


def mean_forward(x, *, axis=None, keepdims=False):
    return x.mean(axis, keepdims=keepdims, dtype=x.dtype), (x.shape, axis)  # (2)


def mean_backward(dy, saved):
    shape, axis = saved
    dx = copy_back(dy, shape, axis)
    n = dx.size // dy.size
    return (dx / n,)                                                        # (2)


def examples(rng):
    yield (rng.normal(size=(3, 4)),), {}
    yield (rng.normal(size=(2, 3, 4)),), {"axis": 1}
    yield (rng.normal(size=(2, 3, 4)),), {"axis": (0, -1), "keepdims": True}


sum = op(sum_forward, sum_backward, examples)
mean = op(mean_forward, mean_backward, examples)

Tensor.sum = lambda x, axis=None, keepdims=False: sum(x, axis=axis, keepdims=keepdims)
Tensor.mean = lambda x, axis=None, keepdims=False: mean(x, axis=axis, keepdims=keepdims)
