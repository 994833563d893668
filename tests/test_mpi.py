"""Ranks: the same run as one process makes, whatever their number; they end together and speak with one voice.

What needs no MPI is tested with ranks that are threads of this process; the rest is the real thing, through mpiexec.
"""
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from minigpt import checkpoint, optim, parallel
from minigpt.data import split
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.optim import AdamW
from minigpt.parallel import Workers, cores
from minigpt.ranks import ALONE, Ranks
from minigpt.report import read_metrics
from minigpt.settings import UserError
from minigpt.tokenizers import CharTokenizer
from minigpt.train import Position, TrainSettings, train, training_step, validation_loss

TEXT = " ".join(np.random.default_rng(0).choice(["to be", "or not", "that is", "the question", "nobler"], 300)) + "\n"
TOKENIZER = CharTokenizer.train(TEXT)
CONFIG = GPTConfig(TOKENIZER.vocabulary_size, context=8, layers=2, heads=2, width=12, dropout=0.2)
TRAINING, VALIDATION = split(TOKENIZER.encode(TEXT), CONFIG.context)
SETTINGS = TrainSettings(steps=20, batch_size=7, workers=1, learning_rate=1e-2, warm_up=5, eval_every=10, log_every=1,
                         seed=3)


# ---- ranks that are threads ----

class Threads(Ranks):
    """One of `size` ranks that share this process; `shared` is what they meet at."""

    def __init__(self, rank, size, shared):
        self.rank, self.size, self.shared = rank, size, shared

    def every(self, value):
        self.shared["values"][self.rank] = value
        self.shared["barrier"].wait(20)
        values = list(self.shared["values"])
        self.shared["barrier"].wait(20)                     # nobody puts in the next value before all have read
        return values

    def sum(self, array):
        array[...] = sum(self.every(array.copy()))

    def copy(self, array):
        array[...] = self.every(array.copy())[0]


class Rounding(Threads):
    """Ranks on machines that differ in the last bits."""

    def sum(self, array):
        super().sum(array)
        array *= 1 + 1e-6 * self.rank


