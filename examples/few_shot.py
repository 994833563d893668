"""Learning from examples in the prompt: a small GPT solves tasks that it was never trained on.

    python examples/few_shot.py                             three models: about three minutes on two cores
    python examples/few_shot.py --preset quick              one small model, half a minute: hardly learns it
    python examples/few_shot.py --data my_tasks.txt         asks the trained models for tasks of yours, too

Every line that the models see is a task in one format, words of three of the letters a to j:

    cab>bac;hid>dih;bad>                                    what follows?

The rule of a line is never told. It belongs to one of five families, of which `rules` below says more: the letters change
places, or are shifted in the alphabet, or are replaced by those of a cipher, or the first two together; or there is no rule,
and the answer has to be looked up among the examples. A quarter of all variants of each family is never trained on: which
ones, their checksum decides. Measured are these, with words that are new in their line (but for what is to be looked up),
after 0, 1, 2, 4 and 8 examples. An answer counts if all three letters are right.

What the weights have learnt is not the rules, which differ from line to line, but how to find a rule in a line: learning to
learn, "in-context learning" (Brown et al. 2020, Language models are few-shot learners). In --data each line is a task: the
examples, then what is asked, with its answer: cab > bac ; hid > dih ; bad > dab
"""
from dataclasses import asdict, dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np

from minigpt import no_grad
from minigpt.data import lines_of
from minigpt.kernels import cpu
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.report import next_free, prepare_folder, save_picture, write_results
from minigpt.settings import UserError, program
from minigpt.train import TrainSettings, fit

LETTERS = "abcdefghij"
A, L = len(LETTERS), 3              # how many letters there are, and how many make a word
TOKENS = LETTERS + ">;"
ARROW, NEXT = A, A + 1
SHOWN = 0, 1, 2, 4, 8               # numbers of examples after which is asked
EXAMPLES = max(SHOWN) + 1           # in a line, with what is asked
EACH = 2 * L + 2                    # tokens of an example: word, arrow, word, semicolon
FAMILIES = "places", "shift", "cipher", "places and shift", "lookup"


