"""The tests of the tests: break each backward pass on purpose, and see the check of its derivative notice.

BROKEN lists, for each operation, a piece of the source of its backward pass and what a tired author could have
written in its place: a sign, a factor, an axis, a term that was forgotten. The changed function is compiled in its
chapter's own namespace and given to the check that test_ops.py runs on the true one; the check has to fail. A piece
must stand exactly once in the source, so the table can't quietly part from the code.
"""
import inspect
import textwrap

import numpy as np
import pytest
from numerics import WrongGradient, check_gradients, check_pair, examples

from minigpt import Tensor, op, ops, tensor

BROKEN = {                                          # operation: (true text, broken text) ... of its backward pass
    "add": [("unbroadcast(dy, shapes[0])", "unbroadcast(2 * dy, shapes[0])"),
            ("unbroadcast(dy, shapes[1])", "unbroadcast(-dy, shapes[1])")],
    "subtract": [("unbroadcast(-dy, shapes[1])", "unbroadcast(dy, shapes[1])"),
                 ("unbroadcast(dy, shapes[0])", "unbroadcast(-dy, shapes[0])")],
    "multiply": [("dy * b, shapes", "dy * a, shapes"), ("dy * a, shapes", "dy * b, shapes")],
    "divide": [("da = dy / b", "da = dy * b"), ("-da * y", "da * y"), ("-da * y", "-da")],
    "power": [("n * x ** (n - 1)", "x ** (n - 1)"), ("(n - 1)", "n")],
    "exp": [("dy * y", "dy")],
    "log": [("dy / x", "dy * x")],
    "tanh": [("1 - y * y", "1 - y"), ("1 - y * y", "1 + y * y")],
    "sigmoid": [("* (1 - y)", ""), ("dy * y *", "dy *")],
    "relu": [("(x > 0)", "(x < 0)"), ("dy * (x > 0)", "dy")],
    "softplus": [("logaddexp(0, -x)", "logaddexp(0, x)"), ("dy * np.exp", "np.exp")],
    "clip": [("(x >= low) & ", ""), (" & (x <= high)", ""), ("dy * (", "dy * ~(")],
    "minimum": [("(a <= b)", "(a > b)"), ("(a > b)", "(a <= b)"), ("dy * (a > b)", "dy")],
    "maximum": [("(a >= b)", "(a < b)"), ("(a < b)", "(a >= b)"), ("dy * (a >= b)", "dy")],
    "log_probability": [("+= dy[:, 0]", "+= 1"), ("+= dy[:, 0]", "-= dy[:, 0]"), ("-dy * np.exp", "dy * np.exp"),
                        ("(x - l)", "(x)"), ("t.size, like=t), t]", "t.size, like=t), 0 * t]")],
    "entropy": [("p * h[..., None]", "p"), ("weighted(z) +", "weighted(z) -"), ("-dh", "dh"), ("np.exp(z)", "1")],
    "reshape": [("dy.reshape(shape)", "dy.T.reshape(shape)"), ("(dy.reshape(shape),)", "(dy,)")],
    "transpose": [("dy.transpose(back)", "dy.transpose(axes)")],
    "getitem": [("dx[index] = dy", "pass"), ("np.zeros_like(x)", "np.ones_like(x)")],
    "concatenate": [("np.split(dy, ends, axis)", "np.split(-dy, ends, axis)"),
                    ("np.split(dy, ends, axis)", "np.split(dy, ends, axis)[::-1]")],
    "sum": [("copy_back(dy, shape, axis)", "copy_back(2 * dy, shape, axis)")],
    "mean": [("dx / n", "dx"), ("dx.size // dy.size", "dx.size")],
    "matmul": [("b.swapaxes(-1, -2)", "-b.swapaxes(-1, -2)"), ("a.swapaxes(-1, -2) @ dy", "a.swapaxes(-1, -2) @ -dy"),
               ("unbroadcast(da, a.shape)", "da"), ("unbroadcast(db, b.shape)", "db")],
    "linear": [("dy @ (w if", "-dy @ (w if"), ("rows.T @ dy", "2 * rows.T @ dy"), ("dy.T @ rows", "2 * dy.T @ rows"),
               ("dy.sum(0)", "dy.mean(0)")],
    "conv2d": [("padding).T @ dy", "padding).T @ -dy"), ("dy.sum(0)", "dy.mean(0)"), ("wide[place] +=", "wide[place] ="),
               ("dp[:, :, :, n]", "dp[:, :, :, -1 - n]"), ("(dy @ w_matrix.T)", "(-dy @ w_matrix.T)"),
               ("dw = patches(x, w, stride, padding)", "dw = patches(0 * x, w, stride, padding)")],
    "gelu": [("phi + x * slope", "phi + slope"), ("phi + x * slope", "phi"), ("phi * (1 - phi) * 2", "phi * (1 - phi)"),
             ("3 * 0.044715", "0.044715"), ("(-0.5 * x * x)", "(-x * x)"), ("/ (2 * np.pi) ** 0.5", "/ np.pi ** 0.5")],
    "softmax": [("- (p * dp).sum(-1, keepdims=True)", ""), ("(p * (dp", "((dp"), ("(p * dp).sum", "dp.sum")],
    "log_softmax": [("np.exp(y)", "y"), (" - np.exp(y) * dy.sum(-1, keepdims=True)", "")],
    "cross_entropy": [("dx[counted, t] -= 1", "dx[counted, t] -= 2"), ("dx[counted, t] -= 1", "pass"),
                      ("dy / total", "dy"), ("dy / total", "1 / total"), ("- l[counted]", ""),
                      ("np.zeros_like(x)", "np.ones_like(x)")],
    "embedding": [("np.add.at(dw, ids, dy)", "dw[ids] = dy"), ("np.add.at(dw, ids, dy)", "dw[ids] += dy")],
    "layer_norm": [("- dxh.mean(-1, keepdims=True)", ""), ("- xhat * (dxh * xhat).mean(-1, keepdims=True)", ""),
                   ("dx * r", "dx"), ("dxh = dy * w", "dxh = dy"), ("(dy * xhat).sum(rows)", "dy.sum(rows)"),
                   ("dy.sum(rows) if", "dy.mean(rows) if"), ("(x - mean) * r", "x * r")],
    "attention": [("- c)", ")"), ("(dy * y)", "dy"), ("= dx @ k", "= -dx @ k"), ("dx.swapaxes(-1, -2) @ q", "dx @ q"),
                  ("dx.swapaxes(-1, -2)", "-dx.swapaxes(-1, -2)"), ("* q.shape[3] ** -0.5", ""),
                  ("(p if M is None else p * M)", "p"), ("(dp if M is None else dp * M)", "dp"),
                  ("q, k, mask, causal", "q, k, None, causal"), ("q, k, mask, causal", "q, k, mask, True"),
                  ("causal) - l", "causal)"), ("dx = p * (", "dx = (")],
    "rms_norm": [("- xhat * (dxh * xhat).mean(-1, keepdims=True)", ""), ("r * (dxh", "(dxh"), ("dy * w", "dy"),
                 ("(dy * xhat).sum(", "dy.sum("), ("x * r", "x")],
    "rotary": [("cos, sin, -1", "cos, sin, 1"), ("turned(dy, cos, sin, -1)", "dy")],
    "mlp": [("(dy, (a, w2, has_b2, False))", "(dy, (h, w2, has_b2, False))"), ("f_backward(da, of_f)", "(da,)"),
            ("(dh, (u, w1, has_b1, False))", "(da, (u, w1, has_b1, False))"),
            ("return dy + dx", "return dx"), ("layer_norm_backward(du, of_norm)", "layer_norm_backward(dy, of_norm)")],
    "self_attention": [("du = du + du_part", "du = du_part"), ("return dy + dx", "return dx"),
                       ("layer_norm_backward(du, of_norm)", "layer_norm_backward(dy, of_norm)"),
                       ("linear_backward(dy, of_output)", "linear_backward(-dy, of_output)"),
                       ("zip(dqkv, of_turns,", "zip(dqkv[::-1], of_turns,"),
                       ("attention_backward(da.reshape", "attention_backward(2 * da.reshape"),
                       ("+= [dw, db]", "+= [-dw, db]"), ("return du, *gradients, dwo", "return du, *gradients, -dwo"),
                       ("zip(dqkv, of_turns,", "zip(dqkv, (of_turns[1], of_turns[0], None),")],
    "experts": [("(dy[R] * u).sum(-1)", "dy[R].sum(-1)"), ("gates[R][:, None] * dy[R]", "dy[R]"),
                ("dx[R], dw1[e]", "dx[R[::-1]], dw1[e]"), ("_, dw2[e], *_ =", "_, dw2[-1 - e], *_ =")],
    "rnn": [("(dy[:, t] + back)", "dy[:, t]"), ("1 - y[:, t] * y[:, t]", "1 - y[:, t]"), ("@ u.T", "@ u"),
            ("before(h, y)", "y"), ("return dz, back", "return dz, -back")],
    "lstm": [("dy[:, t, :C] + back_h", "dy[:, t, :C]"), ("(1 - m * m) + back_c", "(1 - m * m)"), ("* (1 - m * m)", ""),
             ("r * g * i * (1 - i)", "r * g * i"), ("old[:, t, C:]", "y[:, t, C:]"), ("s * m * o", "s * o"),
             ("r * i * (1 - g * g)", "r * i"), ("f * r", "r"), ("[di, df, do, dg]", "[di, do, df, dg]"),
             ("old[:, :, :C]", "y[:, :, :C]")],
    "relu_squared": [("2 * np.maximum", "np.maximum"), ("np.maximum(x, 0)", "x")],
    "dropout": [("dy * scaled_mask(dy, seeds, p)", "dy"),
                ("scaled_mask(dy, seeds, p)", "(scaled_mask(dy, seeds, p) > 0)"),
                ("scaled_mask(dy, seeds, p)", "scaled_mask(dy, seeds + np.uint64(1), p)")],
}

