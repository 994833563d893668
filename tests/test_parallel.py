"""Workers: the same gradient as one pass over the whole batch, the same bits every time."""
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from minigpt import no_grad, nn, use
from minigpt.kernels import cpu
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.parallel import Workers
from minigpt.tensor import recording

CONFIG = GPTConfig(vocabulary_size=11, context=7, layers=2, heads=3, width=12)


def tokens(B=7):
    rng = np.random.default_rng(0)
    return rng.integers(11, size=(B, 5)), rng.integers(11, size=(B, 5))


def gradient(number, size, dtype=np.float64):
    """Loss and gradient of seven sequences, by `number` workers in micro-batches of `size`."""
    model, (x, y) = GPT(CONFIG, dtype=dtype), tokens()
    with Workers(model, number) as workers:
        loss = workers.gradient(lambda m, part: m.loss(x[part], y[part], total=y.size),
                                [slice(i, i + size) for i in range(0, 7, size)])
    return loss, model.flat.grad


@pytest.mark.parametrize("number, size", [(1, 7), (1, 2), (2, 3), (3, 1), (4, 7)])
def test_any_split_gives_the_gradient_of_the_whole_batch(number, size):
    model, (x, y) = GPT(CONFIG, dtype=np.float64), tokens()
    whole = model.loss(x, y)
    whole.backward()
    loss, grad = gradient(number, size)
    assert loss == pytest.approx(whole.item(), rel=1e-12)
    np.testing.assert_allclose(grad, model.flat.grad, rtol=1e-9, atol=1e-15)


@pytest.mark.skipif(not cpu.available(), reason="without compiled kernels there are none that share rows")
@pytest.mark.parametrize("model", [GPT(GPTConfig(11, 500, 2, 3, 12, dropout=0.1), dtype=np.float64),
                                   GPTModern(GPTModernConfig(11, 500, 2, 3, 12), dtype=np.float64)], ids=["gpt", "gpt_modern"])
def test_the_rows_of_a_single_sequence_are_shared_among_workers(model):
    rng, seeds = np.random.default_rng(1), np.array([5], np.uint64)
    x, y = rng.integers(11, size=(1, 500)), rng.integers(11, size=(1, 500))

    def gradient_by(number):
        model.flat.grad[...] = 0
        with Workers(model, number) as workers:
            loss = workers.gradient(lambda m, part: m.loss(x, y, seeds, total=y.size), [0])
        return loss, model.flat.grad.copy()

    (loss, alone), (loss_shared, together) = gradient_by(1), gradient_by(3)
    assert loss_shared == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-14)


def test_a_step_repeats_bit_for_bit():
    (loss, grad), (loss_again, grad_again) = gradient(2, 2, np.float32), gradient(2, 2, np.float32)
    assert loss == loss_again
    np.testing.assert_array_equal(grad, grad_again)


def test_gradients_of_the_step_before_are_gone():
    model, (x, y) = GPT(CONFIG), tokens()
    with Workers(model, 2) as workers:
        for _ in range(2):
            workers.gradient(lambda m, part: m.loss(x[part], y[part], total=y.size), [slice(0, 4), slice(4, 7)])
    np.testing.assert_array_equal(model.flat.grad, gradient(2, 4, np.float32)[1])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_a_loss_does_not_depend_on_has_gradient_zero(number):
    model, (x, _) = GPT(CONFIG, dtype=np.float64), tokens()
    model.flat.grad[...] = 5
    with Workers(model, number) as workers:
        workers.gradient(lambda m, part: m.tokens(x[part]).sum(), [slice(0, 4), slice(4, 7)])
    table = model.flat.slices["tokens.w"]
    counts = np.repeat(np.bincount(x.reshape(-1), minlength=11), 12)
    np.testing.assert_array_equal(model.flat.grad[table], counts)
    assert np.count_nonzero(model.flat.grad) == np.count_nonzero(counts)
    model.tokens(x).sum().backward()                            # without workers gradients are added, as always
    np.testing.assert_array_equal(model.flat.grad[table], 2 * counts)


def test_a_replica_shares_weights_and_owns_its_gradients():
    model = GPT(CONFIG)
    twin = nn.replica(model)
    assert twin.flat.data is model.flat.data
    assert not np.shares_memory(twin.flat.grad, model.flat.grad)
    for (name, p), (twin_name, q) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert name == twin_name and p is not q
        assert np.shares_memory(p.data, q.data) and np.shares_memory(q.grad, twin.flat.grad)
    model.flat.data[...] = 3
    assert (twin.blocks[1].mlp.expand.w.data == 3).all()


