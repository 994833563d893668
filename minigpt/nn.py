"""Layers: parameters together with the operation that uses them.

A Module is an object whose attributes are Parameters, other Modules, or lists of Modules; its parameters are found by
walking these attributes. Calling a module runs its `forward`.

`seeds`, wherever a forward takes it, are dropout's: an array (B,) of uint64, one random seed for each sequence
(ops/philox.py), from which each place that drops derives its own by `fold_in`. None means no dropout. There is no
switch between training and evaluation to forget: who wants dropout hands in seeds.
"""
import copy

import numpy as np

from .ops import attention, dropout, embedding, fold_in, layer_norm, linear, mlp
from .tensor import Tensor

GROUPS = "matrices", "embeddings", "vectors", "frozen"      # the order in which parameters lie in the flat block


class Parameter(Tensor):
    """A leaf that is trained. `group` says where it lies in the flat block, and so how the optimizer treats it."""
    __slots__ = ("group",)

    def __init__(self, data, group):
        super().__init__(np.ascontiguousarray(data, np.float32), requires_grad=True)
        self.group = group


class Module:
    """Something with parameters and a forward pass."""

    def __call__(self, *inputs, **options):
        return self.forward(*inputs, **options)

    def named_parameters(self):
        """(name, Parameter) for each parameter, under the first of its names: a tied one stands once."""
        seen = set()
        for name, parameter in walk(self, ""):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter


def walk(thing, name):
    if isinstance(thing, Parameter):
        yield name, thing
    elif isinstance(thing, Module):
        for key, value in vars(thing).items():
            yield from walk(value, f"{name}.{key}" if name else key)
    elif isinstance(thing, (list, tuple)):
        for i, value in enumerate(thing):
            yield from walk(value, f"{name}.{i}")


class FlatParameters:
    """All parameters of a model as one array `data` (P,), all gradients as another, `grad`; the model's are views.

    They lie group by group, in the order of GROUPS, so that a group is a slice, `groups[name]`, and a parameter is
    one too, `slices[name]`. Then the optimizer is one kernel over one array, clipping is one norm, averaging over
    workers is one sum and saving is one write. Frozen parameters lie last and have no gradient.
    """

    def __init__(self, model, dtype=np.float32):
        self.parameters = dict(sorted(model.named_parameters(), key=lambda item: GROUPS.index(item[1].group)))
        self.data = np.concatenate([p.data.reshape(-1) for p in self.parameters.values()]).astype(dtype, copy=False)
        self.slices, self.groups, end = {}, {}, 0
        for group in GROUPS:
            begin = end
            for name, p in self.parameters.items():
                if p.group == group:
                    self.slices[name] = slice(end, end + p.size)
                    end += p.size
            self.groups[group] = slice(begin, end)
        self.grad = np.zeros_like(self.data[:self.groups["frozen"].start])
        self.make_views()

    def make_views(self):
        """Point every parameter at its part of the block."""
        for name, p in self.parameters.items():
            p.data = self.data[self.slices[name]].reshape(p.shape)
            p.requires_grad = p.group != "frozen"
            p.grad = self.grad[self.slices[name]].reshape(p.shape) if p.requires_grad else None

    def move(self, put):
        """Have the block where put(array) takes an array, and every parameter with it."""
        self.data, self.grad = put(self.data), put(self.grad)
        self.make_views()

    def __len__(self):
        return self.data.size


def flatten(model, dtype=np.float32):
    """Move the model's parameters into one flat block of `dtype`, `model.flat`, and return the model."""
    model.flat = FlatParameters(model, dtype)
    return model


def freeze(model, *names):
    """Freeze the parameters whose names begin with one of `names`, and lay the block out anew."""
    for name, p in model.named_parameters():
        if name.startswith(names):
            p.group = "frozen"
    return flatten(model, model.flat.data.dtype)


def replica(model):
    """A model that shares the weights of `model`, ties and all, and has a block of gradients of its own."""
    shared = [model.flat.data, *(p.data for p in model.flat.parameters.values())]
    twin = copy.deepcopy(model, {id(array): array for array in shared})
    twin.flat.make_views()
    return twin


