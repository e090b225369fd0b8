"""A small gradient model for tests of the loop: class prototypes from an MLP, with every trap that replicas set.

It has synchronized batch statistics, noise, a loss whose mean over the batch stands inside a logarithm, and dropout's
cousin: noise that has to differ between replicas.
"""

import dataclasses

import keras
import tensorflow as tf

from zslkeras import names
from zslkeras.models.base import ZeroShotModel
from zslkeras.models.config import Config, setting
from zslkeras.models.layers import FeatureScaling, l2_normalize


@dataclasses.dataclass(frozen=True)
class ExampleConfig(Config):
    hidden: int = setting(32, least=1)
    noise_weight: float = setting(0.0, least=0)
    learning_rate: float = setting(0.01, above=0)
    optimizer: str = setting("adam", choices=("adam", "sgd"))
    scaling: str = setting("centred_l2", choices=names.SCALINGS)
    temperature: float = setting(20.0, above=0)
    epochs: int = setting(4, least=1)
    batch_size: int = setting(64, least=1)
    sampler: str = setting("plain", choices=names.SAMPLERS)
    patience: int | None = setting(None, least=1)
    averaging: float = setting(0.0, least=0, most=1)
    explode_at: int = -1  # the step whose loss is not a number


class Example(ZeroShotModel):
    Config = ExampleConfig
    ablations = {"full": {}, "noisy": {"noise_weight": 0.1}}
    losses_reported = ("loss", "entropy")

    def __init__(self, config, input_shape, class_embeddings, seen_mask, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, seen_mask, *args, **kwargs)
        (width,) = input_shape
        self.scaling = FeatureScaling(width, name="scaling")
        self.hidden = keras.layers.Dense(config.hidden, activation="relu", name="hidden")
        self.norm = keras.layers.BatchNormalization(synchronized=True, name="norm")
        self.out = keras.layers.Dense(width, name="out")
        self.hidden.build((None, class_embeddings.shape[1]))
        self.norm.build((None, config.hidden))
        self.out.build((None, config.hidden))

    def adapt(self, benchmark):
        self.scaling.fit(self.config.scaling, benchmark.take, benchmark.train)

    def compile(self, optimizer=None, **kwargs):
        kinds = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}
        super().compile(optimizer=optimizer or kinds[self.config.optimizer](self.config.learning_rate), **kwargs)
        self.optimizer.build(self.trainable_variables)

    def prototypes(self, embeddings, training=False):
        return tf.cast(l2_normalize(self.out(self.norm(self.hidden(embeddings), training=training))), tf.float32)

    def score_classes(self, inputs, class_embeddings):
        features = l2_normalize(self.scaling(tf.cast(inputs, tf.float32)))
        return tf.matmul(features, self.prototypes(class_embeddings), transpose_b=True)

    def train_step(self, data):
        inputs, labels = data
        features = l2_normalize(self.scaling(tf.cast(inputs, tf.float32)))
        features += self.config.noise_weight * self.noise(tf.shape(features))
        context = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            own = self.prototypes(tf.gather(self.class_embeddings.value, labels), training=True)
            logits = self.config.temperature * tf.matmul(
                features, self.prototypes(self.class_embeddings.value), transpose_b=True
            )
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
            loss += tf.reduce_mean(tf.square(features - own)) * features.shape[-1]
            # The mean over the global batch inside a logarithm: a mean a replica would be another loss.
            share = context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(tf.nn.softmax(logits), axis=0))
            entropy = tf.reduce_sum(share * tf.math.log(share + 1e-9))
            loss += 0.1 * entropy
            loss = tf.where(
                tf.equal(self.optimizer.iterations.value, self.config.explode_at),
                tf.cast(float("nan"), loss.dtype),
                loss,
            )
        self.minimize(tape, loss, self.optimizer, self.trainable_variables)
        return self.report(loss=loss, entropy=entropy)
