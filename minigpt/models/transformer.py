"""The Transformer as it was published (Vaswani et al. 2017, Attention is all you need): it reads a text with an encoder and
writes another one with a decoder, which looks at what was read.

    source -> tokens + positions -> [ norm(x + attention(x));  norm(x + mlp(x)) ] * layers -> memory
    target -> tokens + positions -> [ norm(x + causal attention(x));  norm(x + attention(x, memory));  norm(x + mlp(x)) ]
              * layers -> logits

The encoder is what BERT is made of, the decoder what GPT is made of, but for the attention in its middle: queries come
from the text that is written, keys and values from the one that was read ("cross-attention"). Positions are not learnt,
but waves: with w_i = 10000^(-2 i / C),

    (1)  position t, numbers 2 i and 2 i + 1:   sin(t w_i), cos(t w_i)

So the vector of t + k is that of t, turned by angles that depend on k alone, which a matrix can learn to do. One table of
tokens serves the source, the target and the head; its vectors are multiplied by sqrt(C) on their way in, to be as large as
the waves.

Written is one token after the other, and a greedy choice can't be taken back. `beam_search` keeps the `beams` likeliest
beginnings instead. As every token makes a text less likely, texts of different lengths n are compared by

    (2)  log p(text) / n^alpha                 alpha 0: by their probability, which prefers short ones; 1: by the mean token

The paper divides by ((5 + n) / 6)^alpha with alpha 0.6, after Wu et al. 2016 (Google's neural machine translation system),
which is the same for long texts and makes less of a difference between short ones.
"""
from dataclasses import dataclass

import numpy as np

from ..nn import Dropout, Embedding, LayerNorm, Linear, Module, MultiHeadAttention, TiedHead, flatten
from ..ops import cross_entropy, fold_in, log_softmax, relu
from ..settings import UserError
from ..tensor import no_grad
from .gpt import check_shape

CROSS = 4                           # the place of cross-attention's dropout in a block: those before it are 0 ... 3


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a Transformer."""
    vocabulary_size: int            # number of tokens, of both texts together
    context: int                    # longest text that it can read or write
    layers: int                     # number of blocks of the encoder, and as many of the decoder
    heads: int                      # attention heads
    width: int                      # numbers in the stream for each position
    hidden: int                     # width of the MLP; mostly four times the stream's
    dropout: float = 0.0            # share of numbers dropped while training: where the stream is added to, and in attention

    def __post_init__(self):
        check_shape(self)
        if self.hidden < 1 or self.width % 2:
            raise UserError(f"hidden is {self.hidden} and width {self.width}, but hidden has to be at least 1, and the width "
                            "even: positions are pairs of waves")

    def parameter_count(self):
        """How many numbers such a model has, without making one."""
        C, F = self.width, self.hidden
        attention, norm, mlp = 4 * (C * C + C), 2 * C, C * F + F + F * C + C
        return self.vocabulary_size * C + self.layers * (3 * attention + 5 * norm + 2 * mlp)


class ReluMLP(Module):
    """(B, T, C) -> (B, T, hidden) -> (B, T, C), with max(x, 0) between."""

    def __init__(self, rng, width, hidden):
        self.expand = Linear(rng, width, hidden, std=width ** -0.5)
        self.output = Linear(rng, hidden, width, std=hidden ** -0.5)

    def forward(self, x):
        return self.output(relu(self.expand(x)))


def attention_of(rng, config, causal):
    """A layer of attention whose matrices begin so large that what comes out is as large as what goes in."""
    attention = MultiHeadAttention(rng, config.width, config.heads, dropout=config.dropout, causal=causal)
    for layer in attention.query, attention.key, attention.value, attention.output:
        layer.w.data *= config.width ** -0.5 / 0.02
    return attention


class Encoder(Module):
    """A block that reads: every position sees all others."""

    def __init__(self, rng, config):
        p = config.dropout
        self.attention, self.norm1 = attention_of(rng, config, causal=False), LayerNorm(config.width)
        self.mlp, self.norm2 = ReluMLP(rng, config.width, config.hidden), LayerNorm(config.width)
        self.dropouts = [Dropout(p, site=1 + i) for i in range(2)]      # site 0 is attention's own

    def forward(self, x, mask, seeds=None):
        x = self.norm1(x + self.dropouts[0](self.attention(x, None, seeds, mask), seeds))       # (B, S, C)
        return self.norm2(x + self.dropouts[1](self.mlp(x), seeds))                             # (B, S, C)


class Decoder(Module):
    """A block that writes: a position sees those before it, and all that was read."""

    def __init__(self, rng, config):
        p = config.dropout
        self.attention, self.norm1 = attention_of(rng, config, causal=True), LayerNorm(config.width)
        self.cross, self.norm2 = attention_of(rng, config, causal=False), LayerNorm(config.width)
        self.mlp, self.norm3 = ReluMLP(rng, config.width, config.hidden), LayerNorm(config.width)
        self.dropouts = [Dropout(p, site=1 + i) for i in range(3)]      # site 0 is attention's own

    def forward(self, x, memory, mask, seeds=None):
        again = None if seeds is None else fold_in(seeds, n=CROSS)                              # for cross-attention
        x = self.norm1(x + self.dropouts[0](self.attention(x, None, seeds), seeds))             # (B, T, C)
        x = self.norm2(x + self.dropouts[1](self.cross(x, None, again, mask, memory), seeds))   # (B, T, C)
        return self.norm3(x + self.dropouts[2](self.mlp(x), seeds))                             # (B, T, C)


class Transformer(Module):
    """source (B, S) and target (B, T), integers -> logits (B, T, V): at each position of the target, what may come next."""
    name = "transformer"
    Config = TransformerConfig

    def __init__(self, config, seed=0, dtype=np.float32):
        rng = np.random.default_rng(seed)
        self.config = config
        self.tokens = Embedding(rng, config.vocabulary_size, config.width, std=config.width ** -0.5)
        self.encoder = [Encoder(rng, config) for _ in range(config.layers)]
        self.decoder = [Decoder(rng, config) for _ in range(config.layers)]
        self.dropout = Dropout(config.dropout, site=0)
        self.head = TiedHead(self.tokens)
        flatten(self, dtype)

    def forward(self, source, mask, target, seeds=None):
        """mask: (B, S) bools, False where the source is padding."""
        encoder_seeds, decoder_seeds = (None, None) if seeds is None else (fold_in(seeds, n=i) for i in range(2))
        memory = self.encode(source, mask, encoder_seeds)
        return self.head(self.decode(target, memory, mask, decoder_seeds))                      # (B, T, V)

    def encode(self, source, mask, seeds=None):
        """What was read: (B, S, C)."""
        x = self.embed(source, seeds)
        for i, block in enumerate(self.encoder):
            x = block(x, mask, None if seeds is None else fold_in(seeds, n=1 + i))
        return x

    def decode(self, target, memory, mask, seeds=None):
        """The decoder's stream, (B, T, C)."""
        x = self.embed(target, seeds)
        for i, block in enumerate(self.decoder):
            x = block(x, memory, mask, None if seeds is None else fold_in(seeds, n=1 + i))
        return x

    def embed(self, ids, seeds):
        T, C = ids.shape[1], self.config.width
        if T > self.config.context:
            raise ValueError(f"{T} positions are more than the model's context of {self.config.context}")
        x = self.tokens(ids) * C ** 0.5 + np.asarray(waves(T, C).astype(self.flat.data.dtype), like=self.flat.data)
        return self.dropout(x, None if seeds is None else fold_in(seeds, n=0))                  # (B, T, C)

    def loss(self, source, mask, target, following, seeds=None, total=None):
        """Mean surprise in nats at `following` (B, T), what comes after each token of the target, -1 where there is padding;
        or the sum over `total` (see ops/cross_entropy.py)."""
        return cross_entropy(self.forward(source, mask, target, seeds), following, total=total)


