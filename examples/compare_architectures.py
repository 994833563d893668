"""Counting, RNN, LSTM, GPT and Switch Transformer on one text: who learns most from as many characters?

    python examples/compare_architectures.py                        four trainings: about three minutes on two idle cores
    python examples/compare_architectures.py --preset quick         seconds, to see all of it work
    python examples/compare_architectures.py --preset full          three seeds of larger networks: about 40 minutes
    python examples/compare_architectures.py --only lstm,gpt        counting and these two
    python examples/compare_architectures.py --data my.txt          any text of yours
    python examples/compare_architectures.py --out runs/compare-1   go on where Ctrl-C stopped it

RNN, LSTM and GPT have about the same number of parameters; the Switch Transformer has the GPT's shape and does the same
work for a character, with several times the parameters. All read the same windows of characters in the same order, each
with the learning rate that suits it. N-grams count the text to learn from once. All are
measured on the last 10% of the text, in windows of the networks' context that do not overlap:

    bits a character, after the training and on the way          compare.png, on the left
    how fast they learn, in characters a second                  one after the other, or side by side: the GPT's reason to be
    the loss after 1, 2, 4 ... characters of context             compare.png, on the right: how far each of them looks back

A recurrent network can read on for ever: what that is worth is measured as well, with its state handed on through all
of the text. The seed fixes which windows are read when, and the numbers that the networks begin with.
"""
import math
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from train_shakespeare import Settings as Recipe

from minigpt import no_grad
from minigpt.data import load_corpus, split, windows
from minigpt.kernels import cpu
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.models.ngram import NGram
from minigpt.models.rnn import RNN, RNNConfig
from minigpt.models.switch import Switch, SwitchConfig
from minigpt.ops import log_softmax
from minigpt.parallel import Workers
from minigpt.report import Progress, earlier_runs, next_free, prepare_folder, save_picture, write_results
from minigpt.settings import UserError, program
from minigpt.tokenizers import CharTokenizer
from minigpt.train import check_finite, learning_rate, make_optimizer, micro_batch_size, training_step, validation_loss

BIT = math.log(2)                   # nats
NETWORKS = "rnn", "lstm", "gpt", "switch"
RECURRENT = "rnn", "lstm"
LSTM_LAYERS = 2                     # at most: after 300 steps 4 layers had a loss of 1.93 nats, 2 layers 1.74


@dataclass(frozen=True)
class Settings:
    steps: int = 400                # updates of the parameters in each training
    batch_size: int = 16            # sequences in an update
    context: int = 128              # characters in a sequence: as far as a GPT can look back
    layers: int = 2                 # blocks of GPT and Switch Transformer, layers of the RNN; of the LSTM, at most 2
    heads: int = 4                  # attention heads in a block
    width: int = 128                # numbers in the GPT's stream; the recurrent networks are as wide as its parameters allow
    rnn_rate: float = 0.01          # highest learning rate of the RNN
    lstm_rate: float = 0.04         # of the LSTM; half of it is better from about 1000 steps on
    rate: float = 0.02              # of the GPT and of the Switch Transformer
    experts: int = 8                # MLPs in each block of the Switch Transformer
    order: int = 7                  # characters in the longest n-gram
    seeds: int = 1                  # trainings of each network, with this many seeds from --seed on
    points: int = 6                 # times that the loss is measured on the way
    seed: int = 1                   # of the first training
    only: str | None = None         # networks to train, with commas between (none: all)
    data: str | None = None         # a text file in UTF-8 (none: tiny Shakespeare)
    out: str | None = None          # folder for results.json and compare.png (none: the next free runs/compare-N)
    workers: int = 0                # worker threads (0: one a core)

    presets: ClassVar[dict[str, dict]] = {
        "quick": {"steps": 12, "layers": 1, "width": 32, "heads": 2, "context": 32, "batch_size": 8, "experts": 2, "order": 3,
                  "points": 2},
        "full": {"steps": 1500, "layers": 4, "seeds": 3, "points": 10, "lstm_rate": 0.02},
    }

    def __post_init__(self):
        self.recipe("gpt", self.seed)                       # checks the settings of training, and
        GPTModernConfig(*self.shape(1))                     # the shape
        self.networks()
        for name in "experts", "order", "seeds", "points":
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but has to be at least 1")
        if self.points > self.steps:
            raise UserError(f"points is {self.points}, but there are {self.steps} steps only")

    def recipe(self, name, seed):
        """The settings of a network's training."""
        rate = {"rnn": self.rnn_rate, "lstm": self.lstm_rate}.get(name, self.rate)
        recipe = Recipe(steps=self.steps, batch_size=self.batch_size, context=self.context, layers=self.layers,
                        heads=self.heads, width=self.width, workers=self.workers, seed=seed, learning_rate=rate,
                        last_learning_rate=rate / 50)
        if name in RECURRENT:                               # one step after the other: as many sequences at once as there are
            recipe = replace(recipe, micro_batch=micro_batch_size(recipe, self.workers or 1))
        return recipe

    def shape(self, V):
        """The GPT's shape, for V different characters."""
        return V, self.context, self.layers, self.heads, self.width

    def networks(self):
        """The networks that are asked for."""
        chosen = list(NETWORKS) if self.only is None else [name.strip() for name in self.only.split(",")]
        wrong = [name for name in chosen if name not in NETWORKS]
        if wrong:
            raise UserError(f"there is no network {wrong[0]!r}: --only takes some of {','.join(NETWORKS)}")
        return [name for name in NETWORKS if name in chosen]


