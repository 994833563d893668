"""softmax and log_softmax on a GPU: launches ext/cuda/softmax.cu."""
import numpy as np

from .launch import launch, row_threads


def by_rows(kernel, *inputs):
    """What the kernel makes of the rows of its inputs, arrays of one shape: another one of that shape."""
    y, S = np.empty_like(inputs[0]), inputs[0].shape[-1]
    launch("softmax", kernel, y.size // max(S, 1), row_threads(S), *inputs, y, S)
    return y


def softmax_forward(x):
    p = by_rows("softmax_forward", x)
    return p, p


def softmax_backward(dp, p):
    return (by_rows("softmax_backward", dp, p),)


def log_softmax_forward(x):
    y = by_rows("log_softmax_forward", x)
    return y, y


def log_softmax_backward(dy, y):
    return (by_rows("log_softmax_backward", dy, y),)
