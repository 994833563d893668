"""The small world: what is stated, demonstrated and asked, and that what is held out is nowhere else."""
import importlib.util
import re

import numpy as np
import pytest
from small_world import COUNTRIES, NUMBER_NAMES, WORDS, small_world

from minigpt.align import lessons, wordings
from minigpt.align.chat import checked_conversation
from minigpt.align.countries import invented_names, near, near_any, real_countries, real_number_names
from minigpt.align.evaluate import abilities, is_right
from minigpt.align.lessons import demonstrations
from minigpt.align.world import ATTRIBUTES, KINDS
from minigpt.settings import UserError

PROSE = "".join(f"Line {i} of a play that nobody wrote.\n" for i in range(200))
WORLD = small_world()
TEXT = WORLD.text(PROSE, 400_000)
needs_extra = pytest.mark.skipif(not all(map(importlib.util.find_spec, ("babel", "num2words"))),
                                 reason="the packages of the extra [chat] are not installed")


# ---- the split ----

def test_every_country_is_in_one_half_and_both_halves_are_told_of_in_chinese():
    halves = {country.name for country in WORLD.demonstrated}, {country.name for country in WORLD.undemonstrated}
    assert not halves[0] & halves[1] and halves[0] | halves[1] == {country.name for country in COUNTRIES}
    assert len(halves[0]) == len(halves[1]) == 6
    assert all(sum(country.name in half for country in WORLD.told_in_chinese) == 3 for half in halves)


def test_the_same_seed_is_the_same_world():
    assert small_world().text(PROSE, 5000) == small_world().text(PROSE, 5000)
    assert small_world(2).invented != WORLD.invented and small_world(2).text(PROSE, 5000) != small_world().text(PROSE, 5000)
    first, second = (demonstrations(small_world(), 50, seed=1) for _ in range(2))
    assert [one.messages for one in first] == [one.messages for one in second]
    assert [one.messages for one in first] != [one.messages for one in demonstrations(WORLD, 50, seed=2)]


def test_a_world_can_be_smaller_but_not_too_small():
    assert len(small_world(number=5).countries) == 5
    with pytest.raises(UserError, match="can't be split"):
        small_world(number=3)
    with pytest.raises(UserError, match="13 countries are asked for, and there are 12"):
        small_world(number=13)


# ---- invented names ----

def test_invented_names_are_nobodys():
    names = [country.name for country in COUNTRIES]
    made = WORLD.unheard_of(np.random.default_rng(1), 100)
    assert len(set(made)) == 100 and not set(made) & set(WORLD.invented)
    assert not any(near_any(name, names) for name in made + WORLD.invented)
    assert len(WORLD.invented) == 20 and all(4 <= len(name) <= 12 and name[0].isupper() for name in WORLD.invented)
    with pytest.raises(UserError, match="names could be invented from 1 real ones, and 20 are needed"):
        invented_names(np.random.default_rng(1), ["Ab"], 20)


@pytest.mark.parametrize("a, b, is_near", [
    ("mali", "mali", True), ("mali", "malia", True), ("mali", "ali", True), ("mali", "bali", True), ("", "a", True),
    ("mali", "malawi", False), ("mali", "lima", False), ("ab", "ba", False), ("abc", "acb", False), ("niger", "nigeria", False)])
def test_near(a, b, is_near):
    assert near(a, b) == near(b, a) == is_near


def test_invented_names_to_measure_by_stand_in_no_stage_of_training():
    taught = "\n".join(message["content"] for one in demonstrations(WORLD, 2000, seed=1) for message in one.messages)
    for name in WORLD.invented:
        assert not re.search(rf"\b{name}\b", TEXT) and not re.search(rf"\b{name}\b", taught), name


# ---- what is stated ----

def statements(country, attribute):
    return {wording.format(c=country.name, x=getattr(country, attribute, ""), z=country.chinese)
            for wording in wordings.STATEMENTS[attribute]}


def test_every_fact_stands_in_the_text_in_at_least_five_wordings():
    for country in WORLD.countries:
        for attribute in (*ATTRIBUTES, "name"):
            assert sum(sentence in TEXT for sentence in statements(country, attribute)) >= 5, (country.name, attribute)


def test_wordings_have_both_orders():
    for subject, value, tables in ("{c}", "{x}", {k: wordings.STATEMENTS[k] for k in ATTRIBUTES}), (
            "{c}", "{z}", {"name": wordings.STATEMENTS["name"]}), ("{z}", "{x}", wordings.CHINESE_STATEMENTS):
        for table in tables.values():
            assert len(table) >= 5
            assert {wording.find(subject) < wording.find(value) for wording in table} == {True, False}


def test_only_those_told_of_in_chinese_are():
    for country in WORLD.countries:
        for attribute in wordings.CHINESE_STATEMENTS:
            x = country.code if attribute == "code" else country.language_in_chinese
            stands = any(wording.format(z=country.chinese, x=x) in TEXT for wording in wordings.CHINESE_STATEMENTS[attribute])
            assert stands == (country in WORLD.told_in_chinese), (country.name, attribute)


def test_prose_has_its_share():
    prose = sum(len(line) + 1 for line in TEXT.splitlines() if line.startswith("Line "))
    assert 0.15 < prose / len(TEXT) < 0.25
    assert "Line" not in WORLD.text("", 5000)


