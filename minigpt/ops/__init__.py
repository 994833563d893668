"""The mathematics, one chapter a file: the derivation, the forward and backward pass in NumPy, and examples to test.

The letters, here and in every kernel:

    B   sequences in a batch          x y w b     arrays: input, output, weight, bias
    T   positions of queries          q k v p     query, key, value, probability
    S   positions of keys             d...        the gradient of the loss by ...: dx, dw
    C   width: numbers a token        l           log-sum-exp of a row
    H   heads                         E   experts; in self_attention, the width of all heads: E = H D
    D   width of a head: C = H D      N   rows, where leading axes are flattened
    F   hidden width of the MLP       V   vocabulary: the number of tokens

An operation takes Tensors, arrays and numbers, and gives a Tensor; minigpt/op.py says how. A reading order:
elementwise, shape, reduce, matmul, linear, gelu, mlp, softmax, cross_entropy, embedding, layer_norm, attention,
self_attention, philox, dropout, adamw; then what newer models use: rms_norm, rotary, relu_squared, experts; for generating,
cached_attention and quantized_linear; for learning from what people prefer, log_probability; and what was before attention:
rnn, lstm, conv2d.
"""
from .adamw import adamw_step, gradient_norm
from .attention import attention
from .cached_attention import cached_attention
from .conv2d import conv2d
from .cross_entropy import cross_entropy
from .dropout import dropout
from .elementwise import (add, clip, divide, exp, log, maximum, minimum, multiply, power, relu, sigmoid,
                          softplus, subtract, tanh)
from .embedding import embedding
from .experts import experts
from .gelu import gelu
from .layer_norm import layer_norm
from .linear import linear
from .log_probability import entropy, log_probability
from .lstm import lstm
from .matmul import matmul
from .mlp import mlp
from .philox import fold_in
from .quantized_linear import quantized_linear
from .reduce import mean, sum
from .relu_squared import relu_squared
from .rms_norm import rms_norm
from .rnn import rnn
from .rotary import rotary
from .self_attention import self_attention
from .shape import concatenate, getitem, reshape, transpose
from .softmax import log_softmax, softmax

__all__ = ["adamw_step", "add", "attention", "cached_attention", "clip", "concatenate", "conv2d", "cross_entropy",
           "divide", "dropout", "embedding", "entropy", "exp", "experts", "fold_in", "gelu", "getitem",
           "gradient_norm", "layer_norm", "linear", "log", "log_probability", "log_softmax", "lstm", "matmul",
           "maximum", "mean", "minimum", "mlp", "multiply", "power", "quantized_linear", "relu", "relu_squared",
           "reshape", "rms_norm", "rnn", "rotary", "self_attention", "sigmoid", "softmax", "softplus", "subtract", "sum",
           "tanh", "transpose"]
