"""LoRA and the classifier: whole models, what is trained and what is not, and the merged model."""
import numpy as np
import pytest
from numerics import check_model

from minigpt import checkpoint
from minigpt.data import sequence_seeds
from minigpt.lora import LoRALinear, add_lora, merge_lora, places_of
from minigpt.models.classifier import Classifier
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.optim import AdamW
from minigpt.parallel import Workers
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer

SHAPE = {"vocabulary_size": 11, "context": 7, "layers": 2, "heads": 3, "width": 12}
BODIES = {"gpt": (GPT, GPTConfig), "gpt_modern": (GPTModern, GPTModernConfig)}


def body(name="gpt_modern", **changes):
    Model, Config = BODIES[name]
    model = Model(Config(**SHAPE | changes), seed=1, dtype=np.float64)
    model.flat.data += 0.2 * np.random.default_rng(2).normal(size=len(model.flat))
    return model


def some_texts():
    rng = np.random.default_rng(3)
    mask = np.arange(6) < np.array([6, 2, 4])[:, None]
    return rng.integers(11, size=(3, 6)), mask, np.array([2, 0, 1])


def lively(model):
    """The model with thin matrices and heads that are not 0."""
    trained = slice(0, model.flat.groups["frozen"].start)
    model.flat.data[trained] += 0.2 * np.random.default_rng(4).normal(size=model.flat.grad.shape)
    return model


# ---- the classifier ----

@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_of_the_whole_classifier_is_its_slope(name, dropout, backend):
    model, texts = lively(Classifier(body(name, dropout=dropout), 3)), some_texts()
    seeds = sequence_seeds(5, 0, 3) if dropout else None
    check_model(lambda: model.loss(*texts, seeds), model.flat)


def test_padding_does_not_matter(backend):
    model, (ids, mask, _) = lively(Classifier(body(), 3)), some_texts()
    expected = model(ids, mask).data
    np.testing.assert_allclose(model(np.where(mask, ids, 7), mask).data, expected, rtol=1e-12)
    np.testing.assert_allclose(model(ids[1:2, :2], mask[1:2, :2]).data, expected[1:2], rtol=1e-12)


def test_a_classifier_learns():
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 11, size=(20, 7))
    ids[:10, 3] = 0                                         # the first ten have a 0, the others none
    labels, mask = np.arange(20) // 10, np.ones((20, 7), bool)
    model = Classifier(GPTModern(GPTModernConfig(**SHAPE), seed=0), 2)
    optimizer = AdamW(model.flat)
    for _ in range(120):
        model.flat.grad[...] = 0
        model.loss(ids, mask, labels).backward()
        optimizer.step(5e-3)
    assert (model(ids, mask).data.argmax(-1) == labels).mean() > 0.94


# ---- LoRA ----

@pytest.mark.parametrize("name", BODIES)
def test_the_gradient_with_lora_is_its_slope(name, backend):
    model, (ids, _, _) = lively(add_lora(body(name), rank=2)), some_texts()

    def loss():
        return model.loss(ids[:, :-1], ids[:, 1:])

    loss().backward()
    gradient, weights, h = model.flat.grad.copy(), model.flat.data.copy(), 1e-6
    direction = np.zeros_like(weights)
    direction[:len(gradient)] = np.random.default_rng(0).normal(size=len(gradient))
    losses = []
    for step in h, -h:
        model.flat.data[...] = weights + step * direction
        losses.append(loss().item())
    assert (losses[0] - losses[1]) / (2 * h) == pytest.approx(gradient @ direction[:len(gradient)], rel=1e-6)


def test_it_begins_as_the_model_was(backend):
    (ids, _, _), before = some_texts(), body()
    np.testing.assert_array_equal(add_lora(body()).loss(ids[:, :-1], ids[:, 1:]).data,
                                  before.loss(ids[:, :-1], ids[:, 1:]).data)


def test_only_the_thin_matrices_are_trained_and_what_was_asked_for():
    model = add_lora(Classifier(body(), 3), rank=2, trained=("head",))
    names = {name for name, p in model.flat.parameters.items() if p.group != "frozen"}
    thin = {f"body.blocks.{i}.attention.{layer}.{x}" for i in range(2) for layer in ("query", "value") for x in "ab"}
    assert names == thin | {"head.w", "head.b"}
    assert model.flat.grad.size == 2 * 2 * (2 * 12 + 2 * 12) + 3 * 12 + 3
    before, texts = model.flat.data.copy(), some_texts()
    optimizer = AdamW(model.flat)
    for _ in range(2):
        model.flat.grad[...] = 0
        model.loss(*texts).backward()
        optimizer.step(1e-2)
    moved = model.flat.data != before
    assert moved[:model.flat.grad.size].all() and not moved[model.flat.grad.size:].any()


@pytest.mark.parametrize("name", BODIES)
def test_the_merged_model_is_equal_and_as_it_was_in_shape(name, backend):
    model, (ids, _, _) = lively(add_lora(body(name), rank=3, layers=("query", "key", "value"))), some_texts()
    expected = model(ids).data
    merged = merge_lora(model)
    np.testing.assert_allclose(merged(ids).data, expected, rtol=1e-10, atol=1e-12)
    fresh = body(name)
    assert {n: (p.shape, p.group) for n, p in merged.flat.parameters.items()} == {
        n: (p.shape, p.group) for n, p in fresh.flat.parameters.items()}
    assert not places_of(merged, LoRALinear) and merged.flat.grad.size == len(merged.flat)


def test_the_merged_model_is_saved_as_any_other(tmp_path):
    tokenizer, model = CharTokenizer("abcdefghijk"), merge_lora(lively(add_lora(body())))
    checkpoint.save(tmp_path / "model", model, tokenizer)
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "model").model.flat.data, model.flat.data.astype(np.float32))


def test_workers_train_it_side_by_side():
    gradients, texts = [], some_texts()
    for number in 1, 2:
        model = lively(add_lora(Classifier(body(), 3), trained=("head",)))
        with Workers(model, number) as workers:
            workers.gradient(lambda m, i: m.loss(*(x[i:i + 1] for x in texts), total=3), [0, 1, 2])
        gradients.append(model.flat.grad.copy())
    np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"layers": ("nothing",)}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match="LoRA of rank"):
        add_lora(body(), **wrong)
