"""Arrays in a file: safetensors, read with care. (Written by the library: what comes from us needs none.)

    8 bytes         n, the length of the header, little-endian
    n bytes         the header, JSON: {name: {"dtype": "F32", "shape": [3, 4], "data_offsets": [begin, end]} ...}
    the rest        the numbers, in C order, little-endian; begin and end count from here

Such a file runs nothing, but it may have been cut off, damaged, or made to do harm. So a header has to be short and lie
within the file, and each array has to have as many bytes as its shape and dtype need, in the file, after those of the
array before it. All of this is checked before a number is read: then no array takes more memory than the file is long.

The field stores weights in half the bytes, too: F16, and BF16, which is the upper half of an F32. NumPy has no BF16, so it
comes back as float32.
"""
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .settings import UserError, brief

LONGEST_HEADER = 4 << 20                # bytes: some 40,000 arrays
LONGEST_JSON = 100 << 20                # bytes of any other JSON file; a tokenizer of 256,000 tokens has 35 million
MOST_AXES = 32                          # what NumPy can do
SIZES = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
         "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1}     # bytes of a number
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}                  # those that are read, in NumPy;
INTEGERS = {"I8": "<i1", "U8": "<u1", "U16": "<u2"}                                 # and what quantised models are of


class Damaged(Exception):
    """What is wrong with a file, in a few words."""


@dataclass(frozen=True)
class Stored:
    """An array as the header describes it; its bytes are begin ... end of the file."""
    dtype: str
    shape: tuple
    begin: int
    end: int

    @property
    def size(self):
        """How many numbers it has."""
        return math.prod(self.shape)


class ArrayFile:
    """A safetensors file whose header is whole: `stored` is {name: Stored}; a number is read only by `read`."""

    def __init__(self, path):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                self.stored = read_header(file, os.fstat(file.fileno()).st_size)
        except (Damaged, OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{self.path} is not a whole safetensors file ({reason}): it is missing, was cut off or "
                            "changed") from None

    def check_floats(self, names, others=()):
        """Raise UserError unless these arrays are of floats that can be read, or of one of the `others`."""
        kinds = {self.stored[name].dtype for name in names} - set(others)
        if not kinds <= FLOATS.keys():
            raise UserError(f"{self.path} holds numbers of {', '.join(sorted(kinds))}, where F32 was expected")

    def read(self, name):
        """One array of FLOATS or INTEGERS, as it is stored; BF16, which NumPy does not have, as float32."""
        stored = self.stored[name]
        try:
            a = np.fromfile(self.path, (FLOATS | INTEGERS)[stored.dtype], stored.size, offset=stored.begin).reshape(stored.shape)
        except (OSError, ValueError):
            raise UserError(f"{self.path} can't be read: it was changed meanwhile") from None
        if stored.dtype == "BF16":
            return (a.astype(np.uint32) << 16).view(np.float32)
        return a.astype(a.dtype.newbyteorder("="), copy=False)


def read_header(file, size):
    """{name: Stored} of a file of `size` bytes. Raises Damaged or ValueError."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise Damaged("its header does not lie within it")
    if length > LONGEST_HEADER:
        raise Damaged(f"its header of {length:,} bytes is too long")
    header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise Damaged("its header does not name arrays")
    header.pop("__metadata__", None)
    stored = {name: checked(name, entry, 8 + length) for name, entry in header.items()}
    end = 8 + length
    for name, array in sorted(stored.items(), key=lambda item: (item[1].begin, item[1].end)):
        if array.begin != end:
            raise Damaged(f"the bytes of {brief(name)} do not follow those of the array before it")
        end = array.end
    if end != size:
        raise Damaged(f"its arrays end at byte {end:,}, and it has {size:,}")
    return stored


def checked(name, entry, data):
    """The Stored of one entry of a header, whose offsets count from byte `data`."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Damaged(f"{brief(name)} lacks a dtype, a shape or offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise Damaged(f"{brief(name)} is of the unknown dtype {brief(dtype)}")
    if not sizes(shape) or len(shape) > MOST_AXES or math.prod(n or 1 for n in shape) >= 2 ** 60:
        raise Damaged(f"{brief(name)} has an impossible shape")
    if not sizes(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * SIZES[dtype]:
        raise Damaged(f"{brief(name)} does not have the bytes that its shape needs")
    return Stored(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def sizes(numbers):
    """Whether this is a list of integers that can be sizes."""
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2 ** 63 for n in numbers)


def parse_json(content):
    """What JSON bytes say; Damaged where they are none."""
    try:
        return json.loads(content.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise Damaged("it is not well-formed JSON") from None


def read_json(path):
    """What the JSON file at `path` says. Raises UserError where it can't be read or is none."""
    try:
        if os.path.getsize(path) > LONGEST_JSON:
            raise UserError(f"{path} is larger than {LONGEST_JSON:,} bytes: it is not what it should be")
        return parse_json(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except Damaged:
        raise UserError(f"{path} is not a whole JSON file: it was cut off or changed") from None
