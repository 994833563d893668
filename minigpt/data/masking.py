"""Blanks: tokens of a text that a model is to guess from what stands around them (Devlin et al. 2019, BERT, section 3.1).

Each token is chosen with probability `share`, and where it is chosen, the model has to say what it was. What it gets to see
there is

    in 80% of the cases     a blank, the token `blank`
    in 10%                  a token drawn by chance
    in 10%                  the token itself

If it were always the blank, states would have to be good at blanks only, and a text that is read later has none. So every
token may be wrong, and the model has to look at what is around each of them.
"""
import numpy as np

BLANKS, RANDOM = 0.8, 0.1


def mask_tokens(ids, blank, vocabulary_size, rng, share=0.15):
    """(inputs, targets), arrays of the shape of ids (B, T): targets are -1 where nothing is asked.

    Random tokens are drawn from 0 ... vocabulary_size - 1 without `blank`. At least one token of each row is asked for.
    """
    chosen = rng.random(ids.shape) < share
    chosen[np.arange(len(ids)), rng.integers(ids.shape[1], size=len(ids))] |= ~chosen.any(1)
    what = rng.random(ids.shape)
    others = rng.integers(vocabulary_size - 1, size=ids.shape)
    others += others >= blank                               # all but the blank, with equal probability
    inputs = np.where(chosen & (what < BLANKS), blank, ids)
    inputs = np.where(chosen & (what >= BLANKS) & (what < BLANKS + RANDOM), others, inputs)
    return inputs, np.where(chosen, ids, -1)