class Linear(Module):
    """y = x w + b: (..., n_in) -> (..., n_out). w is drawn from a normal distribution of the given std."""

    def __init__(self, rng, n_in, n_out, bias=True, std=0.02):
        self.w = Parameter(std * rng.standard_normal((n_in, n_out), np.float32), "matrices")
        self.b = Parameter(np.zeros(n_out), "vectors") if bias else None

    def forward(self, x):
        return linear(x, self.w, self.b)


class Embedding(Module):
    """A table of `number` vectors of `width`; ids of any shape -> (..., width)."""

    def __init__(self, rng, number, width, std=0.02):
        self.w = Parameter(std * rng.standard_normal((number, width), np.float32), "embeddings")

    def forward(self, ids):
        return embedding(self.w, ids)


class LayerNorm(Module):
    """Rows of `width` numbers to mean 0 and variance 1, then a learned scale and shift."""

    def __init__(self, width, bias=True, eps=1e-5):
        self.w = Parameter(np.ones(width), "vectors")
        self.b = Parameter(np.zeros(width), "vectors") if bias else None
        self.eps = eps

    def forward(self, x):
        return layer_norm(x, self.w, self.b, eps=self.eps)


class Dropout(Module):
    """Dropout with probability p at the place `site`, a number that no other place of the same seeds has."""

    def __init__(self, p, site):
        self.p, self.site = p, site

    def forward(self, x, seeds):
        return x if seeds is None or self.p == 0 else dropout(x, fold_in(seeds, n=self.site), p=self.p)


class MultiHeadAttention(Module):
    """Causal self-attention in `heads` heads: (B, T, C) -> (B, T, C).

    output_std: of the matrix that writes into the residual stream.
    """

    def __init__(self, rng, width, heads, bias=True, dropout=0.0, output_std=0.02):
        self.heads, self.p = heads, dropout
        self.query = Linear(rng, width, width, bias)
        self.key = Linear(rng, width, width, bias)
        self.value = Linear(rng, width, width, bias)
        self.output = Linear(rng, width, width, bias, output_std)

    def forward(self, x, cache=None, seeds=None):
        B, T, C = x.shape
        split = B, T, self.heads, C // self.heads
        q = self.query(x).reshape(*split)                                   # (B, T, H, D)
        k = self.key(x).reshape(*split)                                     # (B, T, H, D)
        v = self.value(x).reshape(*split)                                   # (B, T, H, D)
        if cache is not None:
            k, v = cache.append(k, v)                                       # (B, S, H, D): what came before, too
        if seeds is not None:
            seeds = fold_in(seeds, n=0)
        y = attention(q, k, v, None, seeds, causal=True, dropout=self.p)    # (B, T, H, D)
        return self.output(y.reshape(B, T, C))                              # (B, T, C)


class MLP(Module):
    """The part of a block that treats each position alone: (B, T, C) -> (B, T, hidden) -> (B, T, C)."""

    def __init__(self, rng, width, hidden, bias=True, output_std=0.02):
        self.expand = Linear(rng, width, hidden, bias)
        self.output = Linear(rng, hidden, width, bias, output_std)

    def forward(self, x):
        return mlp(x, self.expand.w, self.expand.b, self.output.w, self.output.b)


class KeyValueCache:
    """The keys and values of the positions that one attention layer has seen, so that each is computed once.

    For B sequences of at most `capacity` positions; `length` of them are there. `like`: an array of the same dtype, in
    the same place, such as the model's parameters.
    """

    def __init__(self, B, capacity, heads, head_width, like):
        self.k = np.zeros((B, capacity, heads, head_width), like.dtype, like=like)
        self.v = np.zeros_like(self.k)
        self.length = 0

    def append(self, k, v):
        """Add the keys and values of T new positions, Tensors (B, T, H, D); all that are there now, (B, S, H, D)."""
        end = self.length + k.shape[1]
        if end > self.k.shape[1]:
            raise ValueError(f"the cache holds {self.k.shape[1]} positions, not {end}")
        self.k[:, self.length:end], self.v[:, self.length:end] = k.data, v.data
        self.length = end
        return self.k[:, :end], self.v[:, :end]
