"""Every kernel of ext/cuda against the NumPy version, on what stands in for a GPU and, where there is one, on a GPU.

The stand-in (tests/cuda_emu) compiles the very text of the .cu with g++ and runs its threads one after another, in
three orders, under a checker that stops at the first race or access out of bounds. What it can't show: what NVRTC's code
computes (it rounds and contracts differently), speed, and whatever else needs a GPU. `pytest -m gpu` runs the same cases
there.
"""
import math

import numpy as np
import pytest
from cuda_emu import stand_in
from cuda_emu.cases import ON_CUDA, SINGLE, WRONG_VALUES, assert_like_the_reference, both_passes, large, on_device
from cuda_emu.emulator import ORDERS
from hypothesis import given
from hypothesis import strategies as st
from inputs import INPUTS
from numerics import assert_close, check_pair, examples, is_float

from minigpt import Tensor, kernels, op, ops, use

pytestmark = pytest.mark.skipif(kernels.cuda.switched_off(), reason="MINIGPT_KERNELS=none")
each_name = pytest.mark.parametrize("name", ON_CUDA)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@each_dtype
@each_name
def test_a_kernel_agrees_with_the_reference(cupy, name, dtype):
    for arrays, constants in [*examples(name), *large(name)]:
        assert_like_the_reference(cupy, name, arrays, constants, dtype)


@each_name
@given(data=st.data())
def test_a_kernel_agrees_with_the_reference_whatever_the_input_and_the_order(emulated, monkeypatch, name, data):
    arrays, constants = data.draw(INPUTS[name])
    monkeypatch.setattr(stand_in, "ORDER", data.draw(st.sampled_from(ORDERS)))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    assert_like_the_reference(emulated, name, arrays, constants, dtype, size=1)


@each_name
def test_the_backward_pass_is_the_derivative(cupy, name):
    for arrays, constants in examples(name):
        check_pair(*on_device(cupy, *op.ALL[name].pairs["cuda"]), arrays, constants, f"{name}, cuda")


@each_name
def test_the_result_does_not_depend_on_the_order_of_threads(emulated, monkeypatch, name):
    """No sum is taken in the order in which threads happen to come: a run can be repeated bit for bit."""
    for arrays, constants in [*examples(name), *large(name)]:
        results = []
        for order in ORDERS:
            monkeypatch.setattr(stand_in, "ORDER", order)
            pair = on_device(emulated, *op.ALL[name].pairs["cuda"])
            results.append(both_passes(pair, arrays, constants, np.float32))
        for others in zip(*results):
            assert len({None if x is None else x.tobytes() for x in others}) == 1


def arrays_in(cupy, saved):
    if isinstance(saved, cupy.ndarray):
        return [saved]
    return [x for part in saved for x in arrays_in(cupy, part)] if isinstance(saved, (tuple, list)) else []


@each_name
def test_neither_pass_writes_to_what_it_was_given(cupy, name):
    for arrays, constants in examples(name):
        forward, backward = op.ALL[name].pairs["cuda"]
        arrays = [None if x is None else cupy.asarray(x) for x in arrays]
        given = [x for x in arrays if x is not None]
        before = [x.get().tobytes() for x in given]
        y, saved = forward(*arrays, **constants)
        dy = cupy.asarray(np.cos(np.arange(y.size)).reshape(y.shape))
        kept = [dy, *arrays_in(cupy, saved)]
        kept_before = [x.get().tobytes() for x in kept]
        first, second = backward(dy, saved), backward(dy, saved)
        assert [x.get().tobytes() for x in given] == before and [x.get().tobytes() for x in kept] == kept_before
        for dx, again in zip(first, second, strict=True):
            assert dx is None or dx.get().tobytes() == again.get().tobytes()


