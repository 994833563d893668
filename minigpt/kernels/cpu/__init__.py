"""Kernels compiled from ext/cpu/*.pyx, if they were built and this CPU can run them."""
import contextvars
import functools
import importlib
import importlib.util
import os
import pkgutil
from contextlib import contextmanager

NO_CHAPTERS = "machine", "pool"                     # compiled, but no version of anything in ops/


def available():
    """Whether the compiled kernels run in this process."""
    return why_not() is None


@functools.cache
def why_not():
    """None where the kernels run, else the reason, as a clause."""
    choice = os.environ.get("MINIGPT_KERNELS", "compiled")
    if choice not in ("compiled", "none"):
        return f"MINIGPT_KERNELS is {choice!r}, where 'compiled' or 'none' was expected"
    if choice == "none":
        return "switched off by MINIGPT_KERNELS=none"
    if importlib.util.find_spec(f"{__name__}.machine") is None:
        return (f"there are none in {__path__[0]}: with a C compiler at hand, pip install minigpt again, or, to work on "
                "this folder itself, pip install -e .")
    from . import machine                           # itself compiled for any CPU, so importing it is safe
    return None if machine.supported() else "they were built for a CPU with AVX2 and FMA, which this one lacks"


def names():
    """The compiled kernels that are there, by file name."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if name not in NO_CHAPTERS and not name.startswith("_"))


def threads():
    """How many threads the kernels of single tokens share (ext/cpu/pool.pyx)."""
    return importlib.import_module(f"{__name__}.pool").threads() if available() else 1


def set_threads(number):
    """Have the kernels of single tokens share as many threads. Without kernels nothing happens."""
    if available():
        importlib.import_module(f"{__name__}.pool").set_threads(number)


sharing = contextvars.ContextVar("sharing", default=None)       # (thread pool, number of threads) inside share_rows


@contextmanager
def share_rows(pool, number):
    """Inside the block, kernels of many rows share each call's rows among `number` threads: the calling one, and others
    of `pool`, a concurrent.futures.Executor. For where there are fewer sequences than threads to take one each."""
    token = sharing.set((pool, number))
    try:
        yield
    finally:
        sharing.reset(token)


def each_part(function, n, least):
    """function(begin, end) for pieces of 0 ... n, none below `least` but a whole that is; their results, in order. One
    piece, except inside share_rows. What functions do side by side has to release the GIL to be worth it."""
    pool, number = sharing.get() or (None, 1)
    number = min(number, n // least)
    if number < 2:
        return [function(0, n)]
    ends = [n * i // number for i in range(number + 1)]
    others = [pool.submit(function, begin, end) for begin, end in zip(ends[1:], ends[2:])]
    return [function(0, ends[1]), *(other.result() for other in others)]


def status():
    """What runs, as one sentence for a program's first lines."""
    reason = why_not()
    return f"compiled ({len(names())} kernels)" if reason is None else f"NumPy only: no compiled kernels, {reason}"
