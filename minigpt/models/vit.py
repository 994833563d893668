"""ViT, the vision transformer (Dosovitskiy et al. 2021, An image is worth 16x16 words): a Transformer that reads an image.

    patches + a class token + positions -> [ x + attention(norm(x));  x + mlp(norm(x)) ] * layers -> norm -> logits

The image is cut into square patches, and each becomes a vector by one matrix: a convolution whose window moves by its own
size. From there on an image is a text of N patches. A token that stands for none of them, the class token, is put first;
its state behind the last block is what the classes are told from. Every position sees all others.

Beside models/convnet.py: a convolution is told that near pixels belong together and that a shape means the same
everywhere. Here positions are a table of vectors, drawn at random: what is near what has to be learnt from examples. So it
needs more of them, and augmentation; in exchange, every block sees the whole image from the start.
"""
from dataclasses import dataclass

import numpy as np

from ..nn import MLP, Conv2d, Dropout, Embedding, LayerNorm, Linear, Module, MultiHeadAttention, flatten
from ..ops import concatenate, cross_entropy, fold_in, softmax
from ..settings import UserError
from .gpt import check_shape


@dataclass(frozen=True)
class ViTConfig:
    """The shape of a ViT."""
    image_height: int               # rows of an image
    image_width: int                # columns of an image
    classes: int                    # number of things that an image can show
    patch: int                      # rows and columns of a patch
    layers: int                     # number of blocks
    heads: int                      # attention heads in a block
    width: int                      # numbers in the residual stream for each patch
    channels: int = 1               # numbers a pixel: 1 for grey levels
    dropout: float = 0.0            # share of numbers dropped while training, of the stream's inputs and of attention

    def __post_init__(self):
        check_shape(self, ("image_height", "image_width", "classes", "patch", "channels"))
        if self.image_height % self.patch or self.image_width % self.patch:
            raise UserError(f"an image of {self.image_height} x {self.image_width} pixels can't be cut into patches of "
                            f"{self.patch} x {self.patch}: choose a patch that divides both")

    grid = property(lambda self: (self.image_height // self.patch, self.image_width // self.patch))

    def parameter_count(self):
        """How many numbers such a model has, without making one."""
        C, (down, across) = self.width, self.grid
        block = 4 * (C * C + C) + 8 * C * C + 5 * C + 4 * C
        return (self.patch ** 2 * self.channels * C + C) + C + (1 + down * across) * C + self.layers * block + 2 * C \
            + C * self.classes + self.classes


class Block(Module):
    """Attention, then an MLP, each reading a normalised copy of the stream and adding to it, as in models/gpt.py."""

    def __init__(self, rng, config):
        C, p = config.width, config.dropout
        output_std = 0.02 / (2 * config.layers) ** 0.5      # 2 L additions: their sum keeps the size of one
        self.norm1 = LayerNorm(C)
        self.attention = MultiHeadAttention(rng, C, config.heads, dropout=p, output_std=output_std, causal=False)
        self.dropout1 = Dropout(p, site=1)                  # site 0 is attention's own
        self.norm2 = LayerNorm(C)
        self.mlp = MLP(rng, C, 4 * C, output_std=output_std)
        self.dropout2 = Dropout(p, site=2)

    def forward(self, x, seeds=None):
        x = x + self.dropout1(self.attention(self.norm1(x), seeds=seeds), seeds)        # (B, T, C)
        x = x + self.dropout2(self.mlp(self.norm2(x)), seeds)                           # (B, T, C)
        return x

    def weights(self, x):
        """Who looks at whom: attention's P (B, H, T, T), which the operation never stores, for the stream x before the
        block."""
        (B, T, C), H, x = x.shape, self.attention.heads, self.norm1(x)
        q = self.attention.query(x).reshape(B, T, H, C // H).transpose(0, 2, 1, 3)      # (B, H, T, D)
        k = self.attention.key(x).reshape(B, T, H, C // H).transpose(0, 2, 3, 1)        # (B, H, D, T)
        return softmax(q @ k * (C // H) ** -0.5)


class ViT(Module):
    """images (B, H, W, channels) of numbers from 0 to 1 -> logits (B, classes)."""
    name = "vit"
    Config = ViTConfig

    def __init__(self, config, seed=0, dtype=np.float32):
        rng, (down, across) = np.random.default_rng(seed), config.grid
        self.config = config
        std = (config.patch ** 2 * config.channels) ** -0.5                 # a patch's vector has numbers of its own size,
        place = 0.3                                                         # and so has its position: else it drowns
        self.patches = Conv2d(rng, config.channels, config.width, config.patch, stride=config.patch, std=std)
        self.class_token = Embedding(rng, 1, config.width, place)
        self.positions = Embedding(rng, 1 + down * across, config.width, place)
        self.dropout = Dropout(config.dropout, site=config.layers)          # sites 0 ... layers - 1 are the blocks
        self.blocks = [Block(rng, config) for _ in range(config.layers)]
        self.norm = LayerNorm(config.width)
        self.head = Linear(rng, config.width, config.classes)
        flatten(self, dtype)

    def forward(self, images, seeds=None):
        x = self.stream(images, seeds)                                                  # (B, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x, None if seeds is None else fold_in(seeds, n=i))                # (B, T, C)
        return self.head(self.norm(x[:, 0]))                                            # (B, classes)

    def stream(self, images, seeds=None):
        """What the first block reads, (B, T, C): the class token, then the patches, row by row."""
        B, T, C = len(images), len(self.positions.w), self.config.width
        patches = self.patches(images).reshape(B, T - 1, C)                             # (B, T - 1, C)
        first = self.class_token(np.zeros((B, 1), np.int64, like=patches.data))         # (B, 1, C)
        x = concatenate(first, patches, axis=1) + self.positions(np.arange(T, like=patches.data))
        return self.dropout(x, seeds)

    def loss(self, images, labels, seeds=None, total=None):
        """Mean surprise in nats at the labels (B,); or their sum over `total` (see ops/cross_entropy.py)."""
        return cross_entropy(self.forward(images, seeds), labels, total=total)

    def attention_over_image(self, images):
        """How much of each patch has reached the class token: an array (B, H / patch, W / patch), each image's sum is 1.

        "Attention rollout" (Abnar and Zuidema 2020): a block's output is half what it read and half what it looked at, on
        the mean over its heads, and what was looked at was itself such a mixture. What the values do to it is left out.
        """
        x, reached = self.stream(images), None                                          # (B, T, C)
        for block in self.blocks:
            looks = block.weights(x).data.mean(axis=1)                                  # (B, T, T)
            mixed = 0.5 * (looks + np.eye(looks.shape[1], dtype=looks.dtype))
            reached = mixed if reached is None else mixed @ reached
            x = block(x)
        of_patches = reached[:, 0, 1:]                                                  # (B, T - 1)
        return (of_patches / of_patches.sum(axis=1, keepdims=True)).reshape(-1, *self.config.grid)
