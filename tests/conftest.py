"""What all tests share: one repeatable profile of hypothesis, and fixtures that run a test on every backend or device."""
import shutil
import sys
from pathlib import Path

import pytest
from cuda_emu import emulator, stand_in
from hypothesis import HealthCheck, settings
from programs import FLAGS, SMALL, TEXT, program, succeeds

from minigpt import checkpoint, kernels, use
from minigpt.tokenizers import CharTokenizer

settings.register_profile(
    "repeatable", deadline=None, derandomize=True, max_examples=25, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture])        # `backend` is the same for all examples
settings.load_profile("repeatable")


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    """Runs the test once within use("reference") and once within use("cpu"), if kernels were compiled."""
    if request.param == "cpu" and not kernels.cpu.available():
        pytest.skip(f"no compiled kernels: {kernels.cpu.why_not()}")
    with use(request.param):
        yield request.param


@pytest.fixture
def no_cupy_yet(monkeypatch):
    """Puts another module in CuPy's place: no_cupy_yet(module). All that was asked of the last one is forgotten.

    If CuPy was imported by another test, all of its modules are hidden: those that load others later would find ours.
    """
    def put(module):
        for name in [name for name in sys.modules if name.split(".")[0] in ("cupy", "cupyx", "cupy_backends")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "cupy", module)
        forget()

    def forget():
        for cached in kernels.cuda.why_not, kernels.cuda.launch.compiled, kernels.cuda.launch.module:
            cached.cache_clear()

    yield put
    monkeypatch.undo()
    forget()


@pytest.fixture
def emulated(no_cupy_yet):
    """The stand-in for CuPy, whose kernels the emulator runs."""
    if emulator.why_not():
        pytest.skip(f"no emulator of CUDA: {emulator.why_not()}")
    no_cupy_yet(stand_in)
    return stand_in


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request):
    """Runs the test once on the stand-in for CuPy, and once on CuPy itself if there is a GPU."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated")
    if kernels.cuda.why_not():
        pytest.skip(f"no GPU: {kernels.cuda.why_not()}")
    import cupy
    return cupy


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with texts, good and bad, and a small run in `run`, whose output is in run.out."""
    place = tmp_path_factory.mktemp("place")
    texts = {"text.txt": TEXT, "other.txt": TEXT[::-1], "short.txt": "too short", "empty.txt": "",
             "latin.txt": b"caf\xe9", "unknown.toml": "stepps = 3\n", "small.toml": "\n".join(f"{name} = {SMALL[name]}" for name in SMALL)}
    for name, text in texts.items():
        (place / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    output = succeeds(program("train_shakespeare", "--data", "text.txt", "--out", "run", *FLAGS, cwd=place))
    (place / "run.out").write_text(output, encoding="utf-8")
    (place / "nothing").mkdir()
    saved = checkpoint.load(place / "run")
    letters = "".join(chr(ord("a") + i) for i in range(saved.tokenizer.vocabulary_size))
    checkpoint.save(place / "letters", saved.model, CharTokenizer(letters))
    for name, file in ("cut", "model.safetensors"), ("strange", "config.json"):
        shutil.copytree(place / "run/best", place / name)
        (place / name / file).write_bytes((place / name / file).read_bytes()[:-10])
    return place


@pytest.fixture
def folders(tmp_path):
    """Copies of the folders that transformers wrote, to be changed: {"gpt2": ..., "bert": ...}."""
    golden = Path(__file__).parent / "golden"
    return {family: Path(shutil.copytree(golden / family, tmp_path / family)) for family in ("gpt2", "bert")}
