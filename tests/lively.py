"""Small models whose logits differ clearly from each other and from place to place, so that no mistake hides."""
import numpy as np

from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.models.switch import Switch, SwitchConfig
from minigpt.tokenizers import CharTokenizer

TOKENIZER = CharTokenizer("abcdefg\n .é")
V = TOKENIZER.vocabulary_size
MODELS = {"gpt": (GPT, GPTConfig), "gpt_modern": (GPTModern, GPTModernConfig), "switch": (Switch, SwitchConfig)}


def lively_model(name="gpt", context=8, dtype=np.float64, seed=5, layers=2, **changes):
    """A model of unequal sizes with large random weights."""
    module, config = MODELS[name]
    model = module(config(V, context, layers, 3, 12, **changes), dtype=dtype)
    model.flat.data[...] += 0.3 * np.random.default_rng(seed).normal(size=len(model.flat))
    if name == "gpt":
        model.positions.w.data[...] *= 5
    return model


def greedy(model, ids, number):
    """`number` tokens after `ids`, each the likeliest, by a pass over everything: no cache, no batch, no engine."""
    ids = list(ids)
    for _ in range(number):
        ids.append(int(model(np.array([ids])).data[0, -1].argmax()))
    return ids[-number:]
