"""One GPT that draws and reads: text and pictures are the same kind of thing, a row of tokens.

    pip install '.[digits]' && python examples/draw_digits.py           about seven minutes on two cores
    python examples/draw_digits.py --temperature 0.6                    more careful drawings, more alike
    python examples/draw_digits.py --data my_pictures                   a folder of PNG files by class, or an .npz file

A token is a character, or a grey level of a pixel: a picture of 8 x 8 pixels is 64 tokens, row by row. The model learns to
predict the next token of lines of two kinds, half of each, in one stream:

    draw: a seven <picture> 0 0 1 9 15 ... <end>                    so that after "draw: a seven" it goes on with a picture
    what is this? <picture> 0 0 1 9 15 ... this is a seven <end>    and after a picture with what it shows

Spaces fill up what stands before a picture, so that pixels have the same positions in all lines.

Three questions about the result. Do the drawings look like what was asked for? A judge that has nothing to do with the
model, logistic regression trained on the real pictures, says what it sees. Are they drawn, or copied? A drawing counts as a
near-copy if a picture that was learnt from is nearer to it (in the distance of their pixels) than 99% of the held-out real
pictures are to the picture that is nearest to them. And does the model read held-out pictures rightly, word for word?
"""
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from minigpt.data import held_out, load_pictures, moved, sequence_seeds
from minigpt.generate import Engine, Request
from minigpt.kernels import cpu
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.ops import cross_entropy
from minigpt.report import next_free, prepare_folder, save_picture, write_results
from minigpt.sampling import Rules
from minigpt.settings import UserError, program
from minigpt.train import TrainSettings, fit

MOST_PIXELS = 400                   # of a picture: each is a token, and attention's cost grows with their square
ASK = "what is this?"
SHADES = " .:-=+*#%@"               # of a picture on a terminal


@dataclass(frozen=True)
class Settings:
    data: str | None = None         # a folder of PNG files by class, or an .npz file (none: scikit-learn's digits)
    out: str | None = None          # folder for results.json and drawings.png (none: the next free runs/drawings-N)
    held_out: float = 0.2           # share of each class to measure by
    levels: int = 17                # grey levels of a pixel; the digits have 17
    steps: int = 4000               # updates of the parameters
    batch_size: int = 32            # lines in an update
    learning_rate: float = 0.01     # highest learning rate, of Muon
    shift: float = 1.0              # pixels by which a picture that is to be read is moved at most
    degrees: float = 10.0           # angle by which it is turned at most
    layers: int = 4                 # blocks of the GPT
    heads: int = 4                  # attention heads in a block
    width: int = 96                 # numbers in the residual stream
    dropout: float = 0.1            # share of numbers dropped while training
    drawings: int = 20              # of each class, to be judged
    temperature: float = 0.8        # of drawing: below 1 the likely gets likelier
    workers: int = 0                # worker threads (0: one a core)
    seed: int = 1                   # of what is held out, the parameters, the batches, dropout and the drawings

    presets: ClassVar[dict[str, dict]] = {"quick": {"steps": 200, "drawings": 5}}

    def __post_init__(self):
        self.recipe()                                       # these check what they share with other programs
        self.rules()
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out is {self.held_out}, but has to be above 0 and below 1")
        if not (2 <= self.levels <= 256 and 1 <= self.drawings <= 10_000):
            raise UserError(f"levels is {self.levels} and drawings is {self.drawings}, but levels have to be 2 to 256, and "
                            "drawings 1 to 10000")
        if not (0 <= self.shift < 1000 and 0 <= self.degrees <= 180):
            raise UserError(f"shift is {self.shift} and degrees is {self.degrees}, but they have to be 0 at least, and degrees "
                            "180 at most")

    def recipe(self):
        """The settings of the training: those of examples/train_shakespeare.py."""
        return TrainSettings(steps=self.steps, batch_size=self.batch_size, optimizer="muon", learning_rate=self.learning_rate,
                             last_learning_rate=self.learning_rate / 50, warm_up=20, hold=0.4, weight_decay=0.0, beta2=0.95,
                             workers=self.workers, seed=self.seed)

    def rules(self):
        """How a drawing's pixels are chosen."""
        return Rules(self.temperature)


