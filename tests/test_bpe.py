"""Byte-level BPE: every text and all bytes come back, both versions find the same tokens, and bad files are one sentence."""
import inspect
import itertools
import random
import unicodedata
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import CHINESE, ENGLISH, code, strings
from told import message
from trained_bpe import TRAINED

from minigpt import kernels, use
from minigpt.tokenizers import BpeTokenizer, _bpe_files, bpe
from minigpt.tokenizers._unicode import LETTER, NUMBER, OTHER, SPACE, classes

NONSENSE = st.text("ab' s1\n\u00a0天😀", max_size=80)           # where words end in every way
compiled = pytest.mark.skipif(not kernels.cpu.available(), reason="no compiled kernels")


def data_of(text):
    return np.frombuffer(text if isinstance(text, bytes) else text.encode("utf-8"), np.uint8)


def split(text):
    """The words of a text."""
    data = data_of(text)
    return list(bpe.words_of(data, bpe.split_words(data, classes())))


# ---- back and forth ----

@given(text=st.text() | NONSENSE)
def test_any_text_comes_back(backend, text):
    ids = TRAINED.encode(text)
    assert ids.dtype == np.int64 and ids.ndim == 1
    assert TRAINED.decode(ids) == text
    assert TRAINED.encode(text, "all").dtype == np.int64
    assert TRAINED.decode(TRAINED.encode(text, "all")) == text


@given(data=st.binary() | NONSENSE.map(lambda text: text.encode("utf-8")[1:-1]))
def test_any_bytes_come_back(backend, data):
    assert TRAINED.decode_bytes(TRAINED.encode_bytes(data)) == data


@given(ids=st.lists(st.integers(0, TRAINED.vocabulary_size - 1)), data=st.data())
def test_any_tokens_are_a_text_at_once_and_in_parts(ids, data):
    text = TRAINED.decode(ids)
    assert text.encode("utf-8").decode("utf-8") == text
    stream, shown, begin = TRAINED.stream(), "", 0
    for end in sorted(data.draw(st.lists(st.integers(0, len(ids))))):
        shown, begin = shown + stream.add(ids[begin:end]), end
        assert text.startswith(shown)
    assert shown + stream.add(ids[begin:]) + stream.end() == text


@pytest.mark.parametrize("tokenizer", [BpeTokenizer.train("", 256), TRAINED])
def test_while_it_streams_only_half_a_character_is_held_back(tokenizer):
    stream, data = tokenizer.stream(), b""
    for token in tokenizer.encode("a天😀é\n").tolist():
        data += tokenizer.decode_bytes([token])
        assert stream.add([token]) == data.decode("utf-8", "ignore")[len(shown_before(data, tokenizer, token)):]
    assert stream.end() == ""
    cut = tokenizer.encode_bytes("天".encode()[:2])
    assert (stream.add(cut), stream.end()) == ("", "\ufffd")


def shown_before(data, tokenizer, token):
    """The text that was whole before this token."""
    return data[:len(data) - len(tokenizer.decode_bytes([token]))].decode("utf-8", "ignore")


def test_the_example_of_the_docstring(backend):
    tokenizer = BpeTokenizer.train("hug hug pug", 258)
    assert tokenizer.merges == [("u", "g"), ("h", "ug")]
    assert tokenizer.encode("hug").tolist() == [257]
    assert [tokenizer.decode([i]) for i in tokenizer.encode("mug")] == ["m", "ug"]
    assert tokenizer.decode([71, 257]) == "hhug"


def test_tokens_are_integers_of_the_vocabulary():
    assert TRAINED.decode(np.array([[0, 1], [2, 3]])) == '!"#$'
    assert "token 700 is outside the vocabulary of 700" in message(TRAINED.decode, [0, 700])
    assert "token -1 is outside" in message(TRAINED.decode, [-1])
    assert "these are float64" in message(TRAINED.decode, [0.5])


@pytest.mark.parametrize("text", ["ab\ud83d", "ab\ude00c\ud83d"])
def test_half_a_surrogate_pair_is_one_sentence(text):
    half = f"U+{ord(text[2]):04X}, at character 2"
    assert half in message(TRAINED.encode, text) and half in message(TRAINED.encode, text, "all")
    assert half in message(BpeTokenizer.train, text, 300)


# ---- special tokens ----

