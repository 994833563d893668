"""Our side of the race: the steps of train_shakespeare.py --preset sprint."""
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from benchmark_sides.race import tokens
from train_shakespeare import Settings

from minigpt.data import split
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.parallel import Workers
from minigpt.train import learning_rate, make_optimizer, training_step, validation_loss


def run(ids, share, threads, seed):
    """One training run: its seconds, and the loss at its end."""
    settings = Settings(**Settings.presets["sprint"], seed=seed)
    settings = replace(settings, steps=max(1, round(share * settings.steps)))
    training, validation = split(ids, settings.context)
    shape = settings.context, settings.layers, settings.heads, settings.width
    model = GPTModern(GPTModernConfig(int(ids.max()) + 1, *shape), seed=seed)
    optimizer = make_optimizer(model.flat, settings)
    with Workers(model, threads) as workers:
        begin = time.perf_counter()
        for step in range(settings.steps):
            training_step(workers, optimizer, training, settings.context, settings, step, learning_rate(settings, step))
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "val_loss": validation_loss(workers, validation, settings.context)}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    ids = tokens(given["data"])
    for line in sys.stdin:
        print(json.dumps(run(ids, given["share"], given["threads"], json.loads(line)["seed"])), flush=True)
