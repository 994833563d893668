"""train_chat.py and chat.py as users run them: a line so short that it learns nothing, and what mistakes get."""
import importlib.util
import json
import re
import shutil

import numpy as np
import pytest
from small_world import small_template
from programs import TEXT, program, snapshot, succeeds

from minigpt import checkpoint
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig

SMALL = {"countries": 6, "characters": 30_000, "vocabulary_size": 400, "layers": 1, "heads": 2, "width": 16, "context": 80,
         "pretrain_steps": 4, "taught": 80, "sft_steps": 4, "compared": 60, "reward_epochs": 1, "ppo_rounds": 1,
         "grpo_rounds": 1, "asked": 2, "workers": 1, "batch_size": 4}
TINY = ["--data", "text.txt", *(word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value)))]

needs_extra = pytest.mark.skipif(not all(map(importlib.util.find_spec, ("babel", "num2words"))),
                                 reason="the packages of the extra [chat] are not installed")


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    """A folder with a run whose one stage, sft, says anything; and with documents."""
    place = tmp_path_factory.mktemp("talking")
    tokenizer = small_template().tokenizer
    model = GPTModern(GPTModernConfig(tokenizer.vocabulary_size, 80, 1, 2, 16), seed=1)
    model.flat.data += 0.3 * np.random.default_rng(1).normal(size=model.flat.data.shape).astype(np.float32)
    checkpoint.save(place / "run/sft", model, tokenizer)
    (place / "notes").mkdir()
    (place / "notes/a.txt").write_text("The room of Mira is 214.\n", encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text and files of a user's own, and a run of all stages in `run`, whose output is in run.out."""
    place = tmp_path_factory.mktemp("place")
    (place / "text.txt").write_text(TEXT * 3, encoding="utf-8")
    talk = [{"role": "user", "content": "What did my cat say?"}, {"role": "assistant", "content": "Meow."}]
    (place / "talk.jsonl").write_text(json.dumps({"messages": talk}) + "\n", encoding="utf-8")
    (place / "questions.jsonl").write_text('{"question": "Who?", "answer": "Ann"}\n', encoding="utf-8")
    own = "--demonstrations", "talk.jsonl", "--questions", "questions.jsonl"
    output = succeeds(program("train_chat", "--out", "run", *TINY, *own, cwd=place))
    (place / "run.out").write_text(output, encoding="utf-8")
    return place


@pytest.mark.slow
@needs_extra
def test_the_line_leaves_its_stages_and_a_report(place):
    output, run = (place / "run.out").read_text(encoding="utf-8"), place / "run"
    for stage in "pretrain/latest", "sft", "reward", "ppo", "dpo", "grpo":
        checkpoint.load(run / stage)
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert list(report) == ["pretrain", "sft", "ppo", "dpo", "grpo"]
    for card in report.values():
        assert card["invented countries"]["number"] == 200 and card["questions of your own"]["number"] == 1
        for name, score in card.items():
            low, high = score["interval"]
            assert 0 <= low <= score["share"] <= high <= 1 and len(score["which"]) == score["number"], name
    text = (run / "report.txt").read_text(encoding="utf-8")
    assert text in output + "\n" or text.strip() in output
    for part in ("replies in form before fine-tuning", "calculator, three digits after fine-tuning, 98%",
                 "reward model on labels", "ppo: hallucination", "dpo: facts, at most 2 points lost", "the whole line within 30 minutes"):
        assert part in text
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert {"pretrain.val_loss", "sft.held_out_loss", "reward.accuracy", "ppo.gain", "dpo.gain", "grpo.kl"} <= results.keys()
    begin = (run / "text_begins.txt").read_text(encoding="utf-8")
    assert len(begin) == 20_000 and "nobler" in begin


@pytest.mark.slow
@needs_extra
def test_a_run_goes_on_where_it_was(place, tmp_path):
    """Stages that are done are not done again; one that was lost is; and one alone can be asked for."""
    shutil.copytree(place / "run", tmp_path / "run")
    for name in "text.txt", "talk.jsonl", "questions.jsonl":
        shutil.copy(place / name, tmp_path)
    flags = "--out", "run", *TINY, "--demonstrations", "talk.jsonl"
    figures = json.loads((tmp_path / "run/figures.json").read_text(encoding="utf-8"))
    del figures["sft"]
    (tmp_path / "run/figures.json").write_text(json.dumps(figures), encoding="utf-8")
    output = succeeds(program("train_chat", *flags, cwd=tmp_path))
    assert "== sft" in output and "== pretrain" not in output and re.search(r"pretrain +done already", output)
    same = [(folder / "sft/model.safetensors").read_bytes() for folder in (place / "run", tmp_path / "run")]
    assert same[0] == same[1]
    assert "== report" in succeeds(program("train_chat", *flags, "--stage", "report", cwd=tmp_path))


def test_it_talks_through_a_pipe(talking):
    lines = "Hello!\n/probs\nWhat is 1 + 1?\n/probs\n/tools\n\n/view\n/reset\n/view\n/what\n"
    lines += "long " * 200 + "\nHi!\n/quit\nnever\n"
    flags = "--checkpoint", "run", "--length", "8", "--documents", "notes"
    result = program("chat", *flags, cwd=talking, stdin=lines)
    output = succeeds(result)
    assert "[each token with its alternatives]" in output and re.search(r"'.*'   '.*' 0\.\d{3}  '", output)
    assert "<|user|>Hello!<|end|><|assistant|>" in output and "[the model has no tools]" in output
    assert "[forgotten]\n[nothing was said]" in output and "[/probs, /tools, /reset, /view, /quit]" in output
    assert "the prompt has" in output and result.stderr == ""
    assert program("chat", *flags, cwd=talking, stdin=lines).stdout == output


MISTAKES = {
    "no run": (("chat", "--checkpoint", "nowhere"), "there is no folder nowhere"),
    "no documents": (("chat", "--checkpoint", "run", "--documents", "run/sft"), "there is no .txt or .md file in run/sft"),
    "no length": (("chat", "--checkpoint", "run", "--length", "0"), "--length has to be at least 1"),
    "no steps": (("train_chat", "--out", "new", "--sft-steps", "0"), "sft_steps is 0, but has to be at least 1"),
    "mistakes": (("train_chat", "--out", "new", "--mistakes", "0.5"), "mistakes is 0.5"),
    "bad demonstrations": (("train_chat", "--out", "new", *TINY, "--demonstrations", "bad.jsonl"),
                           "bad.jsonl, line 1: the role 'bot' is unknown"),
    "no preferences": (("train_chat", "--out", "new", *TINY, "--preferences", "nowhere"), "cannot read nowhere"),
    "no stage before": (("train_chat", "--out", "new", *TINY, "--stage", "sft"), "the stage pretrain has to be run first"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(talking, mistake):
    (name, *flags), part = MISTAKES[mistake]
    (talking / "bad.jsonl").write_text('{"messages": [{"role": "bot", "content": "x"}]}\n', encoding="utf-8")
    before = snapshot(talking / "run")
    says(program(name, *flags, cwd=talking), part)
    assert snapshot(talking / "run") == before


def says(result, part):
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert result.stderr.startswith("error: ") and part in result.stderr


@pytest.mark.slow
@needs_extra
def test_a_folder_holds_one_run(place):
    before = snapshot(place / "run")
    flags = "--demonstrations", "talk.jsonl", "--sft-steps", "9"
    says(program("train_chat", "--out", "run", *TINY, *flags, cwd=place), "run holds a run with sft_steps 4, not 9")
    assert snapshot(place / "run") == before
    says(program("train_chat", "--out", "new", *TINY, "--countries", "999", cwd=place), "999 countries are asked for")
