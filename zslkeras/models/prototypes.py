"""Prototypes in closed form, after Changpinyo, Chao and Sha, Predicting visual exemplars of unseen classes (ICCV 2017).

Every class has a prototype, the mean of its images. A regression from class embeddings to the prototypes of seen
classes gives those of classes without images, and an image belongs to the class of the nearest prototype. Every result
table has it as its second yardstick, because it takes seconds.

    M = mean over the images of a class of x / |x|, x whitened by the covariance within classes     [S, D]
    P = A_K A_S' (A_S A_S' + lambda I)^-1 M                                                         [K, D]
    score = cosine of x and a row of P                                              (conditioning.ClosedForm)

The scaling of features and embeddings, the whitening and lambda are chosen on stage tune. `--set kernels=0,2,5` also
tries Gaussian kernels between class embeddings, and `--set scalings=...` other scalings.

Deviations: the paper reduces features by PCA, predicts every dimension by its own support vector regression with a
Gaussian kernel, and divides distances by the deviations within classes. Here these deviations are the whole covariance,
the regression is linear, and lengths do not count.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from zslkeras import graphs
from zslkeras.models.conditioning import ClosedForm, settings
from zslkeras.models.config import Config, setting
from zslkeras.models.solved import Solved
from zslkeras.names import SCALINGS


@dataclasses.dataclass(frozen=True)
class PrototypesConfig(Config):
    scalings: tuple[str, ...] = setting(("l2", "centred_l2", "standard"), choices=SCALINGS)
    # What is added to the covariance, relative to its mean eigenvalue; 0 is no whitening.
    whitenings: tuple[float, ...] = setting((0.0, 0.1, 1.0, 8.0), least=0)
    embedding_scalings: tuple[str, ...] = setting(("l2", "centred_l2"), choices=SCALINGS)
    kernels: tuple[float, ...] = setting((0.0,), least=0)  # widths of Gaussians; 0 is the linear kernel
    lambdas: tuple[float, ...] = setting((1e-3, 1e-2, 1e-1, 1.0, 10.0), above=0)


class Prototypes(Solved):
    """Prototypes by regression from class embeddings, solved for each setting in turn."""

    Config = PrototypesConfig
    ablations = {"full": {}, "not_whitened": {"whitenings": (0.0,)}}

    def __init__(self, config, input_shape, class_embeddings, seen_mask, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, seen_mask, *args, **kwargs)
        (width,), (_, attributes) = input_shape, class_embeddings.shape
        self.closed_form = ClosedForm(width, attributes, int(np.sum(np.asarray(seen_mask) > 0)), name="closed_form")

    def solutions(self, stage):
        for one in self._settings(stage):
            yield dataclasses.asdict(one)

    def scored_solutions(self, run):
        space, features, compare = None, [], graphs.function(self.closed_form.compare, reduce_retracing=True)
        for one in self._settings(run.benchmark):
            if space != one.space:  # whitening takes longest, so it is done once for many settings
                features = [self.closed_form.features(inputs) for inputs, _ in run.read(run.benchmark.tested)]
                space = one.space
            scores = [compare(part, self.class_embeddings.value) for part in features]
            yield dataclasses.asdict(one), np.concatenate(scores)

    def score_classes(self, inputs, class_embeddings):
        self.require_learned()
        return self.closed_form(inputs, class_embeddings)

    @property
    def form(self):
        return self.closed_form, tf.constant(1.0)

    def form_features(self, inputs):
        return self.closed_form.features(inputs)

    def embed(self, inputs):
        """The whitened features that prototypes are compared with, and the scaled ones: name -> [B, D]."""
        self.require_learned()
        form = self.closed_form
        return {"whitened": form.features(inputs), "baseline": form.scaling(tf.cast(inputs, tf.float32))}

    def _settings(self, stage):
        """Each Setting, while the closed form holds it."""
        config = self.config
        parts = config.scalings, config.whitenings, config.embedding_scalings, config.kernels, config.lambdas
        yield from self.closed_form.fit(settings(*parts), stage, stage.take)

    def _solved(self):
        return [self.closed_form.matrix]
