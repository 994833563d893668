"""Byte-level BPE tokenizers that the tests of tokenizers share: one of ours, and one with special tokens as GPT-2 has them."""
from texts import CHINESE, ENGLISH, code

from minigpt.tokenizers import BpeTokenizer

TRAINED = BpeTokenizer.train(ENGLISH[:60_000] + CHINESE + code()[:20_000], 700, ["<|end|>", "<|end|>more", "🙂"])
LIKE_GPT2 = BpeTokenizer(TRAINED.vocabulary, TRAINED.merges, {"<|endoftext|>": 697, "<pad>": 698})
