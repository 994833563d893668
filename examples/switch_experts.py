"""Do more parameters at the same cost help? A Switch Transformer and the GPT that does as much work on each character.

    python examples/switch_experts.py                       two trainings: about three minutes on two idle cores
    python examples/switch_experts.py --preset quick        80 steps each: a quarter of a minute
    python examples/switch_experts.py --experts 16          more to choose from
    python examples/switch_experts.py --width 128           a GPT that has enough parameters for so small a text
    python examples/switch_experts.py --data my.txt         any text of yours
    python examples/switch_experts.py --out runs/switch-1   go on where Ctrl-C stopped it

The GPT is that of examples/train_shakespeare.py, half as wide. The Switch Transformer (minigpt/models/switch.py) has several MLPs
in each block where that one has one, and a router that sends each character through one of them: many times the parameters,
and the same arithmetic for a character, but for the router's. Both read the same characters in the same order, with the
same learning rates. In the end the program shows how much each expert is used, and for what.
"""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from train_shakespeare import Settings as Recipe
from train_shakespeare import new_model

from minigpt import checkpoint
from minigpt.data import load_corpus, split, windows
from minigpt.kernels import cpu
from minigpt.models.switch import Switch, SwitchConfig
from minigpt.report import earlier_runs, next_free, prepare_folder, write_results
from minigpt.settings import UserError, program
from minigpt.tokenizers import CharTokenizer
from minigpt.train import fit_text

SHOWN = 4                           # characters shown of each expert, the most frequent ones


@dataclass(frozen=True)
class Settings:
    steps: int = 800                # updates of the parameters in each training
    experts: int = 8                # MLPs in each block of the Switch Transformer
    capacity: float = 1.25          # characters that an expert takes in training, as multiples of an equal share
    balance: float = 0.01           # weight of the loss that keeps all experts at work
    z: float = 0.001                # weight of the loss that keeps the router's scores small
    layers: int = 4                 # blocks of both
    heads: int = 4                  # attention heads in a block
    width: int = 64                 # numbers in the residual stream
    context: int = 128              # characters that they can look back on
    batch_size: int = 16            # sequences in an update
    seed: int = 1                   # of both trainings
    data: str | None = None         # a text file in UTF-8 (none: tiny Shakespeare)
    out: str | None = None          # folder for results.json and both models (none: the next free runs/switch-N)
    workers: int = 0                # worker threads (0: one a core)

    presets: ClassVar[dict[str, dict]] = {"quick": {"steps": 80}}

    def __post_init__(self):
        self.recipe()                                       # checks the settings of training
        if self.experts < 2:
            raise UserError(f"experts is {self.experts}, but a choice takes 2 at least")

    def recipe(self):
        """The settings of both trainings."""
        return Recipe(steps=self.steps, seed=self.seed, workers=self.workers, layers=self.layers, heads=self.heads,
                      width=self.width, context=self.context, batch_size=self.batch_size)


def new_switch(settings, vocabulary_size):
    """A fresh Switch Transformer of the GPT's shape."""
    shape = vocabulary_size, settings.context, settings.layers, settings.heads, settings.width
    more = {"experts": settings.experts, "capacity": settings.capacity, "balance": settings.balance, "z": settings.z}
    return Switch(SwitchConfig(*shape, **more), seed=settings.seed)


def main(settings):
    recipe, corpus = settings.recipe(), load_corpus(settings.data, print)
    tokenizer = CharTokenizer.train(corpus.text)
    training, validation = split(tokenizer.encode(corpus.text), settings.context)
    models = {"gpt_modern": new_model(recipe, corpus)[0], "switch": new_switch(settings, tokenizer.vocabulary_size)}
    if len(validation) <= settings.context:
        raise UserError(f"the last 10% of the text are {len(validation)} characters, too few for a context of "
                        f"{settings.context}: give a longer text, or a smaller --context")
    out = prepare_folder(settings.out or next_free("runs/switch"))
    asked = ("steps", "experts", "capacity", "balance", "z", "layers", "heads", "width", "context", "batch_size", "seed")
    results = {"corpus": corpus.name, "corpus_sha256": corpus.sha256, "kernels": cpu.status(),
               **{name: getattr(settings, name) for name in asked}}
    runs = earlier_runs(out, results)
    print(f"text      {corpus.source}\nkernels   {cpu.status()}\ntraining  {settings.steps} steps of {settings.batch_size} x "
          f"{settings.context} characters each; results in {out}\n", flush=True)
    for name, model in models.items():
        if not any(run["model"] == name for run in runs):
            loss = fit_text(model, recipe, training, validation)
            checkpoint.save(out / name, model, tokenizer)
            runs.append({"model": name, "parameters": len(model.flat), "val_loss": loss})
            write_results(out, results | {"runs": runs})
        run = next(run for run in runs if run["model"] == name)
        print(f"{name:10}  {run['parameters']:>11,} parameters   validation loss {run['val_loss']:.4f}", flush=True)
    switch = checkpoint.load(out / "switch").model
    chosen = choices(switch, validation)
    use = np.stack([np.bincount(block, minlength=settings.experts) / len(block) for block in chosen])
    report(runs, use, chosen, validation[:len(chosen[0])], tokenizer)
    difference = runs[1]["val_loss"] - runs[0]["val_loss"]
    write_results(out, results | {"runs": runs, "difference": difference, "use": use.tolist()})
    print(f"\nsaved in {out}: results.json and both models")


def choices(model, ids):
    """The expert that each block's router chooses for each position of `ids`, but for a short window at the end:
    one array (N,) for each block."""
    whole = [x for x, _ in windows(ids, model.config.context, 16) if x.shape[1] == model.config.context]
    return [np.concatenate(block) for block in zip(*(model.choices(x).reshape(model.config.layers, -1) for x in whole))]


def report(runs, use, chosen, ids, tokenizer):
    """Print who is better, and what the experts do: ids (N,) are the characters that were read."""
    (dense, sparse), per = runs, use.shape[1]
    print(f"\n{sparse['parameters'] / dense['parameters']:.1f} times the parameters at the same work for a character: a loss "
          f"of {sparse['val_loss']:.4f} for {dense['val_loss']:.4f}, {sparse['val_loss'] - dense['val_loss']:+.4f}")
    print(f"\nhow much each of {per} experts is used, on characters that were not learnt from (an equal share is "
          f"{1 / per:.1%}), and\nthe characters it is sent most, with their share of what it is sent:")
    for i, (shares, block) in enumerate(zip(use, chosen), 1):
        print(f"\n  block {i}")
        for e, share in enumerate(shares):
            counts = np.bincount(ids[block == e], minlength=tokenizer.vocabulary_size)
            most = np.argsort(-counts, kind="stable")[:SHOWN]
            shown = "  ".join(f"{tokenizer.decode([c])!r} {counts[c] / counts.sum():.0%}" for c in most if counts[c])
            print(f"    expert {e + 1:<3} {share:6.1%}   {shown}")


if __name__ == "__main__":
    program(main, Settings)
