"""Who is speaking? A GPT that has read much without labels learns it from a few labelled texts; from scratch it takes many.

    python examples/finetune.py                             about eight minutes on two idle cores
    python examples/finetune.py --preset quick              seconds, to see all of it work; it learns nothing yet
    python examples/finetune.py --task play                 which of the nine plays, instead of comedy, history or tragedy
    python examples/finetune.py --data lines.tsv            texts of yours: a line each, the label, a tab, the text
    python examples/finetune.py --out runs/finetune-1       go on where Ctrl-C stopped it

A speech of tiny Shakespeare, without its speaker's name, is from a comedy, a history or a tragedy: the plays follow
each other in the file, and each begins with words that stand nowhere else. The last fifth of each play asks; the rest
is learnt from. A GPT (models/gpt_modern.py) reads the latter without labels first. Then, with more and more labels
(each set holds the smaller ones), four ways to use them are compared:

    fine-tuned      the GPT with a linear layer on top, all of its numbers trained (models/classifier.py)
    LoRA            the same, but beside frozen matrices only thin ones are trained (minigpt/lora.py)
    scratch         the same model without pre-training, as many updates, the best of three learning rates
    naive Bayes     no network: n-grams of characters, counted for each class, the best of several n

The best learning rate and n are those that are best on the very texts that are asked, which flatters the last two.
"""
import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from minigpt import checkpoint, no_grad
from minigpt.data import lines_of, load_corpus
from minigpt.kernels import cpu
from minigpt.lora import add_lora, merge_lora
from minigpt.models.classifier import Classifier
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.parallel import Workers
from minigpt.report import earlier_runs, next_free, prepare_folder, save_picture, write_results
from minigpt.settings import UserError, as_dict, program
from minigpt.tokenizers import CharTokenizer
from minigpt.train import TrainSettings, fit, fit_text

PLAYS = (                           # in the order of tiny Shakespeare: name, kind, and words of its first lines
    ("Coriolanus", "tragedy", "Before we proceed any further"),
    ("Richard III", "history", "Now is the winter of our discontent"),
    ("Richard II", "history", "Old John of Gaunt"),
    ("Romeo and Juliet", "tragedy", "Gregory, o"),
    ("Henry VI, part 3", "history", "I wonder how the king escaped"),
    ("The Winter's Tale", "comedy", "If you shall chance"),
    ("Measure for Measure", "comedy", "Of government the properties"),
    ("The Taming of the Shrew", "comedy", "I'll pheeze you"),
    ("The Tempest", "comedy", "Boatswain!"))
TEST_SHARE = 0.2
SHARES = 0.01, 0.03, 0.1, 0.3, 1.0  # of the labels
SCRATCH_RATES = 3e-4, 1e-3, 3e-3    # learning rates that training from scratch may choose from
SIZES = range(2, 6)                 # characters in naive Bayes's n-grams


@dataclass(frozen=True)
class Settings(TrainSettings):
    task: Literal["kind", "play"] = "kind"      # what is asked of a speech: comedy, history or tragedy; or the play
    data: str | None = None         # texts of your own, a line each: label, tab, text (none: tiny Shakespeare)
    out: str | None = None          # folder for results, picture and GPT (none: the next free runs/finetune-N)
    pretrain_steps: int = 1000      # updates of the GPT before it sees a label
    pretrain_rate: float = 0.02     # highest learning rate of these, with Muon
    steps: int = 300                # updates with labels, of each way
    batch_size: int = 16            # texts in an update
    learning_rate: float = 1e-3     # highest learning rate of fine-tuning
    lora_rate: float = 5e-3         # highest learning rate of LoRA
    rank: int = 4                   # of LoRA's matrices
    warm_up: int = 10               # steps in which the learning rate rises
    weight_decay: float = 0.01      # AdamW's decay of matrices and embeddings
    context: int = 96               # characters that the GPT reads of a text, at most
    shortest: int = 60              # characters that a speech has at least
    layers: int = 2                 # blocks of the GPT
    heads: int = 4                  # attention heads in a block
    width: int = 128                # numbers in the stream

    presets: ClassVar[dict[str, dict]] = {"quick": {"pretrain_steps": 5, "steps": 3, "batch_size": 4, "context": 24,
                                                    "layers": 1, "heads": 2, "width": 16, "shortest": 20}}

    def __post_init__(self):
        super().__post_init__()
        if min(self.pretrain_steps, self.shortest, self.rank) < 1:
            raise UserError(f"pretrain_steps is {self.pretrain_steps}, shortest {self.shortest} and rank {self.rank}, but "
                            "each has to be at least 1")


