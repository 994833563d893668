"""conv2d: slide a small window over an image and take the same weighted sum everywhere (LeCun et al. 1989,
Backpropagation applied to handwritten zip code recognition).

x (B, H, W, I): images of H rows and W columns with I numbers ("channels") a pixel; w (K, L, I, O), b (O,) or None  ->
y (B, H', W', O). (Here H and W are an image's height and width.) `padding` rows and columns of zeros go around each
image, and the window moves by `stride`, so that H' = (H + 2 padding - K) // stride + 1, and W' likewise with L. What
stands under the window at row i and column j is a patch of K L I numbers, laid out as one row:

    (1)  P[b, i, j, (k, l, c)] = x[b, i stride + k - padding, j stride + l - padding, c]        0 outside the image
    (2)  y = P w' + b                        w' is w as a matrix (K L I, O): each patch times the same matrix

So a convolution is a copy ("im2col") and a matrix product. A detector of some small shape, a column of w', is learnt once
and used at every place: that is all that sets it apart from a linear layer over the whole image.

Backward. Of (2), as for linear:

    (3)  dw' = P^T dy                        a sum over all places of all images, as all used the same w
    (4)  db  = sum over places of dy         (O,)
    (5)  dP  = dy w'^T                       (B, H', W', K L I)

Of (1): a pixel was copied into every patch that it lies under, and its gradient is the sum over these copies:

    (6)  dx[b, m, n, c] = sum of dP[b, i, j, (k, l, c)] over all i, j, k, l with
                          i stride + k - padding = m and j stride + l - padding = n

For one (k, l) no pixel is copied twice, so (1) is K L slices put side by side, and (6) as many added in their places.
Saved: x and w; P, which is K L / stride^2 times as large as x, is made again. Cost: 2 B H' W' K L I O operations forward,
twice that backward. There is no compiled version: NumPy copies whole slices, and its product is compiled; at the sizes of
models/convnet.py the one takes about as long as the other, tens of microseconds.
"""
import numpy as np

from ..op import op


def places(x, w, stride, padding):
    """H', W', and for every (k, l) the index of the pixels in the padded images that stand there in some patch."""
    K, L = w.shape[:2]
    down, across = ((x.shape[i] + 2 * padding - n) // stride + 1 for i, n in ((1, K), (2, L)))
    rows = [slice(k, k + stride * (down - 1) + 1, stride) for k in range(K)]
    columns = [slice(l, l + stride * (across - 1) + 1, stride) for l in range(L)]
    return down, across, [(slice(None), i, j) for i in rows for j in columns]


def padded(x, padding):
    """Zeros for the images with their padding, and the index of the images in them."""
    B, H, W, I = x.shape
    zeros = np.zeros_like(x, shape=(B, H + 2 * padding, W + 2 * padding, I))
    return zeros, (slice(None), slice(padding, padding + H), slice(padding, padding + W))


def patches(x, w, stride, padding):
    """(1), as a matrix (B H' W', K L I)."""
    wide, inside = padded(x, padding)
    wide[inside] = x
    copies = [wide[place] for place in places(x, w, stride, padding)[2]]
    return np.concatenate(copies, axis=-1).reshape(-1, w[..., 0].size)                      # (1)


def conv2d_forward(x, w, b=None, *, stride=1, padding=0):
    O = w.shape[3]
    down, across, _ = places(x, w, stride, padding)
    y = patches(x, w, stride, padding) @ w.reshape(-1, O)                                   # (2)  (B H' W', O)
    if b is not None:
        y += b                                                                              # (2)
    return y.reshape(len(x), down, across, O), (x, w, b is not None, stride, padding)


def conv2d_backward(dy, saved):
    x, w, has_b, stride, padding = saved
    dy, w_matrix = dy.reshape(-1, dy.shape[3]), w.reshape(-1, w.shape[3])                   # (B H' W', O), (K L I, O)
    dw = patches(x, w, stride, padding).T @ dy                                              # (3)  (K L I, O)
    db = dy.sum(0) if has_b else None                                                       # (4)  (O,)
    down, across, copied = places(x, w, stride, padding)
    dp = (dy @ w_matrix.T).reshape(len(x), down, across, len(copied), x.shape[3])           # (5)
    wide, inside = padded(x, padding)
    for n, place in enumerate(copied):
        wide[place] += dp[:, :, :, n]                                                       # (6)
    return wide[inside], dw.reshape(w.shape), db


def check(x, w, b=None, *, stride=1, padding=0):
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2] or (b is not None and b.shape != w.shape[3:]):
        raise ValueError(f"conv2d: images {x.shape} need weights (K, L, {x.shape[-1]}, O), and a shift (O,) or none, not "
                         f"{w.shape}" + ("" if b is None else f" and {b.shape}"))
    if stride < 1 or padding < 0 or 0 in w.shape:
        raise ValueError(f"conv2d: a window {w.shape} that moves by {stride} over a padding of {padding} is none")
    if min(x.shape[1] - w.shape[0], x.shape[2] - w.shape[1]) + 2 * padding < 0:
        raise ValueError(f"conv2d: a window of {w.shape[0]} x {w.shape[1]} is larger than images of {x.shape[1]} x "
                         f"{x.shape[2]} with a padding of {padding}")


def examples(rng):
    yield (rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(3, 2, 3, 4)), rng.normal(size=4)), {}
    yield (rng.normal(size=(2, 5, 4, 2)), rng.normal(size=(3, 3, 2, 5)), rng.normal(size=5)), {"padding": 1}
    yield (rng.normal(size=(3, 7, 6, 1)), rng.normal(size=(3, 2, 1, 2))), {"stride": 2, "padding": 1}
    yield (rng.normal(size=(1, 6, 4, 3)), rng.normal(size=(2, 2, 3, 5)), rng.normal(size=5)), {"stride": 2}
    yield (rng.normal(size=(2, 5, 5, 2)), rng.normal(size=(1, 2, 2, 3))), {"stride": 3}


conv2d = op(conv2d_forward, conv2d_backward, examples, check)
