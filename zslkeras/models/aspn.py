"""ASPN: Lu, Yu, Lu, Shen and Zhang, Attentive Semantic Preservation Network for Zero-Shot Learning.

Learns to generate a class's visual prototype from its embedding. The encoder E generates features from an embedding s
and noise z, the decoder D infers both from features, a conditional critic (WGAN with gradient penalty) tells real pairs
from generated ones, and category attention lets each generated feature look at the others. An image belongs to the
class with the nearest prototype.

    L = L_V + L_S + L_pre + L_D + theta L_cls                                                              Eq. (9)
    L_V Eq. (1), L_S Eq. (2), L_pre Eq. (3), L_D Eq. (4), attention Eq. (5-6), L_cls Eq. (7-8)

Deviations, each a field of the config with the printed form at hand:
- Eq. (1-3) print sums over rows of squared norms. The code takes means over rows, so that no weight changes with the
  batch. With `reduction` "mean", as in the predecessor's released code, they are means over elements too, which
  makes L_V two thousand times smaller beside L_cls.
- Eq. (5) divides by a sum over i, the rows of f, and Eq. (6) sums over the same i, where the text and Fig. 2 say row
  softmax: `attention_axis`. Either way a feature becomes a weighted mean of others; f and g change places.
- Eq. (5) prints f and g as wide as what they read, the hidden layer: `attention_dim` None. That exceeds Table 2; with a
  width of 225, which is ours, and a second critic its 13.9 million parameters come out.
- Attention depends on the other classes in the list. Training looks within the batch as printed; prototypes look at
  the classes that Eq. (8) sums over, with z = 0, so that a class has the same score in any list: `context`.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from zslkeras.models.base import ZeroShotModel
from zslkeras.models.conditioning import BesideConfig
from zslkeras.models.config import setting
from zslkeras.models.layers import SCALINGS, FeatureScaling, Whitening, dense, l2_normalize
from zslkeras.models.optimizers import adam
from zslkeras.names import AUTO, SAMPLERS

_ACTIVATIONS = ("linear", "relu", "leaky_relu", "elu", "gelu", "tanh", "sigmoid")
_SIMILARITIES = ("dot", "cosine", "euclidean")


@dataclasses.dataclass(frozen=True)
class ASPNConfig(BesideConfig):
    # Sec. 4.1; "three-layer" counts layers of units: with three layers of weights E and D exceed Table 2.
    hidden: int = setting(512, least=1)
    theta: float = setting(0.1, least=0)  # of L_cls, Sec. 4.1
    beta: float = setting(10.0, least=0)  # of the gradient penalty, Sec. 4.1; the usual WGAN-GP has 10
    # Initial share of attention in Eq. (6), Sec. 4.1; learned as the logit of alpha.
    alpha: float = setting(0.1, above=0, below=1)
    learning_rate: float = setting(2e-3, above=0)  # Sec. 4.1
    batch_size: int = setting(64, least=1)  # Sec. 4.1
    # The ablations of Fig. 3: the weight of each part.
    visual_weight: float = setting(1.0, least=0)  # L_V
    semantic_weight: float = setting(1.0, least=0)  # L_S
    cycle_weight: float = setting(0.1, least=0)  # L_pre
    critic_weight: float = setting(0.01, least=0)  # the generator's side of L_D; 0 trains no critic
    attention: bool = True
    # Not in the paper.
    noise_dim: int | None = setting(16, least=1)  # |z|; None: the width of the embedding, which reproduces Table 2
    attention_dim: int | None = setting(64, least=1)  # width of f and g; None: of the hidden layer, as Eq. (5) prints
    attention_axis: str = setting("row", choices=("row", "column"))  # "column" is Eq. (5) as printed
    # "fixed": prototypes attend to the classes of the stage; "candidates": to the list they are in.
    context: str = setting("fixed", choices=("fixed", "candidates"))
    critic_hidden: int = setting(256, least=1)  # 1200 in the predecessor; two such critics have Table 2's parameters
    critic_steps: int = setting(1, least=1)  # per step of E and D, as in the predecessor
    # (|g|^2 - 1)^2 as printed below Eq. (4), or "norm", (|g| - 1)^2 as usual.
    penalty: str = setting("norm", choices=("squared", "norm"))
    reduction: str = setting("sum", choices=("mean", "sum"))  # of the regressions; "sum" over elements as printed
    scaling: str = setting(AUTO, choices=SCALINGS, auto=True)  # of the features, as in other feature-generating methods
    # Shrinkage of layers.Whitening after the scaling; 0 is no whitening.
    whitening: float = setting(AUTO, least=0, auto=True)
    # Of class embeddings, fitted on the seen classes.
    embedding_scaling: str = setting("centred_l2", choices=SCALINGS, auto=True)
    # Of E and D, Sec. 4.1; with few classes "linear" generalises better.
    hidden_activation: str = setting("relu", choices=_ACTIVATIONS)
    # ReLU fits features that are never negative, as minmax makes them; centred ones need "linear".
    visual_activation: str = setting("linear", choices=_ACTIVATIONS)
    # Half the elements of a sentence embedding are negative.
    semantic_activation: str = setting("linear", choices=_ACTIVATIONS)
    # In Eq. (8), "dot" as printed; "euclidean" is minus the squared distance.
    similarity: str = setting("cosine", choices=_SIMILARITIES)
    temperature: float = setting(20.0, above=0)  # the factor of the similarity in Eq. (8)
    decision: str = setting("cosine", choices=_SIMILARITIES)  # Sec. 3.5: nearest prototype
    # M in Eq. (8) is all classes, seen and unseen; "seen" reads no unseen embedding.
    classes_in_loss: str = setting("seen", choices=("all", "seen"))
    # The predecessor also classifies in the space of embeddings, by D(x); the paper does not. 0 is the paper.
    semantic_theta: float = setting(1.0, least=0)  # of that loss: cross entropy of temperature * cosine(D(x), s)
    semantic_decision: float = setting(1.0, least=0)  # the factor of cosine(D(x), s) in the score
    prototype_draws: int = setting(0, least=0)  # prototypes are from z = 0, or the mean of so many draws
    dropout: float = setting(0.0, least=0, below=1)  # of E's hidden layer in training
    weight_decay: float = setting(0.0, least=0)  # decoupled
    epochs: int = setting(12, least=1)  # the paper only says that the best model on test was taken
    sampler: str = setting("plain", choices=SAMPLERS)
    patience: int | None = setting(10, least=1)


def attend(queries, keys, values):
    """Category attention, Eq. (5-6): t of each row is the mean of the rows it looks at, weighted by a softmax.

    Args:
        queries: [b, d], of the rows that look.
        keys: [c, d], of the rows they look at.
        values: [c, hidden], the rows they look at.

    Returns:
        [b, hidden].
    """
    return tf.matmul(tf.nn.softmax(tf.matmul(queries, keys, transpose_b=True), axis=1), values)


def critic_loss(real_scores, fake_scores):
    """The part of Eq. (4) that the critic minimises, without the penalty."""
    return tf.reduce_mean(fake_scores) - tf.reduce_mean(real_scores)


def gradient_penalty(critic, between, embeddings, form="squared"):
    """L_GP below Eq. (4): the mean over rows of (|d critic / d between|^2 - 1)^2, or of (|.| - 1)^2 for "norm"."""
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = critic(tf.concat([between, embeddings], 1))
    squared = tf.reduce_sum(tape.gradient(scores, between) ** 2, axis=1)
    # The gradient of the root is infinite at zero: features that are all zero would make every weight NaN.
    length = squared if form == "squared" else tf.sqrt(tf.maximum(squared, 1e-12))
    return tf.reduce_mean((length - 1.0) ** 2)


def prototype_loss(scores, labels):
    """L_cls of one side, Eq. (7-8): cross entropy of the scores, mean over rows."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))


