"""The judge that stands in for people, and the stages that learn from what it says, in a small world."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_world import small_template, small_world

from minigpt.align import judge as judging
from minigpt.align import lessons, wordings
from minigpt.align.comparisons import ComparisonSettings, from_preferences
from minigpt.align.dpo import DPOSettings
from minigpt.align.feedback import (learn_reward, mean_and_margin, measure, prefer_directly, reinforce, reward_figures,
                                    to_replay)
from minigpt.align.grpo import GRPO, GRPOSettings
from minigpt.align.judge import Judge, gather, is_held_out, lessons_to_judge, score, scripted_pair, truth
from minigpt.align.ppo import PPO, PPOSettings
from minigpt.align.replies import Reply
from minigpt.align.world import Question, user
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.report import read_metrics

@pytest.fixture(scope="module")
def world():
    return small_world(invented=5)


@pytest.fixture(scope="module")
def template(world):
    return small_template(world.text("", 600), 320)


@pytest.fixture(scope="module")
def model(template):
    return GPTModern(GPTModernConfig(template.tokenizer.vocabulary_size, 160, 1, 2, 16), seed=0)


def fact():
    return Question((user("What is the language of Albania?"),), "fact", "Albanian", "Albania", "language")


UNKNOWABLE = Question((user("What is the language of Nowhere?"),), "unknowable", None, "Nowhere", "language")
SAID = {"right": "The language of {c} is Albanian.", "unsure": "I don't know.", "wrong": "The language of {c} is Danish."}


def test_right_is_better_than_honest_and_honest_better_than_wrong():
    right, unsure, wrong = (score(fact(), SAID[what].format(c="Albania")) for what in SAID)
    assert right > unsure > wrong
    assert score(UNKNOWABLE, "I don't know.") > score(UNKNOWABLE, SAID["wrong"].format(c="Nowhere"))
    assert truth(UNKNOWABLE, "I am sorry, I don't know.") == 1


@pytest.mark.parametrize("what", SAID)
def test_of_one_content_polite_and_short_is_better_than_plain_than_rambling_and_rude(what):
    text = SAID[what].format(c="Albania")
    by_style = {name: [score(fact(), wording.format(a=text)) for wording in styles]
                for name, styles in {"plain": wordings.PLAIN, "polite": wordings.POLITE, "rude": wordings.RUDE,
                                     "rambling": wordings.RAMBLING}.items()}
    assert min(by_style["polite"]) > max(by_style["plain"]) > max(by_style["rambling"] + by_style["rude"])
    assert score(fact(), text, ended=False) < score(fact(), text)


def test_small_talk_is_answered_and_not_with_ignorance():
    hello = Question((user("Hello!"),), "small talk", None)
    assert score(hello, "Good day! How can I help?") > score(hello, "I don't know.")


def reply(template, question, text):
    prompt = template.prompt(list(question.messages))
    return Reply(prompt, template.render([*question.messages, {"role": "assistant", "content": text}])[0][len(prompt):])


@pytest.mark.parametrize("mistakes", [0.0, 0.1, 0.4])
def test_labels_are_mistaken_at_the_rate_that_is_asked_for(template, mistakes):
    judge = Judge(template, mistakes)
    right, wrong = (reply(template, fact(), SAID[what].format(c="Albania")) for what in ("right", "wrong"))
    labelled = [judge.compare(fact(), *pair) for pair in [(right, wrong), (wrong, right)] * 500]
    assert np.mean([one.mistaken for one in labelled]) == pytest.approx(mistakes, abs=0.03)
    assert all((one.comparison.chosen is right) != one.mistaken for one in labelled)
    assert judge.compare(fact(), right, right) is None


def test_wrong_replies_are_wrong_and_look_like_right_ones(world):
    rng = np.random.default_rng(0)
    for lesson in lessons_to_judge(world, 300, 1):
        text = judging.wrong(rng, world, lesson)
        if lesson.question.kind in ("fact", "unknowable", "counting", "number", "small talk"):
            assert truth(lesson.question, text) == -1, (lesson.question, text)
            assert truth(lesson.question, lesson.reply[-1]["content"]) == 1


def test_comparisons_are_held_out_by_country_and_question(world, model, template):
    judge = Judge(template)
    training, held_out = gather(model, world, template, judge, 200, 1, length=6, workers=1, sampled=0.1)
    assert len(training) > len(held_out) > 5

    def prompts(labelled):
        return {tuple(one.comparison.chosen.prompt) for one in labelled}

    assert not prompts(training) & prompts(held_out)
    for one in training + held_out:
        np.testing.assert_array_equal(one.comparison.chosen.prompt, one.comparison.rejected.prompt)
    asked = [lesson.question for lesson in lessons_to_judge(world, 400, 2)]
    for half in world.demonstrated, world.undemonstrated:               # of both, or one is learnt to be unknown
        assert {country.name for country in half} & {question.country for question in asked}
    assert not {q.country for q in asked if q.kind == "unknowable" and q.attribute} & set(world.invented)
    sides = {question.country: set() for question in asked if question.country}
    for question in asked:
        if question.country:
            sides[question.country].add(is_held_out(question))
    assert all(len(side) == 1 for side in sides.values()) and {True, False} == set.union(*sides.values())


@settings(max_examples=10)
@given(seed=st.integers(0, 999))
def test_a_scripted_pair_are_two_replies_that_read_as_they_were_written(world, template, seed):
    rng = np.random.default_rng(seed)
    (lesson,) = lessons_to_judge(world, 1, seed)
    for side in scripted_pair(rng, world, template, lesson):
        text = Judge(template).text(side)
        assert text and side.ids[-1] == template.end
        np.testing.assert_array_equal(reply(template, lesson.question, text).ids, side.ids)


def test_a_file_of_preferences_takes_the_judges_place(template):
    asked = [user("Hello!")]
    known, left_out = from_preferences([
        (asked, [{"role": "assistant", "content": "Good day!"}], [{"role": "assistant", "content": "No."}]),
        (asked, [{"role": "assistant", "content": "Good day! " * 40}], [{"role": "assistant", "content": "No."}])], template, 50)
    assert left_out == 1 and template.tokenizer.decode(known[0].chosen.ids[:-1]) == "Good day!"
    np.testing.assert_array_equal(known[0].chosen.prompt, template.prompt(asked))


def test_a_reward_model_that_knows_reaches_the_ceiling(world, model, template):
    judge = Judge(template, 0.2)
    labelled = sum(gather(model, world, template, judge, 150, 1, length=8, workers=1), [])

    class Knowing:
        def scores(self, replies):
            return np.array([known[id(one)] for one in replies])

    known = {}
    for one in labelled:
        chosen, rejected = one.comparison.chosen, one.comparison.rejected
        known |= {id(chosen): -1.0 if one.mistaken else 1.0, id(rejected): 0.0}
    figures = reward_figures(Knowing(), labelled)
    assert figures["true_accuracy"] == 1 and figures["accuracy"] == pytest.approx(figures["ceiling"]) and figures["ceiling"] < 1


def test_all_stages_run_and_leave_their_records(world, model, template, tmp_path):
    judge = Judge(template)
    compared = gather(model, world, template, judge, 80, 1, length=6, workers=1, sampled=0.1)
    reward, figures = learn_reward(model, compared, ComparisonSettings(batch_size=16), tmp_path / "reward", workers=1)
    assert 0 <= figures["accuracy"] <= 1 and figures["comparisons"] == len(compared[0])
    small = {"iterations": 2, "replies": 8, "length": 6, "batch_size": 8, "learning_rate": 1e-2}
    replay = to_replay([lesson.messages for lesson in lessons_to_judge(world, 30, 1)], template, model.config.context, 1)
    ran = {"ppo": reinforce(PPO, model, reward, world, template, judge, PPOSettings(**small), tmp_path / "ppo", 40,
                            replay=replay, workers=1),
           "grpo": reinforce(GRPO, model, reward, world, template, judge, GRPOSettings(**small, group=4), tmp_path / "grpo", 40,
                             workers=1),
           "dpo": prefer_directly(model, compared, DPOSettings(batch_size=16), tmp_path / "dpo", replay, workers=1)}
    before = measure(model, model, world, template, judge, 30, length=6, workers=1)
    assert before.kl == 0 and len(before.scores) == len(before.questions) > 5
    for name, (policy, records) in ran.items():
        assert read_metrics(tmp_path / name / "metrics.jsonl") == records
        after = measure(policy, model, world, template, judge, 30, length=6, workers=1)
        assert after.kl > 0 and after.questions[0].messages == before.questions[0].messages
    assert {"reward", "true_score", "kl", "entropy", "clip_fraction", "length", "value_error", "beta"} <= set(ran["ppo"][1][0])


def test_the_margin_of_a_mean_is_that_of_95_percent():
    rng = np.random.default_rng(0)
    inside = [abs(mean) <= margin for mean, margin in (mean_and_margin(rng.normal(size=100)) for _ in range(400))]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_what_is_compared_takes_no_tools(world):
    assert all(lesson.question.tools and not any("call" in message for message in lesson.messages)
               for lesson in lessons_to_judge(world, 200, 3))
    assert set(judging.SHARES) <= set(lessons.SHARES)