def on_ranks(size, function, kind=Threads):
    """[function(ranks) on each of `size` ranks]."""
    shared = {"values": [None] * size, "barrier": threading.Barrier(size)}

    def run(rank):
        try:
            return function(kind(rank, size, shared))
        except BaseException:
            shared["barrier"].abort()
            raise

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(size) as pool:   # as each of them will set it
        futures = [pool.submit(run, rank) for rank in range(size)]
    broken = [f.exception() for f in futures if f.exception() is not None]
    for error in sorted(broken, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


# ---- who does what ----

@pytest.mark.parametrize("numbers", [[1], [3], [1, 1], [1, 3], [2, 1, 4]], ids=str)
@pytest.mark.parametrize("items", [0, 1, 5, 17])
def test_each_item_is_done_once_and_all_ranks_get_all_results_in_order(numbers, items):
    done = []

    def work(ranks):
        with Workers(GPT(CONFIG), numbers[ranks.rank], ranks) as workers:
            def note(model, item):
                done.append((sum(numbers[:ranks.rank]) + workers.replicas.index(model), item))
                return item * item
            return workers.each(note, list(range(items)))

    for results in on_ranks(len(numbers), work):
        assert results == [item * item for item in range(items)]
    assert sorted(done) == sorted((item % sum(numbers), item) for item in range(items))


@pytest.mark.parametrize("size, workers, B", [(2, 1, 12), (2, 3, 12), (4, 1, 16), (3, 1, 7)])
def test_a_batch_is_shared_equally(size, workers, B):
    shares = []

    def count(ranks):
        def gradient(loss, parts):
            sizes = workers_here.each(lambda model, part: len(range(B)[part]), parts)
            shares.append([sum(sizes[ranks.rank * workers + w::size * workers]) for w in range(workers)])
            return float("nan")                             # then the step ends here

        with Workers(GPT(CONFIG), workers, ranks) as workers_here:
            workers_here.gradient = gradient
            training_step(workers_here, None, TRAINING, CONFIG.context, replace(SETTINGS, batch_size=B), 0, 1e-3)

    on_ranks(size, count)
    shares = [share for of_rank in shares for share in of_rank]
    assert sum(shares) == B and max(shares) == -(-B // (size * workers))


@pytest.mark.parametrize("machines, expected", [
    ([("a", {0, 1, 2, 3})], [4]),
    ([("a", {0, 1, 2, 3})] * 2, [2, 2]),                    # two ranks share four cores
    ([("a", {0, 1, 2, 3})] * 3, [1, 1, 1]),
    ([("a", {0})] * 3, [1, 1, 1]),                          # never less than one
    ([("a", {0, 1}), ("a", {2, 3})], [2, 2]),               # bound to cores of their own by the launcher
    ([("a", {0, 1, 2, 3}), ("b", {0, 1, 2, 3})], [4, 4]),   # on two machines
    ([("a", set(range(12)))] * 3 + [("b", {0, 1})], [4, 4, 4, 2]),
], ids=str)
def test_ranks_of_one_machine_share_its_cores(machines, expected, monkeypatch):
    here = threading.local()
    monkeypatch.setattr(parallel.platform, "node", lambda: here.machine[0])
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda process: here.machine[1], raising=False)

    def count(ranks):
        here.machine = machines[ranks.rank]
        return cores(ranks)

    assert on_ranks(len(machines), count) == expected


def test_what_the_first_rank_does_all_know():
    called = []
    results = on_ranks(3, lambda ranks: ranks.first(lambda x: called.append(ranks.rank) or x + 1, 4))
    assert (results, called) == ([5, 5, 5], [0])
    assert ALONE.first(lambda x: x + 1, 4) == 5


def test_a_mistake_on_the_first_rank_is_raised_on_all():
    def mistake():
        raise UserError("no such file")

    def caught(ranks):
        with pytest.raises(UserError, match="no such file"):
            ranks.first(mistake)
        return True

    assert on_ranks(3, caught) == [True] * 3
    with pytest.raises(UserError):
        ALONE.first(mistake)


# ---- the same numbers as on one rank ----

def step_on(size, workers=1, B=7, dtype=np.float64, micro_batch=0):
    """[(loss, norm, gradient, parameters) on each rank] of one step."""
    def step(ranks):
        model = GPT(CONFIG, seed=1, dtype=dtype)
        settings = replace(SETTINGS, workers=workers, batch_size=B, micro_batch=micro_batch)
        with Workers(model, settings.workers, ranks) as workers_of_this_rank:
            loss, norm = training_step(workers_of_this_rank, AdamW(model.flat), TRAINING, CONFIG.context, settings, 5, 1e-2)
        return loss, norm, model.flat.grad, model.flat.data

    return on_ranks(size, step)


@pytest.mark.parametrize("size, workers, B", [(2, 1, 7), (3, 1, 7), (2, 2, 7), (5, 1, 7), (3, 2, 4), (4, 1, 2), (3, 1, 1)])
def test_a_step_on_several_ranks_is_the_step_on_one(size, workers, B):
    (loss, norm, grad, parameters), = step_on(1, B=B)
    results = step_on(size, workers, B)
    for result in results:
        assert result[0] == pytest.approx(loss, rel=1e-12) and result[1] == pytest.approx(norm, rel=1e-12)
        np.testing.assert_allclose(result[2], grad, rtol=0, atol=1e-12 * abs(grad).max())
        np.testing.assert_allclose(result[3], parameters, rtol=0, atol=1e-7)    # AdamW divides by |g|, small as it is
        for mine, first in zip(result, results[0]):
            np.testing.assert_array_equal(mine, first)      # and on all ranks it is the same to the last bit


@pytest.mark.parametrize("size, workers", [(1, 2), (2, 1), (3, 2)])
def test_the_validation_loss_is_the_same_to_the_last_bit(size, workers):
    def loss(ranks, number=workers):
        with Workers(GPT(CONFIG), number, ranks) as workers:
            return validation_loss(workers, VALIDATION, CONFIG.context, size=2)

    assert set(on_ranks(size, loss)) == {loss(ALONE, 1)}


def run_on(size, out, resume=False, stop_after=None, kind=Threads):
    """Train on `size` ranks, or go on with out/latest; [(Position, interrupted, parameters) of each]."""
    def run(ranks):
        model, position = GPT(CONFIG, seed=1), None
        if resume:
            saved = checkpoint.load(out, ["latest"])
            model, position = saved.model, Position(**saved.training["position"])
        elif ranks.rank:
            model.flat.data[...] = 0                        # all begin with the parameters of the first
        stop = stop_after(ranks) if stop_after else None
        position, interrupted = train(model, TOKENIZER, TRAINING, VALIDATION, SETTINGS, out,
                                      position, stop_after=stop, ranks=ranks)
        return position, interrupted, model.flat.data

    return on_ranks(size, run, kind)


def losses(out):
    records = read_metrics(Path(out) / "metrics.jsonl")
    return [r["train_loss"] for r in records] + [r["val_loss"] for r in records if r["val_loss"] is not None]


@pytest.mark.parametrize("size", [2, 3])
def test_a_run_on_several_ranks_is_the_run_on_one(tmp_path, size):
    (_, _, parameters), = run_on(1, tmp_path / "one")
    results = run_on(size, tmp_path / "many")
    assert len(losses(tmp_path / "one")) == 22
    np.testing.assert_allclose(losses(tmp_path / "many"), losses(tmp_path / "one"), rtol=1e-5)
    for _, _, other in results:
        np.testing.assert_array_equal(other, results[0][2])
        np.testing.assert_allclose(other, parameters, rtol=0, atol=1e-4)
    assert [path.name for path in (tmp_path / "many").rglob("*.writing")] == []


def test_machines_that_round_differently_do_not_drift_apart(tmp_path):
    parameters = [parameters for _, _, parameters in run_on(3, tmp_path, kind=Rounding)]
    for other in parameters[1:]:
        np.testing.assert_array_equal(other, parameters[0])


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    run_on(1, tmp_path / "one")
    run_on(3, tmp_path / "many", stop_after=lambda ranks: 9)
    run_on(2, tmp_path / "many", resume=True)
    np.testing.assert_allclose(losses(tmp_path / "many")[:20], losses(tmp_path / "one")[:20], rtol=1e-5)


@pytest.mark.parametrize("asked", [0, 2])
def test_one_rank_that_is_asked_to_stop_stops_all_after_the_same_step(tmp_path, asked):
    results = run_on(3, tmp_path, stop_after=lambda ranks: 7 if ranks.rank == asked else None)
    assert [(position.step, interrupted) for position, interrupted, _ in results] == [(7, True)] * 3
    assert checkpoint.load(tmp_path / "latest").training["position"]["step"] == 7


def test_only_the_first_rank_writes(tmp_path):
    def run(ranks):
        train(GPT(CONFIG), TOKENIZER, TRAINING, VALIDATION, SETTINGS, tmp_path / str(ranks.rank), ranks=ranks)

    on_ranks(3, run)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


# ---- Muon ----

@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_directions_of_muon_and_move_alike(size, monkeypatch):
    found, orthogonal = [], optim.orthogonal
    monkeypatch.setattr(optim, "orthogonal", lambda g: found.append(g.shape) or orthogonal(g))

    def step(ranks):
        model = GPT(CONFIG)
        optimizer = optim.Muon(model.flat, ranks=ranks)
        for seed in range(2):
            model.flat.grad[...] = np.random.default_rng(seed).normal(size=model.flat.grad.shape)
            optimizer.step(lr=0.01)
        return model.flat.data, optimizer.m

    data, m = step(ALONE)
    alone = sorted(found)
    found.clear()
    for data_of_rank, m_of_rank in on_ranks(size, step):
        assert np.array_equal(data_of_rank, data) and np.array_equal(m_of_rank, m)
    assert sorted(found) == alone
