"""Switch Transformer (Fedus, Zoph and Shazeer 2021, Switch Transformers: scaling to trillion parameter models with simple
and efficient sparsity): models/gpt_modern.py with E MLPs in each block instead of one, of which every position takes one.

A router, one small matrix a block, looks at a position h (C,) and chooses:

    (1)  s = h w                          (E,) scores
    (2)  p = softmax(s),  e = the expert with the largest p
    (3)  y = p_e expert_e(h)              added to the stream (ops/experts.py)

The choice has no gradient, but p_e has: it rises where expert e's answer lowered the loss. Left alone, this feeds on
itself: who is chosen learns, who learns is chosen, and soon one expert does all. Training therefore minimises more than the
surprise. With f_e the share of the N positions of a micro-batch whose choice is e, and P_e the mean of p_e over them,

    (4)  balance = E sum over e of f_e P_e            1 where all experts have as much to do, E where one does all
    (5)  z       = mean of (log-sum-exp of s)^2       keeps scores small, where rounding does not decide the choice

((5), the router z-loss, is of Zoph et al. 2022, ST-MoE: designing stable and transferable sparse expert models.)
f_e jumps and counts as a constant: the gradient of (4) lowers the probability of those that have too much to do.

    (6)  K = capacity N / E, rounded up               the most positions that one expert takes in training

What comes after an expert's K-th position is passed over: y = 0, and the stream goes on as it was. When the model is
measured or writes, no position is: what a text becomes does not depend on what else is read with it.
"""
import math
from dataclasses import dataclass

import numpy as np

from ..cache import KeyValueCache
from ..nn import Dropout, Embedding, Linear, Module, Parameter, flatten
from ..ops import cross_entropy, experts, fold_in, log_softmax, rms_norm, softmax
from ..settings import UserError
from ..tensor import no_grad, recompute
from .gpt import check_length
from .gpt_modern import Attention, GPTModernConfig


@dataclass(frozen=True)
class SwitchConfig(GPTModernConfig):
    """The shape of a Switch Transformer."""
    experts: int = 8                # MLPs in a block
    capacity: float = 1.25          # positions that an expert takes in training, as multiples of an equal share
    balance: float = 0.01           # weight of the balance (4) in training
    z: float = 0.001                # weight of the router's z-loss (5) in training

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.experts <= 10_000:
            raise UserError(f"experts is {self.experts}, but has to be at least 1 and at most 10000")
        if not (0 < self.capacity < math.inf and 0 <= self.balance < math.inf and 0 <= self.z < math.inf):
            raise UserError(f"capacity is {self.capacity}, balance {self.balance} and z {self.z}, but a capacity has to be "
                            "above 0, and a weight can't be negative")

    def parameter_count(self):
        """How many numbers such a model has, without making one."""
        C, E = self.width, self.experts
        return 2 * self.vocabulary_size * C + self.layers * (4 * C ** 2 + E * 8 * C ** 2 + C * E)


class Experts(Module):
    """E MLPs of the shape of models/gpt_modern.py's, with squared ReLU between: (B, T, C) -> (B, T, C)."""

    def __init__(self, rng, width, number):
        self.expand = Parameter(width ** -0.5 * rng.standard_normal((number, width, 4 * width), np.float32), "matrices")
        self.output = Parameter(np.zeros((number, 4 * width, width), np.float32), "matrices")

    def forward(self, x, scores, capacity=None):
        """scores: (B, T, E). capacity: as multiples of an equal share; None: all positions are taken."""
        E = scores.shape[-1]
        p, choice = softmax(scores), scores.data.argmax(-1)                 # (2)  (B, T, E), (B, T)
        gate = (p * one_hot(choice, E)).sum(-1)                             # (3)  (B, T)
        most = None if capacity is None else max(1, math.ceil(capacity * choice.size / E))      # (6)
        return experts(x, gate, self.expand, self.output, choice, capacity=most, activation="relu_squared")


class Block(Module):
    """Attention, then one of several MLPs, each reading a normalised copy of the stream and adding to it."""

    def __init__(self, rng, config):
        C, p = config.width, config.dropout
        self.attention = Attention(rng, C, config.heads, p)
        self.dropout1 = Dropout(p, site=1)                  # site 0 is attention's own
        self.router = Linear(rng, C, config.experts, bias=False, std=0.1 * C ** -0.5)
        self.router.w.group = "embeddings"                  # for the optimizer it is a table: a vector for each expert
        self.experts = Experts(rng, C, config.experts)
        self.dropout2 = Dropout(p, site=2)

    def add_attention(self, x, cache=None, seeds=None):
        return x + self.dropout1(self.attention(rms_norm(x), cache, seeds), seeds)      # (B, T, C)

    def scores(self, x):
        return self.router(rms_norm(x))                                                 # (1)  (B, T, E)

    def add_experts(self, x, scores, capacity=None, seeds=None):
        return x + self.dropout2(self.experts(rms_norm(x), scores, capacity), seeds)    # (B, T, C)


