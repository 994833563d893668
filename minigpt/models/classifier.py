"""A classifier on top of a language model: transfer learning (Radford et al. 2018, Improving language understanding by
generative pre-training).

    ids -> the language model's stream -> mean over the text -> one linear layer -> a score for each class

The body has learnt from much text without labels how words and sentences go; what is left to learn from the few texts with
labels is which of that tells the classes apart.
"""
import numpy as np

from ..nn import Linear, Module, flatten
from ..ops import cross_entropy


class Classifier(Module):
    """ids (B, T) of integers with a mask (B, T), False where there is padding behind a text -> scores (B, classes).

    body: a GPT, whose parameters become part of this model and are trained with it.
    """

    def __init__(self, body, classes, seed=0):
        dtype, self.body, self.config = body.flat.data.dtype, body, body.config
        self.head = Linear(np.random.default_rng(seed), body.config.width, classes, std=0.0)
        del body.flat                                       # its parameters lie in this model's block from here on
        flatten(self, dtype)

    def forward(self, ids, mask, seeds=None):
        states = self.body.stream(ids, seeds=seeds)                                         # (B, T, C)
        counted = np.asarray(mask, states.dtype)                                            # (B, T)
        mean = (states * counted[:, :, None]).sum(axis=1) / counted.sum(1, keepdims=True)   # (B, C)
        return self.head(mean)

    def loss(self, ids, mask, labels, seeds=None, total=None):
        """Mean surprise in nats at the labels (B,); or their sum over `total` (see ops/cross_entropy.py)."""
        return cross_entropy(self.forward(ids, mask, seeds), labels, total=total)
