"""Layers, and functions on maps, classes and backbones, that two or more models use."""

import keras
import numpy as np
import tensorflow as tf

from zslkeras.images import backbones
from zslkeras.names import SCALINGS

NORM_FLOOR = 1e-12  # shorter vectors count as zero
VARIANCE_EPSILON = 1e-5  # of every normalisation, as in most published code; Keras has 1e-3
_ROWS = 4096  # rows read at a time while fitting
_ROOT = "root_"


def l2_normalize(vectors):
    """Rows of unit norm. A zero row stays zero and has no gradient, which would be NaN or 1e12 times too long."""
    # Its epsilon is a floor of the squared norm: the default of 1e-12 would shrink rows shorter than 1e-6.
    unit = tf.math.l2_normalize(vectors, axis=-1, epsilon=NORM_FLOOR**2)
    return tf.where(tf.reduce_any(vectors != 0, axis=-1, keepdims=True), unit, tf.zeros_like(unit))


def root(features):
    """The square root of each feature's size, with its sign. It has no gradient at zero, where it would be infinite."""
    return tf.sign(features) * tf.sqrt(tf.maximum(tf.abs(features), NORM_FLOOR))


def inverse_norm(squares):
    """1 / norm of vectors with these squared norms."""
    return tf.math.rsqrt(tf.maximum(squares, NORM_FLOOR**2))


def dense(inputs, units, name, **options):
    """A dense layer that is built for [..., inputs]."""
    layer = keras.layers.Dense(units, name=name, **options)
    layer.build((None, inputs))
    return layer


def scaled_maps(scaling, kind, maps):
    """Maps or regions as float32, scaled where `kind` is not "none": a pass over them costs time."""
    maps = tf.cast(maps, tf.float32)
    return maps if kind == "none" else scaling(maps)


