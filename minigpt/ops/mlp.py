"""mlp: the part of a block that treats each position alone, in one operation: two linear layers, and a bend between.

    (1)  h = x w1 + b1              x (..., C), w1 (C, F), b1 (F,) or None    ->  h (..., F)
    (2)  a = f(h)                   f is gelu or relu_squared
    (3)  y = a w2 + b2              w2 (F, O), b2 (O,) or None                ->  y (..., O)

Backward, from the end, by the chapters linear and gelu (or relu_squared):

    (4)  da  = dy w2^T              (5)  dw2 = a^T dy       (6)  db2 = sum over rows of dy
    (7)  dh  = da f'(h)
    (8)  dx  = dh w1^T              (9)  dw1 = x^T dh       (10) db1 = sum over rows of dh

As three operations it is the same, number by number. As one it need not write a, f'(h), da and dh to memory, each of them
four times the size of x: a fast version goes through the rows in blocks so small that these stay in the cache.
Saved: x, both matrices and h; a is computed again. Cost: 2 N F (C + O) operations forward, twice that backward.
"""
from ..op import op
from .gelu import gelu_backward, gelu_forward
from .linear import linear_backward, linear_forward
from .relu_squared import relu_squared_backward, relu_squared_forward

ACTIVATIONS = {"gelu": (gelu_forward, gelu_backward), "relu_squared": (relu_squared_forward, relu_squared_backward)}


def mlp_forward(x, w1, b1, w2, b2, *, activation="gelu"):
    f, _ = ACTIVATIONS[activation]
    h, _ = linear_forward(x, w1, b1)                                        # (1)  (..., F)
    a, _ = f(h)                                                             # (2)  (..., F)
    y, _ = linear_forward(a, w2, b2)                                        # (3)  (..., O)
    return y, (x, w1, b1 is not None, w2, b2 is not None, h, activation)


def mlp_backward(dy, saved):
    x, w1, has_b1, w2, has_b2, h, activation = saved
    f, f_backward = ACTIVATIONS[activation]
    a, of_f = f(h)                                                          # (2) again
    da, dw2, db2 = linear_backward(dy, (a, w2, has_b2, False))               # (4) (5) (6)
    dh, = f_backward(da, of_f)                                              # (7)
    dx, dw1, db1 = linear_backward(dh, (x, w1, has_b1, False))               # (8) (9) (10)
    return dx, dw1, db1, dw2, db2


def check(x, w1, b1, w2, b2, *, activation="gelu"):
    sizes = x.shape[-1:], w1.shape[1:], w2.shape[1:]
    fits = [w1.shape[:1] == sizes[0], b1 is None or b1.shape == sizes[1], w2.shape[:1] == sizes[1],
            b2 is None or b2.shape == sizes[2]]
    if not all(fits):
        shapes = [None if array is None else array.shape for array in (w1, b1, w2, b2)]
        raise ValueError(f"mlp: rows of {x.shape[-1:]} numbers, matrices and shifts of {shapes} do not fit together")
    if 0 in w1.shape + w2.shape:
        raise ValueError("mlp: a matrix has no numbers")
    if activation not in ACTIVATIONS:
        raise ValueError(f"mlp: there is no activation {activation!r}, but {' and '.join(map(repr, ACTIVATIONS))}")


def examples(rng):
    for activation, has_b1, has_b2 in [("gelu", True, True), ("relu_squared", False, False), ("gelu", False, True)]:
        yield (rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 7)), rng.normal(size=7) if has_b1 else None,
               rng.normal(size=(7, 5)), rng.normal(size=5) if has_b2 else None), {"activation": activation}
    yield (rng.normal(size=(111, 3)), rng.normal(size=(3, 34)), rng.normal(size=34), rng.normal(size=(34, 2)),
           rng.normal(size=2)), {}


mlp = op(mlp_forward, mlp_backward, examples, check)
