"""The report card: what a model can do, ability by ability, and how sure that is.

Each ability is a list of questions. The model answers with its likeliest tokens, a rule decides whether the reply is
right, and the share of right replies stands with its number and an interval of 95% (Wilson 1927): for k right ones of n,
the shares p for which k is within z = 1.96 standard deviations of n p,

    (1)  |k - n p| <= z sqrt(n p (1 - p))
    (2)  p  in  (k + z^2/2 +- z sqrt(k (n - k) / n + z^2/4)) / (n + z^2)            (1), solved for p

which stays within 0 and 1, and is of use for k = n, too. All stages of a training answer the same questions, so that two of
them can be compared question by question.
"""
import json
import math
import re
from dataclasses import dataclass, field

import numpy as np

from ..generate import Engine, Request
from ..report import save_picture
from ..sampling import Rules
from ..settings import UserError
from . import lessons, wordings
from .chat import check_message, read_lines
from .converse import Speaker, Turn
from .tools import Search, Toolbox, ToolError, calculator, solve
from .world import ATTRIBUTES, Question, assistant, user

LONGEST = 60                        # tokens that a reply in form has, at most
SIDE_BY_SIDE = 32                   # questions that are answered at a time
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


# ---- what is asked ----

@dataclass(frozen=True)
class Ability:
    """What questions of one kind tell. toolbox: the tools that the model has meanwhile."""
    name: str
    questions: list
    toolbox: Toolbox


