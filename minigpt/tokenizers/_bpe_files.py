"""The files of byte-level BPE: GPT-2's encoder.json with vocab.bpe, and tokenizer.json of the library tokenizers.

In all of them a token is written in an alphabet of 256 printable characters, one for each byte: a byte that prints
stands for itself, and the others are U+0100, U+0101 ... in turn. A space is "Ġ", a new line "Ċ". All three say the
same: a number for each token, and the merges in the order in which they were learnt, by their two tokens.
"""
import json
from pathlib import Path

from ..settings import UserError

_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
ORDER = _PRINTED + [byte for byte in range(256) if byte not in set(_PRINTED)]       # the byte of token 0, 1, ... 255
ALPHABET = dict(zip(ORDER, map(chr, _PRINTED + list(range(0x100, 0x144)))))         # byte: character
BYTES = {character: byte for byte, character in ALPHABET.items()}
PAIRS_OF_FILES = ("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")        # GPT-2's, and the same renamed

# What a tokenizer.json may say of a tokenizer like GPT-2's; what is missing counts as null.
MODEL = {"type": ("BPE",), "dropout": (None, 0.0), "unk_token": (None,), "continuing_subword_prefix": (None, ""),
         "end_of_word_suffix": (None, ""), "byte_fallback": (None, False), "ignore_merges": (None, False)}
SPLITTING = {"type": ("ByteLevel",), "add_prefix_space": (False,), "use_regex": (None, True)}
SPECIAL = {"single_word": (None, False), "lstrip": (None, False), "rstrip": (None, False), "special": (True,)}


def read(path):
    """(vocabulary, merges, special) from a tokenizer.json, an encoder.json with its vocab.bpe, or a folder with either."""
    path = Path(path)
    if path.is_dir():
        names = ["tokenizer.json", *(first for first, _ in PAIRS_OF_FILES)]
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise UserError(f"the folder {path} holds no byte-level BPE: {' or '.join(names)} was expected in it")
        path = found[0]
    for vocabulary, merges in PAIRS_OF_FILES:
        if path.name == vocabulary:
            return from_gpt2(parsed(path), text_of(path.with_name(merges)), path)
    return from_json(parsed(path), path)


def text_of(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"the tokenizer file {path} can't be read: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{path} is no tokenizer: it is not even text in UTF-8") from None


def parsed(path):
    try:
        return json.loads(text_of(path))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is no tokenizer: it is not a whole JSON file") from None


def from_gpt2(vocabulary, text, path):
    """From the content of encoder.json and vocab.bpe: what no merge makes is special, and looks like <|endoftext|>."""
    lines = [line for line in text.split("\n") if line and not line.startswith("#version")]
    merges = [tuple(line.split(" ")) for line in lines]
    wanted_of(vocabulary, dict, f"{path} is no tokenizer: it should map tokens to numbers")
    if not all(len(pair) == 2 for pair in merges):
        raise UserError(f"the merges beside {path} are none: a line should be two tokens with a space between them")
    made = {left + right for left, right in merges} | BYTES.keys()
    special = {token: number for token, number in vocabulary.items() if token not in made}
    strange = [token for token in special if not (token.startswith("<") and token.endswith(">"))]
    if strange:
        raise UserError(f"{path} and the merges beside it do not belong together, or were cut off: no merge makes the token "
                        f"{strange[0]!r}")
    return {token: number for token, number in vocabulary.items() if token in made}, merges, special


def from_json(content, where):
    """From the content of a tokenizer.json, which must be of GPT-2's kind: a UserError names what is not.

    What the file says of truncation, of padding and of tokens around a text is left aside.
    """
    message = f"{where} is no tokenizer of GPT-2's kind: "
    wanted_of(content, dict, message + "it should be an object of JSON")
    model = wanted_of(content.get("model"), dict, message + "'model' is missing")
    check_options(model, MODEL, message + "its model's")
    if content.get("normalizer") is not None:
        raise UserError(message + "it has a 'normalizer', which changes the text first")
    check_options(wanted_of(content.get("pre_tokenizer"), dict, message + "'pre_tokenizer' is missing"), SPLITTING,
                  message + "its pre_tokenizer's")
    vocabulary = wanted_of(model.get("vocab"), dict, message + "its model has no 'vocab'")
    merges = wanted_of(model.get("merges"), list, message + "its model has no 'merges'")
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else pair for pair in merges]
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in merges):
        raise UserError(message + "one of its merges is not two tokens")
    special = {}
    for token in wanted_of(content.get("added_tokens") or [], list, message + "'added_tokens' should be a list"):
        wanted_of(token, dict, message + "an added token should be an object of JSON")
        check_options(token, SPECIAL, message + "an added token's")
        special[wanted_of(token.get("content"), str, message + "an added token has no text")] = token.get("id")
    return vocabulary, [tuple(pair) for pair in merges], special


def to_json(vocabulary, merges, special):
    """The content of a tokenizer.json that the library tokenizers loads, for the same tokens."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": number, "content": text} | plain for text, number in special.items()],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocabulary, "merges": [list(pair) for pair in merges]},
    }


def wanted_of(value, kind, message):
    if not isinstance(value, kind):
        raise UserError(message)
    return value


def check_options(options, known, message):
    for name, values in known.items():
        if not any(options.get(name) is value or options.get(name) == value for value in values):
            raise UserError(f"{message} {name!r} is {options.get(name)!r}, and only {values[-1]!r} is known here")