class Tokens:
    """What the numbers in a line mean: a character, a grey level, <picture> or <end>."""

    def __init__(self, names, pixels, levels):
        self.pixels, self.levels, self.names = pixels, levels, names
        self.draw, self.tell = [f"draw: {a(name)}" for name in names], [f"this is {a(name)}" for name in names]
        self.asked = max(len(ASK), *map(len, self.draw))
        self.characters = sorted(set("".join([ASK, *self.draw, *self.tell])))
        self.first_level = len(self.characters)
        self.picture, self.end = self.first_level + levels, self.first_level + levels + 1
        self.vocabulary_size = self.end + 1
        self.context = self.asked + 1 + pixels + max(map(len, self.tell))       # <end> is only predicted

    def of_text(self, text):
        return [self.characters.index(c) for c in text]

    def question(self, text):
        """What stands before a picture, and <picture>."""
        return [*self.of_text(text.ljust(self.asked)), self.picture]

    def of_picture(self, image):
        """The grey levels of an image (H, W) of numbers from 0 to 1."""
        return (self.first_level + np.rint(image * (self.levels - 1)).astype(int)).reshape(-1).tolist()

    def to_text(self, ids):
        """The characters among tokens up to <end>; anything else shows as "?"."""
        ids = ids[:ids.index(self.end)] if self.end in ids else ids
        return "".join(self.characters[i] if i < self.first_level else "?" for i in ids)

    def to_picture(self, ids, shape):
        """An image of numbers from 0 to 1; None where the tokens are not as many grey levels as it has pixels."""
        levels = np.array(ids) - self.first_level
        if len(levels) != self.pixels or levels.min() < 0 or levels.max() >= self.levels:
            return None
        return (levels / (self.levels - 1)).reshape(shape).astype(np.float32)

    def line_to_draw(self, image, label):
        """(a line's tokens, how many of them are given)."""
        question = self.question(self.draw[label])
        return [*question, *self.of_picture(image), self.end], len(question)

    def line_to_read(self, image, label):
        question = [*self.question(ASK), *self.of_picture(image)]
        return [*question, *self.of_text(self.tell[label]), self.end], len(question)


def a(name):
    """a seven, an eight."""
    return f"{'an' if name[:1].lower() in 'aeiou' and not name.lower().startswith('one') else 'a'} {name}"


def main(settings):
    judge = new_judge()
    pictures = load_pictures(settings.data)
    shape = pictures.images.shape[1:]
    if shape[0] * shape[1] > MOST_PIXELS:
        raise UserError(f"pictures of {shape[0]} x {shape[1]} pixels are {shape[0] * shape[1]} tokens each, too many to draw "
                        f"here: make them smaller, of at most {MOST_PIXELS} pixels")
    learn, measure = held_out(pictures.labels, settings.held_out, settings.seed)
    tokens = Tokens(pictures.names, shape[0] * shape[1], settings.levels)
    model = GPT(GPTConfig(tokens.vocabulary_size, tokens.context, settings.layers, settings.heads, settings.width,
                          dropout=settings.dropout), settings.seed)
    out = prepare_folder(settings.out or next_free("runs/drawings"))
    print(f"pictures  {pictures.source}; {len(learn)} to learn from, {len(measure)} to measure by\n"
          f"model     gpt, {settings.layers} layers, width {settings.width}: {len(model.flat):,} parameters; "
          f"{tokens.vocabulary_size} tokens, {settings.levels} of them grey levels\n"
          f"kernels   {cpu.status()}\ntraining  {settings.steps} steps of {settings.batch_size} lines; results in {out}", flush=True)
    loss = fit(model, settings.recipe(), batches(tokens, pictures.images[learn], pictures.labels[learn], settings))

    known, held = quantised(pictures.images[learn], tokens), quantised(pictures.images[measure], tokens)
    judge.fit(flat(known), pictures.labels[learn])
    asked, drawn = drawings(model, tokens, shape, settings)
    results = {"pictures": pictures.source, "learnt_from": len(learn), "measured_by": len(measure), "training_loss": loss,
               "parameters": len(model.flat), "settings": asdict(settings), "kernels": cpu.status(),
               "judge_on_real_pictures": float(judge.score(flat(held), pictures.labels[measure])),
               **judged(judge, asked, drawn), **copies(known, held, drawn),
               **read(model, tokens, pictures.images[measure], pictures.labels[measure], settings)}
    show(results, tokens, asked, drawn)
    write_results(out, results)
    missing = save_picture(out / "drawings.png", (11, 0.9 * len(pictures.names) + 0.6),
                           lambda figure: draw(figure, asked, drawn, known, pictures.names))
    print(missing or f"saved in {out}: results.json, drawings.png")


