"""bpe on the CPU: the three functions of minigpt/tokenizers/bpe.py that take the time, over integers.

split_words     reads UTF-8 once, the class of each character from a table: no engine of regular expressions
learn_merges    counts the pairs once; a merge then changes the counts of its neighbours only, and a heap has the most
                frequent pair on top, so that a merge takes as long as there is something to change
encode_words    merges the ids of a word in place, with the pairs in a hash table; short words are remembered
"""
import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

include "pairs.pxi"

cdef enum:
    OTHER = 0                       # classes of characters, as in minigpt/tokenizers/_unicode.py
    SPACE = 3
    SCANNED = 96                    # up to so many ids the best pair is searched for, in more it is kept in a heap
    REMEMBERED = 16                 # longest word that is remembered, in bytes,
    IDS = 7                         # and the most ids of it
    PLACES = 1 << 15                # how many words can be remembered


# ---- the pattern of GPT-2 ----

cdef inline Py_ssize_t read(const uint8_t* text, Py_ssize_t i, Py_ssize_t n, const uint8_t* classes,
                            int* kind) noexcept nogil:
    """The class of the character at byte i, and where the next begins. A byte that is no UTF-8 is one of class OTHER."""
    cdef uint32_t b = text[i], point, least
    cdef Py_ssize_t length, k
    if b < 0x80:
        kind[0] = classes[b]
        return i + 1
    kind[0] = OTHER
    if b < 0xE0:
        length, point, least = 2, b & 0x1F, 0x80
    elif b < 0xF0:
        length, point, least = 3, b & 0x0F, 0x800
    else:
        length, point, least = 4, b & 0x07, 0x10000
    if b < 0xC0 or b > 0xF4 or i + length > n:
        return i + 1
    for k in range(1, length):
        if text[i + k] & 0xC0 != 0x80:
            return i + 1
        point = point << 6 | (text[i + k] & 0x3F)
    if point < least or point >= 0x110000:      # too long, or too high; half of a surrogate pair is OTHER by the table
        return i + 1
    kind[0] = classes[point]
    return i + length


