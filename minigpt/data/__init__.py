"""The texts that models learn from, and the batches cut out of them."""

from .batches import batch, sequence_seeds, split, windows
from .corpus import Corpus, load_corpus

__all__ = ["Corpus", "batch", "load_corpus", "sequence_seeds", "split", "windows"]
