"""Attributes out of words: what the texts of known classes say about their attributes, by ridge regression.

    a(t) = mean a + W (t - mean t),  W = (A - mean a)^T (T T^T + lambda I)^-1 T,  T = texts - mean t

Several texts may stand for a class. Lambda is the one with which each known class is told best by the others
(leave-one-class-out, in closed form).
"""

import numpy as np

from zslkeras.text import descriptions

_RIDGES = 10.0 ** np.arange(-3, 2.01, 0.25)  # of the mean square of a centred text


class FromWords:
    """Fitted on known classes; called with texts [K, D], it gives attributes [K, A] in the range of the known ones.

    Attributes:
        told: the share of the variance of attributes that leave-one-out explains; 0 is no better than their mean.
    """

    def __init__(self, texts, attributes):
        """
        Args:
            texts: [n, C, D] vectors of n texts about each known class.
            attributes: [C, A].
        """
        several, classes, _ = np.shape(texts)
        texts = np.asarray(texts, np.float64).reshape(several * classes, -1)
        attributes = np.tile(np.asarray(attributes, np.float64), (several, 1))
        self._text, self._mean = texts.mean(axis=0), attributes.mean(axis=0)
        self._low, self._high = attributes.min(axis=0), attributes.max(axis=0)
        centred, wanted = texts - self._text, attributes - self._mean
        values, vectors = np.linalg.eigh(centred @ centred.T)
        values = np.maximum(values, 0)
        scale = max(values.sum() / len(values), np.finfo(np.float64).tiny)
        own = np.arange(several * classes).reshape(several, classes).T
        errors = [self._left_out(values / (values + ridge * scale), vectors, wanted, own) for ridge in _RIDGES]
        best = int(np.argmin(errors))
        shrunk = vectors / (values + _RIDGES[best] * scale)
        self._weights = centred.T @ (shrunk @ (vectors.T @ wanted))
        self.told = 1 - errors[best] / max((wanted**2).sum(), np.finfo(np.float64).tiny)

    @classmethod
    def of_classes(cls, encoder, names, attribute_names, attributes, said=None):
        """Fitted on all that can be said about known classes.

        Args:
            encoder: of sentences.
            names, attribute_names, attributes, said: see `descriptions.of_known`.
        """
        kinds = descriptions.of_known(names, attribute_names, attributes, said)
        return cls([descriptions.embedded(encoder, kind) for kind in kinds], attributes)

    @staticmethod
    def _left_out(shares, vectors, wanted, own):
        """The squared error with which each class is told by the others, summed; `own` [C, n] are its rows."""
        smooth = (vectors * shares) @ vectors.T + 1 / len(vectors)  # the mean takes a share of every row
        error = wanted - smooth @ wanted
        kept = np.eye(own.shape[1]) - smooth[own[:, :, None], own[:, None, :]]
        return (np.linalg.solve(kept, error[own]) ** 2).sum()

    def __call__(self, texts):
        told = self._mean + (np.asarray(texts, np.float64) - self._text) @ self._weights
        return np.clip(told, self._low, self._high)
