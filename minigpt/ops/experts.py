"""experts: many MLPs, of which each row takes one (Fedus, Zoph and Shazeer 2021, Switch Transformers).

A model with E times the parameters would cost E times the work, if every row went through all of them. Here each row n is
sent to one expert, choice[n], and what comes back is scaled by gate[n]. Parameters grow, the work of a row does not.

x (..., C) as N rows; gate (...); w1 (E, C, F), w2 (E, F, O); choice (...), integers in 0 ... E-1  ->  y (..., O)

    (1)  R_e = the rows n with choice[n] = e, in order; with a capacity K only the first K of them
    (2)  u   = mlp(x[R_e]) with w1[e] and w2[e]             (|R_e|, O): minigpt/ops/mlp.py, without shifts
    (3)  y[R_e] = gate[R_e] u,    and y[n] = 0 where n is in no R_e

A capacity bounds what an expert has to do, and with it the time of a step where experts work side by side: rows that come
too late are passed over. A block adds y to its stream, so that such a row goes on as it was.

Backward. Each row entered one expert only, so every R_e is a problem of its own:

    (4)  dgate[R_e] = sum over a row of dy[R_e] u           0 for rows that were passed over
    (5)  du         = gate[R_e] dy[R_e]
    (6)  dx[R_e], dw1[e], dw2[e] from du by mlp's backward  dx = 0 for rows that were passed over

The choice itself has no gradient: it jumps. What teaches the router is (4): the gate is the probability of the choice, and
rises where the expert's answer helped (models/switch.py).
Saved: what mlp saves for each expert, and u. Cost: that of one MLP over the rows that were not passed over.
"""
import numpy as np

from ..op import op
from .mlp import mlp_backward, mlp_forward


def rows_of(choice, E, capacity):
    """R_e for every expert: arrays of row numbers (1)."""
    return [np.nonzero(choice == e)[0][:capacity] for e in range(E)]


def experts_forward(x, gate, w1, w2, choice, *, capacity=None, activation="gelu"):
    rows, gates = x.reshape(-1, x.shape[-1]), gate.reshape(-1)              # (N, C), (N,)
    y = np.zeros_like(x, shape=(len(rows), w2.shape[2]))
    taken = rows_of(choice.reshape(-1), len(w1), capacity)                  # (1)
    kept = []
    for e, R in enumerate(taken):
        u, of_mlp = mlp_forward(rows[R], w1[e], None, w2[e], None, activation=activation)
        y[R] = gates[R][:, None] * u                                        # (2) (3)  (|R_e|, O)
        kept.append((u, of_mlp))
    return y.reshape(*x.shape[:-1], y.shape[-1]), (x.shape, gate, taken, kept, w1, w2)


def experts_backward(dy, saved):
    shape, gate, taken, kept, w1, w2 = saved
    dy, gates = dy.reshape(-1, dy.shape[-1]), gate.reshape(-1)
    dx, dgate = np.zeros_like(dy, shape=(len(dy), shape[-1])), np.zeros_like(gates)
    dw1, dw2 = np.zeros_like(w1), np.zeros_like(w2)
    for e, (R, (u, of_mlp)) in enumerate(zip(taken, kept)):
        dgate[R] = (dy[R] * u).sum(-1)                                      # (4)  (|R_e|,)
        du = gates[R][:, None] * dy[R]                                      # (5)  (|R_e|, O)
        dx[R], dw1[e], _, dw2[e], *_ = mlp_backward(du, of_mlp)              # (6)
    return dx.reshape(shape), dgate.reshape(gate.shape), dw1, dw2, None


def check(x, gate, w1, w2, choice, *, capacity=None, activation="gelu"):
    E, C, F = w1.shape
    if x.shape[-1] != C or w2.shape[:2] != (E, F) or 0 in w1.shape + w2.shape:
        raise ValueError(f"experts: rows of {x.shape[-1]} numbers and matrices {w1.shape} and {w2.shape} do not fit "
                         "together")
    if gate.shape != x.shape[:-1] or choice.shape != gate.shape or choice.dtype.kind not in "iu":
        raise ValueError(f"experts: rows {x.shape[:-1]} need as many gates and integer choices, not {gate.shape} and "
                         f"{choice.dtype} of {choice.shape}")
    if isinstance(choice, np.ndarray) and choice.size and not 0 <= choice.min() <= choice.max() < E:
        raise IndexError(f"experts: a choice outside 0 ... {E - 1}")
    if capacity is not None and capacity < 1:
        raise ValueError(f"experts: a capacity of {capacity} leaves nothing to do")


def examples(rng):
    def some(shape, E, C, F, O):
        return (rng.normal(size=(*shape, C)), rng.uniform(0.2, 1, size=shape), rng.normal(size=(E, C, F)),
                rng.normal(size=(E, F, O)), rng.integers(E, size=shape))

    yield some((2, 7), 3, 4, 6, 5), {}
    yield some((11,), 2, 3, 8, 4), {"capacity": 4}
    yield some((3, 5), 9, 2, 5, 3), {"activation": "relu_squared", "capacity": 3}
    yield some((230,), 2, 3, 4, 3), {"activation": "relu_squared"}


experts = op(experts_forward, experts_backward, examples, check)
