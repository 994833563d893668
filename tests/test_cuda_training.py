"""Training and generation with a model on a device: they do what they do on the CPU, and copy no more than they have to.

On the stand-in for CuPy (tests/cuda_emu), and on a GPU where there is one: `pytest -m gpu`. In float64 both have to agree
to the last few digits, which on a small model no mistake survives. In float32, which is what trains, they may differ by
what a few steps make of different rounding.
"""
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from cuda_emu import stand_in

from minigpt import checkpoint, device, kernels, use
from minigpt.data import split
from minigpt.generate import Engine, Request, generate_text
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.optim import AdamW, Muon
from minigpt.parallel import Workers, cores, threads_for
from minigpt.sampling import Rules
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer
from minigpt.train import Position, TrainSettings, micro_batch_size, train, training_step, validation_loss

pytestmark = pytest.mark.skipif(kernels.cuda.switched_off(), reason="MINIGPT_KERNELS=none")

TEXT = "to be or not to be, that is the question: whether 'tis nobler in the mind to suffer\n" * 8
TOKENIZER = CharTokenizer.train(TEXT)
V = TOKENIZER.vocabulary_size
MODELS = {
    "gpt": (GPT, GPTConfig(V, context=8, layers=2, heads=2, width=12, dropout=0.2), AdamW),
    "gpt, no biases": (GPT, GPTConfig(V, context=8, layers=2, heads=2, width=12, bias=False), AdamW),
    "gpt_modern": (GPTModern, GPTModernConfig(V, context=8, layers=2, heads=2, width=12, dropout=0.2), Muon),
}
SETTINGS = TrainSettings(steps=6, batch_size=5, device="cuda", learning_rate=1e-2, warm_up=2, eval_every=3, log_every=1,
                         clip=0.5, seed=3)
TRAINING, VALIDATION = split(TOKENIZER.encode(TEXT), 8)
each_model = pytest.mark.parametrize("name", MODELS)


def steps(name, put, dtype, number=4, **changes):
    """Makes some steps; yields the loss, the norm of the gradient, the gradient and the parameters after each."""
    Model, config, Optimizer = MODELS[name]
    model, settings = Model(config, seed=1, dtype=dtype), replace(SETTINGS, **changes)
    model.recompute_blocks = settings.recompute
    model.flat.move(put)
    optimizer = Optimizer(model.flat)
    with Workers(model, 1) as workers:
        for step in range(number):
            loss, norm = training_step(workers, optimizer, TRAINING, config.context, settings, step, lr=1e-2)
            yield loss, norm, device.on_host(model.flat.grad).copy(), device.on_host(model.flat.data).copy()


def on_cpu(name, dtype, **changes):
    return steps(name, lambda array: array, dtype, **changes)


def assert_alike(found, expected, tolerance):
    """The steps of two models: all numbers alike, each measured by the largest of its kind."""
    for step, (here, there) in enumerate(zip(found, expected, strict=True)):
        for what, a, b in zip(("loss", "norm", "gradient", "parameters"), here, there):
            assert np.max(np.abs(a - b)) <= tolerance[what] * np.max(np.abs(b)), f"{what} of step {step}"


SAME = dict.fromkeys(("loss", "norm", "gradient", "parameters"), 1e-11)
ROUNDED = {"loss": 1e-5, "norm": 1e-5, "gradient": 1e-4, "parameters": 1e-3}     # AdamW enlarges small differences


@pytest.mark.parametrize("changes", [{}, {"micro_batch": 2}, {"recompute": True}], ids=str)
@each_model
def test_steps_on_a_device_are_those_of_the_cpu(cupy, name, changes):
    assert_alike(steps(name, cupy.asarray, np.float64, **changes), on_cpu(name, np.float64, **changes), SAME)


@each_model
def test_steps_in_float32_differ_by_rounding(cupy, name):
    assert_alike(steps(name, cupy.asarray, np.float32), on_cpu(name, np.float32), ROUNDED)


def test_a_step_that_is_not_the_same_is_noticed(emulated):
    for changes in {"seed": 4}, {"clip": 0.4}, {"batch_size": 4}:
        with pytest.raises(AssertionError):
            assert_alike(steps("gpt", emulated.asarray, np.float64, **changes), on_cpu("gpt", np.float64), SAME)


@pytest.mark.parametrize("micro_batches, changes", [(1, {}), (3, {"micro_batch": 2})])
@each_model
def test_a_step_copies_the_batch_in_and_loss_and_norm_out(emulated, monkeypatch, name, micro_batches, changes):
    Model, config, Optimizer = MODELS[name]
    model, settings = device.move(Model(config), "cuda"), replace(SETTINGS, **changes)
    optimizer, ids = Optimizer(model.flat), 8 * SETTINGS.batch_size * config.context
    inwards = [("in", ids), ("in", ids), ("in", 8 * SETTINGS.batch_size)][:3 if config.dropout else 2]
    with Workers(model, 1) as workers:
        for step in range(3):
            monkeypatch.setattr(stand_in, "COPIES", [])
            training_step(workers, optimizer, TRAINING, config.context, settings, step, lr=1e-2)
            if step > 0:                            # in the first step rotary's angles go in, too
                assert stand_in.COPIES == inwards + [("out", 4)] * micro_batches + [("out", 8)]


