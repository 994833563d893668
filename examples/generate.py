"""Let a trained model go on with a text.

    python examples/generate.py --checkpoint runs/shakespeare-1 --prompt "ROMEO:"
    python examples/generate.py --hf gpt2 --prompt "The weather today is"

--checkpoint is the folder of a run, or one checkpoint in it. Of a run, the one with the best validation loss speaks.
--hf is a folder with GPT-2 as Hugging Face's hub has it: config.json, model.safetensors, and the tokenizer's files.
"""
import sys
from dataclasses import dataclass
from itertools import chain

from minigpt import checkpoint, huggingface
from minigpt.generate import check_rules, generate_text
from minigpt.settings import UserError, program


@dataclass(frozen=True)
class Settings:
    checkpoint: str | None = None   # folder that a training run wrote
    hf: str | None = None           # or: folder with a GPT-2 in Hugging Face's layout
    prompt: str = "\n"              # text to go on with
    length: int = 500               # number of tokens to add, at most
    temperature: float = 0.8        # below 1 more of the likely, above 1 less; 0: always the likeliest
    top_k: int = 0                  # draw from the k likeliest tokens only (0: off)
    top_p: float = 1.0              # draw from the likeliest that together reach this probability (1: off)
    stop: str | None = None         # end where this text would appear
    seed: int = 1                   # the same seed gives the same text

    def __post_init__(self):
        if (self.checkpoint is None) == (self.hf is None):
            raise UserError("a model is required, and only one: give the folder of a run as --checkpoint, or one with a "
                            "GPT-2 as --hf")
        check_rules(self.temperature, self.top_k, self.top_p)
        if self.length < 1 or self.seed < 0:
            raise UserError("--length has to be at least 1 and --seed at least 0")


def main(settings):
    saved = huggingface.load(settings.hf, "gpt") if settings.hf is not None else checkpoint.load(settings.checkpoint)
    pieces = generate_text(saved.model, saved.tokenizer, settings.prompt, settings.length, settings.seed, settings.stop,
                           settings.temperature, settings.top_k, settings.top_p)
    first = next(pieces, "")                                # before the prompt is printed: it may be a wrong one
    for piece in chain([settings.prompt, first], pieces):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()


if __name__ == "__main__":
    program(main, Settings)
