"""Elementwise operations: a table of one-line derivatives.

y = f(x), number by number, so that dx = dy * f'(x). Where f'(x) is shorter in terms of y, y is what is saved.

    add         y = a + b          da = dy               db = dy                    (1)
    subtract    y = a - b          da = dy               db = -dy                   (2)
    multiply    y = a * b          da = dy * b           db = dy * a                (3)
    divide      y = a / b          da = dy / b           db = -dy * y / b           (4)
    power       y = x ** n         dx = dy * n * x ** (n - 1)                       (5)
    exp         y = e ** x         dx = dy * y                                      (6)
    log         y = ln x           dx = dy / x                                      (7)
    tanh        y = tanh x         dx = dy * (1 - y * y)                            (8)
    sigmoid     y = 1/(1+e**-x)    dx = dy * y * (1 - y)                            (9)
    relu        y = max(x, 0)      dx = dy where x > 0, else 0                     (10)
    softplus    y = ln(1 + e**x)   dx = dy / (1 + e**-x)                           (12)
    clip        y = x held within low ... high      dx = dy where x was within, else 0         (13)
    minimum     y = the smaller of a and b          da = dy where a <= b, db = dy elsewhere    (14)
    maximum     y = the larger of a and b           da = dy where a >= b, db = dy elsewhere    (15)

Of two equal numbers the minimum and the maximum take the first, so that its gradient flows once.

Those of two arrays take shapes that broadcast to one (NumPy's rule). Broadcasting uses one number in many
places; so by the chain rule its gradient is the sum over these places, which `unbroadcast` takes.      (11)
One of the two may be of integers or bools: it counts as constant floats, and has no gradient.
"""
import numpy as np

from ..op import op
from ..tensor import Tensor


def unbroadcast(dy, shape):
    """The gradient of an array of `shape` that was broadcast to dy's shape: the sum over its copies (11)."""
    if shape is None or dy.shape == shape:                                  # None: an array that has no gradient
        return None if shape is None else dy
    dx = dy.sum(tuple(range(dy.ndim - len(shape))))                         # axes that broadcasting put in front
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1 and dx.shape[axis] != 1)
    return dx.sum(stretched, keepdims=True)


def of_one_dtype(a, b):
    """a and b, where one of them is of integers or bools as floats of the other's dtype; and their shapes, None for
    one that has no gradient."""
    shapes = [x.shape if x.dtype.kind == "f" else None for x in (a, b)]
    if shapes.count(None) == 1:
        a, b = (a.astype(b.dtype), b) if shapes[0] is None else (a, b.astype(a.dtype))
    return a, b, shapes


def two_arrays(rng):
    for shapes in [((3, 4), (3, 4)), ((2, 3, 4), (4,)), ((3, 1), (2, 1, 5)), ((), (2, 3))]:
        yield tuple(rng.uniform(0.5, 2, shape) for shape in shapes), {}


def one_array(rng):
    for shape in (), (7,), (2, 3, 4):
        yield (rng.normal(size=shape),), {}


def positive_array(rng):
    yield (rng.uniform(0.5, 2, (2, 3, 4)),), {}


def array_to_a_power(rng):
    for n in 2, 3, 0.5, -1.5:
        yield (rng.uniform(0.5, 2, (3, 4)),), {"n": n}


def numbers_within(rng):
    yield (rng.normal(size=(3, 5)),), {"low": -0.5, "high": 0.7}


def add_forward(a, b):
    a, b, shapes = of_one_dtype(a, b)
    return a + b, shapes                                                    # (1)


def add_backward(dy, shapes):
    return unbroadcast(dy, shapes[0]), unbroadcast(dy, shapes[1])           # (1) (11)


def subtract_forward(a, b):
    a, b, shapes = of_one_dtype(a, b)
    return a - b, shapes                                                    # (2)


def subtract_backward(dy, shapes):
    return unbroadcast(dy, shapes[0]), unbroadcast(-dy, shapes[1])          # (2) (11)


def multiply_forward(a, b):
    a, b, shapes = of_one_dtype(a, b)
    return a * b, (a, b, shapes)                                            # (3)


def multiply_backward(dy, saved):
    a, b, shapes = saved
    return unbroadcast(dy * b, shapes[0]), unbroadcast(dy * a, shapes[1])   # (3) (11)


