"""Conversations as tokens: what is trained on, that nothing is lost on the way, and the sentence for each kind of bad file."""
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import small_template

from minigpt.align.chat import SPECIAL, Template, fitted, read_conversations, read_preferences, reply_text
from minigpt.settings import UserError
from minigpt.tokenizers import BpeTokenizer, CharTokenizer

TEMPLATE = small_template()
USER, ASSISTANT = ({"role": role, "content": "What?"} for role in ("user", "assistant"))
CALL = {"role": "assistant", "content": "", "call": "calculator(1+1)"}
RESULT = {"role": "tool", "content": "2"}

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
said = texts.map(lambda text: {"role": "assistant", "content": text})
calls = st.tuples(st.text("abc", max_size=3), texts).map(
    lambda pair: {"role": "assistant", "content": pair[0], "call": f"f({pair[1]})"})
replies = st.tuples(st.lists(st.tuples(calls, texts), max_size=2), said).map(
    lambda parts: [m for call, result in parts[0] for m in (call, {"role": "tool", "content": result})] + [parts[1]])
exchanges = st.tuples(texts, replies).map(lambda pair: [{"role": "user", "content": pair[0]}, *pair[1]])
conversations = st.lists(exchanges, min_size=1, max_size=3).map(lambda parts: [m for part in parts for m in part])


def test_the_example_of_the_docstring():
    messages = [{"role": "user", "content": "What is 12 * 3?"},
                {"role": "assistant", "content": "", "call": "calculator(12*3)"},
                {"role": "tool", "content": "36"}, {"role": "assistant", "content": "It is 36."}]
    ids, mask = TEMPLATE.render(messages)
    decode = TEMPLATE.tokenizer.decode
    assert decode(ids) == ("<|user|>What is 12 * 3?<|end|><|assistant|><|call|>calculator(12*3)<|result|>36<|done|>It is 36."
                           "<|end|>")
    assert decode(ids[mask]) == "<|call|>calculator(12*3)<|result|>It is 36.<|end|>"
    assert reply_text(messages[1:]) == "It is 36."


@given(conversations)
def test_a_prompt_begins_the_rendered_conversation_and_the_reply_is_read_back(messages):
    turns = [i for i, m in enumerate(messages) if m["role"] == "user"]
    begin = turns[-1] + 1
    ids, mask = TEMPLATE.render(messages)
    prompt = TEMPLATE.prompt(messages[:begin])
    assert np.array_equal(ids[:len(prompt)], prompt)
    assert TEMPLATE.read(ids[len(prompt):]) == messages[begin:]
    assert mask.shape == ids.shape and mask[-1] and not mask[:len(TEMPLATE.prompt(messages[:1]))].any()


@given(conversations)
def test_what_is_trained_on_is_what_the_model_would_say(messages):
    """The assistant's contents, its calls, and what ends them; nothing of the user's and of the tools'."""
    ids, mask = TEMPLATE.render(messages)
    expected = "".join(m["content"] + (f"<|call|>{m['call']}<|result|>" if "call" in m else "<|end|>")
                       for m in messages if m["role"] == "assistant")
    assert TEMPLATE.tokenizer.decode(ids[mask]) == expected


@given(texts, st.sampled_from(SPECIAL))
def test_no_text_can_hold_a_special_token(text, token):
    ids, _ = TEMPLATE.render([{"role": "user", "content": text + token}, ASSISTANT])
    plain, _ = TEMPLATE.render([{"role": "user", "content": "x"}, ASSISTANT])
    special = set(TEMPLATE.tokenizer.special.values())
    assert [i for i in ids.tolist() if i in special] == [i for i in plain.tolist() if i in special]


@given(st.lists(st.integers(0, TEMPLATE.tokenizer.vocabulary_size - 1), max_size=12))
def test_whatever_a_model_says_can_be_read(ids):
    messages = TEMPLATE.read(ids)
    assert messages[-1]["role"] == "assistant" and "call" not in messages[-1]


def test_end_of_turn_is_not_padding():
    assert len({TEMPLATE.tokenizer.special[token] for token in SPECIAL}) == len(SPECIAL)
    ids, _ = TEMPLATE.render([USER, ASSISTANT])
    assert TEMPLATE.pad not in ids and TEMPLATE.end in ids


def test_after_a_tool_the_turn_goes_on():
    ids, _ = TEMPLATE.render([USER, CALL, RESULT, ASSISTANT])
    prompt = TEMPLATE.prompt([USER, CALL, RESULT])
    assert np.array_equal(ids[:len(prompt)], prompt) and prompt[-1] == TEMPLATE.done
    with pytest.raises(ValueError, match="after a user or a tool"):
        TEMPLATE.prompt([USER, ASSISTANT])


def test_the_view_shows_what_is_trained_on():
    ids, mask = TEMPLATE.render([USER, {"role": "assistant", "content": "天"}])
    assert TEMPLATE.view(ids, mask) == ("\033[0m\033[2m<|user|>What?<|end|><|assistant|>\033[0m\033[32m天<|end|>\033[0m")


