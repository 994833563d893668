"""Sampling: from the model's logits to the next token, and from tokens to the text that is shown.

The rules, in the order in which they apply to the logits of the last position:

    temperature     logits / temperature: below 1 the likely gets likelier; 0 takes the likeliest, always
    top_k           only the k likeliest tokens; None or 0 is off, and so is a k above the size of the vocabulary
    top_p           only the likeliest tokens that together reach probability p ("nucleus", Holtzman et al. 2020)

Among tokens that are equally likely the one of lower number goes first, in all three. Log-probabilities, where they are
asked for, are those of the model itself, before any rule.
"""
import math
from dataclasses import dataclass

import numpy as np

from .settings import UserError

END_OF_TEXT = "<|endoftext|>"                               # the special token that GPT-2 was trained to end a text with


@dataclass(frozen=True)
class Rules:
    """How the next token is chosen. Raises UserError for rules that make no sense."""
    temperature: float = 1.0        # below 1 more of the likely, above 1 less; 0: always the likeliest
    top_k: int | None = None        # draw from the k likeliest tokens only (None or 0: off)
    top_p: float | None = None      # draw from the likeliest that together reach this probability (None or 1: off)

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature is {self.temperature}, but has to be 0 (the likeliest token) or a positive "
                            "number")
        if self.top_k is not None and self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}, but has to be a number of tokens (0 turns it off)")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}, but has to be above 0 and at most 1 (1 turns it off)")


def probabilities(logits, rules):
    """The distribution (V,) of float64 from which the next token is drawn, by the rules, from logits (V,)."""
    x = np.asarray(logits, np.float64)
    x = x - largest(x)
    if rules.temperature == 0:
        return np.eye(1, len(x), int(x.argmax()))[0]
    with np.errstate(over="ignore"):                        # close to 0 all but the likeliest become -inf, as they should
        x /= rules.temperature
    if rules.top_k and rules.top_k < len(x):
        x[~likeliest(x, rules.top_k)] = -np.inf
    p = np.exp(x)
    p /= p.sum()
    if rules.top_p is not None and rules.top_p < 1:
        p[~nucleus(p, rules.top_p)] = 0
        p /= p.sum()
    return p


def largest(logits):
    """The largest logit. UserError where it is not a finite number: then no token can be chosen."""
    m = logits.max()
    if not np.isfinite(m):                                  # a NaN anywhere is the maximum
        raise UserError(f"the model's largest logit is {m}: its weights are damaged, or too large for their numbers")
    return m


def likeliest(x, k):
    """Which of the numbers x (V,) are the k largest, a bool array; of equal ones those that stand first."""
    smallest = np.partition(x, len(x) - k)[len(x) - k]
    chosen = x > smallest
    chosen[np.flatnonzero(x == smallest)[:k - np.count_nonzero(chosen)]] = True
    return chosen


def nucleus(p, top_p):
    """Which tokens are the likeliest that together reach top_p: the fewest that do, a bool array.

    Sorting a whole vocabulary takes longer than all the rest. Tokens below (1 - top_p) / V have less than 1 - top_p
    together, so the others reach top_p without them, and only those need to be sorted.
    """
    candidates = np.flatnonzero(p >= (1 - top_p) / len(p))
    order = candidates[np.argsort(-p[candidates], kind="stable")]
    reached_before = np.cumsum(p[order]) - p[order]         # what the likelier ones reach without this one
    chosen = np.zeros(len(p), bool)
    chosen[order[reached_before < top_p]] = True
    return chosen


def log_probabilities(logits):
    """The logarithm of the model's own probabilities, (V,) of float64, from logits (V,)."""
    x = np.asarray(logits, np.float64)
    x = x - largest(x)
    return x - np.log(np.exp(x).sum())


def top(log_p, n):
    """The n likeliest tokens with their log-probabilities, [(token, log_p), ...], the likeliest first."""
    tokens = np.flatnonzero(likeliest(log_p, min(n, len(log_p)))) if n else np.zeros(0, int)
    order = tokens[np.argsort(-log_p[tokens], kind="stable")]
    return [(int(token), float(log_p[token])) for token in order]


class Chance:
    """Random choices that can be repeated: the same seed gives the same ones, in the same order."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def choose(self, p):
        """A number i with probability p[i]: the first whose running total is above a random share of the whole."""
        total = np.cumsum(p)
        i = int(np.searchsorted(total, self.rng.random() * total[-1], side="right"))
        return i if i < len(p) else int(np.flatnonzero(p)[-1])          # the product may have been rounded up

    def happens(self, probability):
        """True with this probability."""
        return self.rng.random() < probability


def next_token(logits, rules, chance):
    """The token that follows, from logits (V,)."""
    if rules.temperature == 0:
        x = np.asarray(logits)
        largest(x)
        return int(x.argmax())
    return chance.choose(probabilities(logits, rules))


def ends_of(tokenizer):
    """The tokens after which nothing follows: GPT-2's end of text, as a tuple, where a tokenizer (or None) has it."""
    special = getattr(tokenizer, "special", {})
    return (special[END_OF_TEXT],) if END_OF_TEXT in special else ()


class Text:
    """The text of a growing list of tokens, piece by piece, up to the first of the texts `stops`, which is left out.

    Held back are the bytes of a character that is not yet whole (the tokenizer's stream does that) and what could still
    become a stop text.
    """

    def __init__(self, tokenizer, stops=()):
        self.stream, self.stops = tokenizer.stream(), [stop for stop in stops if stop]
        self.held, self.stopped = "", False

    def add(self, token):
        """The text that is clear with one token more."""
        return self.clear(self.stream.add([token]))

    def end(self):
        """What was held back, when no more tokens come."""
        piece = "" if self.stopped else self.clear(self.stream.end())
        return piece if self.stopped else piece + self.release(len(self.held))

    def clear(self, piece):
        self.held += piece
        found = [place for place in (self.held.find(stop) for stop in self.stops) if place >= 0]
        if found:
            self.stopped = True
            return self.release(min(found))
        return self.release(len(self.held) - max((begun(self.held, stop) for stop in self.stops), default=0))

    def release(self, n):
        piece, self.held = self.held[:n], self.held[n:]
        return piece


def begun(text, stop):
    """How many characters at the end of a text are the beginning of `stop`, at most."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
