"""Real texts of several kinds for the tests of tokenizers, cut into strings, and strings that nobody would write."""
import random
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics

CHINESE = Path(__file__).with_name("chinese.txt").read_text(encoding="utf-8")     # classics, and some everyday lines
ENGLISH = "\n".join(topics[name] for name in sorted(topics))                        # the manual of Python
EMOJI = "😀😂🥹❤️☺️1️⃣#️⃣©™👍👍🏻👋🏽🧑🏿‍🚀👨‍👩‍👧‍👦🤷‍♀️👩‍❤️‍👨🏳️‍🌈🏴‍☠️🇨🇳🇩🇪🇫🇷 ok, let's go! "
AWKWARD = [
    "", " ", "  ", "\n", " \n ", "\r\n\r\n", "\t\tx", "a  b", "a   b", "a \u00a0b", "a\u3000\u3000b", "a\x85b", "a\x1cb",
    "it's", "IT'S", "'s", "''s", "'sand", " 's", "'", "'l", "'ll", "'LL", "we'll've", "don’t", "x'", "1st", "½x", "٣x", "x_y",
    "a\u0301e", "ﬁ", "İi", "ǅ", "ß", "Σας", "한국어", "ไทย", "हिन्दी", "עברית", "\u202eabc", "\ufeffabc", "\ufffd", "\x00",
    "\U0010ffff", "\U000e0001", "\U00010d50", "\U0001e030", "\u088f", "a" * 97, " " * 97, "ab" * 300, "=" * 64, "天" * 40,
]


def code():
    """Some sources of Python's standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    names = "ast.py", "inspect.py", "textwrap.py", "json/decoder.py"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def strings(number, seed=0):
    """About `number` strings: English, Chinese, code, emoji, all of Unicode, mixtures; and the awkward ones."""
    rng = random.Random(seed)
    texts = [ENGLISH, CHINESE, code()]

    def piece(longest):
        text = rng.choice(texts)
        begin = rng.randrange(len(text))
        return text[begin:begin + rng.randrange(1, longest)]

    def emoji(longest):
        return "".join(rng.choices(EMOJI, k=rng.randrange(1, longest)))

    def anything(longest):
        tops = (0x80, 0x800, 0x3000, 0x10000, 0x20000, 0x110000)
        points = (rng.randrange(rng.choice(tops)) for _ in range(rng.randrange(1, longest)))
        return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)

    kinds = [lambda: piece(200), lambda: piece(200), lambda: piece(30), lambda: emoji(20), lambda: anything(40),
             lambda: piece(10) + emoji(3) + anything(4) + piece(10)]
    return AWKWARD + [kinds[i % len(kinds)]() for i in range(number)]
