"""ESZSL: Romera-Paredes and Torr, An embarrassingly simple approach to zero-shot learning (ICML 2015).

A bilinear score x' V s between features and class embeddings, with V in closed form. Every result table here has it as
its yardstick.

    V = (X'X + gamma I)^-1 X' Y S (S'S + lambda I)^-1                                        (Eq. 12 of the paper)

with X [N, D] training features, Y [N, C] in {-1, 1} and S [C, A] the embeddings of the seen classes. Both
regularisers and the scaling of the features are chosen on stage tune. S'S is diagonal in the basis of S's singular
vectors, so every lambda is a rescaling; each gamma is one Cholesky solve of X'X. (An eigendecomposition would make
gamma a rescaling too; at D = 1280 it takes ten times as long as seven solves.)

Deviations: none in the formula. The paper has no feature scaling; the scaling matters as much as the regularisers.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from zslkeras.models.config import Config, setting
from zslkeras.models.layers import SCALINGS, FeatureScaling
from zslkeras.models.solved import Solved

_ROWS = 2048  # rows scaled at a time
_TRIED = ("none", "l2", "centred_l2", "standard", "minmax")  # "centred" would only rescale gamma


@dataclasses.dataclass(frozen=True)
class ESZSLConfig(Config):
    scalings: tuple[str, ...] = setting(_TRIED, choices=SCALINGS)
    # The paper's range of both, 10^b for b = -3, -2, ..., 3.
    gammas: tuple[float, ...] = setting((1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0), above=0)
    lambdas: tuple[float, ...] = setting((1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0), above=0)


class ESZSL(Solved):
    """A bilinear form between features and class embeddings, solved for each setting in turn."""

    Config = ESZSLConfig
    ablations = {kind: {"scalings": (kind,)} for kind in _TRIED}

    def __init__(self, config, input_shape, class_embeddings, seen_mask, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, seen_mask, *args, **kwargs)
        (width,), (_, attributes) = input_shape, class_embeddings.shape
        self.scaling = FeatureScaling(width, name="scaling")
        # V = to_rank @ from_rank. Its rank is at most the number of seen classes.
        rank = min(attributes, max(1, int(np.sum(np.asarray(seen_mask) > 0))))
        self.to_rank = self._constant("to_rank", np.zeros((width, rank)))
        self.from_rank = self._constant("from_rank", np.zeros((rank, attributes)))

    def solutions(self, stage):
        config = self.config
        seen = np.asarray(stage.class_embeddings, np.float64)[stage.seen_classes]  # S
        _, singular, right = np.linalg.svd(seen, full_matrices=False)  # S'S = right' singular^2 right
        rank = self.from_rank.shape[0]
        singular, right = singular[:rank], right[:rank]
        self.from_rank.assign(right)
        for kind in config.scalings:
            self.scaling.fit(kind, stage.take, stage.train)
            gram, cross = self._moments(stage, seen @ right.T)
            for gamma in config.gammas:
                root = tf.linalg.cholesky(gram + gamma * np.eye(len(gram)))
                solved = tf.linalg.cholesky_solve(root, cross).numpy()
                for lambda_ in config.lambdas:
                    self.to_rank.assign(solved / (singular**2 + lambda_))
                    yield {"scaling": kind, "x_regularizer": gamma, "s_regularizer": lambda_}

    def scored_solutions(self, run):
        scaling, features = None, None
        for state in self.solutions(run.benchmark):
            if scaling != state["scaling"]:  # features are scaled once for all its regularisers
                scaled = [self._scaled(inputs) for inputs, _ in run.read(run.benchmark.tested)]
                scaling, features = state["scaling"], tf.concat(scaled, axis=0)
            yield state, self._compared(features, self.class_embeddings.value).numpy()

    def score_classes(self, inputs, class_embeddings):
        return self._compared(self._features(inputs), class_embeddings)

    def _compared(self, features, class_embeddings):
        """The products of x' V and class embeddings."""
        return tf.matmul(features @ self.to_rank, class_embeddings @ tf.transpose(self.from_rank), transpose_b=True)

    def embed(self, inputs):
        """The scaled features, and x' V, whose products with class embeddings are the scores: name -> [B, D]."""
        features = self._features(inputs)
        return {"attribute": features @ self.to_rank @ self.from_rank, "baseline": features}

    def _solved(self):
        return [self.from_rank]

    def _features(self, inputs):
        self.require_learned()
        return self._scaled(inputs)

    def _scaled(self, inputs):
        return self.scaling(tf.cast(inputs, self.compute_dtype))

    def _moments(self, stage, embeddings):
        """X'X [D, D], and X'Y S in the eigenbasis of S'S [D, rank]."""
        width, rank = self.to_rank.shape
        gram, cross = np.zeros((width, width)), np.zeros((width, rank))
        # Y is 1 at the row's class and -1 elsewhere: Y S = 2 S[label] - sum over seen classes of S.
        targets = np.zeros((len(stage.class_embeddings), rank))
        targets[stage.seen_classes] = 2 * embeddings - embeddings.sum(0)
        for start in range(0, len(stage.train), _ROWS):
            rows = stage.train[start : start + _ROWS]
            features = np.asarray(self.scaling(np.asarray(stage.take(rows), np.float32)), np.float64)
            gram += features.T @ features
            cross += features.T @ targets[stage.labels[rows]]
        return gram, cross
