"""softmax and log_softmax: from any S numbers to S probabilities, along the last axis.

    (1)  p_i = exp(x_i) / sum over j of exp(x_j)

Adding a constant to a row changes nothing, so the row's maximum m is subtracted first, and exp can't overflow. A row
may hold -inf (a masked place): its probability is exactly 0.

    (2)  m = max of x,   e = exp(x - m)
    (3)  p = e / sum(e)                                   the same p
    (4)  log_softmax:  y = x - l,   l = m + log(sum(e))   l is the row's log-sum-exp

Backward. Raising x_j by a little raises p_j and takes from all in proportion:  dp_i/dx_j = p_i ((i = j) - p_j).  So

         dx_j = sum over i of dp_i p_i ((i = j) - p_j)
    (5)  dx = p * (dp - sum(p * dp))
    (6)  log_softmax:  dy_i/dx_j = (i = j) - p_j,  so  dx = dy - p * sum(dy)

Saved: the output. Cost: one exponential a number, forward; log_softmax takes one more backward.
"""
import numpy as np

from ..op import op


def log_sum_exp(x):
    m = x.max(-1, keepdims=True)                                            # (2)  (..., 1)
    return m + np.log(np.exp(x - m).sum(-1, keepdims=True))                 # (4)  (..., 1)


def softmax_forward(x):
    e = np.exp(x - x.max(-1, keepdims=True))                                # (2)  (..., S)
    p = e / e.sum(-1, keepdims=True)                                        # (3)  (..., S)
    return p, p


def softmax_backward(dp, p):
    return (p * (dp - (p * dp).sum(-1, keepdims=True)),)                    # (5)  (..., S)


def log_softmax_forward(x):
    y = x - log_sum_exp(x)                                                  # (4)  (..., S)
    return y, y


def log_softmax_backward(dy, y):
    return (dy - np.exp(y) * dy.sum(-1, keepdims=True),)                    # (6)  (..., S)


def examples(rng):
    for shape in (5,), (3, 7), (2, 4, 33):
        yield (3 * rng.normal(size=shape),), {}


softmax = op(softmax_forward, softmax_backward, examples)
log_softmax = op(log_softmax_forward, log_softmax_backward, examples)
