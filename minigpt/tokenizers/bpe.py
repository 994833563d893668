"""Byte-level BPE, GPT-2's tokenizer: frequent pieces of words are tokens (Sennrich et al. 2016; Radford et al. 2019).

A text is a row of bytes in UTF-8, and each of the 256 bytes is a token. So no text is unknown. What stands together
often becomes a token of its own, "byte-pair encoding":

    train     cut the text into words; count all pairs of neighbouring tokens within words; the most frequent one becomes
              a new token, everywhere; and again, until there are as many tokens as wanted. Of pairs that are equally
              frequent, the one whose left token has the lower number comes first, then the one whose right has
              (as in the library tokenizers, so that the merges are the same)
    encode    cut the text into words; in each, merge the pair that was learnt first, the leftmost of several; and again,
              until no pair is left that was learnt
    decode    put the bytes of the tokens in a row; what is no UTF-8 becomes U+FFFD, the sign for that

For example, in "hug hug pug" the pair u g is there three times: ug becomes a token; then h ug, twice. With these two
merges, "hug" is one token and "mug" is two, m ug.

Words are what PATTERN finds: a word with the space before it, digits, other signs, white space. A merge never crosses
them: "dog" and "dog." share their first token. Tokens have the numbers that GPT-2 and tokenizers give them: first the
bytes, those that print before those that don't; then the merges as they were learnt; then the special tokens, such as
<|endoftext|>, which no text has unless it is asked for (`allowed_special`).

The functions on arrays are here in Python, to be read, and in ext/cpu/bpe.pyx, for speed; without compiled kernels these
do. They give the same tokens.
"""
import json
import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np

from ..op import kernel
from ..report import write_text
from ..settings import UserError
from . import _bpe_files as files
from ._common import Stream, at_special, checked, utf8
from ._unicode import classes

# GPT-2's pattern, 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+, for a text in which a
# stand-in of its class takes the place of each character beyond ASCII. The last but one leaves the last space to a word.
PATTERN = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^A-Za-z0-9\s]+|\s+(?!\S)|\s+", re.ASCII)
STAND_INS = np.frombuffer(b"!A0\n", np.uint8)       # of OTHER, LETTER, NUMBER, SPACE


def split_words(text, classes):
    """Where the words of a text end: int64 (W,), rising to N.

    text: uint8 (N,), UTF-8; a byte that is none counts as a sign. classes: uint8 (0x110000,), as in _unicode.py.
    """
    decoded = text.tobytes().decode("utf-8", "surrogateescape")     # a byte that is no UTF-8: half of a surrogate pair
    points = np.frombuffer(decoded.encode("utf-32-le", "surrogatepass"), "<u4")
    shadow = np.where(points < 128, points, STAND_INS[classes[points]]).astype(np.uint8).tobytes().decode("ascii")
    escaped = (points >= 0xDC80) & (points < 0xDD00)
    lengths = np.where(escaped, 1, 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000))
    byte_ends = np.cumsum(lengths)
    return byte_ends[[match.end() - 1 for match in PATTERN.finditer(shadow)]].astype(np.int64)


def learn_merges(text, ends, alphabet, *, number):
    """The pairs that training merges, in order: int64 (M, 2), M <= number; fewer where no pair is left.

    text: uint8 (N,). ends: int64 (W,), where its words end. alphabet: int64 (256,), the token of each byte.
    Merge i makes token 256 + i.
    """
    times = Counter(words_of(text, ends))
    words = [tuple(alphabet[list(word)].tolist()) for word in times]
    times, counts, where = list(times.values()), Counter(), defaultdict(set)

    def count(w, sign):                             # the pairs of word w come, or go
        for pair in pairwise(words[w]):
            counts[pair] += sign * times[w]
            where[pair].add(w)

    for w in range(len(words)):
        count(w, 1)
    merges = []
    while len(merges) < number:
        pair = max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]), default=None)
        if pair is None or counts[pair] < 1:
            break
        for w in where.pop(pair):
            count(w, -1)
            words[w] = merged(words[w], pair, 256 + len(merges))
            count(w, 1)
        merges.append(pair)
    return np.array(merges, np.int64).reshape(-1, 2)