@dataclass(frozen=True)
class Settings:
    sizes: str = "1x64,2x64,3x64"   # the models: layers x width, with commas between, small ones first
    data: str | None = None         # a file of tasks of yours, one a line, to be asked for as well
    out: str | None = None          # folder for results.json and few_shot.png (none: the next free runs/few-shot-N)
    steps: int = 1000               # updates of each model
    batch_size: int = 64            # lines in an update
    learning_rate: float = 0.02     # highest learning rate, of Muon
    questions: int = 100            # asked of each family, for each number of examples
    workers: int = 0                # worker threads (0: one a core)
    seed: int = 1                   # of the parameters, the lines and the questions

    presets: ClassVar[dict[str, dict]] = {"quick": {"sizes": "2x32", "steps": 150, "questions": 20}}

    def __post_init__(self):
        self.recipe()                                       # checks what it shares with other programs
        self.configs()
        if not 1 <= self.questions <= 100_000:
            raise UserError(f"questions is {self.questions}, but has to be at least 1 and at most 100000")

    def recipe(self):
        """The settings of a model's training."""
        return TrainSettings(steps=self.steps, batch_size=self.batch_size, optimizer="muon", learning_rate=self.learning_rate,
                             last_learning_rate=self.learning_rate / 50, warm_up=20, hold=0.4, weight_decay=0.0, beta2=0.95,
                             workers=self.workers, seed=self.seed)

    def configs(self):
        """{size: the shape of its model}, with heads of 32 numbers."""
        found = {}
        for size in self.sizes.split(","):
            layers, _, width = size.strip().partition("x")
            if not (layers.isdecimal() and width.isdecimal() and int(width) % 32 == 0 and int(width)):
                raise UserError(f"{size.strip()!r} is no size of a model: --sizes takes layers x width, the width a multiple of "
                                "32, with commas between, such as 1x64,2x64")
            found[size.strip()] = GPTConfig(len(TOKENS), EXAMPLES * EACH, int(layers), int(width) // 32, int(width))
        return found


# ---- the tasks ----

def rules(rng, family, number, trained):
    """`number` variants of a family that are trained on, or never: places (number, L) and cipher (number, A).

    Letter i of the answer is cipher[letter places[i] of the question]. "places" draws any places (so cab>bac, but also
    cab>ccc: 27 variants), "shift" adds 1 to 9 to each letter, modulo 10, "cipher" draws one of the 3,628,800 orders of the
    alphabet. What is left out is left as it is. In "lookup" the variants are only drawn to seed the answers.
    """
    drawn = []
    while len(drawn) < number:
        places = rng.integers(L, size=L) if "places" in family else np.arange(L)
        cipher = (np.arange(A) + rng.integers(1, A)) % A if "shift" in family else np.arange(A)
        if family in ("cipher", "lookup"):
            cipher = rng.permutation(A)
        if is_trained(places, cipher) == trained:
            drawn.append((places, cipher))
    return (np.array(column) for column in zip(*drawn))


def is_trained(places, cipher):
    """Whether a variant is one that models are trained on: three of four are."""
    return crc32(bytes(map(int, (*places, *cipher)))) % 4 != 2


def lines(rng, family, number, examples, trained):
    """Questions and answers (number, examples, L) of lines of a family, each with a rule of its own. No question comes twice
    in a line, but in "lookup" the last does."""
    places, cipher = rules(rng, family, number, trained)
    words = np.stack([rng.choice(A ** L, examples, replace=False) for _ in range(number)])
    asked = words[..., None] // A ** np.arange(L) % A                                       # (number, examples, L)
    moved = np.take_along_axis(asked, np.broadcast_to(places[:, None], asked.shape), axis=2)
    answers = np.take_along_axis(cipher, moved.reshape(number, -1), axis=1).reshape(asked.shape)
    if family == "lookup":
        answers = np.stack([np.random.default_rng(c).integers(A, size=asked.shape[1:]) for c in cipher])
        for i in range(1 if trained else max(1, examples - 1), examples):                   # training asks all the time
            again = rng.integers(i, size=number)
            chosen = np.flatnonzero(rng.random(number) < (0.5 if trained else 1.0))
            asked[chosen, i], answers[chosen, i] = asked[chosen, again[chosen]], answers[chosen, again[chosen]]
    return asked, answers


def as_tokens(asked, answers):
    """Lines of tokens (number, examples * EACH)."""
    x = np.empty((*asked.shape[:2], EACH), np.int64)
    x[..., :L], x[..., L], x[..., L + 1:-1], x[..., -1] = asked, ARROW, answers, NEXT
    return x.reshape(len(x), -1)


def own_tasks(written, path):
    """The tasks that are written in the lines of a file of the user's: [(asked, answers)], each (1, examples, L)."""
    tasks = []
    for n, line in enumerate(written, 1):
        pairs = [[word.strip() for word in pair.split(">")] for pair in line.strip().rstrip(";").split(";")]
        if pairs == [[""]]:
            continue
        if any(len(pair) != 2 or any(len(word) != L or set(word) - set(LETTERS) for word in pair) for pair in pairs):
            raise UserError(f"line {n} of {path} is no task: it needs pairs such as cab > bac, with ; between, of words of {L} "
                            f"letters from {LETTERS[0]} to {LETTERS[-1]}")
        if not 2 <= len(pairs) <= EXAMPLES:
            raise UserError(f"line {n} of {path} has {len(pairs)} pairs, but needs 2 to {EXAMPLES}: examples, and what is asked")
        numbers = np.array([[[LETTERS.index(c) for c in word] for word in pair] for pair in pairs])     # (examples, 2, L)
        tasks.append((numbers[None, :, 0], numbers[None, :, 1]))
    if not tasks:
        raise UserError(f"{path} holds no tasks: it needs one a line, such as cab > bac ; hid > dih ; bad > dab")
    return tasks


# ---- training and asking ----

def batches(settings):
    """For fit(): the loss of each step's lines, at the letters of the answers alone."""
    def loss_at(step):
        rng = np.random.default_rng([settings.seed, step])
        counts = np.bincount(rng.integers(len(FAMILIES), size=settings.batch_size), minlength=len(FAMILIES))
        ids = np.concatenate([as_tokens(*lines(rng, family, count, EXAMPLES, trained=True))
                              for family, count in zip(FAMILIES, counts) if count])
        targets = np.full_like(ids, -1)
        targets.reshape(-1, EXAMPLES, EACH)[..., L:2 * L] = ids.reshape(-1, EXAMPLES, EACH)[..., L + 1:2 * L + 1]
        order = rng.permutation(len(ids))                   # families mixed: the parts of a batch are to be alike
        x, y = ids[order], targets[order]
        counted = np.count_nonzero(y >= 0)
        return lambda model, part: model.loss(x[part], y[part], total=counted)

    return loss_at


def answered(model, ids):
    """The word (N, L) that the model thinks likeliest letter by letter, after lines (N, T) that end in an arrow."""
    with no_grad():
        for _ in range(L):
            following = [model(ids[i:i + 32]).data[:, -1, :A].argmax(-1) for i in range(0, len(ids), 32)]
            ids = np.concatenate([ids, np.concatenate(following)[:, None]], axis=1)
    return ids[:, -L:]


def prompts(asked, answers):
    """Lines that end in the last question's arrow."""
    return as_tokens(asked, answers)[:, :-(L + 1)]


def accuracies(model, settings, trained):
    """{family: the share of right answers after each number of examples in SHOWN}, for variants trained on or never."""
    found = {}
    for family in FAMILIES:
        found[family] = []
        for shown in SHOWN:
            rng = np.random.default_rng([settings.seed, shown, trained, 2 ** 40])           # not a step of the training's
            asked, answers = lines(rng, family, settings.questions, shown + 1, trained)
            right = (answered(model, prompts(asked, answers)) == answers[:, -1]).all(axis=1)
            found[family].append(float(right.mean()))
    return found


def mean(accuracy):
    """Over all families, for each number of examples."""
    return np.mean(list(accuracy.values()), axis=0).tolist()


def main(settings):
    own = own_tasks(lines_of(settings.data, "a task"), settings.data) if settings.data else []
    out = prepare_folder(settings.out or next_free("runs/few-shot"))
    print(f"tasks     {', '.join(FAMILIES)}; a quarter of the variants of each is never trained on\nkernels   {cpu.status()}\n"
          f"training  {settings.steps} steps of {settings.batch_size} lines for each model; results in {out}\n\n"
          f"right answers, variants never trained on {heading()}", flush=True)
    results = {"shown": SHOWN, "settings": asdict(settings), "kernels": cpu.status(), "models": {}}
    for size, config in settings.configs().items():
        model = GPT(config, settings.seed)
        loss = fit(model, settings.recipe(), batches(settings))
        never, trained = (accuracies(model, settings, trained) for trained in (False, True))
        results["models"][size] = {"parameters": len(model.flat), "training_loss": loss, "never_trained": never,
                                   "trained": trained, "mean_never_trained": mean(never), "mean_trained": mean(trained)}
        print(row(f"{size}, {len(model.flat):,} parameters", mean(never)), flush=True)
    print(row("  the last one, variants trained on", mean(trained)))
    for family in FAMILIES:
        print(row(f"  the last one, {family}, never trained on", never[family]))
    with_none, with_most = mean(never)[0], mean(never)[-1]
    times = f", {with_most / with_none:.0f} times as often" if with_none else ""
    print(f"\nafter {SHOWN[-1]} examples the last model is right in {with_most:.1%} of the tasks, after none in {with_none:.1%}{times}")
    demonstrate(model, settings)
    if own:
        results["own_tasks"] = ask_own(model, own)
    write_results(out, results)
    missing = save_picture(out / "few_shot.png", (11, 4.5), lambda figure: draw(figure, results["models"]))
    print(missing or f"saved in {out}: results.json, few_shot.png")


# ---- what there is to see ----

def heading():
    return "".join(f"{shown:8}" for shown in SHOWN) + "  examples"


def row(what, accuracy):
    return f"{what:41}" + "".join(f"{share:8.1%}" for share in accuracy)


def word(letters):
    return "".join(LETTERS[i] for i in letters)


def demonstrate(model, settings):
    """A line of each family, and what the model goes on with."""
    rng = np.random.default_rng([settings.seed, 2 ** 41])
    for family in FAMILIES:
        asked, answers = lines(rng, family, 1, EXAMPLES, trained=False)
        ids = prompts(asked, answers)
        found = word(answered(model, ids)[0])
        verdict = "right" if found == word(answers[0, -1]) else f"wrong: {word(answers[0, -1])}"
        print(f"{family:17}{''.join(TOKENS[i] for i in ids[0])} {found}   {verdict}")


def ask_own(model, tasks):
    """The user's tasks, with all of their examples. Returns what was asked and answered."""
    print("\nyour tasks")
    told = []
    for asked, answers in tasks:
        found = word(answered(model, prompts(asked, answers))[0])
        told.append({"examples": asked.shape[1] - 1, "asked": word(asked[0, -1]), "answer": found,
                     "right": found == word(answers[0, -1])})
        print(f"after {told[-1]['examples']} examples {told[-1]['asked']}>{found}   "
              + ("right" if told[-1]["right"] else f"wrong: {word(answers[0, -1])}"))
    print(f"{sum(one['right'] for one in told)} of {len(told)} right")
    return told


def draw(figure, models):
    """Accuracy over the number of examples: of all models, and of the last by family."""
    left, right = figure.subplots(1, 2, sharey=True)
    for i, (size, found) in enumerate(models.items()):
        left.plot(SHOWN, found["mean_never_trained"], "o-", color=f"C{i}", label=f"{size}, {found['parameters']:,} parameters")
        left.plot(SHOWN, found["mean_trained"], "--", color=f"C{i}", lw=1)
    left.set_title("all families; dashed: variants that were trained on")
    for family, accuracy in found["never_trained"].items():
        right.plot(SHOWN, accuracy, "o-", label=family)
    right.set_title(f"{size}, by family, variants never trained on")
    for axes in left, right:
        axes.set(xlabel="examples in the prompt", xticks=SHOWN, ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
    left.set_ylabel("share of right answers")


if __name__ == "__main__":
    program(main, Settings)
