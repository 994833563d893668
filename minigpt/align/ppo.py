"""Proximal policy optimization: replies that earn more become likelier, step by step (Schulman et al. 2017, Proximal policy
optimization algorithms; for language models Ziegler et al. 2019, Stiennon et al. 2020, Ouyang et al. 2022).

A language model is a policy: the state is the text so far, the action a_t the next token. A reply to a prompt earns a
score at its end, from a reward model. What is wanted is a policy pi whose replies score high and that stays near the
model it began as, the reference; otherwise it finds replies that please the reward model and nobody else. So each token
pays for the distance, and the last one is paid the score:

    (1)  r_t  =  - beta (log pi(a_t) - log ref(a_t))  +  (score, at the last token)

The first term is the *sampled* penalty: its mean over what pi says is beta times KL(pi || ref). What is logged as KL is
the exact sum over the vocabulary at each position, which is never negative; beta follows it (6).

Advantages. A value V_t, read by a second head from the same stream, says what a reply will yet earn from position t on.
An action was good if it earned more than that. With the surprise of one step

    (2)  delta_t  =  r_t + gamma V_{t+1} - V_t                          V is 0 behind the reply

one step looks at delta_t alone, trusting V; many steps sum what was really earned, trusting nobody, with more noise.
Generalised advantages (Schulman et al. 2016) weigh them:

    (3)  A_t  =  sum over l of (gamma lambda)^l delta_{t+l}  =  delta_t + gamma lambda A_{t+1}

and A_t + V_t is what V_t should have been, its target R_t. Then A is brought to mean 0 and standard deviation 1.

The step. Raising log pi(a_t) in proportion to A_t is right for replies of the present policy only, and several updates
are made from the same replies. With the policy that spoke, "old", the ratio rho_t = pi(a_t) / old(a_t) corrects for
that, and clipping it takes away the gain from going further than eps in one step:

    (4)  policy loss  =  - mean of min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t)
    (5)  value loss   =  1/2 mean of max((V_t - R_t)^2, (V_old + clip(V_t - V_old, -eps, eps) - R_t)^2)

    loss  =  (4) + c_v (5) - c_h mean entropy

The log-probabilities of "old" come from the same forward pass over the same arrays as those of the update, not from the
sampler and its cache, which round differently: so at the first update every ratio is exactly 1.

    (6)  e = clip(KL / target - 1, -0.2, 0.2);   beta <- beta (1 + 0.1 e)            KL in nats a reply (Ziegler et al.)

What no reply is about is forgotten meanwhile: how to call a tool, say. So demonstrations can be replayed beside the replies
("PPO-ptx" of Ouyang et al., who replay the text of pre-training), with the loss that they were learnt with:

    (7)  loss  <-  loss + c_r mean of -log pi(token) over some demonstrations
"""
from dataclasses import dataclass

import numpy as np

from ..ops import clip, entropy, exp, log_probability, maximum, minimum
from ..optim import AdamW
from ..parallel import Workers
from ..tensor import no_grad
from .comparisons import check_finite, check_positive
from .heads import WithHead
from .replies import divergence, in_batches, masked_mean, replayed, sample


@dataclass(frozen=True)
class PPOSettings:
    """How to learn from a reward."""
    iterations: int = 40            # rounds of replies
    replies: int = 128              # replies in a round
    length: int = 48                # tokens of a reply, at most
    epochs: int = 2                 # how often the replies of a round are learnt from
    batch_size: int = 32            # replies in an update
    micro_batch: int = 8            # replies that a worker takes at a time
    learning_rate: float = 5e-4     # AdamW's, in the first round; it falls to 0 linearly
    beta: float = 0.1               # price of a nat of KL, at the beginning
    target_kl: float | None = 1.5   # nats a reply to which beta adapts; none: beta stays
    eps: float = 0.2                # how far a ratio or a value may move in a round
    gamma: float = 1.0              # how much a reward counts one token earlier
    lam: float = 0.95               # lambda of the generalised advantages
    value_weight: float = 0.1       # c_v
    entropy_weight: float = 0.0     # c_h
    replay_weight: float = 0.5      # c_r, where there are demonstrations to replay
    unfinished: float = 1.0         # what the score of a reply that has not ended is lowered by
    clip: float = 1.0               # largest norm of a gradient
    seed: int = 1                   # of the prompts, the replies and the order

    def __post_init__(self):
        check_positive(self, "iterations", "replies", "length", "epochs", "batch_size", "micro_batch", "learning_rate",
                       "eps", "clip")


