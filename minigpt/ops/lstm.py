"""lstm: a state with a memory beside it, which only changes where gates open (Hochreiter and Schmidhuber 1997, Long
short-term memory; the forget gate is that of Gers, Schmidhuber and Cummins 2000).

a (B, T, 4 C): what goes into the input gate i (write), the forget gate f (keep), the output gate o (show) and the
candidate g (the news), side by side, each already multiplied by its matrix (ops/linear.py); state (B, 2 C): the hidden
state h and the cell state c (the memory) before the first step; u (C, 4 C)  ->  y (B, T, 2 C): h and c after each step.

    (1)  z_t = a_t + h_(t-1) u                        (B, 4 C)
    (2)  i, f, o = sigmoid(z),  g = tanh(z)           each of its own C numbers of z
    (3)  c_t = f c_(t-1) + i g                        the memory: kept by f, written to by i
    (4)  h_t = o tanh(c_t)                            what is shown of it

Backward, from the last step to the first. dh_t and dc_t are what comes from outside, the two halves of dy_t; s is the whole
gradient by h_t, r by c_t, m = tanh(c_t):

    (5)  s   = dh_t + dz_(t+1) u^T                    after the last step there is no next
    (6)  r   = dc_t + s o (1 - m^2) + f_(t+1) r_(t+1)       by (4) and by (3) of the next step
    (7)  di  = r g i (1 - i),   df = r c_(t-1) f (1 - f),   do = s m o (1 - o),   dg = r i (1 - g^2)    by (3), (4), (2)
    (8)  da_t = dz_t = (di, df, do, dg)               so these are the gradients by the four parts of z, side by side
    (9)  the first state's gradient: dh = dz_0 u^T,  dc = f_0 r_0
    (10) du  = sum over t of h_(t-1)^T dz_t           one matrix product over all B T rows

The last term of (6) is why it works: along the memory a gradient goes back n steps multiplied by n forget gates only,
no matrix and no tanh between, and a gate can stay open. That is what the RNN's state can't offer (ops/rnn.py).
Saved: u, state, the gates and y. Cost: 8 B T C^2 operations forward, twice that backward, in T products one after the
other.
"""
import numpy as np

from ..op import op
from .elementwise import sigmoid_forward
from .rnn import before


def quarters(z):
    """The four parts of the last axis, of C numbers each."""
    C = z.shape[-1] // 4
    return z[..., :C], z[..., C:2 * C], z[..., 2 * C:3 * C], z[..., 3 * C:]


def lstm_forward(a, state, u):
    C, y, gates = len(u), np.zeros_like(a, shape=(*a.shape[:2], 2 * len(u))), np.zeros_like(a)
    h, c = state[:, :C], state[:, C:]
    for t in range(a.shape[1]):
        z = a[:, t] + h @ u                                                 # (1)  (B, 4 C)
        i, f, o = (sigmoid_forward(part)[0] for part in quarters(z)[:3])    # (2)  (B, C)
        g = np.tanh(quarters(z)[3])                                         # (2)
        c = f * c + i * g                                                   # (3)
        h = o * np.tanh(c)                                                  # (4)
        gates[:, t], y[:, t] = np.concatenate([i, f, o, g], 1), np.concatenate([h, c], 1)
    return y, (state, u, gates, y)


def lstm_backward(dy, saved):
    state, u, gates, y = saved
    C, dz, old = len(u), np.zeros_like(gates), before(state, y)             # old (B, T, 2 C): h and c of the step before
    back_h, back_c = np.zeros_like(state[:, :C]), np.zeros_like(state[:, :C])
    for t in range(y.shape[1] - 1, -1, -1):
        i, f, o, g = quarters(gates[:, t])
        m = np.tanh(y[:, t, C:])                                            # (B, C)
        s = dy[:, t, :C] + back_h                                           # (5)
        r = dy[:, t, C:] + s * o * (1 - m * m) + back_c                     # (6)
        di, df = r * g * i * (1 - i), r * old[:, t, C:] * f * (1 - f)       # (7)
        do, dg = s * m * o * (1 - o), r * i * (1 - g * g)                   # (7)
        dz[:, t] = np.concatenate([di, df, do, dg], 1)                      # (8)
        back_h, back_c = dz[:, t] @ u.T, f * r                              # (5) (6); (9) after the first step
    du = old[:, :, :C].reshape(-1, C).T @ dz.reshape(-1, 4 * C)             # (10)
    return dz, np.concatenate([back_h, back_c], 1), du


def check(a, state, u):
    B, T, C4 = a.shape
    if C4 % 4 or state.shape != (B, C4 // 2) or u.shape != (C4 // 4, C4) or 0 in a.shape:
        raise ValueError(f"lstm: inputs {a.shape}, a first state {state.shape} and a matrix {u.shape} do not fit together: "
                         "they are (B, T, 4 C), (B, 2 C) and (C, 4 C), with at least one step")


def examples(rng):
    for B, T, C in (2, 5, 3), (13, 4, 7), (1, 3, 34), (3, 1, 6):
        yield (rng.normal(size=(B, T, 4 * C)), rng.normal(size=(B, 2 * C)), rng.normal(size=(C, 4 * C)) / C ** 0.5), {}


lstm = op(lstm_forward, lstm_backward, examples, check)
