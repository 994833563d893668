"""The launch code: what it refuses, what the stand-in for CuPy would notice if it did not, and what a user is told.

The stand-in is stricter than CuPy on purpose: CuPy passes on what it is given, and the GPU computes with it.
"""
import importlib
import inspect
import types
from pathlib import Path

import numpy as np
import pytest
from cuda_emu import emulator, stand_in
from cuda_emu.cases import constants_of
from cuda_emu.emulator import EmulatorError

from minigpt import kernels, op, use
from minigpt.kernels.cuda import launch

CHAPTERS = kernels.cuda.names()
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS)


# Each text has its launch code, and that is used

@each_chapter
def test_a_chapter_and_its_text_have_one_name(chapter):
    importlib.import_module(f"minigpt.ops.{chapter}")
    importlib.import_module(f"minigpt.kernels.cuda.{chapter}")


def test_every_launch_code_has_a_text():
    """But for that of self_attention, which launches attention's."""
    files = {path.stem for path in Path(kernels.cuda.__file__).parent.glob("*.py")} - {"__init__", "launch"}
    assert files == {*CHAPTERS, "self_attention"}


def test_there_are_cuda_kernels_unless_they_are_switched_off():
    assert any("cuda" in run.pairs for run in op.ALL.values()) != kernels.cuda.switched_off()


@pytest.mark.skipif(kernels.cuda.switched_off(), reason="MINIGPT_KERNELS=none")
@each_chapter
def test_every_function_of_a_launch_code_that_is_named_like_the_chapters_is_used(chapter):
    module, reference = (importlib.import_module(f"minigpt.{place}.{chapter}") for place in ("kernels.cuda", "ops"))
    used = 0
    for name, function in inspect.getmembers(module, inspect.isfunction):
        operation, _, which = name.rpartition("_")
        if which in ("forward", "backward"):
            assert op.ALL[operation].pairs["cuda"][which == "backward"] is function
            used += 1
        elif hasattr(getattr(reference, name, None), "versions"):
            assert getattr(reference, name).versions["cuda"] is function
            used += 1
    assert used


@pytest.mark.skipif(kernels.cuda.switched_off(), reason="MINIGPT_KERNELS=none")
@pytest.mark.parametrize("name", [name for name in op.ALL if "cuda" in op.ALL[name].pairs])
def test_a_kernel_takes_the_arguments_of_the_reference_with_the_same_defaults(name):
    for reference, fast in zip(op.ALL[name].pairs["reference"], op.ALL[name].pairs["cuda"], strict=True):
        assert str(inspect.signature(fast)) == str(inspect.signature(reference))


@pytest.mark.parametrize("real", ["float", "double"])
@each_chapter
def test_the_emulator_sees_the_parameters_that_the_launcher_believes_in(emulated, chapter, real):
    module = emulator.Module(chapter, launch.source(chapter, real, constants_of(chapter, real)[0]))
    assert module.types == {
        kernel: [("c" if p.const else "*" if p.pointer else " ", p.dtype(real)) for p in parameters]
        for kernel, parameters in launch.declarations(chapter).items()}


@each_chapter
def test_every_kernel_of_a_text_is_launched_by_its_launch_code(chapter):
    text = inspect.getsource(importlib.import_module(f"minigpt.kernels.cuda.{chapter}"))
    assert [kernel for kernel in launch.declarations(chapter) if f'"{kernel}"' not in text] == []


# What launch() refuses

def forward_arguments(cupy, N=4, C=8):
    """What layer_norm_forward takes, right in every way."""
    x, w = cupy.asarray(np.ones((N, C), np.float32)), cupy.asarray(np.ones(C, np.float32))
    mean, r = cupy.asarray(np.empty(N, np.float32)), cupy.asarray(np.empty(N, np.float32))
    return dict(x=x, w=w, b=w, eps=1e-5, y=cupy.asarray(np.empty_like(x.get())), mean=mean, r=r, C=C)


def launch_forward(arguments, grid=4, threads=32, **options):
    launch.launch("layer_norm", "layer_norm_forward", grid, threads, *arguments.values(), **options)


def test_what_fits_runs(cupy):
    arguments = forward_arguments(cupy)
    launch_forward(arguments)
    np.testing.assert_allclose(arguments["y"].get(), 1)
    np.testing.assert_allclose(arguments["mean"].get(), 1)


def host(x):
    return x.get()


