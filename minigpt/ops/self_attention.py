"""self_attention: the part of a block in which positions look at each other, in one operation: three linear layers say what
each position asks (q), answers to (k) and tells (v), attention mixes what is told, and a fourth layer writes the result.

    (1)  u = x                              x (B, T, C); or, where a scale (C,) is given: u = layer_norm(x, scale, shift)
    (2)  q = u wq + bq                      wq (C, E), bq (E,) or None  ->  q (B, T, H, D), E = H D
    (3)  k = u wk + bk,  v = u wv + bv      of the same shapes
    (4)  q = rotary(rms_norm(q)), k alike   where `turned`: by the chapters rms_norm, without a scale, and rotary
    (5)  a = attention(q, k, v)             (B, T, H, D), by the chapter attention, with mask, seeds, causal and dropout
    (6)  y = a wo + bo                      wo (E, O), bo (O,) or None  ->  y (B, T, O); with a scale, y = x + a wo + bo

With a scale it is a branch of a residual stream: it reads a normalised copy of the stream, and adds to it what it found.

Backward, from the end, by the same chapters:

    (7)  da  = dy wo^T            (8)  dwo = a^T dy               (9)  dbo = sum over positions of dy
    (10) dq, dk, dv               from da, by the chapter attention
    (11) dq, dk                   where `turned`: turned back, and what rms_norm's backward pass makes of that
    (12) du  = dq wq^T + dk wk^T + dv wv^T                        u was used three times
    (13) dwq = u^T dq             (14) dbq = sum over positions of dq, and k and v alike
    (15) dx  = du; or, of a branch, dy and what layer_norm's backward pass makes of du

(bk is there by custom. It adds one number to all scores of a query, which softmax ignores: where keys are not turned, its
gradient is zero.)

For (11) the q of (4) and the r of rms_norm are enough. With R the turn, q = R xhat, and xhat = R^T q. A turn changes no
product of two vectors, so mean(dxh xhat) of rms_norm's (6) is mean(dq q), and the gradient by what was normalised is

    r (R^T dq - xhat mean(dq q))  =  r R^T (dq - q mean(dq q))

As several operations it is the same, number by number. As one, a fast version takes a few sequences at a time through all of
it, so that u, q, k, v, a and their gradients are used while they are in the cache.
Saved: x, the matrices, q, k, v, a and l of attention, and r. Cost: what its parts cost.
"""
import numpy as np

from ..op import op
from .attention import attention_backward, attention_forward, check_options
from .layer_norm import check_branch, layer_norm_backward, layer_norm_forward
from .linear import linear_backward, linear_forward
from .rms_norm import rms_norm_backward, rms_norm_forward
from .rotary import rotary_backward, rotary_forward


def self_attention_forward(x, wq, bq, wk, bk, wv, bv, wo, bo, mask=None, seeds=None, scale=None, shift=None, *, heads,
                           turned=False, causal=True, dropout=0.0, eps=1e-5):
    B, T, _ = x.shape
    u, of_norm = (x, None) if scale is None else layer_norm_forward(x, scale, shift, eps=eps)   # (1)  (B, T, C)
    layers = (wq, bq), (wk, bk), (wv, bv)
    q, k, v = (linear_forward(u, w, b)[0].reshape(B, T, heads, -1) for w, b in layers)          # (2) (3)  (B, T, H, D)
    (q, of_q), (k, of_k) = (normed_and_turned(z) if turned else (z, None) for z in (q, k))      # (4)  (B, T, H, D)
    a, of_attention = attention_forward(q, k, v, mask, seeds, causal=causal, dropout=dropout)   # (5)  (B, T, H, D)
    y, of_output = linear_forward(a.reshape(B, T, -1), wo, bo)                                  # (6)  (B, T, O)
    of_layers = [(u, w, b is not None, False) for w, b in layers]
    return y if scale is None else x + y, ((of_q, of_k, None), of_attention, of_output, of_layers, of_norm)


