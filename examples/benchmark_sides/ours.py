"""Our side of the benchmark: the training step of minigpt/train.py, and its matrix products alone."""
import json
import sys

import numpy as np
from common import serve

from minigpt import device
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.optim import AdamW
from minigpt.parallel import Workers
from minigpt.train import TrainSettings, micro_batch_size, training_step, worker_threads


def main(s):
    device.prepare(s["device"], s["precision"])
    config = GPTConfig(s["vocabulary_size"], s["context"], s["layers"], s["heads"], s["width"], dropout=s["dropout"])
    model = device.move(GPT(config), s["device"])
    optimizer = AdamW(model.flat)
    names = "batch_size", "micro_batch", "workers", "device", "precision"
    settings = TrainSettings(**{name: s[name] for name in names})
    ids = np.random.default_rng(0).integers(config.vocabulary_size, size=200_000)
    with Workers(model, worker_threads(settings)) as workers:
        serve(step=lambda: training_step(workers, optimizer, ids, config.context, settings, optimizer.steps, 1e-4),
              floor=lambda: products(workers, config, settings), wait=lambda: device.wait(s["device"]),
              peak=gpu_memory if s["device"] == "cuda" else None)


def gpu_memory():
    """MB of the GPU's memory that CuPy has taken for arrays: it keeps what it once took, so this is the peak."""
    import cupy
    return cupy.get_default_memory_pool().total_bytes() / 2 ** 20


def products(workers, config, settings):
    """The matrix products of all linear layers of one step, forward (1), backward (2) and (3) of ops/linear.py."""
    C, size = config.width, micro_batch_size(settings, workers.number)
    shapes = [(C, C)] * 4 + [(C, 4 * C), (4 * C, C)]
    shapes = shapes * config.layers + [(C, config.vocabulary_size)]

    def multiply(rows):
        for n_in, n_out in shapes:
            x, w, dy = (arrays[key] for key in ((rows, n_in), (n_in, n_out), (rows, n_out)))
            x @ w, dy @ w.T, x.T @ dy

    sizes = [min(size, settings.batch_size - i) * config.context for i in range(0, settings.batch_size, size)]
    keys = {key for rows in set(sizes) for i, o in shapes for key in ((rows, i), (i, o), (rows, o))}
    arrays = {key: np.ones(key, np.float32, like=workers.model.flat.data) for key in keys}
    workers.each(lambda model, rows: multiply(rows), sizes)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
