"""Who may import whom: every module of minigpt only what stands above it in ORDER, so that it can be read first."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minigpt

ROOT = Path(minigpt.__file__).parent
ORDER = ["tensor", "kernels", "op", "ops", "settings", "report", "device", "cache", "nn", "lora", "models", "tokenizers", "data",
         "ranks", "optim", "parallel", "arrays", "quantize", "checkpoint", "huggingface", "sampling", "reader", "generate",
         "speculative", "train", "align", "serve", "cli", "__main__"]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def imported(path, source):
    """The full names of the modules of ours that the file at `path` imports, as tuples of their parts."""
    package = ("minigpt", *Path(path).parent.parts)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names if alias.name.split(".")[0] == "minigpt")
        elif isinstance(node, ast.ImportFrom):
            start = package[:len(package) - node.level + 1] if node.level else ()
            name = start + tuple(node.module.split(".") if node.module else ())
            if name == ("minigpt",):                # from minigpt import x, from .. import x
                yield from (("minigpt", alias.name) for alias in node.names if alias.name != "__version__")
            elif name[0] == "minigpt":
                yield name


def wrong_imports(path, source):
    """What is wrong with the imports of a file, as sentences."""
    here = Path(path).parts[0].removesuffix(".py")
    if here == "__init__":
        return                                      # the front door, minigpt/__init__.py, is above nobody
    if here not in ORDER:
        yield f"{path}: {here} has no place in the order of modules: give it one in ORDER"
        return
    for name in imported(path, source):
        there = name[1] if len(name) > 1 else "the package itself"
        if there == here:
            continue                                # within one package
        if here == "kernels":
            yield f"{path}: kernels import nothing of ours, but this imports {there}"
        elif there not in ORDER:
            yield f"{path} imports {there}, which has no place in the order of modules"
        elif ORDER.index(there) > ORDER.index(here):
            yield f"{path} imports {there}, which stands below it"


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_from_modules_above_it(path):
    assert list(wrong_imports(path, (ROOT / path).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path, source", [
    ("tensor.py", "from .op import op"),
    ("ops/gelu.py", "from ..nn import Module"),
    ("ops/gelu.py", "from .. import nn"),
    ("ops/gelu.py", "def f():\n    import minigpt.train"),
    ("ops/gelu.py", "from minigpt import train"),
    ("ops/gelu.py", "import minigpt"),
    ("models/gpt.py", "from ..tokenizers.bpe import BPE"),
    ("kernels/cpu/__init__.py", "from ...tensor import Tensor"),
    ("kernels/__init__.py", "from ..tensor import Tensor"),
    ("nn.py", "from .nonsense import x"),
    ("nonsense.py", ""),
])
def test_a_wrong_import_is_seen(path, source):
    assert len(list(wrong_imports(path, source))) == 1


@pytest.mark.parametrize("path, source", [
    ("op.py", "from . import kernels\nfrom .tensor import Tensor"),
    ("ops/attention.py", "from ..op import op\nfrom .philox import keep_mask\nimport numpy"),
    ("kernels/__init__.py", "from . import cpu"),
    ("serve/http.py", "from minigpt import ops\nfrom ..models.gpt import GPT"),
    ("__init__.py", "from . import ops"),
    ("cli.py", "from . import __version__"),
])
def test_a_right_import_is_not_complained_about(path, source):
    assert list(wrong_imports(path, source)) == []


def test_there_are_files_to_check():
    assert {"tensor.py", "op.py", "ops/attention.py", "kernels/cpu/__init__.py"} <= set(FILES)


def test_importing_prints_nothing_and_loads_no_optional_package():
    program = "import sys, minigpt; print(sorted({'cupy', 'matplotlib', 'tqdm', 'mpi4py'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("[]\n", "")
