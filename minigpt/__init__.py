"""minigpt: the whole of ChatGPT in miniature, in NumPy and Cython, to be read as a textbook."""
from . import ops
from .op import use
from .tensor import Tensor, no_grad, recompute

__version__ = "0.1.0"
__all__ = ["Tensor", "no_grad", "ops", "recompute", "use"]
