"""Recurrent networks as a whole, and backpropagation through time against the engine's, step by step."""
import numpy as np
import pytest
from inputs import assert_all_close, value_and_gradients
from numerics import check_model

from minigpt import Tensor, checkpoint, ops
from minigpt.data import sequence_seeds
from minigpt.models.rnn import RNN, RNNConfig
from minigpt.optim import AdamW
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer
from minigpt.train import TrainSettings, train

SHAPE = {"vocabulary_size": 11, "context": 7, "layers": 2, "width": 6}
each_cell = pytest.mark.parametrize("cell", ["rnn", "lstm"])


def small_model(dtype=np.float64, **changes):
    model = RNN(RNNConfig(**SHAPE | changes), seed=1, dtype=dtype)
    model.flat.data += 0.2 * np.random.default_rng(2).normal(size=len(model.flat)).astype(dtype)
    return model


def some_tokens(B=3, T=5):
    rng = np.random.default_rng(3)
    return rng.integers(11, size=(B, T)), rng.integers(11, size=(B, T))


# ---- the operations, against the same from the operations of elementwise.py and matmul.py ----

def rnn_by_steps(a, h, u):
    states = []
    for t in range(a.shape[1]):
        h = ops.tanh(Tensor.__getitem__(a, (slice(None), t)) + h @ u)
        states.append(h.reshape(h.shape[0], 1, h.shape[1]))
    return ops.concatenate(*states, axis=1)


def lstm_by_steps(a, state, u):
    C, states = u.shape[0], []
    h, c = state[:, :C], state[:, C:]
    for t in range(a.shape[1]):
        z = a[:, t] + h @ u
        i, f, o = (ops.sigmoid(z[:, k * C:(k + 1) * C]) for k in range(3))
        c = f * c + i * ops.tanh(z[:, 3 * C:])
        h = o * ops.tanh(c)
        states.append(ops.concatenate(h, c).reshape(h.shape[0], 1, 2 * C))
    return ops.concatenate(*states, axis=1)


@pytest.mark.parametrize("fused, by_steps", [(ops.rnn, rnn_by_steps), (ops.lstm, lstm_by_steps)])
def test_it_is_the_same_as_step_by_step_through_the_engine(fused, by_steps, backend):
    for arrays, _ in fused.examples(np.random.default_rng(0)):
        assert_all_close(value_and_gradients(fused, *arrays), value_and_gradients(by_steps, *arrays))


def test_the_worked_lstm(backend):
    """One number, all gates known: sigmoid(0) = 1/2, and a memory of 1 becomes 1/2 + 1/2 tanh(1)."""
    y = ops.lstm(np.array([[[0.0, 0, 0, 1]]]), np.array([[0.0, 1]]), np.zeros((1, 4))).data
    c = 0.5 + 0.5 * np.tanh(1)
    np.testing.assert_allclose(y, [[[0.5 * np.tanh(c), c]]], rtol=1e-15)


def test_large_inputs_do_not_overflow(backend):
    for dtype in np.float32, np.float64:
        a = np.array([1e4, -1e4, 1e4, -1e4], dtype).reshape(1, 1, 4)
        np.testing.assert_allclose(ops.lstm(a, np.zeros((1, 2), dtype), np.zeros((1, 4), dtype)).data, [[[np.tanh(-1), -1]]],
                                   rtol=1e-6)
        np.testing.assert_allclose(ops.rnn(a, np.zeros((1, 4), dtype), np.zeros((4, 4), dtype)).data, np.sign(a), rtol=1e-6)


def gradient_by_the_first_input(run, gates, width, steps):
    """How long the gradient of the last state by the first input is, with random weights."""
    rng, lengths = np.random.default_rng(0), []
    u = 0.5 * rng.normal(size=(width, gates * width)) / width ** 0.5
    for T in steps:
        a = 0.5 * rng.normal(size=(1, T, gates * width))
        if gates == 4:
            a[..., width:2 * width] += 5                    # the gates that keep are open
        a = Tensor(a, requires_grad=True)
        y = run(a, np.zeros((1, width * (2 if gates == 4 else 1))), u)
        dy = np.zeros(y.shape)
        dy[:, -1, -width:] = 1                              # of an LSTM: the memory
        y.backward(dy)
        lengths.append(np.linalg.norm(a.grad[:, 0]))
    return lengths


def test_through_an_rnn_a_gradient_vanishes_and_through_an_lstm_it_stays():
    near, far = gradient_by_the_first_input(ops.rnn, 1, 20, (2, 40))
    assert far < 1e-6 * near
    near, far = gradient_by_the_first_input(ops.lstm, 4, 20, (2, 40))
    assert far > 0.1 * near


