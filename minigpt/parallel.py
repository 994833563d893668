"""Micro-batches over worker threads, and over ranks.

A step's batch is cut into micro-batches of a few sequences. Each worker thread, one a core, takes its micro-batches
through the whole forward and backward pass on its own replica of the model, which shares the weights and owns its
gradients. So a worker's activations stay in its core's cache, and the only thing that workers ever exchange is one sum
of gradients a step. NumPy's BLAS and our kernels release the GIL, so threads do run side by side.

While workers run, BLAS is held to one thread: with two pools of threads spinning for work on the same cores, a step
was measured to take seven times as long.

Where several ranks train together (ranks.py), all their workers are numbered through, those of the first rank first,
and after each rank has summed the gradients of its own workers, the ranks sum theirs.

A batch of fewer sequences than workers is one micro-batch, and the rows of each large operation are shared among them.

Micro-batch i always goes to worker i mod n, and gradients are summed in the order of the workers: the same run gives
the same bits again, on the same machine with the same number of workers and ranks.
"""
import contextvars
import ctypes
import os
import platform
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from fractions import Fraction

import numpy as np
from threadpoolctl import threadpool_limits

from .kernels import cpu
from .nn import replica
from .ranks import ALONE


LARGE = 64 << 20                    # bytes of a model whose steps make arrays above 32 MB


def cores(ranks=ALONE):
    """How many cores this rank may use: its part of those that it shares with other ranks on its machine; at least 1."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    own = [(platform.node(), core) for core in own]
    users = Counter(core for cores in ranks.every(own) for core in cores)
    return max(1, int(sum(Fraction(1, users[core]) for core in own)))


def threads_for(model, ranks=ALONE):
    """How many worker threads are worth having for a model: one a core; one, where it is on a GPU and only has to be told
    what to do."""
    return cores(ranks) if isinstance(model.flat.data, np.ndarray) else 1


def keep_freed_memory(large=False):
    """Have the C library keep the memory of freed arrays for the next ones (glibc; elsewhere nothing happens).

    By default glibc hands a large array back to the system when it is freed and gets the next one anew, page by page,
    each of them zeroed first: measured at 15% of a training step, which makes and frees the same arrays each time.

    large: arrays above 32 MB, too. For them glibc asks the system each time, unless it may not and all threads share one
    heap: a step of GPT-2 takes 0.88 of the time. Not so for small models, whose threads are better off each with a heap of
    its own, which is in its core's cache.
    """
    mmap_threshold, trim_threshold, mmap_max, arena_max = -3, -1, -4, -8    # M_MMAP_THRESHOLD and so on, of malloc.h
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 << 20)              # the largest value that glibc takes
        libc.mallopt(trim_threshold, -1)                    # nothing is handed back when the end of the heap is free
        if large:
            libc.mallopt(mmap_max, 0)
            libc.mallopt(arena_max, 1)
    except (AttributeError, OSError, TypeError):            # no glibc
        pass


class Threads:
    """`number` worker threads, and BLAS held to one thread meanwhile. A context: `with Threads(2) as threads:`.

    One of them is the thread that asks for work: to wake another and to sleep until it has ended takes longer, up to 0.1 ms.
    large: whether they make arrays above 32 MB (keep_freed_memory).
    """

    def __init__(self, number, large=False):
        self.number, self.large = number, large

    def __enter__(self):
        keep_freed_memory(self.large)
        self.blas = threadpool_limits(1, user_api="blas")
        self.pool = ThreadPoolExecutor(max(1, self.number - 1), thread_name_prefix="worker")
        return self

    def __exit__(self, *exception):
        self.pool.shutdown(cancel_futures=True)
        self.blas.restore_original_limits()

    def map(self, function, parts):
        """[function(part) for part in parts], side by side, begun in this order; an error in one is raised when all have
        ended."""
        todo = deque(enumerate(parts))
        results, errors, others = [None] * len(todo), {}, min(self.number, len(todo)) - 1

        def take():
            try:
                return todo.popleft()
            except IndexError:                              # there are none any more
                return None

        def work(taken):
            while taken is not None:
                i, part = taken
                try:
                    results[i] = function(part)
                except Exception as error:
                    errors[i] = error
                taken = take()

        first = take()                                      # for this thread: what it shares needs all others (share_rows)
        futures = [self.pool.submit(contextvars.copy_context().run, lambda: work(take())) for _ in range(others)]
        try:
            work(first)
        finally:
            wait(futures)                                   # so that nothing runs on after Ctrl-C
        if errors:
            raise errors[min(errors)]
        return results


class Workers(Threads):
    """`number` worker threads for a model (0: one a core, or one for a GPU), a context: `with Workers(model) as workers:`.

    With several ranks these are the workers of this rank; `total` counts those of all.
    """

    def __init__(self, model, number=None, ranks=ALONE):
        super().__init__(number or threads_for(model, ranks), large=model.flat.data.nbytes > LARGE)
        self.model, self.ranks = model, ranks
        self.replicas = [model, *(replica(model) for _ in range(self.number - 1))]
        numbers = ranks.every(self.number)
        self.begin, self.total = sum(numbers[:ranks.rank]), sum(numbers)

    def each(self, function, items):
        """function(replica, item) for every item, item i on worker i mod n, in order; the results in order.

        Every rank hands in all the items, has its own workers work on theirs, and gets the results of all.
        """
        def work(worker):
            return [function(self.replicas[worker], item) for item in items[self.begin + worker::self.total]]

        results, done = [None] * len(items), self.ranks.every(self.map(work, range(self.number)))
        for worker, part in enumerate(part for parts in done for part in parts):
            results[worker::self.total] = part
        return results

    def gradient(self, loss, micro_batches):
        """The sum of loss(model, micro_batch), a float, with its gradient in model.flat.grad.

        loss(model, micro_batch) returns a scalar Tensor: that micro-batch's share of the step's loss.
        """
        def forward_and_backward(model, micro_batch):
            y = loss(model, micro_batch)
            y.backward()
            return y.item()

        alone = len(micro_batches) == 1 and self.number > 1     # its rows are shared among the workers instead
        for twin in self.replicas:
            twin.flat.forget_gradients()
        with cpu.share_rows(self.pool, self.number) if alone else nullcontext():
            losses = self.each(forward_and_backward, micro_batches)
        for twin in self.replicas:
            twin.flat.complete_gradients()
        self.map(self.sum_of_gradients, cut(len(self.model.flat.grad), self.number))
        self.ranks.sum(self.model.flat.grad)
        return sum(losses)

    def sum_of_gradients(self, part):
        """Add the gradients of all replicas up in the model's, for a slice of the block."""
        for twin in self.replicas[1:]:
            self.model.flat.grad[part] += twin.flat.grad[part]


def cut(n, parts):
    """The slices of 0 ... n in as many parts of nearly one size."""
    ends = [n * i // parts for i in range(parts + 1)]
    return [slice(begin, end) for begin, end in zip(ends, ends[1:])]
