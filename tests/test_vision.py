"""ViT and the convolutional network as wholes: their slopes, what they see, and that they learn."""
import numpy as np
import pytest
from numerics import assert_close, check_model

from minigpt import no_grad
from minigpt.data import sequence_seeds
from minigpt.models.convnet import ConvNet, ConvNetConfig
from minigpt.models.vit import ViT, ViTConfig
from minigpt.nn import Conv2d
from minigpt.optim import AdamW, Muon
from minigpt.ops import conv2d
from minigpt.settings import UserError

VIT = {"image_height": 6, "image_width": 4, "classes": 5, "patch": 2, "layers": 2, "heads": 3, "width": 12, "channels": 2}
CONVNET = {"image_height": 6, "image_width": 5, "classes": 4, "filters": 3, "hidden": 7, "channels": 2}


def small_vit(dtype=np.float64, **changes):
    """A ViT of unequal sizes whose parameters are all of a size that matters, so that no mistake hides."""
    model = ViT(ViTConfig(**VIT | changes), seed=1, dtype=dtype)
    model.flat.data += 0.2 * np.random.default_rng(2).normal(size=len(model.flat)).astype(dtype)
    return model


def small_convnet(dtype=np.float64, **changes):
    model = ConvNet(ConvNetConfig(**CONVNET | changes), seed=1, dtype=dtype)
    model.flat.data += 0.2 * np.random.default_rng(2).normal(size=len(model.flat)).astype(dtype)
    return model


def images_for(model, B=3, dtype=np.float64):
    c, rng = model.config, np.random.default_rng(3)
    return rng.uniform(size=(B, c.image_height, c.image_width, c.channels)).astype(dtype), rng.integers(c.classes, size=B)


MODELS = {"vit": small_vit, "convnet": small_convnet}
each_model = pytest.mark.parametrize("small", MODELS.values(), ids=MODELS)


@each_model
def test_the_gradient_of_the_whole_model_is_its_slope(small, backend):
    model = small()
    x, y = images_for(model)
    check_model(lambda: model.loss(x, y), model.flat)


def test_the_gradient_is_the_slope_with_dropout(backend):
    model = small_vit(dropout=0.3)
    x, y = images_for(model)
    check_model(lambda: model.loss(x, y, sequence_seeds(5, 0, 3)), model.flat)
    assert model.loss(x, y, sequence_seeds(5, 0, 3)).item() != model.loss(x, y).item()


@each_model
def test_every_parameter_gets_a_gradient(small):
    model = small()
    x, y = images_for(model)
    model.loss(x, y).backward()
    for name, p in model.flat.parameters.items():
        assert np.abs(p.grad).sum() > 0 or name.endswith("key.b"), f"{name} got no gradient"    # softmax ignores key.b


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_model
def test_activations_keep_the_dtype_of_the_parameters(small, dtype, backend):
    model = small(dtype)
    x, y = images_for(model, dtype=dtype)
    loss = model.loss(x, y)
    loss.backward()
    assert {model(x).dtype, loss.dtype, model.flat.grad.dtype} == {np.dtype(dtype)}


@each_model
def test_every_pixel_counts_and_no_picture_sees_another(small):
    model = small()
    x, _ = images_for(model)
    before = model(x).data
    for place in np.ndindex(x.shape[1:3]):
        changed = x.copy()
        changed[(1, *place)] += 0.5
        after = model(changed).data
        np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
        assert np.abs(after[1] - before[1]).max() > 1e-9


@each_model
def test_the_parameters_can_be_counted_without_making_a_model(small):
    model = small()
    assert model.config.parameter_count() == len(model.flat)
    uneven = small(image_height=10, image_width=4)
    assert uneven.config.parameter_count() == len(uneven.flat)


@pytest.mark.parametrize("optimizer, lr", [(AdamW, 5e-3), (Muon, 0.02)])
@each_model
def test_it_learns_eight_pictures_by_heart(small, optimizer, lr):
    """With Muon the windows of a convolution move as matrices."""
    model = small(np.float32)
    x, y = images_for(model, 8, np.float32)
    optimizer = optimizer(model.flat, decay=0.0)
    for step in range(300):
        model.flat.grad[...] = 0
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step(lr * (1 - step / 300))
    assert loss.item() < 0.05


def test_a_patch_is_one_vector_and_the_class_token_stands_first():
    """The patches as they would be cut out by hand."""
    model = small_vit()
    x, _ = images_for(model)
    c, T = model.config, 1 + 3 * 2
    stream = model.stream(x).data - model.positions.w.data
    assert stream.shape == (3, T, c.width)
    np.testing.assert_allclose(stream[:, 0], np.broadcast_to(model.class_token.w.data, (3, c.width)))
    for n, (i, j) in enumerate(np.ndindex(3, 2)):
        patch = x[:, 2 * i:2 * i + 2, 2 * j:2 * j + 2].reshape(3, -1)
        np.testing.assert_allclose(stream[:, 1 + n], patch @ model.patches.w.data + model.patches.b.data)


