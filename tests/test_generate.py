"""Generation: requests in any company give what each gives alone; when it ends, and what is said of it."""
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lively import MODELS, TOKENIZER, V, greedy, lively_model

from minigpt.generate import Engine, Request, generate_text
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.sampling import Chance, Rules, log_probabilities, next_token, top
from minigpt.settings import UserError
from minigpt.speculative import Speculation
from minigpt.tokenizers import BpeTokenizer

GREEDY = Rules(0)


def prompt(length, seed=0):
    return np.random.default_rng(seed).integers(V, size=length).tolist()


def ids_of(job):
    return [token.id for token in job.tokens]


def run(model, *requests, tokenizer=TOKENIZER, **options):
    """The jobs of requests that are all submitted at once."""
    with Engine(model, tokenizer, **options) as engine:
        jobs = [engine.submit(request) for request in requests]
        engine.run()
    return jobs


def text_of(model, prompt="abc", length=30, **options):
    return "".join(generate_text(model, TOKENIZER, prompt, length, **options))


# ---- the same in any company ----

REQUESTS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 10), st.sampled_from([0, 1.5])), min_size=1, max_size=5)


@pytest.mark.parametrize("name", MODELS)
@given(sizes=REQUESTS, slots=st.integers(1, 4), chunk=st.integers(1, 33), workers=st.integers(1, 3),
       pauses=st.lists(st.integers(0, 6), min_size=5, max_size=5))
def test_what_a_request_gives_does_not_depend_on_its_company(name, sizes, slots, chunk, workers, pauses, backend):
    """Requests come one after the other, wait for a slot, are read in chunks and decoded in batches of unequal lengths."""
    model = lively_model(name, context=40)
    requests = [Request(prompt(n, seed=i), length, Rules(temperature), seed=i)
                for i, (n, length, temperature) in enumerate(sizes)]
    with Engine(model, TOKENIZER, slots, workers, chunk) as engine:
        jobs = []
        for request, pause in zip(requests, pauses):
            jobs.append(engine.submit(request))
            for _ in range(pause):
                engine.step()
        engine.run()
    for request, job in zip(requests, jobs):
        assert ids_of(job) == one_by_one(model, request) and job.reason == "length"
        assert job.ids == [*request.prompt, *ids_of(job)]
        assert job.text == TOKENIZER.decode(ids_of(job))


def one_by_one(model, request):
    """The tokens of a request, each by a pass over everything before it."""
    if request.rules.temperature == 0:
        return greedy(model, request.prompt, request.length)
    ids, chance = list(request.prompt), Chance(request.seed)
    for _ in range(request.length):
        ids.append(next_token(model(np.array([ids])).data[0, -1], request.rules, chance))
    return ids[-request.length:]


def test_in_float32_greedy_text_is_that_of_full_passes_where_no_two_tokens_are_equally_likely():
    model = lively_model(context=64, dtype=np.float32)
    for job in run(model, *(Request(prompt(n, n), 20, GREEDY) for n in (3, 30, 17, 1)), slots=3, workers=2):
        for n in range(len(job.ids) - 20, len(job.ids)):
            logits = model(np.array([job.ids[:n]])).data[0, -1]
            assert logits.max() - logits[job.ids[n]] < 1e-4


