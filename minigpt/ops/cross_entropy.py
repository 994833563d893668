"""cross_entropy: the loss of a language model: how surprised was it by the token that came?

For N rows of logits x (N, V) and the true tokens t (N,), in nats, fused with softmax:

    (1)  l_n  = log of sum over v of exp(x[n, v])                       the row's log-sum-exp
    (2)  loss = sum over n of (l_n - x[n, t_n]) / total                 -log of the probability given to t_n

A row whose target is ignore_index counts for nothing (padding, a prompt). total is the number of rows that count,
unless it is given: a step that is split into micro-batches divides each by the tokens of the whole step, so that
their sum is the mean over the step, whatever the split.

    (3)  dx[n, v] = dy (p[n, v] - (v = t_n)) / total,      p = exp(x - l)     by (1): dl_n / dx[n, v] = p[n, v]

In words: push each probability towards what happened, in proportion to the miss.
Saved: the logits and one number a row. Cost: two exponentials a logit.
Raises IndexError for a target outside 0 ... V-1 that is not ignore_index. On a GPU, where looking at targets would
mean to wait for it, the loss becomes NaN instead.
"""
import numpy as np

from ..op import op
from .softmax import log_sum_exp


def cross_entropy_forward(logits, targets, *, ignore_index=-1, total=None):
    x, t = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)        # (N, V), (N,)
    counted = np.nonzero(t != ignore_index)[0]                              # rows that count
    t = t[counted]
    total = float(max(t.size, 1) if total is None else total)
    l = log_sum_exp(x)                                                      # (1)  (N, 1)
    loss = (l[counted, 0] - x[counted, t]).sum(dtype=np.float64) / total    # (2)  in float64: the sum is long
    return loss.astype(x.dtype), (logits, l, counted, t, total)


def cross_entropy_backward(dy, saved):
    logits, l, counted, t, total = saved
    x = logits.reshape(-1, logits.shape[-1])
    dx = np.zeros_like(x)
    dx[counted] = np.exp(x[counted] - l[counted])                           # (3)  p
    dx[counted, t] -= 1                                                     # (3)  - (v = t_n)
    return (dx * (dy / total)).reshape(logits.shape), None                  # (3)


def check(logits, targets, *, ignore_index=-1, total=None):
    V = logits.shape[-1]
    if targets.shape != logits.shape[:-1] or targets.dtype.kind not in "iu":
        raise ValueError(f"cross_entropy: logits of shape {logits.shape} need integer targets of {logits.shape[:-1]}, "
                         f"not {targets.dtype} of {targets.shape}")
    if not isinstance(targets, np.ndarray):
        return
    outside = (targets < 0) | (targets >= V)
    if outside.any() and (targets[outside] != ignore_index).any():
        raise IndexError(f"cross_entropy: a target outside 0 ... {V - 1} (ignore_index is {ignore_index})")


def examples(rng):
    yield (2 * rng.normal(size=(4, 7)), rng.integers(7, size=4)), {}
    yield (2 * rng.normal(size=(2, 3, 5)), np.array([[0, -1, 4], [-1, 2, 2]])), {}
    yield (2 * rng.normal(size=(3, 6)), np.array([5, 9, 0])), {"ignore_index": 9, "total": 11}


cross_entropy = op(cross_entropy_forward, cross_entropy_backward, examples, check)