def waves(T, C):
    """(1) for positions 0 ... T-1: (T, C) of float64."""
    angles = np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, C, 2) / C)                       # (T, C / 2)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(T, C)                         # (1)


def beam_search(model, source, mask, begin, end, longest, beams=4, alpha=0.6):
    """What the model writes after reading each source (N, S): a list of N arrays of tokens, without `begin` and `end`.

    begin, end: the tokens around each text. longest: how many tokens a text has at most, `end` included. beams=1 takes the
    likeliest token, always ("greedy"). A text that has ended holds its place among the beams, and can lose it, by its
    probability alone; lengths count when all is done.
    """
    N, V = len(source), model.config.vocabulary_size
    with no_grad():
        memory = np.repeat(model.encode(source, mask).data, beams, 0)                           # (N beams, S, C)
        mask = np.repeat(mask, beams, 0)
        ids = np.full((N * beams, 1), begin)
        scores = np.full((N, beams), -np.inf)
        scores[:, 0] = 0                                                    # at first all beams are alike: only one counts
        lengths, ended = np.zeros((N, beams), np.int64), np.zeros((N, beams), bool)
        for _ in range(longest):
            logits = model.head(model.decode(ids, memory, mask)[:, -1]).data                    # (N beams, V)
            log_p = log_softmax(logits.astype(np.float64)).data.reshape(N, beams, V)
            log_p[ended] = -np.inf                                          # what has ended goes on with `end`, for nothing
            log_p[ended, end] = 0
            total = (scores[..., None] + log_p).reshape(N, -1)                                  # (N, beams V)
            best = np.argsort(-total, 1, kind="stable")[:, :beams]                              # (N, beams)
            scores, rows, token = np.take_along_axis(total, best, 1), best // V, best % V
            ids = ids.reshape(N, beams, -1)[np.arange(N)[:, None], rows]
            ids = np.concatenate([ids, token[..., None]], -1).reshape(N * beams, -1)
            lengths, ended = (np.take_along_axis(x, rows, 1) for x in (lengths, ended))
            lengths, ended = lengths + ~ended, ended | (token == end)
            found = np.where(ended, scores / lengths ** alpha, -np.inf).max(1)                  # (2)
            hope = np.where(ended, -np.inf, scores / longest ** alpha).max(1)       # the most that the others can reach
            if (found >= hope).all():
                break
    chosen = (scores / lengths ** alpha).argmax(1)                                              # (2)
    ids = ids.reshape(N, beams, -1)[np.arange(N), chosen]
    return [row[1:1 + n - done] for row, n, done in zip(ids, lengths[np.arange(N), chosen], ended[np.arange(N), chosen])]
