"""What hypothesis feeds the operations. INPUTS has a strategy for each: it draws (arrays, constants) at which the operation
can be differentiated by small steps, that is, away from the kink of relu and from divisions by nearly nothing."""
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numerics import assert_close

from minigpt import Tensor

# Values and shapes

any_number = st.floats(-3, 3)
positive = st.floats(0.5, 2)
not_near_zero = st.builds(lambda size, sign: sign * size, st.floats(0.25, 2), st.sampled_from([-1, 1]))
size = st.integers(1, 5)
odd_size = st.sampled_from([1, 2, 3, 5, 8, 17, 33])                     # vectors of 4, 8 and 16 numbers, and their ends
seeds_of = st.integers(0, 2 ** 64 - 1)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=5)
shapes_of_rows = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)


def floats(shape, elements=any_number):
    return hnp.arrays(np.float64, shape, elements=elements)


@st.composite
def rows(draw, elements=any_number):
    """An array (..., C) with rows of odd sizes."""
    return draw(floats((*draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=4)), draw(odd_size)), elements))


def of_one(elements=any_number, **constants):
    return st.tuples(st.tuples(floats(shapes, elements)), st.fixed_dictionaries(constants))


# One strategy for each operation

@st.composite
def of_two(draw, second=any_number):
    two = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)).input_shapes
    return (draw(floats(two[0])), draw(floats(two[1], second))), {}


@st.composite
def of_two_apart(draw):
    """Two arrays that broadcast, nowhere equal: the multiples of a half, and those a quarter off."""
    (a, b), _ = draw(of_two())
    return (np.round(2 * a) / 2, np.round(2 * b) / 2 + 0.25), {}


@st.composite
def clip_inputs(draw):
    x = np.round(2 * draw(floats(shapes))) / 2
    return (x,), {"low": draw(st.sampled_from([-1.25, 0.25])), "high": draw(st.sampled_from([0.75, 1.25]))}


@st.composite
def log_probability_inputs(draw):
    logits = draw(rows())
    return (logits, draw(hnp.arrays(np.int64, logits.shape[:-1], elements=st.integers(0, logits.shape[-1] - 1)))), {}


@st.composite
def reshape_inputs(draw):
    x = draw(floats(shapes_of_rows))
    shape = draw(st.sampled_from([(-1,), (x.size,), (1, x.size, 1), x.shape[::-1], (-1, x.shape[0])]))
    return (x,), {"shape": shape}


@st.composite
def transpose_inputs(draw):
    x = draw(floats(shapes))
    return (x,), {"axes": tuple(draw(st.permutations(range(x.ndim))))}


@st.composite
def getitem_inputs(draw):
    x = draw(floats(shapes_of_rows))
    return (x,), {"index": draw(hnp.basic_indices(x.shape, allow_newaxis=True))}


@st.composite
def concatenate_inputs(draw):
    shape = draw(shapes_of_rows)
    axis = draw(st.integers(-len(shape), len(shape) - 1))

    def piece():
        its_shape = list(shape)
        its_shape[axis] = draw(size)
        return draw(floats(tuple(its_shape)))

    return tuple(piece() for _ in range(draw(st.integers(1, 3)))), {"axis": axis}


@st.composite
def reduce_inputs(draw):
    x = draw(floats(shapes_of_rows))
    axes = st.integers(-x.ndim, x.ndim - 1)
    axis = draw(st.one_of(st.none(), axes, hnp.valid_tuple_axes(x.ndim, min_size=1)))
    return (x,), {"axis": axis, "keepdims": draw(st.booleans())}


@st.composite
def matmul_inputs(draw):
    leading = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    T, K, S = draw(st.tuples(size, size, size))
    return (draw(floats((*leading[0], T, K))), draw(floats((*leading[1], K, S)))), {}


@st.composite
def scale_and_shift(draw, C, O):
    """Of the norm that a branch of C numbers a row begins with; None twice where it is no branch, as from C to another O."""
    if C != O or draw(st.booleans()):
        return None, None
    return draw(floats(C, positive)), draw(st.none() | floats(C, st.floats(-1, 1)))


@st.composite
def mlp_inputs(draw):
    # Not so large that gelu bends more than steps can follow, nor so small that the loss rounds a gradient away.
    C, F = draw(odd_size), draw(odd_size)
    O = draw(st.just(C) | odd_size)
    small = st.builds(lambda size, sign: sign * size / C, st.floats(0.25, 1), st.sampled_from([-1, 1]))
    x = draw(floats((*draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=4)), C), not_near_zero))
    b1, b2 = (draw(st.one_of(st.none(), floats(n, st.floats(-1, 1)))) for n in (F, O))
    scale, shift = draw(scale_and_shift(C, O))
    return (x, draw(floats((C, F), small)), b1, draw(floats((F, O), not_near_zero)), b2, scale, shift), {"eps": 0.5}


