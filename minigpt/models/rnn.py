"""Recurrent networks, what language models were before attention (Mikolov et al. 2010, Recurrent neural network based
language model; with LSTMs Sundermeyer, Schlüter and Ney 2012): a state that is handed from character to character.

    tokens -> [ x = cell(x w + b, with the layer's state) ] * layers -> logits

cell "rnn": one matrix and tanh (ops/rnn.py); "lstm": gates and a memory (ops/lstm.py). All that the model knows of what
came before is the states of its layers, a few hundred numbers. So it reads on as long as you like at the same cost a
character, where a GPT looks back on all of its context, and on nothing beyond; but it can read only one character after
the other.

Trained is on windows of `context` tokens, each begun with a state of zeros. With `truncate`, gradients go back through that
many steps at most: the state's numbers are handed on from piece to piece, and no gradient is handed back ("truncated
backpropagation through time", Williams and Peng 1990).
"""
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..nn import Dropout, Embedding, Linear, Module, Parameter, flatten
from ..ops import concatenate, cross_entropy, fold_in, lstm, rnn
from ..settings import UserError
from ..tensor import no_grad
from .gpt import check_sizes

GATES = {"rnn": 1, "lstm": 4}       # times the width: what a cell takes as input,
STATES = {"rnn": 1, "lstm": 2}      # and its state


@dataclass(frozen=True)
class RNNConfig:
    """The shape of a recurrent network."""
    vocabulary_size: int            # number of tokens
    context: int                    # tokens in a window of training; it reads on beyond that
    layers: int                     # number of recurrent layers
    width: int                      # numbers that a layer hands on to the next
    cell: Literal["rnn", "lstm"] = "lstm"       # what a layer does at each step
    truncate: int = 0               # steps that a gradient goes back at most (0: to the window's beginning)
    dropout: float = 0.0            # share of numbers dropped while training, between layers and before the head

    def __post_init__(self):
        check_sizes(self, "vocabulary_size", "context", "layers", "width")
        if self.truncate < 0:
            raise UserError(f"truncate is {self.truncate}, but steps can't be negative (0: no limit)")

    def parameter_count(self):
        """How many numbers such a model has, without making one."""
        V, C, G = self.vocabulary_size, self.width, GATES[self.cell]
        return 2 * V * C + self.layers * (2 * G * C ** 2 + G * C)


class Layer(Module):
    """A recurrent layer: (B, T, C) -> (B, T, C)."""

    def __init__(self, rng, width, cell):
        self.cell = cell
        self.input = Linear(rng, width, GATES[cell] * width, std=width ** -0.5)
        self.u = Parameter(np.concatenate([orthogonal_matrix(rng, width) for _ in range(GATES[cell])], 1), "matrices")
        if cell == "lstm":
            self.input.b.data[width:2 * width] = 1          # the forget gates begin open

    def forward(self, x, state=None, truncate=0):
        """x: (B, T, C); state: (B, C) or (B, 2 C), None for zeros. Returns (B, T, C) and the last state, an array."""
        B, T, C = x.shape
        a = self.input(x)                                                   # (B, T, C) or (B, T, 4 C)
        state = np.zeros_like(a.data, shape=(B, STATES[self.cell] * C)) if state is None else state
        run, pieces, length = {"rnn": rnn, "lstm": lstm}[self.cell], [], truncate or T
        for begin in range(0, T, length):
            pieces.append(run(a[:, begin:begin + length] if length < T else a, state, self.u))
            state = pieces[-1].data[:, -1].copy()                           # numbers, which no gradient goes through
        y = concatenate(*pieces, axis=1) if len(pieces) > 1 else pieces[0]
        return y if self.cell == "rnn" else y[:, :, :C], state


class RNN(Module):
    """ids (B, T) of integers -> logits (B, T, V): at each position, what may come next."""
    name = "rnn"
    Config = RNNConfig

    def __init__(self, config, seed=0, dtype=np.float32):
        rng = np.random.default_rng(seed)
        self.config = config
        self.tokens = Embedding(rng, config.vocabulary_size, config.width, std=1.0)
        self.layers = [Layer(rng, config.width, config.cell) for _ in range(config.layers)]
        self.dropout = Dropout(config.dropout, site=0)
        self.head = Linear(rng, config.width, config.vocabulary_size, bias=False, std=0.0)
        self.head.w.group = "embeddings"                    # for the optimizer it is a table of vectors, as tokens is
        flatten(self, dtype)

    def forward(self, ids, seeds=None):
        return self.run(ids, None, seeds)[0]

    def run(self, ids, states=None, seeds=None):
        """Logits (B, T, V), and the layers' states after the last token, to be handed in with what follows: a list of
        arrays (B, C) or (B, 2 C). states: those from before, None at the beginning of a text."""
        x, after = self.tokens(ids), []                                     # (B, T, C)
        for i, layer in enumerate(self.layers):
            x, state = layer(x, None if states is None else states[i], self.config.truncate)
            x = self.dropout(x, None if seeds is None else fold_in(seeds, n=i))
            after.append(state)
        return self.head(x), after

    def read(self, ids, states=None):
        """Read tokens (B, T) without training: logits (B, T, V), an array, and the states after them."""
        with no_grad():
            logits, states = self.run(ids, states)
        return logits.data, states

    def loss(self, ids, targets, seeds=None, total=None):
        """Mean surprise in nats at the targets (B, T); or their sum over `total` (see ops/cross_entropy.py)."""
        return cross_entropy(self.forward(ids, seeds), targets, total=total)


def orthogonal_matrix(rng, n):
    """A random rotation (n, n): it neither shrinks nor stretches what it is applied to again and again."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return (q * np.sign(np.diag(r))).astype(np.float32)
