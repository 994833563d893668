"""Compiles the text of a .cu with g++ against emu.h, and runs its kernels under the emulator and its checker.

The text is that which CuPy would get, but for `extern __shared__ T x[];`, which becomes a pointer. Libraries are kept
in build/cuda_emu under a name that holds a hash of all that they were made from.
"""
import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "cuda_emu"
COMMON = ["-std=c++17", "-fPIC", "-g1", "-shared", "-w"]
KERNEL = [*COMMON, "-Og", "-fno-builtin", "-fno-strict-aliasing", "-fno-gnu-unique", "-Wl,-Bsymbolic",
          "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0",
          "-fsanitize=bounds-strict,alignment,shift,signed-integer-overflow,integer-divide-by-zero",
          "-nodefaultlibs", "-lm", "-lc"]           # without the sanitizers' own libraries
TYPES = {"f": np.float32, "d": np.float64, "i": np.int32, "I": np.uint32, "q": np.int64, "Q": np.uint64, "?": np.bool_}
ORDERS = "forward", "reverse", "random"


class EmulatorError(RuntimeError):
    """What the checker found, or what could not be compiled or launched."""


@functools.cache
def why_not():
    """None where the emulator runs, else the reason and the remedy, as a clause."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"it is written for Linux on x86-64, not for {platform.system()} on {platform.machine()}"
    missing = [program for program in ("g++", "addr2line") if shutil.which(program) is None]
    return f"{missing[0]} is missing: install g++ (with binutils)" if missing else None


# Compiling

def library(name, sources, flags):
    """The path of the library made of `sources`, {file name: text}, the first of which is compiled."""
    key = hashlib.sha256(repr((sources, flags)).encode()).hexdigest()[:16]
    path = BUILD / f"{name}-{key}.so"
    if path.exists():
        return path
    BUILD.mkdir(parents=True, exist_ok=True)
    first = next(iter(sources))
    temporary = BUILD / f"{path.stem}.{os.getpid()}"
    command = ["g++", f"-I{HERE}", "-x", "c++", "-", "-x", "none", *map(str, flags), "-o", str(temporary)]
    result = subprocess.run(command, input=sources[first], capture_output=True, text=True)
    if result.returncode:
        raise EmulatorError(f"{first} does not compile:\n{result.stderr[:3000]}")
    os.replace(temporary, path)
    return path


def runtime():
    """The path of the emulator itself, which every library of kernels is linked to."""
    names = "runtime.cpp", "fibers.h", "checker.h"
    sources = {name: (HERE / name).read_text(encoding="utf-8") for name in names}
    return library("runtime", sources, [*COMMON, "-O2", "-U_FORTIFY_SOURCE"])


def for_gcc(text):
    """The text of a .cu as C++: with emu.h before it, and the table of its kernels behind it."""
    names = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(', text)
    text = re.sub(r"extern __shared__ ([\w ]+?) (\w+)\[\];", r"\1 *\2 = (\1 *)emu_dynamic_shared();", text)
    table = "".join(f"EMU_KERNEL({name}) " for name in names)
    return (f'#include "emu.h"\n{text}\nextern "C" const emu_kernel emu_kernels[] = {{{table}{{}}}};\n'
            'extern "C" char *emu_shared(void) { static thread_local char first; return &first; }\n')


# Launching

class Kernel(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("types", ctypes.c_char_p), ("kernel", ctypes.c_void_p),
                ("call", ctypes.c_void_p)]


class Buffer(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("argument", ctypes.c_int),
                ("cell", ctypes.c_int)]


class Launch(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("kernel", ctypes.c_void_p), ("call", ctypes.c_void_p),
                ("arguments", ctypes.POINTER(ctypes.c_void_p)), ("grid", ctypes.c_uint * 3),
                ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint64), ("order", ctypes.c_int),
                ("seed", ctypes.c_uint64), ("buffers", ctypes.c_int), ("buffer", ctypes.POINTER(Buffer))]


class Module:
    """The kernels of one text. `types` has for each kernel the kind ("*" pointer, "c" pointer to const, " " number) and
    the dtype of its parameters, as C++ sees them."""

    def __init__(self, name, text):
        sources = {f"{name}.cu": for_gcc(text), "emu.h": (HERE / "emu.h").read_text(encoding="utf-8")}
        emulator = runtime()
        self.path = library(name, sources, [*KERNEL, "-Wl,--no-as-needed", emulator])
        self.handle, self.emulator = ctypes.CDLL(str(self.path)), ctypes.CDLL(str(emulator))
        self.emulator.emu_launch.restype = ctypes.c_char_p
        self.kernels, self.types = {}, {}
        table = ctypes.cast(self.handle.emu_kernels, ctypes.POINTER(Kernel))
        while (kernel := table[len(self.kernels)]).name:
            name, types = kernel.name.decode(), kernel.types.decode()
            half = len(types) // 2
            self.kernels[name] = kernel
            self.types[name] = [(kind, np.dtype(TYPES[type])) for kind, type in zip(types[:half], types[half:])]

    def launch(self, name, grid, block, cells, buffers, shared=0, order="forward", seed=0):
        """Run kernel `name` with arguments in `cells`, arrays of one number each, of which those in `buffers`,
        (argument, address, bytes, bytes of a number), are addresses of arrays."""
        kernel = self.kernels[name]
        arguments = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
        areas = (Buffer * len(buffers))(*(Buffer(address, size, argument, min(item, 4))
                                          for argument, address, size, item in buffers))
        self.handle.emu_shared()                    # so that this thread has its copy of the shared variables
        launch = Launch(name.encode(), kernel.kernel, kernel.call, arguments, grid, block, shared, ORDERS.index(order),
                        seed, len(buffers), areas)
        wrong = self.emulator.emu_launch(ctypes.byref(launch))
        if wrong:
            raise EmulatorError(self.with_source_line(wrong.decode()))

    def with_source_line(self, message):
        """The message, with a code address in it replaced by the line of the .cu."""
        found = re.search(r"code ([0-9a-f]+)", message)
        if not found:
            return message
        base = next(int(line.split("-")[0], 16) for line in Path("/proc/self/maps").read_text().splitlines()
                    if line.endswith(self.path.name))
        address = hex(int(found[1], 16) - 1 - base)         # the call's own address, not where it returns to
        command = ["addr2line", "-i", "-e", str(self.path), address]
        lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        places = [line.split()[0].rpartition("/")[2] for line in lines]
        return message.replace(found[0], ", called from ".join(places))
