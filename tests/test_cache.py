"""The key/value cache: however a text is cut into pieces, the logits are those of one pass over all of it."""
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lively import MODELS, V, lively_model
from numerics import assert_close

from minigpt import ops
from minigpt.kernels import cpu
from minigpt.models.gpt import GPT
from minigpt.reader import Crew, Reader, equal_work

each_model = pytest.mark.parametrize("name", MODELS)
WITHIN = {"float32": 1e-4, "float64": 1e-10}
CONTEXT = 40


def tokens(*shape, seed=0):
    return np.random.default_rng(seed).integers(V, size=shape)


@each_model
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6), B=st.integers(1, 3),
       dtype=st.sampled_from(list(WITHIN)))
def test_any_split_into_pieces_gives_the_logits_of_one_pass(name, lengths, B, dtype, backend):
    model, ends = lively_model(name, context=72, dtype=dtype), np.cumsum(lengths)
    ids, cache = tokens(B, ends[-1]), model.new_cache(B)
    texts = cache.texts()
    pieces = [model(ids[:, end - length:end], texts).data for length, end in zip(lengths, ends)]
    whole = model(ids).data
    assert np.abs(whole).max() > 1
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=0, atol=WITHIN[dtype])
    assert cache.lengths.tolist() == [ends[-1]] * B


@st.composite
def schedules(draw):
    """What is read when: lists of (texts, how many positions of each), for texts of unequal lengths in any slots."""
    slots = draw(st.permutations(range(5)))[:draw(st.integers(1, 4))]
    left, schedule = {slot: CONTEXT for slot in slots}, []
    for _ in range(draw(st.integers(1, 7))):
        chosen = draw(st.permutations(slots))[:draw(st.integers(1, len(slots)))]
        most = min(left[slot] for slot in chosen)
        if most:
            T = draw(st.integers(1, min(most, 13)))
            schedule.append((chosen, T))
            for slot in chosen:
                left[slot] -= T
    return schedule


@each_model
@given(schedule=schedules(), dtype=st.sampled_from(list(WITHIN)))
def test_texts_of_unequal_lengths_are_read_in_any_batches(name, schedule, dtype, backend):
    model, ids = lively_model(name, CONTEXT, dtype), tokens(5, CONTEXT)
    cache, done, logits = model.new_cache(5), [0] * 5, [[] for _ in range(5)]
    for slots, T in schedule:
        new = np.stack([ids[slot, done[slot]:done[slot] + T] for slot in slots])
        for slot, rows in zip(slots, model(new, cache.texts(slots)).data):
            logits[slot].append(rows)
            done[slot] += T
    assert cache.lengths.tolist() == done
    for slot in range(5):
        if done[slot]:
            np.testing.assert_allclose(np.concatenate(logits[slot]), model(ids[slot:slot + 1, :done[slot]]).data[0],
                                       rtol=0, atol=WITHIN[dtype])


@each_model
def test_what_was_read_can_be_forgotten(name, backend):
    model, ids = lively_model(name, CONTEXT), tokens(1, 20)
    cache = model.new_cache()
    model(ids, cache.texts())
    cache.lengths[0] = 7
    again = model(ids[:, 7:], cache.texts()).data
    np.testing.assert_allclose(again, model(ids).data[:, 7:], atol=1e-10)


@each_model
def test_more_than_the_context_is_an_error(name):
    model = lively_model(name, context=8)
    texts = model.new_cache().texts()
    model(tokens(1, 6), texts)
    with pytest.raises(ValueError, match="9 positions are more than the model's context of 8"):
        model(tokens(1, 3), texts)
    with pytest.raises(ValueError, match="9 positions"):
        model(tokens(1, 9))


# ---- attention over the cache ----

@given(B=st.integers(1, 3), T=st.integers(1, 9), H=st.integers(1, 5), D=st.sampled_from([1, 2, 5, 8, 17]),
       capacity=st.integers(9, 40), threads=st.integers(1, 3), seed=st.integers(0, 99),
       dtype=st.sampled_from([np.float32, np.float64]))
def test_it_is_attention_with_as_many_keys_as_each_text_has(B, T, H, D, capacity, threads, seed, dtype, backend):
    rng = np.random.default_rng(seed)
    q, (k, v) = rng.normal(size=(B, T, H, D)).astype(dtype), rng.normal(size=(2, 4, capacity, H, D)).astype(dtype)
    slots, lengths = rng.permutation(4)[:B], rng.integers(0, capacity - T + 1, size=B)
    before = cpu.threads()
    cpu.set_threads(threads)
    try:
        y = ops.cached_attention(q, k, v, slots, lengths)
    finally:
        cpu.set_threads(before)
    assert y.dtype == dtype
    for b in range(B):
        seen = slice(slots[b], slots[b] + 1), slice(0, lengths[b] + T)
        with_all = ops.attention(*(x.astype(np.float64) for x in (q[b:b + 1], k[seen], v[seen]))).data
        assert_close(y[b:b + 1], with_all, size=1)


