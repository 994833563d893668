"""mlp: the part of a block that treats each position alone, in one operation: two linear layers, and a bend between.

    (1)  u = x                      x (..., C); or, where a scale (C,) is given: u = layer_norm(x, scale, shift)
    (2)  h = u w1 + b1              w1 (C, F), b1 (F,) or None    ->  h (..., F)
    (3)  a = f(h)                   f is gelu or relu_squared
    (4)  y = a w2 + b2              w2 (F, O), b2 (O,) or None    ->  y (..., O); where a scale is given, y = x + a w2 + b2

With a scale it is a branch of a residual stream: it reads a normalised copy of the stream, and adds to it what it found.

Backward, from the end, by the chapters linear, gelu (or relu_squared) and layer_norm:

    (5)  da  = dy w2^T              (6)  dw2 = a^T dy       (7)  db2 = sum over rows of dy
    (8)  dh  = da f'(h)
    (9)  du  = dh w1^T              (10) dw1 = u^T dh       (11) db1 = sum over rows of dh
    (12) dx  = du; or, of a branch, dy and what layer_norm's backward pass makes of du

As several operations it is the same, number by number. As one it need not write u, a, f'(h), da, dh and du to memory, most
of them four times the size of x: a fast version goes through the rows in blocks so small that these stay in the cache.
Saved: x, both matrices and h; a is computed again. Cost: 2 N F (C + O) operations forward, twice that backward.
"""
from ..op import op
from .gelu import gelu_backward, gelu_forward
from .layer_norm import check_branch, layer_norm_backward, layer_norm_forward
from .linear import linear_backward, linear_forward
from .relu_squared import relu_squared_backward, relu_squared_forward

ACTIVATIONS = {"gelu": (gelu_forward, gelu_backward), "relu_squared": (relu_squared_forward, relu_squared_backward)}


def mlp_forward(x, w1, b1, w2, b2, scale=None, shift=None, *, activation="gelu", eps=1e-5):
    f, _ = ACTIVATIONS[activation]
    u, of_norm = (x, None) if scale is None else layer_norm_forward(x, scale, shift, eps=eps)      # (1)  (..., C)
    h, _ = linear_forward(u, w1, b1)                                        # (2)  (..., F)
    a, _ = f(h)                                                             # (3)  (..., F)
    y, _ = linear_forward(a, w2, b2)                                        # (4)  (..., O)
    return y if scale is None else x + y, (u, w1, b1 is not None, w2, b2 is not None, h, activation, of_norm)


def mlp_backward(dy, saved):
    u, w1, has_b1, w2, has_b2, h, activation, of_norm = saved
    f, f_backward = ACTIVATIONS[activation]
    a, of_f = f(h)                                                          # (3) again
    da, dw2, db2 = linear_backward(dy, (a, w2, has_b2, False))              # (5) (6) (7)
    dh, = f_backward(da, of_f)                                              # (8)
    du, dw1, db1 = linear_backward(dh, (u, w1, has_b1, False))              # (9) (10) (11)
    if of_norm is None:
        return du, dw1, db1, dw2, db2, None, None                           # (12)
    dx, dscale, dshift = layer_norm_backward(du, of_norm)
    return dy + dx, dw1, db1, dw2, db2, dscale, dshift                      # (12)


def check(x, w1, b1, w2, b2, scale=None, shift=None, *, activation="gelu", eps=1e-5):
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
    check_branch("mlp", x.shape[-1], w2.shape[1], scale, shift)


def examples(rng):
    for activation, has_b1, has_b2 in [("gelu", True, True), ("relu_squared", False, False), ("gelu", False, True)]:
        yield (rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 7)), rng.normal(size=7) if has_b1 else None,
               rng.normal(size=(7, 5)), rng.normal(size=5) if has_b2 else None), {"activation": activation}
    yield (rng.normal(size=(111, 3)), rng.normal(size=(3, 34)), rng.normal(size=34), rng.normal(size=(34, 2)),
           rng.normal(size=2)), {}
    yield (rng.normal(size=(2, 3, 6)), rng.normal(size=(6, 4)), rng.normal(size=4), rng.normal(size=(4, 6)), None,
           rng.normal(size=6), rng.normal(size=6)), {"eps": 1e-3}
    yield (rng.normal(size=(199, 7)), rng.normal(size=(7, 5)), None, rng.normal(size=(5, 7)), rng.normal(size=7),
           rng.normal(size=7)), {"activation": "relu_squared"}


mlp = op(mlp_forward, mlp_backward, examples, check)