@each_name
def test_tensors_on_the_device_run_the_kernel_there(emulated, monkeypatch, name):
    launches = []
    monkeypatch.setattr(stand_in, "LAUNCHES", launches)
    arrays, constants = examples(name)[0]
    tensors = [x if x is None else Tensor(emulated.asarray(x), requires_grad=is_float(x)) for x in arrays]
    with use("reference"):
        op.ALL[name](*tensors, **constants)
    assert launches == []
    y = op.ALL[name](*tensors, **constants)
    forward = len(launches)
    y.backward(emulated.asarray(np.ones(y.shape)))
    assert 0 < forward < len(launches)
    assert all(isinstance(x.grad, emulated.ndarray) for x in tensors if isinstance(x, Tensor) and x.requires_grad)
    with use("cuda"):
        op.ALL[name](*tensors, **constants)
    assert len(launches) > 2 * forward


@each_name
def test_nothing_waits_for_the_device(emulated, monkeypatch, name):
    """A number that the host asks for makes it wait until the device has done all that it was asked to do."""
    arrays, constants = examples(name)[0]
    tensors = [x if x is None else Tensor(emulated.asarray(x), requires_grad=is_float(x)) for x in arrays]

    def waits(*_, **__):
        raise AssertionError("the host waits for the device")

    for way in "get", "item", "__bool__", "__int__", "__float__":
        monkeypatch.setattr(stand_in.ndarray, way, waits)
    y = op.ALL[name](*tensors, **constants)
    y.backward(emulated.asarray(np.ones(y.shape)))


@pytest.mark.parametrize("name", [name for name in op.ALL if name not in ON_CUDA])
def test_an_operation_without_a_kernel_runs_its_numpy_version_on_the_device(cupy, name):
    for arrays, constants in examples(name):
        on_host, on_gpu = ([x if x is None else Tensor(put(x), requires_grad=is_float(x)) for x in arrays]
                           for put in (np.asarray, cupy.asarray))
        with use("reference"):
            expected = op.ALL[name](*on_host, **constants)
            expected.backward(np.cos(np.arange(expected.size)).reshape(expected.shape))
        y = op.ALL[name](*on_gpu, **constants)
        y.backward(cupy.asarray(np.cos(np.arange(y.size)).reshape(y.shape)))
        assert_close(cupy.asnumpy(y.data), expected.data)
        for x, wanted in zip(on_gpu, on_host):
            if isinstance(x, Tensor) and x.requires_grad:
                assert_close(cupy.asnumpy(x.grad), wanted.grad)


# Kernels without a gradient

@each_dtype
@pytest.mark.parametrize("name", SINGLE)
def test_a_kernel_without_a_gradient_agrees_with_the_reference(cupy, name, dtype):
    SINGLE[name](cupy, dtype)


def test_the_norm_of_what_is_no_number_is_none_either(cupy):
    for wrong in np.nan, np.inf:
        assert not math.isfinite(ops.gradient_norm(cupy.asarray(np.array([1, wrong, 2], np.float32))))


# What a kernel promises beside numbers

@each_dtype
def test_dropout_keeps_the_very_places_that_the_reference_keeps(cupy, dtype):
    x, seeds = np.ones((3, 70, 33), dtype), np.random.default_rng(0).integers(2 ** 64, size=3, dtype=np.uint64)
    expected = ops.dropout.pairs["reference"][0](x, seeds, p=0.37)[0]
    np.testing.assert_array_equal(ops.dropout(cupy.asarray(x), cupy.asarray(seeds), p=0.37).data.get(), expected)


around_tiles = st.sampled_from([1, 7, 8, 9, 31, 32, 33, 64, 65, 97])


