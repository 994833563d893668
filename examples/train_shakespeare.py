"""Train a GPT on Shakespeare, character by character (or in pieces of words), and let it speak.

    python examples/train_shakespeare.py                         about four minutes on two cores
    python examples/train_shakespeare.py --preset best           25 to 30 minutes, and the lowest loss that these take here
    python examples/train_shakespeare.py --preset sprint         ten seconds, for what nanoGPT's recipe takes 2000 steps
    python examples/train_shakespeare.py --preset gpt2           plain GPT-2 with AdamW instead: also about four
    python examples/train_shakespeare.py --preset quick          half a minute, to see all of it work
    python examples/train_shakespeare.py --data my.txt           any text of yours
    python examples/train_shakespeare.py --tokenizer bpe         frequent pieces of words are tokens, as in GPT-2
    python examples/train_shakespeare.py --resume runs/mine      go on with a run that was stopped
    python examples/train_shakespeare.py --device cuda           on an NVIDIA GPU (pip install '.[cuda]')
    mpiexec -n 2 python examples/train_shakespeare.py            two processes, on one machine or two

The first 90% of the text is learnt from, the last 10% measures: the loss shown as "validation" is the mean surprise
at its tokens, in nats, in windows of the model's context that do not overlap. The line to beat is drawn first: what
counting characters alone reaches (minigpt/models/ngram.py). Where a token is more than a character, the losses on the way
are nats a token; the last lines give nats a character, so that all compare. Ctrl-C stops, saves and samples all the same.
"""
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import ClassVar, Literal

from minigpt import checkpoint, device
from minigpt.data import load_corpus, split
from minigpt.generate import generate_text
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.models.ngram import NGram
from minigpt.parallel import cores
from minigpt.ranks import program
from minigpt.report import next_free, plot_losses, prepare_folder, write_results, write_text
from minigpt.sampling import Rules
from minigpt.settings import UserError, as_dict, from_dict, parse
from minigpt.tokenizers import BpeTokenizer, CharTokenizer
from minigpt.train import Position, TrainSettings, train


GPT2 = {"model": "gpt", "optimizer": "adamw", "steps": 2400, "batch_size": 12, "learning_rate": 3e-3,
        "last_learning_rate": 1e-4, "warm_up": 100, "hold": 0.0, "weight_decay": 0.1, "beta2": 0.99, "eval_every": 400}


@dataclass(frozen=True)
class Settings(TrainSettings):
    data: str | None = None         # a text file in UTF-8 (none: tiny Shakespeare)
    out: str | None = None          # folder for everything that the run leaves (none: the next free runs/shakespeare-N)
    resume: str | None = None       # folder of a run to go on with, with its own settings; other flags still win
    stop_after: int | None = None   # stop after this step, as Ctrl-C would
    tokenizer: Literal["char", "bpe"] = "char"      # what a token is: a character, or a frequent piece of a word
    vocabulary_size: int = 1024     # tokens that there are with --tokenizer bpe, at least 256
    model: Literal["gpt_modern", "gpt"] = "gpt_modern"      # the modern GPT; or GPT-2, for which see --preset gpt2
    steps: int = 2400               # updates of the parameters
    optimizer: Literal["adamw", "muon"] = "muon"    # what makes the updates
    learning_rate: float = 0.02     # highest learning rate
    last_learning_rate: float = 4e-4    # learning rate of the last step
    warm_up: int = 20               # steps in which the learning rate rises
    hold: float = 0.4               # share of the steps after which the learning rate begins to fall
    weight_decay: float = 0.0       # decay of matrices (with AdamW of embeddings, too)
    beta2: float = 0.95             # AdamW: how long the mean of squared gradients remembers
    eval_every: int = 600           # steps between two validations, each of which saves a checkpoint
    layers: int = 4                 # blocks of the GPT
    heads: int = 4                  # attention heads in a block
    width: int = 128                # numbers in the residual stream
    context: int = 128              # tokens that the model can look back on
    dropout: float = 0.0            # share of numbers dropped while training
    bias: bool = True               # learned shifts in linear layers and norms; GPT-2 alone has any
    sample_length: int = 600        # tokens in the sample at the end
    counting_order: int = 7         # characters in the n-grams of the counting model to compare with (0: none)

    presets: ClassVar[dict[str, dict]] = {
        "quick": {"steps": 300, "eval_every": 100},
        "sprint": {"steps": 280, "eval_every": 280, "layers": 2, "context": 64, "learning_rate": 0.06, "hold": 0.3,
                   "last_learning_rate": 1.2e-3, "warm_up": 10, "momentum": 0.85},
        "best": {"steps": 2200, "eval_every": 220, "width": 256, "context": 256, "dropout": 0.1, "warm_up": 40},
        "gpt2": GPT2,
        "nanogpt-cpu": GPT2 | {"steps": 2000, "context": 64, "learning_rate": 1e-3},
    }

    def __post_init__(self):
        super().__post_init__()
        if self.sample_length < 1 or (self.stop_after is not None and self.stop_after < 1):
            raise UserError("--sample-length and --stop-after have to be at least 1")
        if self.counting_order < 0:
            raise UserError(f"counting_order is {self.counting_order}, but can't be negative")


