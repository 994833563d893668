"""WordPiece: the longest known pieces of cleaned words, and bad vocabularies are one sentence."""
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import message

from minigpt import tokenizers
from minigpt.tokenizers import WordpieceTokenizer
from minigpt.tokenizers.wordpiece import words_of

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc,.天", "##a", "##b", "##c", "ab", "##ab", "##bc", "abc",
          "naive", "##"]
TOKENIZER = WordpieceTokenizer(PIECES)


def pieces(text, *allowed):
    """What stands between [CLS] and [SEP]."""
    first, *ids, last = TOKENIZER.encode(text, allowed).tolist()
    assert (PIECES[first], PIECES[last]) == ("[CLS]", "[SEP]")
    return [PIECES[i] for i in ids]


@pytest.mark.parametrize("text, words", [
    ("Hello,  WORLD!\n", ["hello", ",", "world", "!"]),
    ("naïve Ångström É", ["naive", "angstrom", "e"]),
    ("天地x玄", ["天", "地", "x", "玄"]),
    ("a\u200bb\x00c\ufffdd\u00ade", ["abcde"]),                     # control characters vanish
    ("a\u00a0b\u3000c\td\re", list("abcde")),
    ("$5.00 (50%) a-b_c", ["$", "5", ".", "00", "(", "50", "%", ")", "a", "-", "b", "_", "c"]),
    ("ΣΑΣ ǅ İ", ["σασ", "ǆ", "i"]),                                 # each character by itself: no final sigma
    ("한", ["\u1112\u1161\u11ab"]), ("가", ["\u1100\u1161"]),        # taken apart, final or not
    ("\u037e\u1fef豈", [";", "`", "豈"]),                             # punctuation and ideographs only when taken apart
])
def test_words_are_cleaned(text, words):
    assert [word for word in words_of(text) if word] == words


@pytest.mark.parametrize("text, expected", [
    ("abc", ["abc"]), ("abcab", ["abc", "##ab"]), ("ababc", ["ab", "##ab", "##c"]), ("ABA", ["ab", "##a"]),
    ("ab天c, .", ["ab", "天", "c", ",", "."]), ("Naïve", ["naive"]), ("abx a", ["[UNK]", "a"]), ("", []), (" \n", []),
    ("a" * 100, ["a"] + ["##a"] * 99), ("a" * 101 + " b", ["[UNK]", "b"]), ("[MASK]", ["[UNK]"] * 3),
])
def test_the_longest_pieces_are_taken(text, expected):
    assert pieces(text) == expected


def test_special_tokens_count_only_where_they_are_allowed():
    assert pieces("a [MASK]b[SEP]", "[MASK]", "[SEP]") == ["a", "[MASK]", "b", "[SEP]"]
    assert TOKENIZER.encode("[PAD]", "all").tolist() == [2, 0, 3]
    assert "'[X]' is no special token" in message(TOKENIZER.encode, "a", ["[X]"])


def test_half_a_surrogate_pair_is_one_sentence():
    assert "U+D83D, at character 1" in message(TOKENIZER.encode, "a\ud83d")


@given(st.text("abc, 天", max_size=30))
def test_decoding_gives_the_words_back_at_once_and_in_parts(text):
    ids = TOKENIZER.encode(text)
    assert ids.dtype == np.int64
    decoded = TOKENIZER.decode(ids)
    assert decoded == " ".join(word for word in words_of(text) if word)
    stream = TOKENIZER.stream()
    assert "".join(stream.add([i]) for i in ids.tolist()) + stream.end() == decoded


def test_special_tokens_are_not_shown_but_the_unknown_is():
    ids = [PIECES.index(piece) for piece in ("[CLS]", "ab", "##bc", "[UNK]", "[MASK]", "##", ",", "[SEP]", "[PAD]")]
    assert TOKENIZER.decode(ids) == "abbc [UNK] ## ,"
    assert "outside" in message(TOKENIZER.decode, [len(PIECES)])


def test_it_is_loaded_from_vocab_txt_and_from_a_dict(tmp_path):
    for ending in "", "\n":
        (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + ending, encoding="utf-8")
        for path in tmp_path, tmp_path / "vocab.txt":
            assert WordpieceTokenizer.load(path).pieces == PIECES
    stored = tokenizers.from_dict(json.loads(json.dumps(TOKENIZER.to_dict())))
    assert stored.pieces == PIECES and stored.vocabulary_size == len(PIECES)


@pytest.mark.parametrize("content, part", [
    (b"", "no [UNK]"), (b"\xff", "not even text"), (b"{}", "no [UNK]"), (b"[UNK]\n[CLS]\na", "no [SEP]"),
    (b"[UNK]\n[CLS]\n[SEP]\na\na", "twice"), (b"[UNK]\n\n[CLS]\n[SEP]", "none of them empty")])
def test_a_file_that_is_no_vocabulary_is_one_sentence(tmp_path, content, part):
    (tmp_path / "vocab.txt").write_bytes(content)
    assert part in message(WordpieceTokenizer.load, tmp_path)


def test_other_mistakes_are_one_sentence(tmp_path):
    assert "can't be read" in message(WordpieceTokenizer.load, tmp_path)
    for pieces in None, "abc", ["[UNK]", 3], {}:
        assert "list of pieces" in message(tokenizers.from_dict, {"type": "wordpiece", "pieces": pieces})
    assert "'type' and 'pieces'" in message(tokenizers.from_dict, {"type": "wordpiece"})
