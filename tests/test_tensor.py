"""The engine: any graph is walked in order, once, giving up its memory, and no two gradients share theirs."""
import gc
import operator
import threading
import weakref

import numpy as np
import pytest
from numerics import check_gradients

from minigpt import Tensor, no_grad, ops
from minigpt.tensor import Node


def leaf(*shape, dtype=np.float64, seed=0):
    """A tensor of random numbers between 0.5 and 2, all of them different from those of another seed."""
    return Tensor(np.random.default_rng(seed).uniform(0.5, 2, shape).astype(dtype), requires_grad=True)


def check_graph(f, *arrays):
    """The gradients of f, a function of Tensors to one Tensor, are its derivatives. Returns the leaves."""
    rng = np.random.default_rng(1)
    leaves = [Tensor(x, requires_grad=True) for x in arrays]
    y = f(*leaves)
    dy = rng.normal(size=y.shape)
    y.backward(dy)
    check_gradients(lambda *arrays: f(*map(Tensor, arrays)).data, arrays, [x.grad for x in leaves], dy, rng, "graph")
    return leaves


# The walk

def test_a_node_that_is_used_twice_is_walked_once_with_its_whole_gradient():
    a = Tensor(np.array(3.0), requires_grad=True)
    b = a + a
    c = b + b
    c.backward()
    assert a.grad == 4


@pytest.mark.parametrize("f", [
    lambda x, y: x * x * x + x / y,                                     # a leaf with many uses
    lambda x, y: (z := x * y) * z + z,                                  # a node with uses at two depths
    lambda x, y: (z := x * y) + ops.tanh(z + y) * z,                    # and inside a function of itself
    lambda x, y: ops.exp(a := x * y) * ops.log(b := a + x) + b * a,     # a diamond of diamonds
    lambda x, y: ops.concatenate(x, x * y, x) * ops.concatenate(y, x, y),
    lambda x, y: ((z := x * x) + 1) + (z + y * y),                      # + hands one array to both of its inputs
    lambda x, y: (x + y) - (x + y),                                     # the derivative is zero
], ids=range(7))
def test_graphs_that_meet_again_are_differentiated(f):
    check_graph(f, leaf(2, 3).data, leaf(2, 3, seed=1).data)


def test_random_graphs_are_differentiated():
    """Twelve nodes, each a product or a sum of any two that came before."""
    for seed in range(20):
        choice = np.random.default_rng(seed).integers(1000, size=(12, 3)).tolist()

        def graph(*leaves):
            nodes = list(leaves)
            for kind, i, j in choice:
                a, b = nodes[i % len(nodes)], nodes[j % len(nodes)]
                nodes.append(ops.tanh(a * b) if kind % 2 else 0.5 * (a + b))
            return nodes[-1] + nodes[-2] * nodes[-3]

        check_graph(lambda x, y, graph=graph: graph(x, y) + 0 * (x + y), leaf(3).data, leaf(3, seed=1).data)


def test_a_graph_may_be_50000_operations_deep():
    x = leaf(2)
    y = x
    for _ in range(50_000):
        y = y + 1e-5
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 1])


def test_a_deep_graph_that_nobody_walks_can_be_dropped():
    y = leaf(2)
    for _ in range(50_000):
        y = y * 0.5
    del y


def test_a_part_that_needs_no_gradient_is_not_recorded():
    constant, x = Tensor(np.ones(3)), leaf(3)
    assert not (constant * 2 + constant).requires_grad
    (constant * x).sum().backward()
    assert constant.grad is None and x.grad is not None


# Walking twice

def test_a_graph_that_was_walked_can_not_be_walked_again():
    x = leaf(3)
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="already differentiated"):
        loss.backward()


def test_two_losses_that_share_a_part_are_an_error_that_changes_nothing():
    x = leaf(3)
    shared = x * x
    one, two = ops.exp(shared).sum(), ops.log(shared).sum()
    one.backward()
    before = x.grad.copy()
    with pytest.raises(RuntimeError, match="already differentiated: add the losses first"):
        two.backward()
    np.testing.assert_array_equal(x.grad, before)


def test_two_losses_that_share_a_part_can_be_added():
    check_graph(lambda x: ops.exp(s := x * x).sum() + ops.log(s).sum(), leaf(3).data)


# Memory

def watched(y, log):
    """y, as an operation whose backward pass calls log()."""
    def watch_backward(dy, saved):
        log()
        return (dy,)

    return Tensor(y.data, node=Node(watch_backward, None, [y.node], y))


