"""Prototypes against plain numpy, and their path through the settings."""

import functools
import itertools

import numpy as np
import pytest

from tests.reference import prototypes as reference
from tests.support.harness import learn_path
from tests.support.tiny import tiny
from zslkeras.models.prototypes import Prototypes, PrototypesConfig

learn = functools.partial(learn_path, Prototypes)


def expected(benchmark, state, inputs, embeddings):
    train, labels = benchmark.inputs[benchmark.train], benchmark.labels[benchmark.train]
    names = "scaling", "whitening", "embedding_scaling", "ridge"
    seen = benchmark.class_embeddings[benchmark.seen_classes]
    return reference.Prototypes(train, labels, seen, *(state[name] for name in names)).scores(inputs, embeddings)


@pytest.mark.parametrize("attributes", [5, 12])  # fewer than the 8 seen classes, and more
def test_scores_equal_the_formula(attributes):
    benchmark = tiny(attributes=attributes)
    inputs = benchmark.inputs[benchmark.test_unseen]
    _, run, scores = learn(benchmark, PrototypesConfig(), lambda model: model(inputs).numpy())
    for state, got in zip(run.history, scores, strict=True):
        np.testing.assert_allclose(got, expected(benchmark, state, inputs, benchmark.class_embeddings), atol=1e-3)
    different = [np.abs(a - b).max() for a, b in itertools.pairwise(scores)]
    assert np.mean(np.array(different) > 1e-3) > 0.8  # or the comparison could not tell the settings apart


def test_the_path_goes_through_every_setting_in_order():
    config = PrototypesConfig()
    _, run, _ = learn(tiny(), config)
    names = "scaling", "whitening", "embedding_scaling", "ridge"
    parts = config.scalings, config.whitenings, config.embedding_scalings, config.lambdas
    assert [tuple(state[name] for name in names) for state in run.history] == list(itertools.product(*parts))


def test_the_best_setting_is_kept_and_scores_new_classes():
    benchmark = tiny()
    model, run, _ = learn(benchmark, PrototypesConfig(), prefer=37)
    new = np.random.default_rng(1).random((3, 6)).astype(np.float32)
    inputs = benchmark.inputs[benchmark.test_seen]
    np.testing.assert_allclose(
        model.score_classes(inputs, new), expected(benchmark, run.history[37], inputs, new), atol=1e-3
    )


def test_unseen_classes_are_recognised():
    benchmark = tiny(classes=30, unseen=6)
    config = PrototypesConfig(scalings=("standard",), whitenings=(1.0,), lambdas=(1e-3,))
    model, _, _ = learn(benchmark, config)
    scores = model(benchmark.inputs[benchmark.test_unseen]).numpy()[:, benchmark.unseen_classes]
    right = benchmark.unseen_classes[scores.argmax(axis=1)] == benchmark.labels[benchmark.test_unseen]
    assert right.mean() > 0.7  # chance is 1 / 6


def test_rows_are_added_up_in_pieces(monkeypatch):
    config = PrototypesConfig(scalings=("standard",), whitenings=(1.0,), lambdas=(1.0,))
    whole, _, _ = learn(tiny(), config)
    monkeypatch.setattr("zslkeras.models.conditioning._ROWS", 7)
    monkeypatch.setattr("zslkeras.models.layers._ROWS", 7)
    pieces, _, _ = learn(tiny(), config)
    for a, b in zip(whole.get_weights(), pieces.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_nothing_in_it_is_drawn():
    one, two = (learn(tiny(), PrototypesConfig(), prefer=50)[0].get_weights() for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