@pytest.mark.parametrize("tokenizer", [CharTokenizer("ab"), BpeTokenizer.train("ab", 256),
                                       BpeTokenizer.train("ab", 263, SPECIAL[:-1])])
def test_a_tokenizer_without_the_special_tokens_is_refused(tokenizer):
    with pytest.raises(UserError, match="has no token <"):
        Template(tokenizer)


# ---- files ----

def write(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
    return path


def test_files_are_read(tmp_path):
    conversation = [USER, CALL, RESULT, ASSISTANT]
    path = write(tmp_path / "a.jsonl", {"messages": conversation, "id": 7}, "", {"messages": [USER, ASSISTANT]})
    assert read_conversations(path) == [conversation, [USER, ASSISTANT]]
    path = write(tmp_path / "b.jsonl", {"prompt": "What?", "chosen": "a", "rejected": "b"},
                 {"messages": [USER], "chosen": [ASSISTANT], "rejected": [CALL, RESULT, ASSISTANT]})
    first, second = read_preferences(path)
    assert first == ([USER], [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}])
    assert second == ([USER], [ASSISTANT], [CALL, RESULT, ASSISTANT])


def conversation(*messages):
    return {"messages": list(messages)}


BAD = {                                             # a line that is wrong, and what is said of it
    "no JSON": ('{"messages": [', "this is no JSON"),
    "no object": ([1], "each line has to be a JSON object"),
    "nested": ("[" * 100_000, "this is no JSON"),
    "no messages": ({"text": "x"}, "'messages' has to be a list of messages, and is None"),
    "no message": (conversation("x"), "a message has to be an object"),
    "unknown role": (conversation({"role": "bot", "content": "x"}),
                     "the role 'bot' is unknown: it has to be one of system, user"),
    "empty turn": (conversation(USER, {"role": "assistant", "content": " "}), "the turn of assistant is empty"),
    "no text": (conversation({"role": "user", "content": 3}), "the content of user has to be a text, and is 3"),
    "no user": (conversation(ASSISTANT), "after the beginning system or user is expected, and here is assistant"),
    "two users": (conversation(USER, USER), "after user assistant is expected, and here is user"),
    "no reply": (conversation(USER), "has to end with what the assistant says"),
    "no result": (conversation(USER, CALL, ASSISTANT), "after a call of a tool tool is expected"),
    "call does not parse": (conversation(USER, CALL | {"call": "calculator 1"}, RESULT, ASSISTANT),
                            "a tool call does not parse: "),
    "call is no text": (conversation(USER, CALL | {"call": 1}, RESULT, ASSISTANT), "a tool call does not parse: "),
}
BAD_PREFERENCES = {
    "equal sides": ({"prompt": "x", "chosen": "a", "rejected": "a"}, "'chosen' and 'rejected' are the same, 'a'"),
    "one side": ({"prompt": "x", "chosen": "a"}, "'rejected' has to be a text or a list of messages, and is None"),
    "no prompt": ({"chosen": "a", "rejected": "b"}, "'prompt' or 'messages' has to say what was asked"),
    "bad prompt": ({"messages": [ASSISTANT], "chosen": "a", "rejected": "b"},
                   "after the beginning system or user is expected"),
    "empty side": ({"prompt": "x", "chosen": "a", "rejected": ""}, "the turn of assistant is empty"),
}


@pytest.mark.parametrize("read, good, line, part", [
    *((read_conversations, conversation(USER, ASSISTANT), *BAD[name]) for name in BAD),
    *((read_preferences, {"prompt": "x", "chosen": "a", "rejected": "b"}, *BAD_PREFERENCES[name])
      for name in BAD_PREFERENCES)])
def test_what_is_wrong_with_a_file_is_one_sentence_with_its_line(tmp_path, read, good, line, part):
    path = write(tmp_path / "data.jsonl", good, line)
    with pytest.raises(UserError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line 2: ") and part in message and "\n" not in message and len(message) < 400


def test_files_that_are_none(tmp_path):
    for name, content, part in ("none", None, "cannot read"), ("latin", b"\xe9", "not UTF-8"), ("empty", b"\n", "is empty"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=part):
            read_conversations(tmp_path / name)


@given(st.lists(conversations, max_size=4), st.integers(4, 60))
def test_what_is_too_long_is_cut_after_a_turn_or_left_out(many, context):
    kept, cut, left_out = fitted(many, TEMPLATE, context)
    assert len(kept) + left_out == len(many)
    lengths = [len(TEMPLATE.render(messages)[0]) for messages in kept]
    assert all(length <= context for length in lengths)
    untouched = [messages for messages in many if len(TEMPLATE.render(messages)[0]) <= context]
    assert len(kept) - cut == len(untouched) and all(messages in kept for messages in untouched)
    for messages in kept:
        assert messages[-1]["role"] == "assistant" and "call" not in messages[-1]
