"""How kernels split their work over threads: run(task, what, parts) calls task(what, part) for each part, side by side."""

ctypedef void (*Task)(void *what, long part) noexcept nogil

cdef void run(Task task, void *what, long parts) noexcept nogil

cdef long threads_now() noexcept nogil