BROKEN_HELPERS = [                                  # operation to see it by, helper, true text, broken text
    ("multiply", "unbroadcast", "dx.sum(stretched, keepdims=True)", "dx"),
    ("matmul", "unbroadcast", "dx.sum(stretched, keepdims=True)", "dx.mean(stretched, keepdims=True)"),
    ("add", "unbroadcast", "dy.sum(tuple(range(dy.ndim - len(shape))))", "dy.mean(tuple(range(dy.ndim - len(shape))))"),
    ("sum", "copy_back", "np.broadcast_to(dy.reshape(kept), shape)", "np.broadcast_to(dy.ravel()[0], shape)"),
    ("dropout", "scaled_mask", "* (1 / (1 - p))", ""),
    ("conv2d", "places", "slice(l, l + stride * (across - 1) + 1, stride)", "slice(0, stride * (across - 1) + 1, stride)"),
    ("self_attention", "turned_back", "rms_norm_backward(dy, of_norm)[0]", "dy"),
    ("self_attention", "turned_back", "dy, = rotary_backward(dy, of_turn)", "pass"),
    ("gelu", "erf", "np.exp(-z * z)", "np.exp(-z)"),
]


def broken(function, text, replacement, namespace):
    """`function` with one piece of its source replaced, compiled among the names of `namespace`."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(text) == 1, f"{text!r} stands {source.count(text)} times in {function.__name__}"
    exec(compile(source.replace(text, replacement), f"broken {function.__name__}", "exec"), namespace)
    return namespace[function.__name__]


def names_of(function):
    return dict(vars(inspect.getmodule(function)))


def check_all_examples(name, backward):
    for arrays, constants in examples(name):
        check_pair(op.ALL[name].pairs["reference"][0], backward, arrays, constants, name)


@pytest.mark.parametrize("name, text, replacement", [(name, *texts) for name in BROKEN for texts in BROKEN[name]])
def test_a_broken_backward_pass_is_caught(name, text, replacement):
    backward = op.ALL[name].pairs["reference"][1]
    with pytest.raises(WrongGradient, match=name):
        check_all_examples(name, broken(backward, text, replacement, names_of(backward)))


DAMAGE = {"twice": lambda dx: 2 * dx, "a sign": lambda dx: -dx, "nothing": np.zeros_like, "its last row": lambda dx: (
    dx * (np.arange(dx.size).reshape(dx.shape) < dx.size - max(1, dx.shape[-1] // 2)) if dx.ndim else 0 * dx)}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [name for name in op.ALL if "cpu" in op.ALL[name].pairs])
def test_each_gradient_of_a_compiled_backward_pass_is_missed_if_it_is_wrong(name, damage):
    """Its source can't be changed here, so what it returns is: each gradient in turn."""
    forward, backward = op.ALL[name].pairs["cpu"]
    given = {i for arrays, constants in examples(name)
             for i, dx in enumerate(backward(*both(forward, arrays, constants))) if dx is not None}
    for which in given:
        def damaged(dy, saved):
            return [dx if dx is None or i != which else DAMAGE[damage](dx) for i, dx in enumerate(backward(dy, saved))]

        with pytest.raises(WrongGradient, match=name):
            for arrays, constants in examples(name):
                check_pair(forward, damaged, arrays, constants, name)


