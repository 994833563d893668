"""Checkpoints: what is saved comes back, whatever happens meanwhile; and what is no checkpoint is told in one line."""
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import minigpt
from minigpt import checkpoint
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.optim import AdamW
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer

CONFIG = GPTConfig(vocabulary_size=9, context=6, layers=2, heads=2, width=8, dropout=0.1)
TOKENIZER = CharTokenizer("abcdefg\né")


def message(function, *arguments):
    """What the user is told: one line."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


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


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of small random numbers, with its optimizer's state."""
    model = GPT(CONFIG, seed=3)
    checkpoint.save(tmp_path / "run", model, TOKENIZER, {"note": "ü"}, AdamW(model.flat))
    return tmp_path / "run"


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


# ---- bad checkpoints ----

def change_config(folder, change):
    """Replace config.json by change(its content)."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(content)), encoding="utf-8")


def change_arrays(folder, change, file="model.safetensors"):
    """Replace the arrays of a safetensors file by change(them)."""
    save_file(change(load_file(folder / file)), folder / file)


def in_config(**changes):
    return lambda folder: change_config(folder, lambda c: c | {"config": c["config"] | changes})


def in_arrays(**changes):
    """{name: function of the array in place}; dots in names are written as __."""
    changes = {name.replace("__", "."): change for name, change in changes.items()}
    return lambda folder: change_arrays(
        folder, lambda arrays: arrays | {name: change(arrays[name]) for name, change in changes.items()})


def claim_shape(folder, shape):
    """model.safetensors whose header promises far more than is there."""
    header = json.dumps({"tokens.w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape))]}})
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"1234")


def spoil(a, value):
    a[0, 0] = value
    return a


BAD = {
    "no folder": (shutil.rmtree, "there is no folder"),
    "an empty folder": (lambda f: [path.unlink() for path in f.iterdir()], "holds no checkpoint"),
    "a file": (lambda f: (shutil.rmtree(f), f.write_text("")), "holds no checkpoint"),
    "empty config": (lambda f: (f / "config.json").write_text(""), "not a whole JSON file"),
    "config of text": (lambda f: (f / "config.json").write_text("hello"), "not a whole JSON file"),
    "config of bytes": (lambda f: (f / "config.json").write_bytes(b'{"\xff'), "not a whole JSON file"),
    "config nested deeply": (lambda f: (f / "config.json").write_text("[" * 100_000), "not a whole JSON file"),
    "config of a list": (lambda f: change_config(f, lambda c: [c]), "not of this program"),
    "another format": (lambda f: change_config(f, lambda c: c | {"format": "minigpt-0"}), "'minigpt-1'"),
    "unknown model": (lambda f: change_config(f, lambda c: c | {"model": "gtp"}), "names the model 'gtp'"),
    "model that is no network": (lambda f: change_config(f, lambda c: c | {"model": "ngram"}), "names the model 'ngram'"),
    "unknown key": (in_config(witdh=4), "did you mean width?"),
    "word as width": (in_config(width="4"), "'width'"),
    "odd width": (in_config(width=7), "can't be divided among 2 heads"),
    "no layers": (in_config(layers=0), "layers is 0"),
    "negative width": (in_config(width=-4), "width is -4"),
    "another context": (in_config(context=7), "do not belong together"),
    "another vocabulary": (in_config(vocabulary_size=8), "the tokenizer in"),
    "unknown tokenizer": (lambda f: change_config(f, lambda c: c | {"tokenizer": {"type": "word"}}), "'word'"),
    "empty tokenizer": (lambda f: change_config(f, lambda c: c | {"tokenizer": {"type": "char"}}), "'characters'"),
    "other tokenizer": (lambda f: change_config(f, lambda c: c | {"tokenizer": CharTokenizer("ab").to_dict()}),
                        "has 2 tokens, and its model 9"),
    "no arrays": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is not a whole"),
    "folder of arrays": (lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()), "a whole"),
    "empty arrays": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors is not a whole"),
    "random arrays": (lambda f: (f / "model.safetensors").write_bytes(random.Random(0).randbytes(5000)), "not a whole"),
    "long header": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 7 + b"\0{}"), "not a whole"),
    "large claim": (lambda f: claim_shape(f, [10**6, 10**6]), "not a whole"),
    "immense claim": (lambda f: claim_shape(f, [2**40, 2**40]), "not a whole"),
    "arrays of an optimizer": (lambda f: shutil.copy(f / "optimizer.safetensors", f / "model.safetensors"),
                               "do not belong together"),
    "array left out": (lambda f: change_arrays(f, lambda a: {k: a[k] for k in a if k != "norm.w"}),
                       "do not belong together"),
    "array too many": (lambda f: change_arrays(f, lambda a: a | {"more": np.zeros(3, np.float32)}),
                       "do not belong together"),
    "empty array too many": (lambda f: change_arrays(f, lambda a: a | {"more": np.float32([])}), "unknown more"),
    "foreign name": (lambda f: change_arrays(f, lambda a: {f"gpt.{k}": a[k] for k in a}), "it lacks"),
    "another shape": (in_arrays(tokens__w=lambda a: a.reshape(8, 9)), "tokens.w should be of shape (9, 8)"),
    "integers": (in_arrays(tokens__w=lambda a: a.astype(np.int32)), "holds numbers of F32, I32"),
    "nan": (in_arrays(tokens__w=lambda a: spoil(a, np.nan)), "not finite"),
    "inf": (in_arrays(tokens__w=lambda a: spoil(a, np.inf)), "not finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_is_one_sentence(folder, case):
    change, part = BAD[case]
    change(folder)
    assert part in message(checkpoint.load, folder)


@pytest.mark.parametrize("key", ["format", "model", "config", "tokenizer", "training", "optimizer"])
@pytest.mark.parametrize("value", [None, 3, "x", [], "left out"])
def test_a_part_of_the_config_that_is_wrong_or_missing_is_named(folder, key, value):
    change_config(folder, lambda c: {k: c[k] for k in c if k != key} | ({} if value == "left out" else {key: value}))
    assert "config.json" in message(checkpoint.load, folder)


@pytest.mark.parametrize("key", ["vocabulary_size", "context", "layers", "heads", "width"])
def test_a_size_that_is_missing_is_named(folder, key):
    change_config(folder, lambda c: c | {"config": {k: c["config"][k] for k in c["config"] if k != key}})
    assert f"lacks {key!r}" in message(checkpoint.load, folder)


def test_a_config_that_was_cut_off_anywhere(folder):
    content = (folder / "config.json").read_bytes()
    for length in range(0, len(content), 3):
        (folder / "config.json").write_bytes(content[:length])
        assert "not a whole JSON file" in message(checkpoint.load, folder)


@pytest.mark.parametrize("file, load", [
    ("model.safetensors", checkpoint.load),
    ("optimizer.safetensors", lambda folder: checkpoint.restore(AdamW(GPT(CONFIG).flat), folder)),
])
def test_arrays_that_were_cut_off_anywhere(folder, file, load):
    content = (folder / file).read_bytes()
    for length in [*range(20), *range(20, len(content), 61), len(content) - 1]:
        (folder / file).write_bytes(content[:length])
        assert f"{file} is not a whole safetensors file" in message(load, folder)


@pytest.mark.parametrize("dtype, size", [("BOOL", 1), ("U8", 1), ("I8", 1), ("F8_E4M3", 1), ("I16", 2), ("U32", 4),
                                         ("I64", 8), ("C64", 8)])
def test_arrays_of_another_kind_of_number(folder, dtype, size):
    header, end = {}, 0
    for name, p in GPT(CONFIG).flat.parameters.items():
        header[name] = {"dtype": dtype, "shape": p.shape, "data_offsets": [end, end := end + p.size * size]}
    header = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(end))
    assert f"holds numbers of {dtype}, where F32 was expected" in message(checkpoint.load, folder)


@pytest.mark.parametrize("sizes", [{"width": 10**9}, {"layers": 10**9}, {"context": 10**12}, {"width": 2 * 10**2000}])
def test_a_model_too_large_to_be_true_is_refused_before_memory_is_taken(folder, sizes):
    in_config(**sizes)(folder)
    tracemalloc.start()
    try:
        message(checkpoint.load, folder)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def mutated(content, chance):
    """Bytes with a few of them changed, taken out, doubled or put in."""
    for _ in range(chance.choice([1, 1, 3])):
        i = chance.randrange(len(content))
        piece = content[i:i + chance.randint(1, 8)]
        new = chance.choice([bytes([piece[0] ^ 1 << chance.randrange(8)]) + piece[1:], b"", piece * 2,
                             chance.randbytes(len(piece)), b"9" + piece, b"-" + piece])
        content = content[:i] + new + content[i + len(piece):]
    return content


def load_and_restore(folder):
    saved = checkpoint.load(folder)
    checkpoint.restore(AdamW(saved.model.flat), saved.folder)


def outcome(folder):
    """True: loaded; False: refused in one sentence. Anything else is raised."""
    try:
        load_and_restore(folder)
        return True
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return False


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "optimizer.safetensors"])
def test_a_damaged_file_loads_or_is_one_sentence(folder, file):
    content, chance = (folder / file).read_bytes(), random.Random(file)
    seen = set()
    for _ in range(200):
        (folder / file).write_bytes(mutated(content, chance))
        seen.add(outcome(folder))
    assert seen == {True, False}                            # neither all harmless nor all fatal


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=5), value, max_size=3))


@settings(max_examples=200)
@given(place=st.sampled_from([("model",), ("config",), ("tokenizer",), ("training",), ("optimizer",),
                              *(("config", key) for key in vars(CONFIG)), ("config", "more"), ("tokenizer", "type"),
                              ("tokenizer", "characters"), ("optimizer", "steps")]), value=JSON)
def test_any_value_anywhere_in_the_config_loads_or_is_one_sentence(folder, place, value):
    original = (folder / "config.json").read_bytes()

    def change(content):
        part = content
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value
        return content

    change_config(folder, change)
    outcome(folder)
    (folder / "config.json").write_bytes(original)


# ---- going on with training ----

def change_moments(change):
    return lambda folder: change_arrays(folder, change, "optimizer.safetensors")


def optimizer_steps(value):
    return lambda folder: change_config(folder, lambda c: c | {"optimizer": {"steps": value}})


BAD_OPTIMIZERS = {
    "missing": (lambda f: (f / "optimizer.safetensors").unlink(), "was not saved for going on with training"),
    "of another size": (change_moments(lambda a: {"m": a["m"][1:], "v": a["v"]}), "do not belong together"),
    "of shorter numbers": (change_moments(lambda a: {"m": a["m"].astype(np.float16), "v": a["v"]}), "does not belong"),
    "of other names": (change_moments(lambda a: {"m": a["m"], "w": a["v"]}), "does not belong to this model"),
    "of other parts": (change_moments(lambda a: {"m": a["m"][1:], "v": np.append(a["v"], 0)}), "does not belong"),
    "of integers": (change_moments(lambda a: {"m": a["m"].astype(np.int32), "v": a["v"]}), "F32, I32"),
    "without steps": (lambda f: change_config(f, lambda c: c | {"optimizer": {}}), "how many steps"),
    "of half a step": (optimizer_steps(0.5), "how many steps"),
    "of negative steps": (optimizer_steps(-1), "how many steps"),
}


@pytest.mark.parametrize("case", BAD_OPTIMIZERS)
def test_a_bad_optimizer_is_one_sentence(folder, case):
    change, part = BAD_OPTIMIZERS[case]
    change(folder)
    assert part in message(load_and_restore, folder)
