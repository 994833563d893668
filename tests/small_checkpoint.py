"""The shape and the tokenizer of the small checkpoints that tests save."""
from minigpt.models.gpt import GPTConfig
from minigpt.tokenizers import CharTokenizer

CONFIG = GPTConfig(vocabulary_size=9, context=6, layers=2, heads=2, width=8, dropout=0.1)
TOKENIZER = CharTokenizer("abcdefg\né")
