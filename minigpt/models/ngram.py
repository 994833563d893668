"""The counting model that every network has to beat: interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998,
An empirical study of smoothing techniques for language modeling). Nothing is learnt by gradients: the text is counted.

The next token w is predicted from the k - 1 tokens before it, its context h, for k = 1 ... n, the order. h' is h without
its first token, v a token before h, and h. runs over everything that follows h: C(h.) = sum over w of C(hw).

    (1)  C(g) = how often g occurs in the text                                          for the longest g, of n tokens
    (2)  C(g) = number of different tokens seen before g, the text's beginning being one        for g of k < n tokens
    (3)  p(w | h) = (C(hw) - D(C(hw))) / C(h.)  +  r(h) p(w | h')                       where h was ever followed
    (4)  r(h) = sum over the w seen after h of D(C(hw)) / C(h.)                         so that (3) sums to one
    (5)  p(w | h) = p(w | h') where h was never followed;  below k = 1 stands the uniform p = 1 / V

Each count in (3) is cut by a discount D, and what was cut is given to the context that is one token shorter: it has seen
more, but less to the point.

Why (2): over all contexts vh of the text, the model should expect each hw as often as the text has it, c(hw) times.
With (3) and (4) for vh, raw counts c and a single D, this expectation is a sum over v:

         sum over v seen before hw of (c(vhw) - D)  +  p(w | h) D sum over v of (how many tokens were seen after vh)

The c(vhw) add up to c(hw), so the two parts with D cancel, and p(w | h) is proportional to the number of v seen before
hw: C(hw) of (2). "Francisco" may be frequent, but nobody expects it after a new word: it was only seen after "San".

Why the discounts depend on the count: how much less than i times will something be seen that was seen i times? Let m_i be
the number of g of this k with C(g) = i. Leave one occurrence out and predict it from the others: what was seen once
has become new, and gets its part of what is cut, M = D_1 m_1 + D_2 m_2 + ...; what was seen i + 1 times is left with i.
So the log-probability of all occurrences, left out in turn, is about

         m_1 log M + 2 m_2 log(1 - D_1) + 3 m_3 log(2 - D_2) + 4 m_4 log(3 - D_3) + ...         and a constant

and where its derivative by D_i is zero, m_1 m_i / M = (i + 1) m_(i+1) / (i - D_i). With Y = M / m_1 that is

    (6)  D_i = i - (i + 1) Y m_(i+1) / m_i                              for i = 1, 2, 3; D_3 serves all counts from 3 on
    (7)  Y = m_1 / (m_1 + 2 m_2)         if of M only D_1 m_1 is kept: then Y = D_1, which by (6) is 1 - 2 Y m_2 / m_1
    (8)  D_i = i / 2                     where (6) is not strictly between 0 and i, as on a text too small for it

By (8) something is always cut, so no probability is 0, and something always stays.

Cost: a sort of the text for each k. A g is stored as one integer, (rank of g without its last token) V + last token, and
these integers sorted: what follows a context stands side by side, and finding a g is a binary search.
"""
from dataclasses import dataclass

import numpy as np

from ..settings import UserError

END = np.iinfo(np.int64).max            # after all keys: a search for what is not there ends here at the latest


@dataclass(frozen=True)
class Level:
    """What is known of the G different sequences hw of one length k."""
    keys: np.ndarray                    # (G + 1,) rank of h among those of k - 1 tokens, times V, plus w; sorted; END
    share: np.ndarray                   # (G + 1,) the first term of (3) for hw; 0 for what was not seen
    rest: np.ndarray                    # (contexts + 1,) r(h); 1 for what was not seen

    def find(self, keys):
        """The ranks of sequences; for those that were never seen G, the place of the last entry of `share`."""
        places = np.searchsorted(self.keys, keys)
        return np.where(self.keys[places] == keys, places, len(self.keys) - 1)