def main(settings, ranks):
    settings, saved = (settings, None) if settings.resume is None else saved_run(settings)
    device.prepare(settings.device, settings.precision, ranks.size)
    corpus = ranks.first(load_corpus, settings.data, print)     # one rank fetches, all know
    print(f"text      {corpus.source}")
    model, tokenizer = (saved.model, saved.tokenizer) if saved else new_model(settings, corpus)
    check_same_corpus(saved, corpus)
    device.move(model, settings.device)
    training, validation = split(corpus.text, settings.context, tokenizer.encode)
    out = ranks.first(prepare_out, settings, saved)
    print(f"tokens    {settings.tokenizer}, {tokenizer.vocabulary_size:,} different ones; "
          f"{len(training):,} to learn from, {len(validation):,} to measure by")
    print(f"model     {model.name}, {settings.layers} layers, {settings.heads} heads, width {settings.width}, context "
          f"{settings.context}: {len(model.flat):,} parameters")
    several = f"{ranks.size} ranks of " if ranks.size > 1 else ""
    on = f"{settings.workers or cores(ranks)} worker threads" if settings.device == "cpu" else settings.precision
    print(f"kernels   {device.status(settings.device)}; {several}{on}")
    counting = ranks.first(counting_loss, settings, corpus)
    if counting is not None:
        print(f"counting  {settings.counting_order}-grams reach {counting:.4f} nats a character")
    print(f"training  {settings.steps} steps of {settings.batch_size} x {settings.context} {unit(settings)}s; results in "
          f"{out}", flush=True)

    position = from_dict(Position, saved.training["position"], f"{saved.folder}, 'position',") if saved else None
    keep = {"settings": as_dict(settings), "corpus_sha256": corpus.sha256}
    position, interrupted = train(model, tokenizer, training, validation, settings, out, position, keep,
                                  settings.stop_after, ranks)
    if ranks.rank == 0:
        report(model, tokenizer, corpus, settings, out, position, interrupted, counting)


def unit(settings):
    """What a token is, in words."""
    return "character" if settings.tokenizer == "char" else "token"


def tokens_per_character(settings, tokenizer, corpus):
    """By this, nats a token become nats a character; as in the loss, the first token of the text is not counted."""
    _, text = split(corpus.text, settings.context)
    ids = tokenizer.encode(text)
    return (len(ids) - 1) / (len(text) - len(tokenizer.decode(ids[:1])))


def counting_loss(settings, corpus):
    """What counting characters reaches, in nats a character; None with --counting-order 0."""
    if not settings.counting_order:
        return None
    characters = CharTokenizer.train(corpus.text)
    training, validation = split(corpus.text, settings.context, characters.encode)
    return NGram(characters.vocabulary_size, settings.counting_order).fit(training).loss(validation)


def new_tokenizer(settings, corpus):
    """The tokenizer of the text's characters; or one that learns what is frequent, from what is to be learnt from."""
    if settings.tokenizer == "char":
        return CharTokenizer.train(corpus.text)
    return BpeTokenizer.train(split(corpus.text, settings.context)[0], settings.vocabulary_size)


def new_model(settings, corpus):
    """A fresh GPT, and the tokenizer of its text."""
    tokenizer = new_tokenizer(settings, corpus)
    shape = tokenizer.vocabulary_size, settings.context, settings.layers, settings.heads, settings.width
    if settings.model == "gpt":
        return GPT(GPTConfig(*shape, settings.bias, settings.dropout), seed=settings.seed), tokenizer
    return GPTModern(GPTModernConfig(*shape, settings.dropout), seed=settings.seed), tokenizer


