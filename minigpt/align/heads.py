"""A language model with a head of one number: a score of a reply (reward.py), or a value of each position (ppo.py)."""
import copy

import numpy as np

from ..nn import Linear, Module, flatten


class WithHead(Module):
    """A copy of a language model, `body`, and a linear `head` from its stream to one number; all of it is trained.

    The head begins at 0: no opinion.
    """

    def __init__(self, model):
        self.body, self.config = copy.deepcopy(model), model.config
        self.head = Linear(np.random.default_rng(0), model.config.width, 1, std=0.0)
        self.head.w.group = "vectors"                       # for the optimizer it is one
        self.body.flat = flatten(self, model.flat.data.dtype).flat

    def numbers(self, stream):
        """(..., C) -> (...)"""
        return self.head(stream).reshape(*stream.shape[:-1])

    def language_model(self):
        """A copy of the body, as a model of its own."""
        return flatten(copy.deepcopy(self.body), self.flat.data.dtype)
