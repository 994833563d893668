"""Layers: parameters together with the operation that uses them.

A Module is an object whose attributes are Parameters, other Modules, or lists of Modules; its parameters are found by
walking these attributes. Calling a module runs its `forward`.

`seeds`, wherever a forward takes it, are dropout's: an array (B,) of uint64, one random seed for each sequence
(ops/philox.py), from which each place that drops derives its own by `fold_in`. None means no dropout. There is no
switch between training and evaluation to forget: who wants dropout hands in seeds.
"""
import copy

import numpy as np

from .cache import FEW
from .ops import attention, conv2d, dropout, embedding, fold_in, gelu, layer_norm, linear, mlp, self_attention
from .tensor import Tensor

GROUPS = "matrices", "embeddings", "vectors", "frozen"      # the order in which parameters lie in the flat block
LINE = 64                           # bytes of a line of the CPU's cache


class Parameter(Tensor):
    """A leaf that is trained. `group` says where it lies in the flat block, and so how the optimizer treats it.

    outdated: whether `grad` is of an earlier step, so that the first gradient takes its place instead of being added.
    """
    __slots__ = "group", "outdated"

    def __init__(self, data, group):
        super().__init__(np.ascontiguousarray(data, np.float32), requires_grad=True)
        self.group, self.outdated = group, False

    def accumulate(self, gradient):
        if self.outdated:
            self.grad[...], self.outdated = gradient, False
        else:
            super().accumulate(gradient)


class Module:
    """Something with parameters and a forward pass."""
    quantized = None                # of a model whose matrices are of integers: what that did to it (quantize.py), a dict

    def __call__(self, *inputs, **options):
        return self.forward(*inputs, **options)

    def training_loss(self, *batch, **options):
        """What training minimises: the model's loss, unless the model adds something to it."""
        return self.loss(*batch, **options)

    def named_parameters(self):
        """(name, Parameter) for each parameter, under the first of its names: a tied one stands once."""
        seen = set()
        for name, parameter in walk(self, "", Parameter):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter


def walk(thing, name, kind):
    """(name, object) for each object of a kind in `thing`, once for each way that leads to it."""
    if isinstance(thing, kind):
        yield name, thing
    elif isinstance(thing, Module):
        for key, value in vars(thing).items():
            yield from walk(value, f"{name}.{key}" if name else key, kind)
    elif isinstance(thing, (list, tuple)):
        for i, value in enumerate(thing):
            yield from walk(value, f"{name}.{i}", kind)


def aligned(size):
    """Room for `size` bytes, of uint8 and without values, that begins where a line of the cache does: a vector that lies in
    two lines takes two reads."""
    room = np.empty(size + LINE, np.uint8)
    begin = -room.ctypes.data % LINE
    return room[begin:begin + size]


class FlatParameters:
    """All parameters of a model as one array `data` (P,), all gradients as another, `grad`; the model's are views.

    They lie group by group, in the order of GROUPS, so that a group is a slice, `groups[name]`, and a parameter is
    one too, `slices[name]`. Then the optimizer is one kernel over one array, clipping is one norm, averaging over
    workers is one sum and saving is one write. Frozen parameters lie last and have no gradient.
    """

    def __init__(self, model, dtype=np.float32):
        self.parameters = dict(sorted(model.named_parameters(), key=lambda item: GROUPS.index(item[1].group)))
        size = sum(p.size for p in self.parameters.values())
        self.data = aligned(size * np.dtype(dtype).itemsize).view(dtype)
        self.slices, self.groups, end = {}, {}, 0
        for group in GROUPS:
            begin = end
            for name, p in self.parameters.items():
                if p.group == group:
                    self.slices[name] = slice(end, end + p.size)
                    self.data[self.slices[name]] = p.data.reshape(-1)
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

    def forget_gradients(self):
        """Begin a sum of gradients anew, at zero. It is in `grad` after complete_gradients(): zeros need no pass of their
        own where a first gradient comes to overwrite them."""
        for p in self.parameters.values():
            p.outdated = p.requires_grad

    def complete_gradients(self):
        """Write the zeros where no gradient came."""
        for p in self.parameters.values():
            if p.outdated:
                p.grad[...], p.outdated = 0, False

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


class Conv2d(Module):
    """A window of size x size pixels that slides over images: (B, H, W, n_in) -> (B, H', W', n_out) (ops/conv2d.py).

    The weights are kept as the matrix that they are, from patches to channels, so that optimizers treat them as one.
    """

    def __init__(self, rng, n_in, n_out, size, stride=1, padding=0, std=0.02):
        self.shape, self.stride, self.padding = (size, size, n_in, n_out), stride, padding
        self.w = Parameter(std * rng.standard_normal((size * size * n_in, n_out), np.float32), "matrices")
        self.b = Parameter(np.zeros(n_out), "vectors")

    def forward(self, x):
        return conv2d(x, self.w.reshape(*self.shape), self.b, stride=self.stride, padding=self.padding)