def test_arrays_die_while_the_graph_is_walked_without_the_garbage_collector():
    saved, alive = [], []
    y = leaf(100)
    gc.disable()
    try:
        for _ in range(5):
            y = ops.tanh(y)                         # saves its output
            saved.append(weakref.ref(y.data))
            y = watched(y, lambda: alive.append(sum(array() is not None for array in saved)))
        loss = y.sum()
        del y
        assert sum(array() is not None for array in saved) == 5
        loss.backward()
        assert alive == [5, 4, 3, 2, 1] and not any(array() is not None for array in saved)
    finally:
        gc.enable()


def test_a_graph_that_is_dropped_unwalked_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        x = leaf(100)
        loss = (y := ops.exp(ops.tanh(x) * x)).sum()
        nodes = [weakref.ref(y.data), weakref.ref(loss)]
        del y, loss
        assert not any(thing() is not None for thing in nodes)
    finally:
        gc.enable()


# Leaves

def test_gradients_are_added_in_place_into_a_view_that_was_set_beforehand():
    flat = np.zeros(9)
    x, y = leaf(2, 3), leaf(3)
    x.grad, y.grad = flat[:6].reshape(2, 3), flat[6:]
    for times in 1, 2:
        (x * y).sum().backward()
        expected = np.concatenate([np.tile(y.data, 2), x.data.sum(0)])
        np.testing.assert_allclose(flat, times * expected)
    assert np.shares_memory(x.grad, flat) and np.shares_memory(y.grad, flat)


@pytest.mark.parametrize("f", [
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: (x + y).reshape(4, 3).reshape(3, 4),
    lambda x, y: (x + y).transpose(1, 0),
    lambda x, y: x[:] + y[:],
    lambda x, y: ops.concatenate(x, y),
], ids=range(6))
def test_gradients_of_two_leaves_share_no_memory_with_each_other_or_with_dy(f):
    x, y = leaf(3, 4), leaf(3, 4, seed=1)
    z = f(x, y)
    dy = np.ones(z.shape)
    z.backward(dy)
    assert not np.shares_memory(x.grad, y.grad)
    assert not np.shares_memory(x.grad, dy) and not np.shares_memory(y.grad, dy)
    x.grad += 1
    np.testing.assert_array_equal(dy, 1)


def test_the_gradient_of_a_leaf_by_itself_is_dy():
    x = leaf(3)
    x.backward(np.array([1.0, 2, 3]))
    x.backward(np.array([1.0, 2, 3]))
    np.testing.assert_array_equal(x.grad, [2, 4, 6])


def test_only_floats_have_gradients():
    with pytest.raises(TypeError, match="floats"):
        Tensor(np.arange(3), requires_grad=True)


# no_grad

def test_no_grad_builds_no_graph_and_ends_with_its_block():
    x = leaf(3)
    with no_grad():
        with no_grad():
            pass
        assert not (x * x).requires_grad            # the inner block did not switch it back on
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * x).requires_grad


def test_no_grad_does_not_reach_other_threads():
    x, recorded = leaf(3), []
    with no_grad():
        thread = threading.Thread(target=lambda: recorded.append((x * x).requires_grad))
        thread.start()
        thread.join()
    assert recorded == [True]


def test_nothing_to_differentiate_is_an_error():
    with pytest.raises(RuntimeError, match="nothing to differentiate"):
        (Tensor(np.ones(3)) * 2).sum().backward()


# dy

def test_backward_of_many_numbers_needs_dy():
    with pytest.raises(ValueError, match="no scalar"):
        (leaf(3) * 2).backward()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dy", [
    np.arange(6.0).reshape(3, 2).T,
    np.broadcast_to(2.0, (2, 3)),
    np.broadcast_to(np.arange(3.0, dtype=np.float32), (2, 3)),
    np.arange(6).reshape(2, 3),
], ids=["transposed", "broadcast", "float32", "integers"])
def test_dy_of_any_layout_and_dtype_is_taken(dy, dtype):
    x, w = leaf(2, 3, dtype=dtype), leaf(2, 3, seed=1)
    (x * w.data).backward(dy)
    assert x.grad.dtype == dtype
    np.testing.assert_allclose(x.grad, dy * w.data, rtol=1e-6)