def merged(word, pair, new):
    """A word, a tuple of tokens, with the token `new` wherever the pair stands, from left to right."""
    result = []
    for token in word:
        if result and (result[-1], token) == pair:
            result[-1] = new
        else:
            result.append(token)
    return tuple(result)


def encode_words(text, ends, alphabet, merges, *, prepared):
    """The tokens of a text: int64 (K,).

    text, ends, alphabet: as above. merges: int64 (M, 3), left, right and the token they become, in the order in which
    they were learnt. prepared: a dict, empty at first, where each version keeps what it makes of the merges.
    """
    if "ranks" not in prepared:
        prepared["ranks"] = {(left, right): (rank, new) for rank, (left, right, new) in enumerate(merges.tolist())}
    ranks, ids = prepared["ranks"], []
    for word in words_of(text, ends):
        ids += merge_word(alphabet[list(word)].tolist(), ranks)
    return np.array(ids, np.int64)


def merge_word(word, ranks):
    """The tokens of a word, from those of its bytes. ranks: {(left, right): (when it was learnt, the token)}."""
    never = len(ranks), None
    while len(word) > 1:
        (rank, new), i = min((ranks.get(pair, never), i) for i, pair in enumerate(pairwise(word)))
        if new is None:
            break
        word = [*word[:i], new, *word[i + 2:]]
    return word


def words_of(text, ends):
    """The words as bytes, one after the other."""
    data, begin = text.tobytes(), 0
    for end in ends.tolist():
        yield data[begin:end]
        begin = end


split_words, learn_merges, encode_words = kernel(split_words), kernel(learn_merges), kernel(encode_words)