class NGram:
    """Probabilities of the next token from counts; before `fit` every token is equally likely.

        model = NGram(vocabulary_size=65, order=7).fit(training)        arrays of tokens, integers in 0 ... V-1
        model.loss(validation)                                          mean surprise in nats
        model.distribution([20, 53, 1])                                 (V,) what may come next
    """

    def __init__(self, vocabulary_size, order=7):
        if vocabulary_size < 1 or order < 1:
            raise UserError(f"vocabulary_size is {vocabulary_size} and order {order}, but both have to be at least 1")
        self.vocabulary_size, self.order, self.levels = vocabulary_size, order, []

    def fit(self, ids):
        """Count a text, ids (N,), in place of what was counted before. Returns the model."""
        ids, V = self._checked(ids), self.vocabulary_size
        self.levels, contexts = [], 1
        keys, _, ranks = unique(ids)                                            # of the single tokens; ranks (N,)
        for k in range(1, self.order):
            longer, first, longer_ranks = unique(ranks[:-1] * V + ids[k:])      # of k + 1 tokens; ranks (N - k,)
            counts = np.bincount(ranks[first + 1], minlength=len(keys))         # (2)  each v hw once, at its hw
            counts[ranks[:1]] += 1                                              # (2)  the beginning
            self.levels.append(smoothed(keys, counts, contexts, V))
            keys, ranks, contexts = longer, longer_ranks, len(keys)
        counts = np.bincount(ranks, minlength=len(keys))                        # (1)
        self.levels.append(smoothed(keys, counts, contexts, V))
        return self

    def log_probabilities(self, ids):
        """log p of each token of ids (N,) but the first, given those before it, order - 1 at most: (N - 1,) float64."""
        ids, V = self._checked(ids), self.vocabulary_size
        p = np.full(len(ids), 1 / V)                                            # (5)
        contexts = np.zeros(len(ids), np.int64)         # the rank of the k tokens from each place on; of none it is 0
        for k, level in enumerate(self.levels):
            found = level.find(contexts * V + ids[k:])                          # (N - k,)
            p[k:] = level.share[found] + level.rest[contexts] * p[k:]           # (3), (5)
            contexts = found[:-1]
        return np.log(p[1:])

    def loss(self, ids):
        """Mean surprise in nats at the tokens of ids but the first."""
        if len(ids) < 2:
            raise ValueError(f"a loss needs two tokens at least, and these are {len(ids)}")
        return float(-self.log_probabilities(ids).mean())

    def distribution(self, context):
        """The probability of each token after `context` (any number of tokens): (V,) float64, its sum is one."""
        context, V = self._checked(context), self.vocabulary_size
        p = np.full(V, 1 / V)                                                   # (5)
        for k, level in enumerate(self.levels[:len(context) + 1]):
            h = self._rank(context[len(context) - k:])
            begin, end = np.searchsorted(level.keys, [h * V, (h + 1) * V])      # all hw that were seen
            p *= level.rest[h]                                                  # (3), (5)
            p[level.keys[begin:end] - h * V] += level.share[begin:end]          # (3)
        return p

    def known(self, context):
        """How many tokens at the end of `context` the next one is foretold from: the most that were ever followed by one."""
        context = self._checked(context)
        for k in range(min(len(context), len(self.levels) - 1), 0, -1):
            h = self._rank(context[len(context) - k:])
            begin, end = np.searchsorted(self.levels[k].keys, [h * self.vocabulary_size, (h + 1) * self.vocabulary_size])
            if begin < end:
                return k
        return 0

    def _rank(self, context):
        """The rank of a sequence among those of its length; of one that was never seen, their number."""
        h = 0
        for level, token in zip(self.levels, context.tolist()):
            h = int(level.find(h * self.vocabulary_size + token))
        return h

    def _checked(self, ids):
        ids = np.asarray(ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ValueError(f"tokens are integers in a row, not {ids.dtype} of shape {ids.shape}")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocabulary_size:
            raise IndexError(f"a token outside 0 ... {self.vocabulary_size - 1}")
        return ids.astype(np.int64)


def unique(keys):
    """The different keys, sorted; where each is met first; and for every key its rank among them."""
    return np.unique(keys, return_index=True, return_inverse=True)


def smoothed(keys, counts, contexts, V):
    """The Level of sequences with these keys and counts C; `contexts` is how many there are of one token less."""
    d = discounts(counts)[np.minimum(counts, 3)]                                # D(C(hw))
    h = keys // V
    total = np.bincount(h, counts, minlength=contexts + 1)                      # C(h.)
    cut = np.bincount(h, d, minlength=contexts + 1)
    rest = np.divide(cut, total, out=np.ones(contexts + 1), where=total > 0)    # (4), (5)
    return Level(np.append(keys, END), np.append((counts - d) / total[h], 0.0), rest)   # (3)


def discounts(counts):
    """[0, D_1, D_2, D_3] for the counts C of all sequences of one length."""
    m = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)      # m_i at i; what lies above 4 at 5
    i = np.arange(1, 4)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = i - (i + 1) * m[1] * m[i + 1] / ((m[1] + 2 * m[2]) * m[i])          # (6), (7)  exact where it is 0
    return np.append(0.0, np.where((d > 0) & (d < i), d, i / 2))                # (8)
