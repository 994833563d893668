"""Kernels of ext/cuda/*.cu, which CuPy compiles when they are first used, if there is a GPU.

Importing this, or a chapter's launch code beside it, never imports CuPy: they work on arrays that somebody made with
it.
"""
import functools
import os

from . import launch


def available():
    """Whether the CUDA kernels run in this process."""
    return why_not() is None


def switched_off():
    """Whether the user wants NumPy alone."""
    return os.environ.get("MINIGPT_KERNELS") == "none"


@functools.cache
def why_not():
    """None where the kernels run, else what is missing and how to get it, as a clause."""
    if switched_off():
        return "switched off by MINIGPT_KERNELS=none"
    try:
        import cupy
    except ModuleNotFoundError as error:
        return f"the package {error.name} is not installed: pip install 'minigpt[cuda]'"
    except ImportError as error:
        return f"CuPy is installed, but can't be imported ({error}): pip install --force-reinstall 'minigpt[cuda]'"
    return missing_device(cupy.cuda.runtime)


def missing_device(runtime):
    """The clause for a machine without a driver or without a GPU, asked of `runtime`, cupy.cuda.runtime."""
    if runtime.driverGetVersion() == 0:
        return ("there is no NVIDIA driver: install the one that your system or NVIDIA offers for your GPU; "
                "the command nvidia-smi works once it is there")
    try:
        number = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "InsufficientDriver" in str(error):
            return f"the NVIDIA driver is too old for this CuPy ({error}): install a newer driver"
        number = 0
    if number == 0:
        return "the NVIDIA driver sees no GPU: nvidia-smi lists what it sees; CUDA_VISIBLE_DEVICES may hide one"


def names():
    """The chapters that have CUDA kernels."""
    return sorted(path.stem for path in launch.SOURCES.glob("*.cu"))


def status():
    """What runs, as one clause for a program's first lines."""
    reason = why_not()
    if reason is not None:
        return f"none: {reason}"
    import cupy
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    return f"{name}, CuPy {cupy.__version__} ({len(names())} kernels)"
