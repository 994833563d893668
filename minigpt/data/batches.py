"""Batches: pieces of a long sequence of tokens, each with the tokens that come next as targets.

Everything here is a function of its arguments: batch(seed, step) is the same batch whenever it is asked for. So a run
that is resumed at step 1000 needs no position to be kept, and two runs of one seed see the same text.
"""
import numpy as np

from ..ops import fold_in
from ..settings import UserError

VALIDATION_SHARE = 0.1


def split(sequence, context, encode=lambda part: part):
    """(training, validation): the tokens of the first 90%, and of the last 10%.

    sequence: the tokens; or a text, with the `encode` of its tokenizer: then 90% are of the characters.
    Raises UserError where the first has no window of `context` tokens and a next one, or the second no two tokens.
    """
    end = len(sequence) - int(len(sequence) * VALIDATION_SHARE)
    training, validation = encode(sequence[:end]), encode(sequence[end:])
    if len(training) <= context or len(validation) < 2:
        needed = next(n for n in range(context, 3 * context + 30)
                      if n - int(n * VALIDATION_SHARE) > context and int(n * VALIDATION_SHARE) >= 2)
        raise UserError(f"the text has {len(training) + len(validation)} tokens, too few for a context of {context}: give one of at least "
                        f"{needed}, or a smaller --context")
    return training, validation


def batch(ids, context, size, seed, step):
    """Inputs and targets (size, context) of int64: windows that begin anywhere in `ids`, drawn from (seed, step)."""
    begins = np.random.default_rng([seed, step]).integers(len(ids) - context, size=size)
    places = begins[:, None] + np.arange(context)
    return ids[places], ids[places + 1]


def sequence_seeds(seed, step, size):
    """Dropout's seeds (size,) for the sequences of a step, each its own (ops/philox.py)."""
    of_step = fold_in(np.array([seed], np.uint64), n=step)
    return of_step + np.arange(size, dtype=np.uint64)


def windows(ids, context, size):
    """All tokens but the first, each predicted once: (inputs, targets) in batches of at most `size` windows.

    The windows do not overlap; what is left at the end is a shorter window of its own.
    """
    number = (len(ids) - 1) // context
    x, y = (ids[i:i + number * context].reshape(number, context) for i in (0, 1))
    for begin in range(0, number, size):
        yield x[begin:begin + size], y[begin:begin + size]
    if number * context < len(ids) - 1:
        yield ids[None, number * context:-1], ids[None, number * context + 1:]
