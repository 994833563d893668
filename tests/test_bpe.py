"""Byte-level BPE: every text and all bytes come back, both versions find the same tokens, and bad files are one sentence."""
import inspect
import itertools
import json
import random
import re
import unicodedata
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import AWKWARD, CHINESE, ENGLISH, code, strings

from minigpt import checkpoint, kernels, tokenizers, use
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.settings import UserError
from minigpt.tokenizers import BpeTokenizer, _bpe_files, bpe
from minigpt.tokenizers._unicode import LETTER, NUMBER, OTHER, SPACE, classes

TRAINED = BpeTokenizer.train(ENGLISH[:60_000] + CHINESE + code()[:20_000], 700, ["<|end|>", "<|end|>more", "🙂"])
LIKE_GPT2 = BpeTokenizer(TRAINED.vocabulary, TRAINED.merges, {"<|endoftext|>": 697, "<pad>": 698})
NONSENSE = st.text("ab' s1\n\u00a0天😀", max_size=80)           # where words end in every way
compiled = pytest.mark.skipif(not kernels.cpu.available(), reason="no compiled kernels")


def data_of(text):
    return np.frombuffer(text if isinstance(text, bytes) else text.encode("utf-8"), np.uint8)


def split(text):
    """The words of a text."""
    data = data_of(text)
    return list(bpe.words_of(data, bpe.split_words(data, classes())))


def message(function, *arguments, **more):
    """What the user is told: one line."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **more)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


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


# ---- files ----

def test_bytes_have_the_numbers_of_gpt2():
    assert "".join(_bpe_files.ALPHABET[byte] for byte in _bpe_files.ORDER[:5]) == "!\"#$%"
    assert (_bpe_files.ALPHABET[ord(" ")], _bpe_files.ALPHABET[ord("\n")]) == ("Ġ", "Ċ")
    assert sorted(_bpe_files.ORDER) == list(range(256)) and len(_bpe_files.BYTES) == 256
    assert TRAINED.encode_bytes(b"!").tolist() == [0] and TRAINED.encode_bytes(b"\x00").tolist() == [188]


def same(a, b):
    assert (a.vocabulary, a.merges, a.special) == (b.vocabulary, b.merges, b.special)
    for text in AWKWARD:
        assert a.encode(text, "all").tolist() == b.encode(text, "all").tolist()


def gpt2_files(folder, names=("encoder.json", "vocab.bpe"), first="#version: 0.2\n"):
    """Write a tokenizer as GPT-2's is written."""
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_text(json.dumps(LIKE_GPT2.vocabulary | LIKE_GPT2.special), encoding="utf-8")
    (folder / names[1]).write_text(first + "".join(f"{a} {b}\n" for a, b in LIKE_GPT2.merges), encoding="utf-8")
    return folder


def test_a_saved_tokenizer_is_loaded(tmp_path):
    TRAINED.save(tmp_path / "tokenizer.json")
    same(BpeTokenizer.load(tmp_path / "tokenizer.json"), TRAINED)
    same(BpeTokenizer.load(str(tmp_path)), TRAINED)
    assert "can't be written" in message(TRAINED.save, tmp_path / "none" / "tokenizer.json")


@pytest.mark.parametrize("names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")])
def test_files_like_gpt2s_are_loaded(tmp_path, names):
    for first in "#version: 0.2\n", "":
        same(BpeTokenizer.load(gpt2_files(tmp_path, names, first)), LIKE_GPT2)
        same(BpeTokenizer.load(tmp_path / names[0]), LIKE_GPT2)


def test_merges_may_be_written_as_texts(tmp_path):
    content = TRAINED.to_dict()["tokenizer"]
    content["model"]["merges"] = [" ".join(pair) for pair in TRAINED.merges]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    same(BpeTokenizer.load(tmp_path), TRAINED)


def test_a_checkpoint_carries_its_tokenizer(tmp_path):
    checkpoint.save(tmp_path / "run", GPT(GPTConfig(TRAINED.vocabulary_size, 4, 1, 1, 4)), TRAINED)
    same(checkpoint.load(tmp_path / "run").tokenizer, TRAINED)
    same(tokenizers.from_dict(json.loads(json.dumps(TRAINED.to_dict()))), TRAINED)


def in_model(**changes):
    return lambda content: content["model"].update(changes)


def in_vocabulary(token, number):
    return lambda content: content["model"]["vocab"].update({token: number})


