"""Ranks as processes: a program started alone, wrongly, or through mpiexec; the ranks end together and speak with one voice."""
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_mpi import TEXT, losses

import minigpt
from minigpt import checkpoint
from minigpt import ranks as ranks_module
from minigpt.ranks import ALONE, world

# ---- started alone, or wrongly ----

EXAMPLE = Path(__file__).parents[1] / "examples/train_shakespeare.py"
SMALL = ["--layers", "1", "--heads", "2", "--width", "8", "--context", "8", "--sample-length", "20", "--log-every", "1"]
ALONE_HERE = {name: value for name, value in os.environ.items() if name not in sum(ranks_module.SIZE_AND_RANK, ())}
ENVIRONMENT = ALONE_HERE | {"PYTHONPATH": str(Path(minigpt.__file__).parents[1]), "MINIGPT_OFFLINE": "1"}
BEFORE = """
import os, runpy, sys
{}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def python(*arguments, **environment):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, encoding="utf-8", timeout=60,
                          env=ENVIRONMENT | environment)


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


def test_alone_nothing_of_mpi_is_imported(text, tmp_path):
    assert world() is ALONE
    forbidden = BEFORE.format("sys.modules['mpi4py'] = None")
    flags = ["--data", text, "--out", tmp_path / "run", "--steps", "2", *SMALL]
    result = python("-c", forbidden, EXAMPLE, *flags, PMI_SIZE="1", PMI_RANK="0")   # as in a shell that srun has started
    assert (result.returncode, result.stderr.count("error")) == (0, 0), result.stderr


@pytest.mark.parametrize("names", ranks_module.SIZE_AND_RANK, ids=lambda names: names[0])
def test_started_by_mpiexec_without_mpi4py_one_rank_says_what_to_install(names):
    for rank in "0", "1":
        result = python("-c", BEFORE.format("sys.modules['mpi4py'] = None"), EXAMPLE, **dict(zip(names, ("2", rank))))
        assert (result.returncode, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1 - int(rank)
        assert rank == "1" or "mpiexec started 2 processes" in result.stderr and "pip install mpi4py mpich" in result.stderr


# ---- the real thing ----

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def mpich():
    """Whether the mpiexec that is found is MPICH's, Hydra: what others say, and do at Ctrl-C, is not the same."""
    return MPIEXEC and "HYDRA" in subprocess.run([MPIEXEC, "--version"], capture_output=True, encoding="utf-8").stdout


needs_mpi = pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None or not mpich(),
                               reason="no mpi4py, or no mpiexec of MPICH: pip install mpi4py mpich")


