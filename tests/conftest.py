"""What all tests share: one repeatable profile of hypothesis, and fixtures that run a test on every backend or device."""
import sys

import pytest
from cuda_emu import emulator, stand_in
from hypothesis import HealthCheck, settings

from minigpt import kernels, use

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
