"""Write a trained GPT as a folder that Hugging Face's transformers loads.

    python examples/train_shakespeare.py --preset gpt2 --out runs/plain
    python examples/export.py --checkpoint runs/plain --out plain-hf

    >>> from transformers import GPT2LMHeadModel
    >>> model = GPT2LMHeadModel.from_pretrained("plain-hf")

Plain GPT-2 only: transformers has no model that computes what gpt_modern does. Takes a second.
"""
from dataclasses import dataclass
from pathlib import Path

from minigpt import checkpoint, huggingface
from minigpt.settings import program
from minigpt.tokenizers import BpeTokenizer, CharTokenizer


@dataclass(frozen=True)
class Settings:
    checkpoint: str                 # folder that a training run wrote
    out: str                        # folder to write; it must not be there yet, or be empty


def main(settings):
    saved = checkpoint.load(settings.checkpoint)
    huggingface.save(settings.out, saved.model)
    print(f"{len(saved.model.flat):,} parameters in {settings.out}, for transformers' from_pretrained")
    if isinstance(saved.tokenizer, BpeTokenizer):
        saved.tokenizer.save(Path(settings.out, "tokenizer.json"))
    if isinstance(saved.tokenizer, CharTokenizer):
        print(f"token i is character i of {saved.tokenizer.characters!r}")


if __name__ == "__main__":
    program(main, Settings)
