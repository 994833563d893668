"""How fast is a training step, measured against PyTorch on the same cores in the same minutes?

    python examples/benchmark.py train --preset nanogpt-cpu --against torch

Both sides live in processes of their own and take turns, A B A B ...: a few steps of one, a few of the other, while the
other sleeps. What else the machine does then hits both, and the ratio of neighbours means something where a time alone
would not. A pair in which either side is slower than 1.3 times its own best is discarded. PyTorch (pip install
'.[oracle]') runs the same architecture as one would write it there, with its fused attention and optimizer, eager and
compiled; the faster of these two is the one that counts.

GFLOP/s counts 6 N + 12 L C T operations a token for both. The floor is the time of our own matrix products alone: those
of the linear layers, by the same kernel, in the order of the step, on as many workers, measured in turn with the step.

    python examples/benchmark.py train --preset nanogpt --device cuda --against torch

The same on one GPU. A turn ends when the GPU has done its last step; ours has read the loss and the gradient's norm at
every step, PyTorch's nothing. The floor is cuBLAS's time for the products of our linear layers, and memory the GPU's.

    python examples/benchmark.py race --data FILE

How long until a model has learnt as much? See benchmark_sides/race.py.

    python examples/benchmark.py generate --preset gpt2 --against torch,llama.cpp

How fast does a model write? See benchmark_sides/generate.py.

    python examples/benchmark.py tokenizer --against tiktoken,tokenizers

How fast are texts encoded and vocabularies learnt? See benchmark_sides/tokenizer.py.
"""
import json
import operator
import os
import statistics
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmark_sides import generate, race, tokenizer
from benchmark_sides.process import Side
from minigpt import device
from minigpt.models.gpt import GPTConfig
from minigpt.parallel import cores
from minigpt.report import write_text
from minigpt.settings import UserError, as_dict, program
from minigpt.train import TrainSettings

SLOW = 1.3                          # a pair is discarded where a side is slower than this times its own best


