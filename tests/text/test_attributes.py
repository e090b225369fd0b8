"""Attributes out of words: a ridge regression, whose strength leave-one-out chooses."""

import numpy as np
import pytest

from zslkeras.text import attributes
from zslkeras.text.attributes import FromWords


def example(classes=30, width=8, noise=0.1, seed=0):
    generator = np.random.default_rng(seed)
    texts, map_ = generator.standard_normal((classes, width)), generator.standard_normal((width, 4))
    return texts, 1 + texts @ map_ + noise * generator.standard_normal((classes, 4)), map_


def solved(texts, table, ridge):
    """The regression, with the mean taken out, as in textbooks."""
    centred, mean = texts - texts.mean(axis=0), table.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + ridge * np.eye(texts.shape[1]), centred.T @ (table - mean))
    return lambda text: mean + (text - texts.mean(axis=0)) @ weights


def test_attributes_follow_from_words():
    texts, table, map_ = example(classes=200, noise=0.0)
    wanted = 1 + texts[:5] @ map_
    np.testing.assert_allclose(FromWords(texts[None, 5:], table[5:])(texts[:5]), wanted, atol=0.1)
    assert FromWords([texts], table).told > 0.99


@pytest.mark.parametrize("several", [1, 3])
def test_it_is_the_ridge_regression_with_the_least_error_on_classes_that_are_left_out(several):
    texts, table, _ = example(noise=3.0)
    kinds = texts + np.random.default_rng(2).standard_normal((several, *texts.shape))
    rows, wanted, classes = kinds.reshape(-1, texts.shape[1]), np.tile(table, (several, 1)), np.arange(len(texts))
    spread = ((rows - rows.mean(axis=0)) ** 2).sum() / len(rows)

    def error(ridge):
        errors = []
        for out in classes:
            rest = np.tile(classes != out, several)
            told = solved(rows[rest], wanted[rest], ridge * spread)
            errors.append((wanted[~rest] - told(rows[~rest])) ** 2)
        return np.sum(errors)

    ridges = attributes._RIDGES
    best = ridges[np.argmin([error(ridge) for ridge in ridges])]
    found = FromWords(kinds, table)
    told = np.clip(solved(rows, wanted, best * spread)(texts), table.min(axis=0), table.max(axis=0))
    np.testing.assert_allclose(found(texts), told, rtol=1e-6)
    np.testing.assert_allclose(found.told, 1 - error(best) / ((wanted - wanted.mean(axis=0)) ** 2).sum(), rtol=1e-6)


def test_words_that_say_nothing_give_the_mean():
    generator = np.random.default_rng(1)
    texts, table = generator.standard_normal((40, 300)), generator.random((40, 4))
    told = FromWords([texts], table)(generator.standard_normal((50, 300)))
    assert np.abs(told - table.mean(axis=0)).mean() < 0.5 * np.abs(table - table.mean(axis=0)).mean()


def test_attributes_stay_in_the_range_of_the_known_ones():
    texts, table, _ = example()
    told = FromWords([texts], table)(100 * texts)
    assert (told >= table.min(axis=0)).all() and (told <= table.max(axis=0)).all()
