"""The same model in PyTorch (extra [oracle]): with the same weights and tokens, the same loss and gradients.

The PyTorch side is written as one would write it there, with its own layers and attention.
"""
import numpy as np
import pytest

from minigpt.models.gpt import GPT, GPTConfig

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[oracle]'")
F = torch.nn.functional

CONFIG = GPTConfig(vocabulary_size=65, context=48, layers=3, heads=4, width=64)
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-9}


def torch_loss(w, x, y):
    """The loss of GPT-2 from a dict of parameters under our names."""
    def linear(h, name):
        return h @ w[f"{name}.w"] + w[f"{name}.b"]

    def norm(h, name):
        return F.layer_norm(h, h.shape[-1:], w[f"{name}.w"], w[f"{name}.b"], 1e-5)

    B, T = x.shape
    h = F.embedding(x, w["tokens.w"]) + w["positions.w"][:T]
    for i in range(CONFIG.layers):
        block = f"blocks.{i}"
        normed = norm(h, f"{block}.norm1")
        q, k, v = (linear(normed, f"{block}.attention.{part}").view(B, T, CONFIG.heads, -1).transpose(1, 2)
                   for part in ("query", "key", "value"))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, -1)
        h = h + linear(a, f"{block}.attention.output")
        hidden = F.gelu(linear(norm(h, f"{block}.norm2"), f"{block}.mlp.expand"), approximate="tanh")
        h = h + linear(hidden, f"{block}.mlp.output")
    logits = norm(h, "norm") @ w["tokens.w"].T
    return F.cross_entropy(logits.reshape(B * T, -1), y.reshape(-1), ignore_index=-1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loss_and_every_gradient_agree_with_pytorch(dtype, backend, record_property):
    model = GPT(CONFIG, seed=0, dtype=dtype)
    rng = np.random.default_rng(0)
    model.flat.data += (0.05 * rng.normal(size=len(model.flat))).astype(dtype)      # biases and norms included
    x, y = rng.integers(65, size=(5, 37)), rng.integers(-1, 65, size=(5, 37))       # -1: a target that is ignored
    loss = model.loss(x, y)
    loss.backward()

    weights = {name: torch.tensor(p.data, requires_grad=True) for name, p in model.flat.parameters.items()}
    expected = torch_loss(weights, torch.tensor(x), torch.tensor(y))
    expected.backward()
    gradients = {name: w.grad.numpy() for name, w in weights.items()}
    floor = 1e-3 * max(np.linalg.norm(g) for g in gradients.values())
    errors = {name: np.linalg.norm(model.flat.parameters[name].grad - g) / max(np.linalg.norm(g), floor)
              for name, g in gradients.items()}
    worst = max(errors, key=errors.get)
    loss_error = abs(loss.item() - expected.item()) / expected.item()
    print(f"{backend}, {np.dtype(dtype)}: loss differs by {loss_error:.1e}, worst of {len(errors)} gradients: {worst} "
          f"by {errors[worst]:.1e}")
    assert loss_error <= TOLERANCE[dtype] and errors[worst] <= TOLERANCE[dtype]
