"""Checkpoints: what is saved comes back, whatever happens meanwhile. What is none: test_bad_checkpoints.py."""
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from small_checkpoint import CONFIG, TOKENIZER
from told import message

import minigpt
from minigpt import checkpoint
from minigpt.models.gpt import GPT
from minigpt.optim import AdamW
from minigpt.settings import UserError


def save_number(folder, n):
    """Save a model, an optimizer and a training state in which every number is n."""
    model = GPT(CONFIG)
    optimizer = AdamW(model.flat)
    model.flat.data[...] = optimizer.m[...] = optimizer.v[...] = optimizer.steps = n
    checkpoint.save(folder, model, TOKENIZER, {"counter": n}, optimizer)


def saved_number(folder):
    """The number that save_number saved last, if all of it is there and belongs together; 0: no checkpoint."""
    try:
        saved = checkpoint.load(folder)
    except UserError as error:
        assert "there is no folder" in str(error)
        return 0
    n = saved.training["counter"]
    optimizer = AdamW(saved.model.flat)
    checkpoint.restore(optimizer, saved.folder)
    assert all(np.all(numbers == n) for numbers in (saved.model.flat.data, optimizer.m, optimizer.v, optimizer.steps))
    return n


# ---- what is saved comes back ----

def test_everything_comes_back_bit_for_bit(tmp_path):
    model, rng = GPT(CONFIG, seed=3), np.random.default_rng(0)
    optimizer = AdamW(model.flat)
    optimizer.m[...], optimizer.v[...] = rng.normal(size=(2, optimizer.m.size))
    optimizer.m[:2], optimizer.steps = (-0.0, 1e-40), 17
    training = {"position": {"step": 3, "loss": 0.1 + 0.2, "none": None}, "text": "ü\n\"天", "list": [1, 2.5, True]}
    checkpoint.save(tmp_path / "run", model, TOKENIZER, training, optimizer)

    saved = checkpoint.load(tmp_path / "run")
    assert saved.training == training and saved.folder == tmp_path / "run"
    assert saved.model.config == CONFIG and saved.tokenizer.to_dict() == TOKENIZER.to_dict()
    assert saved.model.flat.data.dtype == np.float32
    for name, p in model.flat.parameters.items():
        assert saved.model.flat.parameters[name].data.tobytes() == p.data.tobytes(), name
    again = AdamW(saved.model.flat)
    checkpoint.restore(again, saved.folder)
    assert (again.m.tobytes(), again.v.tobytes(), again.steps) == (optimizer.m.tobytes(), optimizer.v.tobytes(), 17)


def test_parameters_that_are_views_with_gaps_come_back_too(tmp_path):
    model = GPT(CONFIG, seed=3)
    for p in model.flat.parameters.values():
        p.data = np.repeat(p.data, 2, axis=0)[::2] if p.ndim == 1 else np.ascontiguousarray(p.data.T).T
    assert not any(p.data.flags.c_contiguous for p in model.flat.parameters.values())
    checkpoint.save(tmp_path / "run", model, TOKENIZER)
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "run").model.flat.data, model.flat.data)


@pytest.mark.parametrize("name", ["data/b\udcff.txt", "\ud800\udc00"])
def test_text_that_is_not_unicode_comes_back(tmp_path, name):
    """As a file name may be, whose bytes Python keeps as halves of surrogate pairs."""
    checkpoint.save(tmp_path / "run", GPT(CONFIG), TOKENIZER, {"name": name})
    assert checkpoint.load(tmp_path / "run").training == {"name": name}


def test_of_a_run_the_best_checkpoint_is_found_first(tmp_path, monkeypatch):
    save_number(tmp_path / "run/latest", 2)
    assert saved_number(tmp_path / "run") == 2
    save_number(tmp_path / "run/best", 1)
    assert saved_number(tmp_path / "run") == 1
    assert checkpoint.load(tmp_path / "run", ["latest"]).training == {"counter": 2}
    monkeypatch.chdir(tmp_path / "run")
    assert saved_number(".") == 1


# ---- interruptions ----

SAVE_UNTIL_KILLED = """
import os, sys
from test_checkpoint import save_number
for line in sys.stdin:                      # a number: save it and those that follow, in a process of its own
    pid = os.fork()
    if pid == 0:
        for n in range(int(line), int(line) + 1000):
            save_number(sys.argv[1], n)
            os.write(1, b"%d\\n" % n)
        os._exit(0)
    os.write(1, b"process %d\\n" % pid)
    os.waitpid(pid, 0)
    os.write(1, b"killed\\n")
"""


