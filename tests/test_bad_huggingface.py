"""Folders in the forms of others that do not fit: each is refused in a sentence."""
import json
import random
import re
import shutil
import tracemalloc

import numpy as np
import pytest
from damage import mutated
from test_huggingface import change_arrays, change_config, each_family, in_pieces, write_index
from told import short_message as message

from minigpt import huggingface
from minigpt.settings import UserError


def in_config(**changes):
    return lambda folder: change_config(folder, **changes)


def in_arrays(change):
    return lambda folder: change_arrays(folder, lambda a: a | change(a))


def without(name):
    return lambda folder: change_arrays(folder, lambda a: {key: x for key, x in a.items() if key != name})


def text_in(file, content):
    return lambda folder: (folder / file).write_bytes(content)


def in_index(change):
    return lambda folder: write_index(folder, change(in_pieces(folder)))


def spoilt(x, value):
    x[-1] = value
    return x


WTE, FC = "transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"
BAD = {
    "no folder": (shutil.rmtree, "holds no config.json"),
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "empty config": (text_in("config.json", b""), "config.json is not a whole JSON file"),
    "config of bytes": (text_in("config.json", b"\xff\xfe\0"), "config.json is not a whole JSON file"),
    "config of a list": (text_in("config.json", b"[]"), "should have a model_type among gpt2, bert"),
    "no model_type": (in_config(model_type="left out"), "and it has None"),
    "another model_type": (in_config(model_type="llama"), "should have a model_type among gpt2, bert"),
    "model_type of a list": (in_config(model_type=["gpt2"]), "should have a model_type among gpt2, bert"),
    "model_type of another kind": (in_config(model_type="bert"), "lacks 'vocab_size'|lacks 'max_position_embeddings'"),
    "our own checkpoint": (in_config(model_type="left out", format="minigpt-1"), "is a checkpoint of minigpt's own"),
    "relu": (in_config(activation_function="relu"), " 'relu', which can't be computed here"),
    "exact gelu": (in_config(activation_function="gelu"), "activation_function"),
    "another eps": (in_config(layer_norm_epsilon=1e-6), "layer_norm_epsilon = 1e-06.*only 1e-05 can"),
    "a narrow MLP": (in_config(n_inner=13), "n_inner = 13.*only None or 48 can"),
    "an untied head": (in_config(tie_word_embeddings=False), "tie_word_embeddings = False"),
    "unscaled attention": (in_config(scale_attn_weights=False), "scale_attn_weights"),
    "attention scaled by layer": (in_config(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
    "cross-attention": (in_config(add_cross_attention=True), "add_cross_attention"),
    "a long unsupported value": (in_config(n_inner=[7] * 10_000), "n_inner"),
    "a long word as width": (in_config(n_embd="w" * 10_000), "'n_embd' in"),
    "a deep list as width": (in_config(n_embd=json.loads("[" * 500 + "]" * 500)), "'n_embd' in"),
    "a deep list as activation": (in_config(activation_function=json.loads("[" * 500 + "]" * 500)), "activation_function"),
    "a deep list as model_type": (in_config(model_type=json.loads("[" * 500 + "]" * 500)), "should have a model_type"),
    "a word as width": (in_config(n_embd="12"), "'n_embd' in .*config.json must be a whole number"),
    "no width": (in_config(n_embd="left out"), "lacks 'n_embd'"),
    "a size of nothing": (in_config(n_layer=0), "layers is 0"),
    "heads that do not divide": (in_config(n_head=5), "can't be divided among 5 heads"),
    "a word as dropout": (in_config(resid_pdrop="x"), "'resid_pdrop' in"),
    "more layers": (in_config(n_layer=3), "they lack h.2.attn.c_attn.bias"),
    "fewer layers": (in_config(n_layer=1), "they have the unknown 'h.1.attn.c_attn.bias'"),
    "another width": (in_config(n_embd=24), "do not belong together"),
    "another vocabulary": (in_config(vocab_size=20), "do not belong together"),
    "an immense vocabulary": (in_config(vocab_size=2 ** 31 - 1), "do not belong together"),
    "immense layers": (in_config(n_layer=10_000), "they lack"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors: get that file"),
    "only a pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "_model.bin is a pickle"),
    "empty weights": (text_in("model.safetensors", b""), "model.safetensors is not a whole safetensors file"),
    "an array left out": (without(FC), "they lack h.0.mlp.c_fc.weight$"),
    "an array too many": (in_arrays(lambda a: {"transformer.h.0.extra": a[WTE].copy()}), "unknown 'h.0.extra'"),
    "another of that name": (in_arrays(lambda a: {"wte.weight": a[WTE].copy()}), "has 'wte.weight' twice"),
    "a turned array": (in_arrays(lambda a: {FC: np.ascontiguousarray(a[FC].T)}),
                       r"h.0.mlp.c_fc.weight should be of shape \(12, 48\), and is of shape \(48, 12\)"),
    "a flat array": (in_arrays(lambda a: {FC: a[FC].reshape(-1)}), r"is of shape \(576,\)"),
    "integers": (in_arrays(lambda a: {FC: a[FC].astype(np.int32)}), "holds numbers of I32, where F32 was expected"),
    "nan": (in_arrays(lambda a: {FC: spoilt(a[FC], np.nan)}), "h.0.mlp.c_fc.weight holds numbers that are not finite"),
    "inf": (in_arrays(lambda a: {FC: spoilt(a[FC], -np.inf)}), "not finite"),
    "too large for float32": (in_arrays(lambda a: {FC: spoilt(a[FC].astype(np.float64), 1e300)}), "not finite"),
    "another head": (in_arrays(lambda a: {"lm_head.weight": a[WTE] + 1}), "lm_head.weight differs from the token"),
    "a head of another size": (in_arrays(lambda a: {"lm_head.weight": a[WTE][:-1].copy()}), "a head of its own"),
    "index of no JSON": (lambda f: (in_pieces(f), text_in(huggingface.INDEX, b"{")(f)), "not a whole JSON file"),
    "index of a list": (lambda f: (in_pieces(f), text_in(huggingface.INDEX, b"[]")(f)), "no weight_map"),
    "empty index": (in_index(lambda places: {}), "has no weight_map"),
    "index of numbers": (in_index(lambda places: dict.fromkeys(places, 3)), "has no weight_map"),
    "index to elsewhere": (in_index(lambda p: p | {WTE: f"../gpt2/{p[WTE]}"}), "no safetensors file beside it"),
    "index to the root": (in_index(lambda p: p | {WTE: "/etc/passwd"}), "no safetensors file beside it"),
    "index to a pickle": (in_index(lambda p: p | {WTE: "pytorch_model.bin"}), "no safetensors file beside it"),
    "a file of several is missing": (lambda f: (f / in_pieces(f)[WTE]).unlink(), "of-00003.safetensors is not a whole"),
    "index to the wrong file": (in_index(lambda p: p | {WTE: next(f for f in p.values() if f != p[WTE])}), "only one of"),
    "index without an array": (in_index(lambda p: {name: p[name] for name in p if name != WTE}), "only one of them has"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_does_not_fit_is_one_sentence(folders, case):
    change, part = BAD[case]
    change(folders["gpt2"])
    tracemalloc.start()
    try:
        assert re.search(part, message(huggingface.load_model, folders["gpt2"]))
        assert tracemalloc.get_traced_memory()[1] < (1e8 if case == "immense layers" else 2e6)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("changes, part", [
    ({"hidden_act": "gelu_new"}, "hidden_act"), ({"layer_norm_eps": 1e-5}, "layer_norm_eps"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type"), ({"is_decoder": True}, "is_decoder"),
    ({"intermediate_size": 21}, "do not belong together"), ({"intermediate_size": "left out"}, "'intermediate_size'"),
    ({"type_vocab_size": 0}, "token_types is 0"), ({"model_type": "gpt2"}, "lacks 'n_embd'")], ids=str)
def test_a_bert_of_another_kind_is_one_sentence(folders, changes, part):
    change_config(folders["bert"], **changes)
    assert part in message(huggingface.load_model, folders["bert"])


def outcome(folder):
    """True: loaded; False: refused in one sentence. Anything else is raised."""
    try:
        huggingface.load_model(folder)
        return True
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return False


@pytest.mark.filterwarnings("error")
@each_family
@pytest.mark.parametrize("number", [300, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "model.safetensors.index.json"])
def test_a_damaged_folder_loads_or_is_one_sentence(folders, family, file, number):
    folder, chance, seen = folders[family], random.Random(f"{family} {file} {number}"), []
    if "index" in file:
        in_pieces(folder)
    content = (folder / file).read_bytes()
    for _ in range(number):
        (folder / file).write_bytes(mutated(content, chance, (b"null", b"1e999", b"[", b'"')))
        tracemalloc.start()
        try:
            seen.append(outcome(folder))
            assert tracemalloc.get_traced_memory()[1] < 2e7
        finally:
            tracemalloc.stop()
    assert set(seen) == {True, False}                       # neither all harmless nor all fatal
