"""Direct preference optimization: from comparisons to a policy, without a reward model and without sampling (Rafailov et al.
2023, Direct preference optimization: your language model is secretly a reward model).

PPO looks for the policy with the highest  mean score - beta KL(pi || ref).  For any scores s that policy is known:

    (1)  pi(y|x)  =  ref(y|x) e^(s(x,y)/beta) / Z(x)

where Z makes it a distribution; nobody can sum over all replies, so it can't be used as such. But solved for the score,

    (2)  s(x, y)  =  beta (log pi(y|x) - log ref(y|x)) + beta log Z(x)

it says that each policy is the best one for some scores, its implicit reward. Put into Bradley and Terry's loss (reward.py),
where only differences of two replies to the same prompt count, Z drops out:

    (3)  loss  =  - mean of log sigmoid(d),   d = beta [(log pi(y) - log ref(y)) - (log pi(z) - log ref(z))]

y having been chosen and z rejected, some of them by mistake (comparisons.py, (1)); the log-probability of a reply is the sum
over its tokens. At the beginning pi is ref, every d is 0 and the loss log 2. How often d > 0 is the accuracy of the implicit
reward.

(3) asks only that y gain on z, not that either be likely, and of two replies that are both wrong it prefers one. So what
was learnt before can be lost on the way, and demonstrations are replayed beside the comparisons, as in ppo.py (7).
"""
import copy
from dataclasses import dataclass

from ..nn import flatten
from ..ops import log_probability
from ..parallel import Workers
from ..settings import UserError
from ..tensor import no_grad
from .comparisons import ComparisonSettings, check_positive, disagreement, fit
from .replies import replayed


@dataclass(frozen=True)
class DPOSettings(ComparisonSettings):
    """How to learn a policy from comparisons."""
    learning_rate: float = 5e-5     # highest learning rate of AdamW
    beta: float = 0.3               # price of a nat of KL
    replay_weight: float = 0.5      # c_r, where there are demonstrations to replay

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "beta")


def reply_log_probability(model, batch):
    """log pi(y|x) of each reply of a Batch, (b,): the sum over its tokens."""
    return (log_probability(model(batch.inputs), batch.targets) * batch.mask).sum(1)


def dpo_loss(model, reference, batch, settings, total):
    """The loss (3) of a Batch of both sides, summed and divided by total, and the margins d (b,)."""
    with no_grad():
        ref = reply_log_probability(reference, batch).data
    s = (reply_log_probability(model, batch) - ref) * settings.beta              # (2), but for Z: (2 b,)
    b = len(ref) // 2
    d = s[:b] - s[b:]
    return disagreement(d, settings.mistakes).sum() * (1 / total), d.data       # (3)


def train_dpo(model, comparisons, settings=DPOSettings(), workers=None, report=lambda record: None, replay=None):
    """A copy of a language model that has learnt from comparisons. report(record): called at each update.

    replay(n) -> inputs and targets (R, T) of some demonstrations for the n-th update, as sft.Demonstrations.batch gives them.
    """
    if not comparisons:
        raise UserError("there are no comparisons to learn from: every one was longer than the context, or none was given")
    policy = flatten(copy.deepcopy(model), model.flat.data.dtype)
    with Workers(policy, workers) as crew:
        def loss(policy, batch, total):
            return dpo_loss(policy, model, batch, settings, total)

        beside = replay and (lambda step: replayed(*replay(step), settings.replay_weight))
        for record in fit(crew, loss, comparisons, settings, beside):
            report(record)
    return policy
