"""Quantised models: which layers become what, what is lost, that they are saved, read and refused as they should be."""
import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lively import MODELS, TOKENIZER, V, lively_model
from told import message

from minigpt import Tensor, checkpoint, device, huggingface
from minigpt.generate import Engine, Request
from minigpt.models.bert import Bert, BertConfig
from minigpt.models.gpt import GPT, GPTConfig
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.parallel import Workers
from minigpt.quantize import (QuantizedEmbedding, QuantizedLinear, QuantizedMatrix, Record, arrays_of, quantize,
                              quantize_and_compare)
from minigpt.reader import Crew, Reader
from minigpt.sampling import Rules
from minigpt.tensor import no_grad
from minigpt.train import loss_of

each_model = pytest.mark.parametrize("name", [name for name in MODELS if name != "switch"])
each_kind = pytest.mark.parametrize("kind", ["int8", "int4"])
MEASURED = Record("int8", 100, 400, 1.01, 1.0, "a text")


def model_of(name, context=40, **changes):
    return lively_model(name, context, np.float32, **changes)


def wide_model(name="gpt", context=40, seed=0):
    """A model with several groups in each row, whose activations and logits are of ordinary size."""
    module, config = MODELS[name]
    model = module(config(V, context, 2, 4, 96), seed=seed)
    rng = np.random.default_rng(seed)
    for p in model.flat.parameters.values():
        p.data[...] += rng.normal(size=p.shape) * (0.1 if p.ndim == 1 else (p.shape[0] ** -0.5 if p.group == "matrices" else 1))
    return model


def tokens(*shape, seed=0):
    return np.random.default_rng(seed).integers(V, size=shape)


# ---- what becomes of a model ----

@each_kind
def test_matrices_become_integers_and_vectors_stay(kind):
    model, vectors = GPT(GPTConfig(64, 32, 2, 2, 64)), {}
    for name, p in model.flat.parameters.items():
        if p.ndim == 1:
            vectors[name] = p.data.copy()
    assert quantize(model, kind) is model
    bits = 8.5 if kind == "int8" else 4.5
    arrays = arrays_of(model)
    matrices = 2 * 12 * 64 * 64
    inside = sum(a.nbytes for name, a in arrays.items() if name.startswith("blocks") and name.endswith(("q", "scales")))
    assert inside == matrices * bits / 8
    tables = sum(a.nbytes for name, a in arrays.items() if name.startswith(("tokens", "positions")))
    assert tables == 96 * 64 * 8.5 / 8
    assert model.flat.parameters.keys() == vectors.keys()
    for name, before in vectors.items():
        np.testing.assert_array_equal(arrays[name], before)
    assert type(model.blocks[1].mlp.expand) is QuantizedLinear and model.head.tokens is model.tokens
    assert type(model.tokens) is QuantizedEmbedding and not any("head" in name for name in arrays)
    assert model.quantized == Record(kind, sum(a.nbytes for a in arrays.values()), 4 * model.config.parameter_count())


def test_all_integers_lie_in_one_block_from_lines_of_the_cache_on():
    arrays = arrays_of(quantize(wide_model(), "int4"))
    begins = sorted((a.ctypes.data, a.nbytes) for name, a in arrays.items() if name.endswith((".q", ".scales")))
    assert all(begin % 64 == 0 for begin, _ in begins)
    assert all(0 <= begin - (before + size) < 64 for (before, size), (begin, _) in zip(begins, begins[1:]))
    assert wide_model().flat.data.ctypes.data % 64 == 0


@each_kind
def test_a_head_of_its_own_stays_int8(kind):
    model = quantize(GPTModern(GPTModernConfig(64, 32, 1, 2, 64)), kind)
    assert model.head.w.q.dtype == np.int8 and len(model.flat) == 0
    assert model.blocks[0].attention.query.w.q.dtype == (np.int8 if kind == "int8" else np.uint8)


def with_rounded_weights(model, quantized):
    """A model of floats whose matrices are what those of `quantized` stand for."""
    for name, p in model.flat.parameters.items():
        matrix = quantized
        for part in name.split("."):
            matrix = matrix[int(part)] if part.isdigit() else getattr(matrix, part)
        if isinstance(matrix, QuantizedMatrix):
            p.data[...] = matrix.floats().T if p.shape != matrix.shape or "tokens" in name or "positions" in name \
                else matrix.floats()
    return model


