"""How fast does a model write, and read its prompt, measured against others on the same cores in the same minutes?

    python examples/benchmark.py generate --preset gpt2 --against torch,llama.cpp

One text, the likeliest token each time, random weights of GPT-2's shape: speed does not depend on their values. With
weights of float32, then of int8, then of int4 (minigpt/quantize.py; llama.cpp: Q8_0 and Q4_0). The sides are processes
that take turns, A B C A B C ...; a ratio is the median over the rounds in which both sides were within 1.3 times their
own best. Beside them stand two limits, measured in our own process in each round:

    memory      the time in which all the weights that a token needs are read once, by as many threads
    products    the time of as many operations as a prompt needs, at the speed of a product of 2048 x 2048 matrices

A prompt of T tokens needs 2 operations for each weight of the blocks and token, and 4 C for each pair of positions
that see each other and layer; the head is asked once. Products are of float32; those of integers can be faster.
"""
import json
import os
import statistics
from dataclasses import dataclass
from typing import ClassVar

from minigpt.kernels import cpu
from minigpt.models.gpt import GPTConfig
from minigpt.parallel import cores
from minigpt.report import write_text
from minigpt.settings import UserError, as_dict

from .process import Side

OTHERS = {"torch": "generate_pytorch", "llama.cpp": "generate_llama_cpp"}
PRECISIONS = {"float32": ("torch", "llama.cpp"), "int8": ("llama.cpp",), "int4": ("llama.cpp",)}     # and who has them
SLOW = 1.3                          # a pair is discarded where a side is slower than this times its own best


@dataclass(frozen=True)
class Settings:
    against: str = "none"           # the other sides: torch, llama.cpp, or both with a comma between them
    precisions: str = "float32,int8,int4"           # of the weights, one after the other
    layers: int = 12                # blocks of the GPT
    heads: int = 12                 # attention heads in a block
    width: int = 768                # numbers in the residual stream
    context: int = 1024             # most tokens of a text
    vocabulary_size: int = 50257    # tokens that there are
    prompt: int = 16                # tokens that are there when the writing begins
    decode: int = 24                # tokens that are written in a turn
    prefill: int = 512              # tokens of the prompt that is read in a turn
    workers: int = 0                # cores for each side (0: all)
    rounds: int = 12                # turns of each side
    json: str | None = None         # a file that receives the figures

    presets: ClassVar[dict[str, dict]] = {
        "gpt2": {}, "quick": {"layers": 2, "heads": 4, "width": 128, "vocabulary_size": 512, "rounds": 3}}

    def __post_init__(self):
        unknown = set(self.others) - set(OTHERS)
        if unknown:
            raise UserError(f"--against knows {' and '.join(OTHERS)}, and not {sorted(unknown)[0]!r}")
        unknown = set(self.precisions.split(",")) - set(PRECISIONS)
        if unknown:
            raise UserError(f"--precisions knows {', '.join(PRECISIONS)}, and not {sorted(unknown)[0]!r}")
        if min(self.prompt, self.decode, self.prefill, self.rounds) < 1:
            raise UserError("--prompt, --decode, --prefill and --rounds have to be at least 1")
        if max(self.prompt + self.decode, self.prefill) >= self.context:
            raise UserError(f"the tokens of a turn have to be fewer than the context of {self.context}")

    @property
    def others(self):
        return [] if self.against == "none" else self.against.split(",")

    def operations(self):
        """Multiplications and additions that the prompt takes, in its blocks and for one row of logits."""
        T, C, L = self.prefill, self.width, self.layers
        return 2 * 12 * L * C * C * T + 4 * L * C * T * (T + 1) / 2 + 2 * C * self.vocabulary_size


def main(settings):
    if not cpu.available():
        raise UserError(f"the limit of memory is measured by a compiled kernel, and there is none: {cpu.why_not()}")
    threads = settings.workers or cores()
    config = GPTConfig(settings.vocabulary_size, settings.context, settings.layers, settings.heads, settings.width)
    print(f"{config.parameter_count():,} parameters; kernels {cpu.status()}; {threads} cores; load of the machine before: "
          f"{os.getloadavg()[0]:.2f}")
    results = {precision: compare(settings, precision, threads) for precision in settings.precisions.split(",")}
    results["load_after"] = round(os.getloadavg()[0], 2)
    if settings.json:
        write_text(settings.json, json.dumps(results, indent=1) + "\n")


def compare(settings, precision, threads):
    """What came out with weights of one precision: {"decode": {side: figures}, "prefill": ...}."""
    others = [name for name in settings.others if name in PRECISIONS[precision]]
    asked = as_dict(settings) | {"precision": precision}
    sides = {"ours": Side("generate_ours", asked, threads)}
    sides |= {name: Side(OTHERS[name], asked, threads) for name in others}
    turns = measure(sides, settings)
    for side in sides.values():
        side.close()
    return {what: report(f"{precision} {what}", number, {name: times[what] for name, times in turns.items()})
            for what, number in (("decode", settings.decode), ("prefill", settings.prefill))}


def measure(sides, settings):
    """Seconds of every turn: {name: {"decode": [...], "prefill": [...]}}, for the sides and for the two limits."""
    turns = {name: {"decode": [], "prefill": []} for name in sides} | {"limit": {"decode": [], "prefill": []}}
    multiplied = 2 * 2048 ** 3 * 4                          # operations of the four products that are timed below
    for round_ in range(-1, settings.rounds):               # in round -1 everything happens that happens only once
        seconds = {name: {what: side.ask(**{what: getattr(settings, what)})["seconds"] for what in ("decode", "prefill")}
                   for name, side in sides.items()}
        seconds["limit"] = {"decode": sides["ours"].ask(read=settings.decode)["seconds"],
                            "prefill": sides["ours"].ask(multiply=4)["seconds"] * settings.operations() / multiplied}
        if round_ < 0:
            continue
        for name in turns:
            for what in "decode", "prefill":
                turns[name][what].append(seconds[name][what])
        print(f"round {round_ + 1}/{settings.rounds}: " + ", ".join(
            f"{name} {settings.decode / times['decode']:.1f} and {settings.prefill / times['prefill']:.0f} tokens/s"
            for name, times in seconds.items()), flush=True)
    return turns


def report(what, number, turns):
    """Print and return what came out: tokens/s of each, and how many times as fast we are."""
    results = {}
    for name, seconds in turns.items():
        results[name] = {"tokens_per_second": round(number / statistics.median(seconds), 1),
                         "best": round(number / min(seconds), 1)}
        line = f"{what:15} {name:10} {results[name]['tokens_per_second']:8.1f} tokens/s (best {results[name]['best']:.1f})"
        pairs = [theirs / ours for ours, theirs in zip(turns["ours"], seconds)
                 if ours <= SLOW * min(turns["ours"]) and theirs <= SLOW * min(seconds)]
        if name != "ours" and pairs:
            results[name] |= {"ratio": round(statistics.median(pairs), 3), "ratio_min": round(min(pairs), 3),
                              "ratio_max": round(max(pairs), 3), "pairs": len(pairs)}
            line += f"; ours is {statistics.median(pairs):.2f} times that ({min(pairs):.2f} to {max(pairs):.2f} in " \
                f"{len(pairs)} of {len(seconds)} rounds)"
        print(line)
    return results
