"""Checkpoints: a folder that holds all that is needed to go on training, or to talk to the model.

    config.json             which model, of what shape; the tokenizer; how far training has come
    model.safetensors       the parameters by name; of a quantised model, its integers and scales as well (quantize.py)
    optimizer.safetensors   AdamW's two moments, where training is to go on

No pickle: reading a checkpoint runs nothing that is in it. A folder is written under another name, FOLDER.writing,
and renamed when it is complete and on the disk; what stood there before is FOLDER.previous while that happens.
So whenever the process is killed, one of the two is whole, and `load` finds it:

    killed while writing            FOLDER is the old one
    killed between two renames      there is no FOLDER, and FOLDER.previous is the old one
    killed after that               FOLDER is the new one
"""
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from . import models, quantize, tokenizers
from .arrays import INTEGERS, ArrayFile, read_json
from .device import on_host
from .settings import UserError, as_dict, from_dict

FORMAT = "minigpt-1"


@dataclass
class Checkpoint:
    """What a folder held: the model, the tokenizer, and in `training` what train.py wrote there (or {})."""
    model: object
    tokenizer: object
    training: dict
    folder: Path


def save(folder, model, tokenizer, training=None, optimizer=None):
    """Write a checkpoint, or leave the one that is there as it was and raise UserError.

    training: a dict of plain JSON. optimizer: with it, training can go on exactly as if it had never stopped.
    """
    check_vocabulary(tokenizer, model.config, "the tokenizer that is to be saved")
    numbers = {}
    files = {"model.safetensors": safetensors_bytes(
        {name: np.ascontiguousarray(on_host(array)) for name, array in quantize.arrays_of(model).items()})}
    if optimizer is not None:
        arrays, numbers = optimizer.state()
        files["optimizer.safetensors"] = safetensors_bytes(
            {k: np.ascontiguousarray(on_host(v)) for k, v in arrays.items()})
    config = {"format": FORMAT, "model": model.name, "config": as_dict(model.config),
              "tokenizer": tokenizer.to_dict(), "training": training or {}, "optimizer": numbers}
    if model.quantized is not None:
        if not model.quantized.measured:
            raise UserError(f"a model of {model.quantized.kind} is saved with what that did to its loss: measure it "
                            "(quantize_and_compare)")
        config["quantized"] = as_dict(model.quantized)
    files["config.json"] = json.dumps(config, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")
    try:
        write_folder(Path(folder), files)
    except OSError as error:
        raise UserError(f"the checkpoint can't be saved in {folder} ({error.strerror}): free some space or choose "
                        "another --out; what was saved before is still there") from None


def write_folder(folder, files):
    """Replace a folder by one of these {name: bytes}, so that a kill at any moment leaves the old or the new one."""
    writing, previous = sibling(folder, "writing"), sibling(folder, "previous")
    shutil.rmtree(writing, ignore_errors=True)
    try:
        writing.mkdir(parents=True)
        for name, content in files.items():
            with open(writing / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())                     # on the disk, before the rename says that it is
        fsync_folder(writing)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        writing.rename(folder)
        fsync_folder(writing.parent)
    except OSError:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def fsync_folder(folder):
    """Have the names in a folder on the disk, where the system can do that."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def sibling(folder, kind):
    folder = Path(os.path.abspath(folder))                  # "." has no name
    return folder.parent / f"{folder.name}.{kind}"


def find(folder, names=("best", "latest")):
    """The checkpoint that a path means: the folder itself, or the first of `names` in it, as a run leaves them."""
    for candidate in (Path(folder), *(Path(folder, name) for name in names)):
        for place in (candidate, sibling(candidate, "previous")):
            if os.path.isfile(place / "config.json"):       # False, not an error, for a path that can't be
                return place
    if not os.path.exists(folder):
        raise UserError(f"there is no folder {folder}: give one that a training run wrote with --out")
    raise UserError(f"{folder} holds no checkpoint: a config.json was expected in it, or in its {' or '.join(names)}")


def load(folder, names=("best", "latest")):
    """The Checkpoint in a folder. Raises UserError, in one sentence, for whatever is missing or does not fit."""
    folder = find(folder, names)
    config = read_config(folder / "config.json")
    tokenizer = tokenizers.from_dict(config["tokenizer"])
    where = f"{folder / 'config.json'}, 'config',"
    module = models.load(config["model"], where)
    shape = from_dict(module.Config, config["config"], where)
    check_vocabulary(tokenizer, shape, f"the tokenizer in {folder}")
    path, quantized = folder / "model.safetensors", config.get("quantized")
    if quantized is None:
        arrays = read_arrays(path, shape.parameter_count())
        model = module(shape)
    else:
        record = from_dict(quantize.Record, quantized, f"{folder / 'config.json'}, 'quantized',")
        if not record.measured:
            raise UserError(f"{folder / 'config.json'}, 'quantized', lacks 'loss', 'loss_float32' or 'text': what quantisation "
                            "did to a model belongs to it")
        arrays = read_integers(path, shape.parameter_count())
        model = quantize.prepare(module(shape), record)
    fill(model, arrays, path)
    return Checkpoint(model, tokenizer, config["training"], folder)


def check_vocabulary(tokenizer, shape, which):
    """Raise UserError unless a tokenizer has as many tokens as a model of this shape."""
    if tokenizer.vocabulary_size != shape.vocabulary_size:
        raise UserError(f"{which} has {tokenizer.vocabulary_size} tokens, and its model {shape.vocabulary_size}: these two do "
                        "not belong together")


def restore(optimizer, folder):
    """Put an optimizer where it was when `folder` was written."""
    path, size = Path(folder) / "optimizer.safetensors", optimizer.flat.grad.size
    config = read_config(Path(folder) / "config.json")
    if not path.exists():
        raise UserError(f"{folder} was not saved for going on with training: it has no {path.name}")
    wanted, _ = optimizer.state()
    arrays = read_arrays(path, size * len(wanted))
    if {k: (a.shape, a.dtype) for k, a in arrays.items()} != {k: (a.shape, a.dtype) for k, a in wanted.items()}:
        raise UserError(f"{path} does not belong to this model: it holds {describe(arrays)}")
    steps = config["optimizer"].get("steps")
    if not isinstance(steps, int) or steps < 0:
        raise UserError(f"{Path(folder) / 'config.json'} does not say how many steps its optimizer took")
    optimizer.restore(arrays, config["optimizer"])


def read_config(path):
    """config.json as a dict that has all of its parts, each of the right kind."""
    config = read_json(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{path} is not of this program: its 'format' should be {FORMAT!r}")
    for key, kind in ("model", str), ("config", dict), ("tokenizer", dict), ("training", dict), ("optimizer", dict):
        if not isinstance(config.get(key), kind):
            raise UserError(f"{path} lacks {key!r}, or it is no {kind.__name__}: it was cut off or changed")
    return config


def read_arrays(path, numbers):
    """The arrays by name of a safetensors file that should hold `numbers` numbers; this is checked before reading."""
    file = ArrayFile(path)
    check_count(sum(stored.size for stored in file.stored.values()), numbers, path)
    file.check_floats(file.stored)
    return {name: file.read(name) for name in file.stored}


def read_integers(path, numbers):
    """The arrays by name of a file that should hold a quantised model of `numbers` numbers, or a little more: rows and
    columns are filled up to whole groups and panels, and there are scales. A byte of U8 holds two numbers."""
    file = ArrayFile(path)
    found = sum(stored.size * (2 if stored.dtype == "U8" else 1) for stored in file.stored.values())
    if found < numbers:
        check_count(found, numbers, path)
    file.check_floats(file.stored, INTEGERS)
    return {name: file.read(name) for name in file.stored}


def check_count(found, wanted, path):
    """Raise UserError unless a file holds as many numbers as config.json speaks of: then memory can be taken for them."""
    if found != wanted:
        raise UserError(f"{path} holds {found:,} numbers, where config.json speaks of {wanted:,}: these two files do "
                        "not belong together")


def fill(model, arrays, path):
    """Copy arrays into those of the same names that the model consists of."""
    wanted = quantize.arrays_of(model)
    missing, unknown = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing or unknown:
        raise UserError(f"{path} does not belong to this model: " + "; ".join(
            [f"it lacks {name}" for name in missing[:1]] + [f"it has the unknown {name}" for name in unknown[:1]]))
    for name, to in wanted.items():
        a = arrays[name]
        if a.shape != to.shape:
            raise UserError(f"{path}: {name} should be of shape {to.shape}, and is of shape {a.shape}")
        if a.dtype != to.dtype and not a.dtype.kind == to.dtype.kind == "f":
            raise UserError(f"{path}: {name} should be of {to.dtype}, and is of {a.dtype}")
        to[...] = a
    if not np.isfinite(model.flat.data).all():
        raise UserError(f"{path} holds numbers that are not finite (nan or inf): it can't be used")
    if not quantize.has_valid_scales(model):
        raise UserError(f"{path} holds scales that are negative or not finite (nan or inf): it can't be used")


def describe(arrays):
    return ", ".join(f"{name} {a.shape} of {a.dtype}" for name, a in arrays.items()) or "nothing"