def test_special_tokens_count_only_where_they_are_allowed():
    text = "x<|end|>more 🙂<|end|>"
    end, more, smile = (TRAINED.special[token] for token in ("<|end|>", "<|end|>more", "🙂"))
    assert (end, more, smile) == (697, 698, 699)
    assert not set(TRAINED.encode(text)) & {end, more, smile}
    assert TRAINED.encode(text, ["🙂"]).tolist().count(smile) == 1 and end not in TRAINED.encode(text, ["🙂"])
    assert TRAINED.encode(text, "all").tolist() == [*TRAINED.encode("x"), more, *TRAINED.encode(" "), smile, end]
    assert TRAINED.encode(text, {"<|end|>"}).tolist() == [*TRAINED.encode("x"), end, *TRAINED.encode("more 🙂"), end]
    assert TRAINED.decode(TRAINED.encode(text, "all")) == text
    assert "'<|x|>' is no special token" in message(TRAINED.encode, text, ["<|x|>"])


# ---- words ----

@pytest.mark.parametrize("text, words", [
    ("Hello world, it's 2024!", ["Hello", " world", ",", " it", "'s", " 2024", "!"]),
    ("a  b\n\n c   ", ["a", " ", " b", "\n\n", " c", "   "]),
    ("a\n\tb \u00a0c\u3000d", ["a", "\n", "\t", "b", " ", "\u00a0", "c", "\u3000", "d"]),
    ("'sand 's ''s we'll", ["'s", "and", " '", "s", " ''", "s", " we", "'ll"]),
    ("x_1 ½٣三Ⅷ天é\u0301", ["x", "_", "1", " ½٣", "三", "Ⅷ", "天é", "\u0301"]),
])
def test_words_end_where_they_should(backend, text, words):
    assert [word.decode("utf-8") for word in split(text)] == words


@compiled
@given(data=st.binary() | (st.text() | NONSENSE).map(lambda text: text.encode("utf-8"))
       | st.lists(st.sampled_from([b"\xf0\x9f", b"\x98\x80", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80",
                                   b"\xe0\x80\xa0", b"\xc1\x81", b"\xf0\x80\x80\xb0", b" ", b"a", b"'s", "天".encode()])).map(b"".join))
def test_both_versions_find_the_same_words(data):
    """In bytes that are no UTF-8 as well: too long, too high, cut off, halves of surrogate pairs."""
    with use("reference"):
        words = split(data)
    with use("cpu"):
        assert split(data) == words
    assert b"".join(words) == data


