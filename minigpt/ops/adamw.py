"""adamw: the update of the parameters (Loshchilov and Hutter 2019, Decoupled weight decay regularization).

A plain gradient step gives a parameter with a large gradient a large step. Adam divides by the gradient's usual size,
so each parameter moves about lr a step, in the direction in which its gradient has pointed lately. At step t = 1, 2...

    (1)  g = scale * gradient                  clipping: scale = min(1, max_norm / norm of the whole gradient)
    (2)  m = beta1 m + (1 - beta1) g           the usual direction: a mean that forgets
    (3)  v = beta2 v + (1 - beta2) g^2         the usual size, squared
    (4)  w = w - lr decay w                    weight decay, apart from the gradient ("decoupled")
    (5)  w = w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

m and v begin at 0 and are too small at first: a mean of t numbers and of zeros before them. The two brackets in (5)
are what is missing. w, m and v are changed in place: they are one flat block, or a slice of it. The norm in (1) is

    (6)  norm = sqrt(sum of gradient^2)        over the whole block: all parameters of the model
"""
import math

import numpy as np

from ..op import kernel


def adamw_step(w, gradient, m, v, *, step, lr, beta1, beta2, eps, decay, scale):
    """One update, in place, of parameters w and moments m and v, arrays (P,) of one float dtype."""
    g = gradient * scale                                                    # (1)
    m += (1 - beta1) * (g - m)                                              # (2)
    v += (1 - beta2) * (g * g - v)                                          # (3)
    w *= 1 - lr * decay                                                     # (4)
    w -= lr / (1 - beta1 ** step) * m / (np.sqrt(v * (1 / (1 - beta2 ** step))) + eps)      # (5)


def gradient_norm(gradient):
    """The Euclidean norm of a gradient (P,), as a float; inf or nan where the gradient is no number."""
    return math.sqrt(float(np.dot(gradient, gradient)))                     # (6)


def check(w, gradient, m, v, **constants):
    if not w.shape == gradient.shape == m.shape == v.shape or not w.dtype == gradient.dtype == m.dtype == v.dtype:
        raise ValueError(f"adamw_step: parameters {w.shape}, gradient {gradient.shape} and moments {m.shape}, {v.shape} "
                         "have to be of one shape and dtype")


adamw_step = kernel(adamw_step, check)
gradient_norm = kernel(gradient_norm)
