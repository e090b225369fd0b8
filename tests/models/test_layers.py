"""Layers against numpy in float64."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.tiny import tiny
from zslkeras.models import layers
from zslkeras.models.layers import SCALINGS, FeatureScaling, l2_normalize


def scaled(kind, rows, train):
    """`rows` scaled as `kind` says, fitted on `train`: a row at a time."""
    if kind.startswith("root_"):
        roots = [np.where(part < 0, -1, 1) * abs(part) ** 0.5 for part in (rows, train)]
        return scaled(kind.removeprefix("root_"), *roots)
    unit = [row / max(np.linalg.norm(row), 1e-12) for row in train]
    if kind == "standard":
        shift, spread = np.mean(train, axis=0), np.std(train, axis=0)
    elif kind == "minmax":
        shift, spread = np.min(train, axis=0), np.max(train, axis=0) - np.min(train, axis=0)
    result = []
    for row in rows:
        if kind in ("l2", "centred_l2"):
            row = row / max(np.linalg.norm(row), 1e-12)
        if kind == "centred_l2":
            row = row - np.mean(unit, axis=0)
            row = row / max(np.linalg.norm(row), 1e-12)
        if kind == "centred":
            row = (row - train.mean(axis=0)) / np.sqrt(train.var(axis=0).sum())
        if kind in ("standard", "minmax"):
            row = np.array([(x - m) / (s if s > 0 else 1) for x, m, s in zip(row, shift, spread, strict=True)])
        result.append(row)
    return np.array(result)


def with_inputs(benchmark, change):
    inputs = benchmark.inputs.copy()
    change(inputs)
    return dataclasses.replace(benchmark, inputs=inputs)


def fitted(kind, benchmark):
    layer = FeatureScaling(benchmark.inputs.shape[1])
    layer.fit(kind, benchmark.take, benchmark.train)
    return layer


@pytest.mark.parametrize("rows_at_once", [7, 4096])
@pytest.mark.parametrize("kind", SCALINGS)
def test_scaling_equals_numpy(kind, rows_at_once, monkeypatch):
    monkeypatch.setattr(layers, "_ROWS", rows_at_once)
    benchmark = with_inputs(tiny(), lambda inputs: np.multiply(inputs, np.linspace(0.1, 30, 16), out=inputs))
    inputs = benchmark.inputs.astype(np.float64)
    expected = scaled(kind, inputs, inputs[benchmark.train])
    np.testing.assert_allclose(fitted(kind, benchmark)(benchmark.inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SCALINGS)
def test_scaling_sees_training_rows_only(kind):
    benchmark = tiny()
    strange = with_inputs(benchmark, lambda inputs: inputs.__setitem__(benchmark.test_seen, 1e6))
    assert strange.inputs.max() == 1e6
    for one, other in zip(fitted(kind, benchmark).weights, fitted(kind, strange).weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("value", [0.0, 0.1])  # 0.1 in float64: the mean of equal numbers misses them by a rounding
@pytest.mark.parametrize("kind", ["standard", "minmax"])
def test_a_feature_without_spread_is_only_shifted(kind, value):
    benchmark = tiny(rows=7)
    benchmark = dataclasses.replace(benchmark, inputs=benchmark.inputs.astype(np.float64))
    benchmark = with_inputs(benchmark, lambda inputs: inputs[:, 3].fill(value))
    rows = benchmark.inputs[:2].copy()
    rows[1, 3] = value + 2
    np.testing.assert_allclose(fitted(kind, benchmark)(rows)[:, 3], [0, 2], atol=1e-6)


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_zero_row_among_the_training_rows_stays_finite(kind):
    benchmark = with_inputs(tiny(), lambda inputs: inputs[tiny().train[5]].fill(0))
    inputs = benchmark.inputs.astype(np.float64)
    row = benchmark.train[5:6]
    expected = scaled(kind, inputs[row], inputs[benchmark.train])
    np.testing.assert_allclose(fitted(kind, benchmark)(benchmark.inputs[row]), expected, atol=1e-5)


@pytest.mark.parametrize("kind", SCALINGS)
def test_half_precision_inputs_are_scaled_in_single(kind):
    big = tiny()
    benchmark = dataclasses.replace(big, inputs=(big.inputs * 1000).astype(np.float16))  # norms beyond float16
    inputs = benchmark.inputs.astype(np.float64)
    result = fitted(kind, benchmark)(benchmark.inputs)
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, scaled(kind, inputs, inputs[benchmark.train]), rtol=1e-4, atol=1e-5)


def test_an_unknown_scaling_is_named():
    known = ", ".join(SCALINGS)
    with pytest.raises(ValueError, match=f"scaling: got 'l3'; wanted one of {known}"):
        FeatureScaling(16).fit("l3", tiny().take, tiny().train)


@pytest.mark.parametrize("kind", SCALINGS)
def test_saved_weights_hold_the_scaling(kind, tmp_path):
    benchmark = tiny()
    model, other = (keras.Sequential([keras.Input((16,)), FeatureScaling(16)]) for _ in range(2))
    model.layers[0].fit(kind, benchmark.take, benchmark.train)
    other.layers[0].fit("minmax" if kind == "l2" else "l2", benchmark.take, benchmark.train)
    model.save_weights(tmp_path / "scaling.weights.h5")
    assert np.abs(model(benchmark.inputs) - other(benchmark.inputs)).max() > 0.01
    other.load_weights(tmp_path / "scaling.weights.h5")
    np.testing.assert_array_equal(model(benchmark.inputs), other(benchmark.inputs))


def test_l2_normalize_keeps_directions():
    rows = tf.constant([[3.0, 4.0], [-3e-7, 4e-7], [3e15, -4e15], [0.0, 0.0]])
    np.testing.assert_allclose(l2_normalize(rows), [[0.6, 0.8], [-0.6, 0.8], [0.6, -0.8], [0, 0]], rtol=1e-5)
    np.testing.assert_allclose(l2_normalize(tf.transpose(rows[:2]))[0], [1, -3e-7 / 3], rtol=1e-5)  # rows, not columns


@pytest.mark.parametrize("jit", [False, True])
def test_l2_normalize_has_its_gradient_and_none_at_zero(jit):
    """XLA and TensorFlow's own kernels differ at a zero row."""
    rows, weights = np.array([[1.0, 2.0, -2.0], [0.0, 0.0, 0.0]]), np.array([1.0, 2.0, 3.0])

    @tf.function(jit_compile=jit)
    def gradient(vectors):
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            loss = tf.reduce_sum(l2_normalize(vectors) * weights)
        return tape.gradient(loss, vectors)

    unit = rows[0] / 3
    expected = [(weights - unit * (unit @ weights)) / 3, [0, 0, 0]]
    np.testing.assert_allclose(gradient(tf.constant(rows)), expected, atol=1e-12)


def test_scaling_is_fitted_on_the_embeddings_of_seen_classes():
    benchmark = tiny()
    layer = FeatureScaling(6)
    layer.fit_classes("standard", benchmark)
    embeddings = benchmark.class_embeddings.astype(np.float64)
    expected = scaled("standard", embeddings, embeddings[benchmark.seen_mask])
    np.testing.assert_allclose(layer(benchmark.class_embeddings), expected, rtol=1e-4, atol=1e-5)
    assert len(benchmark.seen_classes) < len(embeddings)


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_classes_are_scored_in_parts_of_at_most_so_many(at_once, traced):
    inputs, classes = (np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in ((4, 5), (7, 5)))
    sizes = []

    def score(part):
        if not traced:
            sizes.append(len(part))
        return tf.matmul(inputs, part, transpose_b=True)

    def in_parts(classes):
        return layers.in_parts(score, classes, at_once)

    if traced:
        in_parts = tf.function(in_parts, [tf.TensorSpec([None, 5], tf.float32)])
    for count in (7, 1, 0):
        np.testing.assert_allclose(in_parts(classes[:count]), inputs @ classes[:count].T, rtol=1e-5, atol=1e-6)
    assert all(size <= at_once for size in sizes)
