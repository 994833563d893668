"""What does each ingredient of the modern recipe buy? Take one away at a time, train, and compare.

    python examples/ablate_recipe.py                                15 trainings: 20 minutes on two idle cores
    python examples/ablate_recipe.py --preset quick                 60 steps each: about three minutes
    python examples/ablate_recipe.py --only gelu_mlp,tied_head      the baseline and these two
    python examples/ablate_recipe.py --out runs/recipe-1            go on where Ctrl-C stopped it

The baseline is the default of examples/train_shakespeare.py (models/gpt_modern.py, Muon), with fewer steps. Each function
below that has a name in --only is the baseline with one thing undone; its docstring says what, and what takes its place.
All read as many characters, and all are measured as examples/train_shakespeare.py measures, on the last 10% of the text.

The baseline is trained with three seeds. By how much those differ is noise, and so is a difference that is no larger.
The seed fixes which sequences are read when, and the numbers that the models begin with.
"""
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from train_shakespeare import GPT2, new_model
from train_shakespeare import Settings as Recipe

from minigpt.data import load_corpus, split
from minigpt.kernels import cpu
from minigpt.models.gpt_modern import GPTModern
from minigpt.nn import Embedding, LayerNorm, Module, Parameter, flatten
from minigpt.ops import attention, gelu, linear, rms_norm, rotary
from minigpt.report import earlier_runs, next_free, prepare_folder, write_results
from minigpt.settings import UserError, program
from minigpt.tokenizers import CharTokenizer
from minigpt.train import fit_text


@dataclass(frozen=True)
class Settings:
    steps: int = 600                # updates of the parameters in each training
    seed: int = 1                   # of all trainings; the baseline is also trained with the two seeds that follow
    only: str | None = None         # variants to compare with the baseline, with commas between (none: all)
    data: str | None = None         # a text file in UTF-8 (none: tiny Shakespeare)
    out: str | None = None          # folder for results.json (none: the next free runs/recipe-N)
    workers: int = 0                # worker threads (0: one a core)

    presets: ClassVar[dict[str, dict]] = {"quick": {"steps": 60}}

    def __post_init__(self):
        self.recipe()                                       # checks steps, seed and workers
        self.variants()

    def recipe(self):
        """The settings of the baseline's training."""
        return Recipe(steps=self.steps, seed=self.seed, workers=self.workers)

    def variants(self):
        """The functions whose trainings are asked for: the baseline's, and those in --only."""
        names = {variant.__name__: variant for variant in VARIANTS}
        chosen = list(names) if self.only is None else [name.strip() for name in self.only.split(",")]
        for name in chosen:
            if name not in names:
                raise UserError(f"there is no variant {name!r}: --only takes some of {','.join(names)}")
        return [variant for name, variant in names.items() if name in ("baseline", *chosen)]


# ---- the variants: (settings of the baseline, corpus) -> (model, settings), once for each training ----

def baseline(recipe, corpus):
    """nothing"""
    for seed in range(recipe.seed, recipe.seed + 3):
        seeded = replace(recipe, seed=seed)
        yield modern(seeded, corpus), seeded


def layer_norms(recipe, corpus):
    """rms_norm without a scale -> layer norm with a scale and a shift, wherever the stream is normalised"""
    yield LayerNormGPT(modern(recipe, corpus).config, recipe.seed), recipe


def learned_positions(recipe, corpus):
    """rotary positions -> a learned table of positions, added to the tokens"""
    model = modern(recipe, corpus)
    model.tokens = TokensAndPositions(model.tokens, recipe)
    for block in model.blocks:
        block.attention = OtherAttention(block.attention, rms_norm)
    yield flatten(model), recipe


def free_scores(recipe, corpus):
    """queries and keys normalised -> left as they are, divided by the root of a head's width as before"""
    model = modern(recipe, corpus)
    for block in model.blocks:
        block.attention = OtherAttention(block.attention, rotary)
    yield flatten(model), recipe


def gelu_mlp(recipe, corpus):
    """squared ReLU -> GELU"""
    model = modern(recipe, corpus)
    for block in model.blocks:
        block.mlp = GeluMLP(block.mlp)
    yield flatten(model), recipe


