"""The texts and pictures that models learn from, and the batches cut out of texts."""

from .batches import batch, sequence_seeds, split, windows
from .corpus import Corpus, lines_of, load_corpus
from .masking import mask_tokens
from .pictures import Pictures, held_out, load_pictures, moved

__all__ = ["Corpus", "Pictures", "batch", "held_out", "lines_of", "load_corpus", "load_pictures", "mask_tokens", "moved",
           "sequence_seeds", "split", "windows"]
