"""Is this the derivative of that? The checks that all tests of gradients share.

A function y = f(x) of arrays and the gradient dy of a scalar loss by y give the loss  L = sum(dy * y).  Moving x by h
along any direction d changes L at the rate

    (1)  dL/dh  =  sum(dx * d)                              by the gradient dx that the backward pass claims
    (2)         ~  (L(x + h d) - L(x - h d)) / 2h           by asking the forward pass twice

A random direction involves every number of dx at once, so one direction an argument finds any wrong number in it, at
the price of two forward passes for an array of any size. In float64 with h = 1e-5, (2) is off by some h^2 = 1e-10
(its third derivative) and 1e-16 / h = 1e-11 (rounding): agreement within 1e-6 leaves room, and no mistake is so small.
"""
import numpy as np

from minigpt import no_grad, op

H = 1e-5
LENGTH = 5e-5                                       # of a step through the parameters of a model
TOLERANCE = 1e-6


class WrongGradient(AssertionError):
    """A gradient that is not the derivative."""


def is_float(x):
    return x is not None and np.asarray(x).dtype.kind == "f"


def slope(f, arrays, argument, direction, dy):
    """Equation (2): how fast sum(dy * f(arrays)) grows as one of the arrays moves along `direction`."""
    def moved(step):
        return f(*(x + step * direction if i == argument else x for i, x in enumerate(arrays)))

    return float(((np.asarray(moved(H)) - np.asarray(moved(-H))) * dy).sum()) / (2 * H)


def check_gradients(f, arrays, gradients, dy, rng, label=""):
    """Raise WrongGradient unless `gradients` are those of sum(dy * f(*arrays)), one for each array.

    Arrays of floats need a gradient of their shape; integers, bools and None have None.
    """
    if len(gradients) < len(arrays):
        raise WrongGradient(f"{label}: {len(gradients)} gradients for {len(arrays)} arguments")
    for i, (x, dx) in enumerate(zip(arrays, gradients)):
        where = f"{label}: gradient of argument {i}"
        if not is_float(x):
            if dx is not None:
                raise WrongGradient(f"{where}: None was expected, as it is no array of floats")
            continue
        if np.shape(dx) != np.shape(x):
            raise WrongGradient(f"{where}: shape {np.shape(dx)}, where {np.shape(x)} was expected")
        direction = np.asarray(rng.normal(size=np.shape(x)))
        shares = dx * direction
        analytic, numeric = float(np.sum(shares)), slope(f, arrays, i, direction, dy)
        size = max(abs(analytic), abs(numeric), float(np.sqrt(np.sum(shares ** 2))), 1e-3)     # shares may cancel
        error = abs(analytic - numeric) / size
        if not error <= TOLERANCE:                  # a NaN is caught, too
            raise WrongGradient(f"{where}: {analytic:.10g} by the backward pass, {numeric:.10g} by central "
                                f"differences; relative error {error:.1e}")


def check_pair(forward, backward, arrays, constants, label="", seed=0):
    """Raise WrongGradient unless `backward` differentiates `forward` at these arrays (of float64)."""
    rng = np.random.default_rng(seed)
    y, saved = forward(*arrays, **constants)
    dy = np.asarray(rng.normal(size=np.shape(y)))
    gradients = backward(dy, saved)
    check_gradients(lambda *arrays: forward(*arrays, **constants)[0], arrays, gradients, dy, rng, label)


def check_model(loss, flat):
    """Raise WrongGradient unless flat.grad is the gradient of loss() by all parameters, flat.data.

    Along one random direction through the whole block, and one through each parameter alone. All steps are of one length:
    with a step as small for the few numbers of a bias as for the whole block, its slope would drown in the rounding of the
    loss, which is 1e-15 and more.
    """
    loss().backward()
    gradient, weights, rng = flat.grad.copy(), flat.data.copy(), np.random.default_rng(4)

    def loss_at(step, direction):
        flat.data[...] = weights + step * direction
        with no_grad():
            return loss().item()

    for name, where in {"all parameters": slice(None), **flat.slices}.items():
        direction = np.zeros_like(weights)
        direction[where] = rng.normal(size=direction[where].shape)
        h = LENGTH / np.linalg.norm(direction)
        analytic, numeric = gradient @ direction, (loss_at(h, direction) - loss_at(-h, direction)) / (2 * h)
        if not abs(analytic - numeric) <= max(TOLERANCE * abs(analytic), 1e-9):
            raise WrongGradient(f"{name}: {analytic:.10g} by the backward pass, {numeric:.10g} by central differences")


def assert_close(actual, expected, what="", size=1e-3):
    """Equal but for the rounding of actual's dtype, measured by the largest magnitude in the array.

    A number is a sum of products, of other numbers of the array's magnitude: a few hundred roundings of 1e-7 that
    partly cancel are 2e-5 of it in float32, and 1e-12 of it in float64. Where all numbers may cancel, `size` is the
    magnitude of what they were made from.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, where {expected.shape} was expected"
    finite = np.abs(expected[np.isfinite(expected)])
    tolerance = {4: 2e-5, 8: 1e-12}[actual.dtype.itemsize] * max(finite.max(initial=0), size)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=what)


def examples(name):
    """The examples of an operation, always the same: a list of (arrays, constants) in float64."""
    return [(tuple(as_array(x) for x in arrays), constants)
            for arrays, constants in op.ALL[name].examples(np.random.default_rng(0))]


def as_array(x):
    return None if x is None else np.asarray(x)


def cast(arrays, dtype):
    """The same arrays, those of floats in `dtype`."""
    return tuple(x.astype(dtype) if is_float(x) else x for x in arrays)


EXAMPLES = [(name, i) for name in op.ALL for i in range(len(examples(name)))]
PAIRS = [(name, backend) for name in op.ALL for backend in ("reference", "cpu") if backend in op.ALL[name].pairs]
PAIRS_AND_EXAMPLES = [(name, backend, i) for name, i in EXAMPLES for its_name, backend in PAIRS if name == its_name]


def on_cpu(function):
    """The versions of a kernel() that take NumPy arrays."""
    return {backend: version for backend, version in function.versions.items() if backend != "cuda"}
