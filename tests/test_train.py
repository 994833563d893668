"""Training: it learns, it can be repeated, stopped, killed and resumed, and every bit is where it would have been."""
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minigpt
from minigpt import checkpoint, train as training
from minigpt.data import batch, split, windows
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.optim import AdamW, warm_up_hold_fall
from minigpt.parallel import Workers
from minigpt.report import Metrics, read_metrics
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer
from minigpt.train import Position, TrainSettings, interruptible, train, training_step, validation_loss

WORDS = np.random.default_rng(0).choice(["to be", "or not", "that is", "the question", "whether", "nobler"], 300)
TEXT = " ".join(WORDS) + "\n"
TOKENIZER = CharTokenizer.train(TEXT)
CONFIG = GPTConfig(TOKENIZER.vocabulary_size, context=8, layers=2, heads=2, width=12, dropout=0.2)
TRAINING, VALIDATION = split(TOKENIZER.encode(TEXT), CONFIG.context)
SETTINGS = TrainSettings(steps=40, batch_size=6, micro_batch=2, workers=2, learning_rate=1e-2, warm_up=5, eval_every=10,
                         log_every=5, seed=3)


def run(out, stop_after=None, resume=False, **changes):
    """Train a small model, or go on with out/latest; what `train` returns."""
    model, position = GPT(CONFIG, seed=1), None
    if resume:
        saved = checkpoint.load(out, ["latest"])
        model, position = saved.model, Position(**saved.training["position"])
    return train(model, TOKENIZER, TRAINING, VALIDATION, replace(SETTINGS, **changes), out, position, {"keep": 1},
                 stop_after)


def left_behind(out):
    """All that a run leaves, but for times: the bytes of parameters and moments, the lines of metrics."""
    arrays = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.safetensors")}
    assert set(arrays) == {"best/model.safetensors", "latest/model.safetensors", "latest/optimizer.safetensors"}
    metrics = read_metrics(out / "metrics.jsonl")
    seconds = [record.pop("seconds") for record in metrics]
    assert all(0 < a <= b for a, b in zip(seconds, seconds[1:]))        # of all sittings together
    assert all(record.pop("tokens_per_second") > 0 for record in metrics)
    return arrays | {"metrics": metrics}


# ---- a run ----

def test_the_loss_falls_and_metrics_tell(tmp_path):
    position, interrupted = run(tmp_path, steps=100)
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(5, 101, 5))
    assert all(list(record) == ["step", "tokens", "seconds", "train_loss", "val_loss", "tokens_per_second", "lr",
                                "grad_norm"] for record in records)
    assert all(record["tokens"] == record["step"] * 6 * 8 for record in records)
    assert all((record["val_loss"] is not None) == (record["step"] % 10 == 0) for record in records)
    assert [record["seconds"] for record in records] == sorted(record["seconds"] for record in records)
    assert records[0]["train_loss"] > 2.5 and max(records[-1]["train_loss"], records[-1]["val_loss"]) < 1.8
    assert not interrupted
    assert (position.step, position.tokens, position.val_loss) == (100, 4800, records[-1]["val_loss"])
    assert position.best_val_loss == min(record["val_loss"] for record in records if record["val_loss"])
    latest = checkpoint.load(tmp_path / "latest")
    assert latest.training == {"position": vars(position), "keep": 1}
    assert latest.tokenizer.to_dict() == TOKENIZER.to_dict()


def test_a_run_repeats_bit_for_bit(tmp_path):
    for name in "one", "two":
        run(tmp_path / name)
    assert left_behind(tmp_path / "one") == left_behind(tmp_path / "two")
    run(tmp_path / "other", seed=4)
    assert left_behind(tmp_path / "other") != left_behind(tmp_path / "one")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_20_steps_and_20_more_are_40_bit_for_bit(tmp_path, workers):
    run(tmp_path / "whole", workers=workers)
    position, interrupted = run(tmp_path / "halves", workers=workers, stop_after=20)
    assert interrupted and position.step == 20
    position, interrupted = run(tmp_path / "halves", workers=workers, resume=True)
    assert not interrupted and position.step == 40
    assert left_behind(tmp_path / "halves") == left_behind(tmp_path / "whole")


