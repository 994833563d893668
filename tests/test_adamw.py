"""adamw against its equations, number by number."""
import math

import numpy as np
import pytest
from numerics import assert_close, on_cpu

from minigpt import ops

ADAMW = {"lr": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "decay": 0.1, "scale": 0.5}
each_adamw = pytest.mark.parametrize("adamw_step", on_cpu(ops.adamw_step).values(), ids=on_cpu(ops.adamw_step))


def adamw_number_by_number(gradients, w, *, lr, beta1, beta2, eps, decay, scale):
    """Equations (1) to (5) for a single parameter, from the textbook: w after each of the gradients."""
    m = v = 0
    for t, gradient in enumerate(gradients, start=1):
        g = scale * gradient
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g ** 2
        w = w - lr * decay * w
        w = w - lr * (m / (1 - beta1 ** t)) / (math.sqrt(v / (1 - beta2 ** t)) + eps)
    return w, m, v


def adamw_on_arrays(adamw_step, w, gradients, pieces):
    w, m, v = w.copy(), np.zeros_like(w), np.zeros_like(w)
    for t, gradient in enumerate(gradients, start=1):
        before = gradient.copy()
        for piece in pieces:
            adamw_step(w[piece], gradient[piece], m[piece], v[piece], step=t, **ADAMW)
        np.testing.assert_array_equal(gradient, before)
    return w, m, v


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_adamw
def test_adamw_is_its_equations_number_by_number(adamw_step, dtype):
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=37).astype(dtype), rng.normal(size=(5, 37)).astype(dtype)
    gradients[:, 3] = 0                             # a parameter that was never used only decays
    results = adamw_on_arrays(adamw_step, w, gradients, [slice(None)])
    expected = zip(*(adamw_number_by_number(gradients[:, n].tolist(), float(w[n]), **ADAMW) for n in range(37)))
    for result, wanted in zip(results, expected):
        assert result.dtype == dtype
        assert_close(result, np.array(wanted))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_adamw
def test_adamw_of_slices_is_adamw_of_the_whole(adamw_step, dtype):
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=37).astype(dtype), rng.normal(size=(3, 37)).astype(dtype)
    whole = adamw_on_arrays(adamw_step, w, gradients, [slice(None)])
    for a, b in zip(whole, adamw_on_arrays(adamw_step, w, gradients, [slice(20, 37), slice(0, 3), slice(3, 20)])):
        assert_close(a, b)