def both(forward, arrays, constants):
    y, saved = forward(*arrays, **constants)
    return np.ones_like(y), saved


@pytest.mark.parametrize("name, helper, text, replacement", BROKEN_HELPERS)
def test_a_broken_helper_of_a_backward_pass_is_caught(name, helper, text, replacement):
    backward = op.ALL[name].pairs["reference"][1]
    namespace = names_of(backward)
    broken(namespace[helper], text, replacement, namespace)
    backward = broken(backward, "def", "def", namespace)    # unchanged, but calling the broken helper
    with pytest.raises(WrongGradient, match=name):
        check_all_examples(name, backward)


def test_every_operation_is_broken_somewhere():
    assert set(BROKEN) == set(op.ALL)


BROKEN_ENGINE = [                                   # function of tensor.py, true text, broken text
    ("topological_order", "stack.append((node, True))", "order.insert(0, node)"),       # doesn't wait for all users
    ("walk", "complete[parent] = complete[parent] + dx", "complete[parent] = dx"),      # forgets all but the last use
    ("walk", "elif parent in owned:", "elif True:"),                                    # adds into an array of others
    ("walk", "parent is None or dx is None", "parent is None or isinstance(parent, Tensor)"),
    ("Tensor.accumulate", "self.grad += gradient", "self.grad = gradient"),             # forgets a leaf's other uses
    ("Tensor.accumulate", "np.zeros_like(self.data)", "gradient"),                      # shares memory, adds twice
]