@each_model
@each_kind
def test_it_computes_what_a_model_of_rounded_weights_does_but_for_rounded_inputs(name, kind, backend):
    plain, ids = wide_model(name), tokens(3, 40)
    model = quantize(wide_model(name), kind)
    with no_grad():
        logits, exact = model(ids).data, with_rounded_weights(plain, model)(ids).data
    assert np.std(logits - exact) < 0.03 * exact.std()              # inputs of int8: some 0.3% in each of nine products
    for layer in model.blocks[0].mlp.expand, model.blocks[1].attention.value:     # each matrix matters
        saved = layer.w.scales.copy()
        layer.w.scales[...] = 0
        with no_grad():
            assert np.abs(model(ids).data - exact).max() > 0.2 * exact.std()
        layer.w.scales[...] = saved


@each_model
def test_int8_loses_less_than_int4_and_int4_little(name):
    ids = tokens(4, 40)
    with no_grad():
        exact = wide_model(name)(ids).data
        off = {kind: np.std(quantize(wide_model(name), kind)(ids).data - exact) / exact.std() for kind in ("int8", "int4")}
    assert 0 < 4 * off["int8"] < off["int4"] < 0.5


@each_kind
def test_bert_is_quantised_as_well(kind):
    model = Bert(BertConfig(40, 16, 2, 4, 64, 128, 2))
    for p in model.flat.parameters.values():
        p.data[...] *= 5 if p.ndim == 2 else 1
    ids = np.random.default_rng(0).integers(40, size=(2, 9))
    with no_grad():
        exact = model(ids).data
        assert np.std(quantize(model, kind)(ids).data - exact) < 0.3 * exact.std()


def test_bytes_and_loss_are_told():
    model, ids = wide_model(), tokens(200)
    record = quantize_and_compare(model, "int8", lambda model: loss_of(model, ids), "200 tokens")
    assert model.quantized is record and record.measured
    assert record.loss == pytest.approx(loss_of(model, ids), abs=1e-6)
    assert record.loss_float32 == pytest.approx(loss_of(wide_model(), ids), abs=1e-6) != record.loss
    assert record.bytes == sum(a.nbytes for a in arrays_of(model).values()) < 0.3 * record.bytes_float32
    line = str(record)
    assert line.startswith(f"int8: {record.bytes:,} bytes, ") and line.endswith("on 200 tokens")
    assert f"loss {record.loss:.4f}, float32's {record.loss_float32:.4f} ({record.loss / record.loss_float32 - 1:+.2%})" in line
    assert "not measured" in str(quantize(wide_model(), "int4").quantized)


def test_replicas_share_the_integers():
    model = quantize(wide_model(), "int4")
    twin = copy.deepcopy(model)
    assert twin.blocks[0].mlp.expand.w is model.blocks[0].mlp.expand.w
    ids = tokens(500)
    with Workers(model, 1) as one, Workers(model, 3) as three:
        losses = [workers.each(lambda replica, item: replica.loss(item[None, :-1], item[None, 1:]).item(), ids.reshape(-1, 25))
                  for workers in (one, three)]
    assert losses[0] == losses[1]


# ---- in the engine ----

@each_model
@each_kind
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_any_split_into_pieces_is_nearer_to_one_pass_than_that_is_to_floats(name, kind, lengths, backend):
    """It is not the same to 1e-4, as of floats: an input between two integers may become either."""
    plain, model, ends = wide_model(name, 72), quantize(wide_model(name, 72), kind), np.cumsum(lengths)
    ids, cache = tokens(2, ends[-1]), model.new_cache(2)
    texts = cache.texts()
    with no_grad():
        pieces = np.concatenate([model(ids[:, e - n:e], texts).data for n, e in zip(lengths, ends)], axis=1)
        whole, exact = model(ids).data, plain(ids).data
    assert np.abs(pieces - whole).max() <= np.abs(whole - exact).max() + 1e-5
    assert np.abs(pieces - whole).max() < 0.05 * exact.std()


@each_model
@each_kind
def test_a_text_has_the_same_logits_in_any_company(name, kind):
    model, ids = quantize(wide_model(name), kind), tokens(11, 30)

    def logits_of(texts, threads):
        with Crew(threads) as crew:
            reader = Reader(model, crew, slots=11)
            for text in texts:
                reader.read(text, ids[text, :8 + text].tolist())
            steps = [reader.each(texts, np.array([[ids[text, 8 + text + step]] for text in texts])) for step in range(4)]
        return np.stack(steps)[:, :, 0]

    together = logits_of(list(range(11)), 2)
    for text in 0, 5, 10:
        alone = logits_of([text], 1)[:, 0]
        assert np.abs(alone - together[:, text]).max() < 0.02 * together.std()
    few = logits_of([3, 1, 7], 2)
    assert np.abs(few - together[:, [3, 1, 7]]).max() < 0.02 * together.std()


