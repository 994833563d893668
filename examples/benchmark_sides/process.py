"""A side of a benchmark as a process of its own, which works when it is told to and sleeps otherwise."""
import json
import os
import subprocess
import sys
from pathlib import Path

from minigpt.settings import UserError


class Side:
    """The process of SCRIPT.py in this folder; it gets `settings`, a dict, and answers questions, a JSON line each."""

    def __init__(self, script, settings, threads, **extra):
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        self.name = script + "".join(f", {name}" for name in extra)
        path = Path(__file__).parent / f"{script}.py"
        self.process = subprocess.Popen(
            [sys.executable, str(path), json.dumps(settings | extra | {"threads": threads})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, encoding="utf-8")

    def ask(self, **question):
        """Send a question, wait for its answer, a dict."""
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise UserError(f"the side {self.name} ended with exit code {self.process.wait()}: see its message above")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