class Policy(WithHead):
    """ids (b, T) -> logits (b, T, V) and values (b, T), from one stream."""

    def forward(self, ids):
        stream = self.body.stream(ids)                                          # (b, T, C)
        return self.body.head(stream), self.numbers(stream)


@dataclass(eq=False)
class Experience:
    """What is known of a micro-batch of replies when they have been said: arrays (b, T), as the Batch's."""
    batch: object
    log_p: np.ndarray               # log old(a_t)
    values: np.ndarray              # V_old
    reference: np.ndarray           # log ref(a_t)
    kl: np.ndarray                  # KL(pi || ref), exact
    entropy: np.ndarray             # of pi, exact
    advantages: np.ndarray | None = None
    returns: np.ndarray | None = None
    ratio: np.ndarray | None = None     # of the last update in which it was

    mask = property(lambda self: self.batch.mask)
    penalty = property(lambda self: self.log_p - self.reference)        # for the distance, sampled: of any sign


class PPO:
    """A policy in training.

        trainer = PPO(model, reward, settings, template.end)
        for record in trainer.train(prompts):           # a dict of figures for each round
            ...
        trainer.language_model()                        # what became of the model

    reward(replies) -> scores (N,). judge(indices, replies) -> true scores (N,), which are logged and never learnt from;
    indices say which prompts were taken. end: the token that ends a reply. replay(n) -> inputs and targets (R, T) of some
    demonstrations for the n-th update, as sft.Demonstrations.batch gives them; None: no replay. workers: threads; None: one
    a core.
    """

    def __init__(self, model, reward, settings, end, judge=None, replay=None, workers=None):
        self.reference, self.reward, self.settings, self.end, self.judge = model, reward, settings, end, judge
        self.policy = self.make_policy(model)
        self.optimizer = AdamW(self.policy.flat, decay=0.0)
        self.replay, self.workers = replay, workers
        self.beta, self.round = settings.beta, 0

    def make_policy(self, model):
        return Policy(model)

    def language_model(self):
        """A copy of the policy without its value head."""
        return self.policy.language_model()

    def speaker(self, policy):
        """The language model in a policy: what samples, and what demonstrations are replayed to."""
        return policy.body

    def train(self, prompts):
        """Yields the record of each round. prompts: int64 arrays."""
        with Workers(self.policy, self.workers) as workers:
            while self.round < self.settings.iterations:
                yield self.step(workers, prompts)

    def step(self, workers, prompts):
        """One round: replies, scores, advantages, updates. Returns its record."""
        s, seed = self.settings, [self.settings.seed, self.round]
        rng = np.random.default_rng([*seed, 0])
        chosen = self.choose(rng, len(prompts))
        replies = sample(self.speaker(self.policy), [prompts[i] for i in chosen], s.length, self.end, [*seed, 1],
                         workers=workers.number)
        scores = self.reward(replies) - s.unfinished * np.array([not reply.ended for reply in replies])     # (N,)
        parts = in_batches(replies, s.micro_batch)
        seen = workers.each(self.look, [batch for _, batch in parts])
        self.weigh([indices for indices, _ in parts], seen, scores)

        per_update = max(1, s.batch_size // s.micro_batch)
        for _ in range(s.epochs):
            order = rng.permutation(len(seen))
            for i in range(0, len(seen), per_update):
                norm = self.update(workers, [seen[j] for j in order[i:i + per_update]])
        record = self.record(seen, replies, scores) | {"grad_norm": norm}
        if self.judge is not None:
            record["true_score"] = float(np.mean(self.judge(chosen, replies)))
        if s.target_kl is not None:
            self.beta *= 1 + 0.1 * float(np.clip(record["kl"] / s.target_kl - 1, -0.2, 0.2))       # (6)
        self.round += 1
        return record

    def choose(self, rng, number):
        """Which prompts are taken in a round, (N,)."""
        return rng.integers(number, size=self.settings.replies)

    def look(self, policy, batch):
        """The Experience of a Batch: what the policy and the reference think of what was said."""
        with no_grad():
            logits, values = policy(batch.inputs)
            reference = self.reference(batch.inputs)
            log_p, ref = (log_probability(x, batch.targets).data for x in (logits, reference))
            return Experience(batch, log_p, values.data, ref, divergence(logits.data, reference.data),
                              entropy(logits).data)

    def weigh(self, parts, seen, scores):
        """Fill in advantages and returns. parts: which of the scores (N,) belong to each micro-batch."""
        s = self.settings
        for indices, e in zip(parts, seen):
            rewards = rewards_of(e, scores[indices], self.beta)
            e.advantages = advantages(rewards, e.values, e.mask, s.gamma, s.lam)
            e.returns = e.advantages + e.values                                 # R_t
        whiten(seen)

    def update(self, workers, seen):
        """One update from some micro-batches. Returns the norm of the gradient."""
        tokens = sum(int(e.mask.sum()) for e in seen)
        shares = [lambda policy, e=e: self.loss(policy, e, tokens) for e in seen]
        if self.replay is not None:
            shares.append(replayed(*self.replay(self.optimizer.steps), self.settings.replay_weight, self.speaker))     # (7)
        loss = workers.gradient(lambda policy, share: share(policy), shares)
        check_finite(loss, self.round + 1)
        lr = self.settings.learning_rate * (1 - self.round / self.settings.iterations)
        return self.optimizer.step(lr, self.settings.clip, workers.map)

    def loss(self, policy, e, tokens):
        """The sum of the losses at all tokens of a micro-batch's replies, divided by the tokens of the whole update."""
        s = self.settings
        logits, values = policy(e.batch.inputs)
        ratio = exp(log_probability(logits, e.batch.targets) - e.log_p)                             # rho
        gain = minimum(ratio * e.advantages, clip(ratio, low=1 - s.eps, high=1 + s.eps) * e.advantages)     # (4)
        near = clip(values - e.values, low=-s.eps, high=s.eps) + e.values
        error = maximum((values - e.returns) ** 2, (near - e.returns) ** 2) * 0.5                   # (5)
        loss = error * s.value_weight - gain
        if s.entropy_weight:
            loss = loss - entropy(logits) * s.entropy_weight
        e.ratio = ratio.data
        return (loss * e.mask).sum() * (1 / tokens)

    def record(self, seen, replies, scores):
        """The figures of a round, of the policy as it was when it spoke; clip_fraction as it was in the last epoch."""
        masks = [e.mask for e in seen]
        kl = masked_mean([e.kl for e in seen], masks)
        length = float(np.mean([len(reply.ids) for reply in replies]))
        return {"step": self.round + 1, "reward": float(np.mean(scores)), "kl": kl * length, "kl_per_token": kl,
                "sampled_penalty": masked_mean([e.penalty for e in seen], masks) * length,
                "entropy": masked_mean([e.entropy for e in seen], masks),
                "clip_fraction": masked_mean([abs(e.ratio - 1) > self.settings.eps for e in seen], masks),
                "length": length, "ended": float(np.mean([reply.ended for reply in replies])), "beta": self.beta,
                **self.more_figures(seen, masks)}

    def more_figures(self, seen, masks):
        """Root of the mean squared error of the values."""
        return {"value_error": masked_mean([(e.values - e.returns) ** 2 for e in seen], masks) ** 0.5}


def rewards_of(e, scores, beta):
    """What each token earned (1), (b, T): the sampled penalty at every token of a reply, the score at its last."""
    rewards = np.where(e.mask, -beta * e.penalty, 0)
    rewards[np.arange(len(scores)), e.batch.ends - 1] += scores         # ends is an index of ids, one before of targets
    return rewards


def advantages(rewards, values, mask, gamma, lam):
    """Generalised advantages (3), (b, T), and 0 where the mask is False; a row's reply is one piece."""
    A = np.zeros_like(values)
    after, value_after = np.zeros((2, len(values)), values.dtype)       # of position t + 1: 0 behind the reply
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * value_after - values[:, t]                      # (2)
        A[:, t] = np.where(mask[:, t], delta + gamma * lam * after, 0)                  # (3)
        after, value_after = A[:, t], np.where(mask[:, t], values[:, t], 0)
    return A


def whiten(seen):
    """Bring the advantages of all replies together to mean 0 and standard deviation 1, where the masks are True."""
    masks = [e.mask for e in seen]
    mean = masked_mean([e.advantages for e in seen], masks)
    std = masked_mean([(e.advantages - mean) ** 2 for e in seen], masks) ** 0.5
    for e in seen:
        e.advantages = np.where(e.mask, (e.advantages - mean) / (std + 1e-8), 0).astype(e.values.dtype)
