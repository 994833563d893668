"""Tokenizers: text to integers and back. Each is a module of this package; its name is the "type" on disk.

Every tokenizer has `vocabulary_size`, `encode(text) -> int64 array (N,)`, `decode(ids) -> str`, `stream()`, which
decodes tokens as they come, `to_dict()` and `from_dict(content)`. To add one, add a module with a class of its name:
char.py holds CharTokenizer.
"""

from importlib import import_module
from pkgutil import iter_modules

from ..settings import UserError
from .bpe import BpeTokenizer
from .char import CharTokenizer
from .wordpiece import WordpieceTokenizer

__all__ = ["BpeTokenizer", "CharTokenizer", "WordpieceTokenizer", "from_dict"]


def from_dict(content):
    """The tokenizer that a `to_dict` described: its class is chosen by content["type"].

    Raises UserError for an unknown type and for content that is not of that type's form.
    """
    known = sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
    kind = content.get("type") if isinstance(content, dict) else None
    if kind not in known:
        raise UserError(f"a stored tokenizer has a type among {', '.join(known)}, and this one {kind!r}: "
                        "this version of minigpt did not write it")
    module = import_module(f".{kind}", __name__)
    return getattr(module, f"{kind.capitalize()}Tokenizer").from_dict(content)
