"""BERT (Devlin et al. 2019, BERT: Pre-training of deep bidirectional transformers): a stack of blocks in which every
position sees all others, those behind it too.

    tokens + positions + token types -> norm -> [ x = norm(x + attention(x));  x = norm(x + mlp(x)) ] * layers

GPT writes, so no position may see what comes after it; BERT reads, and makes of every token a vector of what it means
where it stands. What differs from gpt.py: the norm stands behind each part, on the stream itself ("post-norm"); GELU is
the exact one; a third table tells the first of two texts from the second (token types 0 and 1). Texts of a batch that
are shorter than its longest are padded, and a mask hides the padding from attention.

There is no head here: the states of the last block are the result. The pooler makes of the first one, that of [CLS],
a vector of the whole text; the mean of all states is the better vector of its meaning, where a model was trained for
that (Reimers and Gurevych 2019, Sentence-BERT).
"""
from dataclasses import dataclass

import numpy as np

from ..nn import MLP, Dropout, Embedding, LayerNorm, Linear, Module, MultiHeadAttention, flatten
from ..ops import fold_in, tanh
from ..settings import UserError
from .gpt import check_shape

EPS = 1e-12                         # of all norms


@dataclass(frozen=True)
class BertConfig:
    """The shape of a BERT."""
    vocabulary_size: int            # number of tokens
    context: int                    # longest sequence that the model can read
    layers: int                     # number of blocks
    heads: int                      # attention heads in a block
    width: int                      # numbers in the residual stream for each position
    hidden: int                     # width of the MLP; mostly four times the stream's
    token_types: int = 2            # number of kinds of texts in a sequence
    pooler: bool = True             # whether there is one
    dropout: float = 0.0            # share of numbers dropped while training, of the stream's inputs and of attention

    def __post_init__(self):
        check_shape(self)
        for name in "hidden", "token_types":
            if not 1 <= getattr(self, name) < 2 ** 31:
                raise UserError(f"{name} is {getattr(self, name)}, but a model needs at least 1, and below 2^31")

    def parameter_count(self):
        """How many numbers such a model has, without making one."""
        C, F = self.width, self.hidden
        linear, norm = C * C + C, 2 * C
        block = 4 * linear + (C * F + F) + (F * C + C) + 2 * norm
        return (self.vocabulary_size + self.context + self.token_types) * C + norm + self.layers * block \
            + self.pooler * linear


class Block(Module):
    """Attention, then an MLP, each adding to the stream, which is normalised behind each."""

    def __init__(self, rng, config):
        C, p = config.width, config.dropout
        self.attention = MultiHeadAttention(rng, C, config.heads, dropout=p, causal=False)
        self.dropout1 = Dropout(p, site=1)                  # site 0 is attention's own
        self.norm1 = LayerNorm(C, eps=EPS)
        self.mlp = MLP(rng, C, config.hidden, approximate=False)
        self.dropout2 = Dropout(p, site=2)
        self.norm2 = LayerNorm(C, eps=EPS)

    def forward(self, x, mask=None, seeds=None):
        x = self.norm1(x + self.dropout1(self.attention(x, None, seeds, mask), seeds))      # (B, T, C)
        x = self.norm2(x + self.dropout2(self.mlp(x), seeds))                               # (B, T, C)
        return x


class Bert(Module):
    """ids (B, T) of integers -> states (B, T, C): each token as what it means among the others."""
    name = "bert"
    Config = BertConfig

    def __init__(self, config, seed=0, dtype=np.float32):
        rng = np.random.default_rng(seed)
        self.config = config
        self.tokens = Embedding(rng, config.vocabulary_size, config.width)
        self.positions = Embedding(rng, config.context, config.width)
        self.token_types = Embedding(rng, config.token_types, config.width)
        self.norm = LayerNorm(config.width, eps=EPS)
        self.dropout = Dropout(config.dropout, site=config.layers)          # sites 0 ... layers - 1 are the blocks
        self.blocks = [Block(rng, config) for _ in range(config.layers)]
        self.pooler = Linear(rng, config.width, config.width) if config.pooler else None
        flatten(self, dtype)

    def forward(self, ids, mask=None, token_types=None, seeds=None):
        """mask: (B, T) bools, False where there is padding; token_types: (B, T) integers, all 0 if None."""
        T = ids.shape[1]
        if T > self.config.context:
            raise ValueError(f"{T} positions are more than the model's context of {self.config.context}")
        types = np.zeros_like(ids) if token_types is None else token_types
        x = self.tokens(ids) + self.positions(np.arange(T, like=ids)) + self.token_types(types)     # (B, T, C)
        x = self.dropout(self.norm(x), seeds)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, None if seeds is None else fold_in(seeds, n=i))              # (B, T, C)
        return x

    def pooled(self, states):
        """A vector of each text from the state of its first token: (B, T, C) -> (B, C)."""
        return tanh(self.pooler(states[:, 0]))


def pad(texts):
    """Lists of ids, of different lengths -> ids (B, T), filled up with 0, and a mask (B, T), False where filled up."""
    lengths = np.array([len(ids) for ids in texts])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros(mask.shape, np.int64)
    padded[mask] = np.concatenate(texts)
    return padded, mask


def mean_state(states, mask):
    """A vector of each text, of length 1: the mean of its states (B, T, C) where the mask (B, T) is True -> (B, C).

    The product of two such vectors, the cosine of their angle, says how much alike two texts are.
    """
    counted = mask.astype(states.dtype)                                                     # (B, T)
    mean = (states * counted[:, :, None]).sum(axis=1) / counted.sum(axis=1, keepdims=True)  # (B, C)
    return mean / (mean * mean).sum(axis=1, keepdims=True) ** 0.5
