"""WordPiece, BERT's tokenizer: words are cut into the longest pieces that the vocabulary has (Devlin et al. 2019).

    clean     accents go, capitals become lower case, control characters vanish, all white space is a space
    words     at spaces; each punctuation mark and each Chinese character is a word by itself
    pieces    of a word, the longest beginning that is in the vocabulary; then the longest of the rest, which is written
              with "##" before it; and so on. A word for which that does not work out is [UNK], as a whole
    ends      [CLS] before the first piece, [SEP] behind the last

    "Tokenizers, naïve?"   ->   tokenizers , naive ?   ->   [CLS] token ##izer ##s , naive ? [SEP]

This is the uncased model's tokenizer: what is lost in cleaning is lost, and decoding gives the cleaned text back. What
each character becomes stands in the table of _unicode.py, as the library tokenizers has it; only the order of two
combining signs that are no accents (musical ones, say) is left as it is where Unicode would exchange them.
"""
from functools import cache
from pathlib import Path

import numpy as np

from ..settings import UserError
from ._common import Stream, at_special, checked, utf8
from ._unicode import IDEOGRAPHS, folded, members

LONGEST_WORD = 100                  # characters; a longer word is [UNK]
SPECIAL = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


@cache
def cleaned():
    """{code point: text} of all characters that do not stay as they are: str.translate's table, spaces around words."""
    table = folded()
    punctuation = members("punctuation")
    for first, last in IDEOGRAPHS:
        for point in range(first, last + 1):
            table[point] = f" {table.get(point, chr(point))} "
    for point in members("space"):
        table[point] = " "
    for point in members("removed"):
        table[point] = ""
    for point in punctuation:
        table.setdefault(point, chr(point))
    for point, text in table.items():
        if not punctuation.isdisjoint(map(ord, text)):              # folding may make punctuation
            table[point] = "".join(f" {c} " if ord(c) in punctuation else c for c in text)
    return table


def words_of(text):
    """The cleaned words of a text, a list of str."""
    return text.translate(cleaned()).split(" ")


class WordpieceTokenizer:
    """Words to the longest known pieces and back.

    pieces: list of str, each once; its position is its number. [UNK], [CLS] and [SEP] have to be among them; a piece
    that goes on a word begins with "##". Anything else is a UserError.

        tokenizer = WordpieceTokenizer(["[UNK]", "[CLS]", "[SEP]", "hug", "##s"])
        tokenizer.encode("Hugs!")                       array([1, 3, 4, 0, 2])
        tokenizer.decode([1, 3, 4, 0, 2])               "hugs [UNK]"
    """

    def __init__(self, pieces):
        if not isinstance(pieces, list) or not all(isinstance(piece, str) and piece for piece in pieces):
            raise UserError("WordPiece needs a list of pieces, none of them empty: its vocabulary")
        self.pieces, self._ids = pieces, {piece: number for number, piece in enumerate(pieces)}
        if len(self._ids) < len(pieces):
            raise UserError("WordPiece's vocabulary has a piece twice: each may stand once")
        missing = [piece for piece in SPECIAL[1:4] if piece not in self._ids]
        if missing:
            raise UserError(f"this is no vocabulary of BERT's WordPiece: it has no {missing[0]}")
        self.special = {piece: self._ids[piece] for piece in SPECIAL if piece in self._ids}

    @classmethod
    def load(cls, path):
        """From BERT's vocab.txt, one piece a line, or from the folder that it is in."""
        path = Path(path)
        path = path / "vocab.txt" if path.is_dir() else path
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise UserError(f"the vocabulary {path} can't be read: {error.strerror}") from None
        except ValueError:
            raise UserError(f"{path} is no vocabulary: it is not even text in UTF-8") from None
        return cls(lines[:-1] if lines[-1] == "" else lines)

    @property
    def vocabulary_size(self):
        """The number of tokens, V."""
        return len(self.pieces)

    def encode(self, text, allowed_special=()):
        """str -> int64 array (K,), [CLS] and [SEP] included.

        allowed_special: such of SPECIAL as stand for themselves in this text ("[MASK]", say), or "all".
        """
        utf8(text)                                                  # which has no half of a surrogate pair
        parts = at_special(text, self.special, allowed_special)
        ids = [self.special["[CLS]"]]
        for i, part in enumerate(parts):                            # every second one is a special token
            ids += [self.special[part]] if i % 2 else [n for word in words_of(part) if word for n in self.cut(word)]
        return np.array([*ids, self.special["[SEP]"]], np.int64)

    def cut(self, word):
        """The numbers of a word's pieces, the longest first that fits; of [UNK] alone where none fits."""
        ids, begin, mark = [], 0, ""
        if len(word) > LONGEST_WORD:
            return [self.special["[UNK]"]]
        while begin < len(word):
            end = next((end for end in range(len(word), begin, -1) if mark + word[begin:end] in self._ids), None)
            if end is None:
                return [self.special["[UNK]"]]
            ids.append(self._ids[mark + word[begin:end]])
            begin, mark = end, "##"
        return ids

    def decode(self, ids):
        """Integers of any shape, each in 0 ... V-1 -> str: words with spaces between them, without the special tokens."""
        return self._text(ids).removeprefix(" ")

    def stream(self):
        """A Stream, for tokens that come one by one."""
        first = True

        def text(ids):
            nonlocal first
            shown = self._text(ids)
            shown, first = shown.removeprefix(" ") if first else shown, first and not shown
            return shown.encode("utf-8")

        return Stream(text)

    def _text(self, ids):
        """The text of tokens, with a space before each word."""
        left_out = {self.special[piece] for piece in self.special if piece != "[UNK]"}
        shown = (self.pieces[i] for i in checked(ids, self.vocabulary_size) if i not in left_out)
        return "".join(piece[2:] if piece.startswith("##") and len(piece) > 2 else f" {piece}" for piece in shown)

    def to_dict(self):
        """What `tokenizers.from_dict` rebuilds this tokenizer from; plain JSON."""
        return {"type": "wordpiece", "pieces": self.pieces}

    @classmethod
    def from_dict(cls, content):
        """The tokenizer that to_dict described. Raises UserError where `content` is not of that form."""
        if content.keys() != {"type", "pieces"}:
            raise UserError(f"WordPiece is stored as 'type' and 'pieces', but here are {sorted(map(str, content))}")
        return cls(content["pieces"])
