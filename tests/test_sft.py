"""Fine-tuning: what a packed row holds, which tokens count, and that a small model learns to answer and to call a tool."""
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import small_template, small_world

from minigpt.align.chat import fitted
from minigpt.align.converse import Speaker
from minigpt.align.evaluate import abilities, ask, evaluate, is_right
from minigpt.align.lessons import Lesson, arithmetic, demonstrations, fact
from minigpt.align.sft import IGNORED, Demonstrations, SFTSettings, fine_tune, masked_loss, pack
from minigpt.align.tools import Toolbox, calculator
from minigpt.generate import Engine
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.parallel import Workers
from minigpt.sampling import Rules
from minigpt.settings import UserError
from minigpt.train import make_optimizer, update

TEMPLATE = small_template()
CONTEXT = 48


def tiny(context=CONTEXT, width=8, dtype=np.float64, layers=1, template=TEMPLATE):
    model = GPTModern(GPTModernConfig(template.tokenizer.vocabulary_size, context, layers, 2, width), seed=1, dtype=dtype)
    rng = np.random.default_rng(2)
    model.flat.data += 0.05 * rng.normal(size=model.flat.data.shape)        # so that no layer is 0
    return model


def conversations(number, seed=1, template=TEMPLATE, context=CONTEXT):
    kept, _, _ = fitted([one.messages for one in demonstrations(small_world(), number, seed)], template, context)
    return kept


rows = st.lists(st.tuples(st.integers(2, 13), st.integers(0, 99)), min_size=1, max_size=12)


@given(rows)
def test_packing_keeps_every_conversation_whole(lengths):
    rendered = []
    for n, (length, seed) in enumerate(lengths):
        rng = np.random.default_rng(seed)
        mask = rng.random(length) < 0.5
        mask[0] = False
        rendered.append((1000 * (n + 1) + np.arange(length), mask))         # tokens that tell where they are from
    x, y = pack(rendered, 12)
    assert x.shape == y.shape and x.shape[1] == 12
    flat = [token for row_x, row_y in zip(x, y) for token in row_x.tolist()]
    for ids, mask in rendered:
        begin = flat.index(ids[0])
        row, column = divmod(begin, 12)
        end = column + len(ids) - 1                         # the last token is a target only
        assert x[row, column:end].tolist() == ids[:-1].tolist()
        assert y[row, column:end].tolist() == [i if m else IGNORED for i, m in zip(ids[1:].tolist(), mask[1:])]
    assert (y != IGNORED).sum() == sum(mask.sum() for _, mask in rendered)


