"""NVRTC, NVIDIA's compiler of CUDA C, through ctypes: what CuPy compiles with. It needs no GPU and no driver."""
import ctypes
import functools
import re
import sys
from pathlib import Path

# What CuPy adds to the options that it is given
CUPYS_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
PLACES = "nvidia/cuda_nvrtc/lib/libnvrtc.so.*", "nvidia/cu*/lib/libnvrtc.so.*"     # where pip puts it


@functools.cache
def library():
    """libnvrtc, or None where there is none: pip's, or the system's."""
    installed = [str(path) for folder in map(Path, sys.path) for place in PLACES for path in folder.glob(place)
                 if ".alt." not in path.name]
    for path in *installed, "libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12":
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


def architectures():
    """The compute capabilities that this NVRTC compiles for, such as 80 for 8.0."""
    number = ctypes.c_int()
    library().nvrtcGetNumSupportedArchs(ctypes.byref(number))
    found = (ctypes.c_int * number.value)()
    library().nvrtcGetSupportedArchs(found)
    return list(found)


def compiled(text, name, architecture, options):
    """(PTX, log) of a text of CUDA C, compiled down to machine code; RuntimeError with the log where it does not."""
    nvrtc, program = library(), ctypes.c_void_p()
    options = [*options, *CUPYS_OPTIONS, f"-arch=sm_{architecture}", "--ptxas-options=-v"]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None)
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(options),
                                           (ctypes.c_char_p * len(options))(*(option.encode() for option in options)))
        log = output(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        if failed:
            raise RuntimeError(f"{name} does not compile for sm_{architecture}:\n{log}")
        return output(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def output(size_of, contents_of, program):
    size = ctypes.c_size_t()
    if size_of(program, ctypes.byref(size)):
        return ""
    buffer = ctypes.create_string_buffer(size.value)
    contents_of(program, buffer)
    return buffer.value.decode()


def entries(ptx):
    """{kernel: the bytes of each of its parameters} of a PTX."""
    size = {"u64": 8, "s64": 8, "b64": 8, "f64": 8, "u32": 4, "s32": 4, "b32": 4, "f32": 4, "u8": 1, "s8": 1, "b8": 1}
    return {name: [size[kind] for kind in re.findall(r"\.param \.(\w+)", parameters)]
            for name, parameters in re.findall(r"\.visible \.entry (\w+)\((.*?)\)", ptx, re.DOTALL)}


def bodies(ptx):
    """{kernel: its instructions, as text} of a PTX."""
    return dict(re.findall(r"\.visible \.entry (\w+)\(.*?\n\{(.*?)\n\}", ptx, re.DOTALL))


def resources(log):
    """{kernel: (registers, bytes spilled, bytes of static shared memory)} of a log of ptxas."""
    found = {}
    for name, text in re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", log, re.DOTALL):
        registers = int(re.search(r"Used (\d+) registers", text)[1])
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", text)))
        shared = re.search(r"(\d+) bytes smem", text)
        found[name] = registers, spilled, int(shared[1]) if shared else 0
    return found
