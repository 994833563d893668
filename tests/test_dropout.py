"""philox and dropout: the published random words, and masks that follow from seeds alone."""
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import dropout_inputs, random_seeds, seeds_of
from numerics import on_cpu

from minigpt import ops
from minigpt.ops.philox import keep_mask, philox4x32

KNOWN_ANSWERS = [                                   # counter, key, words: from the Random123 distribution, kat_vectors
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize("counter, key, words", KNOWN_ANSWERS)
def test_philox_gives_the_words_of_its_authors(counter, key, words):
    counter, key, words = ([int(word, 16) for word in text.split()] for text in (counter, key, words))
    assert [int(word) for word in philox4x32(counter, key)] == words


each_fold_in = pytest.mark.parametrize("fold_in", on_cpu(ops.fold_in).values(), ids=on_cpu(ops.fold_in))


@each_fold_in
@given(seed=seeds_of, n=st.integers(0, 2 ** 32 - 1))
def test_fold_in_is_two_words_of_philox(fold_in, seed, n):
    low, high, _, _ = philox4x32((n, 0, 0, 1), (seed % 2 ** 32, seed >> 32))
    new = fold_in(np.array([seed], np.uint64), n=n)
    assert new.dtype == np.uint64 and new.tolist() == [int(low) + (int(high) << 32)]


@each_fold_in
def test_fold_in_gives_another_seed_for_every_number_and_every_seed(fold_in):
    seeds = np.arange(1000, dtype=np.uint64).reshape(10, 100)
    new = [fold_in(seeds, n=n) for n in range(20)]
    assert len(np.unique(new)) == 20_000 and new[0].shape == seeds.shape
    np.testing.assert_array_equal(seeds, np.arange(1000).reshape(10, 100))


@given(inputs=dropout_inputs())
def test_dropout_drops_what_the_mask_of_the_reference_says(inputs, backend):
    (x, seeds), constants = inputs
    rows = x.reshape(len(x), 1, -1, x.shape[-1])
    kept = keep_mask(seeds, shape=rows.shape[1:], p=constants["p"]).reshape(x.shape)
    np.testing.assert_allclose(ops.dropout(x, seeds, **constants).data, x * kept / (1 - constants["p"]), rtol=1e-14)


def test_dropout_of_nothing_is_the_identity(backend):
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    np.testing.assert_array_equal(ops.dropout(x, random_seeds(3), p=0.0).data, x)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_a_share_1_minus_p_and_the_mean(p, backend):
    y = ops.dropout(np.ones((4, 100, 250)), random_seeds(4), p=p).data
    assert set(np.unique(y)) == {0, 1 / (1 - p)}
    six_sigma = 6 * math.sqrt(p * (1 - p) / y[0].size)
    np.testing.assert_allclose((y > 0).mean((1, 2)), 1 - p, atol=six_sigma)
    assert abs(((y[0] > 0) == (y[1] > 0)).mean() - (p * p + (1 - p) ** 2)) < 0.02      # sequences are independent


@pytest.mark.parametrize("p", [1.0, 1.5, -0.1])
def test_a_share_that_is_none_is_an_error(p, backend):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        ops.dropout(np.ones((3, 4)), random_seeds(3), p=p)
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        q = np.ones((3, 2, 1, 4))
        ops.attention(q, q, q, None, random_seeds(3), dropout=p)


def test_a_batch_drops_what_its_sequences_drop_alone(backend):
    x, seeds = np.ones((3, 7, 9)), random_seeds(3)
    y = ops.dropout(x, seeds, p=0.5).data
    for b in range(3):
        np.testing.assert_array_equal(ops.dropout(x[b:b + 1], seeds[b:b + 1], p=0.5).data[0], y[b])
