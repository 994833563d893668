"""Weights of others: they compute what transformers computed, come and go unchanged, and what does not fit is told.

golden/ holds what transformers wrote and computed; test_transformers.py asks it directly, where it is installed.
"""
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from told import short_message as message

from minigpt import huggingface
from minigpt.models.bert import Bert, BertConfig
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.tokenizers import CharTokenizer

GOLDEN = Path(__file__).parent / "golden"
each_family = pytest.mark.parametrize("family", ["gpt2", "bert"])


def results(family, folder):
    """What the model in a folder computes, for the expected inputs; and what transformers did."""
    model, expected = huggingface.load_model(folder), load_file(GOLDEN / family / "expected.safetensors")
    if family == "gpt2":
        return [model(expected["ids"]).data], [expected["logits"]]
    states, mask = model(expected["ids"], expected["mask"], expected["token_types"]), expected["mask"]
    return [states.data[mask], model.pooled(states).data], [expected["states"][mask], expected["pooled"]]


def assert_computes_the_expected(family, folder, tolerance=1e-5):
    for ours, theirs in zip(*results(family, folder), strict=True):
        assert np.abs(theirs).max() > 0.5
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def change_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    content = {key: value for key, value in content.items() if value != "left out"}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def change_arrays(folder, change):
    """Replace the arrays of model.safetensors by change({name: array})."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


# ---- what comes in ----

@each_family
def test_it_computes_what_transformers_computes(family, backend):
    assert_computes_the_expected(family, GOLDEN / family)


@each_family
def test_names_may_have_the_name_of_the_whole_model_before_them(family, folders):
    has_it = any(name.startswith("transformer.") for name in load_file(folders[family] / "model.safetensors"))
    assert has_it == (family == "gpt2")
    prefix = {"gpt2": "", "bert": "bert."}[family]
    change_arrays(folders[family], lambda a: {prefix + name.removeprefix("transformer."): x for name, x in a.items()})
    assert_computes_the_expected(family, folders[family])


def test_buffers_that_are_no_parameters_and_the_tied_head_are_left_out(folders):
    def with_buffers(a):
        for i in range(2):
            a |= {f"transformer.h.{i}.attn.bias": np.tri(9, dtype=bool)[None, None],
                  f"h.{i}.attn.masked_bias": np.array(-1e4, np.float32)}
        return a | {"lm_head.weight": a["transformer.wte.weight"].copy()}

    change_arrays(folders["gpt2"], with_buffers)
    assert_computes_the_expected("gpt2", folders["gpt2"])


def test_a_bert_may_come_with_old_names_positions_and_heads(folders):
    def as_in_2018(a):
        a = {re.sub("LayerNorm.weight", "LayerNorm.gamma", re.sub("LayerNorm.bias", "LayerNorm.beta", f"bert.{name}")): x
             for name, x in a.items()}
        return a | {"bert.embeddings.position_ids": np.arange(9)[None], "cls.predictions.bias": np.ones(19, np.float32)}

    change_arrays(folders["bert"], as_in_2018)
    assert_computes_the_expected("bert", folders["bert"])


def test_a_bert_without_pooler_is_one(folders):
    change_arrays(folders["bert"], lambda a: {name: x for name, x in a.items() if "pooler" not in name})
    assert huggingface.load_model(folders["bert"]).pooler is None


def as_bfloat16(folder):
    """Rewrite model.safetensors in BF16: the upper half of each number, rounded to the nearest."""
    header, end, data = {}, 0, b""
    for name, a in load_file(folder / "model.safetensors").items():
        piece = ((np.ascontiguousarray(a).view(np.uint32) + 0x8000) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": a.shape, "data_offsets": [end, end := end + len(piece)]}
        data += piece
    header = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)


@each_family
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-5), ("float16", 0.02), ("bfloat16", 0.2)])
def test_numbers_of_other_sizes_become_float32(family, dtype, tolerance, folders):
    exact = huggingface.load_model(folders[family]).flat.data
    if dtype == "bfloat16":
        as_bfloat16(folders[family])
    else:
        change_arrays(folders[family], lambda a: {name: x.astype(dtype) for name, x in a.items()})
    flat = huggingface.load_model(folders[family]).flat.data
    assert flat.dtype == np.float32
    np.testing.assert_allclose(flat, exact, rtol={"float64": 0, "float16": 5e-4, "bfloat16": 4e-3}[dtype], atol=1e-6)
    assert_computes_the_expected(family, folders[family], tolerance)


def in_pieces(folder, number=3):
    """Spread model.safetensors over several files with an index, as transformers does with large models."""
    arrays, places = load_file(folder / "model.safetensors"), {}
    for i in range(number):
        file = f"model-{i + 1:05}-of-{number:05}.safetensors"
        piece = dict(list(arrays.items())[i::number])
        save_file(piece, folder / file)
        places |= dict.fromkeys(piece, file)
    (folder / "model.safetensors").unlink()
    write_index(folder, places)
    return places


def write_index(folder, places):
    content = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


@each_family
def test_weights_may_be_spread_over_several_files(family, folders):
    in_pieces(folders[family])
    assert_computes_the_expected(family, folders[family])


@each_family
def test_keys_of_the_config_that_have_a_default_may_be_missing(family, folders):
    missing = {"gpt2": ["activation_function", "layer_norm_epsilon", "n_inner", "resid_pdrop", "scale_attn_weights"],
               "bert": ["hidden_act", "layer_norm_eps", "type_vocab_size", "hidden_dropout_prob", "is_decoder"]}[family]
    missing += ["tie_word_embeddings", "add_cross_attention"]
    change_config(folders[family], **dict.fromkeys(missing, "left out"))
    assert_computes_the_expected(family, folders[family])
    assert huggingface.load_model(folders[family]).config.dropout == 0.1


def test_the_four_sizes_of_gpt_2_can_be_expressed():
    """Their config.json on the hub, in short, and the parameters that Radford et al. should have counted."""
    for layers, heads, width, parameters in ((12, 12, 768, 124_439_808), (24, 16, 1024, 354_823_168),
                                             (36, 20, 1280, 774_030_080), (48, 25, 1600, 1_557_611_200)):
        theirs = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_ctx": 1024, "n_embd": width,
                  "n_head": heads, "n_layer": layers, "n_positions": 1024, "vocab_size": 50257, "resid_pdrop": 0.1}
        config = huggingface.gpt2_config(theirs, "config.json", {})
        assert config == GPTConfig(50257, 1024, layers, heads, width, dropout=0.1)
        assert config.parameter_count() == parameters
        assert huggingface.gpt2_config(huggingface.gpt2_keys(config), "config.json", {}) == config


# ---- what goes out ----

def of_random_numbers(model):
    model.flat.data[...] = np.random.default_rng(0).normal(size=len(model.flat))
    return model


MODELS = {"gpt": GPT(GPTConfig(11, 7, 2, 3, 12, dropout=0.2)), "bert": Bert(BertConfig(11, 7, 2, 3, 12, 20, 3)),
          "bert without pooler": Bert(BertConfig(11, 7, 1, 2, 8, 9, pooler=False))}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_comes_back_bit_for_bit(name, tmp_path):
    model = of_random_numbers(MODELS[name])
    huggingface.save(tmp_path / "out", model)
    again = huggingface.load_model(tmp_path / "out")
    assert again.config == model.config and again.flat.data.tobytes() == model.flat.data.tobytes()


@each_family
def test_what_was_read_is_written_as_it_was(family, tmp_path):
    huggingface.save(tmp_path / "out", huggingface.load_model(GOLDEN / family))
    before, after = (load_file(folder / "model.safetensors") for folder in (GOLDEN / family, tmp_path / "out"))
    assert {name: (x.shape, x.dtype, x.tobytes()) for name, x in before.items()} == \
        {name: (x.shape, x.dtype, x.tobytes()) for name, x in after.items()}
    written, theirs = (json.loads((folder / "config.json").read_text(encoding="utf-8"))
                       for folder in (tmp_path / "out", GOLDEN / family))
    assert {key: theirs[key] for key in written.keys() & theirs.keys() if "token_id" not in key} == \
        {key: written[key] for key in written.keys() & theirs.keys() if "token_id" not in key}


def test_biases_that_a_model_does_without_are_written_as_zeros(tmp_path):
    model = of_random_numbers(GPT(GPTConfig(11, 7, 2, 3, 12, bias=False)))
    huggingface.save(tmp_path / "out", model)
    ids = np.random.default_rng(1).integers(11, size=(2, 7))
    np.testing.assert_array_equal(huggingface.load_model(tmp_path / "out")(ids).data, model(ids).data)


def test_the_tokenizers_files_go_with_the_model(tmp_path):
    (tmp_path / "from").mkdir()
    for name in "tokenizer.json", "vocab.json", "merges.txt", "README.md":
        (tmp_path / "from" / name).write_text(f"content of {name}", encoding="utf-8")
    huggingface.save(tmp_path / "out", MODELS["gpt"], tokenizer_from=tmp_path / "from")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json", "merges.txt", "model.safetensors", "tokenizer.json", "vocab.json"]
    assert (tmp_path / "out/merges.txt").read_text(encoding="utf-8") == "content of merges.txt"


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "empty").mkdir()
    huggingface.save(tmp_path / "empty", MODELS["gpt"])
    assert "is there already" in message(huggingface.save, tmp_path / "empty", MODELS["gpt"])
    assert "is there already" in message(huggingface.save, tmp_path / "empty/config.json", MODELS["gpt"])
    assert "nothing can be written to" in message(huggingface.save, tmp_path / "empty/config.json/x", MODELS["gpt"])


def test_a_model_that_transformers_does_not_have_is_one_sentence(tmp_path):
    model = GPTModern(GPTModernConfig(11, 7, 1, 2, 8))
    assert "what a gpt_modern does: only gpt and bert" in message(huggingface.save, tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


# ---- with the tokenizer ----

@pytest.mark.parametrize("family, name, kind", [("gpt2", "gpt", "BpeTokenizer"), ("bert", "bert", "WordpieceTokenizer")])
def test_a_folder_is_loaded_with_its_tokenizer(family, name, kind, monkeypatch):
    tokenizer, asked = CharTokenizer("abcdefghijklmnopqrs"), []
    monkeypatch.setattr(huggingface, kind, SimpleNamespace(load=lambda folder: asked.append(folder) or tokenizer))
    saved = huggingface.load(GOLDEN / family, name)
    assert (saved.model.name, saved.tokenizer, asked) == (name, tokenizer, [GOLDEN / family])
    other = {"gpt": "bert", "bert": "gpt"}[name]
    assert f"holds a {name}, and a {other} was expected" in message(huggingface.load, GOLDEN / family, other)
    tokenizer = CharTokenizer("abcdefghijklmnopqrstu")
    assert "has 21 tokens, and its model only 19" in message(huggingface.load, GOLDEN / family, name)
