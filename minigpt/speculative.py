"""Speculative decoding: a small model guesses, the large one checks several guesses for the price of one token.

A step of a large model takes the time in which its weights come from memory, whether it reads one token or five. So let
a small model, the draft, write k tokens, and let the large one, the target, read all of them in one step: it then knows
what it would have said at each place (Leviathan, Kalman, Matias 2023, Fast inference from transformers via speculative
decoding).

What comes out is distributed exactly as if the target had chosen every token. At one place, let p be the target's
distribution and q the draft's, both after the sampling rules, and x the draft's guess, drawn from q.

    (1)  keep x with probability  min(1, p(x) / q(x))
    (2)  otherwise draw from  r(x) = max(0, p(x) - q(x)) / R,     R = sum over x of max(0, p(x) - q(x))

That a given x comes out by (1) has probability q(x) min(1, p(x) / q(x)) = min(p(x), q(x)). So (1) keeps nothing with
probability 1 - sum of min(p, q) = sum of (p - min(p, q)) = R, and in total

    (3)  P(x) = min(p(x), q(x)) + R r(x) = min(p(x), q(x)) + max(0, p(x) - q(x)) = p(x)

After a guess that was not kept the later ones are worthless: they were made for another text. If all k were kept, the
target's distribution after the last of them gives one more, for nothing. So a round adds between 1 and k + 1 tokens, and
with a share a of guesses that are kept, independently, on average (1 - a^(k+1)) / (1 - a).

With temperature 0 both p and q are certain: a guess is kept if it is the target's likeliest, or replaced by it, and the
text is the very one that the target writes alone.
"""
import numpy as np

from .parallel import threads_for
from .reader import CHUNK, Crew, Reader
from .sampling import Text, ends_of, probabilities
from .settings import UserError


def kept(p, q, guess):
    """(1): the probability with which a guess is kept."""
    return min(1.0, p[guess] / q[guess])


def remaining(p, q):
    """(2): the distribution of what takes the place of a guess that was not kept."""
    r = np.maximum(p - q, 0)
    R = r.sum()
    return r / R if R > 0 else p                            # where p = q but for rounding, (1) keeps as good as everything


class Speculation:
    """A target and a draft that go on with one text. Use it as a context; a round adds 1 to guesses + 1 tokens.

    `guessed` and `accepted` count the guesses that were made and kept.
    """

    def __init__(self, target, draft, rules, chance, guesses=4, workers=None):
        if target.config.vocabulary_size != draft.config.vocabulary_size:
            raise UserError(f"the draft has {draft.config.vocabulary_size} tokens, and the model has "
                            f"{target.config.vocabulary_size}: they have to share a tokenizer")
        if not 1 <= guesses <= 7:
            raise UserError(f"guesses is {guesses}, but has to be between 1 and 7")     # 8 rows for the price of one
        self.rules, self.chance, self.guesses = rules, chance, guesses
        self.crew = Crew(workers or threads_for(target))
        self.target, self.draft = Reader(target, self.crew), Reader(draft, self.crew)
        self.context = min(target.config.context, draft.config.context)
        self.guessed = self.accepted = 0

    def __enter__(self):
        self.crew.__enter__()
        return self

    def __exit__(self, *exception):
        self.crew.__exit__(*exception)

    def generate(self, prompt, length):
        """Yield `length` tokens that follow the prompt, a sequence of at least one integer."""
        ids = list(map(int, prompt))
        if not ids:
            raise UserError("the prompt is empty: give at least one token to begin with")
        if len(ids) + length - 1 > self.context:
            raise UserError(f"{len(ids)} tokens of the prompt and {length} more do not fit a context of {self.context}: "
                            "speculation does not slide")
        for reader in self.target, self.draft:
            reader.rewind(0)
            for begin in range(0, len(ids) - 1, CHUNK):
                reader.read(0, ids[begin:min(begin + CHUNK, len(ids) - 1)])
        end = len(ids) + length
        while len(ids) < end:
            tokens = self.round(ids, min(self.guesses, end - len(ids) - 1))
            ids += tokens
            yield from tokens

    def text(self, tokenizer, prompt, length, stop=None):
        """Yield pieces of text after the prompt: `length` tokens, or up to the tokenizer's end of text or the text `stop`,
        which are left out."""
        text, end = Text(tokenizer, (stop,) if stop else ()), ends_of(tokenizer)
        for token in self.generate(tokenizer.encode(prompt), length):
            if token in end:
                break
            yield text.add(token)
            if text.stopped:
                return
        yield text.end()

    def round(self, ids, k):
        """The tokens that one step of the target adds to `ids`, with k guesses; both caches lack the last of `ids`."""
        guesses, q = self.guess(ids, k)
        logits = self.target.each([0], np.array([[ids[-1], *guesses]]))[0]              # (k + 1, V)
        tokens = self.check(guesses, q, [probabilities(row, self.rules) for row in logits])
        for reader in self.target, self.draft:              # forget what was read of guesses that were not kept
            reader.rewind(0, min(reader.length(0), len(ids) + len(tokens) - 1))
        self.guessed, self.accepted = self.guessed + k, self.accepted + len(tokens) - 1
        return tokens

    def guess(self, ids, k):
        """k tokens of the draft, and the distributions that they were drawn from."""
        unread, guesses, q = ids[self.draft.length(0):], [], []                         # one or two tokens
        for _ in range(k):
            q.append(probabilities(self.draft.each([0], np.array([unread]))[0, -1], self.rules))
            guesses.append(self.chance.choose(q[-1]))
            unread = guesses[-1:]
        return guesses, q

    def check(self, guesses, q, p):
        """The guesses that are kept, and the token of the target's that follows; p has one distribution more than q."""
        for i, guess in enumerate(guesses):
            if not self.chance.happens(kept(p[i], q[i], guess)):
                return [*guesses[:i], self.chance.choose(remaining(p[i], q[i]))]
        return [*guesses, self.chance.choose(p[-1])]
