"""What the tokenizers share: the checks of what comes in, special tokens in a text, and text from tokens as they come."""
import codecs
import re

import numpy as np

from ..settings import UserError


def utf8(text):
    """A text as bytes. Raises UserError for half of a surrogate pair, which Python's str can hold."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}, at character {error.start}"
        raise UserError(f"the text has half of a surrogate pair ({half}), which is no character: remove it, or read the "
                        "text anew as UTF-8") from None


def checked(ids, vocabulary_size):
    """Integers of any shape as a list. Raises UserError where one of them is no token of this vocabulary."""
    ids = np.asarray(ids).reshape(-1)
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise UserError(f"tokens are integers, and these are {ids.dtype}: decode what encode returned")
    outside = ids[(ids < 0) | (ids >= vocabulary_size)]
    if outside.size:
        raise UserError(f"token {outside[0]} is outside the vocabulary of {vocabulary_size} tokens: these tokens belong "
                        "to another tokenizer")
    return ids.tolist()


def at_special(text, special, allowed):
    """A text cut at its special tokens: [text, special token, text, ...]; every second one is a special token.

    special: those that there are. allowed: those that count here, or "all"; of two at one place, the longer one.
    """
    allowed = special if allowed == "all" else allowed
    unknown = sorted(set(allowed) - set(special))
    if unknown:
        raise UserError(f"{unknown[0]!r} is no special token of this tokenizer, which has "
                        f"{', '.join(map(repr, special)) or 'none'}")
    if not allowed:
        return [text]
    return re.split(f"({'|'.join(map(re.escape, sorted(allowed, key=len, reverse=True)))})", text)


class Stream:
    """Turns tokens into the text that is certain already, and holds back the first bytes of a character.

        stream = tokenizer.stream()
        for token in tokens:
            print(stream.add([token]), end="")
        print(stream.end())

    What it returns, put together, is tokenizer.decode of all the tokens.
    """

    def __init__(self, decode_bytes):
        self._decode_bytes, self._utf8 = decode_bytes, codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, ids):
        """The text that these tokens make certain."""
        return self._utf8.decode(self._decode_bytes(ids))

    def end(self):
        """What was held back: nothing, or the sign that bytes of a character were missing."""
        return self._utf8.decode(b"", True)
