"""The programs that see, draw and learn from examples in a prompt, as users run them: small, on data of their own."""
import importlib.util
import json
import sys
from itertools import product

import numpy as np
import pytest
from numerics import check_model
from programs import EXAMPLES, HAS_MATPLOTLIB, program, succeeds

from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.vit import ViT, ViTConfig
from minigpt.settings import UserError, parse
from minigpt.train import TrainSettings, fit

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(EXAMPLES)
    import draw_digits
    import few_shot
    import see_digits

needs_sklearn = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
SEE = "--steps", "4", "--batch-size", "8", "--width", "8", "--heads", "2", "--layers", "1", "--filters", "2", "--workers", "1"
DRAW = "--steps", "4", "--batch-size", "4", "--width", "8", "--heads", "2", "--layers", "1", "--drawings", "2", "--workers", "1"
ASK = "--sizes", "1x32,2x32", "--steps", "3", "--batch-size", "4", "--questions", "2", "--workers", "1"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures, good and bad, and with tasks."""
    place = tmp_path_factory.mktemp("place")
    rng, labels = np.random.default_rng(0), np.repeat(["bar", "eye", "one"], 6)
    images = rng.integers(0, 4, (18, 4, 6)) + 12 * np.eye(3)[np.repeat([0, 1, 2], 6)].repeat(2, 1)[:, None]
    np.savez(place / "own.npz", images=images, labels=labels)
    np.savez(place / "odd.npz", images=images[:, :, :5], labels=labels)
    np.savez(place / "large.npz", images=np.ones((18, 30, 30)), labels=labels)
    for name, text in {"tasks.txt": "cab > bac ; hid>dih ; bad > dab ;\n\nabc>bcd;cde>def\n", "long.txt": "cab > bacs ; hid > dih",
                       "letters.txt": "cab > baz ; hid > dih", "single.txt": "cab > bac", "empty.txt": "\n",
                       "many.txt": ";".join(["cab>bac"] * 10)}.items():
        (place / name).write_text(text, encoding="utf-8")
    return place


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_seeing_leaves_its_accuracies_and_a_picture(place, tmp_path):
    shown = succeeds(program("see_digits", "--data", place / "own.npz", "--out", tmp_path / "run", *SEE))
    found = results(tmp_path / "run")
    assert (found["learnt_from"], found["measured_by"]) == (15, 3) and "18 pictures of 4 x 6 pixels" in shown
    for name in "convnet", "vit":
        assert found[name]["accuracy"] == found[name]["right"] / 3 and 0 < found[name]["training_loss"] < 3
        assert f"right of the held-out pictures: {found[name]['right']} of 3" in shown
    assert not HAS_MATPLOTLIB or (tmp_path / "run/attention.png").read_bytes().startswith(b"\x89PNG")


@needs_sklearn
def test_drawing_leaves_its_figures_and_a_sheet(place, tmp_path):
    shown = succeeds(program("draw_digits", "--data", place / "own.npz", "--out", tmp_path / "run", *DRAW))
    found = results(tmp_path / "run")
    assert found["drawings"] == 6 and len(found["recognised_by_class"]) == 3 and found["reading"] == found["read"] / 3
    assert "draw: an eye" in shown and "draw: a one" in shown and f"{found['reading']:.1%} of 3 held-out" in shown
    assert not HAS_MATPLOTLIB or (tmp_path / "run/drawings.png").read_bytes().startswith(b"\x89PNG")


@needs_sklearn
@pytest.mark.slow
@pytest.mark.parametrize("name", ["see_digits", "draw_digits"])
def test_the_digits_are_what_is_seen_and_drawn_by_default(name, tmp_path):
    shown = succeeds(program(name, "--out", tmp_path / "run", *(SEE if name == "see_digits" else DRAW)))
    assert "1797 handwritten digits of 8 x 8 pixels; 1438 to learn from, 359 to measure by" in shown


def test_asking_leaves_every_accuracy_and_a_plot(place, tmp_path):
    shown = succeeds(program("few_shot", "--data", place / "tasks.txt", "--out", tmp_path / "run", *ASK))
    found = results(tmp_path / "run")
    assert list(found["models"]) == ["1x32", "2x32"] and found["shown"] == [0, 1, 2, 4, 8]
    for of_model in found["models"].values():
        assert list(of_model["never_trained"]) == list(of_model["trained"]) == list(few_shot.FAMILIES)
        assert of_model["mean_never_trained"] == pytest.approx(np.mean(list(of_model["never_trained"].values()), axis=0))
    assert [(task["asked"], task["examples"]) for task in found["own_tasks"]] == [("bad", 2), ("cde", 1)]
    assert "your tasks" in shown and "after 2 examples bad>" in shown
    assert not HAS_MATPLOTLIB or (tmp_path / "run/few_shot.png").read_bytes().startswith(b"\x89PNG")


MISTAKES = {
    "no such pictures": (("see_digits", *SEE, "--data", "none.npz"), "there is no file or folder none.npz"),
    "no patches": (("see_digits", *SEE, "--data", "odd.npz"), "4 x 5 pixels can't be cut into patches of 2 x 2"),
    "all held out": (("see_digits", *SEE, "--held-out", "1"), "held_out is 1.0"),
    "turned too far": (("see_digits", *SEE, "--degrees", "181"), "degrees is 181.0"),
    "no steps to see": (("see_digits", *SEE, "--steps", "0"), "steps is 0"),
    "too many pixels": (("draw_digits", *DRAW, "--data", "large.npz"), "pictures of 30 x 30 pixels are 900 tokens each"),
    "no drawings": (("draw_digits", *DRAW, "--drawings", "0"), "drawings is 0"),
    "one level": (("draw_digits", *DRAW, "--levels", "1"), "levels is 1"),
    "cold drawings": (("draw_digits", *DRAW, "--temperature", "-1"), "temperature is -1.0"),
    "no size": (("few_shot", *ASK, "--sizes", "2x64,3"), "'3' is no size of a model"),
    "no width": (("few_shot", *ASK, "--sizes", "2x48"), "the width a multiple of 32"),
    "no questions": (("few_shot", *ASK, "--questions", "0"), "questions is 0"),
    "no tasks": (("few_shot", *ASK, "--data", "empty.txt"), "empty.txt holds no tasks"),
    "no such tasks": (("few_shot", *ASK, "--data", "none.txt"), "there is no file none.txt: give one with a task in each line"),
    "words too long": (("few_shot", *ASK, "--data", "long.txt"), "line 1 of long.txt is no task"),
    "other letters": (("few_shot", *ASK, "--data", "letters.txt"), "of words of 3 letters from a to j"),
    "nothing asked": (("few_shot", *ASK, "--data", "single.txt"), "has 1 pairs, but needs 2 to 9"),
    "too much asked": (("few_shot", *ASK, "--data", "many.txt"), "has 10 pairs, but needs 2 to 9"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_before_anything_is_written(place, mistake, monkeypatch):
    (name, *flags), part = MISTAKES[mistake]
    module = {"see_digits": see_digits, "draw_digits": draw_digits, "few_shot": few_shot}[name]
    if name == "draw_digits":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    with pytest.raises(UserError) as error:
        module.main(parse(module.Settings, flags))
    assert part in str(error.value) and "\n" not in str(error.value) and sorted(place.rglob("*")) == before


def test_a_mistake_ends_the_program_in_one_line(place):
    result = program("see_digits", *SEE, "--data", "odd.npz", cwd=place)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert result.stderr.startswith("error: an image of 4 x 5 pixels can't be cut")


def test_without_scikit_learn_drawing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(UserError, match=r"pip install '\.\[digits\]'"):
        draw_digits.main(draw_digits.Settings())


# ---- the loop that they share ----

def small_vit():
    return ViT(ViTConfig(4, 4, 3, 2, 1, 2, 8), seed=1)


def image_batches(settings):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(6, 4, 4, 1)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
    return lambda step: lambda model, part: model.loss(x[part], y[part], total=len(y))


@pytest.mark.parametrize("changes", [{}, {"workers": 2}, {"micro_batch": 2}, {"workers": 2, "micro_batch": 4}], ids=str)
def test_a_model_of_anything_is_fitted_however_its_batches_are_cut(changes):
    settings = TrainSettings(**{"steps": 60, "batch_size": 6, "learning_rate": 0.01, "warm_up": 5, "workers": 1} | changes)
    model = small_vit()
    assert 0 < fit(model, settings, image_batches(settings)) < 1.0 < np.log(3)
    whole = small_vit()
    fit(whole, TrainSettings(steps=60, batch_size=6, learning_rate=0.01, warm_up=5, workers=1, micro_batch=6), image_batches(settings))
    np.testing.assert_allclose(model.flat.data, whole.flat.data, atol=0.02)


def test_a_loss_that_is_no_number_ends_the_fitting_in_a_sentence():
    model = small_vit()
    model.head.b.data[...] = np.nan
    settings = TrainSettings(steps=2, batch_size=6, workers=1)
    with pytest.raises(UserError, match="at step 1 the loss was nan.*no checkpoint was saved yet"):
        fit(model, settings, image_batches(settings))


# ---- seeing ----

def test_mistakes_are_told_the_most_frequent_first():
    told = see_digits.mistakes(np.array([0, 1, 1, 1, 2]), np.array([0, 1, 2, 2, 0]), ("cat", "dog", "cow"))
    assert list(told) == ["cow taken for dog (2 times)", "cat taken for cow"]


# ---- drawing ----

def tokens():
    return draw_digits.Tokens(("eye", "one"), 6, 17)


def test_a_line_to_draw_and_a_line_to_read_are_told_apart_and_come_back():
    t, image = tokens(), np.arange(6).reshape(2, 3) / 16
    line, given = t.line_to_draw(image, 0)
    assert t.to_text(line[:given - 1]) == "draw: an eye " and line[given - 1] == t.picture and line[-1] == t.end
    np.testing.assert_allclose(t.to_picture(line[given:-1], (2, 3)), image)
    line, given = t.line_to_read(image, 0)
    assert t.to_text(line[:13]) == "what is this?" and line[13] == t.picture and t.to_text(line[given:]) == "this is an eye"
    np.testing.assert_allclose(t.to_picture(line[14:given], (2, 3)), image)
    assert len(line) == t.context + 1 and max(line) == t.end == t.vocabulary_size - 1
    assert t.to_picture(line, (2, 3)) is None and t.to_picture([t.end] * 6, (2, 3)) is None and t.to_text([t.picture]) == "?"


def draw_loss(**changes):
    """The model of the program, small, and the loss of its first batch."""
    settings, rng = draw_digits.Settings(batch_size=5, **{"dropout": 0.0} | changes), np.random.default_rng(0)
    t = tokens()
    model = GPT(GPTConfig(t.vocabulary_size, t.context, 2, 2, 8, dropout=settings.dropout), seed=1, dtype=np.float64)
    model.flat.data += 0.2 * rng.normal(size=len(model.flat))
    return model, draw_digits.batches(t, rng.uniform(size=(4, 2, 3)), np.array([0, 1, 0, 1]), settings)(0)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_gradient_of_drawing_and_reading_is_its_slope_and_the_sum_over_parts(dropout, backend):
    model, loss = draw_loss(dropout=dropout)
    check_model(lambda: loss(model, slice(0, 5)), model.flat)
    parts = [loss(model, part).item() for part in (slice(0, 2), slice(2, 5))]
    assert sum(parts) == pytest.approx(loss(model, slice(0, 5)).item(), rel=1e-12)


def test_drawings_are_judged_and_compared_with_what_was_learnt_from():
    known, held = np.zeros((2, 2, 2)), np.full((100, 2, 2), 0.5)
    known[1] = 1
    held[:50] += np.linspace(0, 0.4, 50)[:, None, None]
    found = draw_digits.copies(known, held, [np.zeros((2, 2)), np.full((2, 2), 0.05), np.full((2, 2), 0.3), None])
    assert found["near_copies"] == pytest.approx(2 / 3) and found["exact_copies"] == pytest.approx(1 / 3)
    assert 0.1 <= found["nearly_equal"] <= 0.12 and found["median_distance"] == pytest.approx(0.05)
    assert draw_digits.copies(known, held, [None])["near_copies"] == 0

    class Bright:
        def predict(self, rows):
            return (rows.mean(1) > 0.5).astype(int)

    found = draw_digits.judged(Bright(), np.array([0, 0, 1, 1]), [np.zeros((2, 2)), np.ones((2, 2)), np.ones((2, 2)), None])
    assert (found["recognised"], found["recognised_by_class"], found["no_pictures"]) == (0.5, [0.5, 0.5], 1)


def test_the_article_is_that_of_the_word():
    assert [draw_digits.a(name) for name in ("one", "eight", "seven", "Eye")] == ["a one", "an eight", "a seven", "an Eye"]


# ---- learning from a prompt ----

@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("family", [family for family in few_shot.FAMILIES if family != "lookup"])
def test_a_line_follows_one_rule_of_its_family(family, trained):
    asked, answers = few_shot.lines(np.random.default_rng(1), family, 40, 9, trained)
    rules = few_shot.rules(np.random.default_rng(1), family, 40, trained)
    seen = set()
    for places, cipher, questions, words in zip(*rules, asked, answers):
        assert few_shot.is_trained(places, cipher) == trained
        np.testing.assert_array_equal(words, cipher[questions[:, places]])
        assert len({tuple(question) for question in questions}) == 9
        assert ("places" in family) or (places == [0, 1, 2]).all()
        assert ("cipher" in family) or len(set((cipher - np.arange(10)) % 10)) == 1
        seen.add((*places, *cipher))
    assert len(seen) > 1


def test_what_is_looked_up_was_shown():
    asked, answers = few_shot.lines(np.random.default_rng(1), "lookup", 40, 5, trained=False)
    for questions, words in zip(asked, answers):
        shown = {tuple(q): tuple(a) for q, a in zip(questions[:-1], words[:-1])}
        assert len(shown) == 4 and shown[tuple(questions[-1])] == tuple(words[-1])
    assert few_shot.lines(np.random.default_rng(1), "lookup", 3, 1, trained=False)[0].shape == (3, 1, 3)


def test_some_variants_of_every_family_are_never_trained_on_and_the_reversal_is_one():
    places = [p for p in product(range(3), repeat=3) if not few_shot.is_trained(p, range(10))]
    shifts = [k for k in range(1, 10) if not few_shot.is_trained(range(3), [(i + k) % 10 for i in range(10)])]
    assert len(places) == 7 and (2, 1, 0) in places and shifts == [2, 9]


def test_a_line_is_written_as_the_docstring_shows_it_and_only_answers_are_learnt():
    asked, answers = few_shot.own_tasks(["cab>bac;hid>dih;bad>dab"], "tasks")[0]
    ids = few_shot.prompts(asked, answers)
    assert "".join(few_shot.TOKENS[i] for i in ids[0]) == "cab>bac;hid>dih;bad>"
    targets = []

    class Model:
        def loss(self, x, y, total):
            targets.append((x, y, total))

    few_shot.batches(few_shot.Settings(batch_size=4))(0)(Model(), slice(0, 4))
    x, y, total = targets[0]
    assert total == np.count_nonzero(y >= 0) == 4 * few_shot.EXAMPLES * 3
    rows, places = np.nonzero(y >= 0)
    assert (places % few_shot.EACH >= 3).all() and (places % few_shot.EACH < 6).all()
    np.testing.assert_array_equal(y[rows, places], x[rows, places + 1])


def test_the_answer_is_taken_letter_by_letter():
    class Counts:
        def __call__(self, ids):
            logits = np.eye(12)[(ids + 1) % 10]

            class Logits:
                data = logits

            return Logits

    assert few_shot.answered(Counts(), np.full((40, 5), 3)).tolist() == [[4, 5, 6]] * 40