def drawn_outputs(recipe, corpus):
    """the blocks' output matrices begin at 0 -> drawn, with the standard deviation that models/gpt.py gives them"""
    model, rng = modern(recipe, corpus), own_numbers(recipe)
    for block in model.blocks:
        for layer in block.attention.output, block.mlp.output:
            layer.w.data[...] = 0.02 / (2 * recipe.layers) ** 0.5 * rng.standard_normal(layer.w.shape)
    yield model, recipe


def tied_head(recipe, corpus):
    """a head of its own that begins at 0 -> the token table once more, drawn as small as in models/gpt.py"""
    model = modern(recipe, corpus)
    model.tokens.w.data *= 0.02
    model.head = TiedHead(model.tokens)
    yield flatten(model), recipe


def biases(recipe, corpus):
    """no biases -> a learned shift in every linear layer of the blocks"""
    model = modern(recipe, corpus)
    for block in model.blocks:
        a = block.attention
        for layer in a.query, a.key, a.value, a.output, block.mlp.expand, block.mlp.output:
            layer.b = Parameter(np.zeros(layer.w.shape[1]), "vectors")
    yield flatten(model), recipe


def adamw(recipe, corpus):
    """Muon -> AdamW, at the best of three learning rates of its own"""
    for rate in 0.004, 0.008, 0.016:
        last = rate * recipe.last_learning_rate / recipe.learning_rate
        yield modern(recipe, corpus), replace(recipe, optimizer="adamw", learning_rate=rate, last_learning_rate=last)


def falling_rate(recipe, corpus):
    """a learning rate that is constant for 40% of the steps -> one that falls from the start"""
    yield modern(recipe, corpus), replace(recipe, hold=0.0)


def gpt2(recipe, corpus):
    """all of it -> models/gpt.py and AdamW with the settings of --preset gpt2, and as many characters a step"""
    warm_up = GPT2["warm_up"] * recipe.steps // GPT2["steps"]       # the same share of a shorter run
    recipe = replace(recipe, **GPT2 | {"steps": recipe.steps, "batch_size": recipe.batch_size, "warm_up": warm_up})
    yield new_model(recipe, corpus)[0], recipe


VARIANTS = (baseline, layer_norms, learned_positions, free_scores, gelu_mlp, drawn_outputs, tied_head, biases, adamw,
            falling_rate, gpt2)


# ---- what takes the place of a part of models/gpt_modern.py ----

def modern(recipe, corpus):
    """The baseline's model."""
    return new_model(recipe, corpus)[0]


def own_numbers(recipe):
    """A generator for what a variant draws beside the numbers that its model has drawn from the seed."""
    return np.random.default_rng([recipe.seed, 1])


class LayerNormGPT(GPTModern):
    """The modern GPT with layer norms at the stream's beginning, in the blocks and at its end."""

    def __init__(self, config, seed):
        super().__init__(config, seed)
        self.norm1, self.norm2 = LayerNorm(config.width), LayerNorm(config.width)
        self.blocks = [LayerNormBlock(block, config.width) for block in self.blocks]
        flatten(self)

    def stream(self, ids, caches=None, seeds=None):
        x = self.norm1(self.tokens(ids))                                    # (B, T, C)
        for block in self.blocks:
            x = block(x)                                                    # (B, T, C)
        return self.norm2(x)                                                # (B, T, C)


class LayerNormBlock(Module):
    """A block of models/gpt_modern.py that reads the stream through layer norms."""

    def __init__(self, block, width):
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.attention, self.mlp = block.attention, block.mlp

    def forward(self, x):
        x = x + self.attention(self.norm1(x))                               # (B, T, C)
        return x + self.mlp(self.norm2(x))                                  # (B, T, C)


class TokensAndPositions(Module):
    """ids (B, T) -> the sum of the vectors of the token and of its position, (B, T, C)."""

    def __init__(self, tokens, recipe):
        self.tokens = tokens
        self.positions = Embedding(own_numbers(recipe), recipe.context, recipe.width, std=1.0)

    def forward(self, ids):
        return self.tokens(ids) + self.positions(np.arange(ids.shape[1]))   # (B, T, C)