def numbers_until(word, stream):
    """The numbers on the lines before the one that begins with a word, and this line."""
    lines = []
    for line in stream:
        if line.startswith(word):
            return [int(number) for number in lines], line
        lines.append(line)
    raise AssertionError(f"the process ended without {word!r}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Unix")
def test_kill_minus_nine_at_any_moment_leaves_the_last_checkpoint_or_the_next(tmp_path):
    folder, moment, last = tmp_path / "run", random.Random(0), 0
    places = [str(Path(minigpt.__file__).parents[1]), str(Path(__file__).parent)]
    with subprocess.Popen([sys.executable, "-P", "-c", SAVE_UNTIL_KILLED, folder], stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(places)}) as saver:
        for turn in range(40):
            saver.stdin.write(f"{last + 1}\n")
            saver.stdin.flush()
            completed, process = numbers_until("process", saver.stdout)
            if turn % 2:
                completed.append(int(saver.stdout.readline()))      # on a busy machine, too, some saves are completed
            time.sleep(moment.uniform(0, 0.03))
            os.kill(int(process.split()[1]), signal.SIGKILL)
            completed += numbers_until("killed", saver.stdout)[0]
            last = max([last, *completed])
            assert saved_number(folder) in (last, last + 1)
            last = saved_number(folder)
        saver.stdin.close()
    assert last >= 20


class Killed(BaseException):
    """Like SIGKILL, nothing handles it."""


class FileOperations:
    """While patched in, counts moments, two in each file operation (before it and halfway), and is killed at one."""

    def __init__(self, monkeypatch, moment):
        self.left = moment
        for owner, name, halfway in ((Path, "mkdir", None), (Path, "rename", None), (os, "fsync", self.cut_off),
                                     (shutil, "rmtree", self.remove_one)):
            monkeypatch.setattr(owner, name, self.killable(getattr(owner, name), halfway))

    def killable(self, function, halfway):
        def run(path, *arguments, **options):
            self.tick()
            if self.left == 0:
                (halfway or function)(path, *arguments, **options)
            self.tick()
            return function(path, *arguments, **options) if function is not os.fsync else None      # slow

        return run

    def tick(self):
        self.left -= 1
        if self.left < 0:
            raise Killed

    @staticmethod
    def cut_off(file):
        os.ftruncate(file, 10)

    @staticmethod
    def remove_one(path, ignore_errors):
        for file in sorted(path.glob("*"))[:1]:
            file.unlink()


def save_killed(folder, n, moment):
    """Whether save_number(folder, n) was killed before it had ended."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        FileOperations(monkeypatch, moment)
        try:
            save_number(folder, n)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("before", [0, 1])
def test_a_kill_in_each_file_operation_and_in_each_of_the_next_save(tmp_path, before):
    start, first, second = (tmp_path / name for name in ("start", "first", "second"))
    start.mkdir()
    if before:
        save_number(start / "run", before)
    for moment in count():
        shutil.copytree(start, first)
        if not save_killed(first / "run", 2, moment):
            break
        kept = saved_number(first / "run")
        assert kept in (before, 2)
        for next_moment in count():
            shutil.copytree(first, second)
            killed = save_killed(second / "run", 3, next_moment)
            assert saved_number(second / "run") in ((kept, 3) if killed else (3,))
            if not killed:
                assert [path.name for path in second.iterdir()] == ["run"]
                break
            shutil.rmtree(second)
        assert next_moment > 10
        shutil.rmtree(second)
        shutil.rmtree(first)
    assert moment > 10


# ---- a full disk ----

@pytest.mark.parametrize("limit", [0, 1000, 14_000])       # in bytes of a file
def test_a_full_disk_is_one_sentence_and_the_old_checkpoint_stays(tmp_path, limit):
    resource, folder = pytest.importorskip("resource"), tmp_path / "run"
    save_number(folder, 1)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert 1000 < sizes["model.safetensors"] < 14_000 < sizes["optimizer.safetensors"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        text = message(save_number, folder, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "can't be saved in" in text and "free some space" in text and "File too large" in text
    assert saved_number(folder) == 1
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_is_one_sentence_and_the_old_checkpoint_stays(tmp_path, monkeypatch, failing):
    folder, rename, calls = tmp_path / "run", Path.rename, count(1)
    save_number(folder, 1)

    def fails_once(path, target):
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    assert "No space left on device" in message(save_number, folder, 2)
    assert saved_number(folder) == 1
    assert not (tmp_path / "run.writing").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    assert "can't be saved" in message(save_number, tmp_path / "file/run", 1)
