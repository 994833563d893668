"""The texts that models learn from, and the batches cut out of them."""

from .batches import batch, sequence_seeds, split, windows
from .corpus import Corpus, load_corpus
from .masking import mask_tokens

__all__ = ["Corpus", "batch", "load_corpus", "mask_tokens", "sequence_seeds", "split", "windows"]