def test_a_round_has_every_conversation_once_and_a_batch_is_a_function_of_the_step():
    many = conversations(60)
    data = Demonstrations(TEMPLATE, many, CONTEXT, 4, seed=3)
    per_round = -(-len(data.rows_of(0)[0]) // 4)
    batches = [data.batch(step) for step in range(per_round)]
    spoken = sum(TEMPLATE.render(messages)[1].sum() for messages in many)
    assert sum((y != IGNORED).sum() for _, y in batches) == spoken
    later, again = data.batch(per_round + 1), Demonstrations(TEMPLATE, many, CONTEXT, 4, seed=3).batch(1)
    assert not np.array_equal(later[0], batches[1][0]) and np.array_equal(again[0], batches[1][0])


def by_hand(model, rendered):
    """The loss (1) of conversations in rows of their own, from the model's logits."""
    total, number = 0.0, 0
    for ids, mask in rendered:
        logits = model(ids[None, :-1]).data[0]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        spoken = np.flatnonzero(mask[1:])
        total -= log_p[spoken, ids[1:][spoken]].sum()
        number += len(spoken)
    return total / number


def test_the_loss_is_that_of_the_definition():
    """One conversation a row: longer than half of the context, so that no two are packed together."""
    model = tiny()
    rendered = [r for r in map(TEMPLATE.render, conversations(200)) if len(r[0]) > CONTEXT // 2 + 1][:5]
    x, y = pack(rendered, CONTEXT)
    assert len(x) == 5
    loss = model.loss(x, y, total=int((y != IGNORED).sum())).item()
    assert loss == pytest.approx(by_hand(model, rendered), rel=1e-12)
    with Workers(model, 1) as workers:
        messages = [m for m in conversations(200) if len(TEMPLATE.render(m)[0]) > CONTEXT // 2 + 1][:5]
        assert masked_loss(workers, TEMPLATE, messages, 2) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("micro_batch, workers", [(1, 1), (3, 1), (2, 2)])
def test_micro_batches_make_the_update_of_one_batch(micro_batch, workers):
    """Rows with few and with many tokens that count, so that a mean of means would be another number."""
    x, y = pack([TEMPLATE.render(messages) for messages in conversations(30)], CONTEXT)
    x, y = x[:5], y[:5].copy()
    y[0, 5:] = IGNORED
    results = []
    for size, number in (5, 1), (micro_batch, workers):
        model, settings = tiny(), SFTSettings(batch_size=5, micro_batch=size)
        optimizer = make_optimizer(model.flat, settings)
        with Workers(model, number) as crew:
            results.append((*update(crew, optimizer, x, y, settings, 0, 1e-3), model.flat.data.copy()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12) and results[0][1] == pytest.approx(results[1][1], rel=1e-12)
    assert np.allclose(results[0][2], results[1][2], rtol=0, atol=1e-9)


def test_a_few_rows_of_each_update_are_of_the_text_of_before(tmp_path, monkeypatch):
    text, seen = np.arange(5 * CONTEXT) % 250, []

    def record(workers, optimizer, x, y, settings, step, lr):
        seen.append((x, y))
        return 1.0, 1.0

    monkeypatch.setattr("minigpt.align.sft.update", record)
    for replay, pretrained in (2, text), (0, text), (2, None):
        settings = SFTSettings(steps=2, batch_size=5, workers=1, replay=replay)
        fine_tune(tiny(dtype=np.float32), TEMPLATE, conversations(90), settings, tmp_path, text=pretrained)
    (x, y), (later, _) = seen[:2]
    assert x.shape == (5, CONTEXT) and not np.array_equal(x[3:], later[3:])
    assert np.array_equal((x[3:] + 1) % 250, y[3:]) and (y[:3] == IGNORED).any()        # every token of the text counts
    for x, y in seen[2:]:
        assert len(x) == 5 and (y == IGNORED).any(1).all()


def test_a_loss_that_is_no_number_ends_it(tmp_path):
    model = tiny(dtype=np.float32)
    model.flat.data[0] = np.nan
    with pytest.raises(UserError, match="at step 1 the loss was nan"):
        fine_tune(model, TEMPLATE, conversations(20), SFTSettings(steps=3, workers=1), tmp_path)


# ---- the line in miniature: a few sums and facts, learnt by heart ----

@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """(model, template, lessons): a model that has learnt some lessons by heart."""
    world, rng = small_world(), np.random.default_rng(1)
    lessons = [arithmetic(rng, 9) for _ in range(6)] + [fact(rng, country, "code") for country in world.demonstrated]
    text = " ".join(message["content"] + message.get("call", "") for one in lessons for message in one.messages)
    template = small_template("".join(c for c in text if not c.isdigit()), 420)
    model = tiny(64, 48, np.float32, 2, template)
    folder = tmp_path_factory.mktemp("sft")
    settings = SFTSettings(steps=150, batch_size=8, workers=1, learning_rate=0.02, log_every=50, eval_every=75)
    held_out = fine_tune(model, template, [one.messages for one in lessons] * 4, settings, folder, [lessons[0].messages])
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["val_loss"] == held_out < 0.2 < records[0]["train_loss"]
    return model, template, lessons


def test_a_model_learns_to_answer_and_to_call_a_tool(taught):
    model, template, lessons = taught
    with Engine(model, template.tokenizer, 8, workers=1) as engine:
        turns = ask(engine, template, Toolbox(calculator), [one.question for one in lessons])
    assert [turn.messages for turn in turns] == [list(one.reply) for one in lessons]
    assert all(turn.reason == "end" and is_right(one.question, turn.text) for turn, one in zip(turns, lessons))
    called = turns[0]
    assert called.calls == 1 and len(called.ids) == len(called.spoken)
    said = template.tokenizer.decode([i for i, spoken in zip(called.ids, called.spoken) if spoken])
    forced = template.tokenizer.decode([i for i, spoken in zip(called.ids, called.spoken) if not spoken])
    assert forced == f"{called.messages[1]['content']}<|done|>" and said.endswith("<|end|>")


def test_what_a_tool_says_is_read_whatever_it_is(taught):
    """The model goes on after any result: another number, an error, or one as long as a tool's may be."""
    model, template, lessons = taught
    for result in "77777", "error: it took longer than 2 seconds", "x":
        def calculator(expression: str, result=None):
            """Say something else."""
            return result

        def lying(expression: str):
            return result

        lying.__name__ = "calculator"
        with Engine(model, template.tokenizer, workers=1) as engine:
            seen = []
            speaker = Speaker(engine, template, Toolbox(lying))
            turn = speaker.begin(list(lessons[0].question.messages), Rules(0), length=40,
                                 on_result=lambda turn, call, said, seen=seen: seen.append((call, said)))
            speaker.run()
        assert seen == [(lessons[0].reply[0]["call"], result)] and turn.reason in ("end", "length")
        assert turn.messages[1] == {"role": "tool", "content": result}


def test_without_tools_or_room_a_call_ends_the_turn(taught):
    model, template, lessons = taught
    question = list(lessons[0].question.messages)
    call = len(template.tokenizer.encode(lessons[0].reply[0]["call"])) + 2

    def long(expression: str):
        return "x y " * 40

    long.__name__ = "calculator"
    ways = (None, 40, "calls"), (Toolbox(calculator), call, "length"), (Toolbox(long), 40, "context")
    for toolbox, length, reason in ways:
        with Engine(model, template.tokenizer, workers=1) as engine:
            speaker = Speaker(engine, template, toolbox)
            turn = speaker.begin(question, Rules(0), length=length)
            speaker.run()
        assert turn.reason == reason and turn.calls == 0


def test_a_report_card_of_a_model(taught):
    model, template, _ = taught
    world = small_world()
    measured = abilities(world, number=4)
    prose = np.arange(100) % 50, np.arange(60) % 50
    card = evaluate(model, template, world, measured, prose, workers=1)
    asked = sum(len(ability.questions) for ability in measured)
    assert card["in form"].number == card["polite"].number == asked
    assert [card[ability.name].number for ability in measured] == [len(ability.questions) for ability in measured]
    lied, admitted = card["hallucination (invented)"], card["invented countries"]
    assert lied.number == admitted.number == len(world.invented) and lied.right + admitted.right == lied.number
    assert card["verbatim repetition"].number == 50
    again = evaluate(model, template, world, measured, workers=1)
    assert all(again[name].which == card[name].which for name in again)     # the likeliest tokens: no chance in it


def test_a_lesson_is_its_question_and_its_reply():
    one = fact(np.random.default_rng(1), small_world().countries[0], "code")
    assert isinstance(one, Lesson) and one.messages == [*one.question.messages, *one.reply]
    assert one.question.text == one.messages[0]["content"]
