"""self_attention on a GPU: matrix products by CuPy, and between them attention's own kernels."""
import numpy as np

from .attention import attention_backward, attention_forward


def self_attention_forward(x, wq, bq, wk, bk, wv, bv, wo, bo, mask=None, seeds=None, *, heads, causal=True, dropout=0.0):
    (B, T, C), E = x.shape, wq.shape[1]
    rows = x.reshape(-1, C)
    q, k, v = (shifted(rows @ w, b).reshape(B, T, heads, E // heads) for w, b in ((wq, bq), (wk, bk), (wv, bv)))    # (1) (2)
    attended = attention_forward(q, k, v, mask, seeds, causal=causal, dropout=dropout)
    if attended is NotImplemented:
        return NotImplemented                                               # its heads are too wide
    a, of_attention = attended                                              # (3)  (B, T, H, D)
    y = shifted(a.reshape(-1, E) @ wo, bo)                                  # (4)  (N, O)
    has_b = [b is not None for b in (bq, bk, bv, bo)]
    return y.reshape(B, T, -1), (x, (wq, wk, wv), wo, has_b, a, of_attention)


def self_attention_backward(dy, saved):
    x, matrices, wo, has_b, a, of_attention = saved
    rows, dy, a_rows = x.reshape(-1, x.shape[2]), dy.reshape(-1, dy.shape[2]), a.reshape(-1, wo.shape[0])
    da = (dy @ wo.T).reshape(a.shape)                                       # (5)
    dx, of_layers = np.zeros_like(rows), []
    for d, w, has in zip(attention_backward(da, of_attention)[:3], matrices, has_b):                                # (8)
        d = d.reshape(a_rows.shape)
        dx += d @ w.T                                                       # (9)
        of_layers += [rows.T @ d, d.sum(0) if has else None]                # (10) (11)
    dwo, dbo = a_rows.T @ dy, dy.sum(0) if has_b[3] else None               # (6) (7)
    return dx.reshape(x.shape), *of_layers, dwo, dbo, None, None


def shifted(y, b):
    """y + b, in place."""
    if b is not None:
        y += b
    return y