@st.composite
def experts_inputs(draw):
    # Drawn from one seed, which hypothesis has for the sizes: what matters is who is sent where, and who comes too late.
    E, C, F, O = (draw(st.integers(1, 5)) for _ in range(4))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=9))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x, w1, w2 = (rng.uniform(0.25, 1, size) * rng.choice([-1, 1], size) for size in ((*shape, C), (E, C, F), (E, F, O)))
    choice = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, E - 1)))
    return (x, rng.uniform(0.2, 1, shape), w1, w2, choice), {"capacity": draw(st.none() | st.integers(1, 9))}


@st.composite
def steps_inputs(draw, gates, states):
    B, T, C = draw(st.sampled_from([1, 2, 5, 13])), draw(st.integers(1, 6)), draw(odd_size)
    rng = np.random.default_rng(draw(st.integers(0, 99)))               # the values matter less than the sizes here
    u = rng.normal(size=(C, gates * C)) / C ** 0.5
    return (draw(st.sampled_from([0.5, 2.0])) * rng.normal(size=(B, T, gates * C)), rng.normal(size=(B, states * C)), u), {}


@st.composite
def linear_inputs(draw):
    leading = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=4))
    inputs, outputs, transposed = draw(size), draw(size), draw(st.booleans())
    w = draw(floats((outputs, inputs) if transposed else (inputs, outputs)))
    b = draw(st.one_of(st.none(), floats((outputs,))))
    return (draw(floats((*leading, inputs))), w, b), {"transposed": transposed}


@st.composite
def conv2d_inputs(draw):
    stride, padding, I, O = draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(size), draw(size)
    K, L = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    H, W = (draw(st.integers(max(1, n - 2 * padding), 6)) for n in (K, L))
    b = draw(st.one_of(st.none(), floats((O,))))
    arrays = draw(floats((draw(st.integers(1, 3)), H, W, I))), draw(floats((K, L, I, O))), b
    return arrays, {"stride": stride, "padding": padding}


@st.composite
def cross_entropy_inputs(draw):
    logits, ignored = draw(rows()), draw(st.sampled_from([-1, -100, 2]))
    target = st.one_of(st.integers(0, logits.shape[-1] - 1), st.just(ignored))
    dtype = draw(st.sampled_from([np.int64, np.int32]))
    targets = draw(hnp.arrays(dtype, logits.shape[:-1], elements=target))
    return (logits, targets), {"ignore_index": ignored, "total": draw(st.one_of(st.none(), st.integers(1, 50)))}


@st.composite
def embedding_inputs(draw):
    V, C, dtype = draw(size), draw(odd_size), draw(st.sampled_from([np.uint8, np.uint16, np.int32, np.int64]))
    ids = hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=2), elements=st.integers(0, V - 1))
    return (draw(floats((V, C))), draw(ids)), {}


@st.composite
def layer_norm_inputs(draw):
    x = draw(rows())                                # perhaps constant: then eps keeps 1/sqrt(var + eps) in bounds
    w, b = floats(x.shape[-1:]), st.one_of(st.none(), floats(x.shape[-1:]))
    return (x, draw(w), draw(b)), {"eps": draw(st.sampled_from([0.05, 0.3, 1.0]))}


@st.composite
def rms_norm_inputs(draw):
    x = draw(rows(not_near_zero))
    w = draw(st.none() | floats(x.shape[-1:]))
    return (x,) if w is None else (x, w), {"eps": draw(st.sampled_from([1e-6, 1e-3]))}


@st.composite
def rotary_inputs(draw):
    x = draw(floats((draw(size), draw(size), draw(size), 2 * draw(odd_size))))
    begin = st.integers(0, 1000)
    begins = begin | st.tuples(*[begin] * len(x))
    return (x,), {"begin": draw(begins), "base": draw(st.sampled_from([100.0, 10000.0]))}


@st.composite
def dropout_inputs(draw):
    x = draw(floats((draw(size), *draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=9)))))
    seeds = draw(hnp.arrays(np.uint64, len(x), elements=seeds_of))
    return (x, seeds), {"p": draw(st.sampled_from([0.0, 0.1, 0.5, 0.9]))}


