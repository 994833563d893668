"""LoRA: a large model is fine-tuned by training small matrices beside its own (Hu et al. 2021, LoRA: low-rank adaptation of
large language models).

A layer x w keeps its matrix w (I, O), and a product of two thin ones is added, a (I, r) and b (r, O) of rank r:

    (1)  y = x w + s x a b,          s = alpha / r

b begins at 0, so the model begins as it was. Only a and b are trained: r (I + O) numbers instead of I O, for which
alone there are gradients and moments of an optimizer, and which alone have to be kept for each task. The assumption
behind it: what one task changes in w is a matrix of low rank. Afterwards

    (2)  w + s a b

takes w's place, and the model is what it was, no slower and no larger, with other numbers.
"""
import numpy as np

from .nn import Linear, Module, Parameter, flatten
from .ops import linear
from .settings import UserError


class LoRALinear(Module):
    """A linear layer with two thin matrices beside it (1): (..., I) -> (..., O)."""

    def __init__(self, rng, layer, rank, alpha):
        n_in, n_out = layer.w.shape
        self.layer, self.scale = layer, alpha / rank
        self.a = Parameter(n_in ** -0.5 * rng.standard_normal((n_in, rank), np.float32), "matrices")
        self.b = Parameter(np.zeros((rank, n_out), np.float32), "matrices")

    def forward(self, x):
        return self.layer(x) + linear(linear(x, self.a), self.b) * self.scale               # (1)

    def merged(self):
        """The layer alone, with (2) as its matrix."""
        self.layer.w.data += self.scale * (self.a.data @ self.b.data)                       # (2)
        return self.layer


def add_lora(model, rank=4, alpha=8.0, layers=("query", "value"), trained=(), seed=0):
    """Put thin matrices beside each linear layer of the model that has one of these names, and freeze all other parameters
    but those whose names begin with one of `trained`. Returns the model; merge_lora takes it back.

    Attention and an MLP, which hand the matrices of their layers to one operation, call a layer that has thin ones."""
    rng, dtype = np.random.default_rng(seed), model.flat.data.dtype
    places = [place for place in places_of(model, Linear) if place[1] in layers]
    if not places or rank < 1:
        raise UserError(f"LoRA of rank {rank} beside layers called {', '.join(layers)} can't be: the rank has to be at "
                        "least 1, and the model to have such layers")
    model.groups_without_lora = {name: p.group for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        if not name.startswith(tuple(trained)):
            p.group = "frozen"
    for module, name, layer in places:
        setattr(module, name, LoRALinear(rng, layer, rank, alpha))
    return flatten(model, dtype)


def merge_lora(model):
    """Have each layer do by its own matrix what it does with the thin ones (2), and free what was frozen. Returns the
    model."""
    dtype = model.flat.data.dtype
    for module, name, layer in places_of(model, LoRALinear):
        setattr(module, name, layer.merged())
    for name, p in model.named_parameters():
        p.group = model.groups_without_lora[name]
    del model.groups_without_lora
    return flatten(model, dtype)


def places_of(thing, kind):
    """(module, name of its attribute, what stands there) wherever that is of the kind, in all of a model."""
    found = []
    if isinstance(thing, (list, tuple)):
        return [place for part in thing for place in places_of(part, kind)]
    for name, value in vars(thing).items() if isinstance(thing, Module) else ():
        found += [(thing, name, value)] if isinstance(value, kind) else places_of(value, kind)
    return found
