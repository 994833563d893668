"""The judge: a script that stands in for the people who compare replies.

Learning from preferences needs thousands of comparisons. Here a script makes them, and so it is known what is true: how
good a reply really is (the true score), which labels are mistaken, and with that how well anybody could agree with them. It
likes what people said that they like: right over wrong, honest ignorance over invention, polite and short over rude and
rambling.

    what it says    right +1, wrong or invented -1; "I don't know" 0 where there is something to know, and +1 where there
                    is not
    how             polite +0.3, rude -0.5
    how long        -0.03 for each word beyond 12, at most -0.6; -0.5 for a reply that did not end

Of two replies it prefers the one of the higher score; but a share of its labels, drawn at random, is the wrong way round,
as people's are. Replies whose scores are nearer than 0.2 are not compared: people could not tell. Whoever has preferences
of people's own hands them in as a file (chat.read_preferences, comparisons.from_preferences): nothing that learns from
them knows of the judge.
"""
import zlib
from dataclasses import dataclass

import numpy as np

from . import lessons, wordings
from .chat import reply_text
from .comparisons import Comparison
from .evaluate import is_right
from .replies import Reply, sample
from .world import ATTRIBUTES, pick

LONG = 12                           # words from which a reply is long
NEAR = 0.2                          # difference of scores that is too small to be noticed
SHARES = {                          # of what is asked for comparisons, and in reinforcement: nothing that takes a tool
    "fact": 0.33, "in Chinese": 0.06, "follow-up": 0.1, "invented": 0.24, "never stated": 0.07, "never told": 0.03,
    "spelling": 0.03, "counting": 0.03, "number": 0.03, "small talk": 0.08}
STYLES = (wordings.PLAIN, wordings.POLITE, wordings.RUDE, wordings.RAMBLING)


def score(question, text, ended=True):
    """How good a reply to a question is: the true score, -2.6 ... 1.3."""
    manner = {"polite": 0.3, "rude": -0.5}.get(lessons.manner(text), 0.0)
    length = -min(0.6, 0.03 * max(0, len(text.split()) - LONG))
    return truth(question, text) + manner + length - (0.0 if ended else 0.5)


def truth(question, text):
    """The part of the score that is for what is said."""
    if is_right(question, text):
        return 1.0
    return 0.0 if lessons.admits_ignorance(text) and question.kind != "small talk" else -1.0


def is_held_out(question):
    """Whether comparisons about this question are for measuring: one in five, all of a country on one side."""
    return zlib.crc32((question.country or question.text).encode("utf-8")) % 5 == 0


@dataclass(frozen=True, eq=False)
class Labelled:
    """A comparison as the judge labelled it, and whether the label is one of its mistakes."""
    comparison: Comparison
    mistaken: bool


class Judge:
    """Scores and compares replies to questions. mistakes: the share of comparisons that it labels the wrong way round."""

    def __init__(self, template, mistakes=0.1, seed=1):
        self.template, self.mistakes, self.rng = template, mistakes, np.random.default_rng([seed, 6])

    def score(self, question, reply):
        """The true score of a Reply."""
        return score(question, self.text(reply), reply.ended)

    def text(self, reply):
        """What a person reads of a Reply."""
        return reply_text(self.template.read(reply.ids))

    def scores(self, questions, replies):
        """The true scores (N,) of replies to questions."""
        return np.array([self.score(question, reply) for question, reply in zip(questions, replies, strict=True)])

    def compare(self, question, one, other):
        """The Labelled comparison of two Replies, or None where they are about as good."""
        better = self.score(question, one) - self.score(question, other)
        if abs(better) < NEAR:
            return None
        mistaken = bool(self.rng.random() < self.mistakes)
        first = (better > 0) != mistaken
        return Labelled(Comparison(one, other) if first else Comparison(other, one), mistaken)


# ---- what is asked, and what is compared ----

def lessons_to_judge(world, number, seed):
    """Lessons, plain ones, in the SHARES above: as demonstrated, but about all countries of a world. Were they about those
    that are demonstrated, and about invented ones, a model would learn to say of all others that it does not know."""
    rng = np.random.default_rng([world.seed, 5, seed])
    kinds = rng.choice(list(SHARES), size=number, p=np.array(list(SHARES.values())) / sum(SHARES.values()))
    names = iter(world.unheard_of(rng, int((kinds == "invented").sum())))
    return [lessons.a_lesson(world, rng, kind, world.countries, names) for kind in kinds]


