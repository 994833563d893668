"""examples/overoptimise.py as a user runs it, on a model that knows nothing."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_world import small_template

import minigpt
from minigpt import checkpoint
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig

pytest.importorskip("babel", reason="the facts of the world need Babel: pip install '.[chat]'")
PROGRAM = Path(__file__).parents[1] / "examples" / "overoptimise.py"


def overoptimise(*flags, cwd):
    environment = os.environ | {"PYTHONPATH": str(Path(minigpt.__file__).parents[1])}
    return subprocess.run([sys.executable, PROGRAM, *flags], cwd=cwd, capture_output=True, encoding="utf-8", timeout=120,
                          env=environment)


def test_both_runs_are_told_and_left_behind(tmp_path):
    template = small_template()
    model = GPTModern(GPTModernConfig(template.tokenizer.vocabulary_size, 256, 1, 1, 8), seed=0)
    checkpoint.save(tmp_path / "run/sft", model, template.tokenizer)
    result = overoptimise("--run", "run", "--preset", "quick", "--out", "out", "--countries", "12", "--workers", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "reward model of" in result.stdout and result.stdout.count("true score") == 2
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert {"accuracy", "ceiling", "beta_0_last_kl", "beta_0_best_true_score", "beta_adapts_last_reward"} <= set(results)
    for folder in "reward", "beta-0", "beta-adapts":
        assert (tmp_path / "out" / folder / "metrics.jsonl").exists()
    picture = tmp_path / "out/overoptimisation.png"
    assert picture.exists() or ".png: pip install matplotlib" in result.stdout


@pytest.mark.parametrize("flags, said", [(("--run", "nothing"), "there is no folder nothing"),
                                         (("--questions", "3"), "questions is 3, but a reward model needs at least 20")])
def test_a_mistake_is_one_line(tmp_path, flags, said):
    result = overoptimise(*flags, cwd=tmp_path)
    assert result.returncode == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1
