"""Optimizers: what turns gradients into better parameters. They work on the flat block (nn.FlatParameters)."""
import math
from functools import reduce
from operator import matmul

import numpy as np

from .ops import adamw_step, gradient_norm
from .ranks import ALONE


class AdamW:
    """AdamW over a flat block (ops/adamw.py). Matrices and embeddings decay, vectors (biases, norms) don't.

    Its state, which a checkpoint keeps: `m` and `v`, arrays like the gradient, and `steps`, how many were taken.
    """

    def __init__(self, flat, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.1):
        self.flat, self.beta1, self.beta2, self.eps, self.decay = flat, beta1, beta2, eps, decay
        self.m, self.v = np.zeros_like(flat.grad), np.zeros_like(flat.grad)
        self.steps = 0

    def step(self, lr, max_norm=math.inf, split=lambda function, parts: [function(part) for part in parts]):
        """Update the parameters in place; returns the norm of the gradient before clipping to max_norm.

        split(function, parts) runs function on each part: parallel.Workers has one that does so side by side.
        """
        norm = gradient_norm(self.flat.grad)
        if not math.isfinite(norm):
            return norm                                     # nothing is changed by a gradient that is no number
        self.steps += 1
        scale = min(1.0, max_norm / norm) if norm > 0 else 1.0
        self.update(lr, scale, split)
        return norm

    def update(self, lr, scale, split):
        """Move all parameters, the clipped gradient being scale times flat.grad."""
        vectors = self.flat.groups["vectors"]
        parts = [(part, self.decay) for part in halves(slice(0, vectors.start))] + [(vectors, 0.0)]
        split(lambda part: self.adamw(part[0], lr, part[1], scale), parts)

    def adamw(self, part, lr, decay, scale):
        """AdamW's step for one slice of the block."""
        adamw_step(self.flat.data[part], self.flat.grad[part], self.m[part], self.v[part], step=self.steps, lr=lr,
                   beta1=self.beta1, beta2=self.beta2, eps=self.eps, decay=decay, scale=scale)

    def state(self):
        """The arrays and the number that a checkpoint keeps."""
        return {"m": self.m, "v": self.v}, {"steps": self.steps}

    def restore(self, arrays, numbers):
        """Continue from what state() gave."""
        self.m[...], self.v[...] = (np.asarray(arrays[name], like=self.m) for name in ("m", "v"))
        self.steps = numbers["steps"]


class Muon(AdamW):
    """Muon for the matrices, AdamW for the rest (Jordan et al. 2024, Muon: an optimizer for hidden layers).

    AdamW treats a matrix as a heap of numbers. But what a matrix does to its inputs is told by its singular vectors, and
    of a gradient's, a few usually outweigh all others. Muon gives all of them the same size: with U S V^T the singular
    value decomposition of the gradient's mean, the matrix moves along U V^T, by steps of one length.

    lr is that of the matrices; AdamW's is `ratio` times lr. Of its state, v exists for all parameters, but is used for
    those only that AdamW moves.

    Where several ranks train together, each finds the directions of its share of the matrices. A step leaves them in
    flat.grad, in the place of the gradient.
    """

    def __init__(self, flat, momentum=0.95, ratio=0.15, decay=0.0, ranks=ALONE, **adamw):
        super().__init__(flat, decay=decay, **adamw)
        self.momentum, self.ratio, self.ranks = momentum, ratio, ranks
        matrices = flat.groups["matrices"]
        self.matrices = [matrix for name, part in flat.slices.items() if matrices.start <= part.start < matrices.stop
                         for matrix in single_matrices(part, flat.parameters[name].shape)]

    def update(self, lr, scale, split):
        embeddings, vectors = self.flat.groups["embeddings"], self.flat.groups["vectors"]
        split(lambda part: self.adamw(part, lr * self.ratio, 0.0, scale), [slice(embeddings.start, vectors.stop)])
        split(lambda matrix: self.find_direction(*matrix),
              [(*matrix, i % self.ranks.size == self.ranks.rank) for i, matrix in enumerate(self.matrices)])
        self.ranks.sum(self.flat.grad[self.flat.groups["matrices"]])
        split(lambda matrix: self.move(*matrix, lr), self.matrices)

    def find_direction(self, part, shape, own):
        """Put the direction of one matrix (I, O) in the place of its gradient: momentum with a look ahead (Nesterov), made
        orthogonal; or zeros, where it is not this rank's own."""
        gradient, m = self.flat.grad[part].reshape(shape), self.m[part].reshape(shape)
        m += (1 - self.momentum) * (gradient - m)
        gradient[...] = orthogonal(gradient + self.momentum * (m - gradient)) if own else 0

    def move(self, part, shape, lr):
        """Move one matrix along its direction."""
        w = self.flat.data[part]
        w *= 1 - lr * self.decay
        w -= lr * max(1, shape[1] / shape[0]) ** 0.5 * self.flat.grad[part]


def single_matrices(part, shape):
    """The matrices of a parameter (..., I, O), which is one or a stack of them: [(its slice of the block, (I, O)), ...]."""
    size = shape[-2] * shape[-1]
    return [(slice(begin, begin + size), shape[-2:]) for begin in range(part.start, part.stop, size)]


A, B, C = 3.4445, -4.7750, 2.0315   # Jordan's: a small singular value grows 3.4 times a round until it is near 1


def orthogonal(g, rounds=5):
    """About U V^T for g = U S V^T, an array (I, O): singular values become 1, give or take 0.3, but for the very smallest.

    An odd polynomial of a matrix acts on its singular values alone: p x, with p = a + b x x^T + c (x x^T)^2, makes each s to
    a s + b s^3 + c s^5. Some rounds of that take all of them near 1: no decomposition, only products. (Newton-Schulz
    iteration; the coefficients are chosen for speed, not to converge.)
    """
    tall = g.shape[0] > g.shape[1]
    x = (g.T if tall else g) / (np.linalg.norm(g) + 1e-7)   # no singular value is above 1
    if 2 * len(x) <= x.shape[1]:
        x = reduce(matmul, polynomials(x @ x.T, rounds)) @ x
    else:
        for _ in range(rounds):
            square = x @ x.T
            x = A * x + (B * square + C * (square @ square)) @ x
    return x.T if tall else x


def polynomials(square, rounds):
    """The p of each round, for an x of which x x^T is given: p x has the square p x x^T p, so the rounds need no x. Of a wide
    matrix this is less work: 0.6 of the time for one four times as wide as high."""
    identity, found = np.diag(np.ones_like(square[0])), []
    for _ in range(rounds):
        found.append(A * identity + B * square + C * (square @ square))
        if len(found) < rounds:
            square = found[-1] @ square @ found[-1]
    return found[::-1]


def halves(part):
    """A slice in two."""
    middle = (part.start + part.stop) // 2
    return [slice(part.start, middle), slice(middle, part.stop)]


def warm_up_hold_fall(step, steps, warm_up, hold, peak, last):
    """The learning rate of step 0 ... steps - 1: up linearly over `warm_up` steps to `peak`, there until the share `hold` of
    the steps is made, then down linearly to `last` at the final step. A function of the step alone, never of a clock, so
    that a run can be repeated."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    begin = max(warm_up, hold * steps)
    progress = (step - begin) / max(1, steps - 1 - begin)
    return peak + (last - peak) * min(1.0, max(0.0, progress))
