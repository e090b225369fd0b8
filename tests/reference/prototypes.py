"""Prototypes in closed form, in float64 with plain inverses and loops."""

import numpy as np

from tests.reference.eszsl import scaled


class Prototypes:
    """Fitted on training rows; `scores` of any rows and classes."""

    def __init__(self, train, labels, seen_embeddings, scaling, whitening, embedding_scaling, ridge):
        """`labels` [N] count the rows of `seen_embeddings`."""
        self.train, self.scaling = train, scaling
        self.seen, self.embedding_scaling = seen_embeddings, embedding_scaling
        features = scaled(scaling, train, train)
        self.whitener = np.eye(features.shape[1])
        if whitening:
            within = np.zeros_like(self.whitener)
            for row, label in zip(features, labels, strict=True):
                difference = row - features[labels == label].mean(axis=0)
                within += np.outer(difference, difference) / len(features)
            values, vectors = np.linalg.eigh(within + whitening * np.trace(within) / len(within) * self.whitener)
            self.whitener = vectors @ np.diag(values**-0.5) @ vectors.T
        features = _unit(features @ self.whitener)
        means = np.array([features[labels == c].mean(axis=0) for c in range(len(seen_embeddings))])
        known = scaled(embedding_scaling, seen_embeddings, seen_embeddings)
        # The other form of ridge regression: a weight per seen class.
        self.weights = np.linalg.inv(known @ known.T + ridge * np.eye(len(known))) @ means
        self.known = known

    def scores(self, inputs, embeddings):
        classes = scaled(self.embedding_scaling, embeddings, self.seen)
        prototypes = classes @ self.known.T @ self.weights
        return _unit(scaled(self.scaling, inputs, self.train) @ self.whitener) @ _unit(prototypes).T


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
