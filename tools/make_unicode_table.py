"""Write minigpt/tokenizers/unicode.txt, the table of character classes, by asking the libraries whose ids we want.

    pip install '.[tokenizer-oracle]' && python tools/make_unicode_table.py

A regular expression of one class per code point tells what tiktoken (and tokenizers: they agree on all of them) take
for a letter, a number and a space. tokenizers' BertNormalizer and BertPreTokenizer tell the rest. The versions of
Unicode in the headings are those whose data give the same answers.
"""
from pathlib import Path

import tiktoken
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

TABLE = Path(__file__).parents[1] / "minigpt" / "tokenizers" / "unicode.txt"
POINTS = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]       # surrogates are no characters
HANGUL = range(0xAC00, 0xD7A4)          # syllables are taken apart by a formula (tokenizers/_unicode.py)
HEADINGS = {
    "letter": r"\p{L} of Unicode 16.0",
    "number": r"\p{N} of Unicode 16.0",
    "space": r"\s, White_Space of Unicode 16.0",
    "punctuation": "of BERT: \\p{P} of Unicode 8.0, and the rest of ASCII's symbols",
    "removed": r"of BERT: control characters, \p{Mn} (accents) and the like, of Unicode 8.0",
    "folded": "of BERT: lower case of what is left of the canonical decomposition without accents",
}


def matched(pattern):
    """The code points that tiktoken's regular expressions match by `pattern`."""
    encoding = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks={bytes([i]): i for i in range(256)},
                                 special_tokens={})
    return [point for point in POINTS if encoding.encode_ordinary(chr(point))]


def runs(points):
    """Sorted code points as [first, last] pairs of consecutive ones."""
    found = []
    for point in points:
        if found and found[-1][1] == point - 1:
            found[-1][1] = point
        else:
            found.append([point, point])
    return found


def folded(normalised):
    """{code point: text} of those that change into other characters; ideographs lose the spaces around them."""
    texts = {point: text.strip(" ") for point, text in normalised.items() if point not in HANGUL}
    return {point: text for point, text in texts.items() if text and text != chr(point)}


def sections():
    """{heading: words}: runs like 41-5A for classes, and 41-5A:61 for a run that becomes 61, 62 ..."""
    normalise = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True).normalize_str
    normalised = {point: normalise(chr(point)) for point in POINTS}
    split = BertPreTokenizer().pre_tokenize_str
    classes = {
        "letter": matched(r"\p{L}"), "number": matched(r"\p{N}"), "space": matched(r"\s"),
        "punctuation": [point for point in POINTS if len(split(f"a{chr(point)}a")) == 3],
        "removed": [point for point, text in normalised.items() if not text],
    }
    words = {name: [in_hex(*run) for run in runs(points)] for name, points in classes.items()}
    return words | {"folded": list(folded_runs(folded(normalised)))}


def in_hex(first, last):
    return f"{first:X}" if first == last else f"{first:X}-{last:X}"


def folded_runs(texts):
    """Where consecutive code points become consecutive ones, one word for all of them."""
    single = {point: ord(text) - point for point, text in texts.items() if len(text) == 1}
    done = set()
    for point, text in texts.items():
        if point in done:
            continue
        last = point
        while point in single and single.get(last + 1) == single[point]:
            last += 1
        done.update(range(point, last + 1))
        yield f"{in_hex(point, last)}:" + ",".join(f"{ord(c):X}" for c in text)


def table():
    """The text of the file."""
    lines = ["# Character classes; made by tools/make_unicode_table.py, read by minigpt/tokenizers/_unicode.py."]
    for name, words in sections().items():
        lines.append(f"[{name}] {HEADINGS[name]}")
        lines.append("")
        for word in words:
            if len(lines[-1]) + len(word) > 109:
                lines.append("")
            lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(f"{TABLE}: {TABLE.stat().st_size:,} bytes")
