"""The keys and values of what a model has read, kept for generating: each position's are computed once."""
import numpy as np

from .ops import attention, cached_attention, concatenate
from .tensor import Tensor

FEW = 8                             # rows, or queries, that kernels for single tokens take; for more, others are faster


class KeyValueCache:
    """The keys and values of the positions that a model has read, so that each of them is computed once.

    There are `slots` texts of at most `capacity` positions; lengths (slots,) says how many of each are there. The arrays
    are (layers, slots, capacity, H, D), of the dtype of `like` and in its place, as a model's parameters are. On a CPU
    memory is taken by positions that were written, not by those that could be.
    """

    def __init__(self, layers, slots, capacity, heads, head_width, like):
        self.k = np.zeros((layers, slots, capacity, heads, head_width), like.dtype, like=like)
        self.v = np.zeros(self.k.shape, like.dtype, like=like)
        self.lengths = np.zeros(slots, np.int64)

    capacity = property(lambda self: self.k.shape[2])

    def texts(self, slots=None):
        """The texts in these slots (all of them by default), to be handed to a model beside what follows in each."""
        slots = np.arange(len(self.lengths)) if slots is None else np.array(slots, np.int64)
        return CachedTexts(self, slots, self.lengths[slots])


class CachedTexts:
    """B texts in a cache, which a model reads on: text b lies in slots[b], and lengths[b] positions of it are there.

    begin: where the next position stands, a number, or a tuple of B where the texts differ. layers[i]: what layer i of
    the model is handed.
    """

    def __init__(self, cache, slots, lengths):
        self.cache, self.slots = cache, slots
        self.stand_at(lengths)
        self.layers = [CachedLayer(self, i, k, v) for i, (k, v) in enumerate(zip(cache.k, cache.v))]

    def stand_at(self, lengths):
        """Say how many positions of each text are there, an array (B,). Fewer than before: the last are forgotten."""
        self.lengths, begins = lengths, lengths.tolist()
        self.begin = begins[0] if len(set(begins)) == 1 else tuple(begins)
        self.longest = max(begins)

    def advance(self, T):
        """T positions of each text were read, by all layers."""
        self.stand_at(self.lengths + T)
        self.cache.lengths[self.slots] = self.lengths

    def written(self, layer):
        """Called when a layer's newest keys and values are in the cache; those that read a text in parts wait here."""


class CachedLayer:
    """One layer's keys and values of some texts, two arrays (slots, capacity, H, D)."""

    def __init__(self, texts, number, k, v):
        self.texts, self.number, self.k, self.v = texts, number, k, v

    begin = property(lambda self: self.texts.begin)

    def attend(self, q, k, v):
        """Causal attention of the T newest positions over all that there are: (B, T, H, D), or (B, T, H D), three times
        -> the same shape. What is read into a cache is not differentiated, so arrays do, which take less time to handle.

        A few queries are cached_attention's business; many are a matrix product, a text at a time.
        """
        texts, shape = self.texts, q.shape
        B, T = shape[:2]
        q, k, v = (x.data.reshape(B, T, *self.k.shape[2:]) for x in (q, k, v))
        self.write(k, v)
        texts.written(self.number)
        if T <= FEW:
            return Tensor(cached_attention(q, self.k, self.v, texts.slots, texts.lengths).reshape(shape))
        each = []
        for b, (slot, begin) in enumerate(zip(texts.slots.tolist(), texts.lengths.tolist())):
            seen = slice(slot, slot + 1), slice(0, begin + T)
            each.append(attention(q[b:b + 1], self.k[seen], self.v[seen]))
        return (concatenate(*each, axis=0) if len(each) > 1 else each[0]).reshape(*shape)

    def write(self, k, v):
        """Put the T newest keys and values of each text behind its older ones."""
        texts, T = self.texts, k.shape[1]
        if texts.longest + T > self.k.shape[1]:
            raise ValueError(f"the cache holds {self.k.shape[1]} positions of a text, not {texts.longest + T}")
        if len(texts.slots) == 1:
            where = int(texts.slots[0]), slice(texts.begin, texts.begin + T)
        else:
            where = np.asarray(texts.slots[:, None], like=k), positions(texts.begin, T, like=k)
        self.k[where], self.v[where] = k, v


def positions(begin, T, like):
    """The T positions from `begin` on, (T,); or (B, T) where begin is a tuple of B numbers. In the place of `like`."""
    if isinstance(begin, tuple):
        return np.asarray(np.add.outer(begin, np.arange(T)), like=like)
    return np.arange(begin, begin + T, like=like)
