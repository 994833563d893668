"""BERT as it is trained (Devlin et al. 2019): it fills in blanks.

    texts with blanks -> models/bert.py -> states -> gelu(w state + b), normalised -> the token table once more -> logits

A GPT is trained on every position at once, as no position sees what comes after it. BERT sees everything, so it would only
have to copy: what it is to guess has to be taken away first (data/masking.py), and only there it learns. In return each
guess is made from both sides.
"""
from dataclasses import dataclass

import numpy as np

from ..nn import LayerNorm, Linear, Parameter, flatten
from ..ops import cross_entropy, gelu, linear
from .bert import EPS, Bert, BertConfig


@dataclass(frozen=True)
class MaskedBertConfig(BertConfig):
    """The shape of a BERT that fills in blanks."""
    pooler: bool = False            # whether there is one: nothing here uses it

    def parameter_count(self):
        """How many numbers such a model has, without making one."""
        C = self.width
        return super().parameter_count() + (C * C + C) + 2 * C + self.vocabulary_size


class MaskedBert(Bert):
    """ids (B, T) of integers, blanks among them -> logits (B, T, V): at each position, which token stands there."""
    name = "masked_bert"
    Config = MaskedBertConfig

    def __init__(self, config, seed=0, dtype=np.float32):
        super().__init__(config, seed, dtype)
        rng = np.random.default_rng([seed, 1])
        self.transform = Linear(rng, config.width, config.width)
        self.transform_norm = LayerNorm(config.width, eps=EPS)
        self.head_b = Parameter(np.zeros(config.vocabulary_size), "vectors")
        flatten(self, dtype)

    def forward(self, ids, mask=None, token_types=None, seeds=None):
        """mask: (B, T) bools, False where there is padding."""
        states = super().forward(ids, mask, token_types, seeds)                             # (B, T, C)
        x = self.transform_norm(gelu(self.transform(states), approximate=False))            # (B, T, C)
        return linear(x, self.tokens.w, self.head_b, transposed=True)                       # (B, T, V)

    def loss(self, ids, targets, seeds=None, total=None):
        """Mean surprise in nats at the targets (B, T), -1 where nothing is asked; or their sum over `total`."""
        return cross_entropy(self.forward(ids, seeds=seeds), targets, total=total)
