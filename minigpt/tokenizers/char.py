"""A character is a token: the simplest tokenizer there is.

Token i is the i-th character of the vocabulary. All that is learnt is which characters there are, and a text
of N characters is N tokens. The vocabulary of tiny Shakespeare has 65 characters.
"""

import numpy as np

from ..settings import UserError
from ._common import checked


class CharTokenizer:
    """Characters to numbers and back.

    characters: str, each character once; its position is its number. Anything else is a UserError.

        tokenizer = CharTokenizer.train("hello")        characters "ehlo"
        tokenizer.encode("hole")                        array([1, 3, 2, 0])
        tokenizer.decode([1, 3, 2, 0])                  "hole"
    """

    def __init__(self, characters):
        if not isinstance(characters, str) or not characters:
            raise UserError("a character tokenizer needs a text of at least one character: its vocabulary")
        if len(set(characters)) < len(characters):
            raise UserError("a character tokenizer's vocabulary has a character twice: each may stand once")
        self.characters = characters
        points = _code_points(characters)
        self._ids = np.argsort(points)              # the token of each of the ...
        self._sorted_points = points[self._ids]     # ... code points in rising order, for a binary search

    @classmethod
    def train(cls, text):
        """The tokenizer of exactly the characters of `text`, sorted. An empty text is a UserError."""
        return cls("".join(sorted(set(text))))

    @property
    def vocabulary_size(self):
        """The number of tokens, V."""
        return len(self.characters)

    def encode(self, text):
        """str of N characters -> int64 array (N,). Raises UserError for characters outside the vocabulary."""
        points = _code_points(text)
        places = np.searchsorted(self._sorted_points, points)
        places = np.minimum(places, self.vocabulary_size - 1)       # beyond the last: found unequal below
        unknown = self._sorted_points[places] != points
        if unknown.any():
            raise UserError(self._complaint(np.unique(points[unknown])))
        return self._ids[places]

    def decode(self, ids):
        """Integers of any shape, each in 0 ... V-1 -> str. Raises UserError for an integer outside."""
        return "".join([self.characters[i] for i in checked(ids, self.vocabulary_size)])

    def stream(self):
        """Something with `add(ids) -> str` and `end() -> str`, for text that comes token by token.

        What it returns, joined, is what decode gives for all the ids. Here each token is a whole character.
        """
        return CharStream(self)

    def to_dict(self):
        """What `tokenizers.from_dict` rebuilds this tokenizer from; plain JSON."""
        return {"type": "char", "characters": self.characters}

    @classmethod
    def from_dict(cls, content):
        """The tokenizer that to_dict described. Raises UserError where `content` is not of that form."""
        if content.keys() != {"type", "characters"}:
            raise UserError("a character tokenizer is stored as 'type' and 'characters', "
                            f"but here are {sorted(map(str, content))}")
        return cls(content["characters"])

    def _complaint(self, points):
        shown = ", ".join(repr(chr(point)) for point in points[:10])
        more = f" and {len(points) - 10} more" if len(points) > 10 else ""
        return (f"the text has characters outside the vocabulary of {self.vocabulary_size}: {shown}{more}; "
                "remove them, or train on a text that has them")


class CharStream:
    """The text of tokens as they come."""

    def __init__(self, tokenizer):
        self.add = tokenizer.decode

    def end(self):
        """What was held back: nothing, since a token is a character."""
        return ""


def _code_points(text):
    # "surrogatepass": half of a surrogate pair is no character, but is to be reported like one, not to crash.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
