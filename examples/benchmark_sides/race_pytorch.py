"""PyTorch's side of the race: nanoGPT's run for a CPU (its README), with the model of pytorch.py."""
import json
import math
import sys
import time
from pathlib import Path

from pytorch import GPT, torch

sys.path.append(str(Path(__file__).parents[1]))
from benchmark_sides.race import tokens

CONTEXT, BATCH, STEPS, WARM_UP, HIGH, LOW = 64, 12, 2000, 100, 1e-3, 1e-4


def run(ids, share, seed):
    """One training run: its seconds, and the loss at its end."""
    torch.manual_seed(seed)
    ids, steps = torch.tensor(ids), max(1, round(share * STEPS))
    training, validation = ids.split([len(ids) - len(ids) // 10, len(ids) // 10])
    model = GPT({"vocabulary_size": int(ids.max()) + 1, "context": CONTEXT, "layers": 4, "heads": 4, "width": 128, "dropout": 0.0})
    matrices, vectors = ([p for p in model.parameters() if (p.ndim >= 2) == wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer, places = torch.optim.AdamW(groups, lr=HIGH, betas=(0.9, 0.99), fused=True), torch.arange(CONTEXT)
    begin = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        begins = torch.randint(len(training) - CONTEXT, (BATCH, 1))
        loss = model(training[begins + places], training[begins + places + 1])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "val_loss": validation_loss(model.eval(), validation)}


def learning_rate(step, steps):
    """nanoGPT's: a warm-up, then half a cosine."""
    if step < WARM_UP:
        return HIGH * (step + 1) / (WARM_UP + 1)
    return LOW + (HIGH - LOW) * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


@torch.no_grad()
def validation_loss(model, ids):
    """Mean loss over windows that do not overlap; the last one is shorter."""
    total = 0.0
    for begin in range(0, len(ids) - 1, 16 * CONTEXT):
        piece = ids[begin:begin + 16 * CONTEXT + 1]
        whole = (len(piece) - 1) // CONTEXT * CONTEXT
        for x, y in ((piece[:whole].view(-1, CONTEXT), piece[1:whole + 1].view(-1, CONTEXT)),
                     (piece[None, whole:-1], piece[None, whole + 1:])):
            if y.numel():
                total += model(x, y).item() * y.numel()
    return total / (len(ids) - 1)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    ids = tokens(given["data"])
    torch.set_num_threads(given["threads"])
    for line in sys.stdin:
        print(json.dumps(run(ids, given["share"], json.loads(line)["seed"])), flush=True)