@dataclass(frozen=True)
class Texts:
    """Texts with their classes."""
    texts: list                     # of str
    labels: np.ndarray              # (N,) integers

    def some(self, indices):
        return Texts([self.texts[i] for i in indices], self.labels[indices])


# ---- what is learnt from, and what is asked ----

def speeches(settings):
    """(classes, to learn from, to be asked) of tiny Shakespeare."""
    text, begins = load_corpus(None, print).text, []
    for name, _, opening in PLAYS:
        place = text.find(opening, begins[-1] + 1 if begins else 0)
        if place < 0:
            raise UserError(f"the beginning of {name}, {opening!r}, is not in this edition of tiny Shakespeare: give texts "
                            "with labels of your own by --data")
        begins.append(place)
    begins = [text.rfind("\n\n", 0, place) + 1 for place in begins]          # the speaker's name stands before
    classes = [play[0] for play in PLAYS] if settings.task == "play" else sorted({play[1] for play in PLAYS})
    parts = ([], [])
    for (name, kind, _), begin, end in zip(PLAYS, begins, [*begins[1:], len(text)]):
        label = classes.index(name if settings.task == "play" else kind)
        spoken = [speech.partition(":\n")[2].strip() for speech in text[begin:end].split("\n\n")]
        spoken = [(speech, label) for speech in spoken if len(speech) >= settings.shortest]
        cut = len(spoken) - int(TEST_SHARE * len(spoken))
        parts[0].extend(spoken[:cut])
        parts[1].extend(spoken[cut:])
    return classes, *(Texts([speech for speech, _ in part], np.array([label for _, label in part])) for part in parts)


def texts_of_file(path, seed):
    """The same of a file with a label, a tab and a text in each line."""
    lines = lines_of(path, "a label, a tab and a text")
    pairs = []
    for number, line in enumerate(lines, 1):
        label, _, text = (part.strip() for part in line.partition("\t"))
        if line.strip() and not (label and text):
            raise UserError(f"line {number} of {path} should be a label, a tab and a text: correct it")
        if line.strip():
            pairs.append((label, text))
    classes = sorted({label for label, _ in pairs})
    if len(pairs) < 20 or len(classes) < 2:
        raise UserError(f"{path} has {len(pairs)} texts of {len(classes)} classes: 20 texts and 2 classes are the least")
    all_of_them = Texts([text for _, text in pairs], np.array([classes.index(label) for label, _ in pairs]))
    order = np.random.default_rng(seed).permutation(len(pairs))
    cut = len(pairs) - int(TEST_SHARE * len(pairs))
    return classes, all_of_them.some(order[:cut]), all_of_them.some(order[cut:])


def padded(tokenizer, texts, context):
    """The first `context` characters of each text: ids (B, T), filled up with 0, and a mask (B, T)."""
    encoded = [tokenizer.encode(text[:context]) for text in texts]
    lengths = np.array([len(ids) for ids in encoded])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(encoded)
    return ids, mask


# ---- the ways ----

def train_classifier(model, settings, rate, tokenizer, learnt):
    """Train on labelled texts, drawn from (seed, step)."""
    settings = replace(settings, learning_rate=rate, last_learning_rate=rate / 50)
    total = settings.batch_size

    def loss_at(step):
        drawn = np.random.default_rng([settings.seed, step]).integers(len(learnt.texts), size=total)

        def loss(model, part):
            some = learnt.some(drawn[part])
            return model.loss(*padded(tokenizer, some.texts, settings.context), some.labels, total=total)

        return loss

    fit(model, settings, loss_at)
    return model


