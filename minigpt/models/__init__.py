"""The models, one file each. A network is a Module with a `name`, its file's, and a `Config`, a dataclass; ngram.py, which
counts, is none."""
from importlib import import_module
from inspect import getmembers, isclass
from pkgutil import iter_modules

from ..settings import UserError


def load(name, where):
    """The class of the network `name`, for instance GPT of gpt.py; `where` it was read from, for the message."""
    known = {}
    for file in iter_modules(__path__):
        for _, found in getmembers(import_module(f".{file.name}", __name__), isclass):
            if getattr(found, "name", None) == file.name and hasattr(found, "Config"):
                known[file.name] = found
    if name not in known:
        raise UserError(f"{where} names the model {name!r}, and there are only {', '.join(known)}")
    return known[name]
