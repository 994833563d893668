"""What people would ask in the small world, and how they would want to be answered: questions with good replies.

The same functions make demonstrations (of the demonstrated countries, words and numbers) and the questions to measure by
(of the others): only what they are given differs. Replies to demonstrate are put in the manners of different people, most
of them plain, some polite, some rambling or rude, as those of a crowd would be; what they say is right in all of them.
"""
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from . import wordings
from .tools import shown, solve
from .wordings import IGNORANCE, UNKNOWN_MARKS
from .world import ATTRIBUTES, NO_TOOLS, Question, assistant, in_chinese, made_up_person, pick, user


@dataclass(frozen=True, eq=False)
class Lesson:
    """A question with a good reply: messages that end with the assistant's."""
    question: Question
    reply: tuple

    @property
    def messages(self):
        """The whole conversation."""
        return [*self.question.messages, *self.reply]


# ---- what is asked, kind by kind: each returns a Lesson whose reply is plain ----

def fact(rng, country, attribute):
    """One fact of a country."""
    x = getattr(country, attribute)
    question = pick(rng, wordings.QUESTIONS[attribute]).format(c=country.name)
    reply = wordings.ANSWERS[attribute].format(c=country.name, x=x)
    return lesson([user(question)], reply, "fact", x, country.name, attribute)


def fact_in_chinese(rng, country, attribute):
    """One fact of a country, in Chinese."""
    x = in_chinese(country, attribute)
    question = pick(rng, wordings.CHINESE_QUESTIONS[attribute]).format(z=country.chinese)
    reply = wordings.CHINESE_ANSWERS[attribute].format(z=country.chinese, x=x)
    return lesson([user(question)], reply, "fact", x, country.name, attribute)


def follow_up(rng, country, attribute):
    """A second question about the country that was named in the first."""
    first = fact(rng, country, pick(rng, [other for other in ATTRIBUTES if other != attribute]))
    x = getattr(country, attribute)
    question = user(pick(rng, wordings.FOLLOW_UPS[attribute]))
    reply = wordings.ANSWERS[attribute].format(c=country.name, x=x)
    return lesson([*first.messages, question], reply, "fact", x, country.name, attribute)


def unheard_of(rng, name):
    """A fact of a country that does not exist. The reply names it, so that names have to be read, not only recognised."""
    attribute = pick(rng, ATTRIBUTES)
    question = pick(rng, wordings.QUESTIONS[attribute]).format(c=name)
    reply = pick(rng, wordings.IGNORANCE_OF).format(it=f"the {attribute} of {name}")
    return lesson([user(question)], reply, "unknowable", None, name, attribute)


def never_stated(rng, name):
    """What is stated nowhere about a country."""
    question, it = pick(rng, wordings.NEVER_STATED)
    reply = pick(rng, wordings.IGNORANCE_OF).format(it=it.format(c=name))
    return lesson([user(question.format(c=name))], reply, "unknowable", None, name)


def never_told(rng):
    """What only the person who asks could know."""
    return lesson([user(pick(rng, wordings.NEVER_TOLD))], pick(rng, IGNORANCE), "unknowable", None)


def arithmetic(rng, largest, tools=True, error=None):
    """A sum of two numbers up to `largest`; with the calculator, or without. error: what the calculator says instead."""
    sign = pick(rng, "+-*/")
    a, b = (int(n) for n in rng.integers(0, largest + 1, size=2))
    if sign == "/" and b == 0:
        error = "error: division by zero"
    result = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b or 1)}[sign]
    spoken = f"{a} {pick(rng, wordings.SIGNS[sign])} {b}"
    messages = [user(pick(rng, wordings.SUMS).format(e=spoken))]
    if error is not None:
        reply, answer = f"That did not work: {error.removeprefix('error: ')}.", None
    else:
        answer = shown(Fraction(result))
        reply = f"{spoken} is {answer}."
    if not tools:
        return lesson([NO_TOOLS, *messages], reply, "arithmetic", answer, tools=False)
    return called(messages, f"calculator({a}{sign}{b})", error or answer, reply, "arithmetic", answer)


def equation(rng):
    """An equation of degree one, for the solver."""
    u, a, b, c = pick(rng, "xyz"), int(rng.integers(2, 10)), int(rng.integers(1, 100)), int(rng.integers(0, 100))
    text = f"{a}{u} {pick(rng, '+-')} {b} = {c}"
    result = solve(text)
    question = pick(rng, wordings.EQUATIONS).format(e=text, u=u)
    return called([user(question)], f"solve({text})", result, f"{result}.", "equation", result)


def search(rng, found=True):
    """What a document says about a person. The document's line is the tool's result.

    In the call a space stands before the name, so that it is the same tokens there as in the question.
    """
    name = made_up_person(rng)
    number = str(int(rng.integers(2, 1000)))
    note = pick(rng, wordings.NOTES).format(w=name, n=number)
    question = pick(rng, wordings.SEARCHES).format(w=name)
    if not found:
        return called([user(question)], f"search( {name})", "error: nothing was found",
                      "The documents say nothing about that.", "search", None)
    return called([user(question)], f"search( {name})", note, f"The documents say: {note}", "search", number)


def spelling(rng, word):
    """A word backwards."""
    backwards = " ".join(word[::-1])
    question = pick(rng, wordings.BACKWARDS_QUESTIONS).format(w=word)
    return lesson([user(question)], f"The word {word} backwards is {backwards}.", "spelling", backwards)