def divide_forward(a, b):
    a, b, shapes = of_one_dtype(a, b)
    y = a / b                                                               # (4)
    return y, (b, y, shapes)


def divide_backward(dy, saved):
    b, y, shapes = saved
    da = dy / b                                                             # (4)
    return unbroadcast(da, shapes[0]), unbroadcast(-da * y, shapes[1])      # (4) (11)


def power_forward(x, *, n):
    return x ** n, (x, n)                                                   # (5)


def power_backward(dy, saved):
    x, n = saved
    return (dy * (n * x ** (n - 1) if n else 0 * x),)                       # (5), where 0 * 0 ** -1 is 0


def exp_forward(x):
    y = np.exp(x)                                                           # (6)
    return y, y


def exp_backward(dy, y):
    return (dy * y,)                                                        # (6)


def log_forward(x):
    return np.log(x), x                                                     # (7)


def log_backward(dy, x):
    return (dy / x,)                                                        # (7)


def tanh_forward(x):
    y = np.tanh(x)                                                          # (8)
    return y, y


def tanh_backward(dy, y):
    return (dy * (1 - y * y),)                                              # (8)


def sigmoid_forward(x):
    y = np.exp(-np.logaddexp(0, -x))                                        # (9), in a form that can't overflow
    return y, y


def sigmoid_backward(dy, y):
    return (dy * y * (1 - y),)                                              # (9)


def relu_forward(x):
    return np.maximum(x, 0), x                                              # (10)


def relu_backward(dy, x):
    return (dy * (x > 0),)                                                  # (10)


def softplus_forward(x):
    return np.logaddexp(0, x), x                                            # (12), in a form that can't overflow


def softplus_backward(dy, x):
    return (dy * np.exp(-np.logaddexp(0, -x)),)                             # (12)


def clip_forward(x, *, low, high):
    return np.clip(x, low, high), (x, low, high)                            # (13)


def clip_backward(dy, saved):
    x, low, high = saved
    return (dy * ((x >= low) & (x <= high)),)                               # (13)


def minimum_forward(a, b):
    a, b, shapes = of_one_dtype(a, b)
    return np.minimum(a, b), (a, b, shapes)                                    # (14)


def minimum_backward(dy, saved):
    a, b, shapes = saved
    return unbroadcast(dy * (a <= b), shapes[0]), unbroadcast(dy * (a > b), shapes[1])   # (14) (11)


def maximum_forward(a, b):
    a, b, shapes = of_one_dtype(a, b)
    return np.maximum(a, b), (a, b, shapes)                                    # (15)


def maximum_backward(dy, saved):
    a, b, shapes = saved
    return unbroadcast(dy * (a >= b), shapes[0]), unbroadcast(dy * (a < b), shapes[1])   # (15) (11)


add = op(add_forward, add_backward, two_arrays)
subtract = op(subtract_forward, subtract_backward, two_arrays)
multiply = op(multiply_forward, multiply_backward, two_arrays)
divide = op(divide_forward, divide_backward, two_arrays)
power = op(power_forward, power_backward, array_to_a_power)
exp = op(exp_forward, exp_backward, one_array)
log = op(log_forward, log_backward, positive_array)
tanh = op(tanh_forward, tanh_backward, one_array)
sigmoid = op(sigmoid_forward, sigmoid_backward, one_array)
relu = op(relu_forward, relu_backward, one_array)
softplus = op(softplus_forward, softplus_backward, one_array)
clip = op(clip_forward, clip_backward, numbers_within)
minimum = op(minimum_forward, minimum_backward, two_arrays)
maximum = op(maximum_forward, maximum_backward, two_arrays)

Tensor.__add__ = add
Tensor.__radd__ = lambda b, a: add(a, b)
Tensor.__sub__ = subtract
Tensor.__rsub__ = lambda b, a: subtract(a, b)
Tensor.__mul__ = multiply
Tensor.__rmul__ = lambda b, a: multiply(a, b)
Tensor.__truediv__ = divide
Tensor.__rtruediv__ = lambda b, a: divide(a, b)
Tensor.__pow__ = lambda x, n: power(x, n=float(n))
Tensor.__neg__ = lambda x: multiply(x, -1)
