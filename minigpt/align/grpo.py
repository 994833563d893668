"""Group relative policy optimization: PPO without a value model (Shao et al. 2024, DeepSeekMath, section 4).

PPO learns a second thing, the value of a position, only to know whether a score was more than could be expected. But
what could be expected of a prompt can be seen: have the policy reply G times, and compare the replies with each other.

    (1)  A_i  =  score_i - mean of the group's scores                                          for every token of reply i

The paper divides this by the standard deviation of the group's scores. Then a prompt whose replies differ by a "Gladly" alone
counts as much as one to which some are right and some wrong (Liu et al. 2025, Understanding R1-Zero-like training: a critical
perspective, leave it out for that reason). Here it taught the model to be polite, at 1.2 nats of KL, and to make up more facts
about countries that do not exist, 10.5% in place of 6%; without it, after 40 rounds and at 0.4 nats, 5.0%.

The penalty for the distance from the reference is not mixed into the reward but stands in the loss, in a form that is
never negative for any single token. With d = log ref(a_t) - log pi(a_t), the mean over what pi says of

    (2)  e^d - 1 - d        is  KL(pi || ref),  as the mean of e^d is 1 and that of -d is the KL;   e^d - 1 >= d

    (3)  loss  =  - mean of min(rho_t A, clip(rho_t, 1 - eps, 1 + eps) A)  +  beta mean of (2)

The paper takes the mean over each reply first and then over replies, by which a token of a long wrong reply weighs less
than one of a short wrong one. Here all tokens weigh alike, as in ppo.py. The rest is PPO: the ratio rho, the updates, the
adaptive beta, and what is logged.
"""
import copy
from dataclasses import dataclass

import numpy as np

from ..nn import flatten
from ..ops import clip, entropy, exp, log_probability, minimum
from ..settings import UserError
from ..tensor import no_grad
from .ppo import PPO, Experience, PPOSettings
from .replies import divergence


@dataclass(frozen=True)
class GRPOSettings(PPOSettings):
    """How to learn from a reward by groups."""
    beta: float = 0.2               # price of a nat of KL, at the beginning
    group: int = 8                  # replies to the same prompt

    def __post_init__(self):
        super().__post_init__()
        if self.group < 2 or self.replies % self.group:
            raise UserError(f"group is {self.group}, but has to be at least 2 and to divide the {self.replies} replies of a "
                            "round")


class GRPO(PPO):
    """A policy in training: see PPO."""

    def make_policy(self, model):
        return flatten(copy.deepcopy(model), model.flat.data.dtype)

    def language_model(self):
        return flatten(copy.deepcopy(self.policy), self.policy.flat.data.dtype)

    def speaker(self, policy):
        return policy

    def choose(self, rng, number):
        """Which prompts are taken in a round, (N,): each one `group` times, one behind another."""
        return np.repeat(rng.integers(number, size=self.settings.replies // self.settings.group), self.settings.group)

    def look(self, policy, batch):
        with no_grad():
            logits, reference = policy(batch.inputs), self.reference(batch.inputs)
            log_p, ref = (log_probability(x, batch.targets).data for x in (logits, reference))
            return Experience(batch, log_p, None, ref, divergence(logits.data, reference.data),
                              entropy(logits).data)

    def weigh(self, parts, seen, scores):
        A = group_advantages(scores, self.settings.group)                       # (N,)
        for indices, e in zip(parts, seen):
            e.advantages = np.where(e.mask, A[indices, None], 0).astype(e.log_p.dtype)

    def loss(self, policy, e, tokens):
        s = self.settings
        log_p = log_probability(policy(e.batch.inputs), e.batch.targets)
        ratio = exp(log_p - e.log_p)                                                                # rho
        gain = minimum(ratio * e.advantages, clip(ratio, low=1 - s.eps, high=1 + s.eps) * e.advantages)
        d = e.reference - log_p                                                                     # log ref - log pi
        loss = (exp(d) - 1 - d) * self.beta - gain                                                  # (2) (3)
        e.ratio = ratio.data
        return (loss * e.mask).sum() * (1 / tokens)

    def more_figures(self, seen, masks):
        return {}


def group_advantages(scores, group):
    """(1) for scores (N,), groups one behind another: (N,). All 0 in a group whose scores are all alike."""
    g = scores.reshape(-1, group)
    return (g - g.mean(1, keepdims=True)).reshape(-1)                           # (1)
