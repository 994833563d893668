"""transformers on torch (extra [oracle]): the same weights give the same numbers, in both directions.

    pip install '.[oracle]' && pytest -m "slow or not slow" tests/test_transformers.py -s

prints by how much they differ.
"""
import numpy as np
import pytest

from minigpt import huggingface, no_grad
from minigpt.models.bert import Bert, BertConfig
from minigpt.models.gpt import GPT, GPTConfig

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install '.[oracle]'")
torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[oracle]'")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# The smallest GPT-2 on the hub has 12 layers of width 768; this one has as many layers, so that errors add up as there.
GPT2 = {"vocab_size": 601, "n_positions": 64, "n_embd": 192, "n_layer": 12, "n_head": 12, "bos_token_id": 0,
        "eos_token_id": 0}
BERT = {"vocab_size": 601, "max_position_embeddings": 64, "hidden_size": 192, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 500}
IDS = np.random.default_rng(0).integers(601, size=(3, 64))
MASK = np.arange(64) < np.array([64, 23, 1])[:, None]
TYPES = np.random.default_rng(1).integers(2, size=(3, 64))


def randomised(parameters):
    """Numbers of a size that matters for biases and norms too, which are 0 and 1 in a fresh model."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in parameters:
            p.add_(0.05 * torch.randn_like(p))


def computed(model, ids=IDS):
    """What a model computes, theirs or ours: a GPT-2's logits; states where the mask shows them, and pooled vectors."""
    with torch.no_grad(), no_grad():
        if isinstance(model, transformers.GPT2LMHeadModel):
            return [model.eval()(torch.tensor(ids)).logits.numpy()]
        if isinstance(model, transformers.BertModel):
            result = model.eval()(torch.tensor(IDS), torch.tensor(MASK).long(), torch.tensor(TYPES))
            return [result.last_hidden_state.numpy()[MASK], result.pooler_output.numpy()]
        if isinstance(model, GPT):
            return [model(ids).data]
        states = model(IDS, MASK, TYPES)
        return [states.data[MASK], model.pooled(states).data]


def assert_same(ours, theirs, tolerance, what):
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape and np.abs(other).max() > 0.5
        print(f"{what}: at most {np.abs(mine - other).max():.1e} of {np.abs(other).max():.1f}")
        assert np.abs(mine - other).max() <= tolerance


THEIRS = {"gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)),
          "bert": lambda: transformers.BertModel(transformers.BertConfig(**BERT))}
OURS = {"gpt2": lambda: GPT(GPTConfig(601, 64, 12, 12, 192)),
        "bert": lambda: Bert(BertConfig(601, 64, 12, 12, 192, 500))}


@pytest.mark.parametrize("family", THEIRS)
def test_what_transformers_wrote_computes_the_same_here(family, tmp_path, backend):
    model = THEIRS[family]()
    randomised(model.parameters())
    model.save_pretrained(tmp_path, max_shard_size="2MB" if backend == "cpu" else "5GB")
    assert (tmp_path / huggingface.INDEX).exists() == (backend == "cpu")
    assert_same(computed(huggingface.load_model(tmp_path)), computed(model), 1e-4, f"{family} into minigpt, {backend}")


@pytest.mark.parametrize("family", OURS)
def test_what_is_written_here_computes_the_same_in_transformers(family, tmp_path):
    model = OURS[family]()
    model.flat.data += 0.05 * np.random.default_rng(0).standard_normal(len(model.flat), np.float32)
    huggingface.save(tmp_path / "out", model)
    theirs, problems = type(THEIRS[family]()).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(problems.values()), problems
    assert_same(computed(model), computed(theirs), 1e-4, f"{family} out of minigpt")


@pytest.mark.parametrize("family, dtype", [("gpt2", "float16"), ("gpt2", "bfloat16"), ("bert", "bfloat16")])
def test_half_the_bytes_are_read_to_the_same_numbers(family, dtype, tmp_path):
    model = THEIRS[family]()
    randomised(model.parameters())
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path)
    assert_same(computed(huggingface.load_model(tmp_path)), computed(model.float()), 1e-4, f"{family} of {dtype}")


@pytest.mark.slow
def test_the_124_million_parameters_of_gpt_2(tmp_path):
    """Random numbers in them; it takes 3 GB of memory and 0.5 GB of disk."""
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    randomised(model.parameters())
    model.save_pretrained(tmp_path)
    ids = np.random.default_rng(0).integers(50257, size=(1, 1024))
    assert_same(computed(huggingface.load_model(tmp_path), ids), computed(model, ids), 1e-4, "GPT-2 into minigpt")
