"""Builds each ext/cpu/NAME.pyx into minigpt.kernels.cpu.NAME and packs ext/cuda; everything else is in pyproject.toml.

The flags are those of -O3 and -ffast-math without the two that harm others: fast-math at link time sets
flush-to-zero for the whole process, and -ffinite-math-only breaks masks of -inf. Where the building machine has
AVX2 and FMA (x86-64-v3) they are compiled for; ext/cpu/machine.pyx then checks at run time that they are there.
"""
import os
import platform
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

FAST = ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros",
        "-freciprocal-math"]
POOL = "minigpt/kernels/cpu/pool.pxd"               # what kernels call of each other lies where Cython looks for it
DIRECTIVES = {"language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True,
              "initializedcheck": False}


def has_avx2():
    """Whether this is an x86-64 Linux machine with AVX2, FMA and BMI2."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not cpuinfo.exists():
        return False
    flags = next((line.split() for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), [])
    return {"avx2", "fma", "bmi2"} <= set(flags)


def extension(path):
    """The extension module of one .pyx."""
    avx2, for_any_cpu = has_avx2(), path.stem == "machine"
    gcc_like = sys.platform != "win32"
    return Extension(
        f"minigpt.kernels.cpu.{path.stem}", [str(path)], include_dirs=["ext/cpu"],
        depends=[str(header) for header in sorted(path.parent.iterdir()) if header.suffix != ".pyx"] + [POOL],
        define_macros=[("MINIGPT_BUILT_FOR_AVX2", "1")] if avx2 else [],
        extra_compile_args=(FAST if gcc_like else []) + (["-march=x86-64-v3"] if avx2 and not for_any_cpu else []))


# What all kernels need of Cython's typed memoryviews is compiled once, not into each: that is most of the build's time.
SHARED = "minigpt.kernels.cpu._memoryviews"
extensions = cythonize(
    [*(extension(path) for path in sorted(Path("ext/cpu").glob("*.pyx"))), Extension(SHARED, [])],
    include_path=["ext/cpu", "."], compiler_directives=DIRECTIVES, build_dir="build/cython", shared_utility_qualified_name=SHARED)
for module in extensions:
    module.optional = True                          # without a compiler everything runs on NumPy

# A GPU's kernels travel as texts: ext/cuda is the package minigpt.kernels.cuda.source. In a checkout it is read there.
CUDA = "minigpt.kernels.cuda.source"
setup(ext_modules=extensions, options={"build_ext": {"parallel": os.cpu_count()}},
      packages=[*find_packages(include=["minigpt*"]), CUDA], package_dir={CUDA: "ext/cuda"},
      package_data={CUDA: ["*.cu", "*.cuh"]})
