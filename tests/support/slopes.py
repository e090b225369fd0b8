"""Gradients against central differences of a loss in float64."""

import numpy as np


def slope(loss, array, direction, width=1e-5):
    """Central difference of `loss()` as a float64 array moves."""
    old, values = array.copy(), []
    for sign in (1, -1):
        array[...] = old + sign * width * direction
        values.append(loss())
    array[...] = old
    return (values[0] - values[1]) / (2 * width)


def assert_slopes(loss, array, got, scale=1e-3, count=3, **tolerances):
    """`got` is the gradient of `loss()` in a float64 array, along `count` directions through all of its places."""
    directions = np.random.default_rng(array.size).standard_normal((count, *array.shape))
    wanted = [slope(loss, array, direction) for direction in directions]
    np.testing.assert_allclose([np.sum(got * direction) for direction in directions], wanted, **tolerances)
    assert np.abs(wanted).max() > scale, "too flat for the comparison to mean anything"