def new_judge():
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise UserError("the drawings are judged by scikit-learn: pip install '.[digits]'") from None
    return LogisticRegression(max_iter=2000)


def quantised(images, tokens):
    """The images as the model's tokens have them."""
    return np.rint(images * (tokens.levels - 1)) / (tokens.levels - 1)


def flat(images):
    return np.reshape(images, (len(images), -1))


# ---- training ----

def batches(tokens, images, labels, settings):
    """For fit(): the loss of each step's batch, drawn from (seed, step): half the lines to draw, half to read.

    What is given, not predicted, counts for nothing: what stands before a drawing, and the picture of a line to read. The
    loss is the mean surprise at the pixels of the drawings plus the mean surprise at the letters of the answers, of which
    there are fewer. Only the pictures to be read are turned and moved, or the drawings would be, too.
    """
    def loss_at(step):
        rng, B = np.random.default_rng([settings.seed, step]), settings.batch_size
        rows = rng.integers(len(images), size=B)
        turned = moved(images[rows], rng, settings.shift, settings.degrees)
        lines = [tokens.line_to_draw(images[row], labels[row]) if i % 2 else tokens.line_to_read(turned[i], labels[row])
                 for i, row in enumerate(rows)]
        x, to_tell, to_draw = np.full((B, tokens.context), tokens.end), *np.full((2, B, tokens.context), -1)
        for i, (line, given) in enumerate(lines):
            x[i, :len(line) - 1] = line[:-1]
            (to_draw if i % 2 else to_tell)[i, given - 1:len(line) - 1] = line[given:]
        seeds = sequence_seeds(settings.seed, step, B) if settings.dropout else None

        def loss(model, part):
            logits = model(x[part], seeds=None if seeds is None else seeds[part])                       # (B, T, V)
            return (cross_entropy(logits, to_draw[part], total=np.count_nonzero(to_draw >= 0))
                    + cross_entropy(logits, to_tell[part], total=np.count_nonzero(to_tell >= 0)))

        return loss

    return loss_at


# ---- drawing and reading ----

def continued(model, prompts, length, rules, end, settings):
    """What the model adds to each prompt, lists of tokens: 32 prompts at a time."""
    with Engine(model, slots=32, workers=settings.workers) as engine:
        jobs = [engine.submit(Request(ids, length, rules, seed=settings.seed + i, end=end)) for i, ids in enumerate(prompts)]
        engine.run()
    return [[token.id for token in job.tokens] for job in jobs]


def drawings(model, tokens, shape, settings):
    """(what was asked for, what was drawn): an array of labels, and a list of images, None for what is no picture."""
    asked = np.repeat(np.arange(len(tokens.names)), settings.drawings)
    prompts = [tokens.question(tokens.draw[label]) for label in asked]
    added = continued(model, prompts, tokens.pixels, settings.rules(), (tokens.end,), settings)
    return asked, [tokens.to_picture(ids, shape) for ids in added]


def read(model, tokens, images, labels, settings):
    """How often the model says, word for word, what a picture shows."""
    longest = max(map(len, tokens.tell)) + 1
    questions = [[*tokens.question(ASK), *tokens.of_picture(image)] for image in images]
    added = continued(model, questions, longest, Rules(0), (tokens.end,), settings)
    right = sum(tokens.to_text(ids) == tokens.tell[label] for ids, label in zip(added, labels))
    return {"read": right, "reading": right / len(labels)}


