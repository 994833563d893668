"""self_attention on a GPU: matrix products by CuPy, and between them the kernels of attention, and of norms and rotary."""
import numpy as np

from .attention import attention_backward, attention_forward
from .layer_norm import layer_norm_backward, layer_norm_forward
from .rms_norm import rms_norm_backward, rms_norm_forward
from .rotary import rotary_backward, rotary_forward


def self_attention_forward(x, wq, bq, wk, bk, wv, bv, wo, bo, mask=None, seeds=None, scale=None, shift=None, *, heads,
                           turned=False, causal=True, dropout=0.0, eps=1e-5):
    (B, T, C), E = x.shape, wq.shape[1]
    u, of_norm = (x, None) if scale is None else layer_norm_forward(x, scale, shift, eps=eps)                       # (1)
    rows = u.reshape(-1, C)
    q, k, v = (shifted(rows @ w, b).reshape(B, T, heads, E // heads) for w, b in ((wq, bq), (wk, bk), (wv, bv)))    # (2) (3)
    (q, of_q), (k, of_k) = (normed_and_turned(z) if turned else (z, None) for z in (q, k))                          # (4)
    attended = attention_forward(q, k, v, mask, seeds, causal=causal, dropout=dropout)
    if attended is NotImplemented:
        return NotImplemented                                               # its heads are too wide
    a, of_attention = attended                                              # (5)  (B, T, H, D)
    y = shifted(shifted(a.reshape(-1, E) @ wo, bo).reshape(B, T, -1), None if scale is None else x)                 # (6)
    has_b = [b is not None for b in (bq, bk, bv, bo)]
    return y, (u, (wq, wk, wv), wo, has_b, a, (of_q, of_k, None), of_attention, of_norm)


def self_attention_backward(dy, saved):
    u, matrices, wo, has_b, a, of_turns, of_attention, of_norm = saved
    rows, dy_rows, a_rows = u.reshape(-1, u.shape[2]), dy.reshape(-1, dy.shape[2]), a.reshape(-1, wo.shape[0])
    da = (dy_rows @ wo.T).reshape(a.shape)                                  # (7)
    du, of_layers = np.zeros_like(rows), []
    dqkv = attention_backward(da, of_attention)[:3]                         # (10)
    for d, of_turn, w, has in zip(dqkv, of_turns, matrices, has_b):
        d = (d if of_turn is None else turned_back(d, of_turn)).reshape(a_rows.shape)                               # (11)
        du += d @ w.T                                                       # (12)
        of_layers += [rows.T @ d, d.sum(0) if has else None]                # (13) (14)
    dwo, dbo = a_rows.T @ dy_rows, dy_rows.sum(0) if has_b[3] else None     # (8) (9)
    du = du.reshape(u.shape)
    if of_norm is None:
        return du, *of_layers, dwo, dbo, None, None, None, None
    dx, dscale, dshift = layer_norm_backward(du, of_norm)
    dx += dy                                                                # (15)
    return dx, *of_layers, dwo, dbo, None, None, dscale, dshift


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


def shifted(y, b):
    """y + b, in place."""
    if b is not None:
        y += b
    return y