@each_kind
def test_it_speaks(kind):
    model = quantize(wide_model(context=64), kind)
    with Engine(model, TOKENIZER, slots=2, workers=2) as engine:
        jobs = [engine.submit(Request(tokens(n, seed=n).tolist(), 20, Rules(0))) for n in (3, 40, 7)]
        engine.run()
    for job in jobs:
        ids = job.ids
        with no_grad():
            logits = model(np.array([ids[:-1]])).data[0, -20:]
        best = logits.max(axis=1)
        chosen = np.take_along_axis(logits, np.array(ids[-20:])[:, None], 1)[:, 0]
        assert job.reason == "length" and np.all(best - chosen < 0.1 * logits.std())


# ---- saved and loaded ----

@pytest.fixture(params=["gpt int8", "gpt int4", "gpt_modern int4"])
def saved(request, tmp_path):
    """(a model that was quantised, the folder it was saved in)."""
    name, kind = request.param.split()
    model = model_of(name)
    quantize_and_compare(model, kind, lambda model: loss_of(model, tokens(100)), "100 tokens")
    checkpoint.save(tmp_path / "run", model, TOKENIZER, {"note": "ü"})
    return model, tmp_path / "run"


def test_it_comes_back_bit_for_bit(saved):
    model, folder = saved
    again = checkpoint.load(folder)
    assert again.model.quantized == model.quantized and again.training == {"note": "ü"}
    arrays = arrays_of(again.model)
    assert arrays.keys() == arrays_of(model).keys()
    for name, array in arrays_of(model).items():
        assert (arrays[name].dtype, arrays[name].tobytes()) == (array.dtype, array.tobytes()), name
    with no_grad():
        np.testing.assert_array_equal(again.model(tokens(2, 30)).data, model(tokens(2, 30)).data)
    checkpoint.save(folder, again.model, again.tokenizer, again.training)
    assert checkpoint.load(folder).model.quantized == model.quantized


def test_it_is_saved_with_what_it_lost_or_not_at_all(tmp_path):
    model = quantize(model_of("gpt"), "int8")
    assert "measure it" in message(checkpoint.save, tmp_path / "run", model, TOKENIZER)
    assert not (tmp_path / "run").exists()


def test_a_model_whose_tokenizer_lacks_tokens_is_not_saved(tmp_path):
    model = GPT(GPTConfig(V + 1, 8, 1, 1, 4))
    assert f"has {V} tokens, and its model {V + 1}" in message(checkpoint.save, tmp_path / "run", model, TOKENIZER)


# ---- what can't be done ----

def spoiled(value):
    model = model_of("gpt")
    model.blocks[1].mlp.expand.w.data[2, 3] = value
    return model


class OnAGpu(np.ndarray):
    pass


@pytest.mark.parametrize("make, kind, part", [
    (lambda: model_of("gpt"), "int3", "there is no quantisation 'int3', but int8 and int4"),
    (lambda: lively_model("gpt"), "int8", "a model of float64 can't be quantised"),
    (lambda: quantize(model_of("gpt"), "int8"), "int4", "is of int8 already"),
    (lambda: model_of("switch"), "int8", "a switch can't be quantised: blocks.0.experts.expand is no linear layer's matrix"),
    (lambda: spoiled(np.nan), "int4", "blocks.1.mlp.expand.w holds numbers that are not finite"),
    (lambda: spoiled(-np.inf), "int4", "blocks.1.mlp.expand.w holds numbers that are not finite"),
])
def test_what_cannot_be_quantised_is_one_sentence(make, kind, part):
    assert part in message(quantize, make(), kind)


def test_a_model_on_a_gpu_cannot_be_quantised_nor_a_quantised_one_be_moved_there():
    model = model_of("gpt")
    model.flat.data = memoryview(b"")                       # whatever is no array of NumPy's
    assert "leave --device cuda out" in message(quantize, model, "int8")
    assert "runs on a CPU only" in message(device.move, quantize(model_of("gpt"), "int8"), "cuda")


def test_a_quantised_model_is_not_written_for_transformers(tmp_path):
    assert "write the one of floats" in message(huggingface.save, tmp_path / "hf", quantize(model_of("gpt"), "int8"))


def test_there_is_no_gradient():
    model = quantize(model_of("gpt_modern"), "int8")
    assert not any(p.requires_grad for _, p in model.named_parameters())
    with pytest.raises(RuntimeError, match="no_grad"):
        model.head(Tensor(np.ones((1, 12), np.float32), requires_grad=True))


@pytest.mark.parametrize("ids", [[[V]], [[-1]]])
def test_an_id_outside_the_table_is_an_error(ids):
    with pytest.raises(IndexError, match=f"outside the table's 0 ... {V - 1}"):
        quantize(model_of("gpt"), "int8")(np.array(ids))
