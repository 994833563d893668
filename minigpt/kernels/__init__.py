"""The fast versions of operations. They import nothing of ours: an operation asks for them by name (op.py)."""
import importlib
import importlib.util

from . import cpu, cuda

BACKENDS = "cpu", "cuda"


def load(backend, chapter):
    """The module minigpt.kernels.BACKEND.CHAPTER, or None where there is none or its backend can't run here.

    CUDA's launch code is Python and loads everywhere: who has arrays on a GPU can run it. A kernel that is there but
    fails to import is an error, never a silent slow path.
    """
    if not (cpu.available() if backend == "cpu" else not cuda.switched_off()):
        return None
    name = f"{__name__}.{backend}.{chapter}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None