@dataclass(frozen=True)
class Settings:
    against: Literal["torch", "none"] = "none"      # the other side
    layers: int = 4                 # blocks of the GPT
    heads: int = 4                  # attention heads in a block
    width: int = 128                # numbers in the residual stream
    context: int = 64               # tokens in a sequence
    batch_size: int = 12            # sequences in a step
    vocabulary_size: int = 65       # tokens that there are
    dropout: float = 0.0            # share of numbers dropped
    micro_batch: int = 0            # sequences that a worker of ours takes at a time (0: chosen by the library)
    workers: int = 0                # cores for either side (0: all)
    rounds: int = 12                # pairs of turns
    steps: int = 0                  # steps in a turn (0: about two seconds' worth)
    compile: bool = True            # try torch.compile as well
    device: Literal["cpu", "cuda"] = "cpu"      # where both sides train: cuda is an NVIDIA GPU
    precision: Literal["float32", "tf32"] = "float32"   # of a GPU's matrix products, on both sides
    json: str | None = None         # a file that receives the figures

    presets: ClassVar[dict[str, dict]] = {
        "nanogpt-cpu": {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch_size": 12},
        "nanogpt-b8": {"layers": 6, "heads": 6, "width": 384, "context": 256, "batch_size": 8},
        "nanogpt": {"layers": 6, "heads": 6, "width": 384, "context": 256, "batch_size": 64, "dropout": 0.2, "rounds": 4},
        "gpt2": {"layers": 12, "heads": 12, "width": 768, "context": 1024, "batch_size": 2, "vocabulary_size": 50257,
                 "rounds": 4},
    }

    def __post_init__(self):
        TrainSettings(batch_size=self.batch_size, micro_batch=self.micro_batch, workers=self.workers, device=self.device,
                      precision=self.precision)             # says what does not go together
        if self.rounds < 1 or self.steps < 0:
            raise UserError("--rounds has to be at least 1, and --steps can't be negative")


def main(settings):
    device.prepare(settings.device, settings.precision)
    on = f"{settings.workers or cores()} cores" if settings.device == "cpu" else settings.precision
    print(f"kernels {device.status(settings.device)}; {on}; load of the machine before: {os.getloadavg()[0]:.2f}")
    ours = side_of("ours", settings)
    sides = [ours] + other_sides(settings)
    turns, floors = measure(sides, settings)
    peaks = {side.name: side.ask(peak=True)["megabytes"] for side in sides}
    for side in sides:
        side.close()
    figures = {name: figures_of(settings, seconds) | {"peak_mb": peaks[name]} for name, seconds in turns.items()}
    figures["ours"]["floor_share"] = round(statistics.median(map(operator.truediv, floors, turns["ours"])), 3)
    report(settings, turns, figures, statistics.median(floors))


def side_of(script, settings, **extra):
    return Side(script, as_dict(settings), settings.workers or cores(), **extra)


def turn(side, steps):
    """Seconds a step, the mean over one turn."""
    return side.ask(steps=steps)["seconds"] / steps


def other_sides(settings):
    """The PyTorch sides: eager, and compiled where that works."""
    if settings.against == "none":
        return []
    sides = [side_of("pytorch", settings)]
    if settings.compile:
        sides.append(side_of("pytorch", settings, compiled=True))
    return sides


def measure(sides, settings):
    """Seconds a step of every turn, {name: [...]}, the sides in turn; and of our products alone, [...], after each."""
    ours = sides[0]
    steps = {side.name: settings.steps or max(1, round(2 / warm(side))) for side in sides}
    turns, floors = {side.name: [] for side in sides}, []
    for i in range(settings.rounds):
        for side in sides:
            turns[side.name].append(turn(side, steps[side.name]))
            if side is ours:
                floors.append(ours.ask(floor=steps[ours.name])["seconds"] / steps[ours.name])
        print(f"round {i + 1}/{settings.rounds}: " + ", ".join(f"{n} {1000 * t[-1]:.1f} ms" for n, t in turns.items()),
              flush=True)
    return turns, floors


def warm(side):
    """Seconds of a step when everything that happens only once has happened."""
    turn(side, 2)
    return turn(side, 2)


def figures_of(settings, seconds):
    """Median ms a step, tokens/s and GFLOP/s of the turns of one side."""
    median, tokens = statistics.median(seconds), settings.batch_size * settings.context
    config = GPTConfig(settings.vocabulary_size, settings.context, settings.layers, settings.heads, settings.width)
    operations = 6 * config.parameter_count() + 12 * settings.layers * settings.width * settings.context
    return {"ms_per_step": round(1000 * median, 2), "tokens_per_second": round(tokens / median),
            "gflops": round(operations * tokens / median / 1e9, 1)}


def ratios(ours, theirs):
    """Their time over ours, pair by pair, and how many pairs were discarded."""
    good = [(a, b) for a, b in zip(ours, theirs) if a <= SLOW * min(ours) and b <= SLOW * min(theirs)]
    return [b / a for a, b in good], len(ours) - len(good)


def report(settings, turns, figures, floor):
    for name, f in figures.items():
        print(f"{name:16} {f['ms_per_step']:9.1f} ms a step {f['tokens_per_second']:9,} tokens/s {f['gflops']:7.1f} GFLOP/s "
              f"{f['peak_mb']:8.0f} MB")
    print(f"our linear layers' matrix products alone: {1000 * floor:.1f} ms a step; in the median, "
          f"{figures['ours']['floor_share']:.0%} of the step beside them")
    result = {"preset": {"layers": settings.layers, "heads": settings.heads, "width": settings.width,
                         "context": settings.context, "batch_size": settings.batch_size}, "ours": figures["ours"]}
    others = [name for name in turns if name != "ours"]
    if others:
        best = min(others, key=lambda name: figures[name]["ms_per_step"])
        pairs, discarded = ratios(turns["ours"], turns[best])
        if not pairs:
            raise UserError("the machine was too busy: every pair had a side slower than 1.3 times its best; run it again")
        result |= {"torch": figures[best] | {"variant": best}, "discarded": discarded,
                   "ratio": {"median": round(statistics.median(pairs), 3), "min": round(min(pairs), 3),
                             "max": round(max(pairs), 3)}}
        print(f"ours is {result['ratio']['median']:.2f} times as fast as {best} (pair by pair {min(pairs):.2f} to "
              f"{max(pairs):.2f}; {discarded} of {settings.rounds} pairs discarded); load after: {os.getloadavg()[0]:.2f}")
    if settings.json:
        write_text(settings.json, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        del sys.argv[1]
        program(main, Settings)
    elif sys.argv[1:2] in (["generate"], ["race"], ["tokenizer"]):
        side = {"generate": generate, "race": race, "tokenizer": tokenizer}[sys.argv.pop(1)]
        program(side.main, side.Settings)
    elif sys.argv[1:2] in ([], ["--help"]):
        print(__doc__)
    else:
        print(f"error: there is no benchmark {sys.argv[1]!r}: say train, generate, race or tokenizer", file=sys.stderr)
        sys.exit(2)
