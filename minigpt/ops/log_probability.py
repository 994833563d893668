"""log_probability and entropy: what a model gives to the tokens that it chose, and how open its choice was.

A reply is scored as a whole, and then every choice that led to it is made likelier or less likely. What is needed for
that is not the mean surprise of cross_entropy, but one number for each token. For rows of logits x (..., V) and the
tokens t (...) that were chosen, in nats:

    (1)  l_n = log of sum over v of exp(x[n, v])                        the row's log-sum-exp
    (2)  y_n = x[n, t_n] - l_n                                          the log-probability of t_n: never above 0
    (3)  dx[n, v] = dy_n ((v = t_n) - p[n, v]),   p = exp(x - l)        as dl_n / dx[n, v] = p[n, v]

The entropy of a row is its mean surprise at its own choices: 0 where one token is sure, log V where all are alike.
With z = x - l, the log-probabilities of all tokens:

    (4)  h_n = - sum over v of p[n, v] z[n, v]                          never below 0, as no z is above 0

    By dz_i / dx_j = (i = j) - p_j and dp_i / dx_j = p_i ((i = j) - p_j), and with sum of p = 1,

         dh / dx_j = - sum over i of (z_i + 1) p_i ((i = j) - p_j)
                   = - p_j (z_j + 1) + p_j sum over i of p_i (z_i + 1)
                   = - p_j (z_j + 1) + p_j (1 - h)
    (5)  dx[n, j]  = - dh_n p[n, j] (z[n, j] + h_n)

In words: entropy grows by raising what is rarer than usual, z_j < -h, and lowering what is more frequent.
A token of probability 0, logit -inf, adds nothing to (4) and gets nothing by (5).

Saved: the logits and one or two numbers a row. Cost: two exponentials a logit. Raises IndexError for a token outside
0 ... V-1.
"""
import numpy as np

from ..op import op
from .softmax import log_sum_exp


def log_probability_forward(logits, ids):
    x, t = logits.reshape(-1, logits.shape[-1]), ids.reshape(-1)            # (N, V), (N,)
    l = log_sum_exp(x)                                                      # (1)  (N, 1)
    y = x[np.arange(t.size, like=t), t] - l[:, 0]                           # (2)  (N,)
    return y.reshape(ids.shape), (logits, l, t)


def log_probability_backward(dy, saved):
    logits, l, t = saved
    x, dy = logits.reshape(-1, logits.shape[-1]), dy.reshape(-1, 1)         # (N, V), (N, 1)
    dx = -dy * np.exp(x - l)                                                # (3)  - p
    dx[np.arange(t.size, like=t), t] += dy[:, 0]                            # (3)  (v = t_n)
    return dx.reshape(logits.shape), None


def entropy_forward(logits):
    z = logits - log_sum_exp(logits)                                        # (1)  (..., V)
    h = -weighted(z).sum(-1)                                                # (4)  (...)
    return h, (z, h)


def entropy_backward(dh, saved):
    z, h = saved
    p = np.exp(z)
    return (-dh[..., None] * (weighted(z) + p * h[..., None]),)             # (5)  (..., V)


def weighted(z):
    """p z for z = log p, which is 0 where p is."""
    return np.exp(z) * np.where(z == -np.inf, 0.0 * np.ones_like(z), z)


def check(logits, ids):
    V = logits.shape[-1]
    if ids.shape != logits.shape[:-1] or ids.dtype.kind not in "iu":
        raise ValueError(f"log_probability: logits of shape {logits.shape} need integer ids of {logits.shape[:-1]}, not "
                         f"{ids.dtype} of {ids.shape}")
    if isinstance(ids, np.ndarray) and ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < V:
        raise IndexError(f"log_probability: a token outside 0 ... {V - 1}")


def examples(rng):
    yield (2 * rng.normal(size=(4, 7)), rng.integers(7, size=4)), {}
    yield (2 * rng.normal(size=(2, 3, 5)), np.array([[0, 1, 4], [1, 2, 2]])), {}


def entropy_examples(rng):
    for shape in (5,), (4, 7), (2, 3, 6):
        yield (2 * rng.normal(size=shape),), {}


log_probability = op(log_probability_forward, log_probability_backward, examples, check)
entropy = op(entropy_forward, entropy_backward, entropy_examples)