def self_attention_backward(dy, saved):
    of_turns, of_attention, of_output, of_layers, of_norm = saved
    da, dwo, dbo = linear_backward(dy, of_output)                                               # (7) (8) (9)
    dqkv = attention_backward(da.reshape(of_attention[0].shape), of_attention)[:3]              # (10)  (B, T, H, D) each
    du, gradients = 0, []
    for d, of_turn, of_layer in zip(dqkv, of_turns, of_layers):
        d = d if of_turn is None else turned_back(d, of_turn)                                   # (11)
        du_part, dw, db = linear_backward(d.reshape(da.shape), of_layer)                        # (13) (14)
        du = du + du_part                                                                       # (12)
        gradients += [dw, db]
    if of_norm is None:
        return du, *gradients, dwo, dbo, None, None, None, None                                 # (15)
    dx, dscale, dshift = layer_norm_backward(du, of_norm)
    return dy + dx, *gradients, dwo, dbo, None, None, dscale, dshift                            # (15)


def normed_and_turned(z):
    """(4) of queries or keys (B, T, H, D)."""
    y, of_norm = rms_norm_forward(z)
    y, of_turn = rotary_forward(y)
    return y, (of_norm, of_turn)


def turned_back(dy, saved):
    """(11): the gradient by z."""
    of_norm, of_turn = saved
    dy, = rotary_backward(dy, of_turn)
    return rms_norm_backward(dy, of_norm)[0]


def check(x, wq, bq, wk, bk, wv, bv, wo, bo, mask=None, seeds=None, scale=None, shift=None, *, heads, turned=False, causal=True,
          dropout=0.0, eps=1e-5):
    C, E = wq.shape
    shapes = [None if array is None else array.shape for array in (wq, bq, wk, bk, wv, bv, wo, bo)]
    if shapes[:6] != [(C, E), None if bq is None else (E,), (C, E), None if bk is None else (E,), (C, E),
                      None if bv is None else (E,)] or wo.shape[0] != E or (bo is not None and bo.shape != wo.shape[1:]):
        raise ValueError(f"self_attention: matrices and shifts of {shapes} do not fit together")
    if x.ndim != 3 or x.shape[2] != C:
        raise ValueError(f"self_attention: positions of {C} numbers were expected in (B, T, C), not {x.shape}")
    if heads < 1 or E % heads:
        raise ValueError(f"self_attention: {E} numbers can't be divided among {heads} heads")
    if turned and E // heads % 2:
        raise ValueError(f"self_attention: heads of {E // heads} numbers can't be turned in pairs")
    if 0 in (*x.shape, E, wo.shape[1]):
        raise ValueError("self_attention: there are no positions, or a matrix has no numbers")
    check_options(x.shape[0], x.shape[1], mask, seeds, dropout)
    check_branch("self_attention", C, wo.shape[1], scale, shift)


def examples(rng):
    def inputs(B, T, C, E, O, biases=True):
        def layer(n_in, n_out):
            return rng.normal(size=(n_in, n_out)) * n_in ** -0.5, rng.normal(size=n_out) if biases else None

        (wq, bq), (wk, _), (wv, bv), (wo, bo) = layer(C, E), layer(C, E), layer(C, E), layer(E, O)
        return rng.normal(size=(B, T, C)), wq, bq, wk, None, wv, bv, wo, bo     # bk's gradient is nothing but rounding

    seeds = rng.integers(2 ** 64, size=2, dtype=np.uint64)
    padding = np.array([[True, False, True, True, False], [True, True, True, True, True]])
    yield inputs(2, 5, 4, 6, 3), {"heads": 2}
    yield inputs(1, 3, 5, 4, 7, biases=False), {"heads": 1, "causal": False}
    yield (*inputs(2, 5, 3, 6, 4), padding, seeds), {"heads": 3, "causal": False, "dropout": 0.3}
    yield (*inputs(2, 5, 7, 8, 6), padding), {"heads": 2, "causal": True}
    yield inputs(4, 70, 5, 18, 7), {"heads": 2}
    yield (*inputs(2, 5, 6, 4, 6), None, None, rng.normal(size=6), rng.normal(size=6)), {"heads": 2, "eps": 1e-3}
    yield (*inputs(3, 99, 7, 8, 7), None, None, rng.normal(size=7)), {"heads": 4}
    yield inputs(2, 5, 3, 8, 6), {"heads": 2, "turned": True}
    yield (*inputs(3, 71, 9, 18, 9, biases=False), None, None, rng.normal(size=9)), {"heads": 3, "turned": True}


self_attention = op(self_attention_forward, self_attention_backward, examples, check)
