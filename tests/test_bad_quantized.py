"""Quantised checkpoints that are not what they should be: each is refused in a sentence, and costs nothing."""
import json
import random
import tracemalloc

import numpy as np
import pytest
from damage import mutated
from lively import TOKENIZER
from safetensors.numpy import load_file, save_file
from test_quantize import model_of, tokens
from told import message

from minigpt import checkpoint
from minigpt.quantize import quantize_and_compare
from minigpt.settings import UserError
from minigpt.tensor import no_grad
from minigpt.train import loss_of


def change_arrays(folder, change):
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def change_record(folder, **changes):
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    record = {key: value for key, value in (content["quantized"] | changes).items() if value != "left out"}
    (folder / "config.json").write_text(json.dumps(content | {"quantized": record}), encoding="utf-8")


def of_arrays(name, change):
    return lambda folder: change_arrays(folder, lambda arrays: arrays | {name: change(arrays[name].copy())})


def put(value):
    def change(array):
        array.flat[-1] = value
        return array
    return change


Q, SCALES = "blocks.1.mlp.output.w.q", "blocks.0.attention.key.w.scales"
BAD = {
    "another shape": (of_arrays(Q, lambda a: a[..., ::-1, :].transpose(0, 1, 3, 2).copy()), f"{Q} should be of shape"),
    "fewer panels": (of_arrays("tokens.w.q", lambda a: a[:0]), "tokens.w.q should be of shape"),
    "scales of another shape": (of_arrays(SCALES, lambda a: a.reshape(-1)), f"{SCALES} should be of shape"),
    "integers without a sign": (of_arrays("tokens.w.q", lambda a: a.view(np.uint8)), "tokens.w.q should be of int8"),
    "integers as floats": (of_arrays(SCALES, lambda a: a.astype(np.float16)), f"{SCALES} should be of uint16"),
    "floats as integers": (of_arrays("norm.w", lambda a: a.astype(np.int8)), "norm.w should be of float32"),
    "numbers of another kind": (of_arrays(SCALES, lambda a: a.astype(np.int32)), "holds numbers of"),
    "a negative scale": (of_arrays(SCALES, put(0x8001)), "scales that are negative or not finite"),
    "an infinite scale": (of_arrays(SCALES, put(0x7F80)), "scales that are negative or not finite"),
    "a scale that is no number": (of_arrays("tokens.w.scales", put(0x7FC0)), "scales that are negative or not finite"),
    "a vector that is no number": (of_arrays("norm.w", put(np.nan)), "not finite"),
    "an array left out": (lambda f: change_arrays(f, lambda a: {k: a[k] for k in a if k != SCALES}), f"lacks {SCALES}"),
    "an array too many": (lambda f: change_arrays(f, lambda a: a | {"more": np.zeros(1, np.int8)}), "the unknown more"),
    "another kind": (lambda f: change_record(f, kind="int8"), "w.q should be of"),
    "an unknown kind": (lambda f: change_record(f, kind="int2"), "'kind'"),
    "no loss": (lambda f: change_record(f, loss="left out"), "lacks 'loss'"),
    "loss of a word": (lambda f: change_record(f, loss="low"), "'loss'"),
    "bytes below 0": (lambda f: change_record(f, bytes=-1), "numbers above 0"),
    "an unknown key": (lambda f: change_record(f, los=1.0), "did you mean loss?"),
    "no record": (lambda f: (f / "config.json").write_text(json.dumps(
        json.loads((f / "config.json").read_text()) | {"quantized": None})), "do not belong together"),
    "a record of nothing": (lambda f: (f / "config.json").write_text(json.dumps(
        json.loads((f / "config.json").read_text()) | {"quantized": 3})), "'quantized'"),
}


@pytest.fixture
def folder(tmp_path):
    model = model_of("gpt")
    quantize_and_compare(model, "int4", lambda model: loss_of(model, tokens(100)), "100 tokens")
    checkpoint.save(tmp_path / "run", model, TOKENIZER)
    return tmp_path / "run"


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_is_one_sentence(folder, case):
    change, part = BAD[case]
    change(folder)
    assert part in message(checkpoint.load, folder)


def test_a_model_too_large_to_be_true_is_refused_before_memory_is_taken(folder):
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content["config"]["width"] = 12 * 10 ** 6
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    tracemalloc.start()
    try:
        assert "do not belong together" in message(checkpoint.load, folder)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [150, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_file_speaks_or_is_one_sentence(folder, file, number):
    content, chance, seen = (folder / file).read_bytes(), random.Random(file), set()
    headed = content[:8 + int.from_bytes(content[:8], "little")] if file != "config.json" else content
    for i in range(number):                                 # every other one has its damage in the header
        damaged = mutated(headed, chance) + content[len(headed):] if i % 2 else mutated(content, chance)
        (folder / file).write_bytes(damaged)
        try:
            model = checkpoint.load(folder).model
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            seen.add("refused")
        else:
            with no_grad(), np.errstate(all="ignore"):      # a damaged scale may be huge
                model(np.zeros((1, 3), np.int64))
            seen.add("loaded")
    assert seen == {"refused", "loaded"}
