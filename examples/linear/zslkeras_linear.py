"""A model that another package brings: a linear map from features to class embeddings."""

import dataclasses

import tensorflow as tf

from zslkeras.models.base import ZeroShotModel
from zslkeras.models.config import Config, setting
from zslkeras.models.layers import FeatureScaling, dense, l2_normalize
from zslkeras.models.optimizers import adam


@dataclasses.dataclass(frozen=True)
class LinearConfig(Config):
    learning_rate: float = setting(0.01, above=0)
    temperature: float = setting(20.0, above=0)
    epochs: int = setting(5, least=1)
    batch_size: int = setting(32, least=1)
    sampler: str = "plain"


class Linear(ZeroShotModel):
    Config = LinearConfig
    losses_reported = ("class_loss",)

    def __init__(self, config, input_shape, class_embeddings, seen_mask, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, seen_mask, *args, **kwargs)
        self.scaling = FeatureScaling(*input_shape, name="scaling")
        self.to_classes = dense(*input_shape, class_embeddings.shape[1], "to_classes")

    def adapt(self, benchmark):
        self.scaling.fit("standard", benchmark.take, benchmark.train)

    def compile(self, optimizer=None, **kwargs):
        super().compile(optimizer=optimizer or adam(self.config.learning_rate), **kwargs)
        self.optimizer.build(self.trainable_variables)

    def train_step(self, data):
        inputs, labels = data
        with tf.GradientTape() as tape:
            seen = tf.where(self.seen_mask.value > 0, 0.0, -1e9)  # nothing of unseen classes is read
            logits = self.config.temperature * self.score_classes(inputs, self.class_embeddings.value) + seen
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        self.minimize(tape, loss, self.optimizer, self.trainable_variables)
        return self.report(class_loss=loss)

    def score_classes(self, inputs, class_embeddings):
        embeddings = tf.cast(self.to_classes(self.scaling(tf.cast(inputs, tf.float32))), tf.float32)
        return tf.matmul(l2_normalize(embeddings), l2_normalize(class_embeddings), transpose_b=True)
