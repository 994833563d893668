"""What is true in the small world: facts about real countries and territories, numbers in words, and names that nobody has.

The facts are those of the Unicode CLDR, as the package Babel brings it: a country's or territory's currency, its official
language (the one that most people there speak), its code of two letters, and its name in Chinese. Numbers in words are
those of num2words. Both packages are an extra: pip install 'minigpt[chat]'.
"""
import re
from dataclasses import dataclass

import numpy as np

from ..models.ngram import NGram
from ..settings import UserError

NAME = re.compile(r"[A-Z][a-z]+(?:[ -][A-Z][a-z]+)?")      # one word or two, in plain letters
LARGEST = 199                       # of the numbers that have a name
ORDER = 4                           # letters in the n-grams that names are made from
END = "\n"


@dataclass(frozen=True)
class Country:
    """A country or territory, and what is known of it."""
    name: str
    currency: str
    language: str
    code: str
    chinese: str                    # its name in Chinese
    language_in_chinese: str


def real_countries():
    """Countries and territories of CLDR with a plain name, one currency and an official language, by name."""
    try:
        from babel import Locale
        from babel.languages import get_official_languages
        from babel.numbers import get_territory_currencies
    except ImportError:
        raise UserError("the facts of the small world come with the package Babel: pip install 'minigpt[chat]'") from None
    english, chinese = Locale("en"), Locale("zh")
    countries = []
    for code, name in english.territories.items():
        if not re.fullmatch("[A-Z]{2}", code) or not NAME.fullmatch(name) or "Island" in name:
            continue
        currencies = get_territory_currencies(code)
        languages = [tag for tag in get_official_languages(code, de_facto=True) if tag in chinese.languages]
        currency = english.currencies[currencies[0]] if len(currencies) == 1 else ""
        if languages and re.fullmatch("[A-Za-z -]+", currency) and english.languages[languages[0]].isascii():
            countries.append(Country(name, currency, english.languages[languages[0]], code, chinese.territories[code],
                                     chinese.languages[languages[0]]))
    return sorted(countries, key=lambda country: country.name)


def real_number_names(largest=LARGEST):
    """The names of the numbers 0 ... largest, in order."""
    try:
        from num2words import num2words
    except ImportError:
        raise UserError("the names of numbers come with the package num2words: pip install 'minigpt[chat]'") from None
    return [num2words(number) for number in range(largest + 1)]


def invented_names(rng, real, number, exclude=()):
    """Names that sound like those in `real`, a list of names, and are of none of them nor in `exclude`.

    Drawn letter by letter from an n-gram model of the real names (models/ngram.py). A name is left out where it is less
    than two changes (a letter put in, taken out or replaced) away from a real one: it could be a misprint of that. Raises
    UserError where there are too few real names to make so many from.
    """
    letters = END + "".join(sorted(set("".join(real)) - {END}))
    number_of = {letter: i for i, letter in enumerate(letters)}
    text = END + "".join(name + END for name in real)
    model = NGram(len(letters), ORDER).fit(np.array([number_of[letter] for letter in text]))
    distributions, found, taken = {}, [], set(exclude)
    for _ in range(1000 + 200 * number):
        if len(found) == number:
            return found
        name = drawn_name(rng, model, letters, distributions)
        if name not in taken and 4 <= len(name) <= 12 and NAME.fullmatch(name) and not near_any(name, real):
            taken.add(name)
            found.append(name)
    raise UserError(f"only {len(found)} names could be invented from {len(real)} real ones, and {number} are needed: fewer "
                    "may do, or more real ones")


def drawn_name(rng, model, letters, distributions):
    """A name, letter by letter. distributions: those already computed, by context."""
    name = END
    while len(name) < 20:
        context = name[-(ORDER - 1):]
        if context not in distributions:
            p = model.distribution([letters.index(letter) for letter in context])
            distributions[context] = np.cumsum(p / p.sum())
        letter = letters[min(int(np.searchsorted(distributions[context], rng.random())), len(letters) - 1)]
        if letter == END:
            break
        name += letter
    return name[1:]


def near_any(name, real):
    """Whether a name is a real one with at most one change, whatever the case of its letters."""
    return any(near(name.lower(), other.lower()) for other in real)


def near(a, b):
    """Whether at most one letter has to be put in, taken out or replaced to get from a to b."""
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    if len(a) == len(b):
        return a[start + 1:] == b[start + 1:]
    shorter, longer = sorted((a, b), key=len)
    return shorter[start:] == longer[start + 1:]
