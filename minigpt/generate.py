"""Generation: the model says how likely each token is to come next, one is chosen (sampling.py), and so on.

The prompt goes through the model at once ("prefill"), in chunks; then token by token ("decode"), as the keys and values
of what came before are kept in a cache. An Engine does this for several requests at a time: each has a slot of the cache
and a length of its own, and at each step the model reads one token of all of them, so that its weights, whose way from
memory is what a step costs, are read once for all.

    with Engine(model, tokenizer, slots=4) as engine:
        jobs = [engine.submit(Request(tokenizer.encode(prompt), length=100, seed=i)) for i, prompt in enumerate(prompts)]
        while engine.step():                # one chunk of a prompt, and a token for each whose prompt was read
            ...
        print(jobs[0].text, jobs[0].reason)

What a request gives depends on its own prompt, rules and seed, not on what else is in the batch (but for rounding).

A prompt longer than the model's context is an error. When a text has filled the context, it ends there; or, with
slide=True, its later half goes in anew, as if it were the beginning: a model with learned positions can't read on.
"""
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from .parallel import threads_for
from .reader import CHUNK, Crew, Reader
from .sampling import Chance, Rules, Text, ends_of, log_probabilities, next_token, top
from .settings import UserError


@dataclass(frozen=True, eq=False)
class Request:
    """What to generate."""
    prompt: object                  # tokens to go on with, a sequence of integers, at least one
    length: int                     # tokens to add, at most
    rules: Rules = Rules()          # how each token is chosen
    seed: int = 0                   # the same seed gives the same tokens
    stop: tuple[str, ...] = ()      # texts before any of which to end
    end: tuple[int, ...] | None = None      # tokens at any of which to end, not shown; None: the tokenizer's end of text
    top: int | None = None          # report the log-probability of each token, and of as many of the likeliest
    slide: bool = False             # go on when the context is full


@dataclass(frozen=True)
class Token:
    """A token that was chosen."""
    id: int
    text: str                       # what has become clear with it; text may be held back (sampling.Text)
    log_probability: float | None   # of the model, before the rules; None unless request.top says how many
    top: list                       # the likeliest tokens there, [(id, log_probability), ...]


@dataclass(eq=False)
class Job:
    """What became of a request so far."""
    request: Request
    ids: list                       # the prompt and what was added
    on_token: object                # called as on_token(job, token) for each token, or None
    text_of: Text | None            # makes the text of tokens
    chance: Chance
    unread: list                    # tokens that are not in the cache
    end: tuple                      # tokens at any of which to end
    tokens: list = field(default_factory=list)
    reason: str | None = None       # why it ended: "length", "stop", "end", "context" or "cancelled"; None: it goes on
    slot: int | None = None
    cancelled: bool = False

    text = property(lambda self: "".join(token.text for token in self.tokens))

    def cancel(self):
        """End before the next token or chunk of the prompt; any thread may call this."""
        self.cancelled = True


