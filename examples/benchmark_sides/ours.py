"""Our side of the benchmark: the training step of minigpt/train.py, and its matrix products alone."""
import json
import sys
import time

import numpy as np
from common import serve

from minigpt import device
from minigpt.kernels import cpu
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.ops import linear
from minigpt.optim import AdamW
from minigpt.parallel import Workers
from minigpt.train import TrainSettings, micro_batch_size, training_step


def main(s):
    device.prepare(s["device"], s["precision"])
    config = GPTConfig(s["vocabulary_size"], s["context"], s["layers"], s["heads"], s["width"], dropout=s["dropout"])
    model = device.move(GPT(config), s["device"])
    optimizer, names = AdamW(model.flat), ("batch_size", "micro_batch", "workers", "device", "precision")
    settings = TrainSettings(**{name: s[name] for name in names})
    ids = np.random.default_rng(0).integers(config.vocabulary_size, size=200_000)
    with Workers(model, settings.workers) as workers:
        serve(step=lambda: training_step(workers, optimizer, ids, config.context, settings, optimizer.steps, 1e-4),
              floor=lambda: products(workers, config, settings), wait=lambda: device.wait(s["device"]),
              peak=gpu_memory if s["device"] == "cuda" else None)


def gpu_memory():
    """MB of the GPU's memory that CuPy has taken for arrays: it keeps what it once took, so this is the peak."""
    import cupy
    return cupy.get_default_memory_pool().total_bytes() / 2 ** 20


def products(workers, config, settings):
    """The matrix products of all linear layers of one step, forward (1), backward (2) and (3) of ops/linear.py.

    By linear's kernel, whose products (ext/cpu/tile.h) are those of all operations; in the order of the step, and each layer
    with arrays of its own: as in a step, what the backward pass needs was written long before it.
    """
    C, size = config.width, micro_batch_size(settings, workers.number)
    shapes = ([(C, C)] * 4 + [(C, 4 * C), (4 * C, C)]) * config.layers + [(C, config.vocabulary_size)]
    there = workers.model.flat.data
    weights = [np.ones(shape, np.float32, like=there) for shape in shapes]
    compiled = settings.device == "cpu" and cpu.available()                 # a GPU's products are NumPy's, by cuBLAS
    forward, backward = linear.pairs["cpu" if compiled else "reference"]

    def multiply(rows):
        inputs = [np.ones((rows, w.shape[0]), np.float32, like=there) for w in weights]
        gradients = [np.ones((rows, w.shape[1]), np.float32, like=there) for w in weights]
        device.wait(settings.device)
        begin = time.perf_counter()
        saved = [forward(x, w)[1] for x, w in zip(inputs, weights)]
        for dy in reversed(gradients):
            backward(dy, saved.pop())
        device.wait(settings.device)
        return time.perf_counter() - begin

    sizes = [min(size, settings.batch_size - i) * config.context for i in range(0, settings.batch_size, size)]
    seconds = workers.each(lambda model, rows: multiply(rows), sizes)
    return max(sum(seconds[worker::workers.number]) for worker in range(workers.number))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
