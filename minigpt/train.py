"""Training: batch -> loss -> backward -> sum over workers and ranks -> step -> log, and the same again."""
import math
import signal
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from . import checkpoint
from .data import batch, sequence_seeds, windows
from .optim import AdamW, Muon, warm_up_hold_fall
from .parallel import Workers
from .ranks import ALONE
from .report import Metrics, Progress
from .settings import UserError
from .tensor import no_grad


CACHED = 8                          # sequences that a core takes at a time, at most: its cache holds what they need


@dataclass(frozen=True)
class TrainSettings:
    """How to train."""
    steps: int = 1000               # updates of the parameters
    batch_size: int = 16            # sequences in an update
    micro_batch: int = 0            # sequences that a worker takes at a time (0: an equal share of the batch; on a CPU
                                    # at most 8)
    workers: int = 0                # worker threads (0: one a core; with a GPU, one)
    device: Literal["cpu", "cuda"] = "cpu"      # where the model is trained: cuda is an NVIDIA GPU, through CuPy
    precision: Literal["float32", "tf32"] = "float32"   # of a GPU's products; tf32 takes factors with 10 bits of mantissa
    optimizer: Literal["adamw", "muon"] = "adamw"   # what makes the updates
    learning_rate: float = 1e-3     # highest learning rate
    last_learning_rate: float = 1e-5    # learning rate of the last step
    warm_up: int = 100              # steps in which the learning rate rises
    hold: float = 0.0               # share of the steps after which the learning rate begins to fall
    weight_decay: float = 0.1       # AdamW's decay of matrices and embeddings
    beta1: float = 0.9              # AdamW: how long the mean of gradients remembers
    beta2: float = 0.99             # AdamW: how long the mean of squared gradients remembers
    momentum: float = 0.95          # Muon: how long the mean of gradients remembers
    clip: float = 1.0               # largest norm of a gradient
    recompute: bool = False         # keep only the blocks' inputs for the backward pass: slower, far less memory
    eval_every: int = 250           # steps between two validations, each of which saves a checkpoint
    log_every: int = 10             # steps between two lines of metrics.jsonl
    seed: int = 1                   # of the parameters, the batches and dropout

    def __post_init__(self):
        for name in "steps", "batch_size", "eval_every", "log_every":
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but has to be at least 1")
        for name in "micro_batch", "workers", "warm_up", "weight_decay", "last_learning_rate", "seed":
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}, but can't be negative")
        for name in "steps", "batch_size", "workers", "micro_batch", "seed":
            if getattr(self, name) >= 2 ** 32:
                raise UserError(f"{name} is {getattr(self, name)}, but has to be below 2^32")
        for name in "learning_rate", "clip":
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}, but has to be above 0")
        if self.workers > 1024:
            raise UserError(f"workers is {self.workers}, but has to be at most 1024")
        if self.device == "cuda" and self.workers > 1:
            raise UserError(f"workers is {self.workers}, but a GPU takes one: leave --workers out, or choose --device "
                            "cpu")
        if self.device == "cpu" and self.precision != "float32":
            raise UserError(f"precision {self.precision} is a GPU's: leave --precision out, or choose --device cuda")
        for name in "beta1", "beta2", "momentum", "hold":
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but has to be at least 0 and below 1")


@dataclass
class Position:
    """How far a run has come: what a checkpoint keeps beside parameters and optimizer."""
    step: int = 0                   # updates made
    tokens: int = 0                 # tokens learnt from
    seconds: float = 0.0            # spent, in all sittings
    val_loss: float | None = None
    best_val_loss: float | None = None

    def __post_init__(self):
        if min(self.step, self.tokens, self.seconds) < 0 or (self.step > 0 and None in (self.val_loss, self.best_val_loss)):
            raise UserError(f"a checkpoint says that its run stands at {vars(self)}, which no run does: it was changed")