@pytest.mark.parametrize("name, change, error, said", [
    ("x", host, TypeError, "x is an array of CuPy's, not numpy.ndarray"),
    ("x", lambda x: 1.0, TypeError, "x is an array of CuPy's, not builtins.float"),
    ("x", lambda x: x.astype(np.float64), TypeError, "float32 or of float64, not of float32, float64"),
    ("x", lambda x: x.astype(np.int32), TypeError, "float32 or of float64, not of float32, int32"),
    ("y", lambda y: y.T, ValueError, "y is written to, so it has to be contiguous"),
    ("eps", lambda eps: "small", TypeError, "eps is a number, not builtins.str"),
    ("eps", lambda eps: np.ones(1), TypeError, "eps is a number, not numpy.ndarray"),
    ("C", lambda C: 7.5, TypeError, "float"),
    ("C", lambda C: 2 ** 31, OverflowError, "2147483648"),
    ("C", lambda C: None, TypeError, "C is a number, not builtins.NoneType"),
])
def test_an_argument_that_does_not_fit_is_an_error(emulated, name, change, error, said):
    arguments = forward_arguments(emulated)
    arguments[name] = change(arguments[name])
    with pytest.raises(error, match=said):
        launch_forward(arguments)


def test_a_wrong_number_of_arguments_is_an_error(emulated):
    arguments = forward_arguments(emulated)
    del arguments["C"]
    with pytest.raises(TypeError, match="layer_norm_forward takes 8 arguments, not 7"):
        launch_forward(arguments)


def test_an_input_that_is_not_contiguous_is_copied(cupy):
    arguments = forward_arguments(cupy)
    numbers = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    arguments["x"] = cupy.asarray(numbers).T
    launch_forward(arguments)
    np.testing.assert_allclose(arguments["mean"].get(), numbers.mean(0), atol=1e-6)


def test_an_empty_grid_launches_nothing(emulated, monkeypatch):
    monkeypatch.setattr(stand_in, "LAUNCHES", [])
    launch_forward(forward_arguments(emulated, N=0), grid=0)
    assert stand_in.LAUNCHES == []


@pytest.mark.parametrize("text", ["short *x", "const half *x", "real **x", "long n"])
def test_a_parameter_of_another_type_is_an_error(text):
    with pytest.raises((TypeError, AttributeError)):
        launch.declared(text)


def test_a_text_is_compiled_once_for_each_type_of_floats(emulated, monkeypatch):
    compiled = []
    monkeypatch.setattr(stand_in.RawModule, "__init__", lambda self, **text: compiled.append(text["code"]))
    monkeypatch.setattr(stand_in.RawModule, "get_function", lambda self, name: lambda *args, **options: None)
    for real in "float", "float", "double", "float":
        arguments = forward_arguments(emulated)
        dtype = launch.DTYPES[real]
        launch_forward({name: x if name in ("eps", "C") else x.astype(dtype) for name, x in arguments.items()})
    assert [text.split("\n")[0] for text in compiled] == ["typedef float real;", "typedef double real;"]


# What the stand-in would notice

@pytest.mark.parametrize("i, change, error, said", [
    (3, float, TypeError, "argument 3 .* float32 is expected, but CuPy would pass one of float64"),
    (7, int, TypeError, "argument 7 .* int32 is expected, but CuPy would pass one of int64"),
    (7, lambda C: None, TypeError, "argument 7 .* a number of int32 is expected"),
    (0, host, TypeError, "argument 0 .* an array on the device is expected, not ndarray"),
    (1, lambda w: w.astype(np.float64), TypeError, "argument 1 .* array of float32 is expected, not one of float64"),
    (4, lambda y: y.T, TypeError, "argument 4 .* contiguous array"),
    (0, lambda x: x[0], EmulatorError, "layer_norm_forward, block .*, thread .*: reads out of bounds: 4 bytes at byte .* "
                                       "of argument 0, .*layer_norm.cu:"),
])
def test_the_stand_in_refuses_what_a_gpu_would_take(emulated, i, change, error, said):
    arguments = list(forward_arguments(emulated).values())
    arguments[3], arguments[7] = np.float32(arguments[3]), np.int32(arguments[7])
    arguments[i] = change(arguments[i])
    kernel = stand_in.RawModule(code=launch.source("layer_norm", "float"), options=launch.OPTIONS)
    with pytest.raises(error, match=said):
        kernel.get_function("layer_norm_forward")((4,), (32,), tuple(arguments))


@pytest.mark.parametrize("grid, block, shared", [
    ((0,), (32,), 0), ((1,), (0,), 0), ((1,), (1056,), 0), ((1,), (33,), 0), ((1, 65536), (32,), 0),
    ((1,), (32,), 49 * 1024), ((2 ** 31,), (32,), 0)])
def test_the_stand_in_refuses_a_launch_that_no_gpu_takes(emulated, grid, block, shared):
    kernel = stand_in.RawModule(code=launch.source("adamw", "float"), options=launch.OPTIONS).get_function("adamw_step")
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        kernel(grid, block, (), shared_mem=shared)


