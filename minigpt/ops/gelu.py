"""GELU: the activation of GPT and BERT, a smooth relative of ReLU (Hendrycks and Gimpel 2016).

A number x passes in the measure in which it is large: it is multiplied by the probability that a standard normal
number is below it, phi(x).

    (1)  y  = x phi(x),              phi(x) = (1 + erf(x / sqrt 2)) / 2
    (2)  dx = dy (phi(x) + x phi'(x)),     phi'(x) = exp(-x^2 / 2) / sqrt(2 pi)

GPT-2 uses an approximation of phi by tanh (approximate=True). As (1 + tanh u) / 2 = sigmoid(2u), it is a sigmoid:

    (3)  phi(x) ~ s = sigmoid(2u),   u = sqrt(2 / pi) (x + 0.044715 x^3)
    (4)  phi'(x) ~ s (1 - s) 2 u',   u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)

NumPy has no erf. It is summed here from a series whose terms are all positive, so that nothing cancels:

    (5)  erf(z) = 2 z exp(-z^2) / sqrt(pi) * (1 + 2z^2/3 (1 + 2z^2/5 (1 + 2z^2/7 (...))))

For |z| < 6 a hundred and twenty terms reach the last digit of a float64, and beyond that erf is +-1 to that digit.
Saved: x. The backward pass recomputes phi, which costs less than reading it from memory.
"""
import numpy as np

from ..op import op

ROOT_2_OVER_PI = (2 / np.pi) ** 0.5


def erf(z):
    z = np.clip(z, -6, 6)
    series = np.ones_like(z)
    for n in range(241, 1, -2):
        series = 1 + 2 / n * z * z * series                                 # (5), from the innermost bracket out
    return 2 / np.pi ** 0.5 * z * np.exp(-z * z) * series                   # (5)


def sigmoid_of_2u(x):
    u = ROOT_2_OVER_PI * (x + 0.044715 * x * x * x)                         # (3)
    return 0.5 + 0.5 * np.tanh(u)                                           # (3)


def gelu_forward(x, *, approximate=True):
    phi = sigmoid_of_2u(x) if approximate else 0.5 + 0.5 * erf(x * 0.5 ** 0.5)
    return x * phi, (x, approximate)                                        # (1)


def gelu_backward(dy, saved):
    x, approximate = saved
    if approximate:
        phi = sigmoid_of_2u(x)                                              # (3)
        slope = phi * (1 - phi) * 2 * ROOT_2_OVER_PI * (1 + 3 * 0.044715 * x * x)      # (4)
    else:
        phi = 0.5 + 0.5 * erf(x * 0.5 ** 0.5)                               # (1)
        slope = np.exp(-0.5 * x * x) / (2 * np.pi) ** 0.5                  # (2)
    return (dy * (phi + x * slope),)                                        # (2)


def examples(rng):
    for approximate in True, False:
        yield (2 * rng.normal(size=(3, 5)),), {"approximate": approximate}
        yield (np.array([-20.0, -5.0, -1.0, 0.0, 1.0, 5.0, 20.0]),), {"approximate": approximate}


gelu = op(gelu_forward, gelu_backward, examples)
