"""What learns from comparisons: the reward model and DPO, on models of a few thousand numbers."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import V
from numerics import check_model
from toy_replies import END, FAVOURITE, NAMES, PROMPTS, comparisons_of, favour, model_of, some_replies, toy

from minigpt import Tensor, checkpoint
from minigpt.align import comparisons as compare
from minigpt.align.comparisons import Comparison, ComparisonSettings, disagreement
from minigpt.align.dpo import DPOSettings, dpo_loss, reply_log_probability, train_dpo
from minigpt.align.grpo import GRPOSettings
from minigpt.align.ppo import PPOSettings
from minigpt.align.replies import Batch, Reply, sample
from minigpt.align.reward import RewardModel, bradley_terry, load_reward, margins, save_reward, train_reward
from minigpt.parallel import Workers
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer


def toy_comparisons(number=256, seed=0):
    """Replies of the toy, of which the one with more of the favourite is chosen."""
    model = toy()
    model.head.w.data[:, FAVOURITE] *= 1.5
    said = sample(model, [PROMPTS[i % len(PROMPTS)] for i in range(number) for _ in range(2)], 8, END, seed, workers=1)
    pairs = [(one, two) if favour([one]) >= favour([two]) else (two, one) for one, two in zip(said[::2], said[1::2])]
    return [Comparison(*pair) for pair in pairs if favour(pair[:1]) != favour(pair[1:])]


def test_dpo_raises_what_was_chosen():
    records, known = [], toy_comparisons(400)
    policy = train_dpo(toy(), known, DPOSettings(epochs=3, micro_batch=32, learning_rate=5e-3, beta=0.1), 1, records.append)
    assert records[0]["loss"] == pytest.approx(np.log(2), rel=1e-6) and records[0]["margin"] == 0
    assert records[0]["accuracy"] == 0.5 and records[-1]["loss"] < 0.6 and np.mean([r["accuracy"] for r in records[-5:]]) > 0.8
    before, after = (favour(sample(m, PROMPTS * 8, 8, END, 7, workers=1)).mean() for m in (toy(), policy))
    assert before < 0.15 and after > 2.5 * before


def test_what_a_margin_costs_is_how_unlikely_its_label_is():
    """By the law of total probability; at most log 1/m, however sure a model is, in float32 too; without an opinion log 2."""
    for m in 0.01, 0.1, 0.3:
        d = np.array([-4.0, -0.5, 0.0, 0.7, 3.0])
        p = 1 / (1 + np.exp(-d))
        costs = disagreement(Tensor(d), m).data
        np.testing.assert_allclose(costs, -np.log((1 - m) * p + m * (1 - p)), rtol=1e-12)
        assert costs[2] == pytest.approx(np.log(2), rel=1e-12)
        sure = Tensor(np.array([-1e4, 1e4], np.float32), requires_grad=True)
        costs = disagreement(sure, m)
        costs.sum().backward()
        np.testing.assert_allclose(costs.data, [-np.log(m), -np.log(1 - m)], rtol=1e-5)
        np.testing.assert_allclose(sure.grad, 0, atol=1e-6)


def test_mistaken_labels_that_are_allowed_for_do_less_harm():
    """A fifth of the labels the wrong way round: a model that allows for it agrees with the truth at least as often."""
    known, held_out = toy_comparisons(600), toy_comparisons(200, seed=5)
    known = [Comparison(one.rejected, one.chosen) if i % 5 == 0 else one for i, one in enumerate(known)]
    right = {}
    for m in 1e-6, 0.2:
        chosen = ComparisonSettings(epochs=8, micro_batch=32, learning_rate=8e-3, mistakes=m)
        right[m] = compare.accuracy(margins(train_reward(toy(), known, chosen, 1), held_out))
    assert right[0.2] > right[1e-6] + 0.02, right


# ---- the reward model ----

@given(replies=some_replies(), name=NAMES)
@settings(max_examples=10)
def test_a_score_does_not_depend_on_what_it_is_padded_with_or_batched_with(replies, name):
    reward = RewardModel(model_of(name))
    w, v = np.random.default_rng(0).normal(size=(2, *reward.head.w.shape))
    reward.head.w.data[...], reward.weight.w.data[...] = 0.3 * w, 0.03 * v       # small scores, so little rounding
    together, alone = reward.scores(replies), np.concatenate([reward.scores([reply]) for reply in replies])
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-10)
    batch = Batch(replies)
    padding = np.arange(batch.ids.shape[1]) > batch.ends[:, None]
    expected = reward(batch).data
    for filling in 0, V - 1:
        batch.ids[padding] = filling                                        # inputs and targets are views of ids
        np.testing.assert_array_equal(reward(batch).data, expected)


@pytest.mark.parametrize("name", ["gpt", "gpt_modern"])
def test_the_gradients_of_comparisons_are_their_slopes(name):
    batch = compare.both_sides(comparisons_of(3))
    reward = RewardModel(model_of(name))
    w, v = np.random.default_rng(0).normal(size=(2, *reward.head.w.shape))
    reward.head.w.data[...], reward.weight.w.data[...] = 0.3 * w, 0.03 * v       # small scores, so little rounding
    check_model(lambda: bradley_terry(reward, batch, 3, 0.1)[0], reward.flat)
    policy, reference = model_of(name, seed=6), model_of(name)
    check_model(lambda: dpo_loss(policy, reference, batch, DPOSettings(), 3)[0], policy.flat)


@pytest.mark.parametrize("loss", ["reward", "dpo"])
@given(number=st.integers(1, 7), size=st.integers(1, 4))
@settings(max_examples=5)
def test_comparisons_in_micro_batches_make_the_gradient_of_one_batch(loss, number, size):
    known, reference, results = comparisons_of(number), model_of(), []
    for its_size in number, size:
        model = RewardModel(model_of(seed=6)) if loss == "reward" else model_of(seed=6)
        if loss == "reward":
            model.head.w.data[...], model.weight.w.data[...] = 1, 0.5
        parts = [compare.both_sides(known[i:i + its_size]) for i in range(0, number, its_size)]

        def share(model, part):
            return (bradley_terry(model, part, number, 0.1) if loss == "reward"
                    else dpo_loss(model, reference, part, DPOSettings(), number))[0]

        with Workers(model, 1) as workers:
            results.append((workers.gradient(share, parts), model.flat.grad.copy()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-9)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-6, atol=1e-9)


def test_a_reply_is_as_likely_as_all_of_its_tokens():
    model, reply = model_of(), Reply(np.array([2, 5]), np.array([7, 1, 4]))
    z = model(np.array([[2, 5, 7, 1]])).data[0]
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    expected = log_p[1, 7] + log_p[2, 1] + log_p[3, 4]
    longer = Reply(np.arange(6), np.arange(6))                              # so that there is padding
    assert reply_log_probability(model, Batch([reply, longer])).data[0] == pytest.approx(expected, rel=1e-12)


def test_a_reward_model_learns_what_is_preferred_and_is_saved(tmp_path):
    records, known = [], toy_comparisons(300)
    reward = train_reward(toy(), known, ComparisonSettings(epochs=5, micro_batch=32, learning_rate=4e-3), 1, records.append)
    assert records[-1]["loss"] < records[0]["loss"]
    assert (margins(reward, toy_comparisons(100, seed=5)) > 0).mean() > 0.9
    scores = reward.scores([side for c in known for side in (c.chosen, c.rejected)])
    assert scores.mean() == pytest.approx(0, abs=1e-5) and scores.std() == pytest.approx(1, abs=1e-5)
    save_reward(tmp_path / "reward", reward, CharTokenizer("abcdefghijklmnop"))
    loaded, _ = load_reward(tmp_path / "reward")
    np.testing.assert_array_equal(loaded.scores([known[0].chosen]), reward.scores([known[0].chosen]))


def test_a_score_is_that_of_the_end_and_the_weighed_surprise_at_each_token():
    reward, reply = RewardModel(model_of()), Reply(np.array([2, 5]), np.array([7, 1, 4]))
    rng, ids = np.random.default_rng(0), np.array([[2, 5, 7, 1, 4]])
    for part in reward.head, reward.weight:
        part.w.data[...], part.b.data[...] = rng.normal(size=part.w.shape), rng.normal()
    stream, z = reward.body.stream(ids).data[0], reward.body(ids).data[0]
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    expected = stream[4] @ reward.head.w.data[:, 0] + reward.head.b.data[0]
    for place in 2, 3, 4:
        expected += (stream[place] @ reward.weight.w.data[:, 0] + reward.weight.b.data[0]) * log_p[place - 1, ids[0, place]]
    assert reward.scores([reply])[0] == pytest.approx(expected, rel=1e-9)


def test_dpo_replays_demonstrations():
    """At a learning rate near 0 the loss is that of comparisons and the weighed one of demonstrations; with a higher one
    the demonstrations become likelier."""
    rng, known, losses = np.random.default_rng(2), toy_comparisons(64), {}
    x = rng.integers(16, size=(4, 12))
    y = np.where(rng.random(x.shape) < 0.5, (x + 1) % 16, -1)
    for rate, replay in (1e-9, None), (1e-9, lambda n: (x, y)), (1e-2, None), (1e-2, lambda n: (x, y)):
        records, chosen = [], DPOSettings(learning_rate=rate, replay_weight=0.7, epochs=3)
        policy = train_dpo(toy(), known, chosen, 1, records.append, replay)
        losses[rate, replay is not None] = records[0]["loss"], policy.loss(x, y).item()
    before = toy().loss(x, y).item()
    assert losses[1e-9, True][0] - losses[1e-9, False][0] == pytest.approx(0.7 * before, rel=1e-4)
    assert losses[1e-2, True][1] < 0.8 * before and losses[1e-2, True][1] < losses[1e-2, False][1]


def test_mistakes_with_settings_and_files_are_sentences(tmp_path):
    checkpoint.save(tmp_path / "plain", toy(), CharTokenizer("abcdefghijklmnop"))
    with pytest.raises(UserError, match="holds no reward model"):
        load_reward(tmp_path / "plain")
    for wrong in {"epochs": 0}, {"learning_rate": float("nan")}, {"batch_size": -1}:
        with pytest.raises(UserError, match="has to be above 0"):
            ComparisonSettings(**wrong)
    with pytest.raises(UserError, match="mistakes is 0.5, but has to be below 0.5"):
        ComparisonSettings(mistakes=0.5)
    for kind, wrong, said in (PPOSettings, {"replies": 0}, "replies is 0"), (DPOSettings, {"beta": 0.0}, "beta is 0.0"), (
            GRPOSettings, {"group": 3}, "group is 3"):
        with pytest.raises(UserError, match=said):
            kind(**wrong)
    for learn in train_reward, train_dpo:
        with pytest.raises(UserError, match="no comparisons to learn from"):
            learn(toy(), [])
