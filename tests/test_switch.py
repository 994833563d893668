"""The Switch Transformer as a whole: who is sent where, what training adds to the loss, and what it does not change."""
import math

import numpy as np
import pytest
from numerics import check_model

from minigpt import Tensor, checkpoint, ops
from minigpt.data import sequence_seeds
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.models.switch import Switch, SwitchConfig, balance, shares, z_loss
from minigpt.optim import AdamW, Muon
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer
from minigpt.train import TrainSettings, train

SHAPE = {"vocabulary_size": 11, "context": 7, "layers": 2, "heads": 3, "width": 12, "experts": 3}


def small_model(dtype=np.float64, **changes):
    """With parameters that are all of a size that matters, so that experts differ and none is left out."""
    model = Switch(SwitchConfig(**SHAPE | changes), seed=1, dtype=dtype)
    model.flat.data += 0.2 * np.random.default_rng(2).normal(size=len(model.flat)).astype(dtype)
    return model


def some_tokens(B=3, T=5):
    rng = np.random.default_rng(3)
    return rng.integers(11, size=(B, T)), rng.integers(11, size=(B, T))


# ---- the whole model ----

@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("loss", ["loss", "training_loss"])
def test_the_gradient_of_the_whole_model_is_its_slope(loss, recompute, backend):
    """With penalties so heavy that a mistake in them would show, and a capacity that passes some positions over."""
    model, (x, y) = small_model(dropout=0.3, balance=0.5, z=0.3, capacity=0.7), some_tokens()
    model.recompute_blocks = recompute
    seeds = sequence_seeds(seed=5, step=0, size=3)
    check_model_but_for_shares(model, lambda: getattr(model, loss)(x, y, seeds))


def check_model_but_for_shares(model, loss):
    """check_model, where no choice is so close that its small steps turn it."""
    ids, _ = some_tokens()
    for scores in model.route(ids)[1]:
        first, second = np.sort(scores.data, -1)[..., -1], np.sort(scores.data, -1)[..., -2]
        assert (first - second).min() > 1e-3
    check_model(loss, model.flat)


def test_no_position_sees_a_later_one(backend):
    model, (x, _) = small_model(), some_tokens()
    before = model(x).data
    for t in range(1, x.shape[1]):
        changed = x.copy()
        changed[:, t] = (changed[:, t] + 1) % 11
        np.testing.assert_allclose(model(changed).data[:, :t], before[:, :t], rtol=1e-12, atol=1e-12)
        assert not np.allclose(model(changed).data[:, t], before[:, t])


@pytest.mark.parametrize("optimizer, rate", [(Muon, 0.02), (AdamW, 0.01)])
def test_it_learns_four_sequences_by_heart(optimizer, rate):
    model, (x, y) = Switch(SwitchConfig(11, 7, 2, 2, 32, experts=4), seed=0), some_tokens(4, 7)
    optimizer = optimizer(model.flat)
    for step in range(300):
        model.flat.grad[...] = 0
        model.training_loss(x, y).backward()
        optimizer.step(rate * (1 - step / 300))
    assert model.loss(x, y).item() < 0.02


def test_a_new_model_expects_every_token_exactly_alike():
    model, (x, y) = Switch(SwitchConfig(**SHAPE)), some_tokens()
    assert model.loss(x, y).item() == pytest.approx(np.log(11), rel=1e-6)


def test_the_parameters_can_be_counted_without_making_a_model():
    config = SwitchConfig(**SHAPE)
    assert config.parameter_count() == len(Switch(config).flat)