def test_so_much_work_is_shared_by_the_threads(backend):
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(2, 3, 6, 32)), *rng.normal(size=(2, 3, 500, 6, 32))
    slots, lengths = np.array([2, 0]), np.array([490, 77])
    alone = ops.cached_attention(q, k, v, slots, lengths)
    with Crew(3):
        np.testing.assert_array_equal(ops.cached_attention(q, k, v, slots, lengths), alone)
    assert_close(alone[1:], ops.attention(q[1:], k[:1, :80], v[:1, :80]).data)


@pytest.mark.parametrize("wrong", [
    {"slots": np.array([0, 3])}, {"slots": np.array([-1, 0])}, {"lengths": np.array([9, 0])},
    {"lengths": np.array([0, -1])}, {"slots": np.array([0])}, {"lengths": np.array([0, 1], np.int32)}, {"v": np.zeros((3, 10, 2, 5))},
    {"q": np.zeros((2, 2, 2, 5))}], ids=lambda wrong: next(iter(wrong)))
def test_arguments_that_do_not_fit_are_refused(wrong, backend):
    right = {"q": np.zeros((2, 2, 2, 4)), "k": np.zeros((3, 10, 2, 4)), "v": np.zeros((3, 10, 2, 4)),
             "slots": np.array([0, 2]), "lengths": np.array([8, 0])}
    ops.cached_attention(*right.values())
    with pytest.raises(ValueError, match="cached_attention"):
        ops.cached_attention(*(right | wrong).values())


# ---- reading with several threads ----

@each_model
@given(chunks=st.lists(st.integers(1, 90), min_size=1, max_size=4), threads=st.integers(1, 4))
def test_positions_split_over_threads_give_the_same(name, chunks, threads, backend):
    model = lively_model(name, context=400, layers=3)
    ids, ends = tokens(1, sum(chunks)), np.cumsum(chunks)
    whole = model(ids).data[0]
    with Crew(threads) as crew:
        reader = Reader(model, crew, slots=2)
        for length, end in zip(chunks, ends):
            np.testing.assert_allclose(reader.read(1, ids[0, end - length:end].tolist()), whole[end - 1], atol=1e-10)
            assert reader.length(1) == end and reader.length(0) == 0
        more = reader.each([1], np.array([[3, 4]]))[0]
    np.testing.assert_allclose(more, model(np.append(ids, [[3, 4]], 1)).data[0, -2:], atol=1e-10)


@given(begin=st.integers(0, 2000), number=st.integers(64, 600), parts=st.integers(1, 4),
       width=st.sampled_from([1, 12, 128, 768]))
def test_the_parts_of_a_prompt_are_equal_work(begin, number, parts, width):
    ends = equal_work(begin, number, parts, width)
    assert (ends[0], ends[-1], len(ends)) == (0, number, parts + 1) and ends == sorted(set(ends))
    work = [sum(24 * width ** 2 + 2 * 4 * width * p for p in range(begin + i, begin + j)) for i, j in zip(ends, ends[1:])]
    assert max(work) - min(work) <= 2 * (24 * width ** 2 + 8 * width * (begin + number))


@each_model
@pytest.mark.parametrize("B", [1, 8, 9, 19])
def test_many_texts_are_split_over_threads(name, B):
    model, ids = lively_model(name, CONTEXT), tokens(B, 12)
    with Crew(3) as crew:
        reader = Reader(model, crew, slots=B)
        for slot in range(B):
            reader.read(slot, ids[slot, :3 + slot % 5].tolist())
        order = np.random.default_rng(1).permutation(B)
        for step in range(3):
            logits = reader.each(order.tolist(), np.stack([ids[s, [3 + s % 5 + step]] for s in order]))
        for row, s in zip(logits[:, 0], order):
            np.testing.assert_allclose(row, model(ids[s:s + 1, :6 + s % 5]).data[0, -1], atol=1e-10)


def test_an_error_in_one_thread_ends_all(monkeypatch):
    model, stream = lively_model(context=400), GPT.stream

    def broken(self, ids, cache=None, seeds=None):
        if cache.begin == 0:
            raise ZeroDivisionError
        return stream(self, ids, cache, seeds)

    monkeypatch.setattr(GPT, "stream", broken)
    with Crew(3) as crew, pytest.raises(ZeroDivisionError):
        Reader(model, crew).read(0, [1] * 100)


def test_a_crew_gives_the_threads_back():
    before = cpu.threads()
    with Crew(3):
        assert cpu.threads() == (3 if cpu.available() else 1)
        with Crew(2):
            pass
        assert cpu.threads() == (3 if cpu.available() else 1)
    assert cpu.threads() == before and not [t for t in threading.enumerate() if t.name.startswith("worker")]
