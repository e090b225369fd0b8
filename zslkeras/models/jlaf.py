"""JLAF: Li and Wang, Joint Learning of Attended Zero-Shot Features and Visual-Semantic Mapping.

Learns where to look for each class: the encoder h_e turns the embedding of a class into a latent that attends to the
regions of an image, and the decoder h_d infers an embedding from the attended feature. The same decoder has to
reconstruct embeddings from latents. Each class has its own attended feature; an image belongs to the class whose
feature is decoded nearest to the embedding of the class.

    L = L_CLS + alpha L_MA + eta L_SR, with g = h_d                                                        Eq. (7)
    attention Eq. (3), L_CLS Eq. (4), L_MA Eq. (5), L_SR Eq. (6), decision Eq. (8), with gamma Eq. (9)

h_d is affine and the attention of a class sums to one, so h_d of an attended feature is the attended mean of the
decoded regions. Regions are decoded first, and no feature [B, K, F] is ever made. The result is the same, with a third
of the operations of CUB's training step and a quarter of SUN's.

Deviations, each a field of the config; the ablation "printed" has the printed form of all of them:
- Regions have length one, and X'H has a factor `sharpness`: products of raw features with latents reach hundreds, and
  a softmax over regions would select a single one of them from the start.
- The cosines in Eq. (4) have a factor `tau`: the softmax of 150 cosines cannot exceed 0.05.
- L_MA compares cosines (`gram`), and both regularisers are means (`reduction`): as printed, CUB's L_MA starts at 6e9.
"""

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

from zslkeras.models.base import ZeroShotModel
from zslkeras.models.conditioning import BesideConfig
from zslkeras.models.config import scheduled, setting
from zslkeras.models.layers import (
    NORM_FLOOR,
    SCALINGS,
    FeatureScaling,
    dense,
    in_parts,
    inverse_norm,
    l2_normalize,
    scaled_maps,
)
from zslkeras.models.optimizers import adam
from zslkeras.names import AUTO, SAMPLERS

_SCHEDULE = 10, 90  # bounds of epochs
_NUMBERS_AT_ONCE = 2**24  # of each tensor over images and classes while classes are scored

# float32 in every precision: the products are small, and latents differ little between classes.
_dense = functools.partial(dense, dtype="float32")


@dataclasses.dataclass(frozen=True)
class JLAFConfig(BesideConfig):
    alpha: float = setting(5.0, least=0)  # of L_MA; 0.5 in Sec. 4.1
    eta: float = setting(1.0, least=0)  # of L_SR, Sec. 4.1
    coupled: bool = True  # g = h_d, Eq. (7); without it g is another layer, Fig. 2b
    # "sigmoid" in Sec. 4.1; "tanh" has no part that is the same for all classes.
    encoder_activation: str = setting("tanh", choices=("sigmoid", "tanh", "linear"))
    # Not in the paper.
    hidden: int | None = setting(None, least=1)  # "one hidden layer" is the latent: None; a width adds a linear layer
    normalize: bool = True  # each region to unit length over its channels
    sharpness: float = setting(1.0, least=0)  # the factor of X'H in Eq. (3)
    learn_sharpness: bool = True
    tau: float = setting(20.0, least=0)  # the factor of s in Eq. (4)
    gram: str = setting("cosine", choices=("cosine", "raw"))  # in Eq. (5); "raw", inner products, as printed
    reduction: str = setting("mean", choices=("mean", "sum"))  # of Eq. (5) and (6); "sum" over entries as printed
    # The classes in Eq. (6), "all" as printed; "seen" reads no unseen embedding.
    reconstructed: str = setting("all", choices=("all", "seen"))
    region_dropout: float = setting(0.5, least=0, below=1)  # the chance that training skips a region
    region_power: float = setting(0.5, above=0)  # exponent of channels, signs are kept; 0.5 evens out strong channels
    # Of channels, after the power, fitted on training rows.
    region_scaling: str = setting("centred_l2", choices=SCALINGS, auto=True)
    # Of class embeddings, fitted on the seen classes.
    embedding_scaling: str = setting("centred_l2", choices=SCALINGS, auto=True)
    learning_rate: float = setting(3e-3, above=0)
    weight_decay: float = setting(0.0, least=0)  # decoupled
    batch_size: int = setting(64, least=1)
    epochs: int = setting(AUTO, least=1, auto=True)
    sampler: str = setting("plain", choices=SAMPLERS)
    patience: int | None = setting(AUTO, least=1, auto=True)

    def known(self, benchmark):
        """As in the base: the schedule."""
        return scheduled(self, benchmark, math.prod(benchmark.input_shape), *_SCHEDULE)