def train(model, tokenizer, training, validation, settings, out, position=None, keep=None, stop_after=None, ranks=ALONE):
    """Train until settings.steps, or until Ctrl-C; both save. Returns (Position, whether it was interrupted).

    training, validation: tokens, int64 arrays. out: the folder that receives metrics.jsonl and the checkpoints `latest`
    (with which training can go on) and `best` (of the lowest validation loss).
    position: of the checkpoint that is resumed, whose folder is out/latest. keep: a dict of plain JSON that every
    checkpoint carries along. stop_after: end after this step as Ctrl-C would.
    ranks: those that train together, each of which calls this with the same arguments; the first one writes.
    Raises UserError where the loss is no longer finite; the checkpoints stay as they were.
    """
    out, context = Path(out), model.config.context
    resumed, position = position is not None, position or Position()
    if settings.recompute and not hasattr(model, "recompute_blocks"):
        raise UserError(f"{model.name} has no blocks to recompute: leave --recompute out")
    model.recompute_blocks = settings.recompute
    optimizer = make_optimizer(model.flat, settings, ranks)
    if resumed:
        checkpoint.restore(optimizer, checkpoint.find(out, ["latest"]))
    if ranks.rank == 0:
        metrics, progress = Metrics(out, position.step), Progress(settings.steps, position.step)
    begin, recent = time.perf_counter() - position.seconds, deque(maxlen=settings.log_every)

    def save(name, optimizer=None):
        if ranks.rank == 0:
            checkpoint.save(out / name, model, tokenizer, {"position": vars(position), **(keep or {})}, optimizer)

    def agree():
        """Have parameters and moments of the first rank on all: machines that differ may round differently."""
        for array in model.flat.data, optimizer.m, optimizer.v:
            ranks.copy(array)

    agree()
    stopping = False                                        # one step at least is made, however soon Ctrl-C comes
    quiet = np.errstate(over="ignore", invalid="ignore")    # check_finite tells it in one sentence
    with Workers(model, settings.workers, ranks) as workers, interruptible() as stop, quiet:
        while position.step < settings.steps and not stopping:
            started = time.perf_counter()
            lr = learning_rate(settings, position.step)
            loss, norm = training_step(workers, optimizer, training, context, settings, position.step, lr)
            check_finite(out, position.step + 1, {"loss": loss, "norm of the gradient": norm})
            seconds_a_step = time.perf_counter() - started
            recent.append((loss, seconds_a_step))
            position.step += 1
            position.tokens += settings.batch_size * context
            stopping = any(ranks.every(stop.requested or (stop_after or math.inf) <= position.step))
            last = position.step == settings.steps or stopping
            validated = position.step % settings.eval_every == 0 or last
            if validated:
                agree()
                val_loss = validation_loss(workers, validation, context)
                check_finite(out, position.step, {"validation loss": val_loss})
                position.val_loss = val_loss
            position.seconds = time.perf_counter() - begin
            if ranks.rank == 0 and (validated or position.step % settings.log_every == 0):
                train_loss, seconds = (sum(column) / len(recent) for column in zip(*recent))
                speed = settings.batch_size * context / seconds
                metrics.add(step=position.step, tokens=position.tokens, seconds=round(position.seconds, 3),
                            train_loss=train_loss, val_loss=position.val_loss if validated else None,
                            tokens_per_second=round(speed), lr=lr, grad_norm=norm)
                seen = f"  validation {position.val_loss:.4f}" if position.val_loss is not None else ""
                progress.update(position.step, f"loss {train_loss:.4f}{seen}  {speed:,.0f} tokens/s")
            if validated:
                if position.best_val_loss is None or position.val_loss < position.best_val_loss:
                    position.best_val_loss = position.val_loss
                    save("best")
                save("latest", optimizer)
    if ranks.rank == 0:
        progress.close()
    return position, position.step < settings.steps


def make_optimizer(flat, settings, ranks=ALONE):
    """The optimizer that the settings ask for, of `ranks` that train together."""
    adamw = {"beta1": settings.beta1, "beta2": settings.beta2, "decay": settings.weight_decay}
    return Muon(flat, momentum=settings.momentum, ranks=ranks, **adamw) if settings.optimizer == "muon" else AdamW(flat, **adamw)


def training_step(workers, optimizer, ids, context, settings, step, lr):
    """One update on windows of `ids`. Returns the mean loss, in nats a token, and the norm of its gradient."""
    x, y = batch(ids, context, settings.batch_size, settings.seed, step)                        # (B, T) each
    return update(workers, optimizer, x, y, settings, step, lr)


def update(workers, optimizer, x, y, settings, step, lr):
    """One update on inputs and targets, int64 (B, T) each; a target of -1 does not count.

    Returns the mean loss over the targets that count, in nats, and the norm of its gradient.
    """
    B, total = len(x), max(1, np.count_nonzero(y >= 0))
    there = workers.model.flat.data                         # of what is on a GPU, a step copies no more than the batch
    x, y = (np.asarray(part, like=there) for part in (x, y))                                    # in,
    seeds = None                                            # and two numbers out
    if workers.model.config.dropout:
        seeds = np.asarray(sequence_seeds(settings.seed, step, B), like=there)                  # (B,)

    def loss(model, part):
        return model.training_loss(x[part], y[part], None if seeds is None else seeds[part], total=total)

    return descend(workers, optimizer, loss, B, settings, lr)


