"""A reward model: from comparisons to a score (Stiennon et al. 2020, Learning to summarize from human feedback; Ouyang et
al. 2022, Training language models to follow instructions with human feedback, "InstructGPT").

People find it hard to say how good a reply is, and easy to say which of two is better. Bradley and Terry (1952) make
scores of such comparisons. Let each reply y to a prompt x have a score s(x, y), and let the better one win as often as

    (1)  P(y preferred to z)  =  e^s(x,y) / (e^s(x,y) + e^s(x,z))  =  sigmoid(s(x, y) - s(x, z))

Only differences matter: a constant can be added to all scores. Given comparisons in which y was chosen and z rejected,
the scores that make them likeliest are those that minimise

    (2)  loss  =  - mean of log sigmoid(s(x, y) - s(x, z))

which is log 2 for one who has no opinion; that some of the choices are mistakes is allowed for in comparisons.py, (1).

The score is computed by the language model itself, which already knows what replies are about: its stream, the last vector before the logits, is read at the last token of the reply, by which
everything has been seen. To that is added how likely the model finds what was said, token by token:

    (3)  s(x, y)  =  w . stream[last]  +  b  +  sum over the reply's tokens of  a_t log p(token t | all before it)
    (4)  a_t      =  v . stream[t]  +  c

with w, b, v, c learnt, and the rest of the model learning along. Large models do without the sum; here, without it, a
score hardly told right facts from wrong ones. A likely reason, which was not tested: a model of a few layers has just
predicted a token when its layers are used up; none is left to compare that with the token which came, and to carry the
outcome to the end of the reply. But whether "Dutch" is the language of the Netherlands is that comparison. It is made
already, in the logits. What it weighs, a_t, has to depend on the place: that a reply begins with "Gladly" is as unlikely
as a wrong fact, and no mistake. With one weight for all tokens (v = 0), and a frozen model, 87% of the pairs that the
judge compares could be told apart; with (4), 91%.

If a share m of the labels is wrong by mistake, nobody can agree with more than 1 - m of them: that is the ceiling against
which accuracy on labels that were held out is read.

After training, scores are shifted and scaled to mean 0 and standard deviation 1 over replies that were compared (5),
so that what follows can rely on their size. In (2) neither matters but as a certainty that nobody asks for again.
"""
from functools import partial

import numpy as np

from .. import checkpoint
from ..nn import Linear
from ..ops import embedding, log_probability
from ..parallel import Workers
from ..settings import UserError
from ..tensor import no_grad
from .comparisons import ComparisonSettings, disagreement, fit
from .heads import WithHead
from .replies import in_batches, in_order

CALIBRATED = 1000                   # comparisons over whose replies scores are brought to mean 0 and deviation 1


class RewardModel(WithHead):
    """A Batch of b replies -> scores (b,)."""

    def __init__(self, model):
        self.weight = Linear(np.random.default_rng(0), model.config.width, 1, std=0.0)      # v and c
        self.weight.w.group, self.weight.b.data[:] = "vectors", 0.1
        super().__init__(model)

    def forward(self, batch):
        b, T = batch.ids.shape
        stream = self.body.stream(batch.ids)                                    # (b, T, C)
        last = embedding(stream.reshape(b * T, -1), np.arange(b) * T + batch.ends)      # (b, C)
        log_p = log_probability(self.body.head(stream[:, :-1]), batch.targets)  # (b, T - 1)
        a = self.weight(stream[:, 1:]).reshape(b, T - 1)                        # (4)
        return self.numbers(last) + (log_p * a * batch.mask).sum(1)             # (3)  (b,)

    def scores(self, replies, size=16):
        """The scores (N,) of replies, of float64."""
        with no_grad():
            parts = in_batches(replies, size)
            return in_order(parts, [self(batch).data for _, batch in parts])


def bradley_terry(model, batch, total, mistakes):
    """The loss (2) of a Batch of both sides, summed and divided by total, and the margins (b,). A share of the labels
    counts as mistaken."""
    s = model(batch)                                                        # (2 b,)
    b = len(s) // 2
    d = s[:b] - s[b:]
    return disagreement(d, mistakes).sum() * (1 / total), d.data            # (2)


def train_reward(model, comparisons, settings=ComparisonSettings(), workers=None, report=lambda record: None):
    """The RewardModel that begins as `model`, a language model, and learns from comparisons. report(record): called at
    each update."""
    if not comparisons:
        raise UserError("there are no comparisons to learn from: every one was longer than the context, or none was given")
    reward = RewardModel(model)
    with Workers(reward, workers) as crew:
        for record in fit(crew, partial(bradley_terry, mistakes=settings.mistakes), comparisons, settings):
            report(record)
    some = comparisons[::-(-len(comparisons) // CALIBRATED)]                # spread over all of them
    calibrate(reward, [side for c in some for side in (c.chosen, c.rejected)])
    return reward


def calibrate(reward, replies):
    """Shift and scale the scores to mean 0 and standard deviation 1 over these replies (5)."""
    scores = reward.scores(replies)
    mean, std = float(scores.mean()), float(scores.std()) or 1.0
    reward.head.b.data -= mean                                              # (5)
    for part in parts_of(reward).values():
        part.data /= std


def parts_of(reward):
    """What a reward model has beside its body, by the names of (3) and (4)."""
    return {"w": reward.head.w, "b": reward.head.b, "v": reward.weight.w, "c": reward.weight.b}


def margins(reward, comparisons):
    """By how much the model prefers what was chosen, (N,). Above 0 it agrees: how often, is to be read against the ceiling."""
    return reward.scores([c.chosen for c in comparisons]) - reward.scores([c.rejected for c in comparisons])


# ---- on disk: the body is a checkpoint like others, the head stands beside it ----

def save_reward(folder, reward, tokenizer):
    """Write a reward model to a folder."""
    head = {name: part.data.ravel().tolist() for name, part in parts_of(reward).items()}
    checkpoint.save(folder, reward.language_model(), tokenizer, {"reward_head": head})


def load_reward(folder):
    """(RewardModel, tokenizer) from a folder. Raises UserError where it holds none."""
    saved = checkpoint.load(folder)
    head = saved.training.get("reward_head")
    try:
        reward = RewardModel(saved.model)
        for name, part in parts_of(reward).items():
            part.data[...] = np.array(head[name], np.float32).reshape(part.shape)
    except (TypeError, KeyError, ValueError, IndexError):
        raise UserError(f"{folder} holds no reward model, but a model without the head of one: give the folder of the stage "
                        "reward") from None
    return reward, saved.tokenizer
