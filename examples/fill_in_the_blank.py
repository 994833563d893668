"""A BERT and a GPT are asked for the same missing characters: the one sees both sides of a blank, the other the left one.

    python examples/fill_in_the_blank.py                                two trainings: about nine minutes on two idle cores
    python examples/fill_in_the_blank.py --preset quick                 seconds, to see all of it work; it learns nothing yet
    python examples/fill_in_the_blank.py --text "To be, or n_t to be"   a blank of yours, written as _
    python examples/fill_in_the_blank.py --data my.txt                  any text of yours
    python examples/fill_in_the_blank.py --out runs/blank-1             go on where Ctrl-C stopped it

Both have the same shape (minigpt/models/masked_bert.py and gpt.py), learn from the same windows of the first 90% of the
text, and make as many updates. BERT learns at the characters that were taken away from it (80% blanks, 10% others, 10%
left as they are), the GPT at all of them. The paper takes 15% away. Here it is 40%, from which more is learnt in as many
updates (Wettig et al. 2023, Should you mask 15% in masked language modeling?): after 2,000, BERT is right in 59.8% of
blanks, and with --share 0.15 in 55.1%.

Then blanks are made in the last 10% of the text, and both are asked for each of them: once one in each window, once 15%
of the characters. The GPT is shown all that truly stands to the left of a blank, also where BERT sees another blank;
of a --text of yours, where nobody knows the truth, what stands behind the blank before.
"""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from minigpt import checkpoint, no_grad
from minigpt.data import batch, load_corpus, mask_tokens, split, windows
from minigpt.kernels import cpu
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.masked_bert import MaskedBert, MaskedBertConfig
from minigpt.report import next_free, prepare_folder, write_results
from minigpt.sampling import log_probabilities, top
from minigpt.settings import UserError, as_dict, program
from minigpt.tokenizers import CharTokenizer
from minigpt.train import TrainSettings, fit

SIGNS = "_█▁"                       # the blank is the first of these that the text does not have
GUESSES = 5                         # guesses that are shown for a blank
ROUNDS = 2                          # times that each window is asked for one blank


@dataclass(frozen=True)
class Settings(TrainSettings):
    text: str | None = None         # a text with one blank or more, written as _, to be filled in (none: held-out lines)
    data: str | None = None         # a text file in UTF-8 (none: tiny Shakespeare)
    out: str | None = None          # folder for results.json and both models (none: the next free runs/blank-N)
    steps: int = 2500               # updates of each of the two
    batch_size: int = 32            # sequences in an update
    context: int = 64               # characters in a sequence
    layers: int = 4                 # blocks
    heads: int = 4                  # attention heads in a block
    width: int = 128                # numbers in the stream
    share: float = 0.4              # share of the characters that BERT is asked for in training
    optimizer: Literal["adamw", "muon"] = "muon"    # what makes the updates
    learning_rate: float = 0.02     # highest learning rate
    last_learning_rate: float = 4e-4    # learning rate of the last step
    warm_up: int = 50               # steps in which the learning rate rises
    hold: float = 0.4               # share of the steps after which the learning rate begins to fall
    weight_decay: float = 0.0       # AdamW's decay of matrices and embeddings
    beta2: float = 0.95             # AdamW: how long the mean of squared gradients remembers

    presets: ClassVar[dict[str, dict]] = {"quick": {"steps": 10, "batch_size": 4, "layers": 1, "heads": 2, "width": 16,
                                                    "context": 16}}

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.share <= 0.9:
            raise UserError(f"share is {self.share}, but has to be above 0 and at most 0.9")
        if self.text is not None and SIGNS[0] not in self.text:
            raise UserError(f"the text {self.text!r} has no blank: write {SIGNS[0]} where a character is missing")
        if self.text is not None and len(self.text) > self.context:
            raise UserError(f"the text has {len(self.text)} characters, and the models read {self.context}: shorten it, or "
                            "choose a larger --context")


