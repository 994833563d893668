"""What happens when a reward model is believed too much.

A reward model is a guess at what people like, made from some comparisons. A policy that is paid by it and by nothing else,
beta = 0, moves far from the model that the guess was made for, to replies of which the reward model knows little: its score
goes on rising while what it stands for, the judge's true score, falls again (Gao et al. 2023, Scaling laws for reward model
overoptimization; "Goodhart's law"). The price of distance, beta, is there to prevent it.

    python examples/overoptimise.py --run runs/chat

takes the fine-tuned model of a run of examples/train_chat.py, learns a reward model from a hundred comparisons or so, and lets
PPO loose on it twice, with beta = 0 and with a beta that adapts; it prints both scores as the KL grows and draws them
(overoptimisation.png, with matplotlib). About three minutes on two cores.
"""
from dataclasses import dataclass
from typing import ClassVar

from minigpt import checkpoint
from minigpt.align.chat import Template
from minigpt.align.comparisons import ComparisonSettings
from minigpt.align.feedback import learn_reward, reinforce
from minigpt.align.judge import Judge, gather
from minigpt.align.ppo import PPO, PPOSettings
from minigpt.align.world import World
from minigpt.report import prepare_folder, save_picture, write_results
from minigpt.settings import UserError, program


@dataclass(frozen=True)
class Settings:
    """How far to go."""
    run: str = "runs/chat"          # folder of a run of train_chat.py, or of a model that was fine-tuned in it
    world: int = 1                  # seed of the world in which it learnt
    countries: int | None = None    # how many countries that world has (none: all)
    questions: int = 200            # questions about which replies are compared: few, for a reward model that errs
    epochs: int = 3                 # how often it sees each comparison
    mistakes: float = 0.1           # share of wrong labels
    iterations: int = 60            # rounds of PPO
    replies: int = 96               # replies in a round
    learning_rate: float = 1e-3     # of PPO
    target_kl: float = 3.0          # nats a reply, for the run whose beta adapts
    workers: int = 0                # threads (0: one a core)
    seed: int = 1                   # of the comparisons and of PPO
    out: str = "runs/overoptimise"  # folder for metrics, results.json and the picture
    presets: ClassVar[dict[str, dict]] = {"quick": {"questions": 60, "iterations": 3, "replies": 16, "epochs": 1}}

    def __post_init__(self):
        if self.questions < 20:
            raise UserError(f"questions is {self.questions}, but a reward model needs at least 20")


def main(settings):
    s, out, workers = settings, prepare_folder(settings.out), settings.workers or None
    saved = checkpoint.load(s.run, ["sft", "best", "latest"])
    template, world = Template(saved.tokenizer), World(s.world, s.countries)
    judge = Judge(template, s.mistakes, s.seed)
    compared = gather(saved.model, world, template, judge, s.questions, s.seed, workers=workers)
    reward, figures = learn_reward(saved.model, compared, ComparisonSettings(epochs=s.epochs), out / "reward", workers)
    print("reward model of {comparisons} comparisons: agrees with {accuracy:.1%} of {held_out} held out, the truth with "
          "{ceiling:.1%}".format(**figures))
    runs = {}
    for name, price in {"beta 0": {"beta": 0.0, "target_kl": None}, "beta adapts": {"target_kl": s.target_kl}}.items():
        ppo = PPOSettings(iterations=s.iterations, replies=s.replies, learning_rate=s.learning_rate, seed=s.seed, **price)
        _, runs[name] = reinforce(PPO, saved.model, reward, world, template, judge, ppo, out / name.replace(" ", "-"),
                                  workers=workers)
        show(name, runs[name])
    why_not = plot(runs, out / "overoptimisation.png")
    if why_not:
        print(why_not)
    write_results(out, figures | summary(runs))


def show(name, records):
    """A run as a table of about twelve lines."""
    print(f"\n{name}: round, KL in nats a reply, the reward model's score, the true score, tokens a reply")
    for record in records[::max(1, len(records) // 12)] + records[-1:]:
        print("{step:5d}  {kl:6.2f}  {reward:7.3f}  {true_score:7.3f}  {length:5.1f}".format(**record))


def summary(runs):
    """First, best and last of both scores, flat."""
    figures = {}
    for name, records in runs.items():
        name = name.replace(" ", "_")
        best = max(records, key=lambda record: record["true_score"])
        for when, record in ("first", records[0]), ("best", best), ("last", records[-1]):
            figures |= {f"{name}_{when}_{key}": record[key] for key in ("kl", "reward", "true_score")}
    return figures


def plot(runs, path):
    """Both scores over the KL, a panel for each run. Returns None, or a sentence that says why there is none."""
    return save_picture(path, (9, 4), lambda figure: draw(figure, runs))


def draw(figure, runs):
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)
    for axes, (name, records) in zip(panels[0], runs.items()):
        for key, label in ("reward", "the reward model's score"), ("true_score", "the judge's true score"):
            axes.plot([record["kl"] for record in records], [record[key] for record in records], "o", ms=4, alpha=0.6,
                      label=label)
        axes.set(title=name, xlabel="KL from the fine-tuned model, nats a reply")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("score")
    panels[0][0].legend()


if __name__ == "__main__":
    program(main, Settings)
