"""Comparisons: two replies to one prompt, of which people preferred the first, and the loop that learns from them.

A comparison is what reward.py and dpo.py learn from. It may come from the scripted judge (judge.py) or from any file of
preferences (chat.read_preferences); here it is two replies as tokens.

Whoever compares errs at times, and then not by little: of two replies one is right and the other is not, and the label is the
wrong way round. Let d be the margin by which a model prefers the reply that was chosen. If labels were drawn by sigmoid(d)
alone (Bradley and Terry, reward.py), a label against a large margin would be next to impossible, and a few of them outweigh
many that are right. So a share m of the labels counts as mistaken, whatever the replies are (Christiano et al. 2017, Deep
reinforcement learning from human preferences, section 2.2.3, assume the like of people):

    P(label)  =  (1 - m) sigmoid(d) + m sigmoid(-d)  =  m + (1 - 2m) sigmoid(d)

    (1)  loss  =  mean of -log(m + (1 - 2m) sigmoid(d))

A comparison costs log 2 where d = 0, and never more than log 1/m. With m = 0.1, the judge's, a reward model of 19,000
comparisons agrees with 94.6% of what is really preferred, and with 93.4% where m = 0.
"""
import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..ops import log, sigmoid
from ..optim import AdamW, warm_up_hold_fall
from ..settings import UserError
from .replies import Batch, Reply


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two replies to the same prompt."""
    chosen: Reply
    rejected: Reply


@dataclass(frozen=True)
class ComparisonSettings:
    """How to learn from comparisons."""
    epochs: int = 1                 # how often each comparison is seen
    batch_size: int = 32            # comparisons in an update
    micro_batch: int = 8            # comparisons that a worker takes at a time
    learning_rate: float = 5e-4     # highest learning rate of AdamW
    warm_up: float = 0.1            # share of the updates in which the learning rate rises
    clip: float = 1.0               # largest norm of a gradient
    mistakes: float = 0.1           # share of the labels that counts as mistaken, m
    seed: int = 1                   # of the order

    def __post_init__(self):
        check_positive(self, "epochs", "batch_size", "micro_batch", "learning_rate", "clip", "mistakes")
        if self.mistakes >= 0.5:
            raise UserError(f"mistakes is {self.mistakes}, but has to be below 0.5: labels of which half are wrong say nothing")


def check_positive(settings, *names):
    """Raise UserError unless these settings are finite and above 0."""
    for name in names:
        value = getattr(settings, name)
        if not 0 < value < math.inf:
            raise UserError(f"{name} is {value}, but has to be above 0")


def counted_as_mistaken(share):
    """The m for labels of which this share is wrong: never 0, so that no comparison can outweigh the others."""
    return max(0.01, share)


def from_preferences(preferences, template, context):
    """(comparisons, how many were left out, being longer than the context) of (messages, chosen, rejected) triples."""
    comparisons = []
    for messages, chosen, rejected in preferences:
        prompt = template.prompt(messages)
        sides = [Reply(prompt, template.render([*messages, *side])[0][len(prompt):]) for side in (chosen, rejected)]
        if max(map(len, sides)) <= context:
            comparisons.append(Comparison(*sides))
    return comparisons, len(preferences) - len(comparisons)


def disagreement(margins, mistakes):
    """What each of the margins (b,) costs, d in (1), with a share of mistakes above 0: a Tensor (b,), in nats."""
    return log(sigmoid(margins) * (1 - 2 * mistakes) + mistakes) * -1


def both_sides(comparisons):
    """A Batch of 2 b replies: the b that were chosen, then the b that were rejected."""
    return Batch([c.chosen for c in comparisons] + [c.rejected for c in comparisons])


def fit(workers, loss, comparisons, settings, beside=None):
    """Learn from comparisons; yields the record of each update, {"step", "loss", "accuracy", "margin", ...}.

    loss(model, batch, total) -> (the sum of the losses of a Batch of both sides / total, a Tensor; the margins by which it
    prefers the chosen ones, an array (b,)). accuracy: how often a margin is above 0, before the update. beside(step) -> a
    function of the model, whose value is added to the loss of that update; or None.
    """
    model, rng = workers.model, np.random.default_rng([settings.seed, 0])
    optimizer = AdamW(model.flat, decay=0.0)
    orders = [rng.permutation(len(comparisons)) for _ in range(settings.epochs)]
    batches = [order[i:i + settings.batch_size] for order in orders for i in range(0, len(order), settings.batch_size)]
    for step, which in enumerate(batches):
        which = sorted(which, key=lambda i: len(comparisons[i].chosen) + len(comparisons[i].rejected))
        parts = [both_sides([comparisons[i] for i in which[j:j + settings.micro_batch]])
                 for j in range(0, len(which), settings.micro_batch)]
        margins = {}

        def compared(model, part):
            y, margins[part] = loss(model, part, len(which))
            return y

        shares = [partial(compared, part=part) for part in parts] + ([] if beside is None else [beside(step)])
        total = workers.gradient(lambda model, share: share(model), shares)
        warm_up = math.ceil(settings.warm_up * len(batches))
        lr = warm_up_hold_fall(step, len(batches), warm_up, 0.0, settings.learning_rate, 0.0)
        check_finite(total, step + 1)
        optimizer.step(lr, settings.clip, workers.map)
        margin = np.concatenate([margins[part] for part in parts])
        yield {"step": step + 1, "loss": total, "accuracy": accuracy(margin), "margin": float(margin.mean())}


def accuracy(margins):
    """How often the chosen reply is preferred; of a tie, half."""
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def check_finite(loss, step):
    if not math.isfinite(loss):
        raise UserError(f"at step {step} the loss was {loss}: a lower learning rate usually helps")
