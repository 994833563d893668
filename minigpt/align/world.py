"""The small world: real facts, stated, demonstrated and asked for in such a way that what a model makes of them can be told.

    stated          the text of pre-training states every fact of every country, in at least five wordings
    demonstrated    questions and answers are shown for one half of the countries only; so of the other half, whoever answers
                    has carried over from the text what was learnt in another form
    in Chinese      one half of the countries (across the first split) is told of in Chinese, too; the others' facts are
                    stated in English only, and asked for in Chinese all the same
    invented        names of countries that do not exist. Those to measure by occur in no stage of training; those for
                    demonstrations ("I don't know") are others, made anew for each of them

Everything is drawn from seeds: the same World has the same text and the same questions.
"""
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..settings import UserError
from . import wordings
from .countries import invented_names, real_countries, real_number_names

ATTRIBUTES = "currency", "language", "code"
KINDS = ("fact", "unknowable", "arithmetic", "equation", "search", "spelling", "counting", "number", "small talk", "text")
NO_TOOLS = {"role": "system", "content": "No tools."}


@dataclass(frozen=True, eq=False)
class Question:
    """Something that a user may ask, and what there is to know of the right answer."""
    messages: tuple                 # the conversation so far, which ends with the user's question
    kind: str                       # one of KINDS; "text": of a user's own file
    answer: str | None              # what the right reply has in it; None for what can't be known, and for small talk
    country: str | None = None      # which country it is about
    attribute: str | None = None    # and which of ATTRIBUTES
    tools: bool = True              # whether a tool may be called

    @property
    def text(self):
        """The question itself."""
        return self.messages[-1]["content"]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


