"""The one line that each mistake gets, and what the programs say of themselves."""
import dataclasses
import importlib.util
import io
import sys

import pytest
from programs import EXAMPLES, FLAGS, program, python, snapshot, succeeds

import minigpt
from minigpt.kernels import cpu
from minigpt.report import Progress
from minigpt.settings import field_comments

# ---- a terminal ----

class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress_of_40_steps(stream):
    progress = Progress(40, stream=stream)
    for step in range(1, 41):
        progress.update(step, f"loss {step}")
    progress.close()
    return stream.getvalue()


def test_progress_is_a_line_each_twentieth_of_the_way():
    lines = progress_of_40_steps(io.StringIO()).splitlines()
    assert [line.split("  ")[:2] for line in lines] == [[f"step {n}/40", f"loss {n}"] for n in range(2, 41, 2)]


def test_on_a_terminal_progress_is_a_bar_where_tqdm_is_installed(monkeypatch):
    pytest.importorskip("tqdm")
    assert "40/40" in progress_of_40_steps(Terminal()) and "loss 40" in progress_of_40_steps(Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    hint, *lines = progress_of_40_steps(Terminal()).splitlines()
    assert "pip install tqdm" in hint and len(lines) == 20


# ---- help ----

PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py")          # those that are no more than their settings
                  if path.read_text(encoding="utf-8").endswith('":\n    program(main, Settings)\n'))