@compiled
def test_both_versions_take_each_character_for_the_same():
    text = "".join(f"a{chr(point)}1{chr(point)} " for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    with use("reference"):
        ends = bpe.split_words(data_of(text), classes())
    with use("cpu"):
        np.testing.assert_array_equal(bpe.split_words(data_of(text), classes()), ends)


@pytest.mark.skipif(int(unicodedata.unidata_version.split(".")[0]) > 16, reason="Python is ahead of the table")
def test_the_table_of_classes_is_unicodes():
    """Python's older Unicode knows fewer characters, and says the same of those that it knows."""
    def expected(point):
        category = unicodedata.category(chr(point))
        if chr(point).isspace() and not 0x1C <= point <= 0x1F:      # White_Space has no separators of files and the like
            return SPACE
        return {"L": LETTER, "N": NUMBER}.get(category[0], OTHER)

    known = [point for point in range(0x110000) if unicodedata.category(chr(point)) not in ("Cn", "Cs")]
    assert [point for point in known if classes()[point] != expected(point)] == []


# ---- training ----

def merges_by_definition(words, number):
    """Count all pairs anew for each merge; of the most frequent the one of the lowest numbers."""
    words, merges = [tuple(bpe_ids(word)) for word in words], []
    for new in range(256, 256 + number):
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(pair)
        words = [replaced(word, pair, new) for word in words]
    return merges


def bpe_ids(word):
    return [_bpe_files.ORDER.index(byte) for byte in word]


def replaced(word, pair, new):
    for i in range(len(word) - 1):
        if word[i:i + 2] == pair:
            return (*word[:i], new, *replaced(word[i + 2:], pair, new))
    return word


@given(text=st.text("aab ", max_size=60) | st.text("aaab天", max_size=40), number=st.integers(0, 30))
def test_training_merges_by_the_definition(backend, text, number):
    """Of few letters, so that many pairs are equally frequent, and that pairs overlap."""
    merges = merges_by_definition(split(text), number)
    data = data_of(text)
    found = bpe.learn_merges(data, bpe.split_words(data, classes()), np.argsort(_bpe_files.ORDER), number=number)
    assert found.dtype == np.int64 and found.tolist() == [list(pair) for pair in merges]


@compiled
@pytest.mark.parametrize("text", [ENGLISH[:100_000], CHINESE, code()[:50_000]], ids=["English", "Chinese", "code"])
def test_both_versions_learn_the_same_merges_from_real_texts(text):
    with use("reference"):
        merges = BpeTokenizer.train(text, 500).merges
    with use("cpu"):
        assert BpeTokenizer.train(text, 500).merges == merges


def test_a_vocabulary_is_smaller_where_there_is_nothing_to_merge(backend):
    assert BpeTokenizer.train("abab", 1000).vocabulary_size == 256 + 2
    assert BpeTokenizer.train("", 1000, ["<|end|>"]).vocabulary_size == 257


def test_a_vocabulary_that_is_too_small_is_one_sentence():
    assert "a vocabulary of 255 is too small" in message(BpeTokenizer.train, "text", 255)
    assert "256 bytes and 1 special tokens" in message(BpeTokenizer.train, "text", 256, ["<|end|>"])


# ---- encoding ----

def tokens_by_definition(word, rows, alphabet):
    """Merge the leftmost pair that was learnt first, one at a time."""
    ids, ranks = alphabet[list(word)].tolist(), {(a, b): (rank, new) for rank, (a, b, new) in enumerate(rows.tolist())}
    while known := sorted((ranks[pair][0], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks):
        i = known[0][1]
        ids[i:i + 2] = [ranks[ids[i], ids[i + 1]][1]]
    return ids


@st.composite
def tokenizer_and_text(draw):
    """Merges in any order, not only as training would have them, and long words."""
    tokens, merges = ["a", "b", "c"], []
    for _ in range(draw(st.integers(0, 12))):
        pair = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if "".join(pair) not in tokens:
            tokens.append("".join(pair))
            merges.append(pair)
    vocabulary = {token: i for i, token in enumerate([*_bpe_files.BYTES, *tokens[3:]])}
    text = draw(st.text("abc", max_size=300)) * draw(st.integers(1, 4))
    return BpeTokenizer(vocabulary, draw(st.permutations(merges))), text


@given(case=tokenizer_and_text())
def test_encoding_merges_by_the_definition(backend, case):
    tokenizer, text = case
    expected = tokens_by_definition(text.encode(), tokenizer._rows, tokenizer._alphabet)
    assert tokenizer.encode(text).tolist() == expected
    assert tokenizer.encode(f"{text} a").tolist()[:len(expected)] == expected       # and when it is remembered


@compiled
def test_both_versions_find_the_same_tokens():
    texts = strings(1000)
    with use("reference"):
        expected = [TRAINED.encode(text).tolist() for text in texts]
    with use("cpu"):
        for _ in range(2):
            assert [TRAINED.encode(text).tolist() for text in texts] == expected


@compiled
def test_remembered_words_are_told_apart():
    """Far more words than there is room for, many alike but for their end; also zeros, which fill up what is compared."""
    rng = random.Random(0)
    words = ["".join(rng.choices("ab\x00", k=rng.randrange(1, 18))) for _ in range(3000)] * 2
    signs = itertools.product("!#$%&*+,./:;?@^|~-", repeat=4)
    words += ["========" + "".join(end) for end in itertools.islice(signs, 40_000)] + words
    with use("cpu"):
        ids = [TRAINED.encode(word).tolist() for word in words]
    assert [TRAINED.decode(some) for some in ids] == words
    with use("reference"):
        assert [TRAINED.encode(word).tolist() for word in words[:3000]] == ids[:3000] == ids[-3000:]


@compiled
def test_a_long_word_takes_no_square_of_its_length():
    """A million letters in one word: by scanning for the best pair this would take hours."""
    with use("cpu"):
        assert TRAINED.decode(TRAINED.encode("in" * 500_000)) == "in" * 500_000


@compiled
@pytest.mark.parametrize("name", ["split_words", "learn_merges", "encode_words"])
def test_the_compiled_version_is_used(name):
    versions = getattr(bpe, name).versions
    assert set(versions) == {"reference", "cpu"}
    assert list(inspect.signature(versions["cpu"]).parameters) == list(inspect.signature(versions["reference"]).parameters)
