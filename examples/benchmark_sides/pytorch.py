"""PyTorch's side of the benchmark: the same GPT-2, written as one writes it there."""
import json
import sys

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError:
    sys.exit("error: PyTorch is not installed: pip install '.[oracle]'")
from common import serve


class Block(nn.Module):
    def __init__(self, C, heads, dropout):
        super().__init__()
        self.heads, self.p = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.output = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.expand, self.contract = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
                   for part in self.qkv(self.norm1(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.p if self.training else 0.0)
        x = x + self.dropout(self.output(y.transpose(1, 2).reshape(B, T, C)))
        return x + self.dropout(self.contract(F.gelu(self.expand(self.norm2(x)), approximate="tanh")))


class GPT(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(s["vocabulary_size"], s["width"]), nn.Embedding(s["context"], s["width"])
        self.blocks = nn.ModuleList(Block(s["width"], s["heads"], s["dropout"]) for _ in range(s["layers"]))
        self.norm, self.dropout = nn.LayerNorm(s["width"]), nn.Dropout(s["dropout"])
        self.head = nn.Linear(s["width"], s["vocabulary_size"], bias=False)
        self.head.weight = self.tokens.weight
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, x, y):
        h = self.dropout(self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device)))
        for block in self.blocks:
            h = block(h)
        return F.cross_entropy(self.head(self.norm(h)).flatten(0, 1), y.flatten())


def main(s):
    torch.set_num_threads(s["threads"])
    torch.manual_seed(0)
    where, on_gpu = torch.device(s["device"]), s["device"] == "cuda"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("error: this PyTorch sees no GPU: install one that was built for CUDA")
    torch.set_float32_matmul_precision("high" if s["precision"] == "tf32" else "highest")
    model = GPT(s).to(where)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model) if s.get("compiled") else model
    ids = torch.randint(s["vocabulary_size"], (200_000,))
    places = torch.arange(s["context"])

    def step():
        begins = torch.randint(len(ids) - s["context"] - 1, (s["batch_size"], 1))
        loss = loss_of(ids[begins + places].to(where), ids[begins + places + 1].to(where))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    if on_gpu:
        serve(step, wait=torch.cuda.synchronize, peak=lambda: torch.cuda.max_memory_reserved() / 2 ** 20)
    else:
        serve(step)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