def test_the_attention_that_is_shown_is_the_one_that_is_used():
    """A block's weights, applied to its values, are what its attention gives; and rolled out they are a distribution."""
    model = small_vit()
    x, _ = images_for(model)
    block, stream = model.blocks[0], model.stream(x)
    with no_grad():
        weights = block.weights(stream).data                                # (B, H, T, T)
        normed = block.norm1(stream)
        v = block.attention.value(normed).data.reshape(3, 7, 3, 4).transpose(0, 2, 1, 3)
        y = (weights @ v).transpose(0, 2, 1, 3).reshape(3, 7, 12)
        assert_close(block.attention.output(y).data, block.attention(normed).data)
        seen = model.attention_over_image(x)
    assert seen.shape == (3, 3, 2) and seen.min() > 0
    np.testing.assert_allclose(seen.sum((1, 2)), 1)


def test_attention_rolls_out_through_the_blocks():
    """With attention that looks where it is told: the class token at patch 1, patch 1 at patch 2; all others at themselves."""
    model = small_vit()
    looks = np.eye(7)
    looks[0], looks[1] = np.eye(7)[1], np.eye(7)[2]

    class Looks:
        data = np.broadcast_to(looks, (1, 3, 7, 7))

    for block in model.blocks:
        block.weights = lambda x: Looks
    seen = model.attention_over_image(images_for(model, 1)[0])
    np.testing.assert_allclose(seen.reshape(-1), [2 / 3, 1 / 3, 0, 0, 0, 0])        # 1/4 + 1/4 by way of patch 1, and 1/4


def test_a_layer_of_windows_is_the_operation():
    layer, x = Conv2d(np.random.default_rng(0), 2, 5, 3, stride=2, padding=1), np.ones((2, 5, 4, 2), np.float32)
    y = conv2d(x, layer.w.data.reshape(3, 3, 2, 5), layer.b.data, stride=2, padding=1)
    np.testing.assert_array_equal(layer(x).data, y.data)
    assert y.shape == (2, 3, 2, 5) and layer.w.group == "matrices"


def test_a_convolution_is_what_a_loop_over_all_places_gives():
    rng = np.random.default_rng(4)
    x, w, b = rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(3, 2, 3, 4)), rng.normal(size=4)
    wide, expected = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), np.zeros((2, 3, 4, 4))
    for i, j in np.ndindex(3, 4):
        expected[:, i, j] = np.einsum("bklc,klco->bo", wide[:, 2 * i:2 * i + 3, 2 * j:2 * j + 2], w) + b
    np.testing.assert_allclose(conv2d(x, w, b, stride=2, padding=1).data, expected, rtol=1e-12)


@pytest.mark.parametrize("x, w, b, constants, said", [
    ((2, 5, 5, 3), (3, 3, 2, 4), None, {}, "need weights (K, L, 3, O)"), ((5, 5, 3), (3, 3, 3, 4), None, {}, "need weights"),
    ((2, 5, 5, 3), (3, 3, 3, 4), (3,), {}, "and (3,)"), ((2, 5, 5, 3), (3, 3, 3, 4), None, {"stride": 0}, "moves by 0"),
    ((2, 2, 5, 3), (3, 3, 3, 4), None, {}, "a window of 3 x 3 is larger than images of 2 x 5"),
    ((2, 5, 5, 3), (3, 3, 3, 4), None, {"padding": -1}, "padding of -1")])
def test_what_does_not_fit_is_refused(x, w, b, constants, said):
    with pytest.raises(ValueError) as error:
        conv2d(np.ones(x), np.ones(w), None if b is None else np.ones(b), **constants)
    assert said in str(error.value)


@pytest.mark.parametrize("Config, shape, wrong, said", [
    (ViTConfig, VIT, {"patch": 4}, "can't be cut into patches of 4 x 4"), (ViTConfig, VIT, {"heads": 5}, "among 5 heads"),
    (ViTConfig, VIT, {"classes": 0}, "classes is 0"), (ViTConfig, VIT, {"dropout": 1.0}, "dropout is 1.0"),
    (ConvNetConfig, CONVNET, {"filters": 0}, "filters is 0"), (ConvNetConfig, CONVNET, {"hidden": -1}, "hidden is -1")])
def test_a_shape_that_makes_no_sense_is_refused(Config, shape, wrong, said):
    with pytest.raises(UserError, match=said):
        Config(**shape | wrong)
