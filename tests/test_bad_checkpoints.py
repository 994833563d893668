"""What is no checkpoint, or a damaged one, is told in one line, before memory is taken."""
import json
import random
import shutil
import tracemalloc

import numpy as np
import pytest
from damage import mutated
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from small_checkpoint import CONFIG, TOKENIZER
from told import message

from minigpt import checkpoint
from minigpt.models.gpt import GPT
from minigpt.optim import AdamW
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of small random numbers, with its optimizer's state."""
    model = GPT(CONFIG, seed=3)
    checkpoint.save(tmp_path / "run", model, TOKENIZER, {"note": "ü"}, AdamW(model.flat))
    return tmp_path / "run"


def change_config(folder, change):
    """Replace config.json by change(its content)."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(content)), encoding="utf-8")


def change_arrays(folder, change, file="model.safetensors"):
    """Replace the arrays of a safetensors file by change(them)."""
    save_file(change(load_file(folder / file)), folder / file)


def in_config(**changes):
    return lambda folder: change_config(folder, lambda c: c | {"config": c["config"] | changes})


def in_arrays(**changes):
    """{name: function of the array in place}; dots in names are written as __."""
    changes = {name.replace("__", "."): change for name, change in changes.items()}
    return lambda folder: change_arrays(
        folder, lambda arrays: arrays | {name: change(arrays[name]) for name, change in changes.items()})


def claim_shape(folder, shape):
    """model.safetensors whose header promises far more than is there."""
    header = json.dumps({"tokens.w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape))]}})
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"1234")


def spoil(a, value):
    a[0, 0] = value
    return a


BAD = {
    "no folder": (shutil.rmtree, "there is no folder"),
    "an empty folder": (lambda f: [path.unlink() for path in f.iterdir()], "holds no checkpoint"),
    "a file": (lambda f: (shutil.rmtree(f), f.write_text("")), "holds no checkpoint"),
    "empty config": (lambda f: (f / "config.json").write_text(""), "not a whole JSON file"),
    "config of text": (lambda f: (f / "config.json").write_text("hello"), "not a whole JSON file"),
    "config of bytes": (lambda f: (f / "config.json").write_bytes(b'{"\xff'), "not a whole JSON file"),
    "config nested deeply": (lambda f: (f / "config.json").write_text("[" * 100_000), "not a whole JSON file"),
    "config of a list": (lambda f: change_config(f, lambda c: [c]), "not of this program"),
    "another format": (lambda f: change_config(f, lambda c: c | {"format": "minigpt-0"}), "'minigpt-1'"),
    "unknown model": (lambda f: change_config(f, lambda c: c | {"model": "gtp"}), "names the model 'gtp'"),
    "model that is no network": (lambda f: change_config(f, lambda c: c | {"model": "ngram"}), "names the model 'ngram'"),
    "unknown key": (in_config(witdh=4), "did you mean width?"),
    "word as width": (in_config(width="4"), "'width'"),
    "odd width": (in_config(width=7), "can't be divided among 2 heads"),
    "no layers": (in_config(layers=0), "layers is 0"),
    "negative width": (in_config(width=-4), "width is -4"),
    "another context": (in_config(context=7), "do not belong together"),
    "another vocabulary": (in_config(vocabulary_size=8), "the tokenizer in"),
    "unknown tokenizer": (lambda f: change_config(f, lambda c: c | {"tokenizer": {"type": "word"}}), "'word'"),
    "empty tokenizer": (lambda f: change_config(f, lambda c: c | {"tokenizer": {"type": "char"}}), "'characters'"),
    "other tokenizer": (lambda f: change_config(f, lambda c: c | {"tokenizer": CharTokenizer("ab").to_dict()}),
                        "has 2 tokens, and its model 9"),
    "no arrays": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is not a whole"),
    "folder of arrays": (lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()), "a whole"),
    "empty arrays": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors is not a whole"),
    "random arrays": (lambda f: (f / "model.safetensors").write_bytes(random.Random(0).randbytes(5000)), "not a whole"),
    "long header": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 7 + b"\0{}"), "not a whole"),
    "large claim": (lambda f: claim_shape(f, [10**6, 10**6]), "not a whole"),
    "immense claim": (lambda f: claim_shape(f, [2**40, 2**40]), "not a whole"),
    "arrays of an optimizer": (lambda f: shutil.copy(f / "optimizer.safetensors", f / "model.safetensors"),
                               "do not belong together"),
    "array left out": (lambda f: change_arrays(f, lambda a: {k: a[k] for k in a if k != "norm.w"}),
                       "do not belong together"),
    "array too many": (lambda f: change_arrays(f, lambda a: a | {"more": np.zeros(3, np.float32)}),
                       "do not belong together"),
    "empty array too many": (lambda f: change_arrays(f, lambda a: a | {"more": np.float32([])}), "unknown more"),
    "foreign name": (lambda f: change_arrays(f, lambda a: {f"gpt.{k}": a[k] for k in a}), "it lacks"),
    "another shape": (in_arrays(tokens__w=lambda a: a.reshape(8, 9)), "tokens.w should be of shape (9, 8)"),
    "integers": (in_arrays(tokens__w=lambda a: a.astype(np.int32)), "holds numbers of F32, I32"),
    "nan": (in_arrays(tokens__w=lambda a: spoil(a, np.nan)), "not finite"),
    "inf": (in_arrays(tokens__w=lambda a: spoil(a, np.inf)), "not finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_is_one_sentence(folder, case):
    change, part = BAD[case]
    change(folder)
    assert part in message(checkpoint.load, folder)


@pytest.mark.parametrize("key", ["format", "model", "config", "tokenizer", "training", "optimizer"])
@pytest.mark.parametrize("value", [None, 3, "x", [], "left out"])
def test_a_part_of_the_config_that_is_wrong_or_missing_is_named(folder, key, value):
    change_config(folder, lambda c: {k: c[k] for k in c if k != key} | ({} if value == "left out" else {key: value}))
    assert "config.json" in message(checkpoint.load, folder)


@pytest.mark.parametrize("key", ["vocabulary_size", "context", "layers", "heads", "width"])
def test_a_size_that_is_missing_is_named(folder, key):
    change_config(folder, lambda c: c | {"config": {k: c["config"][k] for k in c["config"] if k != key}})
    assert f"lacks {key!r}" in message(checkpoint.load, folder)


def test_a_config_that_was_cut_off_anywhere(folder):
    content = (folder / "config.json").read_bytes()
    for length in range(0, len(content), 3):
        (folder / "config.json").write_bytes(content[:length])
        assert "not a whole JSON file" in message(checkpoint.load, folder)


@pytest.mark.parametrize("file, load", [
    ("model.safetensors", checkpoint.load),
    ("optimizer.safetensors", lambda folder: checkpoint.restore(AdamW(GPT(CONFIG).flat), folder)),
])
def test_arrays_that_were_cut_off_anywhere(folder, file, load):
    content = (folder / file).read_bytes()
    for length in [*range(20), *range(20, len(content), 61), len(content) - 1]:
        (folder / file).write_bytes(content[:length])
        assert f"{file} is not a whole safetensors file" in message(load, folder)


@pytest.mark.parametrize("dtype, size", [("BOOL", 1), ("U8", 1), ("I8", 1), ("F8_E4M3", 1), ("I16", 2), ("U32", 4),
                                         ("I64", 8), ("C64", 8)])
def test_arrays_of_another_kind_of_number(folder, dtype, size):
    header, end = {}, 0
    for name, p in GPT(CONFIG).flat.parameters.items():
        header[name] = {"dtype": dtype, "shape": p.shape, "data_offsets": [end, end := end + p.size * size]}
    header = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(end))
    assert f"holds numbers of {dtype}, where F32 was expected" in message(checkpoint.load, folder)


@pytest.mark.parametrize("sizes", [{"width": 10**9}, {"layers": 10**9}, {"context": 10**12}, {"width": 2 * 10**2000}])
def test_a_model_too_large_to_be_true_is_refused_before_memory_is_taken(folder, sizes):
    in_config(**sizes)(folder)
    tracemalloc.start()
    try:
        message(checkpoint.load, folder)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def load_and_restore(folder):
    saved = checkpoint.load(folder)
    checkpoint.restore(AdamW(saved.model.flat), saved.folder)


def outcome(folder):
    """True: loaded; False: refused in one sentence. Anything else is raised."""
    try:
        load_and_restore(folder)
        return True
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return False


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "optimizer.safetensors"])
def test_a_damaged_file_loads_or_is_one_sentence(folder, file):
    content, chance = (folder / file).read_bytes(), random.Random(file)
    seen = set()
    for _ in range(200):
        (folder / file).write_bytes(mutated(content, chance))
        seen.add(outcome(folder))
    assert seen == {True, False}                            # neither all harmless nor all fatal


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=5), value, max_size=3))


@settings(max_examples=200)
@given(place=st.sampled_from([("model",), ("config",), ("tokenizer",), ("training",), ("optimizer",),
                              *(("config", key) for key in vars(CONFIG)), ("config", "more"), ("tokenizer", "type"),
                              ("tokenizer", "characters"), ("optimizer", "steps")]), value=JSON)
def test_any_value_anywhere_in_the_config_loads_or_is_one_sentence(folder, place, value):
    original = (folder / "config.json").read_bytes()

    def change(content):
        part = content
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value
        return content

    change_config(folder, change)
    outcome(folder)
    (folder / "config.json").write_bytes(original)


# ---- going on with training ----

def change_moments(change):
    return lambda folder: change_arrays(folder, change, "optimizer.safetensors")


def optimizer_steps(value):
    return lambda folder: change_config(folder, lambda c: c | {"optimizer": {"steps": value}})


BAD_OPTIMIZERS = {
    "missing": (lambda f: (f / "optimizer.safetensors").unlink(), "was not saved for going on with training"),
    "of another size": (change_moments(lambda a: {"m": a["m"][1:], "v": a["v"]}), "do not belong together"),
    "of shorter numbers": (change_moments(lambda a: {"m": a["m"].astype(np.float16), "v": a["v"]}), "does not belong"),
    "of other names": (change_moments(lambda a: {"m": a["m"], "w": a["v"]}), "does not belong to this model"),
    "of other parts": (change_moments(lambda a: {"m": a["m"][1:], "v": np.append(a["v"], 0)}), "does not belong"),
    "of integers": (change_moments(lambda a: {"m": a["m"].astype(np.int32), "v": a["v"]}), "F32, I32"),
    "without steps": (lambda f: change_config(f, lambda c: c | {"optimizer": {}}), "how many steps"),
    "of half a step": (optimizer_steps(0.5), "how many steps"),
    "of negative steps": (optimizer_steps(-1), "how many steps"),
}


@pytest.mark.parametrize("case", BAD_OPTIMIZERS)
def test_a_bad_optimizer_is_one_sentence(folder, case):
    change, part = BAD_OPTIMIZERS[case]
    change(folder)
    assert part in message(load_and_restore, folder)