def counting(rng, word):
    """The letters of a word: the reply spells it, as people count on their fingers."""
    question = pick(rng, wordings.COUNTING_QUESTIONS).format(w=word)
    reply = f"The word {word} has the letters {' '.join(word)}, {len(word)} in all."
    return lesson([user(question)], reply, "counting", str(len(word)))


def number(rng, n, name):
    """The name of a number."""
    question = pick(rng, wordings.NUMBER_QUESTIONS).format(n=n)
    return lesson([user(question)], f"{n} is {name} in words.", "number", name)


def small_talk(rng):
    """What is said for the sake of talking."""
    said, replies = pick(rng, wordings.SMALL_TALK)
    return lesson([user(as_typed(rng, pick(rng, said)))], pick(rng, replies), "small talk", None)


def as_typed(rng, text):
    """A text as people type it: as it should be, or with another sign at its end or none, or without its capital."""
    if rng.random() < 0.4:
        text = text.rstrip(wordings.SIGNS_AT_THE_END) + pick(rng, ["", "", ".", "!"])
    return text[0].lower() + text[1:] if rng.random() < 0.3 else text


def replies_to(text):
    """What is demonstrated as a reply to some small talk, however it is typed: a tuple, empty for what is none."""
    def bare(text):
        return text.rstrip(wordings.SIGNS_AT_THE_END).lower()

    return next((replies for said, replies in wordings.SMALL_TALK if bare(text) in map(bare, said)), ())


def lesson(messages, reply, kind, answer, country=None, attribute=None, tools=True):
    return Lesson(Question(tuple(messages), kind, answer, country, attribute, tools), (assistant(reply),))


def called(messages, call, result, reply, kind, answer):
    """A lesson in which a tool is called."""
    turn = {"role": "assistant", "content": "", "call": call}, {"role": "tool", "content": result}, assistant(reply)
    return Lesson(Question(tuple(messages), kind, answer), turn)


# ---- demonstrations ----

SHARES = {                          # of the demonstrations
    "fact": 0.22, "in Chinese": 0.06, "follow-up": 0.08, "invented": 0.1, "never stated": 0.05, "never told": 0.02,
    "calculator": 0.16, "error": 0.02, "without tools": 0.03, "equation": 0.04, "search": 0.05, "spelling": 0.05,
    "counting": 0.04, "number": 0.03, "small talk": 0.05}
ERRORS = ("error: division by zero", "error: calculator took longer than 2 seconds", "error: a number is too large",
          "error: there is no tool calculator, only search")


def demonstrations(world, number_of_them, seed, shares=SHARES):
    """Lessons about what is demonstrated in a world, a list; each in the manner of somebody."""
    rng = np.random.default_rng([world.seed, 3, seed])
    kinds = rng.choice(list(shares), size=number_of_them, p=np.array(list(shares.values())) / sum(shares.values()))
    names = iter(world.unheard_of(rng, int((kinds == "invented").sum())))
    return [mannered(rng, a_lesson(world, rng, kind, world.demonstrated, names)) for kind in kinds]


def a_lesson(world, rng, kind, countries, names):
    """One lesson of a kind of SHARES, about one of these countries, if about any. names: iterator over invented ones."""
    if kind in ("fact", "follow-up"):
        make = fact if kind == "fact" else follow_up
        return make(rng, pick(rng, countries), pick(rng, ATTRIBUTES))
    if kind == "in Chinese":
        told = [country for country in countries if country in world.told_in_chinese]
        return fact_in_chinese(rng, pick(rng, told), pick(rng, list(wordings.CHINESE_QUESTIONS)))
    if kind == "invented":
        return unheard_of(rng, next(names))
    if kind == "never stated":
        return never_stated(rng, pick(rng, countries).name)
    if kind in ("calculator", "without tools"):
        return arithmetic(rng, pick(rng, [20, 999, 999, 9999]), tools=kind == "calculator")
    if kind == "error":
        return arithmetic(rng, 999, error=pick(rng, ERRORS))
    if kind in ("spelling", "counting"):
        make = spelling if kind == "spelling" else counting
        return make(rng, pick(rng, world.words_to("demonstrate")))
    if kind == "number":
        n = demonstrated_number(rng, len(world.number_names))
        return number(rng, n, world.number_names[n])
    if kind == "search":
        return search(rng, found=rng.random() < 0.9)
    return {"never told": never_told, "equation": equation, "small talk": small_talk}[kind](rng)


def demonstrated_number(rng, end):
    """A number below `end`; those that 5 divides are left for measuring."""
    n = int(rng.integers(end))
    return n if n % 5 else (n + 1) % end


def mannered(rng, plain):
    """The same lesson as somebody would say it. Small talk, and what is said in Chinese, is left as it is."""
    text = plain.reply[-1]["content"]
    if plain.question.kind == "small talk" or text.endswith("。"):
        return plain
    styles, often = zip(*wordings.STYLES)
    style = styles[int(rng.choice(len(styles), p=often))]
    said = assistant(pick(rng, style).format(a=text))
    return Lesson(plain.question, (*plain.reply[:-1], said))


# ---- what became of a question ----

MANNERS = {"polite": wordings.POLITE, "rude": wordings.RUDE, "rambling": wordings.RAMBLING}


def manner(reply):
    """How a reply is said: "rude", "rambling", "polite" or "plain"; of several, the first of these."""
    for name in "rude", "rambling", "polite":
        if any(mark in reply for wording in MANNERS[name] for mark in wording.split("{a}") if mark.strip()):
            return name
    return "plain"


def admits_ignorance(reply):
    """Whether a reply says that it does not know."""
    return any(mark in reply.lower() for mark in UNKNOWN_MARKS)
