"""Prototypes in closed form: the space in which features are compared, and a linear map from class embeddings to it.

Seconds of work, and hard to beat: `prototypes` is this as a model of its own.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from zslkeras.models.layers import FeatureScaling, Whitening, l2_normalize

_ROWS = 2048  # rows brought into the space at a time


@dataclasses.dataclass(frozen=True)
class Setting:
    """What `ClosedForm` is fitted with.

    Attributes:
        scaling: of features, one of SCALINGS.
        whitening: shrinkage of `Whitening` after it; 0 is none.
        embedding_scaling: of class embeddings, one of SCALINGS.
        ridge: lambda of the regression from class embeddings to prototypes.
    """

    scaling: str
    whitening: float
    embedding_scaling: str
    ridge: float


class ClosedForm(keras.layers.Layer):
    """Prototypes of classes by ridge regression, in a whitened space, compared by cosine.

        M = mean over the images of a class of x / |x|, x whitened                    [S, D]
        P = A_K A_S' (A_S A_S' + lambda I)^-1 M, rows of unit length                  [K, D]

    with A_S the scaled embeddings of the seen classes and A_K those of any K classes.
    """

    def __init__(self, width, attributes, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.scaling = FeatureScaling(width, name="scaling")
        self.whitening = Whitening(width, name="whitening")
        self.embedding_scaling = FeatureScaling(attributes, name="embedding_scaling")
        self.matrix = self.add_weight(shape=(attributes, width), initializer="zeros", trainable=False, name="matrix")
        self.built = True

    def fit(self, settings, take, rows, labels, class_embeddings, seen_classes):
        """Fits each of `settings` in turn, and yields it while the layer holds it.

        Args:
            settings: list of Setting. Equal scalings and whitenings are best adjacent: they are fitted once.
            take: row ids -> [n, D].
            rows: [N] ids of the training rows.
            labels: [N] their classes.
            class_embeddings: [C, A].
            seen_classes: [S] ids.
        """
        scaled = lambda some: self.scaling(np.asarray(take(some), np.float32))  # noqa: E731
        scaling = whitening = None
        for setting in settings:
            if setting.scaling != scaling:
                self.scaling.fit(setting.scaling, take, rows)
                scatter, whitening = self.whitening.scatter(scaled, rows, labels), None
            if setting.whitening != whitening:
                self.whitening.set(scatter, setting.whitening)
                means = self._class_means(take, rows, labels, seen_classes)
            scaling, whitening = setting.scaling, setting.whitening
            self.embedding_scaling.fit(
                setting.embedding_scaling, lambda classes: class_embeddings[classes], seen_classes
            )
            seen = np.asarray(self.embedding_scaling(class_embeddings[seen_classes]), np.float64)
            self.matrix.assign(ridge(seen, means, setting.ridge))
            yield setting

    def features(self, inputs):
        """[B, D] in the space, of unit length."""
        return self.whitening(self.scaling(tf.cast(inputs, tf.float32)))

    def prototypes(self, class_embeddings):
        """[K, D] of unit length."""
        return l2_normalize(self.embedding_scaling(class_embeddings) @ self.matrix)

    def call(self, inputs, class_embeddings):
        """The cosine [B, K] of rows and prototypes."""
        return tf.matmul(self.features(inputs), self.prototypes(class_embeddings), transpose_b=True)

    def _class_means(self, take, rows, labels, seen_classes):
        sums, places = np.zeros((len(seen_classes), self.matrix.shape[1])), np.searchsorted(seen_classes, labels)
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            np.add.at(sums, places[part], np.asarray(self.features(np.asarray(take(rows[part]), np.float32))))
        return sums / np.bincount(places, minlength=len(seen_classes))[:, None]


def ridge(embeddings, means, strength):
    """W [A, D] with the least |embeddings W - means|^2 + strength |W|^2, in float64, by an SVD of [S, A]."""
    left, singular, right = np.linalg.svd(embeddings, full_matrices=False)
    return right.T @ ((singular / (singular**2 + strength))[:, None] * (left.T @ means))