def accuracy(model, settings, tokenizer, asked):
    """The share of texts whose class gets the highest score."""
    def right(model, part):
        with no_grad():
            scores = model(*padded(tokenizer, asked.some(part).texts, settings.context)).data
        return int((scores.argmax(-1) == asked.labels[part]).sum())

    parts = np.array_split(np.arange(len(asked.texts)), -(-len(asked.texts) // 32))
    with Workers(model, settings.workers) as workers:
        return sum(workers.each(right, parts)) / len(asked.texts)


def naive_bayes(learnt, asked, classes, tokenizer, n, context):
    """The share right by p(class) times the product of p(n-gram | class) over a text's n-grams, one added to each count."""
    V = tokenizer.vocabulary_size

    def grams(text):
        ids = tokenizer.encode(text[:context])
        return sum(ids[i:len(ids) - n + 1 + i] * V ** i for i in range(n)) if len(ids) >= n else np.zeros(0, np.int64)

    of_texts = [grams(text) for text in learnt.texts]
    known, places = np.unique(np.concatenate(of_texts), return_inverse=True)
    owner = np.repeat(learnt.labels, [len(g) for g in of_texts])
    counts = np.ones((classes, len(known) + 1))                             # the last one: any that was never seen
    np.add.at(counts, (owner, places), 1)
    log_p = np.log(counts / counts.sum(1, keepdims=True))                   # (classes, G + 1)
    prior = np.log(np.bincount(learnt.labels, minlength=classes) + 1)
    right = 0
    for text, label in zip(asked.texts, asked.labels):
        g = grams(text)
        found = np.searchsorted(known, g)
        found = np.where(np.append(known, -1)[found] == g, found, len(known))
        right += int((prior + log_p[:, found].sum(1)).argmax() == label)
    return right / len(asked.texts)


def pretrained(settings, tokenizer, learnt, out):
    """The GPT that has read the texts to learn from, without their labels; an earlier run may have left it in `out`."""
    shape = tokenizer.vocabulary_size, settings.context, settings.layers, settings.heads, settings.width
    if (out / "gpt").exists():
        return checkpoint.load(out / "gpt").model
    model, ids = GPTModern(GPTModernConfig(*shape), settings.seed), tokenizer.encode("\n\n".join(learnt.texts))
    cut = len(ids) - max(settings.context + 1, len(ids) // 20)
    recipe = replace(settings, steps=settings.pretrain_steps, learning_rate=settings.pretrain_rate, optimizer="muon",
                     last_learning_rate=settings.pretrain_rate / 50, warm_up=20, hold=0.4, weight_decay=0.0, beta2=0.95)
    loss = fit_text(model, recipe, ids[:cut], ids[cut:])
    read = settings.pretrain_steps * settings.batch_size * settings.context
    print(f"the GPT has read {read:,} characters without labels: loss {loss:.4f}", flush=True)
    checkpoint.save(out / "gpt", model, tokenizer)
    return model


def body(gpt, settings, seed=None):
    """A copy of the GPT; or, with a seed, a fresh one of its shape."""
    copy = GPTModern(gpt.config, settings.seed if seed is None else seed)
    if seed is None:
        copy.flat.data[...] = gpt.flat.data
    return copy


def ways(gpt, settings, tokenizer, learnt, asked, classes):
    """(name, accuracy) for each way to use these labels."""
    def classifier(fresh=False):
        return Classifier(body(gpt, settings, settings.seed + 1 if fresh else None), classes, settings.seed)

    def score(model, rate):
        return accuracy(train_classifier(model, settings, rate, tokenizer, learnt), settings, tokenizer, asked)

    yield "fine-tuned", score(classifier(), settings.learning_rate)
    lora = add_lora(classifier(), settings.rank, trained=("head",), seed=settings.seed)
    train_classifier(lora, settings, settings.lora_rate, tokenizer, learnt)
    yield "LoRA", accuracy(merge_lora(lora), settings, tokenizer, asked)
    yield "scratch", max(score(classifier(fresh=True), rate) for rate in SCRATCH_RATES)
    yield "naive Bayes", max(naive_bayes(learnt, asked, classes, tokenizer, n, settings.context) for n in SIZES)


# ---- all of them ----

def sha256_of(learnt, asked):
    """A fingerprint of all texts and their labels."""
    lines = [f"{label}\t{text}" for part in (learnt, asked) for label, text in zip(part.labels.tolist(), part.texts)]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()



def main(settings):
    classes, learnt, asked = texts_of_file(settings.data, settings.seed) if settings.data else speeches(settings)
    out = prepare_folder(settings.out or next_free("runs/finetune"))
    tokenizer = CharTokenizer.train("\n" + "".join(learnt.texts + asked.texts))
    most = np.bincount(learnt.labels, minlength=len(classes)).argmax()
    results = {"classes": classes, "learnt": len(learnt.texts), "asked": len(asked.texts), "kernels": cpu.status(),
               "guessing": float((asked.labels == most).mean()), "texts_sha256": sha256_of(learnt, asked),
               **{name: value for name, value in as_dict(settings).items() if name not in ("data", "out", "workers")}}
    runs = earlier_runs(out, results)
    if not runs and (out / "gpt").exists():
        raise UserError(f"{out} holds the GPT of another run: choose another --out")
    print(f"texts     {len(learnt.texts):,} to learn from, {len(asked.texts):,} to be asked\n"
          f"classes   {', '.join(classes)}\nkernels   {cpu.status()}\n"
          f"guessing  always {classes[most]}: {results['guessing']:.1%} right; results in {out}\n", flush=True)
    gpt = pretrained(settings, tokenizer, learnt, out)
    order = np.random.default_rng(settings.seed).permutation(len(learnt.texts))
    for share in SHARES:
        number = max(len(classes), round(share * len(order)))
        if not any(run["share"] == share for run in runs):
            some = learnt.some(order[:number])
            found = dict(ways(gpt, settings, tokenizer, some, asked, len(classes)))
            runs.append({"labels": number, "share": share, "accuracy": found})
            write_results(out, results | {"runs": runs})
        found = next(run for run in runs if run["share"] == share)["accuracy"]
        print(f"{number:6,} labels   " + "   ".join(f"{name} {value:.1%}" for name, value in found.items()), flush=True)
    print("\n" + "\n".join(table(runs)))
    ten, all_of_them = (next(run["accuracy"] for run in runs if run["share"] == share) for share in (0.1, 1.0))
    verdict = "at least as good as" if ten["fine-tuned"] >= all_of_them["scratch"] else "not as good as"
    print(f"\nFine-tuning with 10% of the labels, {ten['fine-tuned']:.1%}, is {verdict} training from scratch with all of "
          f"them, {all_of_them['scratch']:.1%}.")
    hint = plot(out, runs, results["guessing"])
    print(f"{hint or 'the picture is finetune.png'}; saved in {out}: results.json")


def table(runs):
    """The lines of a table in Markdown: the share right, for each number of labels."""
    yield "| labels | " + " | ".join(runs[0]["accuracy"]) + " |"
    yield "|---|" + "---|" * len(runs[0]["accuracy"])
    for run in runs:
        cells = " | ".join(f"{value:.1%}" for value in run["accuracy"].values())
        yield f"| {run['labels']:,} ({run['share']:.0%}) | {cells} |"


def plot(out, runs, guessing):
    """finetune.png: the share right over the number of labels. None, or a sentence that says why there is no picture."""
    return save_picture(out / "finetune.png", (7, 4.5), lambda figure: draw(figure, runs, guessing))


def draw(figure, runs, guessing):
    axes = figure.add_subplot()
    for name in runs[0]["accuracy"]:
        axes.plot([run["labels"] for run in runs], [run["accuracy"][name] for run in runs], "o-", ms=4, label=name)
    axes.axhline(guessing, color="0.3", lw=1, ls="--", label="always the most frequent")
    axes.set(xscale="log", xlabel="labelled texts", ylabel="classified rightly, of texts not learnt from")
    axes.grid(alpha=0.3)
    axes.legend()


if __name__ == "__main__":
    program(main, Settings)
