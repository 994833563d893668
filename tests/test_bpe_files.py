"""Files of byte-level BPE: what was saved comes back, and bad files are one sentence."""
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import AWKWARD
from told import message
from trained_bpe import LIKE_GPT2, TRAINED

from minigpt import checkpoint, tokenizers
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.settings import UserError
from minigpt.tokenizers import BpeTokenizer, _bpe_files


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
