"""Maps pooled to features, compared with loops."""

import numpy as np
import pytest
import tensorflow as tf

from zslkeras import names
from zslkeras.images.pooling import pooled, pooled_width

MAPS = [np.random.default_rng(0).standard_normal(shape).astype(np.float16) for shape in [(5, 3, 2, 4), (5, 2, 2, 7)]]


def by_loops(maps, pooling):
    """[B, F] float64."""
    features = np.zeros((len(maps), maps.shape[-1]))
    for row, feature in np.ndindex(features.shape):
        values = [float(value) for value in maps[row, :, :, feature].ravel()]
        features[row, feature] = {
            "mean": sum(values) / len(values),
            "max": max(values),
            "gem": (sum(max(value, 0) ** 3 for value in values) / len(values)) ** (1 / 3),
        }[pooling]
    return features


@pytest.mark.parametrize("pooling", names.POOLINGS)
def test_one_part_is_as_long_as_it_is(pooling):
    features = pooled(MAPS[:1], [pooling])
    assert features.dtype == tf.float32 and features.shape == (5, pooled_width([4], [pooling]))
    np.testing.assert_allclose(features, by_loops(MAPS[0], pooling), rtol=1e-5, atol=1e-6)


def test_several_parts_stand_map_by_map_and_have_unit_length():
    pooling = ["gem", "mean"]
    parts = [by_loops(maps, name) for maps in MAPS for name in pooling]
    wanted = np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts], axis=1)
    assert wanted.shape[1] == pooled_width([4, 7], pooling)
    np.testing.assert_allclose(pooled(MAPS, pooling), wanted, rtol=1e-5, atol=1e-6)


def test_a_map_without_any_answer_is_a_row_of_zeros():
    empty = tf.zeros([1, 2, 2, 3])
    np.testing.assert_array_equal(pooled([empty, empty], ["mean", "max", "gem"]), np.zeros((1, 18)))