def test_a_backward_pass_gets_dy_contiguous_and_of_the_dtype_of_its_output():
    got = []

    def spy_backward(dy, saved):
        got.append((dy.dtype, dy.flags.c_contiguous))
        return (dy,)

    x = leaf(2, 3, dtype=np.float32)
    for dy in np.broadcast_to(2.0, (2, 3)), np.ones((3, 2)).T, np.ones((2, 3), np.float32):
        Tensor(x.data, node=Node(spy_backward, None, [x], x)).backward(dy)
    assert got == [(np.float32, True)] * 3


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 2), (1, 2, 3)])
def test_dy_of_another_shape_is_an_error(shape):
    x = leaf(2, 3)
    with pytest.raises(ValueError, match="shape"):
        (x * 2).backward(np.ones(shape))
    with pytest.raises(ValueError, match="shape"):
        x.backward(np.ones(shape))


# dtypes

def test_float32_and_float64_tensors_do_not_mix():
    with pytest.raises(TypeError, match="float32.*float64|float64.*float32"):
        leaf(3, dtype=np.float32) * leaf(3)


OTHERS = {"int": 2, "float": 2.5, "bool": True, "list": [1.0, 2.0, 3.0], "NumPy float": np.float64(2.5),
          "NumPy int": np.int64(2), "array": np.arange(1.0, 4), "array of integers": np.arange(1, 4),
          "array of bools": np.array([True, True, True]), "tensor of integers": Tensor(np.arange(1, 4))}


@pytest.mark.parametrize("symbol", [operator.add, operator.sub, operator.mul, operator.truediv])
@pytest.mark.parametrize("other", OTHERS)
def test_nothing_but_a_tensor_changes_the_dtype_of_a_tensor(symbol, other):
    x = leaf(2, 3, dtype=np.float32)
    for y in symbol(x, OTHERS[other]), symbol(OTHERS[other], x):
        assert y.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32


# Operators

OF_TWO = {
    "a + b": lambda a, b: a + b, "a - b": lambda a, b: a - b, "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b, "a @ b": lambda a, b: a @ b,
}
OF_ONE = {
    "2 + a": lambda a: 2 + a, "a + 2": lambda a: a + 2, "2 - a": lambda a: 2 - a, "a - 2": lambda a: a - 2,
    "2 * a": lambda a: 2 * a, "a * 2": lambda a: a * 2, "2 / a": lambda a: 2 / a, "a / 2": lambda a: a / 2,
    "-a": lambda a: -a, "a ** 3": lambda a: a ** 3, "a ** -0.5": lambda a: a ** -0.5,
    "a[1]": lambda a: a[1], "a[:, 0]": lambda a: a[:, 0], "a[1:, None, ..., ::-1]": lambda a: a[1:, None, ..., ::-1],
    "a[np.int64(1)]": lambda a: a[np.int64(1)],
    "sum": lambda a: a.sum(), "mean": lambda a: a.mean(), "sum of rows": lambda a: a.sum(axis=-1, keepdims=True),
    "reshape": lambda a: a.reshape(1, -1), "transpose": lambda a: a.transpose(1, 0),
}


@pytest.mark.parametrize("name", OF_TWO)
def test_operators_of_two_are_those_of_numpy(name):
    """An array goes with a tensor, on either side: then the tensor decides what happens, not NumPy."""
    a, b = leaf(3, 3).data, leaf(3, 3, seed=1).data
    f = OF_TWO[name]
    for y in f(Tensor(a), Tensor(b)), f(a, Tensor(b)), f(Tensor(a), b):
        assert isinstance(y, Tensor)
        np.testing.assert_array_equal(y.data, f(a, b))
    check_graph(f, a, b)
    check_graph(lambda b: f(a, b), b)
    check_graph(lambda a: f(a, b), a)


@pytest.mark.parametrize("name", OF_ONE)
def test_operators_of_one_are_those_of_numpy(name):
    a = leaf(3, 4).data
    y = OF_ONE[name](Tensor(a))
    assert isinstance(y, Tensor)
    np.testing.assert_allclose(y.data, OF_ONE[name](a), rtol=1e-14)
    check_graph(OF_ONE[name], a)


def test_a_tensor_is_not_indexed_by_an_array():
    for index in np.array([0, 1]), [0, 1], np.array([True, False, True]), (0, [1, 2]), True:
        with pytest.raises(TypeError, match="indexed by integers and slices"):
            leaf(3, 3)[index]