class Engine:
    """Generates for as many requests at a time as there are slots; others wait. Use it as a context."""

    def __init__(self, model, tokenizer=None, slots=1, workers=None, chunk=CHUNK):
        self.model, self.tokenizer, self.chunk = model, tokenizer, chunk
        self.context = model.config.context
        self.crew = Crew(workers or threads_for(model))
        self.reader = Reader(model, self.crew, slots)
        self.free, self.waiting, self.jobs = list(range(slots)), deque(), []

    def __enter__(self):
        self.crew.__enter__()
        return self

    def __exit__(self, *exception):
        self.crew.__exit__(*exception)

    def submit(self, request, on_token=None):
        """The Job of a request, which waits for a free slot. Raises UserError where it can't be done."""
        ids = list(map(int, request.prompt))
        check(request, ids, self.model.config, self.tokenizer)
        text_of = Text(self.tokenizer, request.stop) if self.tokenizer is not None else None
        end = ends_of(self.tokenizer) if request.end is None else request.end
        job = Job(request, ids, on_token, text_of, Chance(request.seed), list(ids), end)
        self.waiting.append(job)
        return job

    def step(self):
        """Read one chunk of one prompt, and choose a token for each text that was read. False when nothing is left."""
        for job in [job for job in (*self.jobs, *self.waiting) if job.cancelled]:
            self.finish(job, "cancelled")
        while self.free and self.waiting:
            self.seat(self.waiting.popleft())
        speaking = [job for job in self.jobs if len(job.unread) == 1]
        reading = next((job for job in self.jobs if len(job.unread) > 1), None)
        heard = [reading] if reading and self.read(reading) else []
        if speaking:
            ids = np.array([job.unread for job in speaking])                # (B, 1)
            logits = self.reader.each([job.slot for job in speaking], ids)[:, -1]
            for job, row in zip(speaking, logits):
                self.accept(job, row)
        for job in heard + speaking:                        # when all is as it should be, should a callback fail
            if job.on_token is not None:
                job.on_token(job, job.tokens[-1])
        return bool(self.jobs or self.waiting)

    def run(self):
        """Step until all is done."""
        while self.step():
            pass

    def seat(self, job):
        job.slot = self.free.pop()
        self.reader.rewind(job.slot)
        self.jobs.append(job)

    def read(self, job):
        """Read a chunk of what a job has unread. After the last one a token is chosen: then True."""
        logits = self.reader.read(job.slot, job.unread[:self.chunk])
        job.unread = job.unread[self.chunk:]
        if job.unread:
            return False
        self.accept(job, logits)
        return True

    def accept(self, job, logits):
        """Choose the token that follows, and see whether it is the last."""
        request, likely, log_p = job.request, [], None
        token = next_token(logits, request.rules, job.chance)
        if request.top is not None:
            all_of_them = log_probabilities(logits)
            log_p, likely = float(all_of_them[token]), top(all_of_them, request.top)
        job.ids.append(token)
        job.unread = [token]
        reason, piece = None, ""
        if token in job.end:
            reason = "end"
        elif job.text_of is not None:
            piece = job.text_of.add(token)
            reason = "stop" if job.text_of.stopped else None
        if reason is None and len(job.tokens) + 1 == request.length:
            reason = "length"
        if self.reader.length(job.slot) == self.context and reason is None:
            reason = self.slide(job)
        if reason and job.text_of is not None:
            piece += job.text_of.end()
            reason = "stop" if job.text_of.stopped else reason              # what was held back may hold a stop text
        job.tokens.append(Token(token, piece, log_p, likely))
        if reason:
            self.finish(job, reason)

    def slide(self, job):
        """The context is full: begin anew with its later half, or give the reason to end."""
        if not job.request.slide:
            return "context"
        self.reader.rewind(job.slot)
        job.unread = job.ids[-max(1, self.context // 2):]
        return None

    def finish(self, job, reason):
        job.reason = reason
        if job.slot is None:
            self.waiting.remove(job)
        else:
            self.jobs.remove(job)
            self.free.append(job.slot)


def check(request, ids, config, tokenizer):
    """Raise UserError for a request that can't be done."""
    if not ids:
        raise UserError("the prompt is empty: give at least one token to begin with")
    if len(ids) > config.context:
        raise UserError(f"the prompt has {len(ids)} tokens, and the model reads at most {config.context}: shorten it by "
                        f"{len(ids) - config.context}")
    wrong = next((i for i in ids if not 0 <= i < config.vocabulary_size), None)
    if wrong is not None:
        raise UserError(f"the prompt has the token {wrong}, and the model's are 0 ... {config.vocabulary_size - 1}: it "
                        "was encoded by another tokenizer")
    if request.length < 1 or (request.top is not None and request.top < 0):
        raise UserError(f"length is {request.length} and top is {request.top}, but a length has to be at least 1, and top "
                        "at least 0")
    if any(request.stop) and tokenizer is None:
        raise UserError("stop texts need a tokenizer, and this engine was made without one")


def generate_text(model, tokenizer, prompt, length, seed=0, stop=None, rules=Rules(), slide=True):
    """Yield pieces of text after the prompt: up to `length` tokens, to the tokenizer's end of text, or up to the text
    `stop`, which is left out."""
    with Engine(model, tokenizer) as engine:
        request = Request(tokenizer.encode(prompt), length, rules, seed, (stop,) if stop else (), slide=slide)
        job, shown = engine.submit(request), 0
        going_on = True
        while going_on:
            going_on = engine.step()
            for token in job.tokens[shown:]:
                if token.text:
                    yield token.text
            shown = len(job.tokens)
