"""GPT-2 (Radford et al. 2019, Language models are unsupervised multitask learners): a stack of blocks that each look
back, then think.

    tokens + positions -> [ x + attention(norm(x));  x + mlp(norm(x)) ] * layers -> norm -> logits

The line through the middle, x + ... + ..., is the residual stream: every block reads a normalised copy of it and adds
what it found. The norm stands before each part ("pre-norm"), so that the stream itself runs from the tokens to the
logits untouched, and the gradient runs back the same way. The head that turns the stream into logits is the token
table once more ("tied"): a token is likely where the stream points at its vector.
"""
from dataclasses import dataclass

import numpy as np

from ..cache import KeyValueCache, positions
from ..nn import MLP, Dropout, Embedding, LayerNorm, Module, MultiHeadAttention, TiedHead, flatten
from ..ops import cross_entropy, fold_in
from ..settings import UserError
from ..tensor import recompute


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT."""
    vocabulary_size: int            # number of tokens
    context: int                    # longest sequence that the model can read
    layers: int                     # number of blocks
    heads: int                      # attention heads in a block
    width: int                      # numbers in the residual stream for each position
    bias: bool = True               # whether linear layers and norms add a learned shift
    dropout: float = 0.0            # share of numbers dropped while training, of the stream's inputs and of attention

    def __post_init__(self):
        check_shape(self)

    def parameter_count(self):
        """How many numbers such a model has, without making one."""
        V, T, C, b = self.vocabulary_size, self.context, self.width, int(self.bias)
        norm = C + b * C
        block = 2 * norm + 4 * (C * C + b * C) + (8 * C * C + b * 5 * C)
        return V * C + T * C + self.layers * block + norm


def check_shape(config, sizes=("vocabulary_size", "context")):
    """Raise UserError for a shape that no Transformer can have; `sizes` are fields that must be positive, beside the usual."""
    check_sizes(config, *sizes, "layers", "heads", "width")
    if config.width % config.heads:
        raise UserError(f"a width of {config.width} can't be divided among {config.heads} heads: choose a multiple of "
                        f"{config.heads}")


def check_sizes(config, *names):
    """Raise UserError where one of these sizes, the number of layers or dropout is none."""
    for name in names:
        if not 1 <= getattr(config, name) < 2 ** 31:
            raise UserError(f"{name} is {getattr(config, name)}, but a model needs at least 1, and below 2^31")
    if config.layers > 10_000:
        raise UserError(f"layers is {config.layers}, but has to be at most 10000")
    if not 0 <= config.dropout < 1:
        raise UserError(f"dropout is {config.dropout}, but has to be at least 0 and below 1")


def check_length(ids, cache, context):
    """T, the number of ids of each text; ValueError where they and what the cache has are more than the model can read."""
    T = ids.shape[1]
    end = T + (cache.longest if cache is not None else 0)
    if end > context:
        raise ValueError(f"{end} positions are more than the model's context of {context}")
    return T


class Block(Module):
    """Attention, then an MLP, each reading a normalised copy of the stream and adding to it."""

    def __init__(self, rng, config):
        C, bias, p = config.width, config.bias, config.dropout
        output_std = 0.02 / (2 * config.layers) ** 0.5      # 2 L additions: their sum keeps the size of one
        self.norm1 = LayerNorm(C, bias)
        self.attention = MultiHeadAttention(rng, C, config.heads, bias, p, output_std)
        self.dropout1 = Dropout(p, site=1)                  # site 0 is attention's own
        self.norm2 = LayerNorm(C, bias)
        self.mlp = MLP(rng, C, 4 * C, bias, output_std)
        self.dropout2 = Dropout(p, site=2)

    def forward(self, x, cache=None, seeds=None):
        if seeds is None or self.dropout1.p == 0:           # the same as below in two operations, in 0.97 of the time
            return self.mlp(self.attention(x, cache, norm=self.norm1), norm=self.norm2)
        x = x + self.dropout1(self.attention(self.norm1(x), cache, seeds), seeds)       # (B, T, C)
        x = x + self.dropout2(self.mlp(self.norm2(x)), seeds)                           # (B, T, C)
        return x


class GPT(Module):
    """ids (B, T) of integers -> logits (B, T, V): at each position, what may come next."""
    name = "gpt"
    Config = GPTConfig

    def __init__(self, config, seed=0, dtype=np.float32):
        rng = np.random.default_rng(seed)
        self.config = config
        self.recompute_blocks = False                       # True: keep only the blocks' inputs for the backward pass
        self.tokens = Embedding(rng, config.vocabulary_size, config.width)
        self.positions = Embedding(rng, config.context, config.width)
        self.dropout = Dropout(config.dropout, site=config.layers)      # sites 0 ... layers - 1 are the blocks
        self.blocks = [Block(rng, config) for _ in range(config.layers)]
        self.norm = LayerNorm(config.width, config.bias)
        self.head = TiedHead(self.tokens)
        flatten(self, dtype)

    def forward(self, ids, cache=None, seeds=None):
        """cache: B texts of a KeyValueCache, cache.texts(); then ids are the T positions that follow in each."""
        return self.head(self.stream(ids, cache, seeds))                               # (B, T, V)

    def stream(self, ids, cache=None, seeds=None):
        """The residual stream after the last norm, (B, T, C)."""
        T = check_length(ids, cache, self.config.context)
        begin = 0 if cache is None else cache.begin
        x = self.tokens(ids) + self.positions(positions(begin, T, like=ids))            # (B, T, C)
        x = self.dropout(x, seeds)
        for i, block in enumerate(self.blocks):
            block_seeds = None if seeds is None else fold_in(seeds, n=i)
            if self.recompute_blocks and cache is None:
                x = recompute(block, x, None, block_seeds)
            else:
                x = block(x, None if cache is None else cache.layers[i], block_seeds)   # (B, T, C)
        if cache is not None:
            cache.advance(T)
        return self.norm(x)                                                             # (B, T, C)

    def loss(self, ids, targets, seeds=None, total=None):
        """Mean surprise in nats at the targets (B, T); or their sum over `total` (see ops/cross_entropy.py)."""
        return cross_entropy(self.forward(ids, seeds=seeds), targets, total=total)

    def new_cache(self, slots=1):
        """An empty cache for generating as many texts."""
        c = self.config
        return KeyValueCache(c.layers, slots, c.context, c.heads, c.width // c.heads, self.flat.data)

