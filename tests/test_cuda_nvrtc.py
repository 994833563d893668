"""NVRTC, the compiler that CuPy uses, compiles every .cu for every kind of GPU: no GPU is needed for that.

What it finds that g++ does not: names that CUDA lacks, too many registers, too much shared memory, and arithmetic in
double that slipped into a kernel of floats by a literal like 0.5.
"""
import functools
import re

import pytest
from cuda_emu import nvrtc
from cuda_emu.cases import constants_of

from minigpt import kernels
from minigpt.kernels.cuda import launch

ARCHITECTURES = 70, 75, 80, 86, 89, 90              # V100, T4, A100, RTX 30, RTX 40, H100
REGISTERS, SHARED = 65536, 48 * 1024                # of a multiprocessor; of a block, static
IN_DOUBLE = {"cross_entropy_mean"}                  # kernels that work in double on purpose
CHAPTERS = kernels.cuda.names()

pytestmark = pytest.mark.skipif(nvrtc.library() is None,
                                reason="no NVRTC: pip install nvidia-cuda-nvrtc-cu12, or 'minigpt[cuda-check]'")


@functools.cache
def compiled(chapter, real, architecture, constants=()):
    if architecture not in nvrtc.architectures():
        pytest.skip(f"this NVRTC does not compile for sm_{architecture}")
    return nvrtc.compiled(launch.source(chapter, real, constants), f"{chapter}.cu", architecture, launch.OPTIONS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("chapter, constants", [
    (chapter, constants) for chapter in CHAPTERS for constants in constants_of(chapter, "float")])
def test_a_text_compiles_within_what_a_block_may_use(chapter, constants, architecture):
    _, log = compiled(chapter, "float", architecture, constants)
    used, threads = nvrtc.resources(log), threads_at_most(constants)
    assert set(used) == set(launch.declarations(chapter))
    for kernel, (registers, spilled, shared) in used.items():
        assert spilled == 0, f"{kernel} spills {spilled} bytes of registers into memory"
        assert registers * threads <= REGISTERS and shared <= SHARED, kernel


def threads_at_most(constants):
    """How many threads have to find room on a multiprocessor: those of a block, or of as many as a chapter wants."""
    given = dict(constants)
    return given.get("THREADS", launch.ROW_THREADS) * given.get("BLOCKS", 1)


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_compiler_sees_the_parameters_that_the_launcher_believes_in(chapter, real):
    ptx, _ = compiled(chapter, real, 80, constants_of(chapter, real)[0])
    believed = {kernel: [8 if parameter.pointer else parameter.dtype(real).itemsize for parameter in parameters]
                for kernel, parameters in launch.declarations(chapter).items()}
    assert nvrtc.entries(ptx) == believed


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_kernel_of_floats_computes_in_floats(chapter):
    ptx, _ = compiled(chapter, "float", 80, constants_of(chapter, "float")[0])
    for kernel, body in nvrtc.bodies(ptx).items():
        assert kernel in IN_DOUBLE or not re.findall(r".*\.f64.*", body), kernel


@pytest.mark.parametrize("text, said", [
    ('extern "C" __global__ void f(float *x) { x[0] = INFINITY; }', "INFINITY"),
    ('extern "C" __global__ void f(float *x) { x[0] = 1 }', "expected a"),
])
def test_what_is_no_cuda_is_an_error_that_shows_the_log(text, said):
    with pytest.raises(RuntimeError, match=f"f.cu does not compile for sm_80.*(?s:.*){said}"):
        nvrtc.compiled(text, "f.cu", 80, launch.OPTIONS)


def test_the_limits_are_seen():
    """A kernel that breaks each of them, so that the checks above can fail."""
    text = """extern "C" __global__ void __launch_bounds__(1024, 2) f(float *x)
    {
        __shared__ double much[6144];
        float own[99];
        #pragma unroll
        for (int i = 0; i < 99; i++) own[i] = x[i * 3 + threadIdx.x] * 0.5;
        much[threadIdx.x] = x[0];
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 99; i++) x[i * 5 + threadIdx.x] = own[98 - i] + much[i];
    }"""
    ptx, log = nvrtc.compiled(text, "f.cu", 80, launch.OPTIONS)
    registers, spilled, shared = nvrtc.resources(log)["f"]
    assert spilled > 0 and shared == 48 * 1024 and registers == 32
    assert ".f64" in nvrtc.bodies(ptx)["f"] and nvrtc.entries(ptx) == {"f": [8]}
