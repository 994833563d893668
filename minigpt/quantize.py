"""Quantisation: a trained model whose matrices are of integers, to be read and written faster (ops/quantized_linear.py).

    int8    8.5 bits a weight: all matrices
    int4    4.5 bits a weight: the matrices of the blocks. Tables of vectors, and the head, stay int8

In both, the vectors (norms' scales, shifts) stay float32; there are few. The table of tokens says what each token is and,
where it is the head as well, which one comes next: an error in it is an error of every token. Of such a table one row a
token is read, but all of a head: in GPT-2 it is 31% of the weights, and at int4 nearly half of the bytes.

    quantize(model, "int4")                             the same object, with other layers

It computes on a CPU, in float32, and can't learn: all its parameters are frozen. What it lost depends on the model, a
small one the more; so nobody should say int4 without what it did to the loss, on which text:

    record = quantize_and_compare(model, "int4", loss, "the last tenth of tiny Shakespeare")
    print(record)                                       bytes and loss, before and after

The record is kept with the model, model.quantized, and saved with it (checkpoint.py). Two ways through such a model that
are the same but for rounding, such as with and without the cache, differ by more than floats' own rounding: where a number
of the stream lies between two integers, the last bit decides which one it becomes. Rows of one product never depend on
each other, though, so a text's logits are the same bits in any company that is read in the same pieces.
"""
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .nn import LINE, Embedding, Linear, Module, aligned, flatten, walk
from .ops.quantized_linear import (COLUMNS, GROUP, dequantize_matrix, quantize_matrix, quantized_linear,
                                   quantized_rows)
from .settings import UserError
from .tensor import Tensor, recording

KINDS = {"int8": 8, "int4": 4}                              # bits of an integer


@dataclass(frozen=True)
class Record:
    """What quantisation did to a model. The losses are None where nobody measured them."""
    kind: Literal["int8", "int4"]
    bytes: int                              # of all that the model consists of
    bytes_float32: int                      # the same before
    loss: float | None = None               # in nats a token
    loss_float32: float | None = None       # the same before
    text: str | None = None                 # on which text that is

    def __post_init__(self):
        numbers = [self.bytes, self.bytes_float32, *(x for x in (self.loss, self.loss_float32) if x is not None)]
        if not all(0 < x < math.inf for x in numbers):
            raise UserError("what quantisation did to a model has to be told in numbers above 0")

    @property
    def measured(self):
        return None not in (self.loss, self.loss_float32, self.text)

    def __str__(self):
        line = f"{self.kind}: {self.bytes:,} bytes, {self.bytes / self.bytes_float32:.1%} of float32's; "
        if not self.measured:
            return line + "what that did to the loss was not measured"
        return line + (f"loss {self.loss:.4f}, float32's {self.loss_float32:.4f} ({self.loss / self.loss_float32 - 1:+.2%}), "
                       f"on {self.text}")


