"""How far does counting get? What follows which few characters (or words) in a text, counted, smoothed, and used.

    python examples/count.py                                    characters of Shakespeare: about ten seconds
    python examples/count.py --unit word --order 4              words instead
    python examples/count.py --sentence "To be, or not to be"   the probability of a sentence of yours, factor by factor
    python examples/count.py --data my.txt --order 9            any text of yours

The probability of a text is a product, whatever the model: p(S) = p(w1) p(w2 | w1) p(w3 | w1 w2) ... A model of n-grams
keeps of each condition only the last n - 1 tokens, and counts (minigpt/models/ngram.py: modified Kneser-Ney). The
program prints what each n reaches on text that was not counted, then the factors of a sentence, then text that it makes
up: each token drawn from the probabilities of what follows the ones before. The perplexity is e to the loss in nats: the
text is as surprising as if each token were drawn from so many that are equally likely.
"""
import math
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from minigpt.data import load_corpus, split
from minigpt.models.ngram import NGram
from minigpt.report import prepare_folder, write_results
from minigpt.sampling import Chance
from minigpt.settings import UserError, program
from minigpt.tokenizers import CharTokenizer

BIT = math.log(2)                   # nats
UNKNOWN = "<?>"                     # any word that was not counted
SHORTEST, LONGEST = 20, 60          # characters of a line that is shown where no sentence is given
WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]|\n")       # a word, a punctuation mark, or the end of a line


@dataclass(frozen=True)
class Settings:
    unit: Literal["char", "word"] = "char"      # what a token is
    order: int = 7                  # tokens in the longest n-gram
    sentence: str | None = None     # whose probability is shown factor by factor (none: a line that was not counted)
    length: int = 300               # tokens to make up
    seed: int = 1                   # of what is made up
    data: str | None = None         # a text file in UTF-8 (none: tiny Shakespeare)
    out: str | None = None          # folder for results.json

    presets: ClassVar[dict[str, dict]] = {"quick": {"order": 4, "length": 100}}

    def __post_init__(self):
        if not 1 <= self.order <= 100:
            raise UserError(f"order is {self.order}, but an n-gram has at least 1 token, and at most 100 here")
        if self.length < 1:
            raise UserError(f"length is {self.length}, but has to be at least 1")
        if self.sentence is not None and not self.sentence.strip():
            raise UserError("the sentence is empty: give at least one character")


class Words:
    """Words, punctuation marks and ends of lines as tokens; spaces are left out. What a text did not have is UNKNOWN."""

    def __init__(self, words):
        self.words = [UNKNOWN, *words]
        self.ids = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def train(cls, text):
        return cls(sorted(set(WORD.findall(text))))

    vocabulary_size = property(lambda self: len(self.words))

    def encode(self, text):
        return np.array([self.ids.get(word, 0) for word in WORD.findall(text)], np.int64)

    def decode(self, ids):
        """The words with spaces between, but none before most marks nor at the ends of lines."""
        text = " ".join(self.words[i] for i in ids)
        return re.sub(r" ?\n ?", "\n", re.sub(r" ([,.;:!?'])", r"\1", text))


def main(settings):
    corpus = load_corpus(settings.data, print)
    tokenizer, training, validation = tokens(settings, corpus)
    unit = "character" if settings.unit == "char" else "word"
    sentence = settings.sentence or a_line(split(corpus.text, settings.order)[1])
    if not len(tokenizer.encode(sentence)):                 # or an error, where it has characters that the text has not
        raise UserError(f"the sentence {sentence!r} has no {unit}s: give another --sentence")
    print(f"text      {corpus.source}\ntokens    {tokenizer.vocabulary_size:,} different {unit}s; {len(training):,} to "
          f"count, {len(validation):,} to measure by\n")
    losses = {}
    print(f"  n   nats a {unit}   bits a {unit}   perplexity")
    for order in range(1, settings.order + 1):
        model = NGram(tokenizer.vocabulary_size, order).fit(training)
        losses[order] = loss = model.loss(validation)
        print(f"{order:3}   {loss:{7 + len(unit)}.4f}   {loss / BIT:{7 + len(unit)}.3f}   {math.exp(loss):10.1f}", flush=True)
    unknown = float((validation == 0).mean()) if settings.unit == "word" else 0.0
    if unknown:
        print(f"\n{unknown:.1%} of the words to measure by were not counted, and stand there as {UNKNOWN}")
    log_p = show_factors(model, tokenizer, sentence, unit)
    made_up = tokenizer.decode(write(model, settings.length, Chance(settings.seed)))
    print(f"\nmade up, {settings.length} {unit}s:\n\n{made_up}")
    if settings.out:
        write_results(prepare_folder(settings.out), {
            "corpus": corpus.name, "corpus_sha256": corpus.sha256, "unit": settings.unit, "order": settings.order,
            "vocabulary_size": tokenizer.vocabulary_size, "losses": losses, "unknown": unknown,
            "sentence": sentence, "log_probability": log_p, "made_up": made_up})


def tokens(settings, corpus):
    """The tokenizer, and the tokens to count and to measure by. Words have to be known from what is counted."""
    if settings.unit == "char":
        tokenizer = CharTokenizer.train(corpus.text)
        return tokenizer, *split(tokenizer.encode(corpus.text), settings.order)
    counted, measured = split(corpus.text, settings.order)
    tokenizer = Words.train(counted)
    training, validation = tokenizer.encode(counted), tokenizer.encode(measured)
    if len(training) < 2 or len(validation) < 2:
        raise UserError(f"the text has {len(training) + len(validation)} words, too few to count and to measure: give a "
                        "longer one, or --unit char")
    return tokenizer, training, validation


def a_line(text):
    """The first line that is worth showing, or its beginning."""
    whole = [line.strip() for line in text.splitlines()[1:]]                # the first line may lack its beginning
    return next((line for line in whole if len(line) >= SHORTEST), text.strip())[:LONGEST]


def show_factors(model, tokenizer, sentence, unit):
    """Print p(S) factor by factor. Returns its logarithm."""
    ids, log_p = tokenizer.encode(sentence), 0.0
    print(f"\np({sentence!r}), factor by factor: each {unit} after what was known before it\n")
    for n, token in enumerate(ids.tolist()):
        p = model.distribution(ids[:n])[token]
        log_p += math.log(p)
        seen = ids[n - model.known(ids[:n]):n]
        shown = tokenizer.decode(seen).replace("\n", "\\n")
        print(f"  p({tokenizer.decode([token])!r:>12} | {shown!r:<30}) = {p:9.6f}   ln p(S) = {log_p:9.3f}")
    print(f"\n  p(S) = exp({log_p:.3f}) = 10^{log_p / math.log(10):.1f}; {-log_p / len(ids):.3f} nats, "
          f"{-log_p / len(ids) / BIT:.3f} bits a {unit}")
    return log_p


def write(model, length, chance):
    """`length` tokens, each drawn from what follows those before it."""
    ids = []
    for _ in range(length):
        recent = np.array(ids[len(ids) - min(len(ids), model.order - 1):], np.int64)
        ids.append(chance.choose(model.distribution(recent)))
    return ids


if __name__ == "__main__":
    program(main, Settings)