class BpeTokenizer:
    """Byte-level BPE. Most callers want `train` or `load`.

    vocabulary: {token: number}, and merges: [(token, token)], the first learnt first; tokens in the printable alphabet
    of _bpe_files.py. special: {text: number}. All numbers together are 0 ... V-1. Anything else is a UserError.

        tokenizer = BpeTokenizer.train("hug hug pug", 258)
        tokenizer.encode("hug")                         array([257]), where 256 is "ug"
        tokenizer.decode([71, 257])                     "hhug"
    """

    def __init__(self, vocabulary, merges, special=None):
        self.vocabulary, self.merges, self.special = vocabulary, merges, dict(special or {})
        self._tokens = _tokens(vocabulary, self.special)
        missing = [byte for byte, character in files.ALPHABET.items() if character not in vocabulary]
        if missing:
            raise UserError(f"byte-level BPE has a token for each of the 256 bytes, and this one has none for {missing[0]}")
        self._alphabet = np.array([vocabulary[files.ALPHABET[byte]] for byte in range(256)], np.int64)
        self._rows = _rows(vocabulary, merges)
        self._prepared = {}

    @classmethod
    def train(cls, text, vocabulary_size, special=()):
        """Learn from a text the merges for a vocabulary of this size, special tokens (texts) included.

        Where the text has too little to merge, the vocabulary is smaller. Raises UserError for a size too small.
        """
        number = vocabulary_size - 256 - len(special)
        if number < 0:
            raise UserError(f"a vocabulary of {vocabulary_size} is too small: byte-level BPE has at least the 256 bytes"
                            + (f" and {len(special)} special tokens" if special else ""))
        data = np.frombuffer(utf8(text), np.uint8)
        alphabet = np.argsort(files.ORDER)                          # the byte ORDER[i] is token i
        pairs = learn_merges(data, split_words(data, classes()), alphabet, number=number)
        tokens, merges = [files.ALPHABET[byte] for byte in files.ORDER], []
        for left, right in pairs.tolist():
            merges.append((tokens[left], tokens[right]))
            tokens.append(tokens[left] + tokens[right])
        special = {text: len(tokens) + i for i, text in enumerate(special)}
        return cls({token: number for number, token in enumerate(tokens)}, merges, special)

    @classmethod
    def load(cls, path):
        """From a tokenizer.json, from GPT-2's encoder.json beside its vocab.bpe, or from a folder with either."""
        return cls(*files.read(path))

    def save(self, path):
        """Write a tokenizer.json, which the library tokenizers loads as well."""
        content = files.to_json(self.vocabulary, self.merges, self.special)
        write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    @property
    def vocabulary_size(self):
        """The number of tokens, V."""
        return len(self._tokens)

    def encode(self, text, allowed_special=()):
        """str -> int64 array (K,). Raises UserError for half of a surrogate pair, which is no character.

        allowed_special: the texts that stand for special tokens here, or "all"; the others are texts like any other.
        """
        parts = at_special(text, self.special, allowed_special)
        return np.concatenate([np.array([self.special[part]]) if i % 2 else self.encode_bytes(utf8(part))
                               for i, part in enumerate(parts)])

    def encode_bytes(self, data):
        """bytes, which need not be UTF-8 -> int64 array (K,)."""
        data = np.frombuffer(data, np.uint8)
        return encode_words(data, split_words(data, classes()), self._alphabet, self._rows, prepared=self._prepared)

    def decode(self, ids):
        """Integers of any shape, each in 0 ... V-1 -> str; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids):
        """Integers of any shape, each in 0 ... V-1 -> bytes. Raises UserError for an integer outside."""
        return b"".join([self._tokens[i] for i in checked(ids, self.vocabulary_size)])

    def stream(self):
        """A Stream, for tokens that come one by one."""
        return Stream(self.decode_bytes)

    def to_dict(self):
        """What `tokenizers.from_dict` rebuilds this tokenizer from: the content of a tokenizer.json."""
        return {"type": "bpe", "tokenizer": files.to_json(self.vocabulary, self.merges, self.special)}

    @classmethod
    def from_dict(cls, content):
        """The tokenizer that to_dict described. Raises UserError where `content` is not of that form."""
        if content.keys() != {"type", "tokenizer"}:
            raise UserError(f"byte-level BPE is stored as 'type' and 'tokenizer', but here are {sorted(map(str, content))}")
        return cls(*files.from_json(content["tokenizer"], "the stored tokenizer"))


def _tokens(vocabulary, special):
    """The bytes of each token, by number."""
    numbers = vocabulary | special
    if any(number != vocabulary.get(token, number) for token, number in special.items()):
        raise UserError("a special token has another number in the vocabulary than among the special tokens")
    if not all(type(number) is int for number in numbers.values()) or sorted(numbers.values()) != list(range(len(numbers))):
        raise UserError(f"the numbers of {len(numbers)} tokens have to be 0 to {len(numbers) - 1}, each once, and are not")
    tokens = [b""] * len(numbers)
    for token, number in vocabulary.items():
        try:
            tokens[number] = bytes([files.BYTES[character] for character in token])
        except KeyError as error:
            if token not in special:
                raise UserError(f"the token {token!r} is not written in the alphabet of byte-level BPE, which has no "
                                f"{error.args[0]!r}") from None
    for text, number in special.items():
        tokens[number] = utf8(text)
    return tokens


def _rows(vocabulary, merges):
    """int64 (M, 3): the numbers of left, right and what they become."""
    try:
        rows = [(vocabulary[left], vocabulary[right], vocabulary[left + right]) for left, right in merges]
    except (KeyError, TypeError):
        raise UserError("a merge of this tokenizer is not of two tokens of its vocabulary that make a third one") from None
    if len(set(merges)) < len(merges):
        raise UserError("a merge stands twice among the merges of this tokenizer: each may stand once")
    return np.array(rows, np.int64).reshape(-1, 3)
