"""self_attention on a GPU: matrix products by CuPy, and between them attention's own kernels."""
import numpy as np

from .attention import attention_backward, attention_forward
from .layer_norm import layer_norm_backward, layer_norm_forward


def self_attention_forward(x, wq, bq, wk, bk, wv, bv, wo, bo, mask=None, seeds=None, scale=None, shift=None, *, heads,
                           causal=True, dropout=0.0, eps=1e-5):
    (B, T, C), E = x.shape, wq.shape[1]
    u, of_norm = (x, None) if scale is None else layer_norm_forward(x, scale, shift, eps=eps)                       # (1)
    rows = u.reshape(-1, C)
    q, k, v = (shifted(rows @ w, b).reshape(B, T, heads, E // heads) for w, b in ((wq, bq), (wk, bk), (wv, bv)))    # (2) (3)
    attended = attention_forward(q, k, v, mask, seeds, causal=causal, dropout=dropout)
    if attended is NotImplemented:
        return NotImplemented                                               # its heads are too wide
    a, of_attention = attended                                              # (4)  (B, T, H, D)
    y = shifted(shifted(a.reshape(-1, E) @ wo, bo).reshape(B, T, -1), None if scale is None else x)                 # (5)
    has_b = [b is not None for b in (bq, bk, bv, bo)]
    return y, (u, (wq, wk, wv), wo, has_b, a, of_attention, of_norm)


def self_attention_backward(dy, saved):
    u, matrices, wo, has_b, a, of_attention, of_norm = saved
    rows, dy_rows, a_rows = u.reshape(-1, u.shape[2]), dy.reshape(-1, dy.shape[2]), a.reshape(-1, wo.shape[0])
    da = (dy_rows @ wo.T).reshape(a.shape)                                  # (6)
    du, of_layers = np.zeros_like(rows), []
    for d, w, has in zip(attention_backward(da, of_attention)[:3], matrices, has_b):                                # (9)
        d = d.reshape(a_rows.shape)
        du += d @ w.T                                                       # (10)
        of_layers += [rows.T @ d, d.sum(0) if has else None]                # (11) (12)
    dwo, dbo = a_rows.T @ dy_rows, dy_rows.sum(0) if has_b[3] else None     # (7) (8)
    du = du.reshape(u.shape)
    if of_norm is None:
        return du, *of_layers, dwo, dbo, None, None, None, None
    dx, dscale, dshift = layer_norm_backward(du, of_norm)
    dx += dy                                                                # (13)
    return dx, *of_layers, dwo, dbo, None, None, dscale, dshift


def shifted(y, b):
    """y + b, in place."""
    if b is not None:
        y += b
    return y
