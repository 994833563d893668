"""Replies: what a model says to a prompt, and the book-keeping that every way of learning from replies shares.

Prompts and replies are of different lengths. A batch of them is filled up on the right, and a mask says what counts:

    ids         p p p r r e . .     a prompt, a reply with the token that ends it, and padding
    inputs      p p p r r e .       what the model reads               (b, T)
    targets     p p r r e . .       what it has to say next            (b, T)
    mask        . . x x x . .       where that is a token of the reply (b, T)

Attention is causal, so no position that counts sees the padding, and what stands there does not matter. All sums and
means are taken where the mask is True, and a mean divides by the number of such places in the whole step: then a step
that is cut into micro-batches is the same step, however it is cut.
"""
from dataclasses import dataclass

import numpy as np

from ..generate import Engine, Request
from ..ops.softmax import log_sum_exp
from ..settings import UserError


@dataclass(frozen=True, eq=False)
class Reply:
    """A prompt and what was said to it, as tokens."""
    prompt: np.ndarray              # (P,) int64, at least one
    ids: np.ndarray                 # (R,) int64, at least one; with the token that ends the reply, if it has ended
    ended: bool = True              # False: it was cut off at the longest that was allowed

    def __len__(self):
        return len(self.prompt) + len(self.ids)


class Batch:
    """b replies with their prompts, filled up on the right: the arrays above, and ends (b,), the last real index of ids."""

    def __init__(self, replies):
        self.replies = replies
        self.ids = np.zeros((len(replies), max(map(len, replies))), np.int64)       # the padding is 0, a token like others
        self.mask = np.zeros((len(replies), self.ids.shape[1] - 1), bool)
        for row, seen, reply in zip(self.ids, self.mask, replies):
            row[:len(reply)] = np.concatenate([reply.prompt, reply.ids])
            seen[len(reply.prompt) - 1:len(reply) - 1] = True
        self.inputs, self.targets = self.ids[:, :-1], self.ids[:, 1:]
        self.ends = np.array([len(reply) - 1 for reply in replies])


def in_batches(replies, size):
    """[(indices, Batch)] of `size` replies each, neighbours in length together, so that there is little padding."""
    order = sorted(range(len(replies)), key=lambda i: len(replies[i]))
    parts = [order[i:i + size] for i in range(0, len(order), size)]
    return [(np.array(part), Batch([replies[i] for i in part])) for part in parts]


def in_order(parts, values):
    """(N,) from the values of each part of in_batches, back in the order of the replies."""
    together = np.empty(sum(len(indices) for indices, _ in parts))
    for (indices, _), part in zip(parts, values):
        together[indices] = part
    return together


def sample(model, prompts, length, end, seed, slots=32, workers=None):
    """The Reply of a model to each prompt, drawn from its own distribution: up to `length` tokens, or up to the token `end`.

    prompts: a list of int64 arrays. seed: a number, or a list of them, as NumPy takes them. Raises UserError for a prompt
    that leaves no room for a reply.
    """
    context = model.config.context
    too_long = next((len(prompt) for prompt in prompts if len(prompt) >= context), None)
    if too_long is not None:
        raise UserError(f"a prompt of {too_long} tokens leaves no room for a reply in a context of {context}: shorten it")
    seeds = np.random.default_rng(seed).integers(2 ** 32, size=len(prompts)).tolist()
    with Engine(model, slots=min(slots, len(prompts)), workers=workers) as engine:
        jobs = [engine.submit(Request(prompt, min(length, context - len(prompt)), seed=its_seed, end=(end,)))
                for prompt, its_seed in zip(prompts, seeds)]
        engine.run()
    return [Reply(np.asarray(prompt), np.array(job.ids[len(prompt):]), job.reason == "end")
            for prompt, job in zip(prompts, jobs)]


def masked_mean(values, masks):
    """The mean over all places where the masks are True; two lists of arrays of the same shapes."""
    return sum(float(x[mask].sum(dtype=np.float64)) for x, mask in zip(values, masks)) / sum(int(mask.sum()) for mask in masks)


def divergence(logits, other_logits):
    """KL(p || q) at each position, the exact sum over the vocabulary, in nats: (..., V) twice -> (...) of float64.

    sum of p log(p/q) has terms of both signs, whose sum may come out below 0 by rounding. As p and q both sum to 1,

        sum of p log(p/q)  =  sum of (p log(p/q) + q - p)  =  sum of p (e^-d - 1 + d),   d = log p - log q,

    where no term is below 0, since e^-d >= 1 - d.
    """
    log_p, log_q = (x - log_sum_exp(x) for x in (logits.astype(np.float64), other_logits.astype(np.float64)))
    d = log_p - log_q
    return (np.exp(log_p) * np.maximum(np.expm1(-d) + d, 0)).sum(-1)


def replayed(x, y, weight, speaker=lambda policy: policy):
    """The mean loss of some demonstrations, inputs and targets (R, T), times `weight`: a function of a policy.

    Beside the loss of learning from feedback it keeps what no reply is about. speaker: the language model in a policy.
    """
    tokens = max(1, int((y >= 0).sum()))
    return lambda policy: speaker(policy).loss(x, y, total=tokens) * weight