cdef inline Py_ssize_t contraction(const uint8_t* text, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """The length of 's 't 'm 'd 'll 've 're at byte i, an apostrophe; 0 where there is none."""
    cdef uint8_t a = text[i + 1] if i + 1 < n else 0, b = text[i + 2] if i + 2 < n else 0
    if a == c"s" or a == c"t" or a == c"m" or a == c"d":
        return 2
    return 3 if (a == c"l" and b == c"l") or (b == c"e" and (a == c"v" or a == c"r")) else 0


cdef Py_ssize_t word_end(const uint8_t* text, Py_ssize_t i, Py_ssize_t n, const uint8_t* classes) noexcept nogil:
    """Where the word that begins at byte i ends: PATTERN of minigpt/tokenizers/bpe.py, alternative by alternative."""
    cdef int kind, other
    cdef Py_ssize_t last = i, after = read(text, i, n, classes, &kind), following
    if text[i] == c"'" and contraction(text, i, n):
        return i + contraction(text, i, n)
    if text[i] == c" " and after < n:                                       # " ?" before all but white space
        following = read(text, after, n, classes, &other)
        if other != SPACE:
            kind, after = other, following
    while after < n:                                                        # the rest of the run
        following = read(text, after, n, classes, &other)
        if other != kind:
            break
        last, after = after, following
    if kind == SPACE and after < n and last > i:                            # \s+(?!\S) leaves its last one
        return last
    return after


def split_words(const uint8_t[::1] text, const uint8_t[::1] classes):
    cdef Py_ssize_t n = text.shape[0], i = 0, words = 0
    ends = np.empty(n, np.int64)
    cdef int64_t[::1] found = ends
    with nogil:
        while i < n:
            i = word_end(&text[0], i, n, &classes[0])
            found[words] = i
            words += 1
    return ends[:words].copy()


# ---- training ----

cdef class Chains:
    """The different words as chains of ids, and of each pair of neighbours its count and the places where it stands.

    A place is the position of the left id; the right one is at next[place], which is -1 behind the end of a word. A
    place stays in the list of a pair when the pair is there no longer: ids tell.
    """
    cdef int32_t[::1] ids, next, previous                                   # (N,), N bytes in all words; -1 where merged
    cdef int64_t[::1] weights                                               # (N,): how often the word is in the text
    cdef Pairs pairs
    cdef uint64_t[::1] keys                                                 # each pair, by its number,
    cdef int64_t[::1] counts                                                # how often it is there,
    cdef int32_t[::1] first, final                                          # and the ends of its list of places ...
    cdef int32_t[::1] places, further                                       # ... which goes on at further[i]
    cdef int32_t used

    def __init__(self, words, alphabet):
        """words: {bytes: count}. A merge makes one id less and at most two pairs more: 3 N of them are enough."""
        cdef Py_ssize_t i, N = sum(map(len, words))
        if 3 * N >= 2 ** 31:
            raise MemoryError(f"the different words of the text have {N:,} bytes")
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        ends = np.cumsum(lengths)
        self.ids = alphabet[np.frombuffer(b"".join(words), np.uint8)].astype(np.int32)
        self.weights = np.repeat(np.fromiter(words.values(), np.int64, len(words)), lengths)
        following, before = np.arange(1, N + 1, dtype=np.int32), np.arange(-1, N - 1, dtype=np.int32)
        following[ends - 1] = before[ends - lengths] = -1
        self.next, self.previous, self.pairs = following, before, Pairs()
        self.keys, self.counts = np.empty(3 * N, np.uint64), np.zeros(3 * N, np.int64)
        self.first, self.final, self.places, self.further = np.full((4, 3 * N), -1, np.int32)
        for i in range(N):
            if self.next[i] >= 0:
                self.add(i)

    cdef inline uint64_t at(self, int32_t place) noexcept nogil:
        return pair_of(self.ids[place], self.ids[self.next[place]])

    cdef void add(self, int32_t place):
        """The pair at this place has come into being; places come in rising order."""
        cdef uint64_t pair = self.at(place)
        cdef int32_t number = self.pairs.number(pair), i = self.used
        self.keys[number] = pair
        self.counts[number] += self.weights[place]
        self.places[i], self.further[i] = place, -1
        if self.first[number] < 0:
            self.first[number] = i
        else:
            self.further[self.final[number]] = i
        self.final[number] = i
        self.used += 1

    cdef void remove(self, int32_t place):
        self.counts[self.pairs.find(self.at(place))] -= self.weights[place]

    cdef void merge(self, uint64_t pair, int32_t new):
        """Put the id `new` wherever the pair stands, from left to right."""
        cdef int32_t i = self.first[self.pairs.find(pair)], left, right, place
        while i >= 0:
            place, i = self.places[i], self.further[i]
            right = self.next[place]
            if self.ids[place] < 0 or right < 0 or self.at(place) != pair:
                continue
            left = self.previous[place]
            if left >= 0:
                self.remove(left)
            if self.next[right] >= 0:
                self.remove(right)
                self.previous[self.next[right]] = place
            self.ids[place], self.next[place], self.ids[right] = new, self.next[right], -1
            if left >= 0:
                self.add(left)
            if self.next[place] >= 0:
                self.add(place)


def learn_merges(text, ends, alphabet, *, number):
    cdef Chains chains = Chains(count_words(text.tobytes(), ends), alphabet)
    cdef Heap heap = Heap(len(chains.counts))
    merges = np.empty((number, 2), np.int64)
    cdef int64_t[:, ::1] found = merges
    cdef Py_ssize_t learnt, known = 0, wanted = number
    cdef int64_t count
    cdef uint64_t pair
    for learnt in range(wanted):
        for known in range(known, chains.pairs.size):                       # those of the last merge
            if chains.counts[known] > 0:
                heap.push(chains.counts[known], chains.keys[known])
        known = chains.pairs.size
        while heap.size:
            pair = heap.keys[0]
            count = chains.counts[chains.pairs.find(pair)]
            if count == heap.priorities[0]:
                break
            heap.pop()                                                      # there were more of it once
            if count > 0:
                heap.push(count, pair)
        if not heap.size:
            return merges[:learnt].copy()
        heap.pop()
        found[learnt, 0], found[learnt, 1] = pair >> 32, pair & 0xFFFFFFFF
        chains.merge(pair, 256 + learnt)
    return merges


cdef count_words(bytes text, const int64_t[::1] ends):
    """{word: how often it is in the text}."""
    cdef Py_ssize_t i, begin = 0
    cdef dict words = {}
    for i in range(ends.shape[0]):
        word = text[begin:ends[i]]
        words[word] = words.get(word, 0) + 1
        begin = ends[i]
    return words


# ---- encoding ----

cdef struct Word:
    uint64_t text[2]                                                        # its bytes, and zeros
    uint8_t length, count
    int32_t ids[IDS]


cdef class Encoder:
    """The merges in a hash table, and the words that were met lately with their ids."""
    cdef Pairs ranks
    cdef int32_t[::1] results, alphabet
    cdef Word* words                                                        # each in the one place that its bytes say

    def __cinit__(self, alphabet, merges):
        cdef int64_t[:, ::1] rows = merges
        cdef Py_ssize_t i
        self.words = <Word*>calloc(PLACES, sizeof(Word))
        if self.words == NULL:
            raise MemoryError
        self.ranks, self.alphabet = Pairs(), alphabet.astype(np.int32)
        self.results = np.ascontiguousarray(merges[:, 2], np.int32)
        for i in range(rows.shape[0]):
            self.ranks.number(pair_of(rows[i, 0], rows[i, 1]))

    def __dealloc__(self):
        free(self.words)

    cdef inline int32_t rank(self, int32_t left, int32_t right) noexcept nogil:
        return self.ranks.find(pair_of(left, right))

    cdef Py_ssize_t encode(self, const uint8_t* text, Py_ssize_t length, int32_t* ids):
        """The ids of one word, into room for `length` of them; returns how many."""
        cdef Py_ssize_t i, n
        cdef uint64_t a = 0, b = 0, mixed
        cdef Word* word
        if length > REMEMBERED:
            return self.merge(text, length, ids)
        memcpy(&a, text, min(length, 8))
        if length > 8:
            memcpy(&b, text + 8, length - 8)
        mixed = (a ^ (b << 1 | b >> 63) ^ length) * <uint64_t>0x9E3779B97F4A7C15
        word = &self.words[(mixed >> 40) & (PLACES - 1)]
        if word.text[0] == a and word.text[1] == b and word.length == length:
            for i in range(word.count):
                ids[i] = word.ids[i]
            return word.count
        n = self.merge(text, length, ids)
        if n <= IDS:                                                        # in the place of what was there
            word.text[0], word.text[1], word.length, word.count = a, b, length, n
            for i in range(n):
                word.ids[i] = ids[i]
        return n

    cdef Py_ssize_t merge(self, const uint8_t* text, Py_ssize_t n, int32_t* ids):
        cdef Py_ssize_t i
        for i in range(n):
            ids[i] = self.alphabet[text[i]]
        return self.merge_scanning(ids, n) if n <= SCANNED else self.merge_from_heap(ids, n)

    cdef Py_ssize_t merge_scanning(self, int32_t* ids, Py_ssize_t n) noexcept nogil:
        """The leftmost pair of the lowest rank, again and again; the ranks of all pairs stand in a row."""
        cdef int32_t ranks[SCANNED]
        cdef int32_t lowest
        cdef Py_ssize_t i, at
        for i in range(n - 1):
            ranks[i] = self.rank(ids[i], ids[i + 1])
        while n > 1:
            lowest, at = ranks[0], 0
            for i in range(1, n - 1):
                if ranks[i] < lowest:
                    lowest, at = ranks[i], i
            if lowest == NEVER:
                break
            ids[at] = self.results[lowest]
            n -= 1
            for i in range(at + 1, n):
                ids[i] = ids[i + 1]
            for i in range(at + 1, n - 1):
                ranks[i] = ranks[i + 1]
            if at > 0:
                ranks[at - 1] = self.rank(ids[at - 1], ids[at])
            if at < n - 1:
                ranks[at] = self.rank(ids[at], ids[at + 1])
        return n

    cdef Py_ssize_t merge_from_heap(self, int32_t* ids, Py_ssize_t n):
        """The same for long words, in n log n: the pair of a rank in the heap may be gone when its turn comes."""
        cdef Heap heap = Heap(3 * n)                                        # a merge takes one id and adds two pairs
        cdef int32_t[::1] next = np.arange(1, n + 1, dtype=np.int32), previous = np.arange(-1, n - 1, dtype=np.int32)
        cdef Py_ssize_t i, left, right, kept = 0
        cdef int32_t rank
        for i in range(n - 1):
            self.offer(heap, ids, next, i, n)
        while heap.size:
            rank, i = -heap.priorities[0], heap.keys[0]
            heap.pop()
            right = next[i]
            if ids[i] < 0 or right >= n or self.rank(ids[i], ids[right]) != rank:
                continue
            ids[i], ids[right], next[i] = self.results[rank], -1, next[right]
            if next[i] < n:
                previous[next[i]] = i
                self.offer(heap, ids, next, i, n)
            if previous[i] >= 0:
                self.offer(heap, ids, next, previous[i], n)
        for i in range(n):
            if ids[i] >= 0:
                ids[kept] = ids[i]
                kept += 1
        return kept

    cdef inline void offer(self, Heap heap, const int32_t* ids, const int32_t[::1] next, Py_ssize_t i, Py_ssize_t n) noexcept:
        cdef int32_t rank = self.rank(ids[i], ids[next[i]])
        if rank != NEVER:
            heap.push(-rank, i)


def encode_words(const uint8_t[::1] text, const int64_t[::1] ends, alphabet, merges, *, prepared):
    if "compiled" not in prepared:
        prepared["compiled"] = Encoder(alphabet, merges)
    cdef Encoder encoder = prepared["compiled"]
    cdef Py_ssize_t i, begin = 0, used = 0
    ids = np.empty(text.shape[0], np.int32)
    cdef int32_t[::1] found = ids
    for i in range(ends.shape[0]):
        used += encoder.encode(&text[begin], ends[i] - begin, &found[used])
        begin = ends[i]
    return ids[:used].astype(np.int64)
