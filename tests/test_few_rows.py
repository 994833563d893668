"""linear of few rows: the matrix is split over threads that wait for it, whose pool is tested here as well."""
import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numerics import assert_close

from minigpt import kernels, ops
from minigpt.kernels import cpu

compiled = pytest.mark.skipif(not cpu.available(), reason="no compiled kernels")


@pytest.fixture
def threads():
    """cpu.set_threads, undone afterwards."""
    before = cpu.threads()
    yield cpu.set_threads
    cpu.set_threads(before)


SIZES = st.one_of(st.integers(1, 40), st.sampled_from([64, 255, 300]))


@given(N=st.integers(0, 10), I=SIZES, O=SIZES | st.sampled_from([4095, 4113, 9000]), transposed=st.booleans(),
       bias=st.booleans(), number=st.integers(1, 4), dtype=st.sampled_from([np.float32, np.float64]))
def test_few_rows_are_multiplied_as_many_are(N, I, O, transposed, bias, number, dtype, threads, backend):
    threads(number)
    rng = np.random.default_rng(I * O)
    x, w, b = (rng.normal(size=size).astype(dtype) for size in ((N, I), (O, I) if transposed else (I, O), O))
    y = ops.linear(x, w, b if bias else None, transposed=transposed).data
    x, w, b = (a.astype(np.float64) for a in (x, w, b))
    assert y.dtype == dtype
    assert_close(y, x @ (w.T if transposed else w) + (b if bias else 0), size=np.sqrt(I))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_matrix_without_columns(transposed, backend):
    y = ops.linear(np.ones((3, 4)), np.ones((0, 4) if transposed else (4, 0)), np.ones(0), transposed=transposed)
    assert y.shape == (3, 0)


def product(seed, rows=2):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(rows, 300)), rng.normal(size=(300, 400))
    return x, w, x @ w


@compiled
def test_the_same_number_of_threads_gives_the_same_bits(threads):
    x, w, _ = product(0)
    threads(3)
    first = ops.linear(x, w).data
    assert all((ops.linear(x, w).data == first).all() for _ in range(200))


@compiled
def test_threads_that_ask_at_the_same_time_all_get_what_they_asked_for(threads):
    """One has the pool, the others work alone; the pool changes its size meanwhile."""
    threads(3)
    wrong, stop = [], threading.Event()

    def ask(seed):
        x, w, expected = product(seed)
        while not stop.is_set():
            if not np.allclose(ops.linear(x, w).data, expected):
                wrong.append(seed)

    asking = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in asking:
        thread.start()
    for size in (1, 4, 2, 3) * 25:
        threads(size)
        assert cpu.threads() == size
    stop.set()
    for thread in asking:
        thread.join()
    assert not wrong


@compiled
def test_threads_that_fell_asleep_wake_up(threads):
    x, w, expected = product(1)
    threads(3)
    for pause in (0, 0.0001, 0.001, 0.05, 0):
        threading.Event().wait(pause)
        np.testing.assert_allclose(ops.linear(x, w).data, expected)


@compiled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_forks_has_no_threads_and_can_have_its_own(threads):
    x, w, expected = product(2)
    threads(3)
    ops.linear(x, w)
    child = os.fork()
    if child == 0:
        ok = cpu.threads() == 1 and np.allclose(ops.linear(x, w).data, expected)
        cpu.set_threads(2)
        os._exit(0 if ok and cpu.threads() == 2 and np.allclose(ops.linear(x, w).data, expected) else 1)
    signal.alarm(60)
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        signal.alarm(0)
    np.testing.assert_allclose(ops.linear(x, w).data, expected)


@compiled
@pytest.mark.parametrize("n", [1, 63, 64, 1000, 100_003])
def test_reading_reads_every_number(n, threads):
    x = np.random.default_rng(n).integers(-9, 9, size=n).astype(np.float32)
    for number in 1, 3:
        threads(number)
        assert kernels.load("cpu", "pool").read_through(x) == x.sum(dtype=np.float64)
