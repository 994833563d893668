"""Weights of others: folders as Hugging Face's transformers writes them, read and written. GPT-2 and BERT.

    config.json                     which model, of what shape
    model.safetensors               the parameters by name; or, where they fill several such files,
    model.safetensors.index.json    which of them holds which
    tokenizer.json, vocab.txt ...   the tokenizer

Their parameters are ours under other names (gpt2_names, bert_names). Three things are more than a name:

    GPT-2   query, key and value are one matrix (C, 3C), side by side: c_attn. Matrices are (in, out), as here
    GPT-2   the head, lm_head.weight, is left out, being the token table; where a file has it, it has to be just that
    BERT    matrices are (out, in): ours, transposed

Names come with and without that of the whole model before them ("transformer.", "bert."), and older files hold masks and
position numbers that are no parameters. What a config.json asks for and our models do not compute (another activation,
a head of its own) is refused: a model that loads computes what theirs does.
"""
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from .arrays import ArrayFile, read_json
from .checkpoint import Checkpoint, check_count, write_folder
from .models.bert import EPS, Bert, BertConfig
from .models.gpt import GPT, GPTConfig
from .settings import UserError, brief, check_value
from .tokenizers import BpeTokenizer, WordpieceTokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                   "vocab.json", "merges.txt", "vocab.txt")


# ---- their names ----

def gpt2_names(config):
    """{their name: our names, side by side} of all parameters of a GPT of this shape."""
    layers = {"ln_f": ["norm"]}
    for i in range(config.layers):
        theirs, ours = f"h.{i}", f"blocks.{i}"
        layers |= {f"{theirs}.ln_1": [f"{ours}.norm1"],
                   f"{theirs}.attn.c_attn": [f"{ours}.attention.{part}" for part in ("query", "key", "value")],
                   f"{theirs}.attn.c_proj": [f"{ours}.attention.output"],
                   f"{theirs}.ln_2": [f"{ours}.norm2"],
                   f"{theirs}.mlp.c_fc": [f"{ours}.mlp.expand"],
                   f"{theirs}.mlp.c_proj": [f"{ours}.mlp.output"]}
    return {"wte.weight": ["tokens.w"], "wpe.weight": ["positions.w"]} | weights_and_biases(layers)


def bert_names(config):
    """{their name: our names, side by side} of all parameters of a Bert of this shape."""
    layers = {"embeddings.LayerNorm": ["norm"]} | ({"pooler.dense": ["pooler"]} if config.pooler else {})
    for i in range(config.layers):
        theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
        layers |= {f"{theirs}.attention.self.{part}": [f"{ours}.attention.{part}"]
                   for part in ("query", "key", "value")}
        layers |= {f"{theirs}.attention.output.dense": [f"{ours}.attention.output"],
                   f"{theirs}.attention.output.LayerNorm": [f"{ours}.norm1"],
                   f"{theirs}.intermediate.dense": [f"{ours}.mlp.expand"],
                   f"{theirs}.output.dense": [f"{ours}.mlp.output"],
                   f"{theirs}.output.LayerNorm": [f"{ours}.norm2"]}
    return {"embeddings.word_embeddings.weight": ["tokens.w"], "embeddings.position_embeddings.weight": ["positions.w"],
            "embeddings.token_type_embeddings.weight": ["token_types.w"]} | weights_and_biases(layers)


def weights_and_biases(layers):
    return {f"{theirs}.{word}": [f"{name}.{letter}" for name in ours]
            for theirs, ours in layers.items() for word, letter in (("weight", "w"), ("bias", "b"))}


# ---- their config.json ----

