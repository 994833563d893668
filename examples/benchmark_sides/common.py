"""How a side of a benchmark answers, one JSON line each: with `serve` for training steps, with `answer` for the rest."""
import json
import resource
import sys
import time


def serve(step, floor=None):
    """Read questions from standard input until it ends. step() makes one training step, floor() one of its products."""
    for line in sys.stdin:
        question = json.loads(line)
        if "peak" in question:
            answer = {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        elif "floor" in question:
            answer = {"seconds": min(timed(floor) for _ in range(question["floor"] * 5))}
        else:
            answer = {"seconds": sum(timed(step) for _ in range(question["steps"]))}
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