def graph(x, y):
    """x and y are used several times, and so are nodes made of them, at several depths."""
    short, other = x * y, y * y
    long = ops.exp(ops.tanh(short * 0.5)) + short
    shared = (short + 1) + (short + other)          # + hands one array, dy, to all of its inputs
    return shared + (ops.log(long + x) * short + (x + y) * long)


def check_engine():
    rng = np.random.default_rng(0)
    arrays = rng.uniform(0.5, 2, (2, 3))
    leaves = [Tensor(x, requires_grad=True) for x in arrays]
    dy = rng.normal(size=3)
    graph(*leaves).backward(dy.copy())
    check_gradients(lambda x, y: graph(Tensor(x), Tensor(y)).data, arrays, [x.grad for x in leaves], dy, rng)


def test_the_engine_is_right_as_it_is():
    check_engine()


@pytest.mark.parametrize("name, text, replacement", BROKEN_ENGINE)
def test_a_broken_engine_is_caught(name, text, replacement, monkeypatch):
    owner, _, attribute = name.rpartition(".")
    owner = getattr(tensor, owner) if owner else tensor
    function = getattr(owner, attribute)
    monkeypatch.setattr(owner, attribute, broken(function, text, replacement, names_of(function)))
    with pytest.raises(WrongGradient):
        check_engine()
