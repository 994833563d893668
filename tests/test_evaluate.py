"""The report card: intervals, what counts as right and as in form, and the files that come with it."""
import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import small_world

from minigpt.align import evaluate
from minigpt.align.evaluate import Score, from_json, hashes, in_form, is_right, paired, read_questions, table, wilson
from minigpt.align.world import Question, user
from minigpt.settings import UserError

WORLD = small_world()


def question(kind, answer, country=None, attribute=None, text="?"):
    return Question((user(text),), kind, answer, country, attribute)


@given(st.integers(1, 500), st.data())
def test_the_interval_is_where_the_definition_holds(number, data):
    right = data.draw(st.integers(0, number))
    low, high = wilson(right, number)
    assert 0 <= low <= right / number <= high <= 1
    for p in np.linspace(0.0005, 0.9995, 300):
        inside = abs(right - number * p) <= 1.96 * (number * p * (1 - p)) ** 0.5        # (1)
        assert inside == (low <= p <= high) or min(abs(p - low), abs(p - high)) < 1e-9


def test_intervals_that_are_known():
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert str(Score.of([True] * 5 + [False] * 5)) == " 50.0% (24-76), 5/10"


FACT = question("fact", "Euro", "France", "currency")
CODE = question("fact", "FR", "France", "code")
SUM = question("arithmetic", "-32")


@pytest.mark.parametrize("asked, reply, right", [
    (FACT, "The currency of France is the Euro.", True), (FACT, "The currency of France is the Euros.", False),
    (FACT, "I don't know. The Euro?", False), (FACT, "The US Dollar.", False),
    (CODE, "The code of France is FR.", True), (CODE, "The code of France is fr.", False), (CODE, "The code is FRA.", False),
    (question("fact", "Tuvalu", "Tuvalu", "language"), "The language of Tuvalu is Tuvalu.", True),
    (question("fact", "Tuvalu", "Tuvalu", "language"), "The language of Tuvalu is English.", False),
    (question("fact", "法语", "France", "language"), "法国的语言是法语。", True),
    (question("fact", "法语", "France", "language"), "法国的语言是英语。", False),
    (SUM, "3 - 35 is -32.", True), (SUM, "3 - 35 is -321.", False), (SUM, "-32 is what 3 - 35 is not: 4.", False),
    (SUM, "", False),
    (question("arithmetic", "0.5"), "1 / 2 is 0.5. I hope that helps.", True),
    (question("arithmetic", "5"), "It is 0.5.", False),
    (question("arithmetic", None), "That did not work: division by zero.", True),
    (question("arithmetic", None), "It is 7.", False),
    (question("unknowable", None, "Korbo"), "I don't know.", True),
    (question("unknowable", None, "Korbo"), "It is the Euro.", False),
    (question("spelling", "g n i k"), "king backwards is g n i k.", True),
    (question("spelling", "g n i k"), "k i n g.", False), (question("spelling", "t a c"), "e t a c.", True),
    (question("counting", "4"), "k i n g makes 4 letters.", True),
    (question("number", "seven"), "7 is seventy in words.", False), (question("equation", "x = 2"), "x = 2.", True),
    (question("equation", "x = 2"), "x = 21.", False),
    (question("search", "214"), "The documents say: The room is 214.", True),
    (question("search", None), "The documents say nothing about that.", True),
    (question("small talk", None, text="Bye."), "Goodbye!", True),
    (question("small talk", None, text="Bye."), "x = 2", False),
    (question("small talk", None, text="bye!"), "Goodbye!", True), (question("small talk", None, text="by"), "Goodbye!", False),
    (question("text", "Paris"), "it is paris, I think", True), (question("text", "Paris"), "comparison", False),
])
def test_is_right(asked, reply, right):
    assert is_right(asked, reply) == right


def turn(text, reason="end", length=10):
    return SimpleNamespace(text=text, reason=reason, spoken=[True] * length)


@pytest.mark.parametrize("asked, replied, good", [
    (question("fact", "Euro", "Finland", "currency"), turn("It is the Danish Krone."), True),
    (question("fact", "Euro", "Finland", "currency"), turn("It is Danish."), False),
    (question("fact", "Euro", "Finland", "currency"), turn("I don't know."), True),
    (question("fact", "Euro", "Finland", "currency"), turn("It is the Euro.", reason="length"), False),
    (question("fact", "Euro", "Finland", "currency"), turn("It is the Euro.", length=99), False),
    (question("unknowable", None), turn(""), False), (SUM, turn("It is 7."), True), (SUM, turn("It is."), False),
    (question("spelling", "g n i k"), turn("x is a b."), True), (question("spelling", "g n i k"), turn("king."), False),
])
def test_in_form(asked, replied, good):
    assert in_form(WORLD, asked, replied) == good


def test_two_models_are_compared_question_by_question():
    assert paired(Score.of([1, 1, 0, 0, 1]), Score.of([1, 0, 1, 1, 1])) == (1, 2)
    with pytest.raises(ValueError, match="shorter|longer"):
        paired(Score.of([1]), Score.of([1, 0]))


@given(st.lists(st.integers(0, 3), min_size=0, max_size=30), st.integers(1, 4))
def test_hashes_tell_runs_apart(ids, run):
    of = hashes(ids, run)
    runs = [tuple(ids[i:i + run]) for i in range(len(ids) - run + 1)]
    assert len(of) == len(runs) and len(set(of.tolist())) == len(set(runs))


def test_a_card_is_a_text_and_json_and_a_picture(tmp_path):
    cards = {"before": {"facts": Score.of([1, 0])}, "after": {"facts": Score.of([1, 1]), "sums": Score.of([0])}}
    lines = table(cards).splitlines()
    assert lines[0].split() == ["before", "after"] and lines[1].startswith("facts   50.0% (9-91), 1/2")
    assert len(lines) == 3 and lines[2].startswith("sums ")
    assert from_json(json.dumps(evaluate.as_json(cards))) == cards
    hint = evaluate.plot(cards, tmp_path / "card.png")
    if importlib.util.find_spec("matplotlib"):
        assert hint is None and (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")
        assert "can't be written" in evaluate.plot(cards, tmp_path / "none" / "card.png")
    else:
        assert "pip install matplotlib" in hint


def test_questions_of_a_users_own(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "Who?", "answer": "Ann"}\n'
                    '{"messages": [{"role": "user", "content": "Why?"}], "answer": "so"}\n')
    first, second = read_questions(path)
    assert (first.text, first.answer, first.kind, second.text) == ("Who?", "Ann", "text", "Why?")
    reply = {"role": "assistant", "content": "x"}
    for bad in ({"question": "Who?"}, {"answer": "Ann"}, {"question": "", "answer": "Ann"}, {"messages": [3], "answer": "x"},
                {"messages": 3, "answer": "x"}, {"messages": [], "answer": "x"}, {"messages": [reply], "answer": "x"}):
        path.write_text('{"question": "Who?", "answer": "Ann"}\n' + json.dumps(bad))
        with pytest.raises(UserError, match=r"questions.jsonl, line 2: a line has to have a 'question'"):
            read_questions(path)
