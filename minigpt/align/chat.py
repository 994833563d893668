"""A conversation as tokens: the one template that every stage uses, and the files that conversations come in.

A conversation is a list of messages, {"role": ..., "content": ...}, as in the files that people have:

    system      what holds for the whole conversation; at the beginning, if at all
    user        a person's words
    assistant   the model's words. With "call": "calculator(12*3)" they end in a call of a tool, and what it gives has to
                follow as a message of the role
    tool        the result of that call, after which the assistant goes on, in the same turn

As tokens, `<|...|>` being one token each, which no text can contain but by this template:

    <|user|>What is 12 * 3?<|end|><|assistant|><|call|>calculator(12*3)<|result|>36<|done|>It is 36.<|end|>

The model learns from what it would say itself: all of the assistant's words, the tokens <|call|> and <|result|> with
which it asks for a tool and hands over, and <|end|>, without which it would never stop. It does not learn to say what it
is given: the user's words, and the result of a tool up to <|done|>. <|end|> is a token like any other; rows of a batch are
filled up with <|pad|>, which stands in no conversation.
"""
import json
from pathlib import Path

import numpy as np

from ..settings import UserError, brief
from .tools import parse_call

ROLES = "system", "user", "assistant", "tool"
SPECIAL = tuple(f"<|{name}|>" for name in ("pad", "system", "user", "assistant", "end", "call", "result", "done"))
TRAINED_ON, GIVEN, PLAIN = "\033[32m", "\033[2m", "\033[0m"         # green, faint


class Template:
    """Conversations to tokens and back, with a tokenizer whose special tokens include SPECIAL.

        template = Template(tokenizer)
        ids, mask = template.render(messages)               what is trained on is ids[mask]
        ids = template.prompt(messages)                     for a model to go on with
        template.read(reply)                                the messages that a model's tokens are

    pad, user, end ...: the numbers of the special tokens.
    """

    def __init__(self, tokenizer):
        numbers = getattr(tokenizer, "special", {})
        missing = [token for token in SPECIAL if token not in numbers]
        if missing:
            raise UserError(f"the tokenizer has no token {missing[0]}, which conversations need: train one with the special "
                            "tokens of minigpt/align/chat.py, as examples/train_chat.py does")
        self.tokenizer = tokenizer
        self.pad, self.system, self.user, self.assistant, self.end, self.call, self.result, self.done = (
            numbers[token] for token in SPECIAL)

    def render(self, messages):
        """(ids, mask): int64 (N,), the tokens of a conversation; bool (N,), True where the model has to say the token."""
        pieces = list(self.pieces(messages))
        ids = np.concatenate([piece for piece, _ in pieces])
        return ids, np.repeat([spoken for _, spoken in pieces], [len(piece) for piece, _ in pieces])

    def prompt(self, messages):
        """The tokens (N,) of a conversation that is the assistant's to go on with: after a user, or after a tool."""
        last = messages[-1]["role"]
        if last not in ("user", "tool"):
            raise ValueError(f"the model goes on after a user or a tool, not after a message of the role {last}")
        opening = [] if last == "tool" else [self.assistant]
        return np.append(np.concatenate([piece for piece, _ in self.pieces(messages)]), opening).astype(np.int64)

    def pieces(self, messages):
        """(tokens, whether the model says them), one after another."""
        going_on = False                                    # an assistant's turn goes on after its tool
        for message in messages:
            role, content = message["role"], self.tokenizer.encode(message["content"])
            if role == "tool":
                yield np.append(content, self.done), False
            elif role == "assistant":
                if not going_on:
                    yield np.array([self.assistant]), False
                yield content, True
                yield self.closing(message), True
                going_on = "call" in message
            else:
                yield np.concatenate([[getattr(self, role)], content, [self.end]]), False

    def closing(self, message):
        """What ends an assistant's message: the call of a tool, or the end of the turn."""
        if "call" in message:
            return np.concatenate([[self.call], self.tokenizer.encode(message["call"]), [self.result]])
        return np.array([self.end])

    def read(self, ids):
        """The messages of an assistant's turn from its tokens (N,), without the opening <|assistant|>.

        What a model says may be of any form. Tokens that have no place there are left out; what follows an <|end|>, and
        a last message without it, too, are as if it had ended there.
        """
        messages, text, call = [], [], None
        for token in np.asarray(ids).tolist():
            if token == self.end:
                break
            if token == self.call:
                text, call = [], text
            elif token == self.result and call is not None:
                messages.append({"role": "assistant", "content": self.text(call), "call": self.text(text)})
                text, call = [], None
            elif token == self.done and messages and messages[-1]["role"] == "assistant":
                messages.append({"role": "tool", "content": self.text(text)})
                text = []
            else:
                text.append(token)
        rest = self.text(text if call is None else call + text)
        return [*messages, {"role": "assistant", "content": rest}]

    def text(self, ids):
        """The text of tokens, without special ones."""
        special = set(self.tokenizer.special.values())
        return self.tokenizer.decode([i for i in ids if i not in special])

    def view(self, ids, mask):
        """Tokens as a text for a terminal: in green what is trained on, the rest faint."""
        parts, before = [], None
        for token, spoken in zip(np.asarray(ids).tolist(), mask):
            if spoken != before:
                parts.append(PLAIN + (TRAINED_ON if spoken else GIVEN))
                before = spoken
            parts.append(self.tokenizer.decode_bytes([token]).decode("utf-8", "surrogateescape"))
        whole = "".join(parts).encode("utf-8", "surrogateescape")           # a character may be of several tokens
        return whole.decode("utf-8", "replace") + PLAIN