def test_there_are_programs_to_ask_for_help():
    assert {"generate", "train_shakespeare"} <= set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_explains_the_program_and_each_flag(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(EXAMPLES)                   # where a program that runs finds the others
    spec.loader.exec_module(module)
    shown = " ".join(succeeds(program(name, "--help")).split())
    assert " ".join(module.__doc__.split()) in shown
    comments = field_comments(module.Settings)
    for field in dataclasses.fields(module.Settings):
        assert f"--{field.name.replace('_', '-')}" in shown or field.type == tuple[str, ...]
        assert comments.get(field.name) and comments[field.name] in shown, f"{field.name} has no explanation"


def test_info_tells_versions_and_kernels():
    shown = succeeds(python("-P", "-c", "from minigpt.cli import main; main(['info'])"))
    for part in f"minigpt      {minigpt.__version__}", "python", "numpy", "safetensors", "matplotlib", cpu.status(), "gpu":
        assert part in shown
    assert all(name in shown for name in cpu.names() if cpu.available())


# ---- mistakes ----

TRAIN, GENERATE = ("train_shakespeare", "--data", "text.txt", *FLAGS), ("generate", "--checkpoint", "run")
RESUME = ("train_shakespeare", "--resume")

MISTAKES = {
    "text shorter than the context": ((*TRAIN, "--data", "short.txt"), "has 9 tokens, too few for a context of 8"),
    "empty text": ((*TRAIN, "--data", "empty.txt"), "empty.txt is empty"),
    "text that is not UTF-8": ((*TRAIN, "--data", "latin.txt"), "latin.txt is not UTF-8 text (byte 3 is 0xe9)"),
    "no such text": ((*TRAIN, "--data", "none.txt"), "there is no file none.txt"),
    "text that is a folder": ((*TRAIN, "--data", "run"), "run is a folder"),
    "width not divisible by heads": ((*TRAIN, "--width", "9"), "a width of 9 can't be divided among 2 heads"),
    "no width": ((*TRAIN, "--width", "0"), "width is 0"),
    "far too wide": ((*TRAIN, "--width", "1000000000000000"), "below 2^31"),
    "dropout of more than all": ((*TRAIN, "--dropout", "1.5"), "dropout is 1.5"),
    "counting backwards": ((*TRAIN, "--counting-order", "-1"), "counting_order is -1"),
    "no steps": ((*TRAIN, "--steps", "0"), "steps is 0"),
    "too few tokens": ((*TRAIN, "--tokenizer", "bpe", "--vocabulary-size", "255"), "a vocabulary of 255 is too small"),
    "half a step": ((*TRAIN, "--steps", "0.5"), "argument --steps: expected a whole number"),
    "unknown flag": ((*TRAIN, "--widht", "8"), "unknown argument --widht: did you mean --width?"),
    "unknown preset": ((*TRAIN, "--preset", "slow"), "'quick'"),
    "unknown key": ((*TRAIN, "--config", "unknown.toml"), "has the unknown key 'stepps': did you mean steps?"),
    "no such config": ((*TRAIN, "--config", "none.toml"), "cannot read the settings in none.toml"),
    "out below a file": ((*TRAIN, "--out", "text.txt/run"), "nothing can be written to text.txt/run"),
    "out is a file": ((*TRAIN, "--out", "text.txt"), "nothing can be written to text.txt"),
    "out is another run": ((*TRAIN, "--out", "run"), "run holds a run already: go on with it by --resume run"),
    "stopped before the first step": ((*TRAIN, "--stop-after", "0"), "--stop-after have to be at least 1"),
    "too many workers": ((*TRAIN, "--workers", "3000000000"), "workers is 3000000000"),
    "far too deep": ((*TRAIN, "--layers", "100000000"), "layers is 100000000"),
    "other tokens when resumed": ((*RESUME, "run", "--tokenizer", "bpe"), "has tokenizer char, which can't be changed to bpe"),
    "no such run": ((*RESUME, "missing"), "there is no folder missing"),
    "a run without checkpoint": ((*RESUME, "nothing"), "nothing holds no checkpoint"),
    "resumed with another width": ((*RESUME, "run", "--width", "16"), "the model in run has width 8, which can't be"),
    "resumed with another text": ((*RESUME, "run", "--data", "other.txt"), "learnt from another text than other.txt"),
    "resumed in another place": ((*RESUME, "run", "--out", "run2"), "--resume goes on in the folder it is given"),
    "resumed from one checkpoint": ((*RESUME, "run/latest"), "run/latest is one checkpoint of a run"),
    "no model given": (("generate",), "a model is required, and only one: give the folder of a run as --checkpoint"),
    "two models": ((*GENERATE, "--hf", "nothing"), "a model is required, and only one"),
    "no such model of others": (("generate", "--hf", "missing"), "missing holds no config.json"),
    "a run as a model of others": (("generate", "--hf", "run/best"), "this is a checkpoint of minigpt's own"),
    "no such model of sentences": (("embed", "--model", "missing"), "missing holds no config.json"),
    "only one sentence": (("embed", "alone"), "give two sentences at least"),
    "half a model to export": (("export", "--checkpoint", "cut", "--out", "hf"), "cut/model.safetensors is not a whole"),
    "a modern model to export": (("export", "--checkpoint", "run", "--out", "hf"), "has no model that computes what a"),
    "no such checkpoint": ((*GENERATE, "--checkpoint", "missing"), "there is no folder missing"),
    "checkpoint of an impossible name": ((*GENERATE, "--checkpoint", "x" * 300), "there is no folder x"),
    "folder that is no checkpoint": ((*GENERATE, "--checkpoint", "nothing"), "nothing holds no checkpoint"),
    "arrays cut off": ((*GENERATE, "--checkpoint", "cut"), "cut/model.safetensors is not a whole safetensors file"),
    "config cut off": ((*GENERATE, "--checkpoint", "strange"), "strange/config.json is not a whole JSON file"),
    "prompt of unknown characters": ((*GENERATE, "--prompt", "to bé 天"), "'é', '天'"),
    "empty prompt": ((*GENERATE, "--prompt", ""), "the prompt is empty"),
    "negative temperature": ((*GENERATE, "--temperature", "-1"), "temperature is -1.0"),
    "top_p of nothing": ((*GENERATE, "--top-p", "0"), "top_p is 0.0"),
    "negative top_k": ((*GENERATE, "--top-k", "-1"), "top_k is -1"),
    "prompt longer than the context": ((*GENERATE, "--prompt", "to be, or"), "the prompt has 9 tokens, and the model reads"),
    "no such draft": ((*GENERATE, "--draft", "missing"), "there is no folder missing"),
    "draft of another text": ((*GENERATE, "--draft", "letters"), "letters has another tokenizer than run"),
    "too many guesses": ((*GENERATE, "--draft", "run", "--guesses", "9"), "guesses is 9"),
    "speculation past the context": ((*GENERATE, "--draft", "run", "--prompt", "to"), "speculation does not slide"),
    "several workers on a GPU": ((*TRAIN, "--device", "cuda", "--workers", "2"), "workers is 2, but a GPU takes one"),
    "a GPU's precision on a CPU": ((*TRAIN, "--precision", "tf32"), "precision tf32 is a GPU's: leave --precision out"),
    "unknown device": ((*TRAIN, "--device", "gpu"), "expected one of cpu, cuda, not 'gpu'"),
    "benchmark of nothing": (("benchmark", "train", "--batch-size", "0"), "batch_size is 0"),
    "no length": ((*GENERATE, "--length", "0"), "--length has to be at least 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_changes_nothing(place, mistake):
    (name, *flags), part = MISTAKES[mistake]
    before = snapshot(place)
    result = program(name, *flags, cwd=place)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert result.stderr.startswith("error: ") and part in result.stderr
    assert snapshot(place) == before
