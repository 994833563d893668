"""Our side of the benchmark of generation: the Engine, greedy; and what memory and matrix products allow at most."""
import json
import sys
import time

import numpy as np
from common import answer, timed

from minigpt.generate import Engine, Request
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.quantize import arrays_of, quantize
from minigpt.sampling import Rules


def main(s):
    from minigpt.kernels.cpu.pool import read_through       # there is no limit to measure without compiled kernels

    model = GPT(GPTConfig(s["vocabulary_size"], s["context"], s["layers"], s["heads"], s["width"]))
    if s["precision"] != "float32":
        quantize(model, s["precision"])
    needed = sum(array.nbytes for name, array in arrays_of(model).items() if not name.startswith("positions"))
    print(f"ours, {s['precision']}: {needed / 1e6:.0f} MB of weights for a token", file=sys.stderr)
    weights = np.ones(needed // 4, np.float32)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2048, 2048)).astype(np.float32)

    def generate(prompt, length):
        """Seconds to the first token, and from there to the last."""
        times = [time.perf_counter()]
        request = Request(rng.integers(s["vocabulary_size"], size=prompt), length, Rules(0))
        engine.submit(request, lambda job, token: times.append(time.perf_counter()))
        engine.run()
        return times[1] - times[0], times[-1] - times[1]

    with Engine(model, workers=s["threads"]) as engine:
        answer(decode=lambda number: generate(s["prompt"], number + 1)[1],
               prefill=lambda number: generate(number, 1)[0],
               read=lambda number: sum(timed(lambda: read_through(weights)) for _ in range(number)),
               multiply=lambda number: timed(lambda: engine.crew.map(lambda _: a @ b, range(number))))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
