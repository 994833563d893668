"""mlp on a GPU: matrix products by CuPy, and between them ext/cuda/mlp.cu, which reads and writes the arrays of F numbers
a row, the largest there are, once each way: not once for the shift, once for the activation and once for its slope."""
import numpy as np

from .launch import THREADS, blocks, launch, row_threads
from .layer_norm import layer_norm_backward, layer_norm_forward


def mlp_forward(x, w1, b1, w2, b2, scale=None, shift=None, *, activation="gelu", eps=1e-5):
    u, of_norm = (x, None) if scale is None else layer_norm_forward(x, scale, shift, eps=eps)       # (1)
    h = u.reshape(-1, u.shape[-1]) @ w1                                     # (2)  (N, F), without b1
    (N, F), a = h.shape, np.empty_like(h)
    launch("mlp", "mlp_forward", N, row_threads(F), h, b1, int(activation == "gelu"), a, F)     # (2) (3)
    y = a @ w2                                                              # (4)  (N, O)
    if b2 is not None:
        y += b2
    y = y.reshape(*x.shape[:-1], y.shape[-1])
    if scale is not None:
        y += x                                                              # (4)
    return y, (u, w1, b1 is not None, w2, b2 is not None, h, activation, of_norm)


def mlp_backward(dy, saved):
    u, w1, has_b1, w2, has_b2, h, activation, of_norm = saved
    rows, dy_rows, a = u.reshape(-1, u.shape[-1]), dy.reshape(-1, dy.shape[-1]), np.empty_like(h)
    dh = dy_rows @ w2.T                                                     # (5)  (N, F): da, and soon dh
    launch("mlp", "mlp_backward", blocks(h.size), THREADS, h, int(activation == "gelu"), a, dh, h.size)     # (3) (8)
    dw2, db2 = a.T @ dy_rows, dy_rows.sum(0) if has_b2 else None            # (6) (7)
    du, dw1, db1 = (dh @ w1.T).reshape(u.shape), rows.T @ dh, dh.sum(0) if has_b1 else None         # (9) (10) (11)
    if of_norm is None:
        return du, dw1, db1, dw2, db2, None, None
    dx, dscale, dshift = layer_norm_backward(du, of_norm)
    dx += dy                                                                # (12)
    return dx, dw1, db1, dw2, db2, dscale, dshift