class Launch:
    """mpiexec -n `size` python ..., ended for sure when the block ends."""

    def __init__(self, size, *arguments, cwd=None):
        self.process = subprocess.Popen([MPIEXEC, "-n", str(size), sys.executable, *map(str, arguments)], cwd=cwd,
                                        env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.terminate()                        # mpiexec ends its ranks, too
            try:
                self.process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def ends(self, seconds=30):
        """(exit code, stdout, stderr)."""
        output, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, output, errors

    def waits_for(self, path, seconds=30):
        """Until the file at `path` has something in it."""
        end = time.monotonic() + seconds
        while not (path.exists() and path.stat().st_size):
            assert self.process.poll() is None and time.monotonic() < end, self.process.stderr.read()
            time.sleep(0.02)


def launch(size, *arguments, **options):
    with Launch(size, *arguments, **options) as running:
        return running.ends()


PRIMITIVES = """
import json, sys
import numpy as np
from minigpt.ranks import world

with world() as ranks:
    arrays = [np.random.default_rng(r).standard_normal(100_003).astype(np.float32) for r in range(ranks.size)]
    total, mine = arrays[ranks.rank].copy(), arrays[ranks.rank].copy()
    ranks.sum(total)
    assert all((other == total).all() for other in ranks.every(total)), "not the same bits on all ranks"
    again = arrays[ranks.rank].copy()
    ranks.sum(again)
    assert (again == total).all(), "not the same bits again"
    assert np.allclose(total, np.sum(arrays, axis=0, dtype=np.float64), rtol=0, atol=1e-5)
    ranks.copy(mine)
    assert (mine == arrays[0]).all()
    assert ranks.every(ranks.rank * 2) == list(range(0, 2 * ranks.size, 2))
    assert ranks.first(lambda: ranks.rank) == 0
    print("size", ranks.size)
"""


@needs_mpi
@pytest.mark.parametrize("size", [2, 3])
def test_sum_copy_every_and_first(size):
    assert launch(size, "-c", PRIMITIVES) == (0, f"size {size}\n", "")      # one of them prints


@needs_mpi
def test_through_mpiexec_a_run_is_the_run_of_one_process_and_goes_on_with_any_number(text, tmp_path):
    flags = ["--data", text, *SMALL, "--batch-size", "5", "--dropout", "0.1", "--eval-every", "10", "--workers", "1"]
    alone = python(EXAMPLE, *flags, "--steps", "20", "--out", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    code, output, errors = launch(2, EXAMPLE, *flags, "--steps", "20", "--out", tmp_path / "two", "--stop-after", "13")
    assert (code, output.count("2 ranks of 1 worker"), output.count("stopped at step 13")) == (0, 1, 1), errors
    code, output, errors = launch(3, EXAMPLE, "--resume", tmp_path / "two")
    assert (code, output.count("3 ranks of 1 worker"), errors.count("step 20/20")) == (0, 1, 1), errors
    np.testing.assert_allclose(losses(tmp_path / "two")[:20], losses(tmp_path / "one")[:20], rtol=1e-5)
    one, two = (checkpoint.load(tmp_path / name / "latest") for name in ("one", "two"))
    np.testing.assert_allclose(two.model.flat.data, one.model.flat.data, rtol=0, atol=1e-4)
    assert two.training["position"]["val_loss"] == pytest.approx(one.training["position"]["val_loss"], rel=1e-5)


@needs_mpi
@pytest.mark.parametrize("flags, part", [
    (["--widht", "8"], "unknown argument --widht: did you mean --width?"),
    (["--data", "none.txt"], "there is no file none.txt"),
    (["--data", "text.txt", "--resume", "missing"], "there is no folder missing"),
    (["--data", "text.txt", "--learning-rate", "1e38", "--clip", "1e38"], "training stopped"),
], ids=["flag", "text", "run", "nan"])
def test_a_mistake_is_told_once(text, flags, part):
    code, _, errors = launch(2, EXAMPLE, "--out", "run", *SMALL, *flags, cwd=text.parent)
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert errors.startswith("error: ") and part in errors


TROUBLE = """
from minigpt import settings, train
usual = train.training_step
def trouble(*arguments):
    if arguments[5] == 4 and os.environ["PMI_RANK"] in {rank!r}:
        raise {error}
    return usual(*arguments)
train.training_step = trouble
"""


@needs_mpi
@pytest.mark.parametrize("rank, error, code, line", [
    ("1", "ZeroDivisionError('in here')", 1, "ZeroDivisionError: in here"),
    ("01", "ZeroDivisionError('in here')", 1, "ZeroDivisionError: in here"),
    ("1", "settings.UserError('no file here')", 2, "error: no file here"),
    ("0", "settings.UserError('no disk here')", 2, "error: no disk here"),
], ids=["bug", "bug of all", "mistake", "mistake of the first"])
def test_what_ends_a_rank_is_told_once_and_ends_the_others(text, tmp_path, rank, error, code, line):
    before = BEFORE.format(TROUBLE.format(rank=rank, error=error))
    flags = ["--data", text, "--out", tmp_path / "run", "--steps", "9", *SMALL]
    found, _, errors = launch(2, "-c", before, EXAMPLE, *flags)
    assert (found, errors.splitlines().count(line), "step 9/9" in errors) == (code, 1, False), errors
    assert errors.count("Traceback") == (code == 1)


@needs_mpi
def test_when_a_rank_is_killed_the_others_end_and_the_last_checkpoint_is_whole(text, tmp_path):
    before = BEFORE.format(f"open({str(tmp_path)!r} + '/pid' + os.environ['PMI_RANK'], 'w').write(str(os.getpid()))")
    out = tmp_path / "run"
    with Launch(2, "-c", before, EXAMPLE, "--data", text, "--out", out, "--steps", "1000000", "--eval-every", "20",
                *SMALL) as running:
        running.waits_for(out / "latest/config.json")
        os.kill(int((tmp_path / "pid1").read_text()), signal.SIGKILL)
        code, output, errors = running.ends(10)
    assert code != 0 and "Killed" in output + errors        # in mpiexec's words; MPICH's prints them to stdout
    other = int((tmp_path / "pid0").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)
    step = checkpoint.load(out / "latest").training["position"]["step"]
    assert step > 0 and step % 20 == 0
    code, _, errors = launch(2, EXAMPLE, "--resume", out, "--steps", step + 3)
    assert (code, f"step {step + 3}/{step + 3}" in errors) == (0, True), errors


@needs_mpi
def test_ctrl_c_stops_all_ranks_after_the_same_step_saves_and_speaks(text, tmp_path):
    out = tmp_path / "run"
    with Launch(2, EXAMPLE, "--data", text, "--out", out, "--steps", "1000000", *SMALL) as running:
        running.waits_for(out / "metrics.jsonl")
        running.process.send_signal(signal.SIGINT)          # as the terminal does; mpiexec hands it on
        code, output, errors = running.ends()
    assert (code, "Traceback" in errors) == (0, False), errors
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert output.count(f"stopped at step {results['steps']};") == 1
    assert checkpoint.load(out / "latest").training["position"]["step"] == results["steps"]
