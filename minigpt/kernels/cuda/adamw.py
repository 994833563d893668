"""adamw on a GPU: launches ext/cuda/adamw.cu."""
import math

import numpy as np

from .launch import PARTS, THREADS, blocks, launch


def adamw_step(w, gradient, m, v, *, step, lr, beta1, beta2, eps, decay, scale):
    launch("adamw", "adamw_step", blocks(w.size), THREADS, w, gradient, m, v, w.size, scale, 1 - beta1, 1 - beta2,
           1 - lr * decay, lr / (1 - beta1 ** step), 1 / (1 - beta2 ** step), eps)


def gradient_norm(gradient):
    parts = np.zeros(min(blocks(gradient.size), PARTS), gradient.dtype, like=gradient)
    launch("adamw", "sums_of_squares", parts.size, THREADS, gradient, parts, gradient.size)
    return math.sqrt(float(parts.sum(dtype=np.float64)))                    # (6)
