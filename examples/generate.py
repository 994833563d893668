"""Let a trained model go on with a text.

    python examples/generate.py --checkpoint runs/shakespeare-1 --prompt "ROMEO:"
    python examples/generate.py --hf gpt2 --prompt "The weather today is"
    python examples/generate.py --checkpoint runs/shakespeare-1 --quantize int4 --save runs/int4 --prompt "ROMEO:"

--checkpoint is the folder of a run, or one checkpoint in it. Of a run, the one with the best validation loss speaks.
--hf is a folder with GPT-2 as Hugging Face's hub has it: config.json, model.safetensors, and the tokenizer's files.
--draft is another run, of a smaller model on the same text, that guesses ahead (minigpt/speculative.py): the text is as
likely as without it, and comes faster where the large model is much slower than the small one.
--quantize makes the weights integers (minigpt/quantize.py) and says what that does to the bytes and to the loss, on the last
tenth of --data, the validation text of a run on it: seconds for a small model, a minute or two for a GPT-2. --save keeps the
result, a checkpoint as any other, for --checkpoint.
"""
import os
import sys
from dataclasses import dataclass
from typing import Literal

from minigpt import checkpoint, device, huggingface
from minigpt.data import load_corpus
from minigpt.data.batches import VALIDATION_SHARE
from minigpt.generate import generate_text
from minigpt.quantize import quantize_and_compare
from minigpt.sampling import Chance, Rules
from minigpt.settings import UserError, program
from minigpt.speculative import Speculation
from minigpt.train import loss_of


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
    slide: bool = True              # when the context is full, go on with the later half of the text in sight
    draft: str | None = None        # folder of a run whose model guesses ahead
    guesses: int = 4                # tokens that it guesses at a time
    quantize: Literal["none", "int8", "int4"] = "none"      # what the weights become
    data: str | None = None         # text that tells how much worse the model is then (none: tiny Shakespeare)
    loss_tokens: int = 32768        # tokens of it that are read for that, at most
    save: str | None = None         # folder to save the quantised model in, which must not be there yet
    seed: int = 1                   # the same seed gives the same text
    device: Literal["cpu", "cuda"] = "cpu"      # where the models run: cuda is an NVIDIA GPU, through CuPy

    def __post_init__(self):
        if (self.checkpoint is None) == (self.hf is None):
            raise UserError("a model is required, and only one: give the folder of a run as --checkpoint, or one with a "
                            "GPT-2 as --hf")
        self.rules()
        if self.length < 1 or self.seed < 0:
            raise UserError("--length has to be at least 1 and --seed at least 0")
        if self.loss_tokens < 2:
            raise UserError("--loss-tokens has to be at least 2")
        if self.quantize == "none" and (self.save or self.data):
            raise UserError("--save and --data are for a model that is quantised: say --quantize int8 or int4 as well")
        if self.quantize != "none" and self.device != "cpu":
            raise UserError("a quantised model runs on a CPU only: leave --device cuda or --quantize out")

    def rules(self):
        return Rules(self.temperature, self.top_k, self.top_p)


def main(settings):
    device.prepare(settings.device)
    saved = huggingface.load(settings.hf, "gpt") if settings.hf is not None else checkpoint.load(settings.checkpoint)
    device.move(saved.model, settings.device)
    if settings.quantize != "none":
        quantize(saved, settings)
    if saved.model.quantized is not None:
        print(saved.model.quantized, file=sys.stderr)
    if settings.draft is None:
        show(settings.prompt, generate_text(saved.model, saved.tokenizer, settings.prompt, settings.length, settings.seed,
                                            settings.stop, settings.rules(), settings.slide))
        return
    draft = checkpoint.load(settings.draft)
    if draft.tokenizer.to_dict() != saved.tokenizer.to_dict():
        raise UserError(f"{settings.draft} has another tokenizer than {saved.folder}: a draft has to be trained with the "
                        "same one")
    device.move(draft.model, settings.device)
    with Speculation(saved.model, draft.model, settings.rules(), Chance(settings.seed), settings.guesses) as speculation:
        show(settings.prompt, speculation.text(saved.tokenizer, settings.prompt, settings.length, settings.stop))
    print(f"{speculation.accepted} of {speculation.guessed} guesses of {settings.draft} were kept", file=sys.stderr)


def quantize(saved, settings):
    """Quantise the model, measure what that does, and save it if that is wanted."""
    if settings.save and os.path.exists(settings.save):
        raise UserError(f"{settings.save} is there already: choose a --save that is not")
    corpus = load_corpus(settings.data, log=lambda line: print(line, file=sys.stderr))
    context, last = saved.model.config.context, int(len(corpus.text) * VALIDATION_SHARE)
    ids = saved.tokenizer.encode(corpus.text[len(corpus.text) - last:])[:settings.loss_tokens]
    if len(ids) < 2:
        raise UserError(f"the last tenth of {corpus.name} has {len(ids)} tokens, too few to measure a loss on: give another "
                        "--data")
    text = f"the first {len(ids):,} tokens of the last tenth of {corpus.name}, in a context of {context}"
    quantize_and_compare(saved.model, settings.quantize, lambda model: loss_of(model, ids), text)
    if settings.save:
        checkpoint.save(settings.save, saved.model, saved.tokenizer, saved.training)


def show(prompt, pieces):
    """Write the prompt, then the pieces as they come; nothing if the first one is an error: the prompt may be wrong."""
    piece = next(pieces, "")
    sys.stdout.write(prompt)
    while piece is not None:
        sys.stdout.write(piece)
        sys.stdout.flush()
        piece = next(pieces, None)
    print()


if __name__ == "__main__":
    program(main, Settings)
