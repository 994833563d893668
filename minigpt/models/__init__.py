"""The models, one file each. A model is a Module with a `name`, its file's, and a `Config`, a dataclass."""
from importlib import import_module
from inspect import getmembers, isclass
from pkgutil import iter_modules

from ..settings import UserError


def load(name, where):
    """The class of the model `name`, for instance GPT of gpt.py; `where` it was read from, for the message."""
    known = [module.name for module in iter_modules(__path__)]
    if name not in known:
        raise UserError(f"{where} names the model {name!r}, and there are only {', '.join(known)}")
    module = import_module(f".{name}", __name__)
    return next(found for _, found in getmembers(module, isclass) if getattr(found, "name", None) == name)