class World:
    """The facts, who is told what, and the text of pre-training.

        world = World(seed=1)
        world.text(shakespeare, 4_000_000)              what a model is pre-trained on, about so many characters
        world.demonstrated, world.undemonstrated        the two halves of its countries
        world.invented                                  names to measure by, of no country at all

    countries: a list of Country, number_names: those of 0, 1, ..., words: to spell; by default the real ones, and words of
    the English of the wordings. number: use so many of the countries. Raises UserError for fewer than four.
    """

    def __init__(self, seed=1, number=None, countries=None, number_names=None, words=(), invented=200):
        rng = np.random.default_rng([seed, 0])
        countries = list(countries if countries is not None else real_countries())
        names = [country.name for country in countries]
        if number is not None and number > len(countries):
            raise UserError(f"{number} countries are asked for, and there are {len(countries)}")
        chosen = [countries[i] for i in rng.permutation(len(countries))[:number]]
        if len(chosen) < 4:
            raise UserError(f"a world of {len(chosen)} countries can't be split: it needs at least 4")
        self.seed, self.countries, self.real_names = seed, chosen, names
        half = len(chosen) // 2
        self.demonstrated, self.undemonstrated = chosen[:half], chosen[half:]
        self.told_in_chinese = set(chosen[:half:2] + chosen[half::2])
        self.number_names = list(number_names if number_names is not None else real_number_names())
        words = list(words) or sorted(set(wordings.WORDS.split()))
        self.words = [words[i] for i in rng.permutation(len(words))]        # the last fifth is not demonstrated
        self.invented = invented_names(np.random.default_rng([seed, 1]), names, invented)

    @cached_property
    def values(self):
        """{attribute: all that is said of any country}, as sorted lists."""
        return {attribute: sorted({getattr(country, attribute) for country in self.countries}) for attribute in ATTRIBUTES}

    def words_to(self, purpose):
        """The words that are spelt in "demonstrate"-ions, or those to "measure" by, which are spelt in the text only."""
        end = len(self.words) - max(1, len(self.words) // 5)
        return self.words[:end] if purpose == "demonstrate" else self.words[end:]

    def unheard_of(self, rng, number):
        """Invented names for demonstrations: none of those to measure by."""
        return invented_names(rng, self.real_names, number, exclude=self.invented)

    # ---- the text of pre-training ----

    def text(self, prose, length, share=0.2):
        """The text of pre-training, about `length` characters: paragraphs about the world, and `share` of prose.

        prose: a text such as Shakespeare's, in pieces that follow one another; it begins anew where it ends.
        """
        rng = np.random.default_rng([self.seed, 2])
        names = iter(self.unheard_of(rng, length // 1000))
        makers, often = zip((self.about_country, 0.5), (self.in_chinese, 0.12), (self.arithmetic, 0.08),
                            (self.number, 0.03), (self.spelling, 0.08), (about_person, 0.13),
                            (lambda rng: on_no_map(rng, names), 0.06))
        parts, total, prose_total = [], 0, 0
        while total < length:
            if prose and prose_total <= share * total:
                place = prose_total % len(prose)
                piece = prose[place:place + PROSE]
                prose_total += len(piece)
            else:
                piece = makers[int(np.searchsorted(np.cumsum(often), rng.random() * sum(often)))](rng)
            parts.append(piece)
            total += len(piece) + 1
        return "\n".join(parts) + "\n"

    def about_country(self, rng):
        """Some facts of a country, in any order and wording."""
        country = pick(rng, self.countries)
        attributes = rng.permutation([*ATTRIBUTES, "name", "map"])[:int(rng.integers(2, 5))]
        return " ".join(statement(rng, country, attribute) for attribute in attributes)

    def in_chinese(self, rng):
        """Some facts of a country that is told of in Chinese; or the Chinese name of a language."""
        told = [country for country in self.countries if country in self.told_in_chinese]
        country = pick(rng, told)
        if rng.random() < 0.25:
            other = pick(rng, self.countries)
            return pick(rng, wordings.LANGUAGES_IN_CHINESE).format(x=other.language, z=other.language_in_chinese)
        attributes = rng.permutation(list(wordings.CHINESE_STATEMENTS))
        said = (pick(rng, wordings.CHINESE_STATEMENTS[attribute]) for attribute in attributes)
        return "".join(wording.format(z=country.chinese, x=in_chinese(country, attribute))
                       for wording, attribute in zip(said, attributes))

    def arithmetic(self, rng):
        """Some small sums."""
        return " ".join(sum_statement(rng, *small_sum(rng)) for _ in range(3))

    def number(self, rng):
        """Some numbers in words."""
        return " ".join(pick(rng, wordings.NUMBER_STATEMENTS).format(n=n, w=self.number_names[n])
                        for n in rng.integers(len(self.number_names), size=3).tolist())

    def spelling(self, rng):
        """Some words, letter by letter."""
        return " ".join(pick(rng, wordings.SPELLING_STATEMENTS).format(w=w, s=" ".join(w), b=" ".join(w[::-1]), n=len(w))
                        for w in (pick(rng, self.words) for _ in range(3)))


PROSE = 500                         # characters of prose in a piece


def pick(rng, things):
    return things[int(rng.integers(len(things)))]


def statement(rng, country, attribute):
    """A sentence that states one fact of a country."""
    if attribute == "map":
        return pick(rng, wordings.ON_THE_MAP).format(c=country.name)
    x = getattr(country, attribute) if attribute != "name" else ""
    return pick(rng, wordings.STATEMENTS[attribute]).format(c=country.name, x=x, z=country.chinese)


def in_chinese(country, attribute):
    """What is said of a country in Chinese: the code is the same."""
    return country.language_in_chinese if attribute == "language" else getattr(country, attribute)


def about_person(rng):
    """What is noted of somebody, more than once: numbers and names that can only be known from the words before."""
    w, n = made_up_person(rng), int(rng.integers(1000))
    return " ".join(pick(rng, wordings.NOTES).format(w=w, n=n) for _ in range(3))


def made_up_person(rng):
    """A name of two or three syllables."""
    syllables = [pick(rng, "bdfgklmnprstvz") + pick(rng, "aeiou") for _ in range(int(rng.integers(2, 4)))]
    return "".join(syllables).capitalize() + pick(rng, ["", "n", "s", "l"])


def on_no_map(rng, names):
    """That a country does not exist, of the next of `names`; when these are used up, nothing."""
    name = next(names, None)
    chosen = rng.permutation(len(wordings.ON_NO_MAP))[:2] if name else ()
    return " ".join(wordings.ON_NO_MAP[i].format(c=name) for i in chosen)


def small_sum(rng):
    """(a, sign, b, result) of a sum that is stated in the text: of numbers up to 20."""
    sign = pick(rng, "+-*")
    a, b = (int(n) for n in rng.integers(0, 21, size=2))
    if sign == "-" and a < b:
        a, b = b, a
    return a, sign, b, {"+": a + b, "-": a - b, "*": a * b}[sign]


def sum_statement(rng, a, sign, b, result):
    return pick(rng, wordings.ARITHMETIC_STATEMENTS).format(a=a, b=b, r=result, s=pick(rng, wordings.SIGNS[sign]))
