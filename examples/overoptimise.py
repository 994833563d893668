"""What happens when a reward model is believed too much.

A reward model is a guess at what people like, made from some comparisons. A policy that is paid by it and by nothing else,
beta = 0, moves far from the model that the guess was made for, to replies of which the reward model knows little: its score
goes on rising while what it stands for, the judge's true score, falls again (Gao et al. 2023, Scaling laws for reward model
overoptimization; "Goodhart's law"). The price of distance, beta, is there to prevent it.

    python examples/overoptimise.py --run runs/chat

takes the fine-tuned model of a run of examples/train_chat.py and learns a reward model from a few hundred comparisons, all of
replies that were written from tables: of replies like those it tells better from worse well enough, and what the model itself
says when it tries things out it has never seen. PPO is let loose on it twice, with beta = 0 and with a beta that adapts. Both
scores are printed as the KL grows, and drawn (overoptimisation.png, with matplotlib). About three minutes on two cores.
"""
from dataclasses import dataclass
from typing import ClassVar

from minigpt import checkpoint
from minigpt.align.chat import Template
from minigpt.align.comparisons import ComparisonSettings, counted_as_mistaken
from minigpt.align.feedback import learn_reward, reinforce
from minigpt.align.judge import Judge, gather, lessons_to_judge
from minigpt.align.ppo import PPO, PPOSettings
from minigpt.align.replies import sample
from minigpt.align.world import World
from minigpt.report import prepare_folder, save_picture, write_results
from minigpt.settings import UserError, program


@dataclass(frozen=True)
class Settings:
    """How far to go."""
    run: str = "runs/chat"          # folder of a run of train_chat.py, or of a model that was fine-tuned in it
    world: int = 1                  # seed of the world in which it learnt
    countries: int | None = None    # how many countries that world has (none: all)
    questions: int = 1000           # questions about which replies are compared: few, for a reward model that errs
    mistakes: float = 0.1           # share of wrong labels
    iterations: int = 60            # rounds of PPO
    replies: int = 96               # replies in a round
    learning_rate: float = 2e-3     # of PPO: high, so that much becomes of little
    beta: float = 0.3               # price of a nat, at the beginning of the run whose beta adapts
    target_kl: float = 0.5          # nats a reply, to which it adapts
    workers: int = 0                # threads (0: one a core)
    seed: int = 1                   # of the comparisons and of PPO
    out: str = "runs/overoptimise"  # folder for metrics, results.json and the picture
    presets: ClassVar[dict[str, dict]] = {"quick": {"questions": 60, "iterations": 3, "replies": 16}}

    def __post_init__(self):
        if self.questions < 20:
            raise UserError(f"questions is {self.questions}, but a reward model needs at least 20")


def main(settings):
    s, out, workers = settings, prepare_folder(settings.out), settings.workers or None
    saved = checkpoint.load(s.run, ["sft", "best", "latest"])
    template, world = Template(saved.tokenizer), World(s.world, s.countries)
    judge = Judge(template, s.mistakes, s.seed)
    compared = gather(saved.model, world, template, judge, s.questions, s.seed, workers=workers, sampled=0.0)
    learning = ComparisonSettings(mistakes=counted_as_mistaken(s.mistakes))
    reward, figures = learn_reward(saved.model, compared, learning, out / "reward", workers)
    print("reward model of {comparisons} comparisons: agrees with {accuracy:.1%} of {held_out} held out, the truth with "
          "{ceiling:.1%}".format(**figures))
    runs = {}
    prices = {"beta 0": {"beta": 0.0, "target_kl": None}, "beta adapts": {"beta": s.beta, "target_kl": s.target_kl}}
    for name, price in prices.items():
        ppo = PPOSettings(iterations=s.iterations, replies=s.replies, learning_rate=s.learning_rate, seed=s.seed, **price)
        policy, runs[name] = reinforce(PPO, saved.model, reward, world, template, judge, ppo, out / name.replace(" ", "-"),
                                       workers=workers)
        show(name, runs[name])
        say(policy, reward, world, template, judge)
    why_not = plot(runs, out / "overoptimisation.png")
    if why_not:
        print(why_not)
    write_results(out, figures | summary(runs))


def show(name, records):
    """A run as a table of about twelve lines."""
    print(f"\n{name}: round, KL in nats a reply, the reward model's score, the true score, tokens a reply")
    for record in records[::max(1, len(records) // 12)] + records[-1:]:
        print("{step:5d}  {kl:6.2f}  {reward:7.3f}  {true_score:7.3f}  {length:5.1f}".format(**record))


def say(policy, reward, world, template, judge, number=5):
    """A few replies of a policy, with both scores."""
    questions = [lesson.question for lesson in lessons_to_judge(world, number, 0)]
    replies = sample(policy, [template.prompt(list(one.messages)) for one in questions], 48, template.end, 0)
    print("  reward    true")
    for question, reply, score, true in zip(questions, replies, reward.scores(replies), judge.scores(questions, replies)):
        print(f"{score:8.2f}{true:8.2f}   {question.text} -- {judge.text(reply)}")


def summary(runs):
    """First, best and last of both scores, flat."""
    figures = {}
    for name, records in runs.items():
        name = name.replace(" ", "_")
        best = max(records, key=lambda record: record["true_score"])
        for when, record in ("first", records[0]), ("best", best), ("last", records[-1]):
            figures |= {f"{name}_{when}_{key}": record[key] for key in ("kl", "reward", "true_score")}
    return figures


def in_stretches(records, key, length=5):
    """A figure in the first round, in which the policy is the fine-tuned model, and its means over `length` rounds at a time:
    a hundred replies make every round a noisy one."""
    values = [record[key] for record in records]
    return values[:1] + [sum(part) / len(part) for part in (values[i:i + length] for i in range(0, len(values), length))]


def plot(runs, path):
    """Both scores over the KL, a panel for each run. Returns None, or a sentence that says why there is none."""
    return save_picture(path, (9, 4), lambda figure: draw(figure, runs))


def draw(figure, runs):
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)
    for axes, (name, records) in zip(panels[0], runs.items()):
        for key, label, colour in ("reward", "the reward model's score", "C0"), ("true_score", "the judge's true score", "C1"):
            axes.plot([record["kl"] for record in records], [record[key] for record in records], ".", alpha=0.3, color=colour)
            x, y = in_stretches(records, "kl"), in_stretches(records, key)
            axes.plot(x, y, "o-", color=colour, label=label)
            axes.annotate("the end", (x[-1], y[-1]), (4, 4), textcoords="offset points")
        axes.set(title=name, xlabel="KL from the fine-tuned model, nats a reply")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("score (points: a round; lines: means of five)")
    panels[0][0].legend()


if __name__ == "__main__":
    program(main, Settings)