@pytest.mark.parametrize("wrong", [{"h": (3, 4)}, {"u": (4, 5)}, {"a": (2, 0, 4)}])
def test_arguments_that_do_not_fit_are_refused(wrong, backend):
    shapes = {"a": (2, 3, 4), "h": (2, 4), "u": (4, 4)} | wrong
    with pytest.raises(ValueError, match="rnn: inputs"):
        ops.rnn(*(np.ones(shape) for shape in shapes.values()))
    with pytest.raises(ValueError, match="lstm: inputs"):
        ops.lstm(np.ones((2, 3, 4)), np.ones((2, 4)), np.ones((1, 4)))


# ---- the whole model ----

@each_cell
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_of_the_whole_model_is_its_slope(cell, dropout, backend):
    model, (x, y) = small_model(cell=cell, dropout=dropout), some_tokens()
    seeds = sequence_seeds(seed=5, step=0, size=3) if dropout else None
    check_model(lambda: model.loss(x, y, seeds), model.flat)


@each_cell
def test_no_position_sees_a_later_one(cell, backend):
    model, (x, _) = small_model(cell=cell), some_tokens()
    before = model(x).data
    for t in range(1, x.shape[1]):
        changed = x.copy()
        changed[:, t] = (changed[:, t] + 1) % 11
        np.testing.assert_array_equal(model(changed).data[:, :t], before[:, :t])
        assert not np.allclose(model(changed).data[:, t], before[:, t])


@each_cell
@pytest.mark.parametrize("split", [1, 3])
def test_a_text_can_be_read_in_parts(cell, split, backend):
    model, (x, _) = small_model(cell=cell), some_tokens()
    first, states = model.read(x[:, :split])
    second, _ = model.read(x[:, split:], states)
    np.testing.assert_allclose(np.concatenate([first, second], 1), model(x).data, rtol=1e-12, atol=1e-14)


@each_cell
def test_truncated_the_numbers_are_the_same_and_the_gradient_is_that_of_pieces(cell, backend):
    whole, cut, (x, y) = small_model(cell=cell), small_model(cell=cell, truncate=2), some_tokens()
    assert cut.loss(x, y).item() == pytest.approx(whole.loss(x, y).item(), rel=1e-12)
    cut.loss(x, y).backward()
    whole.loss(x, y).backward()
    assert not np.allclose(cut.flat.grad, whole.flat.grad, rtol=1e-3)
    pieces, states = small_model(cell=cell), None
    for begin in range(0, 5, 2):                            # each with the numbers of the states before it
        part = slice(begin, begin + 2)
        logits, states = pieces.run(x[:, part], states)
        ops.cross_entropy(logits, y[:, part], total=y.size).backward()
    np.testing.assert_allclose(cut.flat.grad, pieces.flat.grad, rtol=1e-9, atol=1e-13)


@each_cell
def test_it_learns_four_sequences_by_heart(cell):
    model, (x, y) = RNN(RNNConfig(11, 8, 2, 32, cell), seed=0), some_tokens(4, 8)
    optimizer = AdamW(model.flat, decay=0.0)
    for _ in range(150):
        model.flat.grad[...] = 0
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step(1e-2, 1.0)
    assert loss.item() < 0.05


@each_cell
def test_the_parameters_can_be_counted_without_making_a_model(cell):
    config = RNNConfig(**SHAPE, cell=cell)
    assert config.parameter_count() == len(RNN(config).flat)


def test_a_new_model_expects_every_token_alike_and_keeps_its_memory():
    model, (x, y) = RNN(RNNConfig(**SHAPE)), some_tokens()
    assert model.loss(x, y).item() == pytest.approx(np.log(11), rel=1e-6)
    assert (model.layers[0].input.b.data == np.repeat([0, 1, 0, 0], 6)).all()
    for k in range(4):
        u = model.layers[0].u.data[:, 6 * k:6 * k + 6]
        np.testing.assert_allclose(u @ u.T, np.eye(6), atol=1e-6)


@pytest.mark.parametrize("wrong, said", [({"layers": 0}, "layers is 0"), ({"truncate": -1}, "truncate is -1"),
                                         ({"dropout": 1.0}, "dropout is 1.0")])
def test_a_shape_that_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        RNNConfig(**SHAPE | wrong)


def test_the_loop_trains_it_and_a_checkpoint_keeps_it(tmp_path):
    text = "to be or not to be that is the question " * 30
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    model = RNN(RNNConfig(tokenizer.vocabulary_size, 16, 1, 32, truncate=8))
    settings = TrainSettings(steps=60, batch_size=4, workers=2, learning_rate=0.01, warm_up=3, eval_every=60)
    position, _ = train(model, tokenizer, ids, ids[:200], settings, tmp_path)
    assert position.val_loss < 2.2
    saved = checkpoint.load(tmp_path / "latest").model
    assert saved.config == model.config
    np.testing.assert_array_equal(saved.flat.data, model.flat.data)
    with pytest.raises(UserError, match="rnn has no blocks to recompute"):
        train(RNN(model.config), tokenizer, ids, ids[:200], TrainSettings(steps=1, recompute=True), tmp_path)
