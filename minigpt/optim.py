"""Optimizers: what turns gradients into better parameters. They work on the flat block (nn.FlatParameters)."""
import math

import numpy as np

from .ops import adamw_step


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
        vectors = self.flat.groups["vectors"]
        parts = [(part, self.decay) for part in halves(slice(0, vectors.start))] + [(vectors, 0.0)]

        def update(part):
            where, decay = part
            adamw_step(self.flat.data[where], self.flat.grad[where], self.m[where], self.v[where], step=self.steps,
                       lr=lr, beta1=self.beta1, beta2=self.beta2, eps=self.eps, decay=decay, scale=scale)

        split(update, parts)
        return norm

    def state(self):
        """The arrays and the number that a checkpoint keeps."""
        return {"m": self.m, "v": self.v}, {"steps": self.steps}

    def restore(self, arrays, numbers):
        """Continue from what state() gave."""
        self.m[...], self.v[...] = arrays["m"], arrays["v"]
        self.steps = numbers["steps"]


def halves(part):
    """A slice in two."""
    middle = (part.start + part.stop) // 2
    return [slice(part.start, middle), slice(middle, part.stop)]


def gradient_norm(gradient):
    """The Euclidean norm of a gradient (P,), as a float; inf or nan where the gradient is no number."""
    return math.sqrt(float(np.dot(gradient, gradient)))


def warm_up_then_cosine(step, steps, warm_up, peak, last):
    """The learning rate of step 0 ... steps - 1: up linearly over `warm_up` steps to `peak`, then down a half cosine to
    `last` at the final step. A function of the step alone, never of a clock, so that a run can be repeated."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - 1 - warm_up)
    return last + (peak - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
