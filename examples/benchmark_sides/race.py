"""How long does it take to learn as much? Our recipe against nanoGPT's for a CPU, in PyTorch, side by side.

    python examples/benchmark.py race --data shakespeare.txt

PyTorch trains as nanoGPT's README says for a CPU: GPT-2 of 4 layers, 4 heads and width 128, context 64, 2000 steps of 12
sequences, AdamW, no dropout. Ours is `train_shakespeare.py --preset sprint`, which ends sooner. The two take turns on the
same cores. Counted is the time of the steps, for both; then each tells its loss on the last 10% of the text, all of it,
in windows that do not overlap. nanoGPT's own report of that run is 1.88, of a few windows; all of them give about 1.9.
"""
import json
import statistics
from dataclasses import asdict, dataclass
from typing import ClassVar

from minigpt.data import load_corpus
from minigpt.parallel import cores
from minigpt.report import write_text
from minigpt.tokenizers import CharTokenizer

from benchmark_sides.process import Side


@dataclass(frozen=True)
class Settings:
    data: str | None = None         # a text file in UTF-8 (none: tiny Shakespeare)
    rounds: int = 3                 # runs of each side
    steps: int = 0                  # of PyTorch's run (0: 2000); ours gets the same share of its own
    workers: int = 0                # cores for each side (0: all)
    json: str | None = None         # a file that receives the figures

    presets: ClassVar[dict[str, dict]] = {"quick": {"rounds": 1, "steps": 20}}


def main(settings):
    corpus = load_corpus(settings.data, print)
    print(f"text {corpus.source}")
    given = {"data": settings.data, "share": (settings.steps or 2000) / 2000}
    sides = {name: Side(f"race_{name}", given, settings.workers or cores()) for name in ("ours", "pytorch")}
    runs = {name: [] for name in sides}
    for i in range(settings.rounds):
        for name, side in sides.items():
            runs[name].append(side.ask(seed=i))
            print(f"round {i + 1}/{settings.rounds}: {name} {runs[name][-1]['seconds']:.1f} s, validation loss "
                  f"{runs[name][-1]['val_loss']:.4f}", flush=True)
    for side in sides.values():
        side.close()
    report(settings, runs)


def tokens(data):
    """The text's characters as numbers, for a side."""
    text = load_corpus(data, lambda line: None).text
    return CharTokenizer.train(text).encode(text)


def report(settings, runs):
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(runs["ours"], runs["pytorch"])]
    losses = {name: [run["val_loss"] for run in runs[name]] for name in runs}
    print(f"ours took 1/{statistics.median(ratios):.1f} of PyTorch's time (1/{min(ratios):.1f} to 1/{max(ratios):.1f}), and "
          f"reached {statistics.median(losses['ours']):.4f}, where PyTorch reached {statistics.median(losses['pytorch']):.4f}")
    if settings.json:
        write_text(settings.json, json.dumps({"settings": asdict(settings), "runs": runs, "ratios": ratios}, indent=1) + "\n")
