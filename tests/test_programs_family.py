"""The programs of the family tree, as users run them, small: what they print and leave behind, and their mistakes."""
import json
import math

import pytest
from test_programs import TEXT, program, succeeds


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with texts, good and bad."""
    place = tmp_path_factory.mktemp("family")
    (place / "text.txt").write_text(TEXT * 3, encoding="utf-8")
    (place / "short.txt").write_text("too short", encoding="utf-8")
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


@pytest.mark.parametrize("flags, said", [
    (("--experts", "1"), "experts is 1, but a choice takes 2"),
    (("--steps", "4"), "holds other results than those of this text"),
    (("--data", "short.txt"), "too few for a context of 16"),
    (("--capacity", "0", "--out", "other"), "capacity is 0.0"),
])
def test_a_mistake_with_switch_is_one_line(place, flags, said):
    one_line(program(*SWITCH, *flags, cwd=place), said)


# ---- examples/count.py ----

@pytest.mark.parametrize("unit, order", [("char", 3), ("word", 2)])
def test_counting_shows_a_sentence_factor_by_factor(place, tmp_path, unit, order):
    flags = ["--data", "text.txt", "--unit", unit, "--order", order, "--sentence", "To be, or not", "--out", tmp_path]
    output, found = succeeds(program("count", *flags, "--length", "40", cwd=place)), results(tmp_path)
    factors = [float(line.split(" = ")[1].split()[0]) for line in output.splitlines() if line.startswith("  p(") and "|" in line]
    assert len(factors) == (13 if unit == "char" else 5)
    assert math.log(math.prod(factors)) == pytest.approx(found["log_probability"], abs=1e-3)
    assert list(found["losses"]) == [str(n) for n in range(1, order + 1)]
    assert found["made_up"] in output and (len(found["made_up"]) == 40 if unit == "char" else True)
    assert found["losses"][str(order)] < found["losses"]["1"]


@pytest.mark.parametrize("flags, said", [
    (("--order", "0"), "order is 0"), (("--sentence", " "), "the sentence is empty"),
    (("--sentence", "天"), "characters outside the vocabulary"), (("--unit", "line"), "expected one of char, word"),
    (("--data", "short.txt"), "too few for a context of 7"), (("--data", "none.txt"), "there is no file none.txt"),
])
def test_a_mistake_with_counting_is_one_line(place, flags, said):
    one_line(program("count", "--data", "text.txt", *flags, cwd=place), said)