@each_model
def test_everything_of_a_run_is_on_the_device(emulated, name):
    Model, config, Optimizer = MODELS[name]
    model = device.move(Model(config), "cuda")
    optimizer, flat = Optimizer(model.flat), model.flat
    arrays = [flat.data, flat.grad, optimizer.m, optimizer.v,
              *(x for p in flat.parameters.values() for x in (p.data, p.grad)), model.new_cache().k, model.new_cache().v]
    assert all(isinstance(array, emulated.ndarray) for array in arrays)
    for p in flat.parameters.values():              # views: what changes the block changes them
        assert np.shares_memory(p.data.hidden, flat.data.hidden) and np.shares_memory(p.grad.hidden, flat.grad.hidden)


# Runs

def run(out, where="cuda", name="gpt", resume=False, **changes):
    Model, config, _ = MODELS[name]
    model, position = Model(config, seed=1), None
    if resume:
        saved = checkpoint.load(out, ["latest"])
        model, position = saved.model, Position(**saved.training["position"])
    stop_after = changes.pop("stop_after", None)
    optimizer = "muon" if name == "gpt_modern" else "adamw"
    settings = replace(SETTINGS, device=where, workers=1, optimizer=optimizer, **changes)
    train(device.move(model, where), TOKENIZER, TRAINING, VALIDATION, settings, out, position, stop_after=stop_after)
    return checkpoint.load(out / "latest")


@pytest.mark.parametrize("name", ["gpt", "gpt_modern"])
def test_a_run_can_be_stopped_saved_and_resumed_bit_for_bit(cupy, tmp_path, name):
    run(tmp_path / "whole", name=name)
    run(tmp_path / "halves", name=name, stop_after=3)
    run(tmp_path / "halves", name=name, resume=True)
    for file in "latest/model.safetensors", "latest/optimizer.safetensors", "best/model.safetensors":
        assert (tmp_path / "halves" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_run_can_change_its_place(cupy, tmp_path):
    positions = []
    for places in ("cpu", "cpu"), ("cuda", "cpu"), ("cpu", "cuda"):
        out = tmp_path / "-".join(places)
        run(out, places[0], stop_after=3)
        positions.append(run(out, places[1], resume=True).training["position"])
    losses = [position["val_loss"] for position in positions]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_the_validation_loss_is_that_of_the_cpu(cupy):
    model = GPT(MODELS["gpt"][1], seed=1, dtype=np.float64)
    losses = []
    for put in (lambda array: array), cupy.asarray:
        model.flat.move(put)
        with Workers(model, 1) as workers:
            losses.append(validation_loss(workers, VALIDATION, 8))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


# Generation

@pytest.mark.parametrize("name", ["gpt", "gpt_modern"])
def test_a_model_on_a_device_says_what_it_says_on_the_cpu(cupy, tmp_path, name):
    model = run(tmp_path, "cpu", name, steps=20, eval_every=20).model
    texts = []
    for where in "cpu", "cuda":
        device.move(model, where)
        texts.append("".join(generate_text(model, TOKENIZER, "to be", 30, seed=5, rules=Rules(temperature=0.7))))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["gpt", "gpt_modern"])
def test_texts_of_different_lengths_are_read_side_by_side_as_on_the_cpu(cupy, name):
    model, prompts = MODELS[name][0](MODELS[name][1], seed=1), ([1, 2, 3, 4, 5], [6], [7, 8])
    model.flat.data[...] = np.random.default_rng(0).normal(size=len(model.flat))        # all of them matter
    each = []
    for where in "cpu", "cuda":
        device.move(model, where)
        with Engine(model, slots=3) as engine:
            jobs = [engine.submit(Request(prompt, 3, Rules(0), top=V)) for prompt in prompts]
            engine.run()
        each.append([[sorted(token.top) for token in job.tokens] for job in jobs])
    np.testing.assert_allclose(each[0], each[1], atol=1e-4)


def test_a_token_goes_in_and_its_logits_come_out(emulated, monkeypatch):
    model = device.move(GPT(MODELS["gpt"][1]), "cuda")
    with Engine(model) as engine:
        engine.submit(Request([1, 2, 3], 5))
        engine.step()
        monkeypatch.setattr(stand_in, "COPIES", [])
        for _ in range(3):
            engine.step()
    assert stand_in.COPIES == [("in", 8), ("out", 4 * V)] * 3


