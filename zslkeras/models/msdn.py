"""MSDN: Chen, Hong, Xie, Yang, Peng, Wang, Zhao and You, Mutually Semantic Distillation Network (CVPR 2022).

Scores every attribute of an image twice: by an attention of attributes over regions, and by one of regions over
attributes. The score of a class is the product of its embedding z and the attribute scores; the two branches teach each
other.

    L = L_ACEC(psi) + L_ACEC(Psi) + lambda_distill L_distill                       Eq. (10), with Eq. (7) and (8-9)
    class = argmax of (alpha1 psi + alpha2 Psi) . z, plus an indicator of unseen classes                   Eq. (11)

Deviations: the released code, which made the published numbers, differs from the equations. `variant` "code", the
default, is what it computes; "paper" is what is printed.
- Eq. (1) is printed with a softmax over attributes and Eq. (4) with one over regions; the code has them the other way
  round. It has no S, Psi_bar or Att of Eq. (5-6): Psi[a] = sum_r softmax_a(v_a W2' x_r) (x_r W1' v_a).
- Eq. (7) is printed with a calibration that lowers unseen classes, a sum over them, and a cross entropy over seen
  classes. The code has -log of the mean over the batch of the unseen probability, and a cross entropy over all classes.
  "paper" has the sum as printed with its sign corrected.
- The paper has GloVe's vectors of the attributes and does not say that they are trained. The code has word2vec's and
  trains them: `train_vectors`. Where the data bring none, they are drawn.
- Eq. (8-9) print the squared distance of probabilities and the symmetrised divergence. The code has a weighted distance
  of logits and Jensen-Shannon's divergence. "paper" takes the softmax over all classes, and the sum of Eq. (9) over
  the seen ones.
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from zslkeras.models.base import ZeroShotModel
from zslkeras.models.conditioning import BesideConfig
from zslkeras.models.config import scheduled, setting
from zslkeras.models.layers import NORM_FLOOR, SCALINGS, FeatureScaling, inverse_norm, l2_normalize, scaled_maps
from zslkeras.models.losses import self_calibration, self_calibration_as_printed
from zslkeras.models.optimizers import CoupledRMSprop, adam
from zslkeras.names import AUTO, SAMPLERS

# The weights of each choice of `branches`: w1 and w3 of scores, w2 and w4 of attentions. The paper prints w1 as W_2,
# w2 as W_1, w3 as W_4 and w4 as W_3, transposed.
_WEIGHTS = {
    "both": ("w1", "w2", "w3", "w4"),
    "attribute_to_visual": ("w1", "w2"),
    "visual_to_attribute": ("w3", "w4"),
    "baseline": ("w1",),
}
_FROM_VISUAL = ("w3", "w_att")  # stored [F, W]; the others are [W, F]
_SCHEDULE = 6, 90  # bounds of epochs


@dataclasses.dataclass(frozen=True)
class MSDNConfig(BesideConfig):
    """Sections say where the paper has a setting. Its values are in `presets` where these differ."""

    variant: str = setting("code", choices=("code", "paper"))  # "paper": the printed equations
    alpha1: float = setting(0.9, least=0)  # of psi in Eq. (11), Sec. 4.4
    alpha2: float = setting(0.1, least=0)  # of Psi
    lambda_cal: float = setting(0.1, least=0)  # of the calibration in Eq. (7), Sec. 4
    lambda_distill: float = setting(0.001, least=0)  # of Eq. (8), Sec. 4
    optimizer: str = setting("adam", choices=("rmsprop", "adam"))  # Sec. 4, see CoupledRMSprop
    learning_rate: float = setting(1e-3, above=0)  # Sec. 4
    momentum: float = setting(0.9, least=0, below=1)  # Sec. 4; of "rmsprop"
    weight_decay: float = setting(1.0, least=0)  # Sec. 4; in the gradient for "rmsprop", decoupled for "adam"
    batch_size: int = setting(50, least=1)  # Sec. 4
    # The ablations of Table 2; "baseline" has no attention: pooled features, which is uniform attention exactly.
    branches: str = setting("both", choices=tuple(_WEIGHTS))
    divergence_weight: float = setting(1.0, least=0)  # of the divergence in Eq. (8)
    distance_weight: float = setting(1.0, least=0)  # of the distance in Eq. (8)
    # Not in the paper; of the released code.
    normalize: bool = True  # each region to unit length over its channels
    normalize_vectors: bool = False  # attribute vectors to unit length at each step, as for AWA2
    train_vectors: bool = True  # False: attribute vectors stay as they come
    epochs: int = setting(AUTO, least=1, auto=True)
    sampler: str = setting("plain", choices=SAMPLERS)
    # Neither in the paper nor in the code.
    vectors: str = setting("given", choices=("given", "drawn"))  # "drawn": at random, whatever the benchmark has
    vector_dim: int = setting(300, least=1)  # of attribute vectors that are drawn: also where the benchmark has none
    start: float = setting(0.01, least=0)  # standard deviation of the weights that do not start at zero
    temperature: float = setting(20.0, above=0)  # the factor of every logit
    # Of channels, before `normalize`, fitted on training rows.
    region_scaling: str = setting(AUTO, choices=SCALINGS, auto=True)
    # Of class embeddings, fitted on the seen classes.
    embedding_scaling: str = setting("centred_l2", choices=SCALINGS, auto=True)
    patience: int | None = setting(AUTO, least=1, auto=True)

    def known(self, benchmark):
        """As in the base: the schedule."""
        return scheduled(self, benchmark, math.prod(benchmark.input_shape), *_SCHEDULE)


def project(regions, lookups):
    """Products of all attributes and regions, for several lookups in one matrix product.

    Args:
        regions: [B, R, F].
        lookups: tensors [A, F].

    Returns:
        A tensor [A, B, R] for each of `lookups`: the regions of an image are adjacent, as they are summed over.
    """
    (num_regions, width), num_attributes = regions.shape[1:], lookups[0].shape[0]
    maps = tf.matmul(tf.concat(lookups, axis=0), tf.reshape(regions, [-1, width]), transpose_b=True)
    return tf.unstack(tf.reshape(maps, [len(lookups), num_attributes, -1, num_regions]))


def over_regions(logits):
    """Attention over the regions of an image: softmax of [A, B, R] over its last axis."""
    return tf.nn.softmax(logits)


def over_attributes(logits):
    """Attention over attributes: softmax of [A, B, R] over its first axis, without a transpose."""
    raised = tf.exp(logits - tf.stop_gradient(tf.reduce_max(logits, axis=0, keepdims=True)))
    return raised / tf.reduce_sum(raised, axis=0, keepdims=True)


def attended(scores, attention):
    """Scores [A, B, R] summed over regions by attention, -> [B, A]. Scores are linear in the regions, so this is the
    score of the attended region, Eq. (2-3), which is never formed."""
    return tf.transpose(tf.reduce_sum(scores * attention, axis=2))


def attended_as_printed(scores, attention, back):
    """Psi(x) = Psi_bar(x) Att below Eq. (6), -> [B, A]; all of [A, B, R], `back` is Att."""
    region_scores = tf.reduce_sum(scores * attention, axis=0)  # v_r W4 S_r, S_r = sum_a attention a, Eq. (5-6)
    return tf.transpose(tf.reduce_sum(region_scores * back, axis=2))


def indicator(seen_mask):
    """I in Eq. (7): 1 for unseen classes and -1 for seen ones."""
    return 1.0 - 2.0 * seen_mask


def weighted_distance(first, second):
    """Mean over rows of sum_k |d_k| / |d| d_k^2 with d the difference of two logits [B, K], as released; 0 at d = 0."""
    difference = tf.abs(first - second)
    # The gradient of the root is infinite at zero, where the cube is zero to a higher power.
    length = tf.sqrt(tf.maximum(tf.reduce_sum(difference**2, axis=1), NORM_FLOOR**2))
    return tf.reduce_mean(tf.reduce_sum(difference**3, axis=1) / length)


def jensen_shannon(first, second):
    """Mean over rows of the Jensen-Shannon divergence of the softmax of two logits [B, K]: 0 to log 2."""
    p, q = tf.nn.log_softmax(first), tf.nn.log_softmax(second)
    # log(p / M) with M = (p + q) / 2 is log 2 - softplus(log q - log p): exactly 0 where p = q.
    log_two = tf.math.softplus(tf.zeros([], p.dtype))
    terms = tf.exp(p) * (log_two - tf.math.softplus(q - p)) + tf.exp(q) * (log_two - tf.math.softplus(p - q))
    return tf.reduce_mean(tf.reduce_sum(terms, axis=1)) / 2


def distillation(first, second, divergence_weight=1.0, distance_weight=1.0):
    """L_distill as released, of the logits [B, K] of two branches; 0 where they agree."""
    return divergence_weight * jensen_shannon(first, second) + distance_weight * weighted_distance(first, second)


def distillation_as_printed(first, second, seen_mask, divergence_weight=1.0, distance_weight=1.0):
    """L_distill as printed: Eq. (8) of the probabilities of two branches, Eq. (9) with its sum over seen classes."""
    log_p, log_q = tf.nn.log_softmax(first), tf.nn.log_softmax(second)
    p, q = tf.exp(log_p), tf.exp(log_q)
    both_ways = tf.reduce_sum(seen_mask * (p - q) * (log_p - log_q), axis=1) / 2  # KL(p, q) + KL(q, p), halved
    squares = tf.reduce_sum((p - q) ** 2, axis=1)
    return tf.reduce_mean(divergence_weight * both_ways + distance_weight * squares)


class MSDN(ZeroShotModel):
    """Attribute scores by two attentions that teach each other."""

    Config = MSDNConfig
    eats = "maps"
    ablations = {
        "baseline": {"branches": "baseline"},
        "v_to_a": {"branches": "visual_to_attribute"},
        "a_to_v": {"branches": "attribute_to_visual"},
        "v_to_a_distilled": {"alpha1": 0.0, "alpha2": 1.0},
        "a_to_v_distilled": {"alpha1": 1.0, "alpha2": 0.0},
        "jsd": {"distance_weight": 0.0},
        "l2": {"divergence_weight": 0.0},
        "full": {},
    }
    losses_reported = ("class_loss", "calibration_loss", "distillation_loss")
    paper_rule = {"gamma": 2.0}  # the indicator of Eq. (11), 1 for unseen and -1 for seen classes

    def __init__(self, config, input_shape, class_embeddings, seen_mask, attribute_vectors=None, seed=0, **kwargs):
        # The base gets no attribute vectors, as it keeps them constant: here they may be trained.
        super().__init__(config, input_shape, class_embeddings, seen_mask, None, seed, **kwargs)
        (*_, width), num_attributes = input_shape, class_embeddings.shape[1]
        generator = np.random.default_rng(seed)
        if attribute_vectors is None or config.vectors == "drawn":
            attribute_vectors = generator.standard_normal((num_attributes, config.vector_dim))
        unit = l2_normalize(np.asarray(attribute_vectors, np.float32))
        self.attribute_vectors = self._weight("attribute_vectors", unit, config.train_vectors)
        shape = unit.shape[1], width
        self.weight_names = _WEIGHTS[config.branches]
        if config.variant == "paper" and "w3" in self.weight_names:
            self.weight_names += ("w_att",)
        for name in self.weight_names:
            # As released, all but the first start at zero: attention starts at 1/R, and the second branch's scores at
            # 0. Att, which the released code does not have, cannot start at zero too: no weight would ever move.
            drawn = name in ("w1", "w_att")
            value = config.start * generator.standard_normal(shape) if drawn else np.zeros(shape)
            setattr(self, name, self._weight(name, value.T if name in _FROM_VISUAL else value))
        self.region_scaling = FeatureScaling(width, name="region_scaling")
        self.embedding_scaling = FeatureScaling(num_attributes, name="embedding_scaling")
        self.has_unseen = not np.all(np.asarray(seen_mask) > 0)

    @classmethod
    def reads_unseen_embeddings(cls, config):
        # As released, every loss sums over all classes; as printed, the calibration and both parts of Eq. (8) do.
        distills = config.branches == "both" and config.lambda_distill > 0
        return config.variant == "code" or config.lambda_cal > 0 or distills

    def adapt(self, benchmark):
        self.embedding_scaling.fit_classes(self.config.embedding_scaling, benchmark)
        self.region_scaling.fit_regions(self.config.region_scaling, benchmark.take, benchmark.train)

    def compile(self, optimizer=None, **kwargs):
        config = self.config
        if optimizer is None and config.optimizer == "rmsprop":
            optimizer = CoupledRMSprop(config.learning_rate, config.weight_decay, config.momentum)
        elif optimizer is None:
            optimizer = adam(config.learning_rate, config.weight_decay)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.trainable_variables)

    def train_step(self, data):
        inputs, labels = data
        config, seen = self.config, self.seen_mask.value
        calibration = distance = tf.constant(0.0)  # in settings that leave them out
        with tf.GradientTape() as tape:
            classes = self._class_logits(inputs, self.class_embeddings.value)
            loss = class_loss = tf.add_n([self._class_loss(logits, labels) for logits in classes.values()])
            lifted = [logits + indicator(seen) for logits in classes.values()]
            if config.lambda_cal > 0 and self.has_unseen:
                calibration = tf.add_n([self._calibration(logits) for logits in lifted])
                loss += config.lambda_cal * calibration  # Eq. (7)
            if config.lambda_distill > 0 and len(lifted) == 2:
                weights = config.divergence_weight, config.distance_weight
                if config.variant == "code":
                    distance = distillation(*lifted, *weights)
                else:
                    distance = distillation_as_printed(*classes.values(), seen, *weights)
                loss += config.lambda_distill * distance  # Eq. (10)
        self.minimize(tape, loss, self.optimizer, self.trainable_variables)
        return self.report(class_loss=class_loss, calibration_loss=calibration, distillation_loss=distance)

    def own_scores(self, inputs, class_embeddings):
        """Eq. (11) without its indicator."""
        return self._fused(self._class_logits(inputs, class_embeddings))

    def attribute_scores(self, inputs):
        """psi and Psi: {"attribute_to_visual": [B, A], "visual_to_attribute": [B, A]}, or the one branch there is."""
        return {name: scores for name, (_, scores) in self._branches(inputs).items()}

    def attention(self, inputs):
        """Where each attribute is seen: branch name -> [B, A, H, W]. Sums to one over the places of an attribute in
        one branch, and over the attributes of a place in the other: `variant` decides which."""
        height, width, _ = self.row_shape
        return {
            name: tf.reshape(tf.transpose(attention, [1, 0, 2]), [-1, tf.shape(attention)[0], height, width])
            for name, (attention, _) in self._branches(inputs).items()
            if attention is not None
        }

    def embed(self, inputs):
        """The spaces of Fig. 5: the pooled features, the attribute scores of each branch, and their fusion."""
        scores = self.attribute_scores(inputs)
        both = {"both": self._fused(scores)} if len(scores) == 2 else {}
        pooled = tf.cast(_pooled(*self._regions(inputs)), tf.float32)
        return {**scores, **both, "baseline": pooled}  # of a baseline, its features too

    def _branches(self, inputs):
        """Branch name -> its attention [A, B, R], or None, and its attribute scores [B, A], all float32."""
        regions, factors = self._regions(inputs)
        if self.config.branches == "baseline":
            (scores,) = project(_pooled(regions, factors)[:, None], self._lookups())
            return {"baseline": (None, tf.transpose(tf.cast(scores[..., 0], tf.float32)))}
        maps = project(regions, self._lookups())
        # The products are normalised instead of the regions: the result is the same, and there are fewer numbers.
        found = {name: tf.cast(one, tf.float32) * factors for name, one in zip(self.weight_names, maps, strict=True)}
        axes = [over_regions, over_attributes]
        first, second = axes if self.config.variant == "code" else reversed(axes)
        branches = {}
        if "w1" in found:
            attention = first(found["w2"])
            branches["attribute_to_visual"] = attention, attended(found["w1"], attention)
        if "w3" in found:
            attention = second(found["w4"])
            if self.config.variant == "code":
                scores = attended(found["w3"], attention)
            else:
                scores = attended_as_printed(found["w3"], attention, found["w_att"])
            branches["visual_to_attribute"] = attention, scores
        return branches

    def _regions(self, inputs):
        """Regions [B, R, F] in the precision of the projections, and the factors [B, R] that make their lengths one."""
        height, width, channels = self.row_shape
        regions = tf.reshape(inputs, [-1, height * width, channels])
        regions = scaled_maps(self.region_scaling, self.config.region_scaling, regions)
        squares = tf.reduce_sum(regions**2, axis=2)
        factors = inverse_norm(squares) if self.config.normalize else tf.ones_like(squares)
        return tf.cast(regions, self.compute_dtype), factors

    def _lookups(self):
        """What each attribute looks for, for each weight: a list of [A, F]."""
        vectors = self.attribute_vectors.value
        if self.config.normalize_vectors:
            vectors = l2_normalize(vectors)
        vectors = tf.cast(vectors, self.compute_dtype)
        weights = {name: tf.cast(getattr(self, name).value, self.compute_dtype) for name in self.weight_names}
        return [tf.matmul(vectors, weight, transpose_b=name in _FROM_VISUAL) for name, weight in weights.items()]

    def _class_logits(self, inputs, class_embeddings):
        """psi . z and Psi . z, times the temperature: branch name -> [B, K]."""
        classes = self.config.temperature * self.embedding_scaling(tf.cast(class_embeddings, tf.float32))
        return {
            name: tf.matmul(scores, classes, transpose_b=True) for name, scores in self.attribute_scores(inputs).items()
        }

    def _fused(self, branches):
        """The sum of both branches by alpha1 and alpha2, Eq. (11); a single branch is unchanged."""
        first, *rest = branches.values()
        return self.config.alpha1 * first + self.config.alpha2 * rest[0] if rest else first

    def _class_loss(self, logits, labels):
        """The cross entropy of Eq. (7): over all classes as released, over the seen ones as printed."""
        if self.config.variant == "paper":
            logits = tf.where(self.seen_mask.value > 0, logits, logits.dtype.min)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    def _calibration(self, logits):
        """The second half of Eq. (7), with the sign of the printed form corrected."""
        if self.config.variant == "paper":
            return self_calibration_as_printed(logits, self.seen_mask.value)
        return self_calibration(self.gather(logits), self.seen_mask.value)

    def _weight(self, name, value, trainable=True):
        start = keras.initializers.Constant(value)
        return self.add_weight(shape=value.shape, initializer=start, trainable=trainable, name=name)


def _pooled(regions, factors):
    """The mean over regions, each times its factor: [B, F]."""
    shares = tf.cast(factors / regions.shape[1], regions.dtype)
    return tf.matmul(shares[:, None], regions)[:, 0]