def test_with_one_expert_it_is_the_modern_gpt(backend):
    """The gate of an only expert is 1."""
    switch = small_model(experts=1)
    gpt = GPTModern(GPTModernConfig(**{name: SHAPE[name] for name in SHAPE if name != "experts"}), dtype=np.float64)
    for name, p in gpt.flat.parameters.items():
        name = name.replace("mlp.expand.w", "experts.expand").replace("mlp.output.w", "experts.output")
        p.data[...] = switch.flat.parameters[name].data.reshape(p.shape)
    x, _ = some_tokens()
    np.testing.assert_allclose(switch(x).data, gpt(x).data, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("wrong, said", [({"experts": 0}, "experts is 0"), ({"capacity": 0.0}, "capacity is 0.0"),
                                         ({"balance": -1.0}, "can't be negative"), ({"heads": 4}, "pairs")])
def test_a_shape_that_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        SwitchConfig(**SHAPE | wrong)


# ---- the router ----

def test_worked_by_hand():
    """Two experts, four positions, three of which choose the first: f = (3/4, 1/4)."""
    scores = Tensor(np.log([[[3.0, 1.0], [3, 1], [3, 1], [1, 3]]]))
    assert shares(scores.data).tolist() == [0.75, 0.25]
    P = np.array([3 / 4 * 3 + 1 / 4, 1 / 4 * 3 + 3 / 4]) / 4
    assert balance(scores).item() == pytest.approx(2 * (0.75 * P[0] + 0.25 * P[1]), rel=1e-12)
    assert z_loss(scores).item() == pytest.approx(math.log(4) ** 2, rel=1e-12)


def test_the_balance_is_one_where_all_have_as_much_to_do_and_e_where_one_does_all():
    alike, alone = 9 * np.eye(4)[None], np.broadcast_to(50 * np.eye(4)[2], (1, 6, 4))
    assert balance(Tensor(alike)).item() == pytest.approx(1, rel=1e-12)
    assert balance(Tensor(alone)).item() == pytest.approx(4, rel=1e-12)


@pytest.mark.parametrize("capacity, taken", [(None, [0, 1, 2, 3, 4]), (1, [0, 1]), (3, [0, 1, 2, 3]), (9, [0, 1, 2, 3, 4])])
def test_positions_that_come_too_late_are_passed_over(capacity, taken, backend):
    x, choice = np.eye(5) + 1, np.array([0, 1, 0, 0, 0])
    w = np.stack([np.eye(5), 2 * np.eye(5)])
    y = ops.experts(x, np.ones(5), w, w, choice, capacity=capacity, activation="relu_squared").data
    assert np.flatnonzero(y.any(-1)).tolist() == taken
    np.testing.assert_allclose(y[1], 2 * (2 * x[1]) ** 2)


def test_only_training_passes_positions_over():
    model, (x, y) = small_model(balance=0.0, z=0.0, capacity=0.1), some_tokens()
    tight = model.training_loss(x, y).item()
    assert tight != pytest.approx(model.loss(x, y).item(), rel=1e-3)
    roomy = small_model(balance=0.0, z=0.0, capacity=3.0)
    assert roomy.training_loss(x, y).item() == pytest.approx(model.loss(x, y).item(), rel=1e-12)


def test_the_penalties_of_micro_batches_add_up():
    model, (x, y) = small_model(balance=0.3, z=0.2, capacity=3.0), some_tokens(4)
    parts = [model.training_loss(x[part], y[part], total=y.size).item() for part in (slice(0, 1), slice(1, 4))]
    surprises = [model.loss(x[part], y[part], total=y.size).item() for part in (slice(0, 1), slice(1, 4))]
    alone = [model.training_loss(x[part], y[part]).item() - model.loss(x[part], y[part]).item()
             for part in (slice(0, 1), slice(1, 4))]
    assert sum(parts) - sum(surprises) == pytest.approx(alone[0] / 4 + alone[1] * 3 / 4, rel=1e-10)


def test_training_with_a_balance_keeps_all_experts_at_work():
    """The same start, a router that prefers one expert: with the balance others get work, too."""
    ids, used = np.random.default_rng(0).integers(11, size=(8, 8)), {}
    for weight in 0.0, 1.0:
        model = Switch(SwitchConfig(11, 7, 1, 2, 16, experts=4, balance=weight, z=0.0), seed=3)
        model.tokens.w.data += 1                            # all positions alike, so that one expert is preferred
        optimizer = AdamW(model.flat)
        for _ in range(60):
            model.flat.grad[...] = 0
            model.training_loss(ids[:, :-1], ids[:, 1:]).backward()
            optimizer.step(3e-3)
        used[weight] = np.bincount(model.choices(ids[:, :-1]).reshape(-1)).max() / ids[:, :-1].size
    assert used[1.0] < used[0.0] and used[1.0] < 0.5


def test_the_choices_are_those_of_the_routers_scores():
    model, (x, _) = small_model(), some_tokens()
    chosen, (_, all_scores) = model.choices(x), model.route(x)
    assert chosen.shape == (2, *x.shape)
    for block, scores in zip(chosen, all_scores):
        np.testing.assert_array_equal(np.bincount(block.reshape(-1), minlength=3) / x.size, shares(scores.data))


# ---- with the rest of the house ----

def test_muon_moves_each_expert_as_a_matrix_of_its_own():
    model = small_model()
    model.flat.grad[...] = np.random.default_rng(5).normal(size=model.flat.grad.shape)
    before = model.blocks[0].experts.expand.data.copy()
    Muon(model.flat).step(lr=0.01)
    for step in model.blocks[0].experts.expand.data - before:
        sizes = np.linalg.svd(step, compute_uv=False) / (0.01 * (48 / 12) ** 0.5)
        assert (sizes < 1.3).all() and (sizes > 0.6).all()


def test_the_loop_trains_it_and_a_checkpoint_keeps_it(tmp_path):
    text = "to be or not to be that is the question " * 30
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    model = Switch(SwitchConfig(tokenizer.vocabulary_size, 8, 1, 2, 16, experts=3))
    settings = TrainSettings(steps=30, batch_size=4, workers=2, optimizer="muon", learning_rate=0.02, warm_up=3,
                             eval_every=30, weight_decay=0.0)
    position, _ = train(model, tokenizer, ids, ids[:200], settings, tmp_path)
    assert position.val_loss < 2.2
    saved = checkpoint.load(tmp_path / "latest").model
    assert saved.name == "switch" and saved.config == model.config
    np.testing.assert_array_equal(saved.flat.data, model.flat.data)