def test_items_go_to_fixed_workers_and_results_come_in_order():
    with Workers(GPT(CONFIG), 3) as workers:
        results = workers.each(lambda model, item: (workers.replicas.index(model), item), list(range(8)))
    assert results == [(i % 3, i) for i in range(8)]


def test_blas_has_one_thread_while_workers_run_and_its_own_number_afterwards():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with Workers(GPT(CONFIG), 2):
        assert set(threads()) <= {1}
    assert threads() == before


def test_workers_inherit_no_grad_and_use():
    """One of two workers is the thread that asks; each of them waits for the other, so both have to be there."""
    both = threading.Barrier(2)

    def look(_):
        both.wait(60)
        return recording.get(), threading.current_thread().name.partition("_")[0]

    with Workers(GPT(CONFIG), 2) as workers, no_grad(), use("reference"):
        seen = workers.map(look, range(2))
    assert [recorded for recorded, _ in seen] == [False, False]
    assert {name for _, name in seen} == {"worker", threading.current_thread().name}


def test_map_gives_all_results_in_order_and_the_first_error_when_all_parts_were_tried():
    tried = []

    def invert(x):
        tried.append(x)
        return 1 / x if x else [][x]

    for number in 1, 2, 3:
        with Workers(GPT(CONFIG), number) as workers:
            assert workers.map(invert, [1, 2, 4, 5, 8]) == [1, 0.5, 0.25, 0.2, 0.125]
            assert workers.map(invert, []) == []
            tried.clear()
            with pytest.raises(IndexError):
                workers.map(invert, [1, 0, "x", 2])
            assert sorted(map(str, tried)) == ["0", "1", "2", "x"]


def test_a_single_micro_batch_always_finds_threads_to_share_its_rows():
    """The thread that asks takes it: taken by one of the others, it would wait for help from itself."""
    main = threading.current_thread().name
    with Workers(GPT(CONFIG), 3) as workers:
        for _ in range(300):
            assert workers.each(lambda model, item: threading.current_thread().name, [0]) == [main]


def test_an_error_in_a_worker_is_raised_when_all_have_ended():
    ended = []

    def work(model, item):
        if item == 0:
            raise ZeroDivisionError("here")
        ended.append(item)

    with Workers(GPT(CONFIG), 2) as workers:
        with pytest.raises(ZeroDivisionError, match="here"):
            workers.each(work, [0, 1])
        assert ended == [1]
        assert workers.each(lambda model, item: item, [5]) == [5]           # and the workers still work


def test_shared_rows_are_divided_into_pieces_that_are_worth_a_thread():
    with ThreadPoolExecutor(3) as pool:
        assert cpu.each_part(lambda begin, end: (begin, end), 50, 16) == [(0, 50)]
        with cpu.share_rows(pool, 4):
            assert cpu.each_part(lambda begin, end: (begin, end), 50, 16) == [(0, 16), (16, 33), (33, 50)]
            assert cpu.each_part(lambda begin, end: (begin, end), 31, 16) == [(0, 31)]
            assert cpu.each_part(lambda begin, end: (begin, end), 0, 1) == [(0, 0)]
        assert cpu.each_part(lambda begin, end: (begin, end), 50, 16) == [(0, 50)]


RESIDENT = """
import mmap
import sys
import numpy as np
from minigpt.parallel import Threads

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE / 2 ** 20

with Threads(1, large=bool(int(sys.argv[1]))):
    before = resident()
    array = np.ones(int(sys.argv[2]) << 18, np.float32)
    during = resident()
    del array
    print(during - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to do with freed memory")
@pytest.mark.parametrize("large, megabytes, kept", [(0, 20, True), (0, 64, False), (1, 64, True)])
def test_the_memory_of_freed_arrays_is_kept_for_the_next_ones(large, megabytes, kept):
    """In a process of its own, since it holds for all that follows."""
    told = subprocess.run([sys.executable, "-c", RESIDENT, str(large), str(megabytes)], capture_output=True, text=True, check=True)
    during, after = map(float, told.stdout.split())
    assert during > 0.9 * megabytes
    assert after > 0.9 * megabytes if kept else after < 0.1 * megabytes
