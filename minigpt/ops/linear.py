"""linear: the layer that holds nearly all parameters and takes nearly all time: every row of x times one matrix.

    (1)  y = x w + b                 x (..., I), w (I, O), b (O,) or None  ->  y (..., O)

Leading axes are flattened to N rows, so one product of (N, I) by (I, O) does all of it. As for matmul,

    (2)  dx = dy w^T                 (N, I)
    (3)  dw = x^T dy                 (I, O): a sum over rows, as every row used the same w
    (4)  db = sum over rows of dy    (O,)

transposed=True takes w as (O, I) and uses w^T: a language model's head is its embedding table, (V, C), once more.

    (5)  y = x w^T + b        (6)  dx = dy w        (7)  dw = dy^T x

BLAS reads a transposed matrix where it lies, so no form copies anything.
Saved: x and w. Cost: 2 N I O floating point operations forward, twice that backward.
"""
from ..op import op


def linear_forward(x, w, b=None, *, transposed=False):
    rows = x.reshape(-1, x.shape[-1])                                       # (N, I)
    y = rows @ (w.T if transposed else w)                                   # (1) (5)  (N, O)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], y.shape[-1]), (x, w, b is not None, transposed)


def linear_backward(dy, saved):
    x, w, has_b, transposed = saved
    rows, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx = dy @ (w if transposed else w.T)                                    # (2) (6)  (N, I)
    dw = dy.T @ rows if transposed else rows.T @ dy                         # (3) (7)  as w
    db = dy.sum(0) if has_b else None                                       # (4)  (O,)
    return dx.reshape(x.shape), dw, db


def check(x, w, b=None, *, transposed=False):
    n_in, n_out = w.shape[::-1] if transposed else w.shape
    if x.shape[-1:] != (n_in,) or (b is not None and b.shape != (n_out,)):
        raise ValueError(f"linear: rows of {x.shape[-1:]} numbers do not fit a matrix from {n_in} to {n_out}"
                         + ("" if b is None else f" and a shift of {b.shape}"))


def examples(rng):
    yield (rng.normal(size=(3, 4)), rng.normal(size=(4, 5)), rng.normal(size=5)), {}
    yield (rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5))), {}
    yield (rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 4)), rng.normal(size=5)), {"transposed": True}
    yield (rng.normal(size=4), rng.normal(size=(4, 5)), rng.normal(size=5)), {}


linear = op(linear_forward, linear_backward, examples, check)