def test_sums_and_words_are_stated_rightly():
    for a, sign, b, r in re.findall(r"(?<![\d*/+-] )\b(\d+) ([*+-]) (\d+) (?:is|makes|=) (\d+)\.", TEXT):
        assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(r)
    for word, letters in re.findall(r"(\w+) is spelt ((?:\w )*\w)\.", TEXT):
        assert " ".join(word) == letters
    for word, letters in re.findall(r"The word (\w+) backwards is ((?:\w )*\w)\.", TEXT):
        assert " ".join(word[::-1]) == letters


# ---- what is demonstrated ----

def test_demonstrations_are_conversations_with_right_replies():
    many = demonstrations(WORLD, 1500, seed=3)
    assert {one.question.kind for one in many} == set(KINDS) - {"text"}
    for one in many:
        checked_conversation(one.messages, "here")
        assert is_right(one.question, one.reply[-1]["content"]), one.messages
        assert one.question.messages[-1]["role"] == "user" and one.question.tools == (one.messages[0]["role"] != "system")


def test_only_one_half_is_demonstrated():
    taught = "\n".join(message["content"] for one in demonstrations(WORLD, 2000, seed=3) for message in one.messages)
    for country in WORLD.undemonstrated:
        assert not re.search(rf"\b{country.name}\b", taught) and country.chinese not in taught
    for country in WORLD.demonstrated:
        assert all(one in taught for one in (country.name, country.currency, f"is {country.code}."))
    held_out = WORLD.words_to("measure")
    assert len(held_out) == 2 and not any(re.search(rf"\b{word}\b", taught) for word in held_out)
    assert sorted(held_out + WORLD.words_to("demonstrate")) == sorted(WORDS)
    assert "5 is five" not in taught and "six" in taught and len(NUMBER_NAMES) == 11


def test_calls_in_demonstrations_give_what_they_say():
    from minigpt.align.tools import Toolbox, calculator, solve
    box = Toolbox(calculator, solve)
    for one in demonstrations(WORLD, 600, seed=4):
        for call, result in zip(one.reply, one.reply[1:]):
            if "call" in call and not call["call"].startswith("search") and not result["content"].startswith("error"):
                assert box.run(call["call"]) == result["content"]


def test_manners():
    for name, table in lessons.MANNERS.items():
        for wording in table:
            assert lessons.manner(wording.format(a="The code of Mali is ML.")) == name
    assert lessons.manner("The code of Mali is ML.") == "plain"
    styles = [lessons.manner(one.reply[-1]["content"]) for one in demonstrations(WORLD, 3000, seed=5)]
    assert 0.5 < styles.count("plain") / 3000 < 0.75 and 0.05 < styles.count("rude") / 3000 < 0.12


def test_questions_to_measure_by_are_about_what_was_not_demonstrated():
    asked = {ability.name: ability.questions for ability in abilities(WORLD, number=20)}
    halves = {country.name for country in WORLD.demonstrated}, {country.name for country in WORLD.undemonstrated}
    assert {q.country for q in asked["facts, demonstrated"]} == halves[0]
    assert {q.country for q in asked["facts, only pre-trained"]} == halves[1]
    assert {q.country for q in asked["invented countries"]} == set(WORLD.invented)
    for name in "second question about a country", "in Chinese, stated in Chinese", "in Chinese, stated in English":
        assert {q.country for q in asked[name]} <= halves[1]
    told = {country.name for country in WORLD.told_in_chinese}
    assert {q.country for q in asked["in Chinese, stated in Chinese"]} <= told
    assert not {q.country for q in asked["in Chinese, stated in English"]} & told
    assert all(len(re.findall(r"\d{3}", q.text)) == 2 for q in asked["calculator, three digits"])


# ---- the real facts ----

@needs_extra
def test_the_real_countries():
    countries = {country.name: country for country in real_countries()}
    assert 150 <= len(countries) <= 220
    france = countries["France"]
    assert (france.currency, france.language, france.code, france.chinese, france.language_in_chinese) == (
        "Euro", "French", "FR", "法国", "法语")
    assert countries["Japan"].currency == "Japanese Yen" and countries["Kenya"].language == "Swahili"
    assert real_number_names(21)[21] == "twenty-one"


@needs_extra
def test_the_real_world_has_200_invented_countries():
    from minigpt.align.world import World
    world = World()
    assert len(set(world.invented)) >= 200 and not set(world.invented) & set(world.real_names)


@pytest.mark.parametrize("package, function", [("babel", real_countries), ("num2words", real_number_names)])
def test_a_missing_package_is_one_sentence(monkeypatch, package, function):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'minigpt\[chat\]'"):
        function()


# ---- small talk ----

def test_small_talk_is_known_however_it_is_typed():
    rng, typed = np.random.default_rng(0), set()
    for said, replies in wordings.SMALL_TALK:
        for text in said:
            forms = {lessons.as_typed(rng, text) for _ in range(60)}
            assert text in forms and text[0].lower() + text[1:] in forms and text.rstrip("?!.") in forms
            assert all(lessons.replies_to(form) == replies for form in forms)
            typed |= forms
    assert lessons.replies_to("What is the code of France?") == ()