def test_a_run_that_was_killed_goes_on_from_its_latest_checkpoint_bit_for_bit(tmp_path, monkeypatch):
    class Killed(BaseException):
        """Like SIGKILL, nothing handles it."""

    def killed_at_28(*arguments):
        if arguments[5] == 27:
            raise Killed
        return training_step(*arguments)

    run(tmp_path / "whole")
    monkeypatch.setattr(training, "training_step", killed_at_28)
    with pytest.raises(Killed):
        run(tmp_path / "killed")
    monkeypatch.undo()
    with open(tmp_path / "killed/metrics.jsonl", "a") as file:
        file.write('{"step": 28, "tok')                     # it was killed while it wrote this line
    assert checkpoint.load(tmp_path / "killed/latest").training["position"]["step"] == 20
    run(tmp_path / "killed", resume=True)
    assert left_behind(tmp_path / "killed") == left_behind(tmp_path / "whole")


def test_a_finished_run_that_is_resumed_has_nothing_to_do(tmp_path):
    run(tmp_path)
    before = left_behind(tmp_path)
    position, interrupted = run(tmp_path, resume=True)
    assert (position.step, interrupted) == (40, False)
    assert left_behind(tmp_path) == before


def test_a_new_run_in_an_old_folder_begins_its_metrics_anew(tmp_path):
    run(tmp_path)
    run(tmp_path, steps=10)
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [5, 10]


def test_metrics_that_cannot_be_written_are_one_sentence(tmp_path):
    metrics = Metrics(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    for attempt in (lambda: metrics.add(step=1), lambda: Metrics(tmp_path)):
        with pytest.raises(UserError, match="metrics.jsonl can't be written .*: free some space"):
            attempt()


@pytest.mark.parametrize("wrong", [
    {"steps": 0}, {"batch_size": 0}, {"eval_every": 0}, {"log_every": 0}, {"micro_batch": -1}, {"workers": -1},
    {"warm_up": -1}, {"weight_decay": -0.1}, {"seed": -1}, {"learning_rate": 0.0}, {"learning_rate": math.inf},
    {"clip": 0.0}, {"beta1": 1.0}, {"beta2": -0.1},
], ids=str)
def test_settings_that_make_no_sense_are_named(wrong):
    (name, value), = wrong.items()
    with pytest.raises(UserError, match=f"^{name} is {value}, but"):
        TrainSettings(**wrong)


# ---- the gradient of a step ----

def gradient_of_a_step(step=7, config=CONFIG, **changes):
    """The loss of the batch of a step, and its gradient, in float64."""
    model, settings = GPT(config, seed=1, dtype=np.float64), replace(SETTINGS, **changes)
    model.recompute_blocks = settings.recompute
    with Workers(model, settings.workers) as workers:
        loss, norm = training_step(workers, AdamW(model.flat), TRAINING, config.context, settings, step, lr=0)
    assert norm == pytest.approx(np.linalg.norm(model.flat.grad), rel=1e-12)
    return loss, model.flat.grad


@pytest.mark.parametrize("changes", [{"workers": 1, "micro_batch": 1}, {"workers": 1, "micro_batch": 4},
                                     {"workers": 2, "micro_batch": 3}, {"workers": 3, "micro_batch": 1}, {"workers": 7},
                                     {"micro_batch": 0}, {"recompute": True}], ids=str)
def test_a_batch_in_parts_is_the_whole_batch_and_dropout_drops_the_same(changes):
    loss, gradient = gradient_of_a_step(workers=1, micro_batch=6)
    loss_in_parts, gradient_in_parts = gradient_of_a_step(**changes)
    assert loss_in_parts == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(gradient_in_parts, gradient, rtol=0, atol=1e-12 * abs(gradient).max())


def test_recomputing_changes_no_bit():
    for result, again in zip(gradient_of_a_step(), gradient_of_a_step(recompute=True)):
        np.testing.assert_array_equal(result, again)


def test_each_step_has_its_own_batch_and_its_own_dropout(monkeypatch):
    losses = {gradient_of_a_step()[0], gradient_of_a_step(config=replace(CONFIG, dropout=0.0))[0]}
    assert len(losses | {gradient_of_a_step(step=8)[0]}) == 3
    monkeypatch.setattr(training, "batch", lambda ids, context, B, seed, step: batch(ids, context, B, 1, 1))
    assert gradient_of_a_step(step=7)[0] != gradient_of_a_step(step=8)[0]


# ---- validation ----

def surprises(model, ids):
    """-log p of each token but the first, in windows of the context: nothing but the definition."""
    T = model.config.context
    for begin in range(0, len(ids) - 1, T):
        window = ids[begin:begin + T + 1]
        logits = model(window[None, :-1]).data[0]
        for x, target in zip(logits, window[1:]):
            yield math.log(sum(math.exp(v) for v in x)) - x[target]


@pytest.mark.parametrize("length", [2, 8, 9, 10, 41, 44])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_validation_loss_is_the_mean_surprise_at_all_tokens_but_the_first(length, workers):
    model, ids = GPT(CONFIG, dtype=np.float64), VALIDATION[:length]
    expected = list(surprises(model, ids))
    assert len(expected) == length - 1
    with Workers(model, workers) as workers:
        assert validation_loss(workers, ids, CONFIG.context, size=2) == pytest.approx(np.mean(expected), rel=1e-12)


def test_the_validation_loss_does_not_depend_on_the_number_of_workers():
    losses = set()
    for number in 1, 2, 3:
        with Workers(GPT(CONFIG), number) as workers:
            losses.add(validation_loss(workers, VALIDATION, CONFIG.context))
    assert len(losses) == 1


def scripted(losses):
    """A validation that finds these losses, one after the other."""
    losses = iter(losses)
    return lambda workers, ids, context: next(losses)


def test_the_best_checkpoint_is_the_one_of_the_lowest_validation_loss(tmp_path, monkeypatch):
    def steps():
        return [checkpoint.load(tmp_path / name).training["position"]["step"] for name in ("best", "latest")]

    monkeypatch.setattr(training, "validation_loss", scripted([3.0, 1.0, 2.0, 1.5, 1.2, 0.9, 0.9]))
    run(tmp_path, stop_after=40, steps=70)
    assert steps() == [20, 40]
    run(tmp_path, resume=True, stop_after=50, steps=70)     # the best loss so far is remembered
    assert steps() == [20, 50]
    position, _ = run(tmp_path, resume=True, steps=70)
    assert steps() == [60, 70]
    assert position.best_val_loss == 0.9


# ---- a loss that is not finite ----

def explode_at(monkeypatch, step):
    """Have the update of this step (from 1) throw the parameters far away."""
    usual = training.learning_rate
    monkeypatch.setattr(training, "learning_rate", lambda settings, i: 1e38 if i == step - 1 else usual(settings, i))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("step", [1, 10, 12, 19, 20])
def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path, monkeypatch, step):
    explode_at(monkeypatch, step)
    with pytest.raises(UserError) as caught:
        run(tmp_path)
    text = str(caught.value)
    assert "nan" in text and "\n" not in text and "--learning-rate" in text
    if step <= 10:
        assert "no checkpoint was saved yet" in text and not (tmp_path / "latest").exists()
    else:
        assert f"the last good checkpoint is {tmp_path / 'latest'}" in text
        assert all(checkpoint.load(tmp_path / name).training["position"]["step"] == 10 for name in ("latest", "best"))
    assert f"step {step}" in text or f"step {step + 1}" in text