BAD = {
    "another kind": (in_model(type="WordPiece"), "its model's 'type' is 'WordPiece'"),
    "dropout": (in_model(dropout=0.1), "'dropout' is 0.1"),
    "words as they are": (in_model(ignore_merges=True), "'ignore_merges' is True"),
    "an ending": (in_model(end_of_word_suffix="</w>"), "'end_of_word_suffix' is '</w>'"),
    "no vocabulary": (lambda c: c["model"].pop("vocab"), "no 'vocab'"),
    "no merges": (lambda c: c["model"].pop("merges"), "no 'merges'"),
    "no model": (lambda c: c.pop("model"), "'model' is missing"),
    "half a merge": (lambda c: c["model"]["merges"].append(["a"]), "not two tokens"),
    "three in a merge": (lambda c: c["model"]["merges"].append("a b c"), "not two tokens"),
    "a number in a merge": (lambda c: c["model"]["merges"].append(["a", 3]), "two tokens of its vocabulary"),
    "a list in a merge": (lambda c: c["model"]["merges"].append(["a", []]), "two tokens of its vocabulary"),
    "a merge of nothing": (lambda c: c["model"]["merges"].append(["a", "天"]), "two tokens of its vocabulary"),
    "a merge twice": (lambda c: c["model"]["merges"].append(c["model"]["merges"][0]), "twice"),
    "a byte missing": (lambda c: c["model"]["vocab"].update({"zzzz": c["model"]["vocab"].pop("~")}), "none for 126"),
    "a gap": (in_vocabulary("zzzz", 7000), "have to be 0 to 700"),
    "a number twice": (in_vocabulary("zzzz", 5), "have to be 0 to 700"),
    "a huge number": (in_vocabulary("zzzz", 10 ** 30), "have to be 0 to 700"),
    "half a number": (in_vocabulary("zzzz", 700.0), "have to be 0 to 700"),
    "a character beyond the alphabet": (in_vocabulary("天", 700), "which has no '天'"),
    "a normalizer": (lambda c: c.update(normalizer={"type": "NFC"}), "'normalizer'"),
    "another split": (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer's 'type' is 'Whitespace'"),
    "a space before": (lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "'add_prefix_space' is True"),
    "no split": (lambda c: c.pop("pre_tokenizer"), "'pre_tokenizer' is missing"),
    "a token that is not special": (lambda c: c["added_tokens"][0].update(special=False), "'special' is False"),
    "a token that takes spaces": (lambda c: c["added_tokens"][0].update(lstrip=True), "'lstrip' is True"),
    "a token without text": (lambda c: c["added_tokens"][0].pop("content"), "has no text"),
    "a token of two numbers": (in_vocabulary("<|end|>", 3), "another number"),
    "half a character as a token": (lambda c: c["added_tokens"][0].update(content="\ud83d"), "half of a surrogate pair"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_file_that_is_no_such_tokenizer_is_one_sentence(tmp_path, mistake):
    change, part = BAD[mistake]
    content = json.loads(json.dumps(TRAINED.to_dict()["tokenizer"]))
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert part in message(BpeTokenizer.load, tmp_path)
    assert part in message(tokenizers.from_dict, {"type": "bpe", "tokenizer": content})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000, b'{"model": 3}', b"hi"])
def test_a_file_that_is_something_else_is_one_sentence(tmp_path, content):
    for name in "tokenizer.json", "encoder.json", "vocab.bpe":
        folder = gpt2_files(tmp_path / name.replace(".", "_"))
        (folder / name).write_bytes(content)
        assert re.search("is no tokenizer|are none|do not belong together", message(BpeTokenizer.load, folder))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    assert "can't be read" in message(BpeTokenizer.load, tmp_path / "tokenizer.json")
    assert "tokenizer.json or encoder.json or vocab.json was expected" in message(BpeTokenizer.load, tmp_path)
    (gpt2_files(tmp_path) / "vocab.bpe").unlink()
    assert "vocab.bpe can't be read" in message(BpeTokenizer.load, tmp_path)


def test_what_a_checkpoint_holds_must_be_the_whole():
    assert "'type' and 'tokenizer'" in message(tokenizers.from_dict, {"type": "bpe"})
    assert "should be an object" in message(tokenizers.from_dict, {"type": "bpe", "tokenizer": []})


SMALL = BpeTokenizer.train("hug hug pug", 258, ["<|end|>"]).to_dict()
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=5), value, max_size=3))


@settings(max_examples=200)
@given(place=st.sampled_from([("tokenizer",), *((("tokenizer", key)) for key in SMALL["tokenizer"]),
                              *(("tokenizer", "model", key) for key in SMALL["tokenizer"]["model"]),
                              ("tokenizer", "model", "vocab", "a"), ("tokenizer", "model", "merges", 0),
                              ("tokenizer", "model", "merges", 0, 1), ("tokenizer", "added_tokens", 0),
                              *(("tokenizer", "added_tokens", 0, key) for key in ("id", "content", "special"))]), value=JSON)
def test_any_value_anywhere_is_a_tokenizer_or_one_sentence(place, value):
    content = part = json.loads(json.dumps(SMALL))
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    try:
        tokenizer = tokenizers.from_dict(content)
        assert tokenizer.decode(tokenizer.encode("hug it")) == "hug it"
    except UserError as error:
        assert len(str(error).splitlines()) == 1