def scripted_pair(rng, world, template, lesson):
    """Two replies to a lesson's question, of different content and manner, as (Reply, Reply)."""
    contents = [lesson.reply[-1]["content"], wrong(rng, world, lesson), ignorance(rng, lesson.question)]
    prompt = template.prompt(list(lesson.question.messages))
    pair = []
    for i in rng.choice(len(contents), size=2).tolist():
        text = pick(rng, pick(rng, STYLES)).format(a=contents[i])
        ids = template.render([*lesson.question.messages, {"role": "assistant", "content": text}])[0]
        pair.append(Reply(prompt, ids[len(prompt):]))
    return tuple(pair)


def ignorance(rng, question):
    """A reply that admits that it does not know."""
    if question.attribute is None or not question.text.isascii():
        return pick(rng, wordings.IGNORANCE)
    return pick(rng, wordings.IGNORANCE_OF).format(it=f"the {question.attribute} of {question.country}")


def wrong(rng, world, lesson):
    """A reply that looks like a right one."""
    question, text = lesson.question, lesson.reply[-1]["content"]
    others = others_than(world, question)
    if others and question.text.isascii() and rng.random() < 0.5:           # what is true of another country
        other = pick(rng, [country for country in others if country.name[:2] == question.country[:2]] or others)
        return wordings.ANSWERS[question.attribute].format(c=other.name, x=getattr(other, question.attribute))
    if question.kind == "fact":
        values = world.values[question.attribute]                           # in Chinese there are others, of languages
        if question.attribute == "language" and not question.answer.isascii():
            values = sorted({country.language_in_chinese for country in world.countries})
        head, _, tail = text.rpartition(question.answer)
        return head + pick(rng, [value for value in values if value != question.answer]) + tail
    if question.kind == "counting":
        return text.replace(f" {question.answer} ", f" {int(question.answer) + pick(rng, [-2, -1, 1, 2])} ")
    if question.kind == "number":
        return text.replace(question.answer, pick(rng, [name for name in world.number_names if name != question.answer]))
    if question.kind == "spelling":
        return text.replace(question.answer, " ".join(rng.permutation(question.answer.split())))
    if question.kind == "small talk" and rng.random() < 0.5:
        return pick(rng, [reply for _, replies in wordings.SMALL_TALK for reply in replies if not is_right(question, reply)])
    attribute = question.attribute or pick(rng, ATTRIBUTES)
    country = question.country or pick(rng, world.countries).name
    return wordings.ANSWERS[attribute].format(c=country, x=pick(rng, world.values[attribute]))


def others_than(world, question):
    """The countries for which a question's could be mistaken, as a model does by their names, and of which something else
    is true."""
    return [] if question.attribute is None else [
        country for country in world.countries
        if country.name != question.country and getattr(country, question.attribute) != question.answer]


def gather(model, world, template, judge, number, seed, length=48, workers=None, sampled=0.3):
    """(labelled comparisons to learn from, those held out) about `number` questions.

    A share `sampled` of them compares two replies that the model itself has sampled, which is what a reward model will have
    to judge; the others are written from tables. Fewer than `number` are left, as replies that are about as good are not compared.
    """
    asked = lessons_to_judge(world, number, seed)
    rng = np.random.default_rng([world.seed, 7, seed])
    own = int(sampled * number)
    prompts = [template.prompt(list(lesson.question.messages)) for lesson in asked[:own] for _ in range(2)]
    said = sample(model, prompts, length, template.end, [seed, 8], workers=workers)
    pairs = list(zip(said[::2], said[1::2])) + [scripted_pair(rng, world, template, lesson) for lesson in asked[own:]]
    labelled = [(lesson.question, judge.compare(lesson.question, *pair)) for lesson, pair in zip(asked, pairs)]
    sides = [], []
    for question, one in labelled:
        if one is not None and max(len(one.comparison.chosen), len(one.comparison.rejected)) <= model.config.context:
            sides[is_held_out(question)].append(one)
    return sides
