"""AdamW over the flat block, clipping, and the learning rate."""
import math

import numpy as np
import pytest

from minigpt import nn
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.ops import gradient_norm
from minigpt.optim import AdamW, warm_up_hold_fall

CONFIG = GPTConfig(vocabulary_size=11, context=7, layers=2, heads=3, width=12)


def model_with_gradient(dtype=np.float64, scale=1.0):
    model = GPT(CONFIG, dtype=dtype)
    model.flat.grad[...] = scale * np.random.default_rng(0).normal(size=model.flat.grad.shape)
    return model


def test_the_first_step_moves_every_parameter_by_the_learning_rate_against_its_gradient(backend):
    model = model_with_gradient()
    before = model.flat.data.copy()
    AdamW(model.flat, decay=0.0, eps=0.0).step(lr=0.01)
    np.testing.assert_allclose(model.flat.data - before, -0.01 * np.sign(model.flat.grad), rtol=1e-9)


def test_matrices_and_embeddings_decay_and_vectors_do_not(backend):
    model = model_with_gradient(scale=0.0)
    before = model.flat.data.copy()
    AdamW(model.flat, decay=0.5).step(lr=0.1)
    for name, p in model.flat.parameters.items():
        shrunk = 1.0 if p.group == "vectors" else 0.95
        np.testing.assert_allclose(p.data.reshape(-1), shrunk * before[model.flat.slices[name]], rtol=1e-12)


def test_frozen_parameters_stay():
    model = nn.freeze(model_with_gradient(), "blocks.1")
    model.flat.grad[...] = 1
    before = model.flat.data[model.flat.groups["frozen"]].copy()
    AdamW(model.flat).step(lr=0.1)
    np.testing.assert_array_equal(model.flat.data[model.flat.groups["frozen"]], before)


def test_a_long_gradient_is_clipped_and_its_norm_returned(backend):
    steps = []
    for scale in 1.0, 7.0:
        model = model_with_gradient(scale=scale)
        optimizer = AdamW(model.flat, eps=1.0)                  # a large eps, so that the size of a gradient shows
        assert optimizer.step(lr=0.1, max_norm=0.5) == pytest.approx(scale * steps_norm(), rel=1e-12)
        steps.append(optimizer.m.copy())
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-9)
    assert gradient_norm(steps[0]) == pytest.approx(0.5 * (1 - 0.9), rel=1e-9)


def steps_norm():
    return float(np.linalg.norm(model_with_gradient().flat.grad))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_changes_nothing(bad):
    model = model_with_gradient()
    model.flat.grad[5] = bad
    before, optimizer = model.flat.data.copy(), AdamW(model.flat)
    assert not math.isfinite(optimizer.step(lr=0.1))
    np.testing.assert_array_equal(model.flat.data, before)
    assert optimizer.steps == 0 and not optimizer.m.any()


def test_an_optimizer_that_was_restored_goes_on_bit_for_bit():
    straight, broken = model_with_gradient(np.float32), model_with_gradient(np.float32)
    one, two = AdamW(straight.flat), AdamW(broken.flat)
    for optimizer in one, two:
        optimizer.step(0.01)
    arrays, numbers = two.state()
    restored = AdamW(broken.flat)
    restored.restore({name: a.copy() for name, a in arrays.items()}, dict(numbers))
    for optimizer in one, restored:
        optimizer.step(0.02)
    np.testing.assert_array_equal(straight.flat.data, broken.flat.data)


def test_it_finds_the_bottom_of_a_bowl():
    model = model_with_gradient()
    goal = np.random.default_rng(1).normal(size=len(model.flat))
    optimizer = AdamW(model.flat, decay=0.0)
    for step in range(400):
        model.flat.grad[...] = model.flat.data - goal
        optimizer.step(0.06 * (1 - step / 400))
    np.testing.assert_allclose(model.flat.data, goal, atol=1e-2)


def test_the_learning_rate_rises_falls_and_ends_where_it_should():
    rates = [warm_up_hold_fall(step, 100, 10, 0.3, 1.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[30] == 1.0 > rates[31] and rates[-1] == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