@st.composite
def attention_inputs(draw, dropouts=(0.0, 0.3)):
    B, H, D = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 8, 20]))
    T, S = draw(st.sampled_from([1, 2, 5, 9, 26, 49])), draw(st.sampled_from([1, 3, 5, 9, 17, 33]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))               # the values matter less than the sizes here
    q, k, v = (draw(st.sampled_from([0.1, 1.0, 2.0])) * rng.normal(size=(B, N, H, D)) for N in (T, S, S))
    mask = draw(st.one_of(st.none(), hnp.arrays(bool, (B, S))))
    seeds = rng.integers(2 ** 64, size=B, dtype=np.uint64)
    return (q, k, v, mask, seeds), {"causal": draw(st.booleans()), "dropout": draw(st.sampled_from(dropouts))}


@st.composite
def self_attention_inputs(draw):
    B, H, D = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 8]))
    T, C = draw(st.sampled_from([1, 2, 5, 17, 70])), draw(odd_size)
    O = draw(st.just(C) | odd_size)
    rng = np.random.default_rng(draw(st.integers(0, 99)))               # as for attention, the sizes matter
    biases = draw(st.tuples(*[st.booleans()] * 4))
    layers = [(rng.normal(size=(n_in, n_out)) * n_in ** -0.5, rng.normal(size=n_out) if has else None)
              for (n_in, n_out), has in zip([(C, H * D)] * 3 + [(H * D, O)], biases)]
    mask = draw(st.one_of(st.none(), hnp.arrays(bool, (B, T))))
    seeds = draw(st.sampled_from([None, rng.integers(2 ** 64, size=B, dtype=np.uint64)]))
    constants = {"heads": H, "causal": draw(st.booleans()), "dropout": draw(st.sampled_from([0.0, 0.3])),
                 "eps": 0.5, "turned": D % 2 == 0 and draw(st.booleans())}
    arrays = (array for layer in layers for array in layer)
    return (rng.normal(size=(B, T, C)), *arrays, mask, seeds, *draw(scale_and_shift(C, O))), constants


INPUTS = {
    "add": of_two(), "subtract": of_two(), "multiply": of_two(), "divide": of_two(not_near_zero),
    "power": of_one(positive, n=st.sampled_from([-2, -1.5, 0, 0.5, 1, 2, 3.0])),
    "exp": of_one(), "log": of_one(positive), "tanh": of_one(), "sigmoid": of_one(), "relu": of_one(not_near_zero),
    "softplus": of_one(), "clip": clip_inputs(), "minimum": of_two_apart(), "maximum": of_two_apart(),
    "log_probability": log_probability_inputs(), "entropy": st.tuples(st.tuples(rows()), st.just({})),
    "gelu": of_one(st.floats(-8, 8), approximate=st.booleans()),
    "reshape": reshape_inputs(), "transpose": transpose_inputs(), "getitem": getitem_inputs(),
    "concatenate": concatenate_inputs(), "sum": reduce_inputs(), "mean": reduce_inputs(),
    "matmul": matmul_inputs(), "linear": linear_inputs(), "mlp": mlp_inputs(), "conv2d": conv2d_inputs(),
    "embedding": embedding_inputs(),
    "softmax": st.tuples(st.tuples(rows()), st.just({})), "log_softmax": st.tuples(st.tuples(rows()), st.just({})),
    "cross_entropy": cross_entropy_inputs(), "layer_norm": layer_norm_inputs(), "dropout": dropout_inputs(),
    "rms_norm": rms_norm_inputs(), "rotary": rotary_inputs(), "relu_squared": of_one(not_near_zero),
    "attention": attention_inputs(), "self_attention": self_attention_inputs(), "experts": experts_inputs(),
    "rnn": steps_inputs(gates=1, states=1), "lstm": steps_inputs(gates=4, states=2),
}


# What several files of tests need

def value_and_gradients(f, *arrays):
    """f(*arrays) and its gradients by the arrays of floats, for a dy that differs from place to place."""
    inputs = [Tensor(x, requires_grad=True) if x is not None and x.dtype.kind == "f" else x for x in arrays]
    y = f(*inputs)
    y.backward(np.cos(np.arange(y.size)).reshape(y.shape))
    return [y.data] + [x.grad for x in inputs if isinstance(x, Tensor)]


def assert_all_close(results, expected, size=1e-3):
    for actual, wanted in zip(results, expected, strict=True):
        assert_close(actual, wanted, size=size)


def random_seeds(B):
    return np.random.default_rng(B).integers(2 ** 64, size=B, dtype=np.uint64)
