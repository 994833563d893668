"""Supervised fine-tuning: a model that continues texts learns from demonstrations to answer.

It is the training of before, on other tokens: conversations as the template writes them (chat.py), and a loss at those
tokens only that the model itself has to say,

    (1)  loss = sum over the trained-on tokens of -log p(token | all before it) / their number in the step

so a step's gradient does not depend on how its conversations were laid out or cut into micro-batches.

Conversations are short and differ in length; a row a conversation would be padding, mostly. So they are packed: one
behind another, in the order in which they come, until the next one does not fit in the row; none is cut. Attention looks
back across them, and positions count on: what stands before a conversation looks like an earlier topic of the same chat,
as chats have them; so the model learns to answer what was asked last, and a conversation at the beginning of a row (there
are as many as rows) is what a chat begins with. Rotary positions are distances, so that there is nothing to restart.

A model that is shown the same few hundred answers again and again learns them by heart, and forgets how to say what it is
never asked here. So a few rows of each update are windows of the text of pre-training, on which it goes on as before.
"""
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import batch
from ..parallel import Workers
from ..report import Metrics, Progress
from ..tensor import no_grad
from ..train import TrainSettings, check_finite, interruptible, learning_rate, make_optimizer, update

IGNORED = -1                        # a target that counts for nothing (ops/cross_entropy.py)


@dataclass(frozen=True)
class SFTSettings(TrainSettings):
    """How to fine-tune."""
    steps: int = 600                # updates of the parameters
    optimizer: str = "muon"         # what makes the updates
    learning_rate: float = 0.005    # highest learning rate
    last_learning_rate: float = 1e-4    # learning rate of the last step
    warm_up: int = 20               # steps in which the learning rate rises
    weight_decay: float = 0.0       # decay of matrices
    replay: int = 4                 # rows of an update that are of the text of pre-training, where there is one


def pack(rendered, context):
    """Conversations, a list of (ids, mask), in rows: inputs and targets, int64 (R, context) each.

    A target is the token that follows, where the model has to say it, and IGNORED elsewhere. No conversation may be longer
    than context + 1 tokens (its last token is a target only).
    """
    rows, used = [], context + 1
    for ids, mask in rendered:
        if used + len(ids) > context + 1:
            rows.append((np.zeros(context + 1, np.int64), np.zeros(context + 1, bool)))
            used = 0
        row_ids, row_mask = rows[-1]
        row_ids[used:used + len(ids)], row_mask[used:used + len(ids)] = ids, mask
        used += len(ids)
    ids, mask = (np.stack(part) for part in zip(*rows))
    return ids[:, :-1], np.where(mask[:, 1:], ids[:, 1:], IGNORED)


class Demonstrations:
    """Packed demonstrations, in another order each time round: batch(step) is a function of the seed and the step."""

    def __init__(self, template, conversations, context, size, seed):
        self.rendered = [template.render(messages) for messages in conversations]
        self.context, self.size, self.seed, self.round, self.rows = context, size, seed, None, None

    def batch(self, step):
        """Inputs and targets of a step, (size, context) each; a batch at the end of a round may have fewer rows."""
        per_round = max(1, -(-len(self.rows_of(0)[0]) // self.size))
        x, y = self.rows_of(step // per_round)
        begin = step % per_round * self.size % len(x)
        return x[begin:begin + self.size], y[begin:begin + self.size]

    def rows_of(self, number):
        """All rows of a round."""
        if self.round != number:
            order = np.random.default_rng([self.seed, number]).permutation(len(self.rendered))
            self.round, self.rows = number, pack([self.rendered[i] for i in order], self.context)
        return self.rows


def fine_tune(model, template, conversations, settings, out, held_out=(), text=None):
    """Fine-tune a model on conversations (lists of messages), in place. Returns its last loss on those held out, or None.

    out: the folder that receives metrics.jsonl. held_out: conversations to measure by. text: tokens of pre-training,
    for settings.replay. Raises UserError where the loss is no longer finite.
    """
    context, replay = model.config.context, 0 if text is None else settings.replay
    size = max(1, settings.batch_size - replay)
    demonstrations = Demonstrations(template, conversations, context, size, settings.seed)
    optimizer, metrics, progress = make_optimizer(model.flat, settings), Metrics(out), Progress(settings.steps)
    seen, loss = None, None
    with Workers(model, settings.workers) as workers, interruptible() as stop:
        for step in range(settings.steps):
            started = time.perf_counter()
            x, y = demonstrations.batch(step)
            if replay:
                x, y = map(np.concatenate, zip((x, y), batch(text, context, replay, settings.seed, step)))
            loss, norm = update(workers, optimizer, x, y, settings, step, learning_rate(settings, step))
            check_finite(Path(out), step + 1, {"loss": loss, "norm of the gradient": norm})
            last = step + 1 == settings.steps or stop.requested
            if held_out and (last or (step + 1) % settings.eval_every == 0):
                seen = masked_loss(workers, template, held_out, settings.batch_size)
            if last or (step + 1) % settings.log_every == 0:
                metrics.add(step=step + 1, train_loss=loss, val_loss=seen, grad_norm=norm,
                            tokens=int((y != IGNORED).sum()), seconds=time.perf_counter() - started)
                progress.update(step + 1, f"loss {loss:.4f}" + (f"  held out {seen:.4f}" if seen is not None else ""))
            if last:
                break
    progress.close()
    return seen


def masked_loss(workers, template, conversations, size):
    """The loss (1) over conversations."""
    x, y = pack([template.render(messages) for messages in conversations], workers.model.config.context)

    def loss(model, part):
        with no_grad():
            return model.loss(x[part], y[part], total=1).item()

    return sum(workers.each(loss, [slice(i, i + size) for i in range(0, len(x), size)])) / np.count_nonzero(y != IGNORED)