# ---- the networks ----

def new_network(name, settings, V, seed):
    """A fresh network of the kind, for V different characters."""
    shape = settings.shape(V)
    if name == "gpt":
        return GPTModern(GPTModernConfig(*shape), seed)
    if name == "switch":
        return Switch(SwitchConfig(*shape, experts=settings.experts), seed)
    wanted = GPTModernConfig(*shape).parameter_count()

    layers = min(settings.layers, LSTM_LAYERS) if name == "lstm" else settings.layers

    def config(width):
        return RNNConfig(V, settings.context, layers, width, name)

    width = min(range(8, 8 * settings.width + 8, 8), key=lambda width: abs(config(width).parameter_count() - wanted))
    return RNN(config(width), seed)


def train(name, settings, training, validation, V, seed):
    """Train a network. What is kept of it, plain JSON: its losses in nats a character on the way, [tokens, loss], and at the
    end, by how much context there is; and how long it took."""
    recipe, model = settings.recipe(name, seed), new_network(name, settings, V, seed)
    optimizer, context, curve, seconds = make_optimizer(model.flat, recipe), settings.context, [], 0.0
    progress = Progress(recipe.steps)
    marks = {settings.steps * (i + 1) // settings.points for i in range(settings.points)}
    with Workers(model, recipe.workers) as workers:
        for step in range(recipe.steps):
            begin, rate = time.perf_counter(), learning_rate(recipe, step)
            loss, norm = training_step(workers, optimizer, training, context, recipe, step, rate)
            seconds += time.perf_counter() - begin
            check_finite(None, step + 1, {"loss": loss, "norm of the gradient": norm})
            progress.update(step + 1, f"{name}  loss {loss:.4f}")
            if step + 1 in marks:
                curve.append([(step + 1) * recipe.batch_size * context, validation_loss(workers, validation, context)])
        progress.close()
        by_context = losses_by_context(workers, validation, context)
        on = reading_on(model, validation, context) if name in RECURRENT else None
    return {"network": name, "seed": seed, "parameters": len(model.flat), "val_loss": curve[-1][1], "curve": curve,
            "tokens_per_second": round(curve[-1][0] / seconds), "by_context": by_context, "reading_on": on}


# ---- how far they look back ----

def losses_by_context(workers, ids, context):
    """The mean loss at the last position of windows' beginnings of 1, 2, ... `context` tokens, a list of as many numbers."""
    def surprise(model, window):
        x, y = window
        with no_grad():
            log_p = log_softmax(model(x)).data
        return -np.take_along_axis(log_p, y[..., None], -1)[..., 0].sum(0, dtype=np.float64), len(x)

    parts = workers.each(surprise, [window for window in windows(ids, context, 16) if window[0].shape[1] == context])
    return (sum(total for total, _ in parts) / sum(number for _, number in parts)).tolist()


def counted_by_context(model, ids, context):
    """The same of n-grams, which see no more than the window either."""
    whole = [x for x, _ in windows(ids, context, 1) if x.shape[1] == context]
    beginnings = range(0, len(whole) * context, context)
    return (-sum(model.log_probabilities(ids[i:i + context + 1]) for i in beginnings) / len(whole)).tolist()


def reading_on(model, ids, piece):
    """The mean loss of a recurrent network that reads all of ids (N,), its state handed on from piece to piece."""
    states, total = None, 0.0
    for begin in range(0, len(ids) - 1, piece):
        x, y = ids[begin:begin + piece][:len(ids) - 1 - begin], ids[begin + 1:begin + piece + 1]
        logits, states = model.read(x[None], states)
        log_p = log_softmax(logits[0]).data
        total -= float(log_p[np.arange(len(y)), y].sum(dtype=np.float64))
    return total / (len(ids) - 1)


def spans(context):
    """Lengths of context that are shown together: 1, 2, 3-4, 5-8, ... as slices of a list by length."""
    ends = [min(2 ** i, context) for i in range(context.bit_length() + 1)]
    ends = sorted(set(ends))
    return [slice(begin, end) for begin, end in zip([0, *ends], ends)]


# ---- all of them ----

def main(settings):
    corpus = load_corpus(settings.data, print)
    tokenizer = CharTokenizer.train(corpus.text)
    training, validation = split(tokenizer.encode(corpus.text), settings.context)
    if len(validation) <= settings.context:
        raise UserError(f"the last 10% of the text are {len(validation)} characters, too few for a context of "
                        f"{settings.context}: give a longer text, or a smaller --context")
    out = prepare_folder(settings.out or next_free("runs/compare"))
    asked = ("steps", "batch_size", "context", "layers", "heads", "width", "experts", "order", "seed", "points",
             "rnn_rate", "lstm_rate", "rate")
    results = {"corpus": corpus.name, "corpus_sha256": corpus.sha256, "kernels": cpu.status(),
               **{name: getattr(settings, name) for name in asked}}
    runs, V = earlier_runs(out, results), tokenizer.vocabulary_size
    print(f"text      {corpus.source}\nkernels   {cpu.status()}\ntraining  {settings.steps} steps of {settings.batch_size} x "
          f"{settings.context} characters each; results in {out}\n", flush=True)
    counting = NGram(V, settings.order).fit(training)
    results |= {"counting_loss": counting.loss(validation),
                "counting_by_context": counted_by_context(counting, validation, settings.context)}
    print(f"{settings.order}-grams     {results['counting_loss'] / BIT:.4f} bits a character", flush=True)
    for seed in range(settings.seed, settings.seed + settings.seeds):
        for name in settings.networks():
            run = next((run for run in runs if (run["network"], run["seed"]) == (name, seed)), None)
            if run is None:
                run = train(name, settings, training, validation, V, seed)
                runs.append(run)
                write_results(out, results | {"runs": runs})
            print(f"{name:10}  {run['val_loss'] / BIT:.4f} bits a character   seed {seed}, {run['parameters']:,} parameters, "
                  f"{run['tokens_per_second']:,} characters/s", flush=True)
    found = summary(runs)
    write_results(out, results | {"runs": runs, "summary": found})
    print("\n" + "\n".join(table(settings, results, found)) + "\n\n" + "\n".join(verdicts(settings, results, found)))
    hint = plot(out, settings, results, runs)
    print(f"\n{hint or 'the picture is compare.png'}; saved in {out}: results.json")


def summary(runs):
    """{network: what its trainings have in common, means over the seeds}; `spread`: of the losses, highest less lowest."""
    found = {}
    for name in dict.fromkeys(run["network"] for run in runs):
        of_it = [run for run in runs if run["network"] == name]
        losses = [run["val_loss"] for run in of_it]
        found[name] = {"seeds": len(of_it), "parameters": of_it[0]["parameters"], "val_loss": sum(losses) / len(losses),
                       "spread": max(losses) - min(losses),
                       "tokens_per_second": sorted(run["tokens_per_second"] for run in of_it)[len(of_it) // 2],
                       "by_context": np.mean([run["by_context"] for run in of_it], 0).tolist(),
                       "reading_on": None if of_it[0]["reading_on"] is None else
                       sum(run["reading_on"] for run in of_it) / len(of_it)}
    return found


# ---- what came out ----

def table(settings, results, found):
    """The lines of a table in Markdown: bits a character, over all and by the characters of context."""
    parts = spans(settings.context)
    names = [f"{s.stop}" if s.stop == s.start + 1 else f"{s.start + 1}-{s.stop}" for s in parts]
    yield "| bits a character | parameters | all | spread | characters/s | " + " | ".join(names) + " |"
    yield "|---|---|---|---|---|" + "---|" * len(names)

    def cells(by_context):
        return " | ".join(f"{np.mean(by_context[part]) / BIT:.2f}" for part in parts)

    yield f"| {settings.order}-grams | | {results['counting_loss'] / BIT:.4f} | | | {cells(results['counting_by_context'])} |"
    for name, of_it in found.items():
        spread = f"{of_it['spread'] / BIT:.4f}" if of_it["seeds"] > 1 else ""
        yield (f"| {name} | {of_it['parameters']:,} | {of_it['val_loss'] / BIT:.4f} | {spread} | "
               f"{of_it['tokens_per_second']:,} | {cells(of_it['by_context'])} |")


def verdicts(settings, results, found):
    """Sentences that say who wins at this budget, and how far each looks back."""
    order = sorted(found, key=lambda name: found[name]["val_loss"])
    tokens, counting = settings.steps * settings.batch_size * settings.context, results["counting_loss"]
    yield f"After {tokens:,} characters the lowest loss is that of {order[0]}, then {', '.join(order[1:]) or 'nobody'}."
    below = [name for name in order if found[name]["val_loss"] < counting]
    yield (f"Better than counting ({counting / BIT:.4f}): {', '.join(below)}." if below else
           f"None is better than counting ({counting / BIT:.4f}) with so few.")
    if "gpt" in found and "switch" in found:
        difference = (found["switch"]["val_loss"] - found["gpt"]["val_loss"]) / BIT
        yield f"Switch against GPT, at equal work for a character: {difference:+.4f} bits."
    first, last = spans(settings.context)[0], slice(settings.context // 2, settings.context)
    for name in order:
        gain = np.mean(found[name]["by_context"][first]) - np.mean(found[name]["by_context"][last])
        on = found[name]["reading_on"]
        more = "" if on is None else f"; with its state handed on through all of the text it reaches {on / BIT:.4f} bits"
        yield (f"{name}: with {last.start + 1} to {last.stop} characters of context {gain / BIT:.2f} bits less than with one"
               f"{more}.")


def plot(out, settings, results, runs):
    """compare.png: loss against tokens, and against the context. None, or a sentence that says why there is no picture."""
    return save_picture(out / "compare.png", (11, 4.5), lambda figure: draw(figure, settings, results, runs))


def draw(figure, settings, results, runs):
    left, right = figure.subplots(1, 2)
    colours = dict(zip(NETWORKS, ("tab:red", "tab:orange", "tab:blue", "tab:green")))
    for run in runs:
        name, first = run["network"], run["seed"] == settings.seed
        tokens, losses = zip(*run["curve"])
        left.plot(np.array(tokens) / 1e6, np.array(losses) / BIT, "o-", ms=3, lw=1, color=colours[name],
                  label=name if first else None)
        if first:
            right.plot(*by_span(run["by_context"], settings.context), "o-", ms=3, color=colours[name], label=name)
    left.axhline(results["counting_loss"] / BIT, color="0.3", lw=1, ls="--", label=f"{settings.order}-grams")
    right.plot(*by_span(results["counting_by_context"], settings.context), "s--", ms=3, color="0.3",
               label=f"{settings.order}-grams")
    left.set(xlabel="characters read in training, million", ylabel="bits a character, on text not learnt from")
    right.set(xlabel="characters of context", ylabel="bits a character", xscale="log")
    right.set_xscale("log", base=2)
    for axes in left, right:
        axes.grid(alpha=0.3)
        axes.legend()


def by_span(by_context, context):
    """What is drawn of a loss by context: the ends of the spans, and the means in them, in bits."""
    return [part.stop for part in spans(context)], [np.mean(by_context[part]) / BIT for part in spans(context)]


if __name__ == "__main__":
    program(main, Settings)