def in_parts(score, classes, at_once):
    """score(classes) in parts, so that memory does not grow with the number of classes.

    Args:
        score: classes [k, A] -> [B, k]; a class has the same score in any part.
        classes: [K, A].
        at_once: the most classes in a part, a number or int32 [].

    Returns:
        [B, K].
    """
    number = tf.shape(classes)[0]
    parts = tf.maximum(1, -(-number // at_once))
    size = -(-number // parts)
    padded = tf.reshape(tf.pad(classes, [[0, parts * size - number], [0, 0]]), [parts, size, classes.shape[1]])
    scores = tf.map_fn(score, padded, parallel_iterations=1)  # [parts, B, size]
    return tf.reshape(tf.transpose(scores, [1, 0, 2]), [tf.shape(scores)[1], parts * size])[:, :number]


def load_backbone(backbone, config, layers=None):
    """Gives a backbone that was made without weights those that the config names.

    A model makes its backbone without weights, as those of a saved model come with it.

    Args:
        backbone: what `backbones.backbone` made.
        config: has `backbone`, `weights` and `image_size`.
        layers: as the backbone was made with.
    """
    if config.weights:
        trained = backbones.backbone(config.backbone, config.weights, config.image_size, layers)
        backbone.set_weights(trained.get_weights())


class FeatureScaling(keras.layers.Layer):
    """Scales features; fitted on training rows, and saved and exported with the model.

    Kinds: "none"; "l2", rows of unit norm; "centred", minus the training mean, then one factor for all features that
    makes the root mean square of the rows' norms one; "centred_l2", unit norm, minus the training mean, unit norm
    again; "standard", zero mean and unit variance; "minmax", training rows in 0..1. "standard" and "minmax" only shift
    a feature without spread. "root_..." first takes the square root of each feature and keeps its sign: the strongest
    features then count less.
    """

    def __init__(self, width, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)  # float32 in every model: small differences are what it is for
        self.width = width
        # All kinds are one formula, norm_after((norm_before(root(x)) - shift) * factor): one layer can hold any.
        self.root = self._state("root", (), "zeros")
        self.norm_before = self._state("norm_before", (), "zeros")
        self.shift = self._state("shift", (width,), "zeros")
        self.factor = self._state("factor", (width,), "ones")
        self.norm_after = self._state("norm_after", (), "zeros")
        self.built = True

    def fit(self, kind, take, rows):
        """Fits `kind` on `take(rows)`, read in parts, in at most two passes, in float64."""
        if kind not in SCALINGS:
            raise ValueError(f"scaling: got {kind!r}; wanted one of {', '.join(SCALINGS)}")
        if rooted := kind.startswith(_ROOT):
            kind, plain = kind.removeprefix(_ROOT), take
            take = lambda rows: root(np.asarray(plain(rows), np.float64))  # noqa: E731
        self.root.assign(float(rooted))
        centred, unit = kind == "centred_l2", kind in ("l2", "centred_l2")
        shift, factor = np.zeros(self.width), np.ones(self.width)
        if kind in ("centred", "centred_l2", "standard"):
            shift = sum(part.sum(0) for part in _parts(take, rows, unit)) / len(rows)
            spread = sum(((part - shift) ** 2).sum(0) for part in _parts(take, rows, unit))
        if kind == "standard":
            factor = _inverse(np.sqrt(spread / len(rows)), shift)
        if kind == "centred":
            factor = np.full(self.width, _inverse(np.sqrt(spread.sum() / len(rows)), np.linalg.norm(shift)))
        if kind == "minmax":
            shift = np.min([part.min(0) for part in _parts(take, rows, unit)], axis=0)
            top = np.max([part.max(0) for part in _parts(take, rows, unit)], axis=0)
            factor = _inverse(top - shift, shift)
        self.norm_before.assign(float(unit))
        self.shift.assign(shift)
        self.factor.assign(factor)
        self.norm_after.assign(float(centred))

    def fit_regions(self, kind, take, rows):
        """Fits `kind` on every region of the maps `take(rows)`, [n, H, W, width]."""
        per_row = int(np.prod(take(rows[:1]).shape[1:-1]))

        # Regions are numbered row by row, so a part of a few thousand regions is a few images.
        def take_regions(numbers):
            first, last = numbers[0] // per_row, numbers[-1] // per_row + 1
            return np.reshape(take(rows[first:last]), [-1, self.width])[numbers - first * per_row]

        self.fit(kind, take_regions, np.arange(len(rows) * per_row))

    def fit_classes(self, kind, benchmark):
        """Fits `kind` on the embeddings of the seen classes."""
        embeddings = benchmark.class_embeddings
        self.fit(kind, lambda classes: embeddings[classes], benchmark.seen_classes)

    def call(self, features):
        features = tf.where(self.root > 0, root(features), features)
        features = tf.where(self.norm_before > 0, l2_normalize(features), features)
        features = (features - self.shift) * self.factor
        return tf.where(self.norm_after > 0, l2_normalize(features), features)

    def _state(self, name, shape, initializer):
        return self.add_weight(shape=shape, initializer=initializer, trainable=False, name=name)


class Whitening(keras.layers.Layer):
    """Brings rows into a space where classes scatter alike in every direction, and to unit norm there.

    x -> x L^-T / |x L^-T| with L L' = C + shrinkage * mean eigenvalue of C * I, where C is the covariance of training
    rows around the mean of their class. Directions in which the images of a class differ count less; the cosine with a
    prototype becomes that of a linear discriminant. Any square root would do: rotations change no cosine or distance.
    """

    def __init__(self, width, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.width = width
        self.matrix = self.add_weight(shape=(width, width), initializer="identity", trainable=False, name="matrix")
        self.built = True

    def fit(self, take, rows, labels, shrinkage):
        """Fits on `take(rows)` [N, width] with `labels` [N]."""
        self.set(self.scatter(take, rows, labels), shrinkage)

    def scatter(self, take, rows, labels):
        """C [width, width] of `take(rows)`, read in parts, in float64."""
        classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
        sums, products = np.zeros((len(classes), self.width)), np.zeros((self.width, self.width))
        for start in range(0, len(rows), _ROWS):
            part = np.asarray(take(rows[start : start + _ROWS]), np.float64)
            add_rows(sums, place[start : start + _ROWS], part)
            products += part.T @ part
        return (products - (sums.T / counts) @ sums) / len(rows)

    def set(self, scatter, shrinkage):
        """Sets the matrix for C = `scatter`; for a shrinkage of 0 it is the identity, and rows only get unit norm."""
        if shrinkage == 0:
            self.matrix.assign(np.eye(self.width))
            return
        within = scatter + (shrinkage * np.trace(scatter) / self.width + NORM_FLOOR) * np.eye(self.width)
        root = tf.linalg.cholesky(within)
        self.matrix.assign(tf.transpose(tf.linalg.triangular_solve(root, tf.eye(self.width, dtype=root.dtype))))

    def call(self, features):
        return l2_normalize(tf.matmul(features, self.matrix))


def add_rows(sums, places, rows):
    """sums[places] += rows, one row after the other: what np.add.at does in twenty times the time."""
    for place, row in zip(places, rows, strict=True):
        sums[place] += row


def _parts(take, rows, unit):
    for start in range(0, len(rows), _ROWS):
        part = np.asarray(take(rows[start : start + _ROWS]), np.float64)
        yield part / np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), NORM_FLOOR) if unit else part


def _inverse(spread, shift):
    """1 / spread, and 1 for a feature without spread: the mean of equal numbers may differ from them by a rounding."""
    return 1.0 / np.where(spread > np.finfo(np.float32).eps * np.abs(shift), spread, 1.0)