# ---- schedule, batches, windows ----

@given(steps=st.integers(4, 60), hold=st.floats(0, 0.5), data=st.data())
def test_the_learning_rate_rises_then_falls_to_the_last(steps, hold, data):
    warm_up, last = data.draw(st.integers(0, steps - 2)), data.draw(st.floats(0, 0.5))
    rates = [warm_up_hold_fall(step, steps, warm_up, hold, 0.5, last) for step in range(steps)]
    assert all(rate == 0.5 for step, rate in enumerate(rates) if warm_up <= step <= hold * steps)
    assert rates[:warm_up] == sorted(set(rates[:warm_up]))
    assert rates[warm_up:] == sorted(rates[warm_up:], reverse=True)
    assert rates[warm_up] == max(rates) == 0.5 and rates[-1] == pytest.approx(last) and min(rates) >= 0


@given(n=st.integers(2, 40), context=st.integers(1, 39), seed=st.integers(0, 9), step=st.integers(0, 9))
def test_a_batch_is_cut_out_of_the_tokens_and_always_the_same(n, context, seed, step):
    assume(context < n)
    x, y = batch(np.arange(n), context, 300, seed, step)
    assert x.shape == y.shape == (300, context)
    assert (y == x + 1).all() and (np.diff(x, axis=1) == 1).all()
    assert set(x[:, 0]) == set(range(n - context))          # from the first window to the last
    again, _ = batch(np.arange(n), context, 300, seed, step)
    assert (x == again).all()
    if n - context > 1:
        assert all((x != batch(np.arange(n), context, 300, *other)[0]).any() for other in [(seed, 99), (99, step)])