class Embedding(Module):
    """A table of `number` vectors of `width`; ids of any shape -> (..., width)."""

    def __init__(self, rng, number, width, std=0.02):
        self.w = Parameter(std * rng.standard_normal((number, width), np.float32), "embeddings")

    def forward(self, ids):
        return embedding(self.w, ids)

    def scores(self, x):
        """How far x points along each of the vectors: (..., width) -> (..., number)."""
        return linear(x, self.w, transposed=True)


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
    """Attention in `heads` heads: (B, T, C) -> (B, T, C), of positions to each other or to those of another sequence.

    causal: whether a position sees only itself and those before it. mask, of a forward: (B, S) bools, False where there
    is padding, which nobody sees. memory, of a forward: (B, S, C), what is looked at ("cross-attention"); None: x itself.
    norm, of a forward: a LayerNorm, where it is a branch of a residual stream x: then x + forward(norm(x)) comes out.
    output_std: of the matrix that writes into the residual stream.
    """

    def __init__(self, rng, width, heads, bias=True, dropout=0.0, output_std=0.02, causal=True):
        self.heads, self.p, self.causal = heads, dropout, causal
        self.query = Linear(rng, width, width, bias)
        self.key = Linear(rng, width, width, bias)
        self.value = Linear(rng, width, width, bias)
        self.output = Linear(rng, width, width, bias, output_std)

    def forward(self, x, cache=None, seeds=None, mask=None, memory=None, norm=None):
        B, T, C = x.shape
        options = {"causal": self.causal, "dropout": self.p}
        own_seeds = None if seeds is None else fold_in(seeds, n=0)
        layers = self.query, self.key, self.value, self.output
        if cache is None and memory is None and as_one(x, *layers):
            arrays, (scale, shift, eps) = [array for layer in layers for array in (layer.w, layer.b)], of_norm(norm)
            return self_attention(x, *arrays, mask, own_seeds, scale, shift, heads=self.heads, eps=eps, **options)
        if norm is not None:
            return x + self.forward(norm(x), cache, seeds, mask, memory)
        seen = x if memory is None else memory
        q, k, v = self.query(x), self.key(seen), self.value(seen)           # (B, T, C), (B, S, C) twice
        if cache is not None:
            return self.output(cache.attend(q, k, v))                       # (B, T, C): what came before, too
        q, k, v = (part.reshape(B, part.shape[1], self.heads, C // self.heads) for part in (q, k, v))
        y = attention(q, k, v, mask, own_seeds, **options)                  # (B, T, H, D)
        return self.output(y.reshape(B, T, C))                              # (B, T, C)


def as_one(x, *layers):
    """Whether layers are best applied to x (..., C) as one operation, mlp or self_attention: it is for many rows, and for
    matrices as they are in Linear. Of a few rows the time is that of reading the matrices: linear's own business."""
    return x.size > FEW * x.shape[-1] and all(type(layer) is Linear for layer in layers)


def of_norm(norm):
    """What an operation takes of a LayerNorm that it begins with: (scale, shift, eps). None: it begins with none."""
    return (None, None, 0.0) if norm is None else (norm.w, norm.b, norm.eps)


class MLP(Module):
    """The part of a block that treats each position alone: (B, T, C) -> (B, T, hidden) -> (B, T, C).

    approximate: GELU by tanh, as in GPT-2; False: by erf, as in BERT (ops/gelu.py). norm, of a forward: as for attention.
    """

    def __init__(self, rng, width, hidden, bias=True, output_std=0.02, approximate=True):
        self.approximate = approximate
        self.expand = Linear(rng, width, hidden, bias)
        self.output = Linear(rng, hidden, width, bias, output_std)

    def forward(self, x, norm=None):
        if self.approximate and as_one(x, self.expand, self.output):
            scale, shift, eps = of_norm(norm)
            return mlp(x, self.expand.w, self.expand.b, self.output.w, self.output.b, scale, shift, eps=eps)
        if norm is not None:
            return x + self.forward(norm(x))
        return self.output(gelu(self.expand(x), approximate=self.approximate))


class TiedHead(Module):
    """Logits from a stream of width C by the token table once more: (..., C) -> (..., V)."""

    def __init__(self, tokens):
        self.tokens = tokens

    def forward(self, x):
        return self.tokens.scores(x)
