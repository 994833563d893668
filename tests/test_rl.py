"""Learning from rewards: what PPO and GRPO promise,
on models of a few thousand numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lively import V
from numerics import check_model
from toy_replies import END, PROMPTS, favour, model_of, replies_of, some_replies, toy

from minigpt.align.grpo import GRPO, GRPOSettings, group_advantages
from minigpt.align.ppo import PPO, PPOSettings, advantages, rewards_of
from minigpt.align.replies import Batch, divergence, in_batches, in_order, masked_mean, sample
from minigpt.parallel import Workers
from minigpt.settings import UserError


# ---- batches of replies ----

@given(replies=some_replies())
def test_the_mask_marks_the_replies_tokens_among_the_targets(replies):
    batch = Batch(replies)
    for row, reply in enumerate(replies):
        np.testing.assert_array_equal(batch.targets[row][batch.mask[row]], reply.ids)
        np.testing.assert_array_equal(batch.ids[row, :len(reply)], [*reply.prompt, *reply.ids])
        assert batch.ends[row] == len(reply) - 1 and batch.targets[row, batch.ends[row] - 1] == reply.ids[-1]


@given(replies=some_replies(), size=st.integers(1, 4))
def test_replies_in_batches_come_back_in_their_order(replies, size):
    parts = in_batches(replies, size)
    back = in_order(parts, [[len(reply) for reply in batch.replies] for _, batch in parts])
    assert back.tolist() == [len(reply) for reply in replies] and max(len(i) for i, _ in parts) <= size


def test_a_prompt_without_room_for_a_reply_is_refused():
    with pytest.raises(UserError, match="leaves no room for a reply in a context of 16"):
        sample(model_of(), [np.zeros(16, int)], 4, END, 0)


def test_what_is_sampled_ends_with_its_end_or_at_its_length():
    for reply in sample(model_of(), [np.arange(2, 2 + n) for n in (1, 3, 9)] * 8, 5, END, 3, workers=1):
        assert reply.ended == (reply.ids[-1] == END) and len(reply.ids) <= 5 and END not in reply.ids[:-1]
        assert reply.ended or len(reply.ids) == 5


def test_sampling_is_from_the_models_own_distribution():
    model, prompt = model_of(), np.array([4, 2])
    first = [reply.ids[0] for reply in sample(model, [prompt] * 1000, 1, END, 0, workers=1)]
    p = np.exp(model(prompt[None]).data[0, -1])
    np.testing.assert_allclose(np.bincount(first, minlength=V) / 1000, p / p.sum(), atol=0.05)


# ---- quantities: KL, means, advantages ----

LOGITS = hnp.arrays(np.float64, (3, 5), elements=st.floats(-30, 30))


@given(x=LOGITS, y=LOGITS, near=st.sampled_from([0, 1e-12, 1e-6, 1]), dtype=st.sampled_from([np.float32, np.float64]))
def test_divergence_is_the_exact_sum_and_never_negative(x, y, near, dtype):
    x, y = x.astype(dtype), (x + near * y).astype(dtype)
    kl = divergence(x, y)
    p, q = (np.exp(z.astype(float)) / np.exp(z.astype(float)).sum(-1, keepdims=True) for z in (x, y))
    assert (kl >= 0).all()
    np.testing.assert_allclose(kl, (p * (np.log(p) - np.log(q))).sum(-1), rtol=1e-9, atol=1e-12)
    assert (divergence(x, x) == 0).all()


def test_divergence_stays_above_zero_where_the_plain_sum_is_rounded_below():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 9))
    y = x + 1e-9 * rng.normal(size=x.shape)
    log_p, log_q = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (x, y))
    assert (np.exp(log_p) * (log_p - log_q)).sum(-1).min() < 0 <= divergence(x, y).min()


@given(replies=some_replies(), gamma=st.sampled_from([0.9, 1.0]), lam=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
       seed=st.integers(0, 99))
def test_advantages_are_the_double_sum_that_defines_them(replies, gamma, lam, seed):
    batch, rng = Batch(replies), np.random.default_rng(seed)
    rewards, values = rng.normal(size=(2, *batch.mask.shape))
    A = advantages(rewards, values, batch.mask, gamma, lam)
    assert (A[~batch.mask] == 0).all()
    for r, v, mask, a in zip(rewards, values, batch.mask, A):
        r, v, a = r[mask], v[mask], a[mask]                             # the reply alone
        delta = [r[t] + gamma * (v[t + 1] if t + 1 < len(v) else 0) - v[t] for t in range(len(v))]
        expected = [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(v))) for t in range(len(v))]
        np.testing.assert_allclose(a, expected, rtol=1e-10, atol=1e-12)


def look(trainer, replies, size=4):
    parts = in_batches(replies, size)
    seen = [trainer.look(trainer.policy, batch) for _, batch in parts]
    trainer.weigh([indices for indices, _ in parts], seen, np.random.default_rng(0).normal(size=len(replies)))
    return seen


def make_ppo(dtype=np.float64, moved=0.0, **changes):
    """A PPO whose policy has moved away from its reference and whose values are of a size that matters."""
    trainer = PPO(model_of(dtype=dtype), None, PPOSettings(**changes), END)
    rng = np.random.default_rng(8)
    trainer.policy.head.w.data[...] += rng.normal(size=trainer.policy.head.w.shape)
    trainer.policy.flat.data[...] += (moved * rng.normal(size=len(trainer.policy.flat))).astype(dtype)
    return trainer


def make_grpo(dtype=np.float64, moved=0.0, **changes):
    trainer = GRPO(model_of(dtype=dtype), None, GRPOSettings(group=2, **changes), END)
    trainer.policy.flat.data[...] += (moved * np.random.default_rng(8).normal(size=len(trainer.policy.flat))).astype(dtype)
    return trainer


@settings(max_examples=8)
@given(replies=some_replies(least=2))
def test_penalty_and_score_stand_where_they_are_earned(replies):
    (e,) = look(make_ppo(moved=0.1), replies, size=99)
    scores = np.arange(1.0, len(replies) + 1)
    rewards = rewards_of(e, scores, beta=0.5)
    for row, reply in enumerate(e.batch.replies):
        penalty = -0.5 * (e.log_p - e.reference)[row][e.mask[row]]
        penalty[-1] += scores[row]
        np.testing.assert_allclose(rewards[row][e.mask[row]], penalty, rtol=1e-12)
        assert (rewards[row][~e.mask[row]] == 0).all()


def test_whitened_advantages_have_mean_0_and_deviation_1_over_replies_alone():
    seen = look(make_ppo(), replies_of(9))
    together = np.concatenate([e.advantages[e.mask] for e in seen])
    assert together.mean() == pytest.approx(0, abs=1e-9) and together.std() == pytest.approx(1, abs=1e-6)
    assert all((e.advantages[~e.mask] == 0).all() for e in seen)


@given(scores=hnp.arrays(np.float64, 12, elements=st.integers(-9, 9).map(lambda n: n / 4)), shift=st.floats(-9, 9),
       group=st.sampled_from([2, 3, 4, 6]))
def test_group_advantages_compare_within_a_group_only(scores, shift, group):
    A = group_advantages(scores, group)
    for row, s in zip(A.reshape(-1, group), scores.reshape(-1, group)):
        np.testing.assert_allclose(row, [one - sum(s) / group for one in s], atol=1e-12)
    moved = scores.copy()
    moved[:group] += shift
    np.testing.assert_allclose(group_advantages(moved, group), A, atol=1e-12)


# ---- PPO and GRPO: one update ----

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [make_ppo, make_grpo])
def test_the_first_update_has_ratios_of_exactly_one(make, dtype, backend):
    trainer = make(dtype, moved=0.05)
    with Workers(trainer.policy, 1) as workers:
        seen = look(trainer, replies_of(10))
        trainer.update(workers, seen[:2])
        assert all((e.ratio == 1).all() for e in seen[:2])
        trainer.update(workers, seen[2:])
        assert not any((e.ratio == 1).all() for e in seen[2:])


@settings(max_examples=10)
@given(replies=some_replies(), moved=st.sampled_from([0.0, 0.1]), dtype=st.sampled_from([np.float32, np.float64]))
def test_kl_and_entropy_are_never_negative_and_no_kl_before_the_policy_moved(replies, moved, dtype):
    trainer = make_ppo(dtype, moved)
    e = trainer.look(trainer.policy, Batch(replies))
    assert (e.kl >= 0).all() and (e.entropy >= 0).all() and (e.entropy <= np.log(V) + 1e-5).all()
    assert (e.kl[e.mask] > 0).all() if moved else (e.kl == 0).all() and (e.penalty == 0).all()


@pytest.mark.parametrize("make", [make_ppo, make_grpo])
@given(replies=some_replies(least=2), data=st.data())
@settings(max_examples=5)
def test_micro_batches_make_the_gradient_of_one_batch(make, replies, data):
    trainer = make(moved=0.05, entropy_weight=0.01)
    replies = replies[:len(replies) // 2 * 2]
    gradients = []
    for size in len(replies), data.draw(st.integers(1, 3)):
        seen = look(trainer, replies, size)
        trainer.policy.flat.data[...] += 1e-3                              # so that ratios are not 1 when the loss is taken
        tokens = sum(int(e.mask.sum()) for e in seen)
        with Workers(trainer.policy, 1) as workers:
            loss = workers.gradient(lambda policy, e: trainer.loss(policy, e, tokens), seen)
        gradients.append((loss, trainer.policy.flat.grad.copy()))
        trainer.policy.flat.data[...] -= 1e-3
    (loss, whole), (loss_of_parts, parts) = gradients
    assert loss_of_parts == pytest.approx(loss, rel=1e-9, abs=1e-11)
    np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make, changes", [(make_ppo, {}), (make_ppo, {"entropy_weight": 0.05, "value_weight": 1.0}),
                                           (make_grpo, {"beta": 0.7})])
@pytest.mark.parametrize("moved", [0.003, 0.1])
def test_the_gradient_of_the_loss_is_its_slope(make, changes, moved):
    """At ratios near 1, where nothing is clipped, and at others, where much is."""
    trainer = make(**changes)
    (e,) = look(trainer, replies_of(4), size=9)
    trainer.policy.flat.data[...] += moved * np.random.default_rng(3).normal(size=len(trainer.policy.flat))
    check_model(lambda: trainer.loss(trainer.policy, e, int(e.mask.sum())), trainer.policy.flat)
    clipped = masked_mean([abs(e.ratio - 1) > 0.2], [e.mask])
    assert clipped == 0 if moved == 0.003 else 0.2 < clipped < 1


@pytest.mark.parametrize("make", [make_ppo, make_grpo])
def test_demonstrations_are_replayed_with_their_own_loss(make):
    rng = np.random.default_rng(6)
    x, y = rng.integers(V, size=(3, 9)), rng.integers(-1, V, size=(3, 9))
    trainer, seen, gradients = make(replay_weight=0.7, learning_rate=1e-9), None, []
    for replay in None, lambda n: (x, y):
        trainer.replay = replay
        with Workers(trainer.policy, 1) as workers:
            seen = seen or look(trainer, replies_of(6))
            trainer.update(workers, seen)
        gradients.append(trainer.policy.flat.grad.copy())
    trainer.policy.flat.grad[...] = 0
    (trainer.speaker(trainer.policy).loss(x, y) * 0.7).backward()
    np.testing.assert_allclose(gradients[1] - gradients[0], trainer.policy.flat.grad, rtol=1e-4, atol=1e-6)
    assert np.abs(trainer.policy.flat.grad).max() > 0.01


def test_a_gain_beyond_the_clip_has_no_gradient_and_a_loss_there_has():
    trainer = make_ppo(value_weight=0.0)
    (e,) = look(trainer, replies_of(1), size=1)
    e.log_p = e.log_p - 1                                                   # all ratios are e
    for sign in 1, -1:
        e.advantages = sign * e.mask.astype(float)
        trainer.policy.flat.grad[...] = 0
        trainer.loss(trainer.policy, e, 1).backward()
        assert (np.abs(trainer.policy.flat.grad).max() > 0) == (sign < 0)


def test_the_reference_stays_as_it_was_and_beta_follows_the_kl():
    rose = run(PPO, PPOSettings(**QUICK | {"target_kl": 1e-3, "iterations": 3}))
    fell = run(PPO, PPOSettings(**QUICK | {"target_kl": 1e3, "iterations": 3}))
    for trainer, records in rose, fell:
        np.testing.assert_array_equal(trainer.reference.flat.data, toy().flat.data)
    assert [r["beta"] for r in rose[1]][1:] < [r["beta"] for r in rose[1]][2:] and rose[0].beta > rose[1][0]["beta"]
    assert fell[0].beta == pytest.approx(fell[1][0]["beta"] * 0.98 ** 3)


# ---- all of them, on a toy: say a favourite token, and stop ----

QUICK = {"iterations": 12, "replies": 64, "length": 8, "epochs": 3, "batch_size": 32, "micro_batch": 32,
         "learning_rate": 6e-3, "beta": 0.02, "target_kl": None, "unfinished": 0.2}


def run(kind, its_settings, model=None):
    judge = {"judge": lambda chosen, replies: [PROMPTS[i] is reply.prompt or 1.0 for i, reply in zip(chosen, replies)]}
    trainer = kind(model or toy(), favour, its_settings, END, workers=1, **judge)
    return trainer, list(trainer.train(PROMPTS))


@pytest.mark.parametrize("kind, its_settings", [(PPO, PPOSettings(**QUICK)), (GRPO, GRPOSettings(**QUICK))])
def test_reinforcement_raises_the_reward(kind, its_settings):
    trainer, records = run(kind, its_settings)
    first, last = records[0], records[-1]
    assert first["reward"] < 0.1 and last["reward"] > 0.6, [r["reward"] for r in records]
    assert first["kl"] == 0 and last["kl"] > 0.5 and 0 < first["clip_fraction"] < 0.9 and last["true_score"] == 1
    assert last["entropy"] < first["entropy"] and last["ended"] > 0.5
    assert ("value_error" in last) == (kind is PPO)
    said = favour(sample(trainer.language_model(), PROMPTS * 8, 8, END, 99, workers=1)).mean()
    assert said > 0.6                                                      # the model that comes out, not only the records


def test_a_high_beta_keeps_the_policy_near_its_reference():
    far, near = (run(PPO, PPOSettings(**QUICK | {"beta": beta, "iterations": 5}))[1][-1] for beta in (0.0, 3.0))
    assert near["kl"] < 0.2 * far["kl"] and near["reward"] < far["reward"]


def test_a_run_repeats_bit_for_bit():
    (one, records), (two, again) = (run(PPO, PPOSettings(**QUICK | {"iterations": 2})) for _ in range(2))
    assert records == again
    np.testing.assert_array_equal(one.policy.flat.data, two.policy.flat.data)
