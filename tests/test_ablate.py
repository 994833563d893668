"""examples/ablate_recipe.py: that every variant is a whole model and another one, and what the program leaves behind."""
import json

import numpy as np
import pytest
from numerics import check_model
from programs import EXAMPLES, TEXT, program, succeeds

from minigpt.data import Corpus
from minigpt.nn import flatten
from minigpt.train import learning_rate

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(EXAMPLES)
    import ablate_recipe

SMALL = ablate_recipe.Recipe(steps=100, layers=2, heads=3, width=12, context=7)


def trainings():
    """{name: (model, settings)} of everything that the program trains, small."""
    corpus = Corpus(TEXT, "text.txt", "", "")
    return {f"{variant.__name__}-{i}": training for variant in ablate_recipe.VARIANTS
            for i, training in enumerate(variant(SMALL, corpus))}


def in_float64(model):
    """The model with parameters that are all of a size that matters."""
    flatten(model, np.float64).flat.data += 0.2 * np.random.default_rng(2).normal(size=len(model.flat))
    return model


def some_tokens():
    rng, V = np.random.default_rng(3), len(set(TEXT))
    return rng.integers(V, size=(3, 5)), rng.integers(V, size=(3, 5))


NAMES = list(trainings())


# ---- the variants ----

@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_each_variant_is_its_slope(name):
    model, (x, y) = in_float64(trainings()[name][0]), some_tokens()
    check_model(lambda: model.loss(x, y), model.flat)


@pytest.mark.parametrize("name", NAMES)
def test_no_position_of_a_variant_sees_a_later_one(name):
    model, (x, _) = in_float64(trainings()[name][0]), some_tokens()
    before = model(x).data
    for t in range(1, x.shape[1]):
        changed = x.copy()
        changed[:, t] = (changed[:, t] + 1) % len(set(TEXT))
        np.testing.assert_array_equal(model(changed).data[:, :t], before[:, :t])


@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_alone_gets_the_logits_that_it_gets_among_many(name):
    """Where there are many rows, layers run as one operation, which has to take all that they have."""
    model, rng = in_float64(trainings()[name][0]), np.random.default_rng(4)
    x = rng.integers(len(set(TEXT)), size=(9, 7))
    np.testing.assert_allclose(model(x).data[4:5], model(x[4:5]).data, rtol=1e-9, atol=1e-12)


def test_no_two_trainings_are_alike():
    seen = []
    for name, (model, recipe) in trainings().items():
        start = model.flat.data.tobytes()
        seen.append((start, in_float64(model)(some_tokens()[0]).data.tobytes(), recipe))
    assert len(set(seen)) == len(NAMES) == 15


def test_all_train_on_as_many_characters_and_end_at_their_last_learning_rate():
    for model, recipe in trainings().values():
        assert (recipe.steps, recipe.batch_size, model.config.context) == (100, 16, 7)
        assert learning_rate(recipe, 99) == pytest.approx(recipe.last_learning_rate)


def test_what_is_undone_is_undone():
    models = {name.partition("-")[0]: (model, recipe) for name, (model, recipe) in trainings().items()}
    shifts = {name: sum(key.endswith(".b") for key in model.flat.parameters) for name, (model, _) in models.items()}
    assert (shifts["baseline"], shifts["biases"], shifts["layer_norms"], shifts["gpt2"]) == (0, 2 * 6, 2 * 2 + 2, 2 * 8 + 1)
    sizes = {name: len(model.flat) for name, (model, _) in models.items()}
    V, C, T = len(set(TEXT)), 12, 7
    assert sizes["baseline"] - sizes["tied_head"] == V * C
    assert sizes["learned_positions"] - sizes["baseline"] == T * C
    assert sizes["gelu_mlp"] == sizes["free_scores"] == sizes["drawn_outputs"] == sizes["baseline"]
    for name, (model, _) in models.items():
        outputs = [layer.w.data for block in model.blocks for layer in (block.attention.output, block.mlp.output)]
        assert all(w.any() == (name in ("drawn_outputs", "gpt2")) for w in outputs)
    assert learning_rate(models["baseline"][1], 40) == 0.02 > learning_rate(models["falling_rate"][1], 40)
    assert {name for name, (_, recipe) in models.items() if recipe.optimizer == "adamw"} == {"adamw", "gpt2"}


# ---- the program ----

FLAGS = "--data", "text.txt", "--steps", "2", "--out", "run"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text, and in `run` what the program left of two variants; its output is in run.out."""
    place = tmp_path_factory.mktemp("place")
    (place / "text.txt").write_text(TEXT * 4, encoding="utf-8")
    output = succeeds(program("ablate_recipe", *FLAGS, "--only", "gelu_mlp,adamw", cwd=place))
    (place / "run.out").write_text(output, encoding="utf-8")
    return place


def results(place):
    return json.loads((place / "run/results.json").read_text(encoding="utf-8"))


def test_it_leaves_every_loss_and_the_differences(place):
    found, output = results(place), (place / "run.out").read_text(encoding="utf-8")
    assert [(run["variant"], run["seed"], run["learning_rate"]) for run in found["runs"]] == [
        ("baseline", 1, 0.02), ("baseline", 2, 0.02), ("baseline", 3, 0.02), ("gelu_mlp", 1, 0.02),
        ("adamw", 1, 0.004), ("adamw", 1, 0.008), ("adamw", 1, 0.016)]
    losses = [run["val_loss"] for run in found["runs"]]
    assert len(set(losses)) == 7 and 2 < min(losses) and max(losses) < 4
    assert found["baseline"] == pytest.approx(sum(losses[:3]) / 3)
    assert found["noise"] == pytest.approx(max(losses[:3]) - min(losses[:3]))
    assert found["losses"] == {"gelu_mlp": losses[3], "adamw": min(losses[4:])}
    assert found["differences"] == {name: loss - found["baseline"] for name, loss in found["losses"].items()}
    assert (found["steps"], found["seed"], found["corpus"]) == (2, 1, "text.txt")
    assert f"| gelu_mlp | squared ReLU -> GELU | {losses[3]:.4f} | {losses[3] - found['baseline']:+.4f} |" in output
    assert f"differ by up to {found['noise']:.4f}" in output


def test_a_run_that_was_interrupted_goes_on(place):
    before = results(place)
    changed = before | {"runs": before["runs"][:4]}
    changed["runs"][1]["val_loss"] = 1.25                   # to see that it is not trained again
    (place / "run/results.json").write_text(json.dumps(changed), encoding="utf-8")
    output = succeeds(program("ablate_recipe", *FLAGS, "--only", "falling_rate", cwd=place))
    after = results(place)
    assert after["runs"][:4] == changed["runs"] and [run["variant"] for run in after["runs"][4:]] == ["falling_rate"]
    assert "1.2500" in output and "| gelu_mlp |" in output and "| falling_rate |" in output


@pytest.mark.parametrize("flags, said", [
    (("--only", "gelu"), "there is no variant 'gelu': --only takes some of baseline,layer_norms"),
    (("--steps", "3"), "run holds other results than those of this text and these settings: choose another --out"),
    (("--steps", "0"), "steps is 0"),
    (("--out", "text.txt"), "nothing can be written to text.txt"),
])
def test_a_mistake_is_one_line(place, flags, said):
    before = results(place)
    result = program("ablate_recipe", *FLAGS, *flags, cwd=place)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert said in result.stderr and results(place) == before