def abilities(world, seed=0, number=200):
    """The abilities that are measured in a world; `number` of questions each, where there are as many."""
    rng = np.random.default_rng([world.seed, 4, seed])
    names = [country.name for country in world.undemonstrated]
    searched = [lessons.search(rng) for _ in range(number)]
    tools = Toolbox(calculator, solve, Search([one.reply[1]["content"] for one in searched]).search)
    of = {
        "facts, demonstrated": [lessons.fact(rng, c, a) for c in world.demonstrated for a in ATTRIBUTES],
        "facts, only pre-trained": [lessons.fact(rng, c, a) for c in world.undemonstrated for a in ATTRIBUTES],
        "in Chinese, stated in Chinese": in_chinese(rng, world, True),
        "in Chinese, stated in English": in_chinese(rng, world, False),
        "second question about a country": [lessons.follow_up(rng, c, a) for c in world.undemonstrated
                                            for a in ATTRIBUTES][:number],
        "invented countries": [lessons.unheard_of(rng, name) for name in world.invented],
        "never stated": [lessons.never_stated(rng, names[i % len(names)]) for i in range(number // 2)],
        "calculator, three digits": [three_digits(rng, True) for _ in range(number)],
        "arithmetic without tools": [three_digits(rng, False) for _ in range(number)],
        "equations with the solver": [lessons.equation(rng) for _ in range(number)],
        "search in documents": searched,
        "spelling backwards": [lessons.spelling(rng, word) for word in world.words_to("measure")],
        "counting letters": [lessons.counting(rng, word) for word in world.words_to("measure")],
        "numbers in words": [lessons.number(rng, n, name) for n, name in enumerate(world.number_names) if n % 5 == 0],
        "small talk": [lessons.small_talk(rng) for _ in range(number // 4)],
    }
    measured = [Ability(name, [one.question for one in asked], tools) for name, asked in of.items() if asked]
    failing = [lessons.arithmetic(rng, 999, error="error: a number is too large").question for _ in range(number // 4)]
    return [*measured, Ability("going on when a tool fails", failing, Toolbox(failing_calculator()))]


def in_chinese(rng, world, stated):
    """Questions in Chinese about countries of no demonstration, whose facts were stated in Chinese, or were not."""
    return [lessons.fact_in_chinese(rng, country, attribute) for country in world.undemonstrated
            for attribute in wordings.CHINESE_QUESTIONS if (country in world.told_in_chinese) == stated]


def three_digits(rng, tools):
    """A sum of two numbers of three digits."""
    while True:
        one = lessons.arithmetic(rng, 999, tools)
        if all(100 <= int(n) for n in re.findall(r"\d+", one.question.text)):
            return one


def failing_calculator():
    def calculator(expression: str):
        """Fail."""
        raise ToolError("a number is too large")
    return calculator


# ---- is the reply right, and in form? ----

def is_right(question, reply):
    """Whether a reply, a text, is right. What is not known is right where it is admitted."""
    answer, kind = question.answer, question.kind
    if kind == "unknowable":
        return lessons.admits_ignorance(reply)
    if kind == "small talk":
        return any(text in reply for text in lessons.replies_to(question.text))
    if answer is None:                                      # a tool failed, or found nothing
        return "did not work" in reply or "say nothing" in reply
    if kind in ("arithmetic", "counting"):
        return NUMBER.findall(reply)[-1:] == [answer]
    if kind == "fact":
        reply = reply.replace(question.country, "", 1)      # the language of Tuvalu is Tuvalu
        return stands_in(answer, reply) and not lessons.admits_ignorance(reply)
    if kind == "text":
        return stands_in(answer.lower(), reply.lower())
    return stands_in(answer, reply)


def stands_in(answer, reply):
    """Whether an answer stands in a reply as words of its own; Chinese is written without spaces."""
    if not answer.isascii():
        return answer in reply
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(answer)}(?![A-Za-z0-9])", reply) is not None


def in_form(world, question, turn):
    """Whether a turn ended by itself, soon enough, and is the right kind of reply, be it right or not."""
    reply = turn.text
    if turn.reason != "end" or sum(turn.spoken) > LONGEST or not reply:
        return False
    if lessons.admits_ignorance(reply) or question.answer is None:
        return True
    if question.kind == "fact":
        values = [*world.values[question.attribute], *(c.language_in_chinese for c in world.countries)]
        return any(stands_in(value, reply) for value in values)
    if question.kind in ("arithmetic", "counting", "equation", "search"):
        return NUMBER.search(reply) is not None or "did not work" in reply or "say nothing" in reply
    if question.kind == "spelling":
        return re.search(r"\b[a-z]( [a-z])+\b", reply) is not None
    return True


# ---- scores ----

def wilson(right, number, z=1.96):
    """The interval (2) for a share, of `right` among `number`: (low, high)."""
    if number == 0:
        return 0.0, 1.0
    centre, spread = right + z * z / 2, z * math.sqrt(right * (number - right) / number + z * z / 4)
    low, high = ((centre + sign * spread) / (number + z * z) for sign in (-1, 1))                   # (2)
    return max(0.0, min(low, right / number)), min(1.0, max(high, right / number))      # rounding aside, as they are


@dataclass(frozen=True)
class Score:
    """How many replies were right; which, where questions stand behind it."""
    right: int
    number: int
    which: list = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, which):
        which = [bool(right) for right in which]
        return cls(sum(which), len(which), which)

    share = property(lambda self: self.right / max(1, self.number))
    interval = property(lambda self: wilson(self.right, self.number))

    def __str__(self):
        low, high = self.interval
        return f"{100 * self.share:5.1f}% ({100 * low:.0f}-{100 * high:.0f}), {self.right}/{self.number}"


def paired(before, after):
    """(questions that only `before` got right, those that only `after` did) of two Scores over the same questions."""
    pairs = list(zip(before.which, after.which, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def ask(engine, template, toolbox, questions, rules=Rules(0), seed=0, length=LONGEST + 20):
    """The Turns with which a model answers questions; to one that is longer than it can read, an empty one."""
    speaker, turns = Speaker(engine, template, toolbox), []
    for i, question in enumerate(questions):
        messages = list(question.messages)
        if len(template.prompt(messages)) <= engine.context:
            turns.append(speaker.begin(messages, rules, seed + i, length))
        else:
            turns.append(Turn(template.prompt(messages), rules, seed, length, reason="context", messages=[assistant("")]))
    speaker.run()
    return turns


def evaluate(model, template, world, measured, prose=None, workers=None):
    """{ability: Score} of a model: of each Ability, of form and manners over all of them, and of verbatim repetition.

    prose: (tokens that were trained on, tokens to begin from) for the last; without it that is left out.
    """
    card, asked, answered = {}, [], []
    with Engine(model, template.tokenizer, SIDE_BY_SIDE, workers) as engine:
        for ability in measured:
            turns = ask(engine, template, ability.toolbox, ability.questions)
            card[ability.name] = Score.of(is_right(q, turn.text) for q, turn in zip(ability.questions, turns))
            asked, answered = asked + ability.questions, answered + turns
        card |= over_all(world, asked, answered)
        if prose is not None:
            card["verbatim repetition"] = verbatim(engine, *prose)
    return card


def over_all(world, questions, turns):
    """What is told by all replies together: form, manners, and statements about countries that do not exist.

    A reply that says anything but that it does not know such a country, in form or not, is counted as a hallucination.
    """
    manners = [lessons.manner(turn.text) for turn in turns]
    invented = set(world.invented)
    lied = [not lessons.admits_ignorance(turn.text) for q, turn in zip(questions, turns) if q.country in invented]
    return {"in form": Score.of(in_form(world, q, turn) for q, turn in zip(questions, turns)),
            **{name: Score.of(manner == name for manner in manners) for name in lessons.MANNERS},
            **({"hallucination (invented)": Score.of(lied)} if lied else {})}


def verbatim(engine, trained_on, begin_from, texts=50, length=60, run=20, given=16):
    """How many continuations of prose have `run` tokens in a row that stand in the text that was trained on."""
    known = np.unique(hashes(trained_on, run))
    places = np.random.default_rng(0).integers(len(begin_from) - given, size=texts)
    jobs = [engine.submit(Request(begin_from[i:i + given], length, Rules(0.8), seed=n)) for n, i in enumerate(places)]
    engine.run()
    return Score.of(np.isin(hashes(job.ids[given:], run), known).any() for job in jobs)


def hashes(ids, run):
    """A number for each `run` tokens in a row: (K - run + 1,) uint64, by which they can be told apart."""
    ids = np.asarray(ids).astype(np.uint64)
    total = np.zeros(max(0, len(ids) - run + 1), np.uint64)
    for i in range(run):
        total = total * np.uint64(6364136223846793005) + ids[i:i + len(total)] + np.uint64(1)      # modulo 2^64
    return total


# ---- questions of a user's own ----

def read_questions(path):
    """Questions with answers from JSON lines, {"question": ..., "answer": ...} each; "messages" may stand for "question".

    A reply is right where the answer stands in it, whatever the case of its letters. Raises UserError, with file and
    line, for whatever is not of that form.
    """
    questions = []
    for where, record in read_lines(path):
        messages, answer = record.get("messages", [user(record.get("question"))]), record.get("answer")
        try:
            for message in messages:
                check_message(message, where)
            asked = messages[-1]["role"] == "user"
        except (UserError, TypeError, IndexError):          # TypeError: no list
            asked = False
        if not asked or not isinstance(answer, str) or not answer.strip():
            raise UserError(f"{where}: a line has to have a 'question' (or 'messages' that end with the user's) and an "
                            "'answer', both texts")
        questions.append(Question(tuple(messages), "text", answer.strip()))
    return questions


# ---- the card ----

def table(cards):
    """Report cards, {stage: {ability: Score}}, side by side as a text."""
    names = list(dict.fromkeys(name for card in cards.values() for name in card))
    rows = [["", *cards], *([name, *(str(card.get(name, "")) for card in cards.values())] for name in names)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def as_json(cards):
    """The same as plain JSON: shares with numbers and intervals; which replies were right, as a text of 0 and 1."""
    def plain(score):
        return {"share": score.share, "right": score.right, "number": score.number, "interval": list(score.interval),
                "which": "".join("01"[right] for right in score.which)}

    return {stage: {name: plain(score) for name, score in card.items()} for stage, card in cards.items()}


def from_json(text):
    """The report cards that as_json wrote."""
    return {stage: {name: Score.of(right == "1" for right in score["which"]) for name, score in card.items()}
            for stage, card in json.loads(text).items()}


def plot(cards, path):
    """The same as a picture. Returns None, or a sentence that says why there is none."""
    names = list(dict.fromkeys(name for card in cards.values() for name in card))
    return save_picture(path, (9, 0.42 * len(names) + 1.2), lambda figure: draw(figure, cards, names))


def draw(figure, cards, names):
    axes = figure.add_subplot()
    for i, (stage, card) in enumerate(cards.items()):
        there = [(n, card[name]) for n, name in enumerate(names) if name in card]
        y = [n + (i - (len(cards) - 1) / 2) * 0.7 / len(cards) for n, _ in there]
        shares = np.array([score.share for _, score in there])
        ends = np.array([score.interval for _, score in there]).T
        spread = np.abs(ends - shares)
        axes.errorbar(100 * shares, y, xerr=100 * spread, fmt="o", ms=4, lw=1, label=stage)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(-2, 102), xlabel="% of the questions, with intervals of 95%")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(cards))