# Precision

@pytest.fixture
def tf32(monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "0")
    device.prepare("cuda", "tf32")
    assert os.environ["CUPY_TF32"] == "1"


def test_tf32_takes_factors_with_10_bits_of_mantissa(emulated, tf32):
    x = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    cut = (emulated.asarray(x) @ emulated.asarray(np.eye(50, dtype=np.float32))).get()
    assert 2 ** -10.1 < np.max(np.abs(cut / x - 1)) <= 2 ** -10
    a, b = x[:30], x[:, :20]
    product = (emulated.asarray(a) @ emulated.asarray(b)).get()
    assert np.all(np.abs(product - a.astype(np.float64) @ b) <= 2 ** -9 * (np.abs(a) @ np.abs(b)))
    assert (emulated.asarray(x.astype(np.float64)) @ emulated.asarray(np.eye(50))).get().tolist() == x.tolist()


TF32_PRODUCT = """
import numpy as np
from minigpt import device
device.prepare("cuda", "tf32")
import cupy
a, b = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(np.float32)
off = np.abs((cupy.asarray(a) @ cupy.asarray(b)).get() - a.astype(np.float64) @ b)
assert np.all(off <= 2 ** -9 * (np.abs(a) @ np.abs(b))), "less exact than TF32"
assert np.max(off) > 1e-3, "as exact as float32: the option has no effect"
"""


@pytest.mark.gpu
def test_tf32_does_so_on_a_gpu():
    """In a process of its own, as CuPy keeps to what was asked for at its first product."""
    if kernels.cuda.why_not():
        pytest.skip(f"no GPU: {kernels.cuda.why_not()}")
    import cupy
    if int(cupy.cuda.Device().compute_capability) < device.TF32_SINCE:
        pytest.skip("this GPU has no TF32")
    result = subprocess.run([sys.executable, "-c", TF32_PRODUCT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["gpt", "gpt_modern"])
def test_a_first_step_in_tf32_is_off_by_a_thousandth_or_so(emulated, tf32, name):
    """What it does to a step of a whole model, where factors are cut off: the tolerance that the README states."""
    (loss, norm, gradient, _), = steps(name, emulated.asarray, np.float32, number=1)
    (loss0, norm0, gradient0, _), = on_cpu(name, np.float32, number=1)
    assert loss == pytest.approx(loss0, rel=1e-4) and norm == pytest.approx(norm0, rel=2e-3)
    off = np.max(np.abs(gradient - gradient0)) / np.max(np.abs(gradient0))
    assert 1e-5 < off < 5e-3


# Settings

def test_a_gpu_has_one_worker_that_takes_the_whole_batch(emulated):
    model = GPT(MODELS["gpt"][1])
    assert threads_for(model) == cores() and threads_for(device.move(model, "cuda")) == 1
    assert Workers(model).number == 1 and Engine(model).crew.number == 1
    on_gpu, on_cpu = TrainSettings(batch_size=64, device="cuda"), TrainSettings(batch_size=64, workers=2)
    assert (micro_batch_size(on_gpu, 1), micro_batch_size(on_cpu, 2)) == (64, 8)
    assert [micro_batch_size(replace(on_cpu, batch_size=size), 2) for size in (2, 12, 18, 24, 34)] == [1, 6, 5, 6, 6]
    assert micro_batch_size(replace(on_gpu, micro_batch=16), 1) == 16


@pytest.mark.parametrize("wrong, said", [({"device": "cuda", "workers": 2}, "workers is 2, but a GPU takes one"),
                                         ({"precision": "tf32"}, "precision tf32 is a GPU's")])
def test_settings_that_do_not_go_with_the_device_are_named(wrong, said):
    with pytest.raises(UserError, match=said):
        TrainSettings(**wrong)


def test_a_device_is_asked_for_in_vain_in_one_sentence(emulated, monkeypatch):
    with pytest.raises(UserError, match="^4 processes can't work on GPUs together"):
        device.prepare("cuda", processes=4)
    monkeypatch.setenv("CUPY_TF32", "1")
    old = stand_in.cuda.Device()
    old.compute_capability = "75"
    monkeypatch.setattr(stand_in.cuda, "Device", lambda: old)
    with pytest.raises(UserError, match="^this GPU has no TF32"):
        device.prepare("cuda", "tf32")
    device.prepare("cuda", "float32")
    device.prepare("cpu", processes=4)
    assert os.environ["CUPY_TF32"] == "0"


def test_on_the_cpu_nothing_is_copied():
    model = GPT(MODELS["gpt"][1])
    block = model.flat.data
    assert device.move(model, "cpu").flat.data is block and device.on_host(block) is block
    assert np.asarray(TRAINING, like=block) is TRAINING
    with use("reference"):
        device.wait("cpu")
