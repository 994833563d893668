"""The programs of the family tree, as users run them, small: what they print and leave behind, and their mistakes."""
import importlib.util
import json
import math

import numpy as np
import pytest
from programs import EXAMPLES, HAS_MATPLOTLIB, TEXT, program, succeeds

from minigpt import checkpoint

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(EXAMPLES)
    import compare_architectures
    import translate


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with texts, good and bad."""
    place = tmp_path_factory.mktemp("family")
    (place / "text.txt").write_text(TEXT * 3, encoding="utf-8")
    (place / "short.txt").write_text("too short", encoding="utf-8")
    (place / "brief.txt").write_text("to be or not " * 10, encoding="utf-8")
    return place


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def one_line(result, said):
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert result.stderr.startswith("error: ") and said in result.stderr


# ---- examples/switch_experts.py ----

SWITCH = ("switch_experts", "--data", "text.txt", "--steps", "3", "--layers", "2", "--heads", "2", "--width", "8",
          "--context", "16", "--batch-size", "4", "--experts", "3", "--out", "switch")


def test_switch_shows_what_its_experts_do_and_goes_on(place):
    output, found = succeeds(program(*SWITCH, cwd=place)), results(place / "switch")
    assert [run["model"] for run in found["runs"]] == ["gpt_modern", "switch"]
    assert found["runs"][1]["parameters"] > found["runs"][0]["parameters"]
    assert len(found["use"]) == 2 and all(sum(block) == pytest.approx(1) for block in found["use"])
    assert "expert 3" in output and "block 2" in output and f"{found['difference']:+.4f}" in output
    assert succeeds(program(*SWITCH, cwd=place)) == output          # nothing is trained again
    one_line(program(*SWITCH, "--steps", "4", cwd=place), "holds other results than those of this text")


@pytest.mark.parametrize("flags, said", [
    (("--experts", "1"), "experts is 1, but a choice takes 2"),
    (("--data", "short.txt"), "too few for a context of 16"),
    (("--data", "brief.txt", "--out", "other"), "the last 10% of the text are 13 characters, too few for a context of 16"),
    (("--capacity", "0", "--out", "other"), "capacity is 0.0"),
])
def test_a_mistake_with_switch_is_one_line(place, flags, said):
    one_line(program(*SWITCH, *flags, cwd=place), said)


# ---- examples/count.py ----

@pytest.mark.parametrize("unit, order", [("char", 3), ("word", 2)])
def test_counting_shows_a_sentence_factor_by_factor(place, tmp_path, unit, order):
    flags = ["--data", "text.txt", "--unit", unit, "--order", order, "--sentence", "To be, or not", "--out", tmp_path]
    output, found = succeeds(program("count", *flags, "--length", "40", cwd=place)), results(tmp_path)
    lines = [line for line in output.splitlines() if line.startswith("  p(") and "|" in line]
    factors = [float(line.split(" = ")[1].split()[0]) for line in lines]
    assert len(factors) == (13 if unit == "char" else 5)
    assert math.log(math.prod(factors)) == pytest.approx(found["log_probability"], abs=1e-3)
    assert list(found["losses"]) == [str(n) for n in range(1, order + 1)]
    assert found["made_up"] in output and (len(found["made_up"]) == 40 if unit == "char" else True)
    assert found["losses"][str(order)] < found["losses"]["1"]


@pytest.mark.parametrize("unit", ["char", "word"])
def test_without_a_sentence_a_line_of_the_text_that_was_not_counted_is_shown(place, tmp_path, unit):
    """Whatever the text is written in."""
    lines = [f"{n} 天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏" for n in range(40)]
    (place / "other.txt").write_text("\n".join(lines), encoding="utf-8")
    output = succeeds(program("count", "--data", "other.txt", "--unit", unit, "--order", "3", "--out", tmp_path, cwd=place))
    shown = results(tmp_path)["sentence"]
    assert shown in lines[36:] and f"p({shown!r}), factor by factor" in output


@pytest.mark.parametrize("flags, said", [
    (("--order", "0"), "order is 0"), (("--sentence", " "), "the sentence is empty"),
    (("--sentence", "天"), "characters outside the vocabulary"), (("--unit", "line"), "expected one of char, word"),
    (("--data", "short.txt"), "too few for a context of 7"), (("--data", "none.txt"), "there is no file none.txt"),
])
def test_a_mistake_with_counting_is_one_line(place, flags, said):
    one_line(program("count", "--data", "text.txt", *flags, cwd=place), said)


# ---- examples/compare_architectures.py ----

COMPARE = "compare_architectures", "--data", "text.txt", "--preset", "quick", "--context", "16", "--out", "compare"


def test_architectures_are_compared_and_a_stopped_comparison_goes_on(place):
    output, found = succeeds(program(*COMPARE, "--only", "lstm,gpt", cwd=place)), results(place / "compare")
    assert [run["network"] for run in found["runs"]] == ["lstm", "gpt"]
    assert not HAS_MATPLOTLIB or (place / "compare/compare.png").read_bytes().startswith(b"\x89PNG")
    for run in found["runs"]:
        assert len(run["curve"]) == 2 and run["curve"][-1] == [12 * 8 * 16, run["val_loss"]]
        assert len(run["by_context"]) == 16 and np.mean(run["by_context"]) == pytest.approx(run["val_loss"], rel=0.2)
        assert (run["reading_on"] is None) == (run["network"] == "gpt")
        assert f"| {run['network']} | {run['parameters']:,} | {run['val_loss'] / math.log(2):.4f} |" in output
    assert f"{found['counting_loss'] / math.log(2):.4f} bits" in output and "the lowest loss is that of" in output
    more = succeeds(program(*COMPARE, "--seeds", "2", "--only", "gpt,switch", cwd=place))
    after = results(place / "compare")
    assert after["runs"][:2] == found["runs"]
    assert [(run["network"], run["seed"]) for run in after["runs"][2:]] == [("switch", 1), ("gpt", 2), ("switch", 2)]
    assert after["summary"]["gpt"]["spread"] > 0 and "Switch against GPT" in more
    one_line(program(*COMPARE, "--order", "4", cwd=place), "holds other results than those of this text")


def test_networks_of_about_the_same_size_are_compared():
    settings = compare_architectures.Settings(width=64)
    sizes = {name: len(compare_architectures.new_network(name, settings, 65, 1).flat)
             for name in compare_architectures.NETWORKS}
    assert sizes["rnn"] == pytest.approx(sizes["gpt"], rel=0.1) and sizes["lstm"] == pytest.approx(sizes["gpt"], rel=0.1)
    assert sizes["switch"] > 4 * sizes["gpt"]


def test_spans_cover_every_length_of_context_once():
    for context in 1, 2, 7, 16, 100:
        covered = [i for part in compare_architectures.spans(context) for i in range(context)[part]]
        assert covered == list(range(context))


@pytest.mark.parametrize("flags, said", [
    (("--only", "gru"), "there is no network 'gru': --only takes some of rnn,lstm,gpt,switch"),
    (("--points", "13"), "points is 13, but there are 12 steps only"), (("--seeds", "0"), "seeds is 0"),
    (("--width", "33"), "can't be divided"), (("--data", "short.txt"), "too few for a context of 16"),
])
def test_a_mistake_in_comparing_is_one_line(place, flags, said):
    one_line(program(*COMPARE, *flags, cwd=place), said)


# ---- examples/translate.py ----

HAS_WORDS = importlib.util.find_spec("num2words") is not None
TRANSLATE = "translate", "--preset", "quick", "--workers", "1"
PAIRS = "".join(f"{word} {other}\t{other} {word}\n" for word in ("to", "be", "or", "not") for other in ("that", "is", "the"))


def test_translation_of_pairs_of_the_users_own(place):
    (place / "pairs.tsv").write_text(PAIRS + "\n", encoding="utf-8")
    output = succeeds(program(*TRANSLATE, "--data", "pairs.tsv", "--say", "to be", "--out", "pairs", cwd=place))
    found = results(place / "pairs")
    assert (found["learnt"], found["held_out"]) == (10, 2) and found["exact"].keys() == {"pairs"}
    assert "pairs     10 to learn from, 2 held out" in output and "to be  ->" in output
    saved = checkpoint.load(place / "pairs/model")
    assert saved.model.name == "transformer" and len(saved.model.flat) == found["parameters"]


@pytest.mark.skipif(not HAS_WORDS, reason="num2words is not installed: pip install '.[family]'")
def test_translation_of_numbers_holds_out_blocks(place):
    settings = translate.Settings(languages="fr,de", numbers=1000)
    learnt, held_out = translate.number_pairs(settings)
    assert (len(learnt), len(held_out)) == (1600, 400)
    assert ("de", "two", "zwei") in learnt and ("fr", "ninety-nine", "quatre-vingt-dix-neuf") in learnt
    numbers = {source for _, source, _ in held_out}
    assert len(numbers) == 200 and not numbers & {source for _, source, _ in learnt}
    output = succeeds(program(*TRANSLATE, cwd=place))
    assert "French: " in output and "German: " in output and "pairs     600 to learn from, 200 held out" in output


@pytest.mark.parametrize("content, flags, said", [
    ("one\ttwo\nthree\n", (), "line 2 of wrong.tsv should be two texts with a tab between, and has 1 part"),
    ("one\ttwo\n", (), "wrong.tsv has 1 pairs, too few"), (b"caf\xe9\tx", (), "can't be read as UTF-8"),
    (PAIRS, ("--data", "none.tsv"), "there is no file none.tsv"), (PAIRS, ("--languages", "fr,xx"), "no language 'xx'"),
    (PAIRS, ("--numbers", "100"), "numbers is 100"), (PAIRS, ("--beams", "0"), "beams is 0"),
    (PAIRS, ("--vocabulary-size", "200"), "too small"), (PAIRS, ("--say", ""), "the text '' is empty"),
    (PAIRS, ("--say", "to be " * 99), "longer than all that is learnt from"), ("a b\t" * 2 + "\n", (), "has 3 parts"),
    ("x y z " * 300 + "\tq\n" + PAIRS, (), "the longest text has"),
])
def test_a_mistake_in_translating_is_one_line(place, content, flags, said):
    (place / "wrong.tsv").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    one_line(program(*TRANSLATE, "--data", "wrong.tsv", *flags, cwd=place), said)


# ---- examples/fill_in_the_blank.py ----

BLANK = "fill_in_the_blank", "--data", "text.txt", "--preset", "quick", "--workers", "1", "--out", "blank"


def test_blanks_are_filled_in_by_both_and_nothing_is_trained_twice(place):
    output, found = succeeds(program(*BLANK, cwd=place)), results(place / "blank")
    assert len(found["guesses"]) == 4 and all(len(g["bert"]) == len(g["gpt"]) == 5 for g in found["guesses"])
    assert "truly" in output and f"{found['bert_right']:.1%}" in output and f"{found['gpt_right']:.1%}" in output
    before = (place / "blank/gpt/model.safetensors").read_bytes()
    again = succeeds(program(*BLANK, "--text", "To b_, or n_t", cwd=place))
    assert "character 5" in again and "character 12" in again and "truly" not in again
    assert (place / "blank/gpt/model.safetensors").read_bytes() == before
    one_line(program(*BLANK, "--steps", "11", cwd=place), "holds models of another text or of other settings")
    for guess in results(place / "blank")["guesses"]:
        assert 0 < sum(p for _, p in guess["bert"]) <= 1 + 1e-6 and "_" not in [c for c, _ in guess["bert"]]


def test_a_text_that_has_the_sign_of_a_blank_gets_another_one(place):
    (place / "signs.txt").write_text(40 * "a_b c d e, and so on. ", encoding="utf-8")
    output = succeeds(program(*BLANK, "--data", "signs.txt", "--out", "signs", "--text", "a_b", cwd=place))
    assert "'a█b'" in output and "character 2" in output


@pytest.mark.parametrize("flags, said", [
    (("--text", "To be"), "has no blank: write _"), (("--text", "天_"), "characters outside the vocabulary"),
    (("--text", "_" * 17), "the text has 17 characters, and the models read 16"), (("--share", "0"), "share is 0.0"),
    (("--data", "short.txt"), "too few"),
])
def test_a_mistake_with_blanks_is_one_line(place, flags, said):
    one_line(program(*BLANK, *flags, cwd=place), said)


# ---- examples/finetune.py ----

LABELLED = "".join(f"day\tthe sun is up {n}\nnight\tthe moon {n}\n" for n in range(20))
FINETUNE = "finetune", "--data", "labelled.tsv", "--preset", "quick", "--workers", "1", "--out", "finetune"


def test_fine_tuning_is_compared_by_labels_and_goes_on(place):
    (place / "labelled.tsv").write_text(LABELLED, encoding="utf-8")
    output, found = succeeds(program(*FINETUNE, cwd=place)), results(place / "finetune")
    assert (found["classes"], found["learnt"], found["asked"]) == (["day", "night"], 32, 8)
    assert [run["labels"] for run in found["runs"]] == [2, 2, 3, 10, 32]
    assert all(run["accuracy"].keys() == {"fine-tuned", "LoRA", "scratch", "naive Bayes"} for run in found["runs"])
    assert found["runs"][-1]["accuracy"]["naive Bayes"] == 1
    assert "Fine-tuning with 10% of the labels" in output
    assert not HAS_MATPLOTLIB or (place / "finetune/finetune.png").exists()
    again = succeeds(program(*FINETUNE, cwd=place))
    assert results(place / "finetune")["runs"] == found["runs"]
    assert "without labels" in output and "without labels" not in again
    (place / "others.tsv").write_text(LABELLED.replace("sun", "rain"), encoding="utf-8")
    one_line(program(*FINETUNE, "--data", "others.tsv", cwd=place), "holds other results")
    one_line(program(*FINETUNE, "--lora-rate", "0.1", cwd=place), "holds other results")


def test_texts_too_short_for_any_n_gram_are_classified_all_the_same(place):
    (place / "short.tsv").write_text("".join(f"day\ta{n % 3}\nnight\tb{n % 3}\n" for n in range(20)), encoding="utf-8")
    succeeds(program(*FINETUNE, "--data", "short.tsv", "--out", "short", cwd=place))


@pytest.mark.parametrize("content, flags, said", [
    ("day\tthe sun\nnight\n", (), "line 2 of labels.tsv should be a label, a tab and a text"),
    ("day\tthe sun\n", (), "has 1 texts of 1 classes"), (LABELLED, ("--rank", "0"), "rank 0"),
    (LABELLED, ("--data", "none.tsv"), "there is no file none.tsv"),
    (LABELLED, ("--task", "mood"), "expected one of kind, play"),
])
def test_a_mistake_in_fine_tuning_is_one_line(place, content, flags, said):
    (place / "labels.tsv").write_text(content, encoding="utf-8")
    one_line(program(*FINETUNE, "--data", "labels.tsv", "--out", "other", *flags, cwd=place), said)
