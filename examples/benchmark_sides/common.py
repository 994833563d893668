"""How a side of a benchmark answers, one JSON line each: with `serve` for training steps, with `answer` for the rest."""
import json
import resource
import sys
import time


def serve(step, floor=None, wait=lambda: None, peak=None):
    """Read questions from standard input until it ends. step() makes one training step; floor() returns the seconds of
    its matrix products alone.

    wait() returns when a GPU has done what it was asked to do; peak() says how many MB of its memory were taken at most
    (without it, the process's own count).
    """
    for line in sys.stdin:
        question = json.loads(line)
        if "peak" in question:
            megabytes = peak() if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answer = {"megabytes": megabytes}
        elif "floor" in question:
            answer = {"seconds": sum(floor() for _ in range(question["floor"]))}
        else:
            answer = {"seconds": timed(lambda: ([step() for _ in range(question["steps"])], wait()))}
        print(json.dumps(answer), flush=True)


def answer(**functions):
    """Read questions from standard input until it ends: {"decode": 20} is answered with the seconds of decode(20)."""
    for line in sys.stdin:
        (name, number), = json.loads(line).items()
        print(json.dumps({"seconds": functions[name](number)}), flush=True)


def timed(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin
