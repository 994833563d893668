"""mlp on a GPU: matrix products by CuPy, and between them ext/cuda/mlp.cu, which reads and writes the arrays of F numbers
a row, the largest there are, once each way: not once for the shift, once for the activation and once for its slope."""
import numpy as np

from .launch import THREADS, blocks, launch, row_threads


def mlp_forward(x, w1, b1, w2, b2, *, activation="gelu"):
    h = x.reshape(-1, x.shape[-1]) @ w1                                     # (1)  (N, F), without b1
    (N, F), a = h.shape, np.empty_like(h)
    launch("mlp", "mlp_forward", N, row_threads(F), h, b1, int(activation == "gelu"), a, F)     # (1) (2)
    y = a @ w2                                                              # (3)  (N, O)
    if b2 is not None:
        y += b2
    return y.reshape(*x.shape[:-1], y.shape[-1]), (x, w1, b1 is not None, w2, b2 is not None, h, activation)


def mlp_backward(dy, saved):
    x, w1, has_b1, w2, has_b2, h, activation = saved
    rows, dy, a = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1]), np.empty_like(h)
    dh = dy @ w2.T                                                          # (4)  (N, F): da, and soon dh
    launch("mlp", "mlp_backward", blocks(h.size), THREADS, h, int(activation == "gelu"), a, dh, h.size)     # (2) (7)
    dw2, db2 = a.T @ dy, dy.sum(0) if has_b2 else None                      # (5) (6)
    dx, dw1, db1 = dh @ w1.T, rows.T @ dh, dh.sum(0) if has_b1 else None    # (8) (9) (10)
    return dx.reshape(x.shape), dw1, db1, dw2, db2
