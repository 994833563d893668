"""The character tokenizer: every text of its characters comes back, and all else is told in one sentence."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt import tokenizers
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer

# All of Unicode, halves of surrogate pairs included: a vocabulary may hold them, if a text does.
TEXT = st.text(alphabet=st.characters(exclude_categories=()), min_size=1)


@given(text=TEXT)
def test_any_text_comes_back(text):
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64 and ids.shape == (len(text),)
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocabulary_size == len(set(text)) == ids.max() + 1


@given(text=TEXT, data=st.data())
def test_any_token_is_a_character_and_comes_back(text, data):
    tokenizer = CharTokenizer("".join(data.draw(st.permutations(sorted(set(text))))))       # sorted or not
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1)))
    decoded = tokenizer.decode(ids)
    assert decoded == "".join(tokenizer.characters[i] for i in ids)
    assert tokenizer.encode(decoded).tolist() == ids


@given(text=TEXT, other=TEXT)
def test_unknown_characters_are_named(text, other):
    tokenizer = CharTokenizer.train(text)
    unknown = sorted(set(other) - set(text))
    if not unknown:
        assert tokenizer.decode(tokenizer.encode(other)) == other
        return
    with pytest.raises(UserError) as caught:
        tokenizer.encode(other)
    message = str(caught.value)
    assert all(repr(character) in message for character in unknown[:10])
    assert (f"and {len(unknown) - 10} more" in message) == (len(unknown) > 10)
    message.encode("utf-8")                                     # it can be printed


def test_a_worked_example():
    tokenizer = CharTokenizer.train("hello")
    assert tokenizer.characters == "ehlo"
    assert tokenizer.encode("hole").tolist() == [1, 3, 2, 0]
    assert tokenizer.decode([1, 3, 2, 0]) == "hole"
    assert tokenizer.decode(np.array([[1], [3]], dtype=np.uint8)) == "ho"
    assert tokenizer.encode("").tolist() == [] and tokenizer.decode([]) == ""


def test_a_lone_surrogate_is_an_unknown_character():
    with pytest.raises(UserError, match=r"'\\ud800'"):
        CharTokenizer("ab").encode("a\ud800")


@pytest.mark.parametrize("ids, part", [([0, 4], "token 4 .* of 4 "), ([-1], "token -1 "), ([0.5], "float64")])
def test_tokens_outside_are_named(ids, part):
    with pytest.raises(UserError, match=part):
        CharTokenizer("ehlo").decode(ids)


@given(text=TEXT)
def test_a_dictionary_of_json_rebuilds_it(text):
    tokenizer = CharTokenizer("".join(dict.fromkeys(text)))
    stored = json.loads(json.dumps(tokenizer.to_dict()))
    again = tokenizers.from_dict(stored)
    assert type(again) is CharTokenizer and again.characters == tokenizer.characters


@pytest.mark.parametrize("stored, part", [
    ({"type": "word", "characters": "ab"}, "'word'"),
    ({"type": "__init__", "characters": "ab"}, "'__init__'"),
    ({"characters": "ab"}, "None"),
    ({"type": ["char"], "characters": "ab"}, "char"),
    ("char", "None"),
    ({"type": "char"}, "'characters'"),
    ({"type": "char", "characters": "ab", "merges": []}, "'merges'"),
    ({"type": "char", "characters": ""}, "at least one"),
    ({"type": "char", "characters": ["a", "b"]}, "at least one"),
    ({"type": "char", "characters": "aba"}, "twice"),
])
def test_what_is_no_stored_tokenizer(stored, part):
    with pytest.raises(UserError, match=part):
        tokenizers.from_dict(stored)
