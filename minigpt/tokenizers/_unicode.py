"""Which characters are letters, numbers, spaces ...: one table, unicode.txt, for every Python and every machine.

Python's own `unicodedata` follows the version of Python: 3.11 knows Unicode 14, and takes 9,272 letters for something
else that the libraries tiktoken and tokenizers, with their Unicode 16, do not. A text would then be cut otherwise than
the text that the vocabulary was made from. tools/make_unicode_table.py writes the table; the two libraries agree on
letters, numbers and spaces, and the rest, which BERT's tokenizer needs, is as tokenizers has it.
"""
from functools import cache
from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("unicode.txt")
OTHER, LETTER, NUMBER, SPACE = range(4)             # the classes that GPT-2's pattern distinguishes
IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B81F),
              (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F))           # as tokenizers has them: BERT's began at 2B820


@cache
def sections():
    """{name: words} of the table."""
    found = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            words = found[line[1:line.index("]")]] = []
        elif not line.startswith("#"):
            words += line.split()
    return found


def points_of(word):
    """The code points that "41" or "41-5A" stands for."""
    first, _, last = word.partition("-")
    return range(int(first, 16), int(last or first, 16) + 1)


@cache
def classes():
    """uint8 array (0x110000,): the class of each code point, OTHER, LETTER, NUMBER or SPACE."""
    table = np.zeros(0x110000, np.uint8)
    for number, name in (LETTER, "letter"), (NUMBER, "number"), (SPACE, "space"):
        for word in sections()[name]:
            points = points_of(word)
            table[points.start:points.stop] = number
    table.flags.writeable = False                   # there is one for all
    return table


def members(name):
    """The set of code points of a class."""
    return {point for word in sections()[name] for point in points_of(word)}


def folded():
    """{code point: text} of the characters that lose their accents or become lower case."""
    found = {}
    for word in sections()["folded"]:
        points, _, result = word.partition(":")
        becomes = [int(c, 16) for c in result.split(",")]
        for i, point in enumerate(points_of(points)):
            found[point] = chr(becomes[0] + i) if len(becomes) == 1 else "".join(map(chr, becomes))
    for point in range(0xAC00, 0xD7A4):             # Hangul: initial, vowel and, but for every 28th, final
        syllable = point - 0xAC00
        parts = 0x1100 + syllable // 588, 0x1161 + syllable // 28 % 21, 0x11A7 + syllable % 28
        found[point] = "".join(map(chr, parts[:3 if syllable % 28 else 2]))
    return found