def generated_by_passes(model, ids, number, rules, seed):
    """`number` tokens, each from a pass over the window; when the context is full, its later half goes in anew."""
    context, ids, chance, begin = model.config.context, list(ids), Chance(seed), 0
    for _ in range(number):
        if len(ids) - begin > context:
            begin = len(ids) - max(1, context // 2)
        ids.append(next_token(model(np.array([ids[begin:]])).data[0, -1], rules, chance))
    return ids[-number:]


@pytest.mark.parametrize("temperature", [0, 2])
@pytest.mark.parametrize("context, length", [(1, 1), (2, 1), (5, 2), (8, 3), (8, 8), (40, 39)])
def test_a_window_that_slides_begins_anew_with_its_later_half(context, length, temperature):
    model, rules = lively_model(context=context), Rules(temperature)
    job, = run(model, Request(prompt(length), 4 * context, rules, seed=3, slide=True), workers=2)
    assert ids_of(job) == generated_by_passes(model, job.request.prompt, 4 * context, rules, seed=3)
    assert job.reason == "length"


# ---- when it ends ----

def test_without_sliding_a_text_ends_with_the_context():
    model = lively_model(context=8)
    job, exact, shorter = run(model, *(Request(prompt(5), length, GREEDY) for length in (30, 4, 3)), slots=3)
    assert (job.reason, len(job.tokens)) == ("context", 4)              # the last of them was never read
    assert (exact.reason, len(exact.tokens)) == ("length", 4)
    assert (shorter.reason, len(shorter.tokens)) == ("length", 3)
    full, = run(model, Request(prompt(8), 30, GREEDY))
    assert (full.reason, len(full.tokens)) == ("context", 1)


def test_a_token_that_ends_it_is_counted_and_not_shown():
    model = lively_model(context=40)
    free, = run(model, Request(prompt(3), 20, Rules(1.5), seed=1))
    token = ids_of(free)[12]
    first = ids_of(free).index(token)
    job, = run(model, Request(prompt(3), 20, Rules(1.5), seed=1, end=(token,)))
    assert job.reason == "end" and ids_of(job) == ids_of(free)[:first + 1]
    assert job.text == TOKENIZER.decode(ids_of(free)[:first])


def test_the_end_of_text_of_gpt_2_ends_it_where_the_tokenizer_has_it():
    plain = BpeTokenizer.train("abc abd", 257)
    tokenizer = BpeTokenizer(plain.vocabulary, plain.merges, {"<pad>": 257, "<|endoftext|>": 258})
    model = GPT(GPTConfig(259, 300, 1, 1, 4))

    def run_with(seed, tokenizer, **end):
        return run(model, Request([1, 2], 290, seed=seed, **end), tokenizer=tokenizer)[0]

    seed = next(seed for seed in count() if 258 in ids_of(run_with(seed, tokenizer, end=()))[20:])
    free = run_with(seed, tokenizer, end=())
    before = ids_of(free).index(258)
    assert free.reason == "length" and ids_of(run_with(seed, None)) == ids_of(free)         # no tokenizer knows of it
    job = run_with(seed, tokenizer)
    assert (job.reason, ids_of(job)) == ("end", ids_of(free)[:before + 1])
    assert job.text == tokenizer.decode(ids_of(free)[:before])
    assert "".join(generate_text(model, tokenizer, tokenizer.decode([1, 2]), 290, seed)) == job.text
    with Speculation(model, model, Rules(), Chance(0)) as speculation:
        speculation.generate = lambda prompt, length: iter(ids_of(free))
        assert "".join(speculation.text(tokenizer, "a", 290)) == job.text
    other = BpeTokenizer(plain.vocabulary, plain.merges, {"<pad>": 257, "<end>": 258})      # another special token is none
    assert run_with(seed, other).reason == "length"


def test_a_stop_text_ends_it_and_is_not_shown():
    model = lively_model(context=64)
    free, = run(model, Request(prompt(3), 40, Rules(1.5), seed=1))
    stop = free.text[17:20]
    for stops in (stop,), ("never said", stop):
        job, = run(model, Request(prompt(3), 40, Rules(1.5), seed=1, stop=stops))
        assert job.reason == "stop" and job.text == free.text[:free.text.index(stop)]
    job, = run(model, Request(prompt(3), 19, Rules(1.5), seed=1, stop=(stop,)))
    assert job.text == free.text[:19] and job.reason == "length" or free.text.index(stop) < 16


def test_one_is_cancelled_and_the_others_go_on():
    model, seen = lively_model(context=64), []

    def on_token(job, token):
        seen.append(token.id)
        if len(job.tokens) == 5:
            job.cancel()

    with Engine(model, TOKENIZER, slots=2) as engine:
        one, other = engine.submit(Request(prompt(3), 30), on_token), engine.submit(Request(prompt(4), 30))
        waiting, third = engine.submit(Request(prompt(5), 2)), engine.submit(Request(prompt(5), 2))
        waiting.cancel()
        engine.run()
    assert (one.reason, seen) == ("cancelled", ids_of(one)) and len(seen) == 5
    assert (other.reason, len(other.tokens)) == ("length", 30)
    assert (waiting.reason, waiting.tokens) == ("cancelled", []) and third.reason == "length"


def test_it_is_cancelled_between_the_chunks_of_a_prompt():
    model = lively_model(context=64)
    with Engine(model, TOKENIZER, chunk=10) as engine:
        job = engine.submit(Request(prompt(60), 4))
        assert engine.step() and engine.step()
        assert engine.reader.length(0) == 20 and job.unread == prompt(60)[20:]
        job.cancel()
        assert not engine.step()
        assert engine.reader.length(0) == 20 and job.reason == "cancelled" and engine.free == [0]


def test_a_long_prompt_does_not_stop_those_who_speak():
    model = lively_model(context=64)
    with Engine(model, TOKENIZER, slots=2, chunk=10) as engine:
        speaker = engine.submit(Request([1], 20, GREEDY))
        engine.step()
        engine.submit(Request(prompt(60), 4, GREEDY))
        for spoken in range(2, 6):
            engine.step()
            assert len(speaker.tokens) == spoken


def test_callbacks_get_every_token_and_the_job_when_it_ended():
    calls = []
    with Engine(lively_model(), TOKENIZER, slots=2) as engine:
        jobs = [engine.submit(Request(prompt(2), n), lambda job, token: calls.append((job, token, job.reason)))
                for n in (3, 5)]
        engine.run()
    for job in jobs:
        mine = [(token, reason) for who, token, reason in calls if who is job]
        assert [token for token, _ in mine] == job.tokens
        assert [reason for _, reason in mine] == [None] * (len(job.tokens) - 1) + ["length"]


def test_a_callback_that_fails_harms_no_other_text():
    def fail(job, token):
        raise ZeroDivisionError

    model = lively_model(context=30)
    with Engine(model, TOKENIZER, slots=2) as engine:
        jobs = [engine.submit(Request([1], 5, GREEDY), fail), engine.submit(Request([2], 5, GREEDY))]
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                engine.step()
    assert [ids_of(job) for job in jobs] == [greedy(model, [1], 5), greedy(model, [2], 5)]


def test_log_probabilities_are_the_models_own_whatever_the_rules():
    model = lively_model(context=30)
    job, = run(model, Request(prompt(4), 8, Rules(0.7, top_k=2), seed=3, top=3))
    for n, token in zip(count(4), job.tokens):
        log_p = log_probabilities(model(np.array([job.ids[:n]])).data[0, -1])
        assert token.log_probability == pytest.approx(log_p[token.id], abs=1e-10)
        assert [i for i, _ in token.top] == [i for i, _ in top(log_p, 3)]
        np.testing.assert_allclose([value for _, value in token.top], [value for _, value in top(log_p, 3)], atol=1e-10)
    assert all(token.log_probability is None and token.top == [] for token in run(model, Request([1], 3))[0].tokens)


def test_without_a_tokenizer_there_are_tokens_and_no_text():
    job, = run(lively_model(), Request(prompt(3), 4, GREEDY), tokenizer=None)
    assert ids_of(job) == greedy(lively_model(), prompt(3), 4) and job.text == ""


def test_nothing_is_dropped_in_generation():
    assert text_of(lively_model(dropout=0.5)) == text_of(lively_model())


# ---- bad input ----

@pytest.mark.parametrize("request_, part", [
    (Request([], 5), "the prompt is empty: give at least one token"),
    (Request(prompt(11), 5), "the prompt has 11 tokens, and the model reads at most 8: shorten it by 3"),
    (Request([0, V], 5), f"the prompt has the token {V}, and the model's are 0 ... {V - 1}"),
    (Request([-1], 5), "the prompt has the token -1"),
    (Request([1], 0), "length is 0"), (Request([1], 1, top=-1), "top is -1"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_request_that_cannot_be_done_is_one_sentence(request_, part):
    with Engine(lively_model(), TOKENIZER) as engine, pytest.raises(UserError) as caught:
        engine.submit(request_)
    assert part in str(caught.value) and not engine.waiting


def test_stop_texts_need_a_tokenizer():
    with Engine(lively_model()) as engine, pytest.raises(UserError, match="stop texts need a tokenizer"):
        engine.submit(Request([1], 5, stop=("a",)))


def test_damaged_weights_are_one_sentence():
    model = lively_model()
    model.flat.data[7] = np.nan
    with pytest.raises(UserError, match="its weights are damaged"):
        text_of(model)


# ---- the text ----

def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    model = lively_model()
    texts = [text_of(model, seed=seed) for seed in (0, 1, 2)]
    assert len(set(texts)) == 3
    assert texts == [text_of(model, seed=seed) for seed in (0, 1, 2)]
    assert all(len(text) == 30 for text in texts)


def test_the_text_comes_in_pieces_as_soon_as_each_is_clear():
    model = lively_model(context=64)
    pieces = list(generate_text(model, TOKENIZER, "abc", 30))
    assert len(pieces) == 30 and "".join(pieces) == text_of(model)
    stop = text_of(model)[20:23]
    assert text_of(model, stop=stop) == text_of(model).partition(stop)[0]


@pytest.mark.parametrize("prompt_, part", [("", "the prompt is empty"), ("abxz", "'x', 'z'"), ("a" * 9, "9 tokens")])
def test_a_prompt_that_cannot_be_used_is_one_sentence(prompt_, part):
    with pytest.raises(UserError, match=part):
        text_of(lively_model(), prompt_)