def gpt2_config(theirs, path, _):
    """Our GPTConfig for their config.json, read from `path`. Of GPT-2's three dropouts the stream's counts."""
    width = value_of(int, theirs, path, "n_embd")
    only(theirs, path, {"activation_function": ("gelu_new", "gelu_pytorch_tanh"), "layer_norm_epsilon": (1e-5,),
                        "n_inner": (None, 4 * width), "tie_word_embeddings": (True,), "scale_attn_weights": (True,),
                        "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,)})
    return GPTConfig(**{ours: value_of(int, theirs, path, key) for ours, key in (
        ("vocabulary_size", "vocab_size"), ("context", "n_positions"), ("layers", "n_layer"), ("heads", "n_head"))},
        width=width, dropout=value_of(float, theirs, path, "resid_pdrop", 0.1))


def bert_config(theirs, path, names):
    """Our BertConfig for their config.json, read from `path`; `names` tells whether there is a pooler."""
    only(theirs, path, {"hidden_act": ("gelu",), "layer_norm_eps": (EPS,), "position_embedding_type": ("absolute",),
                        "is_decoder": (False,), "add_cross_attention": (False,)})
    return BertConfig(**{ours: value_of(int, theirs, path, key) for ours, key in (
        ("vocabulary_size", "vocab_size"), ("context", "max_position_embeddings"), ("layers", "num_hidden_layers"),
        ("heads", "num_attention_heads"), ("width", "hidden_size"), ("hidden", "intermediate_size"))},
        token_types=value_of(int, theirs, path, "type_vocab_size", 2), pooler="pooler.dense.weight" in names,
        dropout=value_of(float, theirs, path, "hidden_dropout_prob", 0.1))


def value_of(kind, theirs, path, key, default=None):
    if key not in theirs and default is None:
        raise UserError(f"{path} lacks {key!r}: it was cut off or changed")
    return check_value(kind, theirs.get(key, default), key, path)


def only(theirs, path, supported):
    """Raise UserError where a key has a value that our models do not compute. {key: values, their default first}."""
    for key, values in supported.items():
        value = theirs.get(key, values[0])
        if value not in values:
            raise UserError(f"{path} has {key} = {brief(value)}, which can't be computed here: only "
                            f"{' or '.join(map(repr, values))} can")


def gpt2_keys(config):
    """Their config.json for a GPT of ours."""
    end_of_text = 50256 if config.vocabulary_size == 50257 else None        # GPT-2's own; others have none that we know
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": config.vocabulary_size,
            "n_positions": config.context, "n_ctx": config.context, "n_embd": config.width, "n_layer": config.layers,
            "n_head": config.heads, "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "embd_pdrop": config.dropout, "attn_pdrop": config.dropout, "resid_pdrop": config.dropout,
            "tie_word_embeddings": True, "bos_token_id": end_of_text, "eos_token_id": end_of_text, "dtype": "float32"}


def bert_keys(config):
    """Their config.json for a Bert of ours."""
    return {"architectures": ["BertModel"], "model_type": "bert", "vocab_size": config.vocabulary_size,
            "max_position_embeddings": config.context, "type_vocab_size": config.token_types,
            "hidden_size": config.width, "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
            "intermediate_size": config.hidden, "hidden_act": "gelu", "layer_norm_eps": EPS,
            "position_embedding_type": "absolute", "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": config.dropout, "pad_token_id": 0, "dtype": "float32"}


@dataclass(frozen=True)
class Family:
    """What has to be known of one kind of model."""
    model: type                     # ours
    names: Callable
    config: Callable                # (their config.json as a dict, its path, the names of the arrays) -> our config
    keys: Callable                  # our config -> their config.json as a dict
    prefix: str                     # the name of the whole model, which some files have before each name
    ignored: str                    # a regular expression: what is no parameter of ours
    transposed: bool                # whether their matrices are (out, in)


FAMILIES = {                                                                # by their model_type
    "gpt2": Family(GPT, gpt2_names, gpt2_config, gpt2_keys, "transformer.", transposed=False,
                   ignored=r"h\.\d+\.attn\.(bias|masked_bias)"),            # the causal mask, and what it masks with
    "bert": Family(Bert, bert_names, bert_config, bert_keys, "bert.", transposed=True,
                   ignored=r"embeddings\.position_ids|cls\..*"),            # 0 1 2 ..., and pre-training's own heads
}


# ---- reading ----

def load(folder, name):
    """The model `name`, "gpt" or "bert", and its tokenizer in a folder, as a Checkpoint.

    Raises UserError, in one sentence, for whatever does not fit.
    """
    model = load_model(folder)
    if model.name != name:
        raise UserError(f"{folder} holds a {model.name}, and a {name} was expected: give another folder")
    tokenizer = {"gpt": BpeTokenizer, "bert": WordpieceTokenizer}[name].load(folder)
    if tokenizer.vocabulary_size > model.config.vocabulary_size:
        raise UserError(f"the tokenizer in {folder} has {tokenizer.vocabulary_size} tokens, and its model only "
                        f"{model.config.vocabulary_size}: these two do not belong together")
    return Checkpoint(model, tokenizer, {}, Path(folder))


def load_model(folder):
    """The model in a folder, in float32. Raises UserError, in one sentence, for whatever does not fit."""
    path = Path(folder) / "config.json"
    if not os.path.isfile(path):
        raise UserError(f"{folder} holds no config.json: give the folder of a model in Hugging Face's layout")
    theirs = read_json(path)
    kind = theirs.get("model_type") if isinstance(theirs, dict) else None
    if not isinstance(kind, str) or kind not in FAMILIES:
        hint = ", and this is a checkpoint of minigpt's own" if isinstance(theirs, dict) and "format" in theirs else ""
        raise UserError(f"{path} should have a model_type among {', '.join(FAMILIES)}, and it has "
                        f"{brief(kind)}{hint}")
    family = FAMILIES[kind]
    stored = their_arrays(Path(folder), family)
    head = stored.pop("lm_head.weight", None)
    config = family.config(theirs, path, stored)
    names = family.names(config)
    check_names(stored, names, folder)
    check_count(sum(file.stored[name].size for file, name in stored.values()), config.parameter_count(), folder)
    model = family.model(config)
    for name, ours in names.items():
        fill(model, ours, *stored[name], family.transposed)
    if head is not None:
        check_head(model, *head)
    return model


def their_arrays(folder, family):
    """{name: (ArrayFile, its name there)} of all parameters in a folder, the names without prefix and as of today."""
    found = {}
    for path, expected in weight_files(folder).items():
        file = ArrayFile(path)
        if expected is not None and (different := sorted(expected ^ file.stored.keys())):
            raise UserError(f"{folder / INDEX} does not belong to {path.name}: only one of them has "
                            f"{brief(different[0])}")
        for name in file.stored:
            plain = name.removeprefix(family.prefix)
            plain = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", plain)         # as they were called until 2019
            plain = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", plain)
            if re.fullmatch(family.ignored, plain, re.DOTALL):
                continue
            if plain in found:
                raise UserError(f"{path} has {brief(plain)} twice, under one name with {family.prefix} and one without")
            file.check_floats([name])
            found[plain] = file, name
    return found


def weight_files(folder):
    """{path of a safetensors file: the names that the index expects in it, or None where there is no index}."""
    if os.path.exists(folder / WEIGHTS):
        return {folder / WEIGHTS: None}
    if not os.path.exists(folder / INDEX):
        pickle = sorted(path.name for path in folder.glob("*.bin"))[:1]
        reason = f" ({pickle[0]} is a pickle, which could run anything, and is not read)" if pickle else ""
        raise UserError(f"{folder} holds no {WEIGHTS}{reason}: get that file, or have transformers' save_pretrained "
                        "write it")
    index = read_json(folder / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"{folder / INDEX} has no weight_map of names and files: it was cut off or changed")
    files = {}
    for name, file in places.items():
        if not re.fullmatch(r"[\w.-]+\.safetensors", file):                 # in this folder, whatever the index says
            raise UserError(f"{folder / INDEX} names {brief(file)}, which is no safetensors file beside it")
        files.setdefault(folder / file, set()).add(name)
    return files


def check_names(stored, names, folder):
    """Raise UserError unless the arrays are those that the shape in config.json calls for."""
    missing, unknown = sorted(names.keys() - stored.keys()), sorted(stored.keys() - names.keys())
    if missing or unknown:
        raise UserError(f"the weights in {folder} do not fit its config.json: " + "; ".join(
            [f"they lack {name}" for name in missing[:1]] +
            [f"they have the unknown {brief(name)}" for name in unknown[:1]]))


def fill(model, ours, file, name, transposed):
    """Copy the array `name` of a file into the parameters of these names, which it holds side by side."""
    parameters = [model.flat.parameters[one] for one in ours]
    turned = transposed and parameters[0].group == "matrices"
    wanted = *parameters[0].shape[:-1], sum(p.shape[-1] for p in parameters)
    found = file.stored[name].shape
    if found != (wanted[::-1] if turned else wanted):
        raise UserError(f"{file.path}: {name} should be of shape {wanted[::-1] if turned else wanted}, and is of shape "
                        f"{found}")
    array = file.read(name)
    begin = 0
    for p in parameters:
        end = begin + p.shape[-1]
        with np.errstate(over="ignore"):                                    # a float64 too large for a float32 is inf
            p.data[...] = (array.T if turned else array)[..., begin:end]
        if not np.isfinite(p.data).all():
            raise UserError(f"{file.path}: {name} holds numbers that are not finite (nan or inf): it can't be used")
        begin = end


def check_head(model, file, name):
    """Raise UserError unless this array is the token table once more."""
    tokens = model.tokens.w.data
    if file.stored[name].shape != tokens.shape or not np.array_equal(file.read(name).astype(np.float32), tokens):
        raise UserError(f"{file.path} has a head of its own: {name} differs from the token table, and the head of our "
                        "GPT is that table")


# ---- writing ----

def save(folder, model, tokenizer_from=None):
    """Write a folder that transformers loads and computes the same from. It must not be there yet, or be empty.

    tokenizer_from: a folder in this layout, whose tokenizer goes with the model. Biases that a model of ours does
    without become zeros. Raises UserError where transformers has no such model, or where nothing can be written.
    """
    family = next((family for family in FAMILIES.values() if isinstance(model, family.model)), None)
    if family is None:
        raise UserError(f"transformers has no model that computes what a {model.name} does: only "
                        f"{' and '.join(family.model.name for family in FAMILIES.values())} can be written for it")
    if model.quantized is not None:
        raise UserError(f"a model of {model.quantized.kind} can't be written for transformers: write the one of floats that "
                        "it was made from")
    if os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise UserError(f"{folder} is there already: choose a folder that is not, or an empty one")
    arrays = {name: joined(model, ours, family.transposed) for name, ours in family.names(model.config).items()}
    arrays = {(family.prefix if family.model is GPT else "") + name: array for name, array in arrays.items()}
    files = {WEIGHTS: safetensors_bytes(arrays, {"format": "pt"}),
             "config.json": json.dumps(family.keys(model.config), indent=2).encode()}
    try:
        if tokenizer_from is not None:
            files |= {name: path.read_bytes() for name in TOKENIZER_FILES
                      if (path := Path(tokenizer_from, name)).is_file()}
        write_folder(Path(folder), files)
    except OSError as error:
        raise UserError(f"nothing can be written to {folder}: {error.strerror}") from None


def joined(model, ours, transposed):
    """The parameters of these names side by side, in their layout."""
    parameters = [model.flat.parameters.get(name) for name in ours]
    if parameters[0] is None:                                               # a bias that this model does without
        weights = [model.flat.parameters[name.removesuffix("b") + "w"] for name in ours]
        return np.zeros(sum(w.shape[-1] for w in weights), np.float32)
    array = np.concatenate([p.data for p in parameters], axis=-1).astype(np.float32)
    return np.ascontiguousarray(array.T if transposed and parameters[0].group == "matrices" else array)