def new_tokenizer(text):
    """The characters of a text and, as the last, a blank; the blank's id."""
    sign = next((sign for sign in SIGNS if sign not in text), None)
    if sign is None:
        raise UserError(f"the text has all of the characters {SIGNS}, one of which is to be the blank: remove one of them")
    return CharTokenizer("".join(sorted(set(text))) + sign), len(set(text))


# ---- training: loss_at(step) as minigpt.train.fit asks for it ----

def draw_blanks(settings, ids, blank):
    """Windows with blanks, for BERT."""
    def loss_at(step):
        x, _ = batch(ids, settings.context, settings.batch_size, settings.seed, step)
        rng = np.random.default_rng([settings.seed, step, 1])
        inputs, targets = mask_tokens(x, blank, blank + 1, rng, settings.share)
        total = int((targets >= 0).sum())
        return lambda model, part: model.loss(inputs[part], targets[part], total=total)

    return loss_at


def draw_next(settings, ids):
    """The same windows with what comes next, for the GPT."""
    def loss_at(step):
        x, y = batch(ids, settings.context, settings.batch_size, settings.seed, step)
        return lambda model, part: model.loss(x[part], y[part], total=y.size)

    return loss_at


# ---- asking: logits (B, T, V) at which position t tells of the character at t ----

def by_bert(model, x, blank):
    """x: (B, T) with blanks."""
    with no_grad():
        logits = model(x).data
    return without(logits, blank)


def by_gpt(model, x, blank):
    """x: (B, T) without blanks. At the first position, to the left of which there is nothing, all are alike."""
    with no_grad():
        logits = model(x).data
    return without(np.concatenate([np.zeros_like(logits[:, :1]), logits[:, :-1]], 1), blank)


def without(logits, blank):
    """The blank is no guess."""
    logits = logits.copy()
    logits[..., blank] = -1e30
    return logits


def share_right(models, ids, blank, seed, several):
    """(BERT's, the GPT's) share of blanks at which the likeliest character is the right one, and how many blanks.

    several: whether 15% of a window's characters are blanks; or one, in each of ROUNDS rounds."""
    right, number = np.zeros(2), 0
    rng = np.random.default_rng([seed, 2, several])
    every = list(windows(ids, models["gpt"].config.context, 32))
    for x, _ in every if several else ROUNDS * every:
        B, T = x.shape
        asked = rng.random((B, T)) < 0.15 if several else np.arange(T) == rng.integers(T, size=(B, 1))
        asked[:, 0] = False                                 # nothing stands to the left of it
        guesses = [by_bert(models["masked_bert"], np.where(asked, blank, x), blank), by_gpt(models["gpt"], x, blank)]
        right += [(guess.argmax(-1) == x)[asked].sum() for guess in guesses]
        number += int(asked.sum())
    if not number:
        raise UserError("the last 10% of the text are too short to make blanks in: give a longer text")
    return (right / number).tolist(), number


def show(models, text, blank, tokenizer, truth=None):
    """Print both models' guesses for each blank of a text. Returns them as plain JSON. truth: the text without blanks."""
    shown, x = [], tokenizer.encode(text)[None]
    true = tokenizer.encode(truth)[None] if truth else x
    print(f"\n  {text!r}")
    for place in np.flatnonzero(x[0] == blank).tolist():
        begin = 1 + max(np.flatnonzero(true[0, :place] == blank), default=-1)       # behind the blank before, if there is one
        both = (by_bert(models["masked_bert"], x, blank)[0, place],
                by_gpt(models["gpt"], true[:, begin:place + 1], blank)[0, place - begin])
        best = [top(log_probabilities(logits), GUESSES) for logits in both]
        guesses = [[(tokenizer.decode([token]), float(np.exp(p))) for token, p in row] for row in best]
        print(f"    character {place + 1}" + (f", truly {truth[place]!r}" if truth else ""))
        for name, row in zip(("BERT", "GPT"), guesses):
            print(f"      {name:5}" + "   ".join(f"{character!r:>5} {p:6.1%}" for character, p in row))
        shown.append({"text": text, "place": place, "bert": guesses[0], "gpt": guesses[1]})
    return shown


