"""How tests run the programs, as users do."""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import minigpt

EXAMPLES = Path(__file__).parents[1] / "examples"
PYTHONPATH = str(Path(minigpt.__file__).parents[1])         # of the minigpt that is tested here
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 10
SMALL = {"steps": 6, "eval_every": 3, "log_every": 1, "layers": 1, "heads": 2, "width": 8, "context": 8,
         "batch_size": 4, "sample_length": 30}
FLAGS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def python(*arguments, cwd=None, stdin=None, **environment):
    """Run Python in a process of its own, offline. stdin: a text for it to read."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "MINIGPT_OFFLINE": "1"} | environment
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, encoding="utf-8", input=stdin,
                          timeout=120, env=environment)


def program(name, *flags, **options):
    return python(EXAMPLES / f"{name}.py", *flags, **options)


def succeeds(result):
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    return result.stdout


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
