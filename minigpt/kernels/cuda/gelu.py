"""gelu on a GPU: launches ext/cuda/gelu.cu."""
from .launch import launch_each


def gelu_forward(x, *, approximate=True):
    return launch_each("gelu", "gelu_forward", x, int(approximate)), (x, approximate)


def gelu_backward(dy, saved):
    x, approximate = saved
    return (launch_each("gelu", "gelu_backward", dy, x, int(approximate)),)
