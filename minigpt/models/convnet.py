"""A convolutional network, about as small as the first that learnt to read handwritten digits by gradients (LeCun et al.
1989, Backpropagation applied to handwritten zip code recognition): the ancestor of models/vit.py.

    image -> [ convolution -> ReLU ] * 3 -> linear -> ReLU -> linear -> logits

Each convolution (ops/conv2d.py) looks for small shapes everywhere, in what the one before it found: strokes, then corners
and ends, then their arrangement. The second and the third move their window by two pixels, as LeCun's did, so that the
image shrinks while the number of shapes that are looked for grows. ReLU stands for his tanh.
"""
from dataclasses import dataclass

import numpy as np

from ..nn import Conv2d, Linear, Module, flatten
from ..ops import cross_entropy, relu
from ..settings import UserError

SIZE = 3                            # rows and columns of each window


@dataclass(frozen=True)
class ConvNetConfig:
    """The shape of a convolutional network."""
    image_height: int               # rows of an image
    image_width: int                # columns of an image
    classes: int                    # number of things that an image can show
    filters: int                    # shapes that the first convolution looks for; the second twice as many, the third too
    hidden: int                     # width of the layer before the last
    channels: int = 1               # numbers a pixel: 1 for grey levels

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 1 <= value < 2 ** 31:
                raise UserError(f"{name} is {value}, but a network needs at least 1, and below 2^31")

    def flat_width(self):
        """How many numbers the last convolution gives: a window with stride 2 and padding 1 halves, rounding up."""
        return -(-self.image_height // 4) * -(-self.image_width // 4) * 2 * self.filters

    def parameter_count(self):
        """How many numbers such a model has, without making one."""
        F, window = self.filters, SIZE ** 2
        convolutions = (window * self.channels * F + F) + (window * F * 2 * F + 2 * F) + (window * 4 * F * F + 2 * F)
        return convolutions + (self.flat_width() + 1) * self.hidden + (self.hidden + 1) * self.classes


class ConvNet(Module):
    """images (B, H, W, channels) of numbers from 0 to 1 -> logits (B, classes)."""
    name = "convnet"
    Config = ConvNetConfig

    def __init__(self, config, seed=0, dtype=np.float32):
        rng, F, C = np.random.default_rng(seed), config.filters, config.channels

        def window(n_in, n_out, stride):                    # ReLU drops half: twice the variance makes up for it
            return Conv2d(rng, n_in, n_out, SIZE, stride, padding=1, std=(2 / (SIZE * SIZE * n_in)) ** 0.5)

        self.config = config
        self.convolutions = [window(C, F, 1), window(F, 2 * F, 2), window(2 * F, 2 * F, 2)]
        self.hidden = Linear(rng, config.flat_width(), config.hidden, std=(2 / config.flat_width()) ** 0.5)
        self.head = Linear(rng, config.hidden, config.classes, std=config.hidden ** -0.5)
        flatten(self, dtype)

    def forward(self, images):
        x = images
        for convolution in self.convolutions:
            x = relu(convolution(x))                                        # (B, H', W', F')
        x = relu(self.hidden(x.reshape(len(images), -1)))                   # (B, hidden)
        return self.head(x)                                                 # (B, classes)

    def loss(self, images, labels, total=None):
        """Mean surprise in nats at the labels (B,); or their sum over `total` (see ops/cross_entropy.py)."""
        return cross_entropy(self.forward(images), labels, total=total)