def _cosine(features, prototypes):
    return tf.matmul(l2_normalize(features), l2_normalize(prototypes), transpose_b=True)


def _dot(features, prototypes):
    return tf.matmul(features, prototypes, transpose_b=True)


def _euclidean(features, prototypes):
    """Minus the squared distance."""
    squares = tf.reduce_sum(features**2, 1, keepdims=True) + tf.reduce_sum(prototypes**2, 1)
    return 2 * _dot(features, prototypes) - squares


_SIMILARITY = {"dot": _dot, "cosine": _cosine, "euclidean": _euclidean}


class ASPN(ZeroShotModel):
    """Prototypes from a generator that has to preserve semantics."""

    Config = ASPNConfig
    ablations = {
        "baseline": {
            "semantic_weight": 0.0,
            "semantic_theta": 0.0,
            "semantic_decision": 0.0,
            "cycle_weight": 0.0,
            "critic_weight": 0.0,
            "attention": False,
        },
        "spn": {"attention": False},
        "aspn": {},
    }
    losses_reported = ("critic_loss", "penalty", "visual_loss", "semantic_loss", "cycle_loss", "class_loss", "alpha")

    def __init__(self, config, input_shape, class_embeddings, seen_mask, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, seen_mask, *args, **kwargs)
        (width,), semantics = input_shape, class_embeddings.shape[1]
        self.noise_dim = semantics if config.noise_dim is None else config.noise_dim
        self.scaling = FeatureScaling(width, name="scaling")
        self.whitening = Whitening(width, name="whitening") if config.whitening > 0 else None
        self.embedding_scaling = FeatureScaling(semantics, name="embedding_scaling")
        hidden, to_hidden = config.hidden, {"activation": config.hidden_activation}
        self.hidden = dense(semantics + self.noise_dim, hidden, "encoder_hidden", **to_hidden)
        self.out = dense(hidden, width, "encoder_out", activation=config.visual_activation)
        self.f = dense(hidden, config.attention_dim or hidden, "attention_f", use_bias=False)
        self.g = dense(hidden, config.attention_dim or hidden, "attention_g", use_bias=False)
        share = np.log(config.alpha / (1 - config.alpha))
        self.alpha_logit = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(share), trainable=config.attention, name="alpha_logit"
        )
        self.decoder_hidden = dense(width, hidden, "decoder_hidden", **to_hidden)
        self.decoder_semantics = dense(hidden, semantics, "decoder_semantics", activation=config.semantic_activation)
        self.decoder_noise = dense(hidden, self.noise_dim, "decoder_noise")
        self.critic = keras.Sequential(
            [
                keras.Input((width + semantics,)),
                keras.layers.Dense(config.critic_hidden, activation="relu"),
                keras.layers.Dense(1, dtype="float32"),
            ],
            name="critic",
        )
        self.f.trainable = self.g.trainable = config.attention
        self.critic.trainable = config.critic_weight > 0
        uses_decoder = max(config.semantic_weight, config.semantic_theta, config.cycle_weight) > 0
        for layer in (self.decoder_hidden, self.decoder_semantics):
            layer.trainable = uses_decoder
        self.decoder_noise.trainable = config.cycle_weight > 0

    @classmethod
    def reads_unseen_embeddings(cls, config):
        return config.classes_in_loss == "all"  # Eq. (8) sums over unseen classes, and prototypes attend to them

    def adapt(self, benchmark):
        rows = benchmark.train
        self.scaling.fit(self.config.scaling, benchmark.take, rows)
        if self.whitening is not None:
            scaled = lambda rows: self.scaling(np.asarray(benchmark.take(rows), np.float32))  # noqa: E731
            self.whitening.fit(scaled, rows, benchmark.labels[rows], self.config.whitening)
        self.embedding_scaling.fit_classes(self.config.embedding_scaling, benchmark)

    def compile(self, optimizer=None, critic_optimizer=None, **kwargs):
        rate, decay = self.config.learning_rate, self.config.weight_decay
        super().compile(optimizer=optimizer or adam(rate, decay), **kwargs)
        self.critic_optimizer = critic_optimizer or adam(rate)
        self.optimizer.build(self.generator_variables)
        self.critic_optimizer.build(self.critic.trainable_variables)

    @property
    def generator_variables(self):
        """All but the critic's. Not kept: Keras would save a kept list as further weights."""
        return [variable for variable in self.trainable_variables if not variable.path.startswith("critic")]

    def encode(self, embeddings, noise, context=None, training=False):
        """E(s, z) with category attention: [b, D]; each row looks at the rows of `context`, or at the batch itself.

        Args:
            embeddings: [b, A], scaled.
            noise: [b, |z|].
            context: [c, hidden], hidden features to look at; None for those of the batch on all replicas.
            training: whether hidden units are dropped.
        """
        hidden = self.hidden(tf.concat([embeddings, noise], 1))
        if training:
            hidden = self.dropped(hidden, self.config.dropout)
        if self.config.attention:
            context = self.gather(hidden) if context is None else context
            ours, theirs = (self.f, self.g) if self.config.attention_axis == "row" else (self.g, self.f)
            mixed = attend(ours(hidden), theirs(context), context)  # Eq. (5)
            alpha = tf.cast(tf.sigmoid(self.alpha_logit), hidden.dtype)
            hidden = alpha * mixed + (1 - alpha) * hidden  # Eq. (6)
        return tf.cast(self.out(hidden), tf.float32)  # losses are float32 whatever the layers compute in

    def decode(self, features):
        """D(x): the inferred embedding and noise."""
        hidden = self.decoder_hidden(features)
        return tf.cast(self.decoder_semantics(hidden), tf.float32), tf.cast(self.decoder_noise(hidden), tf.float32)

    def prototypes(self, class_embeddings):
        """[K, D] of any K classes."""
        classes = self.embedding_scaling(class_embeddings)
        known = self.embedding_scaling(self._known_classes())
        listed = known if self.config.context == "fixed" else classes
        context = self.hidden(tf.concat([listed, tf.zeros([tf.shape(listed)[0], self.noise_dim])], 1))
        draws = self._prototype_noise()
        made = [self.encode(classes, tf.repeat(z[None], tf.shape(classes)[0], 0), context) for z in draws]
        return tf.add_n(made) / len(made)

    def train_step(self, data):
        inputs, labels = data
        config = self.config
        features = self._features(inputs)  # x
        embeddings = self.embedding_scaling(tf.gather(self.class_embeddings.value, labels))  # s
        critic = penalty = semantic = cycle = tf.constant(0.0)  # in ablations that leave them out
        if config.critic_weight > 0:
            for _ in range(config.critic_steps):
                critic, penalty = self._critic_step(features, embeddings)

        z = self.noise([tf.shape(features)[0], self.noise_dim])
        with tf.GradientTape() as tape:
            fake = self.encode(embeddings, z, training=True)  # x_hat
            visual = self._regression(features, fake)  # L_V, Eq. (1)
            if max(config.semantic_weight, config.semantic_theta, config.cycle_weight) > 0:
                inferred, inferred_noise = self.decode(features)  # s_hat, z_hat
                semantic = self._regression(embeddings, inferred)  # L_S, Eq. (2)
            if config.cycle_weight > 0:
                cycle = self._regression(embeddings, self.decode(fake)[0])  # L_pre, Eq. (3)
                cycle += self._regression(features, self.encode(inferred, inferred_noise, training=True))
            listed, own = self._training_classes(labels)
            prototypes = self.prototypes(listed)
            similarity = _SIMILARITY[config.similarity]
            classes = prototype_loss(config.temperature * similarity(features, prototypes), own)  # Eq. (7-8)
            classes += prototype_loss(config.temperature * similarity(fake, prototypes), own)
            loss = config.visual_weight * visual + config.semantic_weight * semantic + config.cycle_weight * cycle
            loss += config.theta * classes  # Eq. (9)
            if config.semantic_theta > 0:
                inferred_scores = config.temperature * _cosine(inferred, self.embedding_scaling(listed))
                loss += config.semantic_theta * prototype_loss(inferred_scores, own)
            if config.critic_weight > 0:
                loss -= config.critic_weight * tf.reduce_mean(self.critic(tf.concat([fake, embeddings], 1)))
        self.minimize(tape, loss, self.optimizer, self.generator_variables)
        return self.report(
            critic_loss=critic,
            penalty=penalty,
            visual_loss=visual,
            semantic_loss=semantic,
            cycle_loss=cycle,
            class_loss=classes,
            alpha=tf.sigmoid(self.alpha_logit),
        )

    def _critic_step(self, features, embeddings):
        """One step of the critic on Eq. (4); E and D do not change."""
        rows = tf.shape(features)[0]
        fake = self.encode(embeddings, self.noise([rows, self.noise_dim]))
        place = self.uniform([rows, 1])  # of tau on the line between x and x_hat
        with tf.GradientTape() as tape:
            real_scores = self.critic(tf.concat([features, embeddings], 1))
            fake_scores = self.critic(tf.concat([fake, embeddings], 1))
            between = place * features + (1 - place) * fake
            penalty = gradient_penalty(self.critic, between, embeddings, self.config.penalty)
            loss = critic_loss(real_scores, fake_scores) + self.config.beta * penalty
        self.minimize(tape, loss, self.critic_optimizer, self.critic.trainable_variables)
        return loss, penalty

    def _training_classes(self, labels):
        """The embeddings of the classes that Eq. (8) sums over, and the place of each label among them."""
        if self.config.classes_in_loss == "all":
            return self._known_classes(), labels
        place = tf.cast(tf.cumsum(self.seen_mask.value), labels.dtype) - 1
        return self._known_classes(), tf.gather(place, labels)

    def _known_classes(self):
        """The embeddings that training may read: of all classes of the stage, or of the seen ones."""
        embeddings = self.class_embeddings.value
        return embeddings if self.config.classes_in_loss == "all" else embeddings[self.seen_mask.value > 0]

    def own_scores(self, inputs, class_embeddings):
        """The similarity to prototypes, Sec. 3.5."""
        features = self._features(inputs)
        scores = _SIMILARITY[self.config.decision](features, self.prototypes(class_embeddings))
        if self.config.semantic_decision > 0:
            inferred, _ = self.decode(features)
            scores += self.config.semantic_decision * _cosine(inferred, self.embedding_scaling(class_embeddings))
        return scores

    def embed(self, inputs):
        """The scaled features, and the other spaces the decision uses: whitened features, and D's embedding."""
        features = self._features(inputs)
        spaces = {"baseline": self.scaling(tf.cast(inputs, tf.float32))}
        if self.whitening is not None:
            spaces["whitened"] = features
        if self.config.semantic_decision > 0:
            spaces["inferred"], _ = self.decode(features)
        return spaces

    def _features(self, inputs):
        features = self.scaling(tf.cast(inputs, tf.float32))
        return features if self.whitening is None else self.whitening(features)

    def _prototype_noise(self):
        """The z of prototypes: zero, or fixed draws, so that scoring is deterministic."""
        if not self.config.prototype_draws:
            return [tf.zeros([self.noise_dim])]
        draws = np.random.default_rng(self.seed).standard_normal((self.config.prototype_draws, self.noise_dim))
        return tf.unstack(tf.constant(draws, tf.float32))

    def _regression(self, wanted, got):
        squares = (wanted - got) ** 2
        if self.config.reduction == "mean":
            return tf.reduce_mean(squares)
        return tf.reduce_mean(tf.reduce_sum(squares, 1))  # the mean over rows, as of every other loss
