"""Where a model lives: in the memory of this machine, in arrays of NumPy's, or on a GPU, in arrays of CuPy's.

Only the arrays know. Whatever makes one makes it like another that is there (np.zeros_like(x), np.arange(n, like=x)),
and op() picks what runs by the arrays it is handed. So a model is moved by moving the one block that holds all its
parameters, and the rest follows: gradients, the optimizer's moments, the key/value cache. What then still crosses:

    np.asarray(x, like=flat.data)   to where the parameters are: a batch, dropout's seeds (NumPy's own way; on a CPU
                                    it copies nothing)
    on_host(x)                      and back: logits to draw a token from, what a checkpoint keeps

CuPy is imported when a GPU is asked for, and not before.
"""
import os

import numpy as np

from .kernels import cpu, cuda
from .settings import UserError

TF32_SINCE = 80                     # compute capability 8.0, Ampere: the first GPUs that have TF32


def prepare(device, precision="float32", processes=1):
    """See to it that there is such a device, "cpu" or "cuda", and how its matrix products round; else a UserError.

    precision "tf32" has a GPU take the factors of products of float32 with 10 bits of mantissa, of 23, and add up in
    float32. Whether it rounds them or cuts them off, each is off by 2^-10 of itself at most, and a product by 2^-9 of the
    sum of its terms' magnitudes. CuPy reads this choice at the first product that a process makes, and keeps to it.
    """
    if device == "cpu":
        return
    if processes > 1:
        raise UserError(f"{processes} processes can't work on GPUs together: start without mpiexec, or leave --device cuda "
                        "out")
    reason = cuda.why_not()
    if reason is not None:
        raise UserError(f"--device cuda needs an NVIDIA GPU, and can't use one here: {reason}; or leave --device cuda "
                        "out")
    if precision == "tf32" and int(gpu().compute_capability) < TF32_SINCE:
        raise UserError("this GPU has no TF32, which came with compute capability 8.0: leave --precision tf32 out")
    os.environ["CUPY_TF32"] = str(int(precision == "tf32"))


def move(model, device):
    """Move the model's parameters to the device, which prepare() has found, and return the model."""
    if device == "cuda":
        if model.quantized is not None:
            raise UserError(f"a model of {model.quantized.kind} runs on a CPU only: leave --device cuda out")
        import cupy
        model.flat.move(cupy.asarray)
    return model


def on_host(array):
    """The array as one of NumPy's: itself, or a copy from a GPU, for which the host waits."""
    return array if isinstance(array, np.ndarray) else array.get()


def wait(device):
    """Wait until the device has done all that it was asked to do; the time that a clock on the host shows means nothing
    before. The CPU has done it when a call returns."""
    if device == "cuda":
        gpu().synchronize()


def status(device):
    """What runs a model there, as one clause for a program's first lines."""
    return cpu.status() if device == "cpu" else cuda.status()


def gpu():
    """CuPy's Device that is in use."""
    import cupy
    return cupy.cuda.Device()
