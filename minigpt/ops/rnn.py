"""rnn: a state that is handed from step to step (Elman 1990, Finding structure in time).

All that the layer knows of the past is C numbers, h. At each step they are mixed by one matrix, the step's own input is
added, and tanh keeps the sum in bounds. a (B, T, C) is the input, already multiplied by its matrix (ops/linear.py: for all
steps at once); h (B, C) is the state before the first step; u (C, C)  ->  y (B, T, C), the state after each step:

    (1)  y_t = tanh(a_t + y_(t-1) u),      y_(-1) = h

Backward "through time": unrolled, this is a network of T layers that share one matrix. y_t is used twice, outside,
where dy_t comes from, and by the next step. With z_t the sum in the brackets and dz_t the gradient by it, from the last
step to the first:

    (2)  s_t    = dy_t + dz_(t+1) u^T               the whole gradient by y_t; after the last step there is no next
    (3)  dz_t   = s_t (1 - y_t^2)                   by tanh, and da_t = dz_t
    (4)  dh     = dz_0 u^T
    (5)  du     = sum over t of y_(t-1)^T dz_t      one matrix product over all B T rows

By (2) and (3) a gradient that goes back n steps is multiplied by u^T and by 1 - y^2 n times. If these shrink it, it is
gone after a few steps, and nothing is learnt from what was long ago; if they stretch it, it explodes (Bengio, Simard
and Frasconi 1994). The LSTM is the remedy (ops/lstm.py). And steps can't be taken side by side: each needs the one
before.
Saved: u, h and y. Cost: 2 B T C^2 operations forward, twice that backward, in T products one after the other.
"""
import numpy as np

from ..op import op


def before(first, y):
    """What each step began with, (B, T, C): `first` (B, C), then y of the step before."""
    return np.concatenate([first[:, None], y[:, :-1]], 1)


def rnn_forward(a, h, u):
    y = np.zeros_like(a)
    state = h                                                               # (B, C)
    for t in range(a.shape[1]):
        state = np.tanh(a[:, t] + state @ u)                                # (1)  (B, C)
        y[:, t] = state
    return y, (h, u, y)


def rnn_backward(dy, saved):
    h, u, y = saved
    dz = np.zeros_like(y)
    back = np.zeros_like(h)                                                 # dz_(t+1) u^T  (B, C)
    for t in range(y.shape[1] - 1, -1, -1):
        dz[:, t] = (dy[:, t] + back) * (1 - y[:, t] * y[:, t])              # (2) (3)
        back = dz[:, t] @ u.T                                               # (2); (4) after the first step
    C = len(u)
    du = before(h, y).reshape(-1, C).T @ dz.reshape(-1, C)                  # (5)
    return dz, back, du


def check(a, h, u):
    B, T, C = a.shape
    if h.shape != (B, C) or u.shape != (C, C) or 0 in a.shape:
        raise ValueError(f"rnn: inputs {a.shape}, a first state {h.shape} and a matrix {u.shape} do not fit together: they "
                         "are (B, T, C), (B, C) and (C, C), with at least one step")


def examples(rng):
    for B, T, C in (2, 5, 3), (13, 4, 7), (1, 3, 34), (3, 1, 6):
        yield (rng.normal(size=(B, T, C)), rng.normal(size=(B, C)), rng.normal(size=(C, C)) / C ** 0.5), {}


rnn = op(rnn_forward, rnn_backward, examples, check)