def class_loss(scores, labels, tau=1.0):
    """L_CLS, Eq. (4): cross entropy, mean over rows, of scores [B, S] of the seen classes; labels [B] number them."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tau * scores))


def manifold_loss(latents, embeddings, gram="raw", reduction="sum"):
    """L_MA, Eq. (5): squared differences of the inner products, or cosines, of latents [S, F] and embeddings [S, A]."""
    if gram == "cosine":
        latents, embeddings = l2_normalize(latents), l2_normalize(embeddings)
    products = (tf.matmul(vectors, vectors, transpose_b=True) for vectors in (latents, embeddings))
    return _reduced(*products, reduction)


def reconstruction_loss(embeddings, reconstructed, reduction="sum"):
    """L_SR, Eq. (6): squared differences of embeddings [C, A] and those decoded from their latents."""
    return _reduced(embeddings, reconstructed, reduction)


def attended_cosines(attention, decoded, embeddings):
    """s(h_d(x~_c), k_c) of Eq. (8), each class by its own attention; 0 where the decoded vector is zero.

    Args:
        attention: [B, K, R], sums to one over regions.
        decoded: [B, R, A], h_d of the regions.
        embeddings: [K, A].

    Returns:
        [B, K].
    """
    predicted = tf.matmul(attention, decoded)  # h_d of X A, Eq. (3)
    # `predicted`, [B, K, A], is the largest tensor here: it is read twice, and never divided.
    along = tf.reduce_sum(predicted * l2_normalize(embeddings), axis=2)
    squares = tf.reduce_sum(predicted**2, axis=2)
    directed = squares > NORM_FLOOR**2
    return tf.where(directed, along * tf.math.rsqrt(tf.where(directed, squares, 1.0)), 0.0)


def _reduced(one, other, reduction):
    squares = (one - other) ** 2
    return tf.reduce_mean(squares) if reduction == "mean" else tf.reduce_sum(squares)


class JLAF(ZeroShotModel):
    """One attention per class, and one decoder for attended features and for latents."""

    Config = JLAFConfig
    eats = "maps"
    # The paper's "Ours w/o C", without calibration, is gamma 0: the columns U0, S0 and H0 of every table.
    ablations = {
        "without_sr": {"eta": 0.0},
        "without_ma": {"alpha": 0.0},
        "uncoupled": {"coupled": False},
        "printed": {
            "closed_form": 0.0,
            "alpha": 0.5,
            "eta": 1.0,
            "hidden": None,
            "encoder_activation": "sigmoid",
            "normalize": False,
            "sharpness": 1.0,
            "learn_sharpness": False,
            "tau": 1.0,
            "gram": "raw",
            "reduction": "sum",
            "reconstructed": "all",
            "region_dropout": 0.0,
            "region_power": 1.0,
            "region_scaling": "none",
            "embedding_scaling": "none",
        },
        "jlaf": {},
    }
    losses_reported = ("class_loss", "manifold_loss", "reconstruction_loss", "sharpness")

    def __init__(self, config, input_shape, class_embeddings, seen_mask, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, seen_mask, *args, **kwargs)
        width, num_attributes = input_shape[-1], class_embeddings.shape[1]
        self.seen_classes = np.flatnonzero(np.asarray(seen_mask) > 0)
        self.region_scaling = FeatureScaling(width, name="region_scaling")
        self.embedding_scaling = FeatureScaling(num_attributes, name="embedding_scaling")
        if config.hidden is None:
            self.encoder = [_dense(num_attributes, width, "encoder", activation=config.encoder_activation)]  # h_e
        else:
            self.encoder = [
                _dense(num_attributes, config.hidden, "encoder_hidden", activation=config.encoder_activation),
                _dense(config.hidden, width, "encoder"),
            ]
        self.decoder = _dense(width, num_attributes, "decoder")  # h_d
        self.mapping = self.decoder if config.coupled else _dense(width, num_attributes, "mapping")  # g
        self.decoder.trainable = config.coupled or config.eta > 0
        self.log_sharpening = self.add_weight(
            shape=(), initializer="zeros", trainable=config.learn_sharpness, name="log_sharpening"
        )

    @classmethod
    def reads_unseen_embeddings(cls, config):
        return config.reconstructed == "all" and config.eta > 0  # Eq. (6)

    def adapt(self, benchmark):
        self.embedding_scaling.fit_classes(self.config.embedding_scaling, benchmark)
        powered = lambda rows: self._powered(np.asarray(benchmark.take(rows), np.float32))  # noqa: E731
        self.region_scaling.fit_regions(self.config.region_scaling, powered, benchmark.train)

    def compile(self, optimizer=None, **kwargs):
        super().compile(optimizer=optimizer or adam(self.config.learning_rate, self.config.weight_decay), **kwargs)
        self.optimizer.build(self.trainable_variables)

    @property
    def sharpness(self):
        """The factor of X'H, learned or not."""
        return self.config.sharpness * tf.exp(tf.cast(self.log_sharpening, tf.float32))

    def encode(self, classes):
        """h_e of scaled embeddings [K, A]: latents [K, F]."""
        for layer in self.encoder:
            classes = layer(classes)
        return classes

    def train_step(self, data):
        inputs, labels = data
        config = self.config
        classes = self.embedding_scaling(self.class_embeddings.value)
        seen = tf.gather(classes, self.seen_classes)  # K_s
        places = tf.gather(tf.cast(tf.cumsum(self.seen_mask.value), labels.dtype) - 1, labels)
        regions, factors = self._regions(inputs)
        with tf.GradientTape() as tape:
            known = self.encode(classes)
            latents = tf.gather(known, self.seen_classes)  # H_s
            affinities = self._affinities(regions, factors, latents)
            if config.region_dropout > 0:
                kept = self.kept([tf.shape(affinities)[0], 1, affinities.shape[2]], config.region_dropout)
                affinities = tf.where(kept, affinities, affinities.dtype.min)
            scores = attended_cosines(tf.nn.softmax(affinities), self._decode(regions, factors), seen)
            classification = class_loss(scores, places, config.tau)
            manifold = manifold_loss(latents, seen, config.gram, config.reduction)
            wanted, given = (classes, known) if config.reconstructed == "all" else (seen, latents)
            reconstruction = reconstruction_loss(wanted, self.decoder(given), config.reduction)
            loss = classification + config.alpha * manifold + config.eta * reconstruction  # Eq. (7)
        self.minimize(tape, loss, self.optimizer, self.trainable_variables)
        return self.report(
            class_loss=classification,
            manifold_loss=manifold,
            reconstruction_loss=reconstruction,
            sharpness=self.sharpness,
        )

    def own_scores(self, inputs, class_embeddings):
        """s of Eq. (8)."""
        regions, factors = self._regions(inputs)
        decoded = self._decode(regions, factors)
        classes = self.embedding_scaling(tf.cast(class_embeddings, tf.float32))
        rows, num_regions, num_attributes = tf.unstack(tf.shape(decoded))
        numbers_of_a_class = tf.maximum(1, rows * tf.maximum(num_regions, num_attributes))

        def score(part):
            affinities = self._affinities(regions, factors, self.encode(part))
            return attended_cosines(tf.nn.softmax(affinities), decoded, part)

        return in_parts(score, classes, tf.maximum(1, _NUMBERS_AT_ONCE // numbers_of_a_class))

    def attention(self, inputs):
        """Where each class of the stage looks: {"class": [B, C, H, W]}, summing to one over places."""
        attention = self._stage_attention(*self._regions(inputs))
        return {"class": tf.reshape(attention, [-1, attention.shape[1], *self.row_shape[:-1]])}

    def embed(self, inputs):
        """The pooled features as they come, and, by the attention of the class with the highest score, the attended
        feature and the embedding decoded from it."""
        regions, factors = self._regions(inputs)
        best = tf.argmax(self(inputs), axis=1)
        attention = tf.gather(self._stage_attention(regions, factors), best, batch_dims=1)[:, None]  # [B, 1, R]
        scaled = tf.cast(regions, tf.float32) * tf.reshape(factors, [-1, 1])
        scaled = tf.reshape(scaled, [-1, attention.shape[2], scaled.shape[1]])
        return {
            "baseline": tf.reduce_mean(tf.cast(inputs, tf.float32), axis=[1, 2]),
            "attended": tf.matmul(attention, scaled)[:, 0],
            "decoded": tf.matmul(attention, self._decode(regions, factors))[:, 0],
        }

    def _regions(self, inputs):
        """The regions of all images [B R, F] in the precision of their products, and the factors [B, R] that make their
        lengths one. Factors multiply products instead of regions, as there are fewer of those."""
        *grid, width = self.row_shape
        regions = self._powered(tf.cast(tf.reshape(inputs, [-1, width]), tf.float32))
        regions = scaled_maps(self.region_scaling, self.config.region_scaling, regions)
        squares = tf.reshape(tf.reduce_sum(regions**2, axis=1), [-1, int(np.prod(grid))])
        factors = inverse_norm(squares) if self.config.normalize else tf.ones_like(squares)
        return tf.cast(regions, self.compute_dtype), factors

    def _powered(self, regions):
        power = self.config.region_power
        return regions if power == 1 else tf.sign(regions) * tf.abs(regions) ** power

    def _affinities(self, regions, factors, latents):
        """X'H of Eq. (3) times the sharpness: [B, K, R]; the regions of an image are adjacent for the softmax."""
        products = tf.matmul(regions, tf.cast(latents, regions.dtype), transpose_b=True)
        products = tf.reshape(products, [-1, factors.shape[1], tf.shape(latents)[0]])
        return tf.cast(tf.transpose(products, [0, 2, 1]), tf.float32) * (self.sharpness * factors)[:, None]

    def _decode(self, regions, factors):
        """g of the regions: [B, R, A]."""
        products = tf.matmul(regions, tf.cast(self.mapping.kernel, regions.dtype))
        products = tf.reshape(products, [-1, factors.shape[1], products.shape[1]])
        return tf.cast(products, tf.float32) * factors[..., None] + tf.cast(self.mapping.bias, tf.float32)

    def _stage_attention(self, regions, factors):
        """The attention of the classes of the stage: [B, C, R]."""
        latents = self.encode(self.embedding_scaling(tf.cast(self.class_embeddings, tf.float32)))
        return tf.nn.softmax(self._affinities(regions, factors, latents))
