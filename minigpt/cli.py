"""The console script `minigpt`: `minigpt info` tells what is installed and what runs."""
import argparse
import importlib.metadata
import importlib.util
import platform

import numpy as np
from threadpoolctl import threadpool_info

from . import __version__
from .kernels import cpu, cuda
from .parallel import cores


def main(arguments=None):
    """Entry point of the console script."""
    parser = argparse.ArgumentParser(prog="minigpt", description="minigpt: ChatGPT in miniature")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="versions, kernels, BLAS and threads of this installation")
    parser.parse_args(arguments)
    print(info())


def info():
    """What one asks first when something is slow or missing, as lines of text."""
    lines = [("minigpt", __version__), ("python", f"{platform.python_version()} on {platform.system()} "
                                        f"{platform.machine()}, {cores()} cores"), ("numpy", np.__version__)]
    for pool in threadpool_info():
        lines.append((pool["user_api"], f"{pool['internal_api']} {pool['version']}, {pool.get('architecture', '?')}, "
                                        f"{pool['num_threads']} threads"))
    lines.append(("kernels", cpu.status()))
    lines += [("", name) for name in cpu.names() if cpu.available()]
    lines.append(("gpu", cuda.status()))
    for extra in "safetensors", "tqdm", "matplotlib":
        lines.append((extra, version(extra)))
    return "\n".join(f"{name:12} {value}" for name, value in lines)


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
