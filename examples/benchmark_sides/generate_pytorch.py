"""PyTorch's side of the benchmark of generation: the same GPT-2 with a key/value cache, as one writes it there."""
import json
import sys

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError:
    sys.exit("error: PyTorch is not installed: pip install '.[oracle]'")
from common import answer, timed


class Block(nn.Module):
    def __init__(self, C, heads, context):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.output = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.expand, self.contract = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        self.k, self.v = (torch.zeros(1, heads, context, C // heads) for _ in range(2))

    def forward(self, x, begin):
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
                   for part in self.qkv(self.norm1(x)).split(C, dim=2))
        self.k[:, :, begin:begin + T], self.v[:, :, begin:begin + T] = k, v
        k, v = self.k[:, :, :begin + T], self.v[:, :, :begin + T]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)        # a prompt begins at 0
        x = x + self.output(y.transpose(1, 2).reshape(B, T, C))
        return x + self.contract(F.gelu(self.expand(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(s["vocabulary_size"], s["width"]), nn.Embedding(s["context"], s["width"])
        self.blocks = nn.ModuleList(Block(s["width"], s["heads"], s["context"]) for _ in range(s["layers"]))
        self.norm = nn.LayerNorm(s["width"])

    def forward(self, ids, begin):
        h = self.tokens(ids) + self.positions(torch.arange(begin, begin + ids.shape[1]))
        for block in self.blocks:
            h = block(h, begin)
        return self.norm(h[:, -1:]) @ self.tokens.weight.T


def main(s):
    torch.set_num_threads(s["threads"])
    torch.manual_seed(0)
    model = GPT(s).eval()

    def read(length):
        return model(torch.randint(s["vocabulary_size"], (1, length)), 0)

    def decode(number):
        token = read(s["prompt"])[:, -1].argmax(-1, keepdim=True)

        def tokens():
            nonlocal token
            for begin in range(s["prompt"], s["prompt"] + number):
                token = model(token, begin)[:, -1].argmax(-1, keepdim=True)

        return timed(tokens)

    with torch.inference_mode():
        answer(decode=decode, prefill=lambda number: timed(lambda: read(number)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
