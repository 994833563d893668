"""rotary, rms_norm and relu_squared: what makes each of them what it is."""
import numpy as np
import pytest

from minigpt import ops


def test_attention_after_rotary_sees_distances_alone(backend):
    """Shifting queries and keys by as many positions changes no score."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 6, 3, 8)) for _ in range(3))
    results = [ops.attention(ops.rotary(q, begin=begin), ops.rotary(k, begin=begin), v).data for begin in (0, 5, 500)]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-9)
    np.testing.assert_allclose(results[2], results[0], rtol=1e-9)
    assert not np.allclose(ops.attention(q, k, v).data, results[0])


def test_rotary_turns_each_pair_by_its_angle_and_keeps_its_length(backend):
    x = np.zeros((1, 4, 1, 6))
    x[..., :3] = 1                                          # three pairs (1, 0)
    y = ops.rotary(x, begin=2, base=1000.0).data
    angle = np.arange(2, 6)[:, None] * np.array([1, 0.1, 0.01])
    np.testing.assert_allclose(y[0, :, 0], np.concatenate([np.cos(angle), -np.sin(angle)], -1), atol=1e-12)


def test_positions_may_be_turned_in_pieces(backend):
    """What a key/value cache relies on."""
    x = np.random.default_rng(1).normal(size=(2, 7, 3, 4))
    pieces = [ops.rotary(x[:, :3]).data, ops.rotary(x[:, 3:], begin=3).data]
    np.testing.assert_array_equal(np.concatenate(pieces, 1), ops.rotary(x).data)


def test_each_sequence_may_begin_elsewhere(backend):
    x = np.random.default_rng(1).normal(size=(3, 4, 2, 6))
    together = ops.rotary(x, begin=(5, 0, 11)).data
    each = [ops.rotary(x[b:b + 1], begin=begin).data for b, begin in enumerate((5, 0, 11))]
    np.testing.assert_array_equal(together, np.concatenate(each))
    with pytest.raises(ValueError, match="3 sequences need as many positions to begin at, not 2"):
        ops.rotary(x, begin=(5, 0))


def test_rotary_of_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="even D"):
        ops.rotary(np.ones((1, 2, 3, 5)))


def test_rms_norm_gives_rows_of_mean_square_1(backend):
    x = np.random.default_rng(2).normal(size=(4, 5, 9))
    np.testing.assert_allclose((ops.rms_norm(x, eps=0.0).data ** 2).mean(-1), 1, rtol=1e-12)


def test_rms_norm_with_a_scale_of_another_width_is_refused(backend):
    with pytest.raises(ValueError, match="do not fit"):
        ops.rms_norm(np.ones((3, 4)), np.ones(5))


def test_relu_squared_is_the_square_of_relu_and_keeps_a_nan(backend):
    x = np.array([-2.0, -0.0, 0.5, 3.0])
    np.testing.assert_array_equal(ops.relu_squared(x).data, [0, 0, 0.25, 9])
    assert np.isnan(ops.relu_squared(np.array([np.nan, 1.0])).data).tolist() == [True, False]
