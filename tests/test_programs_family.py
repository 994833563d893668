"""The programs of the family tree, as users run them, small: what they print and leave behind, and their mistakes."""
import json

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