def saved_run(settings):
    """The settings of the run in --resume, with what the command line says on top, and its latest checkpoint."""
    folder = settings.resume
    if Path(folder, "config.json").exists():
        raise UserError(f"{folder} is one checkpoint of a run: give --resume the folder of the run, in which it is")
    saved = checkpoint.load(folder, ["latest"])
    if "settings" not in saved.training or "position" not in saved.training:
        raise UserError(f"{saved.folder} was not written by this program, so training can't go on from it")
    settings = parse(Settings, defaults=saved.training["settings"] | {"out": folder, "resume": None, "stop_after": None})
    before = {"tokenizer": "char"} | saved.training["settings"]
    shape = as_dict(saved.model.config) | {"model": saved.model.name, "tokenizer": before["tokenizer"]}
    shape["vocabulary_size"] = before.get("vocabulary_size", settings.vocabulary_size)     # what was asked for
    for name in ("model", "layers", "heads", "width", "context", "dropout", "bias", "tokenizer", "vocabulary_size"):
        if getattr(settings, name) != shape.get(name, getattr(settings, name)):
            raise UserError(f"the model in {folder} has {name} {shape[name]}, which can't be changed to "
                            f"{getattr(settings, name)} now: leave --{name.replace('_', '-')} out, or start a new run")
    if Path(settings.out) != Path(folder):
        raise UserError(f"--resume goes on in the folder it is given, {folder}: leave --out out")
    return settings, saved


def check_same_corpus(saved, corpus):
    if saved and saved.training.get("corpus_sha256") != corpus.sha256:
        raise UserError(f"the run in {saved.folder} learnt from another text than {corpus.name}: give its own with --data")


def prepare_out(settings, saved):
    """The folder for the run; never one that holds another run."""
    out = Path(settings.out or next_free("runs/shakespeare"))
    if not saved and any(Path(out, name).exists() for name in ("best", "latest")):
        raise UserError(f"{out} holds a run already: go on with it by --resume {out}, or choose another --out")
    return prepare_folder(out)


def report(model, tokenizer, corpus, settings, out, position, interrupted, counting):
    """Print and write what there is to see: a sample, the losses, the plot."""
    prompt = "\n" if "\n" in corpus.text else corpus.text[0]
    sample = "".join(generate_text(model, tokenizer, prompt, settings.sample_length, settings.seed, rules=Rules(0.8)))
    write_text(out / "sample.txt", sample)
    print(f"\n{sample}\n" + "-" * 72)
    factor = tokens_per_character(settings, tokenizer, corpus)
    loss, best = position.val_loss * factor, position.best_val_loss * factor
    results = {"val_loss": position.val_loss, "best_val_loss": position.best_val_loss,
               "val_loss_per_character": loss, "tokenizer": settings.tokenizer,
               "vocabulary_size": tokenizer.vocabulary_size, "seconds": position.seconds,
               "tokens": position.tokens, "steps": position.step, "parameters": len(model.flat), "corpus": corpus.name,
               "corpus_sha256": corpus.sha256, "kernels": device.status(settings.device), "counting_loss": counting,
               "counting_order": settings.counting_order}
    write_results(out, results)
    lines = {} if counting is None else {f"counting,\n{settings.counting_order}-grams": counting / factor}
    hint = plot_losses(out, f"{model.name}, {len(model.flat):,} parameters, {corpus.name}", lines, unit(settings))
    if interrupted:
        print(f"stopped at step {position.step}; to go on: python examples/train_shakespeare.py --resume {out}")
    print(f"validation loss {loss:.4f} nats a character (best {best:.4f}) after {position.tokens:,} {unit(settings)}s in "
          f"{position.seconds:.0f} s")
    if counting is not None:
        verdict = "better than" if loss < counting else "still worse than"
        print(f"that is {verdict} counting: {settings.counting_order}-grams reach {counting:.4f}")
    if hint:
        print(hint)
    print(f"saved in {out}: metrics.jsonl, results.json, sample.txt, {'' if hint else 'loss.png, '}the checkpoints best and "
          "latest")
    prompt = next(line for line in corpus.text.splitlines() if line.strip())[:20]
    print(f"to hear more: python examples/generate.py --checkpoint {quote(str(out))} --prompt {quote(prompt)}")


if __name__ == "__main__":
    program(main, Settings)
