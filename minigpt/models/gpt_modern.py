"""A GPT with what the field has learnt since GPT-2. Beside models/gpt.py, line by line, it differs in this:

    rms_norm without a scale        for layer norm: fewer parameters that need care, less work                    0.01 *
    rotary positions                for a table of positions: attention sees distances, nothing to learn          0.17
    queries and keys normalised     so that no score can grow without bound, and training bears a higher rate     0.03
    squared ReLU                    for GELU: sparser, and no exponential                                         0.00 *
    output matrices begin at 0      every block begins as the identity, the model as its token table              0.01 *
    a head of its own               it begins at 0, too, so the first guess is that all tokens are alike          0.03
    no biases                       one thing less to learn and to add                                            0.01 *

and in being trained by Muon (optim.py), 0.16. On the right is what each bought in 600 steps on tiny Shakespeare, in nats a
character: the validation loss without it, less that with all (examples/ablate_recipe.py). Where a * stands, three seeds differ
by more: that is kept for being simpler or cheaper, not for the loss.
"""
from dataclasses import dataclass

import numpy as np

from ..cache import KeyValueCache
from ..nn import Dropout, Embedding, Linear, Module, as_one, flatten
from ..ops import attention, cross_entropy, fold_in, mlp, relu_squared, rms_norm, rotary, self_attention
from ..settings import UserError
from ..tensor import recompute
from .gpt import check_length, check_shape


@dataclass(frozen=True)
class GPTModernConfig:
    """The shape of a modern GPT."""
    vocabulary_size: int            # number of tokens
    context: int                    # longest sequence that the model can read
    layers: int                     # number of blocks
    heads: int                      # attention heads in a block
    width: int                      # numbers in the residual stream for each position
    dropout: float = 0.0            # share of numbers dropped while training, of the stream's inputs and of attention

    def __post_init__(self):
        check_shape(self)
        if self.width // self.heads % 2:
            raise UserError(f"a head of {self.width} / {self.heads} numbers can't be turned in pairs: choose a width "
                            f"that is a multiple of {2 * self.heads}")

    def parameter_count(self):
        """How many numbers such a model has, without making one."""
        return 2 * self.vocabulary_size * self.width + self.layers * 12 * self.width ** 2


class Attention(Module):
    """Causal self-attention with rotary positions and normalised queries and keys: (B, T, C) -> (B, T, C)."""

    def __init__(self, rng, width, heads, dropout):
        self.heads, self.p = heads, dropout
        std = width ** -0.5
        self.query = Linear(rng, width, width, bias=False, std=std)
        self.key = Linear(rng, width, width, bias=False, std=std)
        self.value = Linear(rng, width, width, bias=False, std=std)
        self.output = Linear(rng, width, width, bias=False, std=0.0)

    def forward(self, x, cache=None, seeds=None):
        B, T, C = x.shape
        own_seeds, layers = None if seeds is None else fold_in(seeds, n=0), (self.query, self.key, self.value, self.output)
        if cache is None and as_one(x, *layers):
            arrays = [array for layer in layers for array in (layer.w, layer.b)]
            return self_attention(x, *arrays, None, own_seeds, heads=self.heads, turned=True, dropout=self.p)
        split, begin = (B, T, self.heads, C // self.heads), cache.begin if cache is not None else 0
        q = rotary(rms_norm(self.query(x).reshape(*split)), begin=begin)    # (B, T, H, D)
        k = rotary(rms_norm(self.key(x).reshape(*split)), begin=begin)      # (B, T, H, D)
        v = self.value(x).reshape(*split)                                   # (B, T, H, D)
        if cache is not None:
            y = cache.attend(q, k, v)                                       # (B, T, H, D): what came before, too
        else:
            y = attention(q, k, v, None, own_seeds, causal=True, dropout=self.p)
        return self.output(y.reshape(B, T, C))                              # (B, T, C)


class MLP(Module):
    """(B, T, C) -> (B, T, 4 C) -> (B, T, C), with squared ReLU between."""

    def __init__(self, rng, width):
        self.expand = Linear(rng, width, 4 * width, bias=False, std=width ** -0.5)
        self.output = Linear(rng, 4 * width, width, bias=False, std=0.0)

    def forward(self, x):
        if as_one(x, self.expand, self.output):
            return mlp(x, self.expand.w, self.expand.b, self.output.w, self.output.b, activation="relu_squared")
        return self.output(relu_squared(self.expand(x)))


class Block(Module):
    """Attention, then an MLP, each reading a normalised copy of the stream and adding to it."""

    def __init__(self, rng, config):
        p = config.dropout
        self.attention = Attention(rng, config.width, config.heads, p)
        self.dropout1 = Dropout(p, site=1)                  # site 0 is attention's own
        self.mlp = MLP(rng, config.width)
        self.dropout2 = Dropout(p, site=2)

    def forward(self, x, cache=None, seeds=None):
        x = x + self.dropout1(self.attention(rms_norm(x), cache, seeds), seeds)         # (B, T, C)
        x = x + self.dropout2(self.mlp(rms_norm(x)), seeds)                             # (B, T, C)
        return x


class GPTModern(Module):
    """ids (B, T) of integers -> logits (B, T, V): at each position, what may come next."""
    name = "gpt_modern"
    Config = GPTModernConfig

    def __init__(self, config, seed=0, dtype=np.float32):
        rng = np.random.default_rng(seed)
        self.config = config
        self.recompute_blocks = False                       # True: keep only the blocks' inputs for the backward pass
        self.tokens = Embedding(rng, config.vocabulary_size, config.width, std=1.0)
        self.dropout = Dropout(config.dropout, site=config.layers)      # sites 0 ... layers - 1 are the blocks
        self.blocks = [Block(rng, config) for _ in range(config.layers)]
        self.head = Linear(rng, config.width, config.vocabulary_size, bias=False, std=0.0)
        self.head.w.group = "embeddings"                    # for the optimizer it is a table of vectors, as tokens is
        flatten(self, dtype)

    def forward(self, ids, cache=None, seeds=None):
        """cache: B texts of a KeyValueCache, cache.texts(); then ids are the T positions that follow in each."""
        return self.head(self.stream(ids, cache, seeds))                               # (B, T, V)

    def stream(self, ids, cache=None, seeds=None):
        """The residual stream after the last norm, (B, T, C)."""
        T = check_length(ids, cache, self.config.context)
        x = self.dropout(rms_norm(self.tokens(ids)), seeds)                             # (B, T, C)
        for i, block in enumerate(self.blocks):
            block_seeds = None if seeds is None else fold_in(seeds, n=i)
            if self.recompute_blocks and cache is None:
                x = recompute(block, x, None, block_seeds)
            else:
                x = block(x, None if cache is None else cache.layers[i], block_seeds)   # (B, T, C)
        if cache is not None:
            cache.advance(T)
        return rms_norm(x)                                                              # (B, T, C)

    def loss(self, ids, targets, seeds=None, total=None):
        """Mean surprise in nats at the targets (B, T); or their sum over `total` (see ops/cross_entropy.py)."""
        return cross_entropy(self.forward(ids, seeds=seeds), targets, total=total)

    def new_cache(self, slots=1):
        """An empty cache for generating as many texts."""
        c = self.config
        return KeyValueCache(c.layers, slots, c.context, c.heads, c.width // c.heads, self.flat.data)
