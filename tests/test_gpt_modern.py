"""The modern GPT as a whole, and Muon."""
import numpy as np
import pytest
from numerics import check_model

from minigpt.data import sequence_seeds
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.optim import Muon, orthogonal
from minigpt.settings import UserError

SHAPE = {"vocabulary_size": 11, "context": 7, "layers": 2, "heads": 3, "width": 12}


def small_model(dtype=np.float64, **changes):
    """With parameters that are all of a size that matters (the output matrices begin at 0)."""
    model = GPTModern(GPTModernConfig(**SHAPE | changes), seed=1, dtype=dtype)
    model.flat.data += 0.2 * np.random.default_rng(2).normal(size=len(model.flat)).astype(dtype)
    return model


def some_tokens(B=3, T=5):
    rng = np.random.default_rng(3)
    return rng.integers(11, size=(B, T)), rng.integers(11, size=(B, T))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_of_the_whole_model_is_its_slope(dropout, recompute, backend):
    model, (x, y) = small_model(dropout=dropout), some_tokens()
    model.recompute_blocks = recompute
    seeds = sequence_seeds(seed=5, step=0, size=3) if dropout else None
    check_model(lambda: model.loss(x, y, seeds), model.flat)


def test_no_position_sees_a_later_one(backend):
    model, (x, _) = small_model(), some_tokens()
    before = model(x).data
    for t in range(1, x.shape[1]):
        changed = x.copy()
        changed[:, t] = (changed[:, t] + 1) % 11
        np.testing.assert_array_equal(model(changed).data[:, :t], before[:, :t])
        assert not np.allclose(model(changed).data[:, t], before[:, t])


def test_it_learns_four_sequences_by_heart_with_muon():
    model, (x, y) = GPTModern(GPTModernConfig(11, 7, 2, 2, 32), seed=0), some_tokens(4, 7)
    optimizer = Muon(model.flat)
    for step in range(300):
        model.flat.grad[...] = 0
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step(0.02 * (1 - step / 300))
    assert loss.item() < 0.02


def test_a_new_model_expects_every_token_exactly_alike():
    model, (x, y) = GPTModern(GPTModernConfig(**SHAPE)), some_tokens()
    assert model.loss(x, y).item() == pytest.approx(np.log(11), rel=1e-6)


def test_the_parameters_can_be_counted_without_making_a_model():
    config = GPTModernConfig(**SHAPE)
    assert config.parameter_count() == len(GPTModern(config).flat)


@pytest.mark.parametrize("wrong, said", [({"heads": 5}, "heads"), ({"heads": 4}, "pairs"), ({"width": 0}, "width")])
def test_a_shape_that_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        GPTModernConfig(**SHAPE | wrong)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (5, 6), (7, 5)])
def test_orthogonal_keeps_directions_and_makes_all_singular_values_about_one(shape):
    g = np.random.default_rng(0).normal(size=shape)
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    new_u, new_s, new_vt = np.linalg.svd(orthogonal(g), full_matrices=False)
    assert (new_s > 0.6).all() and (new_s < 1.3).all() and s.max() / s.min() > 2
    inner = u.T @ orthogonal(g) @ vt.T                      # in the singular vectors of g it is diagonal
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-10)
    expected = s / (np.linalg.norm(g) + 1e-7)
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected ** 3 + 2.0315 * expected ** 5
    np.testing.assert_allclose(np.diag(inner), expected, rtol=1e-9)
    assert orthogonal(g.astype(np.float32)).dtype == np.float32


def test_muon_moves_matrices_by_steps_of_one_size_and_the_rest_as_adamw_does():
    model = small_model()
    model.flat.grad[...] = np.random.default_rng(5).normal(size=model.flat.grad.shape)
    before = model.flat.data.copy()
    Muon(model.flat, ratio=0.5, eps=0.0).step(lr=0.01)
    moved = model.flat.data - before
    for name, p in model.flat.parameters.items():
        step = moved[model.flat.slices[name]].reshape(p.shape)
        if p.group == "matrices":
            sizes = np.linalg.svd(step, compute_uv=False) / (0.01 * max(1, p.shape[1] / p.shape[0]) ** 0.5)
            assert (sizes < 1.3).all() and (sizes > 0.6).mean() > 0.8      # all but singular values near 0
            assert (step * p.grad).sum() < 0
        else:
            np.testing.assert_allclose(step, -0.005 * np.sign(p.grad), rtol=1e-9)


def test_muon_gives_the_same_bits_however_its_work_is_split():
    results = []
    for split in (lambda f, parts: [f(p) for p in parts]), (lambda f, parts: [f(p) for p in reversed(parts)]):
        model = small_model(np.float32)
        model.flat.grad[...] = np.random.default_rng(5).normal(size=model.flat.grad.shape)
        Muon(model.flat).step(0.01, 1.0, split)
        results.append(model.flat.data)
    np.testing.assert_array_equal(*results)
