"""Let a trained model go on with a text.

    python examples/generate.py --checkpoint runs/shakespeare-1 --prompt "ROMEO:"

--checkpoint is the folder of a run, or one checkpoint in it. Of a run, the one with the best validation loss speaks.
"""
import sys
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from minigpt import checkpoint, device
from minigpt.generate import check_rules, generate_text
from minigpt.settings import UserError, program


@dataclass(frozen=True)
class Settings:
    checkpoint: str                 # folder that a training run wrote
    prompt: str = "\n"              # text to go on with
    length: int = 500               # number of tokens to add, at most
    temperature: float = 0.8        # below 1 more of the likely, above 1 less; 0: always the likeliest
    top_k: int = 0                  # draw from the k likeliest tokens only (0: off)
    top_p: float = 1.0              # draw from the likeliest that together reach this probability (1: off)
    stop: str | None = None         # end where this text would appear
    seed: int = 1                   # the same seed gives the same text
    device: Literal["cpu", "cuda"] = "cpu"      # where the model runs: cuda is an NVIDIA GPU, through CuPy

    def __post_init__(self):
        check_rules(self.temperature, self.top_k, self.top_p)
        if self.length < 1 or self.seed < 0:
            raise UserError("--length has to be at least 1 and --seed at least 0")


def main(settings):
    device.prepare(settings.device)
    saved = checkpoint.load(settings.checkpoint)
    model = device.move(saved.model, settings.device)
    pieces = generate_text(model, saved.tokenizer, settings.prompt, settings.length, settings.seed, settings.stop,
                           settings.temperature, settings.top_k, settings.top_p)
    first = next(pieces, "")                                # before the prompt is printed: it may be a wrong one
    for piece in chain([settings.prompt, first], pieces):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()


if __name__ == "__main__":
    program(main, Settings)
