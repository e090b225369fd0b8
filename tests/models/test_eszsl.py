"""ESZSL against the paper's formula with plain inverses, and its path through the settings."""

import functools
import itertools
import types

import numpy as np
import pytest

from tests.reference import eszsl as reference
from tests.support.harness import learn_path
from tests.support.tiny import tiny
from zslkeras.models.eszsl import ESZSL, ESZSLConfig
from zslkeras.precision import computing_in
from zslkeras.training import batches

REGULARIZERS = (0.01, 1.0, 300.0)


learn = functools.partial(learn_path, ESZSL)


def expected_scores(benchmark, setting, inputs, class_embeddings):
    train = benchmark.inputs[benchmark.train]
    features = reference.scaled(setting["scaling"], train, train)
    labels, gamma, lambda_ = benchmark.labels[benchmark.train], setting["x_regularizer"], setting["s_regularizer"]
    V = reference.compatibility(features, labels, benchmark.class_embeddings, benchmark.seen_classes, gamma, lambda_)
    return reference.scaled(setting["scaling"], inputs, train) @ V @ class_embeddings.T.astype(np.float64)


def assert_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("attributes", [5, 12])  # fewer than the 8 seen classes, and more
@pytest.mark.parametrize("scaling", ESZSL.ablations)
def test_scores_equal_the_formula(scaling, attributes):
    benchmark = tiny(attributes=attributes)
    config = ESZSLConfig(scalings=(scaling,), gammas=REGULARIZERS, lambdas=REGULARIZERS)
    inputs = benchmark.inputs[benchmark.test_unseen]
    _, run, scores = learn(benchmark, config, lambda model: model(inputs).numpy())
    assert len(scores) == 9
    for setting, got in zip(run.history, scores, strict=True):
        assert_close(got, expected_scores(benchmark, setting, inputs, benchmark.class_embeddings))


def test_the_settings_are_no_rescalings_of_one_another():
    """Otherwise the comparison above, to 1e-4, could not tell them apart."""
    benchmark = tiny()
    inputs = benchmark.inputs[benchmark.test_unseen]
    config = ESZSLConfig(gammas=REGULARIZERS, lambdas=REGULARIZERS)
    _, _, scores = learn(benchmark, config, lambda model: model(inputs).numpy())
    unit = np.array([score.ravel() / np.linalg.norm(score) for score in scores], np.float64)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(unit, 2)) > 1e-3


def test_the_path_goes_through_every_setting_in_order():
    _, run, _ = learn(tiny(), ESZSLConfig())
    names = ("scaling", "x_regularizer", "s_regularizer")
    decades = [10.0**b for b in range(-3, 4)]  # Sec. 4 of the paper
    assert [tuple(state[name] for name in names) for state in run.history] == list(
        itertools.product(ESZSL.ablations, decades, decades)
    )
    one = ESZSLConfig(scalings=("l2",), gammas=(2.0, 1.0), lambdas=(3.0,))
    _, run, _ = learn(tiny(), one)
    assert [[state[name] for name in names] for state in run.history] == [["l2", 2.0, 3.0], ["l2", 1.0, 3.0]]


def test_the_best_setting_is_kept_and_scores_new_classes():
    benchmark, generator = tiny(), np.random.default_rng(1)
    model, run, _ = learn(benchmark, ESZSLConfig(gammas=REGULARIZERS, lambdas=REGULARIZERS), prefer=14)
    new = generator.random((3, 6)).astype(np.float32)
    inputs = benchmark.inputs[benchmark.test_seen]
    assert run.best == 14 and run.history[14]["scaling"] == "l2"
    assert_close(model.score_classes(inputs, new), expected_scores(benchmark, run.history[14], inputs, new))


def test_embeddings_are_the_scaled_features_and_what_classes_are_compared_with():
    benchmark = tiny()
    model, run, _ = learn(benchmark, ESZSLConfig(scalings=("standard",), gammas=(1.0,), lambdas=(1.0,)))
    inputs, train = benchmark.inputs[benchmark.test_unseen], benchmark.inputs[benchmark.train]
    spaces = model.embed(inputs)
    assert set(spaces) == {"attribute", "baseline"}
    assert_close(spaces["baseline"], reference.scaled("standard", inputs, train))
    assert_close(spaces["attribute"], expected_scores(benchmark, run.history[0], inputs, np.eye(6)))  # x' V


def test_rows_are_added_up_in_pieces(monkeypatch):
    config = ESZSLConfig(scalings=("standard",), gammas=(1.0,), lambdas=(1.0,))
    whole, _, _ = learn(tiny(), config)
    monkeypatch.setattr("zslkeras.models.eszsl._ROWS", 7)
    pieces, _, _ = learn(tiny(), config)
    np.testing.assert_allclose(pieces.to_rank, whole.to_rank, rtol=1e-4, atol=1e-6)


def test_nothing_in_it_is_drawn():
    one, two = (learn(tiny(), ESZSLConfig(), prefer=200)[0].get_weights() for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_settings_are_judged_by_the_scores_that_the_model_gives(precision):
    benchmark = tiny()
    config = ESZSLConfig(scalings=("standard", "l2"), gammas=(1.0,), lambdas=(1.0, 300.0))
    with computing_in(precision):
        model = ESZSL.for_benchmark(benchmark, config)
    run = types.SimpleNamespace(benchmark=benchmark, read=functools.partial(batches.scoring, benchmark))
    for _, scores in model.scored_solutions(run):
        given = model.score_classes(benchmark.take(benchmark.tested), benchmark.class_embeddings).numpy()
        np.testing.assert_allclose(scores, given, rtol=1e-5, atol=1e-5 * np.abs(given).max())