class OtherAttention(Module):
    """The attention of models/gpt_modern.py, where queries and keys are prepared in another way than
    rotary(rms_norm(x)): by one function of arrays (B, T, H, D)."""

    def __init__(self, modern, prepare):
        self.heads, self.prepare = modern.heads, prepare
        self.query, self.key, self.value, self.output = modern.query, modern.key, modern.value, modern.output

    def forward(self, x, cache=None, seeds=None):
        B, T, C = x.shape
        q, k, v = (layer(x).reshape(B, T, self.heads, C // self.heads) for layer in (self.query, self.key, self.value))
        y = attention(self.prepare(q), self.prepare(k), v, causal=True)     # (B, T, H, D)
        return self.output(y.reshape(B, T, C))                              # (B, T, C)


class GeluMLP(Module):
    """The MLP of models/gpt_modern.py with GELU between its matrices."""

    def __init__(self, mlp):
        self.expand, self.output = mlp.expand, mlp.output

    def forward(self, x):
        return self.output(gelu(self.expand(x)))


class TiedHead(Module):
    """The stream (B, T, C) -> logits (B, T, V): how far each position points along each token's vector."""

    def __init__(self, tokens):
        self.tokens = tokens

    def forward(self, x):
        return linear(x, self.tokens.w, transposed=True)


# ---- train them all ----

def main(settings):
    corpus = load_corpus(settings.data, print)
    training, validation = split(CharTokenizer.train(corpus.text).encode(corpus.text), settings.recipe().context)
    out = prepare_folder(settings.out or next_free("runs/recipe"))
    results = {"corpus": corpus.name, "corpus_sha256": corpus.sha256, "steps": settings.steps, "seed": settings.seed,
               "kernels": cpu.status()}
    runs = earlier_runs(out, results)
    print(f"text      {corpus.source}\nkernels   {cpu.status()}\ntraining  {settings.steps} steps each; results in {out}",
          flush=True)
    for variant in settings.variants():
        for model, recipe in variant(settings.recipe(), corpus):
            run = {"variant": variant.__name__, "seed": recipe.seed, "learning_rate": recipe.learning_rate}
            if not any(run.items() <= earlier.items() for earlier in runs):
                loss = fit_text(model, recipe, training, validation)
                runs.append(run | {"parameters": len(model.flat), "val_loss": loss})
                print(f"{run['variant']:18}seed {recipe.seed}, learning rate {recipe.learning_rate:<7g} "
                      f"validation loss {loss:.4f}", flush=True)
                write_results(out, results | summary(runs) | {"runs": runs})
    print("\n" + "\n".join(table(runs)) + f"\n\nsaved in {out}: results.json")


# ---- what came out ----

def losses_of(runs):
    """{variant: the losses of its trainings}."""
    return {name: [run["val_loss"] for run in runs if run["variant"] == name] for name in {run["variant"] for run in runs}}


def summary(runs):
    """For results.json and the table. `baseline`: the mean loss over the seeds; `noise`: by how much they differ at most;
    `losses`: of each variant, that of its best training; `differences`: by how much these are above the baseline."""
    losses = losses_of(runs)
    seeds = losses.pop("baseline")
    mean, best = sum(seeds) / len(seeds), {name: min(of_variant) for name, of_variant in losses.items()}
    return {"baseline": mean, "noise": max(seeds) - min(seeds), "losses": best,
            "differences": {name: loss - mean for name, loss in best.items()}}


def table(runs):
    """The lines of a table in Markdown, and a sentence below it."""
    losses, found = losses_of(runs), summary(runs)
    yield "| | what is undone -> what takes its place | validation loss | difference |"
    yield "|---|---|---|---|"
    for variant in VARIANTS:
        name, of_variant = variant.__name__, [f"{loss:.4f}" for loss in losses.get(variant.__name__, [])]
        if name == "baseline":
            yield f"| {name} | {variant.__doc__} | {found['baseline']:.4f}, the mean of {', '.join(of_variant)} | |"
        elif of_variant:
            several = f", the best of {', '.join(of_variant)}" if len(of_variant) > 1 else ""
            yield (f"| {name} | {variant.__doc__} | {found['losses'][name]:.4f}{several} | "
                   f"{found['differences'][name]:+.4f} |")
    yield ""
    yield f"Three seeds of the baseline differ by up to {found['noise']:.4f}: a difference below that says nothing."


if __name__ == "__main__":
    program(main, Settings)