class QuantizedMatrix:
    """A matrix (n_in, n_out) = shape as integers `q` and `scales`; zeros until it is filled."""

    def __init__(self, shape, bits):
        panels, groups = -(-shape[1] // COLUMNS), -(-shape[0] // GROUP)
        self.shape = shape
        self.q = np.zeros((panels, groups * bits, COLUMNS, 4), np.int8 if bits == 8 else np.uint8)
        self.scales = np.zeros((panels, groups, COLUMNS), np.uint16)

    arrays = property(lambda self: {"q": self.q, "scales": self.scales})

    def __deepcopy__(self, memo):
        return self                                         # nobody writes to it: replicas share it

    def round(self, w):
        """Become the nearest to w (n_in, n_out), finite floats."""
        self.q[...], self.scales[...] = quantize_matrix(w, 8 if self.q.dtype == np.int8 else 4)

    def multiplied(self, x, b=None):
        """x w + b as a Tensor. x (..., n_in): a Tensor or an array."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        if recording.get() and x.requires_grad:
            raise RuntimeError("a quantised matrix hands no gradient on: use it within no_grad()")
        return Tensor(quantized_linear(x.data, self.q, self.scales, None if b is None else b.data, n_out=self.shape[1]))

    def floats(self):
        """The matrix of float32 that it stands for."""
        return dequantize_matrix(self.q, self.scales, self.shape)


class QuantizedLinear(Module):
    """nn.Linear with a matrix of integers."""

    def __init__(self, layer, bits):
        self.w, self.b = QuantizedMatrix(layer.w.shape, bits), layer.b

    def forward(self, x):
        return self.w.multiplied(x, self.b)


class QuantizedEmbedding(Module):
    """nn.Embedding with a table of integers of 8 bits. It is kept as its transpose, (width, number), as a head needs it."""

    def __init__(self, layer):
        self.w = QuantizedMatrix(layer.w.shape[::-1], KINDS["int8"])

    def forward(self, ids):
        if ids.size and not 0 <= ids.min() <= ids.max() < self.w.shape[1]:
            raise IndexError(f"embedding: an id is outside the table's 0 ... {self.w.shape[1] - 1}")
        return Tensor(quantized_rows(self.w.q, self.w.scales, ids, self.w.shape[0]))

    def scores(self, x):
        return self.w.multiplied(x)


def quantize(model, kind):
    """Replace the layers of a model by those of integers, in place, and return it. kind: "int8" or "int4"."""
    check(model, kind)
    for name, p in model.named_parameters():
        if not np.isfinite(p.data).all():
            raise UserError(f"{name} holds numbers that are not finite (nan or inf): they can't be quantised")
    before = model.flat.data.nbytes

    def fill(layer, quantized):
        w = layer.w.data
        quantized.w.round(w.T if isinstance(layer, Embedding) else w)

    replace_layers(model, kind, fill)
    model.quantized = Record(kind, sum(array.nbytes for array in arrays_of(model).values()), before)
    return model


def prepare(model, record):
    """The model as it is after quantize, with zeros for all integers: the saved ones follow."""
    check(model, record.kind)
    replace_layers(model, record.kind, lambda layer, quantized: None)
    model.quantized = record
    return model


def check(model, kind):
    """Raise UserError where a model can't be quantised."""
    if kind not in KINDS:
        raise UserError(f"there is no quantisation {kind!r}, but {' and '.join(KINDS)}")
    if model.quantized is not None:
        raise UserError(f"the model is of {model.quantized.kind} already: quantise the one of floats")
    if not isinstance(model.flat.data, np.ndarray):
        raise UserError("a model on a GPU can't be quantised: leave --device cuda out")
    if model.flat.data.dtype != np.float32:
        raise UserError(f"a model of {model.flat.data.dtype} can't be quantised, only one of float32")
    layers = {id(layer.w) for _, layer in walk(model, "", (Linear, Embedding))}
    loose = [name for name, p in model.named_parameters() if p.ndim > 1 and id(p) not in layers]
    if loose:
        raise UserError(f"a {model.name} can't be quantised: {loose[0]} is no linear layer's matrix nor a table")


def replace_layers(model, kind, fill):
    """The model with other layers; fill(layer, quantized) is called for each. One that stands twice still does."""
    replaced = {}

    def replacement(thing):
        if isinstance(thing, (Linear, Embedding)):
            if id(thing) not in replaced:
                new = quantized_layer(thing, kind)
                fill(thing, new)
                replaced[id(thing)] = thing, new            # with the old one, so that its id stays its own
            return replaced[id(thing)][1]
        if isinstance(thing, Module):
            for key, value in vars(thing).items():
                setattr(thing, key, replacement(value))
        elif isinstance(thing, list):
            thing[:] = map(replacement, thing)
        return thing

    replacement(model)
    for _, p in model.named_parameters():
        p.group = "frozen"
    lay_out([new.w for _, new in replaced.values()])
    return flatten(model)


def lay_out(matrices):
    """Move the arrays of all matrices into one block, each to where a line of the cache begins."""
    places, end = [], 0
    for matrix in matrices:
        for part, array in matrix.arrays.items():
            places.append((matrix, part, array, end))
            end += -(-array.nbytes // LINE) * LINE
    block = aligned(end)
    for matrix, part, array, begin in places:
        view = block[begin:begin + array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        setattr(matrix, part, view)


def quantized_layer(layer, kind):
    """The empty counterpart of a layer. A head's matrix is a table of vectors, too, and says so by its group."""
    if isinstance(layer, Embedding):
        return QuantizedEmbedding(layer)
    return QuantizedLinear(layer, KINDS["int8" if layer.w.group == "embeddings" else kind])


def arrays_of(model):
    """All that a model consists of, by name: its parameters, and the integers and scales of quantised matrices."""
    found = {name: p.data for name, p in model.flat.parameters.items()}
    seen = set()
    for name, matrix in walk(model, "", QuantizedMatrix):
        if id(matrix) not in seen:
            seen.add(id(matrix))
            found |= {f"{name}.{part}": array for part, array in matrix.arrays.items()}
    return found


def has_valid_scales(model):
    """Whether all scales of a model's quantised matrices are finite, and none is negative."""
    infinity = 0x7F80                                       # of bfloat16; nan and whatever is negative is above it
    return all((matrix.scales < infinity).all() for _, matrix in walk(model, "", QuantizedMatrix))


def quantize_and_compare(model, kind, loss, text):
    """Quantise a model in place, and return the Record of what that did, which is model.quantized as well.

    loss(model): in nats a token. text: says on which text, in which context.
    """
    check(model, kind)
    before = float(loss(model))
    rough = quantize(model, kind).quantized
    model.quantized = Record(kind, rough.bytes, rough.bytes_float32, float(loss(model)), before, text)
    return model.quantized