def judged(judge, asked, drawn):
    """How many drawings the judge takes for what was asked for, of all and of each class."""
    whole = [i for i, image in enumerate(drawn) if image is not None]
    right = np.zeros(len(asked), bool)
    if whole:
        right[whole] = judge.predict(flat([drawn[i] for i in whole])) == asked[whole]
    return {"drawings": len(asked), "no_pictures": len(asked) - len(whole), "recognised": float(right.mean()),
            "recognised_by_class": [float(right[asked == label].mean()) for label in range(asked.max() + 1)]}


def distances(images, known):
    """From each image to the known one nearest to it, as the square root of the mean squared difference of a pixel: (N,);
    and which one that is."""
    a, b = flat(images).astype(np.float64), flat(known).astype(np.float64)
    squares = np.maximum((a * a).sum(1)[:, None] - 2 * a @ b.T + (b * b).sum(1), 0)
    return np.sqrt(squares.min(1) / a.shape[1]), squares.argmin(1)


def copies(known, held, drawn):
    """The share of drawings that are near-copies of a picture that was learnt from, and what that means."""
    real = distances(held, known)[0]
    nearly_equal = float(np.percentile(real, 1))
    whole = [image for image in drawn if image is not None]
    found = distances(whole, known)[0] if whole else np.ones(1)         # no picture is a copy of none
    return {"near_copies": float((found <= nearly_equal).mean()), "exact_copies": float((found < 1e-6).mean()),
            "nearly_equal": nearly_equal, "median_distance": float(np.median(found)),
            "median_distance_of_real": float(np.median(real))}


# ---- what there is to see ----

def show(results, tokens, asked, drawn):
    """The drawings of three classes on the terminal, then the figures."""
    for label in sorted({0, len(tokens.names) // 2, len(tokens.names) - 1}):
        row = [image for i, image in enumerate(drawn) if asked[i] == label and image is not None][:5]
        print(f"\n{tokens.draw[label]}")
        for lines in zip(*row):
            print("   ".join("".join(2 * SHADES[int(p * (len(SHADES) - 1) + 0.5)] for p in line) for line in lines))
    worst = int(np.argmin(results["recognised_by_class"]))
    print(f"\ndrawing   {results['recognised']:.1%} of {results['drawings']} drawings are taken for what was asked for (fewest: "
          f"{tokens.names[worst]}, {results['recognised_by_class'][worst]:.0%}); the judge is right about "
          f"{results['judge_on_real_pictures']:.1%} of the held-out real pictures")
    print(f"copies    {results['near_copies']:.1%} near-copies of a picture that was learnt from (of real ones it would be 1%), "
          f"{results['exact_copies']:.1%} exact ones; the nearest is {results['median_distance']:.3f} away (of real ones "
          f"{results['median_distance_of_real']:.3f}; 1 is from white to black)")
    print(f"reading   {results['reading']:.1%} of {results['measured_by']} held-out pictures read rightly, word for word")


def draw(figure, asked, drawn, known, names):
    """A row for each class: ten drawings; and to the right of the first two, the pictures learnt from that are nearest."""
    rows = [[image for i, image in enumerate(drawn) if asked[i] == label and image is not None][:10]
            for label in range(len(names))]
    axes = figure.subplots(len(names), 15, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for label, row in enumerate(rows):
        nearest = [known[i] for i in distances(row[:2], known)[1]] if row else []
        pairs = [image for pair in zip(row, nearest) for image in pair]
        for column, image in [*enumerate(row), *enumerate(pairs, 11)]:
            axes[label, column].imshow(image, cmap="gray_r", vmin=0, vmax=1)
        axes[label, 0].set_title(f"draw: {a(names[label])}", fontsize=8, loc="left", parse_math=False)
    axes[0, 11].set_title("drawing, nearest real; twice", fontsize=8, loc="left")


if __name__ == "__main__":
    program(main, Settings)
