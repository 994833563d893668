"""The stages that learn from feedback, in the order in which they are run: comparisons to a reward model, the reward model to
a policy by PPO or GRPO, or comparisons straight to a policy by DPO; and what became of a policy, measured.

    judge = Judge(template)
    compared = gather(model, world, template, judge, 4000, seed=1)      comparisons: to learn from, and held out
    reward, figures = learn_reward(model, compared, settings, out)
    replay = to_replay(conversations, template, model.config.context, seed=1)
    policy, records = reinforce(PPO, model, reward, world, template, judge, PPOSettings(), out, replay=replay)
    policy, records = prefer_directly(model, compared, DPOSettings(), out, replay)
    before, after = (measure(m, model, world, template, judge) for m in (model, policy))
    print(mean_and_margin(after.scores - before.scores))

Each stage writes metrics.jsonl into its folder, `out`.
"""
from dataclasses import dataclass

import numpy as np

from ..report import Metrics, Progress
from ..settings import UserError
from ..tensor import no_grad
from .comparisons import ComparisonSettings, accuracy
from .dpo import DPOSettings, train_dpo
from .judge import is_held_out, lessons_to_judge
from .replies import divergence, in_batches, in_order, sample
from .reward import margins, train_reward
from .sft import Demonstrations

REPLAYED = 4                        # rows of demonstrations in an update
SHOWN = {"loss": "loss", "accuracy": "accuracy", "reward": "reward", "true_score": "true score", "kl": "KL", "beta": "beta",
         "length": "length"}


class Log:
    """Records of a stage: into metrics.jsonl, and as a line of progress."""

    def __init__(self, out, steps):
        self.metrics, self.progress = Metrics(out), Progress(steps)

    def __call__(self, record):
        self.metrics.add(**record)
        shown = [f"{name} {record[key]:.3f}" for key, name in SHOWN.items() if key in record]
        self.progress.update(record["step"], "  ".join(shown))

    def close(self):
        self.progress.close()
        return self.metrics.records


def updates(comparisons, settings):
    """How many updates an epoch or more over comparisons makes."""
    return settings.epochs * -(-len(comparisons) // settings.batch_size)


def learn_reward(model, compared, settings=ComparisonSettings(), out=".", workers=None):
    """(RewardModel, its figures) from (labelled comparisons to learn from, those held out).

    accuracy: agreement with the labels held out; ceiling: that of the truth with them; true_accuracy: with what the judge
    really prefers.
    """
    training, held_out = compared
    known = [one.comparison for one in training]
    log = Log(out, updates(known, settings))
    reward = train_reward(model, known, settings, workers, log)
    log.close()
    return reward, reward_figures(reward, held_out) | {"comparisons": len(known)}


def reward_figures(reward, labelled):
    """What a reward model makes of labelled comparisons, as figures. UserError where there are none."""
    if not labelled:
        raise UserError("no comparison was held out to measure a reward model by: compare replies to more questions")
    margin = margins(reward, [one.comparison for one in labelled])
    mistaken = np.array([one.mistaken for one in labelled])
    return {"accuracy": accuracy(margin), "ceiling": float(1 - mistaken.mean()),
            "true_accuracy": accuracy(np.where(mistaken, -margin, margin)), "held_out": len(labelled)}


def to_replay(conversations, template, context, seed):
    """Conversations of fine-tuning for the stages below to replay meanwhile, REPLAYED rows an update."""
    return Demonstrations(template, conversations, context, REPLAYED, seed).batch


def reinforce(kind, model, reward, world, template, judge, settings, out=".", prompts=2000, replay=None, workers=None):
    """(policy, records) by PPO or GRPO, `kind`, from a reward model (or any function of replies).

    replay: what to_replay gives, or None.
    """
    asked = [lesson.question for lesson in lessons_to_judge(world, prompts, [settings.seed, 2])
             if not is_held_out(lesson.question)]
    trainer = kind(model, getattr(reward, "scores", reward), settings, template.end, replay=replay, workers=workers,
                   judge=lambda chosen, replies: judge.scores([asked[i] for i in chosen], replies))
    log = Log(out, settings.iterations)
    for record in trainer.train([template.prompt(list(question.messages)) for question in asked]):
        log(record)
    return trainer.language_model(), log.close()


def prefer_directly(model, compared, settings=DPOSettings(), out=".", replay=None, workers=None):
    """(policy, records) by DPO, from (labelled comparisons to learn from, those held out). replay: as above."""
    known = [one.comparison for one in compared[0]]
    log = Log(out, updates(known, settings))
    return train_dpo(model, known, settings, workers, log, replay), log.close()


# ---- what became of a policy ----

@dataclass(frozen=True, eq=False)
class Measured:
    """What a policy says to questions that were held out, and what it is worth."""
    questions: list
    replies: list
    scores: np.ndarray              # (N,) true scores, by the judge
    kl: float                       # nats a reply, KL(policy || reference), the mean of the exact sums along its replies


def measure(policy, reference, world, template, judge, number=1000, seed=0, length=48, workers=None):
    """A policy Measured by about `number` questions held out: the same ones for the same seed, so that policies can be
    compared question by question. Replies are sampled, as in reinforcement."""
    asked = [lesson.question for lesson in lessons_to_judge(world, 5 * number, [seed, 3]) if is_held_out(lesson.question)]
    prompts = [template.prompt(list(question.messages)) for question in asked]
    replies = sample(policy, prompts, length, template.end, [seed, 4], workers=workers)
    return Measured(asked, replies, judge.scores(asked, replies), float(divergences(policy, reference, replies).mean()))


def divergences(policy, reference, replies, size=16):
    """KL(policy || reference) along each reply, in nats (N,): the sum over its tokens of the exact KL at each."""
    def of(batch):
        return (divergence(policy(batch.inputs).data, reference(batch.inputs).data) * batch.mask).sum(1)

    with no_grad():
        parts = in_batches(replies, size)
        return in_order(parts, [of(batch) for _, batch in parts])


def gained(before, after):
    """What a policy gained on the one before it, Measured by the same questions, as figures."""
    gain, margin = mean_and_margin(after.scores - before.scores)
    return {"true_score": float(after.scores.mean()), "true_score_sft": float(before.scores.mean()), "gain": gain,
            "gain_margin": margin, "kl_held_out": after.kl}


def mean_and_margin(values):
    """The mean of numbers and the half width of its interval of 95%."""
    return float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5)
