"""A model takes its turn in a conversation, calling tools on the way.

The engine (generate.py) writes until the turn ends or a tool is called. Then the tool runs, its result is put behind what
was said, as if the model had read it, and the engine goes on from there.

    with Engine(model, tokenizer, slots=8) as engine:
        speaker = Speaker(engine, Template(tokenizer), Toolbox(calculator, solve))
        turns = [speaker.begin([{"role": "user", "content": text}], Rules(0)) for text in questions]
        speaker.run()
        print(turns[0].messages, turns[0].reason)
"""
from dataclasses import dataclass, field

import numpy as np

from ..generate import Request
from ..sampling import Rules

CALLS = 4                           # calls of tools in a turn


@dataclass(eq=False)
class Turn:
    """What the model says in its turn, so far."""
    prompt: np.ndarray              # tokens (N,) before it
    rules: Rules
    seed: int
    length: int                     # tokens that it may say, at most
    on_token: object = None         # called as on_token(turn, token) for each token that it says, or None
    on_result: object = None        # called as on_result(turn, call, result) when a tool has run, or None
    top: int | None = None          # as a Request's
    ids: list = field(default_factory=list)         # the tokens of the turn: what the model said, and results of tools
    spoken: list = field(default_factory=list)      # for each of them, whether the model said it
    calls: int = 0
    reason: str | None = None       # why it ended: "end", as it should, or "length", "context", "calls", "cancelled"
    job: object = None
    messages: list | None = None    # the turn as messages, when it has ended

    @property
    def text(self):
        """What a person reads of it."""
        return "".join(message["content"] for message in self.messages if message["role"] == "assistant").strip()


class Speaker:
    """Takes turns with a model, as many side by side as its engine has slots."""

    def __init__(self, engine, template, toolbox=None):
        self.engine, self.template, self.toolbox, self.turns = engine, template, toolbox, []

    def begin(self, messages, rules=Rules(), seed=0, length=64, on_token=None, on_result=None, top=None):
        """The Turn that follows messages, which are the assistant's to go on with. UserError where they are too long."""
        turn = Turn(self.template.prompt(messages), rules, seed, length, on_token, on_result, top)
        self.submit(turn)
        self.turns.append(turn)
        return turn

    def step(self):
        """A token more for those that speak; tools run in between. False when all turns have ended."""
        going_on = self.engine.step()
        for turn in [turn for turn in self.turns if turn.job.reason is not None]:
            self.go_on(turn)
        return going_on or bool(self.turns)

    def run(self):
        """Until all turns have ended."""
        while self.turns:
            self.step()

    def submit(self, turn):
        left = turn.length - sum(turn.spoken)
        request = Request([*turn.prompt, *turn.ids], left, turn.rules, turn.seed + turn.calls, top=turn.top,
                          end=(self.template.end, self.template.result))
        turn.job = self.engine.submit(request, turn.on_token and (lambda job, token: turn.on_token(turn, token)))

    def go_on(self, turn):
        """A turn's job has ended: run the tool that it calls, or end it."""
        said = [token.id for token in turn.job.tokens]
        turn.ids += said
        turn.spoken += [True] * len(said)
        turn.reason = turn.job.reason
        if said and said[-1] == self.template.result and self.use_tool(turn):
            return
        self.turns.remove(turn)
        turn.messages = self.template.read(turn.ids)

    def use_tool(self, turn):
        """Put a tool's result behind its call. False, and the reason, where the turn can't go on."""
        if turn.calls == CALLS or self.toolbox is None:
            turn.reason = "calls"
            return False
        ids = turn.ids[:-1]
        begin = len(ids) - ids[::-1].index(self.template.call) if self.template.call in ids else len(ids)
        call = self.template.text(ids[begin:])
        result = self.toolbox.run(call)
        forced = [*self.template.tokenizer.encode(result).tolist(), self.template.done]
        if len(turn.prompt) + len(turn.ids) + len(forced) > self.engine.context or sum(turn.spoken) >= turn.length:
            turn.reason = "context" if sum(turn.spoken) < turn.length else "length"
            return False
        turn.ids += forced
        turn.spoken += [False] * len(forced)
        turn.calls, turn.reason = turn.calls + 1, None
        if turn.on_result is not None:
            turn.on_result(turn, call, result)
        self.submit(turn)
        return True
