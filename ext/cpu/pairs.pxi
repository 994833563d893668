# Two structures of data for bpe.pyx, which includes this file: a hash table of pairs, and a heap.

cdef int32_t NEVER = 0x7FFFFFFF     # the number of a pair that is not in the table


cdef inline uint64_t pair_of(uint64_t left, uint64_t right) noexcept nogil:
    return left << 32 | right


cdef class Pairs:
    """A hash table: the pairs of ids, numbered in the order in which they came. Half of the slots stay empty."""
    cdef uint64_t[::1] keys                                                 # the pair plus 1; 0 in an empty slot
    cdef int32_t[::1] numbers
    cdef int32_t size

    def __init__(self):
        self.keys, self.numbers = np.zeros(1 << 10, np.uint64), np.zeros(1 << 10, np.int32)

    cdef inline Py_ssize_t slot(self, uint64_t pair) noexcept nogil:
        """Where the pair is, or would be: a multiplication mixes its bits, and the next slots are tried in turn."""
        cdef uint64_t mixed = pair * <uint64_t>0x9E3779B97F4A7C15
        cdef Py_ssize_t mask = self.keys.shape[0] - 1, slot = (mixed ^ mixed >> 32) & mask
        while self.keys[slot] != 0 and self.keys[slot] != pair + 1:
            slot = (slot + 1) & mask
        return slot

    cdef inline int32_t find(self, uint64_t pair) noexcept nogil:
        """The number of the pair, or NEVER."""
        cdef Py_ssize_t slot = self.slot(pair)
        return self.numbers[slot] if self.keys[slot] else NEVER

    cdef int32_t number(self, uint64_t pair):
        """The number of the pair, which is added where it is not there yet."""
        cdef Py_ssize_t slot = self.slot(pair)
        if not self.keys[slot]:
            self.keys[slot], self.numbers[slot] = pair + 1, self.size
            self.size += 1
            if 2 * self.size > self.keys.shape[0]:
                self.grow()
            return self.size - 1
        return self.numbers[slot]

    cdef grow(self):
        cdef uint64_t[::1] keys = self.keys
        cdef int32_t[::1] numbers = self.numbers
        cdef Py_ssize_t i, slot
        self.keys, self.numbers = np.zeros(2 * len(keys), np.uint64), np.zeros(2 * len(keys), np.int32)
        for i in range(keys.shape[0]):
            if keys[i]:
                slot = self.slot(keys[i] - 1)
                self.keys[slot], self.numbers[slot] = keys[i], numbers[i]


cdef class Heap:
    """Pairs of numbers (priority, key): the highest priority is on top, and among equals the lowest key."""
    cdef int64_t[::1] priorities
    cdef uint64_t[::1] keys
    cdef Py_ssize_t size

    def __init__(self, capacity):
        self.priorities, self.keys = np.empty(capacity + 1, np.int64), np.empty(capacity + 1, np.uint64)

    cdef inline bint before(self, int64_t priority, uint64_t key, Py_ssize_t i) noexcept nogil:
        return priority > self.priorities[i] or (priority == self.priorities[i] and key < self.keys[i])

    cdef void push(self, int64_t priority, uint64_t key) noexcept nogil:
        cdef Py_ssize_t i = self.size
        self.size += 1
        while i > 0 and self.before(priority, key, (i - 1) >> 1):           # parents move down, until it fits
            self.priorities[i], self.keys[i] = self.priorities[(i - 1) >> 1], self.keys[(i - 1) >> 1]
            i = (i - 1) >> 1
        self.priorities[i], self.keys[i] = priority, key

    cdef void pop(self) noexcept nogil:
        """Remove the top: the last one looks for its place from there."""
        self.size -= 1
        cdef Py_ssize_t i = 0, child = 1, n = self.size
        cdef int64_t priority = self.priorities[n]
        cdef uint64_t key = self.keys[n]
        while child < n:
            if child + 1 < n and self.before(self.priorities[child + 1], self.keys[child + 1], child):
                child += 1
            if self.before(priority, key, child):
                break
            self.priorities[i], self.keys[i] = self.priorities[child], self.keys[child]
            i, child = child, 2 * child + 1
        self.priorities[i], self.keys[i] = priority, key