class Switch(Module):
    """ids (B, T) of integers -> logits (B, T, V): at each position, what may come next."""
    name = "switch"
    Config = SwitchConfig

    def __init__(self, config, seed=0, dtype=np.float32):
        rng = np.random.default_rng(seed)
        self.config = config
        self.recompute_blocks = False                       # True: keep only the parts' inputs for the backward pass
        self.tokens = Embedding(rng, config.vocabulary_size, config.width, std=1.0)
        self.dropout = Dropout(config.dropout, site=config.layers)      # sites 0 ... layers - 1 are the blocks
        self.blocks = [Block(rng, config) for _ in range(config.layers)]
        self.head = Linear(rng, config.width, config.vocabulary_size, bias=False, std=0.0)
        self.head.w.group = "embeddings"                    # for the optimizer it is a table of vectors, as tokens is
        flatten(self, dtype)

    def forward(self, ids, cache=None, seeds=None):
        """cache: B texts of a KeyValueCache, cache.texts(); then ids are the T positions that follow in each."""
        return self.head(self.stream(ids, cache, seeds))                                # (B, T, V)

    def stream(self, ids, cache=None, seeds=None):
        """The residual stream after the last norm, (B, T, C)."""
        return self.route(ids, cache, seeds)[0]

    def route(self, ids, cache=None, seeds=None, capacity=None):
        """The stream (B, T, C), and the scores of each block's router, [(B, T, E), ...]."""
        T, all_scores = check_length(ids, cache, self.config.context), []
        x = self.dropout(rms_norm(self.tokens(ids)), seeds)                             # (B, T, C)
        run = recompute if self.recompute_blocks and cache is None else lambda part, *inputs: part(*inputs)
        for i, block in enumerate(self.blocks):
            block_seeds = None if seeds is None else fold_in(seeds, n=i)
            x = run(block.add_attention, x, None if cache is None else cache.layers[i], block_seeds)
            all_scores.append(block.scores(x))
            x = run(block.add_experts, x, all_scores[-1], capacity, block_seeds)        # (B, T, C)
        if cache is not None:
            cache.advance(T)
        return rms_norm(x), all_scores

    def loss(self, ids, targets, seeds=None, total=None):
        """Mean surprise in nats at the targets (B, T); or their sum over `total` (see ops/cross_entropy.py)."""
        return cross_entropy(self.forward(ids, seeds=seeds), targets, total=total)

    def training_loss(self, ids, targets, seeds=None, total=None):
        """The loss of a model whose experts have a capacity, and (4) and (5) of each block with their weights.

        Of a micro-batch with `total` targets in the whole step, its share of them."""
        c = self.config
        x, all_scores = self.route(ids, None, seeds, c.capacity)
        share = 1.0 if total is None else targets.size / total
        loss = cross_entropy(self.head(x), targets, total=total)
        for scores in all_scores:
            loss = loss + (balance(scores) * c.balance + z_loss(scores) * c.z) * share
        return loss

    def choices(self, ids):
        """(layers, B, T) integers: the expert that each block sends each position of ids (B, T) to."""
        with no_grad():
            _, all_scores = self.route(ids)
        return np.stack([scores.data.argmax(-1) for scores in all_scores])

    def new_cache(self, slots=1):
        """An empty cache for generating as many texts."""
        c = self.config
        return KeyValueCache(c.layers, slots, c.context, c.heads, c.width // c.heads, self.flat.data)


def one_hot(choice, E):
    """(..., E) bools: which is the choice."""
    return choice[..., None] == np.arange(E, like=choice)


def shares(scores):
    """f_e of (4): the share of the positions whose choice is e, an array (E,) of float64."""
    E = scores.shape[-1]
    return one_hot(scores.argmax(-1).reshape(-1), E).mean(0)


def balance(scores):
    """(4), from scores (..., E), a Tensor."""
    E = scores.shape[-1]
    f = shares(scores.data).astype(scores.dtype)                                        # (E,)
    return (softmax(scores).reshape(-1, E).mean(axis=0) * f).sum() * E


def z_loss(scores):
    """(5), from scores (..., E), a Tensor: any score less its log-softmax is the log-sum-exp."""
    first = scores[..., 0] - log_softmax(scores)[..., 0]                                # (...)
    return (first * first).mean()