def descend(workers, optimizer, loss, B, settings, lr):
    """One update from loss(model, part), the share that a part, a slice of the batch's B examples, has in the mean loss.

    Returns this mean, and the norm of its gradient.
    """
    size = micro_batch_size(settings, workers.total, workers.ranks.size)
    total = workers.gradient(loss, [slice(i, min(i + size, B)) for i in range(0, B, size)])
    norm = optimizer.step(lr, settings.clip, workers.map) if math.isfinite(total) else math.nan
    return total, norm


def fit(model, settings, loss_at):
    """Train a model on anything, not on texts alone, for settings.steps. Nothing is kept but the model itself.

    loss_at(step) draws a step's batch of settings.batch_size examples and returns its loss(model, part), as `descend` has it.
    Returns the mean of the last settings.log_every losses. Raises UserError where a loss is no longer finite.
    """
    def make(workers, optimizer, step, lr):
        return descend(workers, optimizer, loss_at(step), settings.batch_size, settings, lr)

    with Workers(model, settings.workers) as workers:
        return all_steps(workers, settings, make)


def fit_text(model, settings, training, validation):
    """Train a model on windows of settings.context tokens of a text, ids (N,), as `fit` does. Returns its validation loss."""
    def make(workers, optimizer, step, lr):
        return training_step(workers, optimizer, training, settings.context, settings, step, lr)

    with Workers(model, settings.workers) as workers:
        all_steps(workers, settings, make)
        return validation_loss(workers, validation, settings.context)


def all_steps(workers, settings, make):
    """Make the updates, each by make(workers, optimizer, step, lr), which returns the loss and the norm of its gradient.

    Returns the mean of the last settings.log_every losses.
    """
    optimizer, progress = make_optimizer(workers.model.flat, settings), Progress(settings.steps)
    recent = deque(maxlen=settings.log_every)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(settings.steps):
            loss, norm = make(workers, optimizer, step, learning_rate(settings, step))
            check_finite(None, step + 1, {"loss": loss, "norm of the gradient": norm})
            recent.append(loss)
            progress.update(step + 1, f"loss {sum(recent) / len(recent):.4f}")
    progress.close()
    return sum(recent) / len(recent)


def micro_batch_size(settings, workers, ranks=1):
    """Sequences in a micro-batch: as asked for, or an equal share of the batch for each worker; on a CPU, where a GPU is kept
    busy by as many as there are, that share in equal parts of at most CACHED.

    A batch that does not go round the workers of a single rank is one micro-batch, whose rows they share (parallel.py).
    """
    if settings.batch_size < workers and ranks == 1:
        return settings.micro_batch or settings.batch_size
    most, share = CACHED if settings.device == "cpu" else settings.batch_size, math.ceil(settings.batch_size / workers)
    return settings.micro_batch or math.ceil(share / math.ceil(share / most))


def learning_rate(settings, step):
    """The learning rate of a step, from the settings alone."""
    last = min(settings.last_learning_rate, settings.learning_rate)
    warm_up = min(settings.warm_up, settings.steps)
    return warm_up_hold_fall(step, settings.steps, warm_up, settings.hold, settings.learning_rate, last)


def validation_loss(workers, ids, context, size=16):
    """Mean loss in nats over all tokens of `ids` but the first, in windows of the context that do not overlap."""
    def loss(model, window):
        with no_grad():
            x, y = (np.asarray(part, like=model.flat.data) for part in window)
            return model.loss(x, y, total=1).item()

    return sum(workers.each(loss, list(windows(ids, context, size)))) / (len(ids) - 1)


def loss_of(model, ids):
    """The same by the model alone, on all cores."""
    with Workers(model) as workers:
        return validation_loss(workers, ids, model.config.context)


def check_finite(out, step, numbers):
    """Raise UserError where one of the numbers, by name, is inf or nan: before the parameters are saved.

    out: the folder of the run's checkpoints, or None for a run that keeps none.
    """
    wrong = [f"the {name} was {value}" for name, value in numbers.items() if not math.isfinite(value)]
    if wrong:
        saved = next((name for name in ("latest", "best") if out is not None and (Path(out) / name).exists()), None)
        kept = f"the last good checkpoint is {Path(out) / saved}" if saved else "no checkpoint was saved yet"
        raise UserError(f"at step {step} {' and '.join(wrong)}: training stopped, {kept}; a lower --learning-rate or a "
                        "longer --warm-up usually helps")


class Stop:
    requested = False


@contextmanager
def interruptible():
    """Inside the block Ctrl-C asks to stop, politely (the step is ended and saved); a second one stops at once."""
    stop = Stop()

    def request(number, frame):
        stop.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = signal.signal(signal.SIGINT, request)
    except ValueError:                                      # not in the main thread: there is no Ctrl-C to handle
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