def test_shared_memory_beyond_48_kb_is_asked_for(emulated, monkeypatch, tmp_path):
    text = """extern "C" __global__ void fill(real *x, int n)
    {
        extern __shared__ real rows[];
        for (int i = threadIdx.x; i < n; i += blockDim.x) rows[i] = i;
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = rows[n - 1 - i];
    }
    """
    (tmp_path / "shared_memory.cu").write_text(text, encoding="utf-8")
    monkeypatch.setattr(launch, "SOURCES", tmp_path)
    x = emulated.asarray(np.zeros(15_000, np.float32))
    launch.launch("shared_memory", "fill", 1, 64, x, 15_000, shared=4 * 15_000)
    assert x.get().tolist() == list(range(15_000))[::-1]
    with pytest.raises(EmulatorError, match="writes out of bounds: .* of dynamic shared memory, .*shared_memory.cu:4"):
        launch.launch("shared_memory", "fill", 1, 64, x, 15_000, shared=4 * 14_999)
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        launch.launch("shared_memory", "fill", 1, 64, x, 15_000, shared=100 * 1024)


def test_the_stand_in_has_no_name_that_cupy_lacks():
    real = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'minigpt[cuda]'")
    names = [*stand_in.FUNCTIONS, *stand_in.UFUNCS, "ndarray", "asarray", "asnumpy", "RawModule", "RawKernel",
             "__version__", "RawKernel.max_dynamic_shared_size_bytes", "RawModule.get_function", "cuda.Device", "get_default_memory_pool",
             *(f"cuda.Device.{name}" for name in vars(stand_in.cuda.Device())), "cuda.MemoryPool.total_bytes",
             *(f"cuda.runtime.{name}" for name in vars(stand_in.cuda.runtime)),
             *(f"ndarray.{name}" for name in vars(stand_in.ndarray) if name not in ("__dict__", "__weakref__"))]
    missing = []
    for name in names:
        place = real
        for part in name.split("."):
            place = getattr(place, part, None)
        if place is None and name != "ndarray.__hash__":
            missing.append(name)
    assert missing == []


# Where something is missing

def why_not(no_cupy_yet, **runtime):
    runtime = {"driverGetVersion": lambda: 12090, "getDeviceCount": lambda: 1, "CUDARuntimeError": RuntimeError,
               **runtime}
    no_cupy_yet(types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=types.SimpleNamespace(**runtime))))
    return kernels.cuda.why_not()


def raising(error):
    def call():
        raise RuntimeError(error)
    return call


@pytest.mark.skipif(kernels.cuda.switched_off(), reason="MINIGPT_KERNELS=none")
class TestWhyThereIsNoGPU:
    def test_nothing_is_missing(self, no_cupy_yet):
        assert why_not(no_cupy_yet) is None

    def test_cupy_is_missing(self, no_cupy_yet):
        no_cupy_yet(None)
        assert kernels.cuda.why_not() == "the package cupy is not installed: pip install 'minigpt[cuda]'"
        assert not kernels.cuda.available() and kernels.cuda.status().startswith("none: the package cupy")

    def test_the_driver_is_missing(self, no_cupy_yet):
        assert why_not(no_cupy_yet, driverGetVersion=lambda: 0).startswith("there is no NVIDIA driver: install")

    def test_the_driver_is_too_old(self, no_cupy_yet):
        reason = why_not(no_cupy_yet, getDeviceCount=raising("cudaErrorInsufficientDriver: CUDA driver version"))
        assert reason.startswith("the NVIDIA driver is too old") and reason.endswith("install a newer driver")

    @pytest.mark.parametrize("count", [raising("cudaErrorNoDevice: no CUDA-capable device"), lambda: 0])
    def test_the_gpu_is_missing(self, no_cupy_yet, count):
        assert "sees no GPU: nvidia-smi lists what it sees" in why_not(no_cupy_yet, getDeviceCount=count)

    def test_use_cuda_says_so(self, no_cupy_yet):
        no_cupy_yet(None)
        with pytest.raises(RuntimeError, match="no CUDA kernels: the package cupy is not installed: pip"), use("cuda"):
            pass

    def test_a_gpu_is_told_by_name(self, emulated):
        assert kernels.cuda.status() == f"an emulator, CuPy {stand_in.__version__} ({len(CHAPTERS)} kernels)"


def test_minigpt_without_kernels_has_none_for_a_gpu_either(monkeypatch, no_cupy_yet):
    monkeypatch.setenv("MINIGPT_KERNELS", "none")
    no_cupy_yet(stand_in)
    assert kernels.cuda.why_not() == "switched off by MINIGPT_KERNELS=none"
    assert kernels.load("cuda", CHAPTERS[0]) is None


def test_an_installed_package_has_the_texts_of_the_checkout():
    checkout = Path(__file__).parents[1] / "ext" / "cuda"
    texts, installed = ({path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.cu*")}
                        for folder in (checkout, launch.SOURCES))
    assert texts == installed and texts
