"""A model that reads: texts into a key/value cache, on all cores of the machine.

What there is to do differs so much that it is split over the cores in different places:

    one token each, of up to 8 texts    The weights stream from memory, and that is all the time it takes. Each matrix is
                                        split, inside the kernel (ext/cpu/few_rows.h), over threads that wait for it.
    one token each, of more texts       Matrix products again: each thread takes some of the texts through the model.
    a prompt                            Each thread takes some of its positions through the model, fewer of the later ones,
                                        which have more to look back on. A position needs of earlier ones only keys and
                                        values, and these are in the cache: a thread waits, in each layer, until the one
                                        before it has written its own.

So the model is the one in models/, and knows nothing of it. A long prompt is read in chunks, to keep what a user can
interrupt short.
"""
import threading

import numpy as np

from .device import on_host
from .kernels import cpu
from .cache import FEW, CachedTexts
from .parallel import Threads, cores
from .tensor import no_grad

CHUNK = 512                         # positions that are read at a time
WORTH = 16                          # positions that are worth a thread


class Crew(Threads):
    """Worker threads for reading, and as many for the kernels of single tokens. A context, as Threads are."""

    def __init__(self, number=None):
        super().__init__(number or cores())

    def __enter__(self):
        self.threads_before = cpu.threads()
        cpu.set_threads(self.number)
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        cpu.set_threads(self.threads_before)


class Reader:
    """Reads texts, each in a slot of a cache, with the worker threads of a Crew."""

    def __init__(self, model, crew, slots=1):
        self.model, self.crew = model, crew
        self.cache = model.new_cache(slots)
        self.batch = None                                   # the texts of the last step, as they are often the same again

    def length(self, slot):
        """How many positions of a text are in the cache."""
        return int(self.cache.lengths[slot])

    def rewind(self, slot, length=0):
        """Forget all of a text but its first `length` positions."""
        self.cache.lengths[slot] = length
        self.batch = None

    def read(self, slot, ids):
        """Read a chunk of one text, at least one id: logits (V,) of what comes after it."""
        begin = self.length(slot)
        parts = max(1, min(self.crew.number, len(ids) // WORTH))
        ends = equal_work(begin, len(ids), parts, self.cache.k.shape[3] * self.cache.k.shape[4])
        texts = []
        for end in ends[:-1]:
            texts.append(PartOfText(self.cache, slot, begin + end, texts[-1] if texts else None))
        work = [(np.asarray([ids[i:j]], like=self.cache.k), text) for i, j, text in zip(ends, ends[1:], texts)]
        stream = self.crew.map(self.read_part, work)[-1] if parts > 1 else self.read_part(work[0])
        self.rewind(slot, begin + len(ids))
        with no_grad():
            return on_host(self.model.head(stream[:, -1:]).data[0, 0])

    def read_part(self, part):
        ids, text = part
        try:
            with no_grad():
                return self.model.stream(ids, text).data
        finally:
            text.let_others_go_on()

    def each(self, slots, ids):
        """Read T tokens of each of B texts, ids (B, T): logits (B, T, V)."""
        if len(slots) <= FEW:
            return self.logits(self.texts(tuple(slots)), ids)
        groups = np.array_split(np.arange(len(slots)), self.crew.number)
        work = [(self.cache.texts([slots[i] for i in group]), ids[group]) for group in groups if len(group)]
        return np.concatenate(self.crew.map(lambda part: self.logits(*part), work))

    def logits(self, texts, ids):
        with no_grad():
            return on_host(self.model(np.asarray(ids, like=self.cache.k), texts).data)

    def texts(self, slots):
        """The texts in these slots; the same object as in the last step, if they are the same."""
        if self.batch is None or self.batch[0] != slots:
            self.batch = slots, self.cache.texts(slots)
        return self.batch[1]


def equal_work(begin, number, parts, width):
    """Where to cut `number` positions from `begin` on, so that each part is as much work: [0, ..., number].

    In a block of width C, position p takes some 24 C^2 operations in products, and 4 C p in attention, at half the speed:
    in proportion to 3 C + p. Up to p that makes ((3 C + p)^2 - (3 C)^2) / 2.
    """
    first, last = (3 * width + begin) ** 2, (3 * width + begin + number) ** 2
    ends = [(first + (last - first) * part / parts) ** 0.5 - 3 * width - begin for part in range(1, parts)]
    return [0, *map(round, ends), number]


class PartOfText(CachedTexts):
    """Some positions of one text, for one thread of several: `before` is the part that ends where this one begins."""

    def __init__(self, cache, slot, begin, before):
        super().__init__(cache, np.array([slot]), np.array([begin]))
        self.before, self.done = before, [threading.Event() for _ in self.layers]

    def written(self, layer):
        """This part's keys and values of a layer are in the cache: those of all before it have to be, too."""
        if self.before is not None:
            self.before.done[layer].wait()
        self.done[layer].set()

    def advance(self, T):
        """Nothing: the text is longer when all of its parts are read."""

    def let_others_go_on(self):
        """Whatever became of this part, nobody has to wait for it any longer."""
        for done in self.done:
            done.set()
