"""The threads that kernels for single tokens share (pool.h says how they work); one thread, unless told otherwise.

This is the only module that includes pool.h, so there is one pool. Other kernels get `run` and `threads_now` from its
.pxd, which lies in minigpt/kernels/cpu, where Cython looks for it by the module's full name.
"""
cdef extern from "pool.h" nogil:
    void pool_run(Task task, void *what, long parts)
    long pool_resize(long number)
    long pool_threads()
    double pool_read(const float *x, long n)


cdef void run(Task task, void *what, long parts) noexcept nogil:
    pool_run(task, what, parts)


cdef long threads_now() noexcept nogil:
    return pool_threads()


def threads():
    """How many threads work on a kernel's parts, the calling one among them."""
    return pool_threads()


def set_threads(long wanted):
    """Have as many threads work from the next call on; returns how many there are. Those that are too many sleep."""
    return pool_resize(wanted)


def read_through(const float[::1] x):
    """Read the numbers of x once, on all threads, and return their sum: how fast memory can deliver, for benchmarks."""
    cdef double total
    with nogil:
        total = pool_read(&x[0], x.shape[0])
    return total
