"""generate.py --quantize as a user runs it: bytes and loss are told, the model is saved, and speaks when it is loaded."""
import json
import re

import numpy as np
import pytest
from programs import TEXT, program, snapshot, succeeds
from test_programs import GOLDEN, program_with_other_tokenizers

from minigpt import checkpoint
from minigpt.kernels import cpu
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.tokenizers import BpeTokenizer, CharTokenizer

TOLD = r"int4: [\d,]+ bytes, \d+\.\d% of float32's; loss \d+\.\d+, float32's \d+\.\d+ \([+-]\d+\.\d\d%\), on the first " \
    r"(\d+) tokens of the last tenth of text\.txt, in a context of (\d+)\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text, a model of it, one with byte-level BPE, and a text of other characters."""
    place = tmp_path_factory.mktemp("place")
    (place / "text.txt").write_text(TEXT, encoding="utf-8")
    (place / "other.txt").write_text("天地" * 50, encoding="utf-8")
    for name, tokenizer in ("run", CharTokenizer.train(TEXT)), ("bpe", BpeTokenizer.train(TEXT, 300)):
        model = GPT(GPTConfig(tokenizer.vocabulary_size, 16, 2, 2, 32))
        model.flat.data += 0.1 * np.random.default_rng(0).standard_normal(len(model.flat), np.float32)
        checkpoint.save(place / name, model, tokenizer, {"note": 1})
    return place


def generated(place, *flags):
    result = program("generate", "--prompt", "To be", "--length", "30", *flags, cwd=place)
    return succeeds(result), result.stderr


@pytest.mark.parametrize("run, tokens", [("run", len(TEXT) // 10), ("bpe", None)])
def test_it_is_told_what_is_lost_and_what_is_saved_speaks_as_before(place, tmp_path, run, tokens):
    flags = "--quantize", "int4", "--data", "text.txt", "--save", tmp_path / "int4"
    text, told = generated(place, "--checkpoint", run, *flags)
    found = re.fullmatch(TOLD, told)
    assert found and found[2] == "16" and (tokens is None or int(found[1]) == tokens)
    assert generated(place, "--checkpoint", tmp_path / "int4") == (text, told)
    saved = checkpoint.load(tmp_path / "int4")
    assert (str(saved.model.quantized) + "\n", saved.training) == (told, {"note": 1})
    drafted, told_again = generated(place, "--checkpoint", run, "--draft", tmp_path / "int4", "--length", "8")
    assert drafted.startswith("To be") and "guesses" in told_again


def test_as_much_of_the_text_is_read_as_was_asked_for(place):
    _, told = generated(place, "--checkpoint", "run", "--quantize", "int4", "--data", "text.txt", "--loss-tokens", "33")
    assert re.fullmatch(TOLD, told)[1] == "33"


def test_a_gpt_2_of_others_is_quantised_and_saved(place, tmp_path):
    (tmp_path / "text.txt").write_text("acidhead" * 40, encoding="utf-8")
    flags = "--prompt", "acid", "--length", "5", "--temperature", "0"
    result = program_with_other_tokenizers("generate", "--hf", GOLDEN / "gpt2", *flags, "--quantize", "int4", "--data",
                                           "text.txt", "--save", "int4", cwd=tmp_path)
    text = succeeds(result)
    assert re.fullmatch(TOLD, result.stderr)
    assert succeeds(program("generate", "--checkpoint", "int4", *flags, cwd=tmp_path)) == text


MISTAKES = {
    "saved over something": (("--quantize", "int4", "--save", "bpe"), "bpe is there already"),
    "nothing to save": (("--save", "new"), "say --quantize int8 or int4 as well"),
    "an unknown kind": (("--quantize", "int3"), "expected one of none, int8, int4, not 'int3'"),
    "a text of other characters": (("--quantize", "int4", "--data", "other.txt"), "'天'"),
    "no such text": (("--quantize", "int8", "--data", "none.txt"), "there is no file none.txt"),
    "a text that is too short": (("--quantize", "int8", "--data", "short.txt"), "too few to measure a loss on"),
    "a loss on nothing": (("--quantize", "int8", "--loss-tokens", "1"), "--loss-tokens has to be at least 2"),
    "on a GPU": (("--quantize", "int8", "--device", "cuda"), "a quantised model runs on a CPU only"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_changes_nothing(place, mistake):
    flags, part = MISTAKES[mistake]
    (place / "short.txt").write_text("To be or not", encoding="utf-8")
    before = snapshot(place)
    result = program("generate", "--checkpoint", "run", "--prompt", "To", *flags, cwd=place)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert result.stderr.startswith("error: ") and part in result.stderr
    assert snapshot(place) == before


@pytest.mark.skipif(not cpu.available(), reason="no compiled kernels, and the limits are measured by one")
def test_the_benchmark_of_generation_runs(tmp_path):
    flags = "--rounds", "1", "--prefill", "40", "--decode", "3", "--json", tmp_path / "figures.json"
    succeeds(program("benchmark", "generate", "--preset", "quick", *flags))
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    for precision in "float32", "int8", "int4":
        for what in "decode", "prefill":
            assert figures[precision][what]["ours"]["tokens_per_second"] > 0 < figures[precision][what]["limit"]["best"]


def test_a_quantised_model_can_neither_learn_on_nor_be_exported(place, tmp_path):
    generated(place, "--checkpoint", "run", "--quantize", "int8", "--data", "text.txt", "--save", tmp_path / "run/latest")
    for result, part in (
            (program("export", "--checkpoint", tmp_path / "run/latest", "--out", tmp_path / "hf"), "write the one of floats"),
            (program("train_shakespeare", "--resume", tmp_path / "run", "--data", place / "text.txt"), "")):
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert result.stderr.startswith("error: ") and part in result.stderr, result.stderr
    assert not (tmp_path / "hf").exists()