def reply_text(messages):
    """What a person reads of an assistant's turn: its words, without the calls and their results."""
    return "".join(message["content"] for message in messages if message["role"] == "assistant").strip()


# ---- files of conversations ----

def read_conversations(path):
    """The conversations in a file of JSON lines, {"messages": [...]} each: a list of lists of messages.

    Other keys of a line are passed over. Raises UserError, with file and line, for whatever is not of that form.
    """
    return [checked_conversation(record.get("messages"), where) for where, record in read_lines(path)]


def read_preferences(path):
    """The comparisons in a file of JSON lines: a list of (messages, chosen, rejected), lists of messages each.

    A line is {"prompt" or "messages": ..., "chosen": ..., "rejected": ...}. A prompt is a text, the user's, or a list of
    messages, as "messages" is; chosen and rejected are texts, the assistant's, or lists of messages that go on from there.
    Raises UserError, with file and line, for whatever is not of that form.
    """
    preferences = []
    for where, record in read_lines(path):
        prompt = record.get("messages", record.get("prompt"))
        prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        sides = []
        for name in "chosen", "rejected":
            side = record.get(name)
            side = [{"role": "assistant", "content": side}] if isinstance(side, str) else side
            if not isinstance(side, list) or not side:
                raise UserError(f"{where}: {name!r} has to be a text or a list of messages, and is {brief(side)}")
            if not isinstance(prompt, list) or not prompt:
                raise UserError(f"{where}: 'prompt' or 'messages' has to say what was asked, and is {brief(prompt)}")
            sides.append(checked_conversation([*prompt, *side], where)[len(prompt):])
        if sides[0] == sides[1]:
            raise UserError(f"{where}: 'chosen' and 'rejected' are the same, {brief(record['chosen'])}: a comparison needs "
                            "two replies that differ")
        preferences.append((prompt, *sides))
    return preferences


def read_lines(path):
    """(where, record) of each line of a file of JSON objects; lines of white space are passed over."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    found = False
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if line.strip():
            found = True
            yield where, parsed(line, where)
    if not found:
        raise UserError(f"{path} is empty: it has to hold a JSON object on each line")


def parsed(line, where):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "it is nested too deep")
        raise UserError(f"{where}: this is no JSON ({reason}): each line has to be one JSON object") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: each line has to be a JSON object, and this one is {brief(record)}")
    return record


def checked_conversation(messages, where):
    """The messages as they are, where they are a conversation that ends with the assistant; else a UserError."""
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: 'messages' has to be a list of messages, and is {brief(messages)}")
    before = "beginning"
    for message in messages:
        check_message(message, where)
        role = message["role"]
        if role not in FOLLOWS[before]:
            expected = " or ".join(FOLLOWS[before])
            raise UserError(f"{where}: after {NAMES[before]} {expected} is expected, and here is {role}")
        before = "call" if role == "assistant" and "call" in message else role
    if before != "assistant":
        raise UserError(f"{where}: a conversation to learn from has to end with what the assistant says, and this one ends "
                        f"with {NAMES[before]}")
    return messages


FOLLOWS = {"beginning": ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",),
           "call": ("tool",), "tool": ("assistant",)}
NAMES = {"beginning": "the beginning", "system": "system", "user": "user", "assistant": "assistant",
         "call": "a call of a tool", "tool": "tool"}


def check_message(message, where):
    """Raise UserError for what is no message."""
    if not isinstance(message, dict):
        raise UserError(f"{where}: a message has to be an object with 'role' and 'content', and here is {brief(message)}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise UserError(f"{where}: the role {brief(role)} is unknown: it has to be one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise UserError(f"{where}: the content of {role} has to be a text, and is {brief(content)}")
    if not content.strip() and "call" not in message:
        raise UserError(f"{where}: the turn of {role} is empty: give it a text, or leave it out")
    if "call" in message:
        try:
            parse_call(message["call"])
        except ValueError as error:
            raise UserError(f"{where}: a tool call does not parse: {error}") from None


def fitted(conversations, template, context):
    """(conversations that fit, how many were cut, how many were left out).

    A conversation longer than the context is cut after the last of the assistant's turns up to which it fits. It is left
    out where not even the first one does.
    """
    kept, cut, left_out = [], 0, 0
    for messages in conversations:
        ends = [n for n in range(1, len(messages) + 1)
                if messages[n - 1]["role"] == "assistant" and "call" not in messages[n - 1]]
        fits = next((n for n in reversed(ends) if len(template.render(messages[:n])[0]) <= context), None)
        if fits is None:
            left_out += 1
        else:
            cut += fits < len(messages)
            kept.append(messages[:fits])
    return kept, cut, left_out