@given(data=st.data())
def test_attention_agrees_with_the_reference_around_the_edges_of_tiles(emulated, monkeypatch, data):
    T, S = data.draw(around_tiles), data.draw(around_tiles)
    B, H, D = data.draw(st.sampled_from([(1, 1, 31), (1, 1, 32), (1, 2, 3), (2, 1, 5), (1, 1, 33), (0, 1, 4)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    q, k, v = (data.draw(st.sampled_from([0.1, 1, 4])) * rng.normal(size=(B, N, H, D)) for N in (T, S, S))
    mask = rng.random((B, S)) < data.draw(st.sampled_from([0.0, 0.3, 0.9]))
    arrays = q, k, v, mask if data.draw(st.booleans()) else None, rng.integers(2 ** 64, size=B, dtype=np.uint64)
    constants = {"causal": data.draw(st.booleans()), "dropout": data.draw(st.sampled_from([0.0, 0.3]))}
    monkeypatch.setattr(stand_in, "ORDER", data.draw(st.sampled_from(ORDERS)))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    assert_like_the_reference(emulated, "attention", arrays, constants, dtype, size=1)


def test_attention_drops_the_very_weights_that_the_reference_drops(cupy):
    """Where all keys are 0 and values are the places of an identity matrix, y is a row of weights."""
    T, S, seeds = 70, 50, np.random.default_rng(0).integers(2 ** 64, size=2, dtype=np.uint64)
    q, k, v = np.zeros((2, T, 3, S)), np.zeros((2, S, 3, S)), np.broadcast_to(np.eye(S)[None, :, None], (2, S, 3, S))
    arrays, constants = (q, k, v.copy(), None, seeds), {"causal": False, "dropout": 0.37}
    expected = ops.attention.pairs["reference"][0](*arrays, **constants)[0]
    y = ops.attention(*(x if x is None else cupy.asarray(x) for x in arrays), **constants).data.get()
    np.testing.assert_array_equal(y == 0, expected == 0)
    assert 0.6 < np.mean(y != 0) < 0.66


def test_heads_too_wide_for_a_tile_run_the_numpy_version(emulated, monkeypatch):
    launches = []
    monkeypatch.setattr(stand_in, "LAUNCHES", launches)
    arrays = [np.random.default_rng(0).normal(size=(1, 3, 2, 129)) for _ in range(3)]
    q, k, v = (Tensor(emulated.asarray(x), requires_grad=True) for x in arrays)
    y = ops.attention(q, k, v)
    y.backward(emulated.asarray(np.ones(y.shape)))
    expected, saved = ops.attention.pairs["reference"][0](*arrays)
    dq, *_ = ops.attention.pairs["reference"][1](np.ones(y.shape), saved)
    assert_close(y.data.get(), expected)
    assert_close(q.grad.get(), dq)
    x, w = arrays[0][:, :, 0], np.random.default_rng(1).normal(size=(129, 129)) / 129 ** 0.5
    y = ops.self_attention(*(emulated.asarray(array) if array is not None else None for array in (x, *[w, None] * 4)), heads=1)
    assert_close(y.data.get(), ops.self_attention(x, *[w, None] * 4, heads=1).data)
    assert launches == []


@pytest.mark.parametrize("chapter", WRONG_VALUES)
def test_a_wrong_id_gives_no_numbers(cupy, chapter):
    WRONG_VALUES[chapter](cupy)


@pytest.mark.parametrize(
    "name", ["gelu", "layer_norm", "log_softmax", "relu", "relu_squared", "rms_norm", "softmax", "tanh"])
def test_what_is_no_number_stays_so(cupy, name):
    """A run that has gone wrong has to show it."""
    x = np.ones((2, 40), np.float32)
    x[0, 3] = np.nan
    arrays = [cupy.asarray(x)] + [cupy.asarray(np.ones(40, np.float32))] * name.startswith("layer")
    y = op.ALL[name](*arrays).data.get()
    assert np.isnan(y[0, 3]) and np.isfinite(y[1]).all()


def test_a_query_that_is_no_number_stays_so(cupy):
    q, k = np.ones((1, 4, 1, 8), np.float32), cupy.asarray(np.ones((1, 4, 1, 8), np.float32))
    q[0, 1, 0, 2] = np.nan
    y = ops.attention(cupy.asarray(q), k, k).data.get()
    assert np.isnan(y[0]).all((1, 2)).tolist() == [False, True, False, False] and np.isfinite(y[0, [0, 2, 3]]).all()