def held_out_examples(ids, blank, tokenizer, settings, number=4):
    """(text with one blank in its middle, the text), from what was not learnt from."""
    rng = np.random.default_rng([settings.seed, 3])
    for begin in rng.integers(max(1, len(ids) - settings.context), size=number).tolist():
        whole = ids[begin:begin + settings.context]
        place = len(whole) // 2
        with_blank = whole.copy()
        with_blank[place] = blank
        yield tokenizer.decode(with_blank), tokenizer.decode(whole)


def main(settings):
    corpus = load_corpus(settings.data, print)
    tokenizer, blank = new_tokenizer(corpus.text)
    asked = None if settings.text is None else settings.text.replace(SIGNS[0], tokenizer.characters[blank])
    if asked:
        tokenizer.encode(asked)                             # all of its characters are known, or an error
    training, validation = split(tokenizer.encode(corpus.text), settings.context)
    if len(validation) <= settings.context:
        raise UserError(f"the last 10% of the text are {len(validation)} characters, too few for a context of "
                        f"{settings.context}: give a longer text, or a smaller --context")
    out = prepare_folder(settings.out or next_free("runs/blank"))
    shape = tokenizer.vocabulary_size, settings.context, settings.layers, settings.heads, settings.width
    fresh = {"masked_bert": MaskedBert(MaskedBertConfig(*shape, 4 * settings.width), settings.seed),
             "gpt": GPT(GPTConfig(*shape), settings.seed)}
    draws = {"masked_bert": draw_blanks(settings, training, blank), "gpt": draw_next(settings, training)}
    print(f"text      {corpus.source}\nkernels   {cpu.status()}\ntraining  {settings.steps} steps of {settings.batch_size} x "
          f"{settings.context} characters each; results in {out}", flush=True)
    of_run = {"corpus_sha256": corpus.sha256, **{name: value for name, value in as_dict(settings).items()
                                                 if name not in ("text", "data", "out", "workers")}}
    models = {name: trained(name, fresh[name], draws[name], settings, tokenizer, of_run, out) for name in fresh}
    (bert, gpt), number = share_right(models, validation, blank, settings.seed, several=False)
    (bert_several, gpt_several), several = share_right(models, validation, blank, settings.seed, several=True)
    shown = []
    if asked:
        shown += show(models, asked, blank, tokenizer)
    else:
        for with_blank, whole in held_out_examples(validation, blank, tokenizer, settings):
            shown += show(models, with_blank, blank, tokenizer, whole)
    print(f"\nin text that was not learnt from, the likeliest character is right at\n"
          f"                                 {number:6,} blanks alone in a window    {several:6,} of 15% of the characters\n"
          f"  BERT, from both sides          {bert:6.1%}{bert_several:33.1%}   ({len(models['masked_bert'].flat):,} parameters)\n"
          f"  GPT, from the left side        {gpt:6.1%}{gpt_several:33.1%}   ({len(models['gpt'].flat):,} parameters)")
    write_results(out, of_run | {"corpus": corpus.name, "kernels": cpu.status(), "blanks": number, "bert_right": bert,
                                 "gpt_right": gpt, "blanks_of_several": several, "bert_right_of_several": bert_several,
                                 "gpt_right_of_several": gpt_several, "guesses": shown})
    print(f"saved in {out}: results.json and both models")


def trained(name, model, loss_at, settings, tokenizer, of_run, out):
    """The model, trained: now, or in an earlier run of the same settings that left it in `out`."""
    folder = Path(out, name)
    if folder.exists():
        saved = checkpoint.load(folder)
        if saved.training != of_run:
            raise UserError(f"{out} holds models of another text or of other settings: choose another --out")
        return saved.model
    print(f"\n{name}: {len(model.flat):,} parameters", flush=True)
    fit(model, settings, loss_at)
    checkpoint.save(folder, model, tokenizer, json.loads(json.dumps(of_run)))
    return model


if __name__ == "__main__":
    program(main, Settings)
