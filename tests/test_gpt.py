"""The whole model: an operation can be right and a layer wrong."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics import check_model

from minigpt import Tensor, nn, no_grad
from minigpt.data import sequence_seeds
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.optim import AdamW
from minigpt.settings import UserError

SHAPE = {"vocabulary_size": 11, "context": 7, "layers": 2, "heads": 3, "width": 12}
VARIANTS = {"plain": {}, "no bias": {"bias": False}, "dropout": {"dropout": 0.3}}


def small_gpt(dtype=np.float64, **changes):
    """A GPT of unequal sizes whose parameters are all of a size that matters, so that no mistake hides."""
    model = GPT(GPTConfig(**SHAPE | changes), seed=1, dtype=dtype)
    rng = np.random.default_rng(2)
    model.flat.data += 0.1 * rng.normal(size=model.flat.data.shape).astype(dtype)
    return model


def some_tokens(B=3, T=5, seed=3):
    rng = np.random.default_rng(seed)
    return rng.integers(11, size=(B, T)), rng.integers(11, size=(B, T))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradient_of_the_whole_model_is_its_slope(variant, recompute, backend):
    """One random direction through the whole block of parameters, and one through each parameter alone."""
    model = small_gpt(**VARIANTS[variant])
    model.recompute_blocks = recompute
    x, y = some_tokens()
    seeds = sequence_seeds(seed=5, step=0, size=3) if variant == "dropout" else None
    check_model(lambda: model.loss(x, y, seeds), model.flat)


@settings(max_examples=15)
@given(shape=st.fixed_dictionaries({
    "vocabulary_size": st.integers(2, 13), "context": st.integers(1, 9), "layers": st.integers(1, 3),
    "heads": st.integers(1, 3), "bias": st.booleans(), "dropout": st.sampled_from([0.0, 0.4])}),
    head_width=st.integers(1, 9), B=st.integers(1, 3), seed=st.integers(0, 2 ** 32 - 1))
def test_the_gradient_is_the_slope_for_any_shape_and_any_text(shape, head_width, B, seed, backend):
    model = small_gpt(**shape, width=head_width * shape["heads"])
    rng = np.random.default_rng(seed)
    V, T = shape["vocabulary_size"], rng.integers(1, shape["context"] + 1)
    x, y = rng.integers(V, size=(B, T)), rng.integers(-1, V, size=(B, T))       # -1: a target that does not count
    seeds = sequence_seeds(seed, 0, B)
    model.loss(x, y, seeds).backward()
    gradient, weights, h = model.flat.grad.copy(), model.flat.data.copy(), 1e-6
    direction = rng.normal(size=weights.shape)
    direction /= np.linalg.norm(direction)
    losses = []
    for step in h, -h:
        model.flat.data[...] = weights + step * direction
        with no_grad():
            losses.append(model.loss(x, y, seeds).item())
    size = np.linalg.norm(gradient * direction)
    assert (losses[0] - losses[1]) / (2 * h) == pytest.approx(gradient @ direction, rel=1e-5, abs=1e-5 * size + 1e-9)


def test_recomputed_blocks_give_the_same_gradient_bit_for_bit():
    x, y = some_tokens()
    gradients = []
    for recompute in False, True:
        model = small_gpt(np.float32, dropout=0.3)
        model.recompute_blocks = recompute
        model.loss(x, y, sequence_seeds(5, 0, 3)).backward()
        gradients.append(model.flat.grad)
    np.testing.assert_array_equal(*gradients)


def test_no_position_sees_a_later_one(backend):
    model = small_gpt()
    x, _ = some_tokens()
    before = model(x).data
    for t in range(1, x.shape[1]):
        changed = x.copy()
        changed[:, t] = (changed[:, t] + 1) % 11
        after = model(changed).data
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert not np.allclose(after[:, t], before[:, t])


def test_it_learns_four_sequences_by_heart():
    model = GPT(GPTConfig(11, 8, 2, 2, 32), seed=0)
    x, y = some_tokens(4, 8)
    optimizer = AdamW(model.flat, decay=0.0)
    for _ in range(150):
        model.flat.grad[...] = 0
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step(3e-3)
    assert loss.item() < 0.02


def test_a_new_model_expects_every_token_alike():
    model = GPT(GPTConfig(50, 16, 3, 4, 64), seed=0)
    rng = np.random.default_rng(0)
    loss = model.loss(rng.integers(50, size=(4, 16)), rng.integers(50, size=(4, 16))).item()
    assert loss == pytest.approx(np.log(50), abs=0.1)


def test_parameters_begin_with_the_spread_of_gpt_2():
    model = GPT(GPTConfig(50, 64, 8, 4, 64), seed=0)
    for name, p in model.flat.parameters.items():
        if name.endswith(".b"):
            assert not p.data.any()
        elif "norm" in name:
            assert (p.data == 1).all()
        else:
            std = 0.02 / (2 * 8) ** 0.5 if name.endswith("output.w") else 0.02
            assert p.data.std() == pytest.approx(std, rel=0.1), name


@pytest.mark.parametrize("bias", [True, False])
def test_the_parameters_can_be_counted_without_making_a_model(bias):
    config = GPTConfig(**SHAPE | {"bias": bias})
    assert config.parameter_count() == len(GPT(config).flat)


def test_the_head_is_the_token_table_and_stands_in_the_block_once():
    model = small_gpt()
    names = [name for name, p in model.named_parameters() if p.shape == (11, 12)]
    assert names == ["tokens.w"]
    x, y = some_tokens()
    model.loss(x, y).backward()
    unseen = sorted(set(range(11)) - set(x.reshape(-1)))        # tokens that only the head has met
    assert unseen and np.abs(model.tokens.w.grad[unseen]).sum() > 0


def test_parameters_and_gradients_are_views_of_the_block_that_do_not_overlap():
    model = small_gpt()
    x, y = some_tokens()
    model.loss(x, y).backward()
    covered = np.zeros(len(model.flat), int)
    for name, p in model.flat.parameters.items():
        assert np.shares_memory(p.data, model.flat.data) and np.shares_memory(p.grad, model.flat.grad)
        covered[model.flat.slices[name]] += 1
        assert np.abs(p.grad).sum() > 0, f"{name} got no gradient"
    assert (covered == 1).all()


def test_groups_are_slices_that_cover_the_block_in_order():
    flat = small_gpt().flat
    ends = [0]
    for group in nn.GROUPS:
        assert flat.groups[group].start == ends[-1]
        ends.append(flat.groups[group].stop)
        assert all(flat.groups[group].start <= flat.slices[name].start < flat.slices[name].stop <= ends[-1]
                   for name, p in flat.parameters.items() if p.group == group)
    assert ends[-1] == len(flat)
    assert flat.groups["embeddings"].stop - flat.groups["embeddings"].start == (11 + 7) * 12


def test_frozen_parameters_have_no_gradient_and_the_others_keep_theirs():
    model, whole = small_gpt(), small_gpt()
    nn.freeze(model, "tokens", "blocks.0")
    x, y = some_tokens()
    for m in model, whole:
        m.loss(x, y).backward()
    assert model.flat.grad.size == model.flat.groups["frozen"].start < len(model.flat)
    for name, p in model.flat.parameters.items():
        if name.startswith(("tokens", "blocks.0")):
            assert p.grad is None
        else:
            np.testing.assert_allclose(p.grad, whole.flat.parameters[name].grad, rtol=1e-10, atol=1e-15)


def test_activations_and_gradients_keep_the_dtype_of_the_parameters(backend):
    x, y = some_tokens()
    for dtype in np.float32, np.float64:
        model = small_gpt(dtype, dropout=0.2)
        loss = model.loss(x, y, sequence_seeds(1, 0, 3))
        loss.backward()
        assert {loss.dtype, model(x).dtype, model.flat.data.dtype, model.flat.grad.dtype} == {np.dtype(dtype)}


@pytest.mark.parametrize("wrong, said", [({"heads": 5}, "heads"), ({"width": 0}, "width"), ({"layers": 0}, "layers"),
                                         ({"dropout": 1.0}, "dropout"), ({"context": -1}, "context")])
def test_a_shape_that_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        GPTConfig(**SHAPE | wrong)


def test_more_positions_than_the_context_are_refused():
    with pytest.raises(ValueError, match="context of 7"):
        small_gpt()(np.zeros((1, 8), int))


def test_a_token_out_of_range_is_refused(backend):
    with pytest.raises(IndexError, match="id 11 is outside"):
        small_gpt()(np.array([[3, 11]]))


@pytest.mark.parametrize("T", [2, 30])                      # positions, for which layers are called one by one, or as branches
def test_a_block_is_its_layers_each_a_branch_of_the_stream(T):
    block = GPT(GPTConfig(11, 40, 1, 3, 12), dtype=np.float64).blocks[0]
    rng = np.random.default_rng(0)
    for p in block.norm1.w, block.norm1.b, block.norm2.w, block.norm2.b:
        p.data[...] = rng.normal(size=12)
    x = Tensor(rng.normal(size=(1, T, 12)))
    z = x + block.attention(block.norm1(x))
    np.testing.assert_allclose(block(x).data, (z + block.mlp(block.norm2(z))).data, rtol=1e-9, atol=1e-12)
    seeds = np.array([7], np.uint64)                        # with seeds, but nothing to drop
    np.testing.assert_array_equal(block(x, None, seeds).data, block(x).data)