@given(n=st.integers(2, 60), context=st.integers(1, 10), size=st.integers(1, 4))
def test_windows_predict_every_token_but_the_first_once(n, context, size):
    pieces = list(windows(np.arange(n), context, size))
    assert all(x.shape == y.shape and len(x) <= size and (y == x + 1).all() for x, y in pieces)
    assert [token for _, y in pieces for token in y.ravel()] == list(range(1, n))
    lengths = [y.shape[1] for _, y in pieces]
    assert all(length == context for length in lengths[:-1]) and lengths[-1] <= context


@given(n=st.integers(0, 60), context=st.integers(1, 30))
def test_a_text_is_split_or_told_to_be_too_short(n, context):
    try:
        first, last = split(np.arange(n), context)
    except UserError as error:
        needed = int(str(error).split("at least ")[1].split(",")[0])
        assert n < needed
        split(np.arange(needed), context)
        with pytest.raises(UserError):
            split(np.arange(needed - 1), context)
    else:
        assert len(first) > context and len(last) >= 2 and len(last) == n // 10
        assert (np.concatenate([first, last]) == np.arange(n)).all()


def test_a_text_is_split_by_characters_whatever_a_token_is():
    halves = split("abcdefghij" * 3, 5, lambda part: np.array([part[i:i + 2] for i in range(0, len(part), 2)]))
    assert ["".join(half) for half in halves] == ["abcdefghij" * 2 + "abcdefg", "hij"]
    with pytest.raises(UserError, match="has 16 tokens, too few for a context of 14"):
        split("abcdefghij" * 3, 14, lambda part: np.arange(len(part) // 2 + 1))


# ---- Ctrl-C ----

def test_the_first_ctrl_c_asks_and_the_second_one_stops():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with interruptible() as stop:
            assert not stop.requested
            signal.raise_signal(signal.SIGINT)
            assert stop.requested
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def program(*flags):
    """examples/train_shakespeare.py as a process, with the minigpt that is tested here."""
    path = Path(__file__).parents[1] / "examples/train_shakespeare.py"
    return subprocess.Popen([sys.executable, str(path), *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=os.environ | {"PYTHONPATH": str(Path(minigpt.__file__).parents[1])})


def test_ctrl_c_saves_and_speaks_and_the_run_can_be_resumed(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    out, metrics = tmp_path / "run", tmp_path / "run/metrics.jsonl"
    running = program("--data", str(tmp_path / "text.txt"), "--out", str(out), "--steps", "1000000", "--layers", "1",
                      "--heads", "2", "--width", "8", "--context", "8", "--log-every", "1", "--sample-length", "40")
    try:
        end = time.monotonic() + 60
        while running.poll() is None and not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < end:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, "Traceback" in errors) == (0, False)
    assert f"to go on: python examples/train_shakespeare.py --resume {out}" in output
    assert len((out / "sample.txt").read_text(encoding="utf-8")) == 40
    stopped = json.loads((out / "results.json").read_text(encoding="utf-8"))["steps"]
    assert 0 < stopped < 1000000
    assert f"stopped at step {stopped};" in output

    output, errors = program("--resume", str(out), "--steps", str(stopped + 3)).communicate(timeout=60)
    assert "stopped at" not in output and f"step {stopped + 3}/{stopped + 3}" in errors
    assert [record["step"] for record in read_metrics(metrics)] == list(range(1, stopped + 4))


@pytest.mark.parametrize("wrong", [{"step": -5}, {"tokens": -1}, {"seconds": -1.0}, {"step": 3, "val_loss": None}])
def test_a_position_that_no_run_has_is_refused(wrong):
    with pytest.raises(UserError, match="which no run does"):
        training.Position(**{"val_loss": 1.0, "best_val_loss": 1.0} | wrong)


def test_a_run_that_is_beyond_its_stop_ends_after_the_next_step(tmp_path):
    run(tmp_path, stop_after=20)
    position, interrupted = run(tmp_path, resume=True, stop_after=3)
    assert position.step == 21 and interrupted
