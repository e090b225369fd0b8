"""DRMN: Han, Gao, Lin, Yan, Ding, Gao and Xia, Dual Relation Mining Network for Zero-Shot Learning (2024).

Every attribute attends to regions of a map fused from several levels of a backbone, weighs the channels of the attended
feature, and scores it. In training, the attributes of all images of a batch also attend to each other (SIT). A head
without attributes helps to tell seen classes apart.

    L = L_AC + lambda_GC L_GC                                       Eq. (11), with Eq. (9) and (10) on logits o, Eq. (8)
    class = argmax of o + an indicator of unseen classes; if it is seen, the head takes part in a second     Algorithm 1

Deviations, fields of the config where the printed form is at hand:
- Eq. (9) prints a sum over unseen classes of log p, which for the 50 of CUB outweighs the classification. The work it
  cites has -log of the mean over the batch of the unseen probability: `calibration` "mass"; "printed" is as printed.
- Algorithm 1 takes its second argmax over all classes, but the head is not trained on unseen ones. Here it is over the
  seen classes, so the first argmax alone decides which images are unseen; `second_argmax` "all" is as printed.
- Prototypes of attributes start at random, as printed. `prototypes` "vectors" makes them of the attributes' vectors by
  a trained map, which the paper does not have.
- SIT sees `interaction_attributes` of the attributes in a step; the others keep their scores. As printed: None.
- SIT's loss is not printed; "a shared classifier before and after" is read as the mean of L_AC on both.
- The paper does not say whether the backbone is trained. DRMN reads its maps; then the head shares no weights with the
  rest, and lambda_GC is only a factor of the head's own gradient. DRMNFromPictures contains the backbone, and trains it
  if `backbone_rate` is above 0.
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from zslkeras.errors import InputError
from zslkeras.images import augment, backbones
from zslkeras.models import conditioning
from zslkeras.models.base import ZeroShotModel
from zslkeras.models.conditioning import BesideConfig
from zslkeras.models.config import scheduled, setting
from zslkeras.models.layers import (
    SCALINGS,
    VARIANCE_EPSILON,
    FeatureScaling,
    dense,
    l2_normalize,
    load_backbone,
    scaled_maps,
)
from zslkeras.models.losses import self_calibration, self_calibration_as_printed
from zslkeras.models.optimizers import AdamWithSlowPart, adam
from zslkeras.models.own_backbone import BackboneConfig, OwnBackbone
from zslkeras.names import AUTO, SAMPLERS

_SCHEDULE = 1, 45  # bounds of epochs
_WEIGHTS_AT_ONCE = 2**24  # attention weights of SIT in memory at once: 64 MB in float32


@dataclasses.dataclass(frozen=True)
class DRMNConfig(BesideConfig):
    """Sections say where the paper has a setting. Its values are in `presets` where these differ."""

    lambda_sc: float = setting(0.02, least=0)  # of the self-calibration in Eq. (9), Sec. 4
    lambda_gc: float = setting(0.6, least=0)  # of L_GC, Sec. 4; 0 leaves out the head
    beta: float = setting(0.3, least=0, most=1)  # of the attributes in Algorithm 1, Sec. 4; 1 leaves out the ensemble
    reduction: int = setting(4, least=1)  # m of the bottleneck in Eq. (4), Sec. 4
    learning_rate: float = setting(3e-3, above=0)  # Sec. 4
    halve_every: int = setting(35, least=1)  # epochs, after which the rate is halved, Sec. 4
    # The ablations of Tables 2 and 3.
    fusion: bool = True  # of the levels; without it a single level is read
    channel_attention: bool = True
    interaction: bool = True  # SIT
    # Not in the paper.
    # "all": one sequence of B * A tokens, as described; "pictures": a sequence of B tokens per attribute, much cheaper.
    interaction_across: str = setting("pictures", choices=("all", "pictures"))
    # How many attributes SIT sees in a step, drawn anew for each: its cost grows with their number. None: all.
    interaction_attributes: int | None = setting(16, least=1)
    heads: int = setting(4, least=1)  # of SIT, as in the method it cites
    feedforward: int | None = setting(None, least=1)  # width of SIT's MLP; None: of its tokens, as there
    dropout: float = setting(0.5, least=0, below=1)  # in SIT, as in the method it cites; not of its attention weights
    scale: float = setting(3.0, above=0)  # gamma in Eq. (8); the work it cites has 5
    calibration: str = setting("mass", choices=("mass", "printed"))
    second_argmax: str = setting("seen", choices=("seen", "all"))  # of Algorithm 1; "all" classes as printed
    indicator: float = setting(1.0, least=0)  # I of unseen classes in Eq. (9); the cited work also has -1 for seen ones
    fused_level: int = -2  # whose grid and width the others are brought to: "the second last block"
    single_level: int = -1  # without fusion; baselines of the field read the last level
    # Of finer levels: "pooling", the mean of cells, has no weights; "convolution" is 3x3 with strides.
    downscaling: str = setting("pooling", choices=("pooling", "convolution"))
    # p_a: "drawn" at random and trained; "vectors", a trained map of the attribute vectors.
    prototypes: str = setting("drawn", choices=("drawn", "vectors"))
    train_vectors: bool = False  # the attribute vectors too, where prototypes are made of them
    # At the start: the first attention is soft.
    prototype_length: float = setting(0.01, above=0)
    norm_momentum: float = setting(0.9, least=0, below=1)  # of moving statistics; Keras has 0.99
    # Of each level's channels, fitted on training rows.
    region_scaling: str = setting("standard", choices=SCALINGS, auto=True)
    # Of class embeddings, fitted on the seen classes.
    embedding_scaling: str = setting("centred_l2", choices=SCALINGS, auto=True)
    weight_decay: float = setting(1.0, least=0)  # decoupled
    averaging: float = setting(0.85, least=0, most=1)  # of weights over epochs, see base.averaged
    batch_size: int = setting(32, least=1)  # what SIT's B * A tokens allow
    epochs: int = setting(AUTO, least=1, auto=True)
    sampler: str = setting("plain", choices=SAMPLERS)
    patience: int | None = setting(AUTO, least=1, auto=True)

    def known(self, benchmark):
        """As in the base: the schedule."""
        return super().known(benchmark) | scheduled(self, benchmark, self.numbers(benchmark), *_SCHEDULE)

    def numbers(self, benchmark):
        """How many numbers a row of the input has."""
        return sum(map(math.prod, benchmark.input_shape))


def spatial_attention(regions, lookups):
    """omega of Eq. (1): [B, A, R], a softmax over the regions of an image.

    Args:
        regions: v, [B, R, C].
        lookups: p_a W_1 of every attribute, [A, C]: one product for all images, where W_1 v would be one per image.
    """
    (num_regions, width), num_attributes = regions.shape[1:], lookups.shape[0]
    logits = tf.matmul(tf.reshape(regions, [-1, width]), lookups, transpose_b=True)
    logits = tf.transpose(tf.reshape(logits, [-1, num_regions, num_attributes]), [0, 2, 1])
    return _softmax(logits)


def standardize(vectors):
    """norm of Eq. (3): zero mean and unit variance over the channels."""
    mean, variance = tf.nn.moments(vectors, axes=[-1], keepdims=True)
    return (vectors - mean) * tf.math.rsqrt(variance + VARIANCE_EPSILON)


def channel_attention(prototypes, pooled, w2, w3):
    """eta of Eq. (3-4): [B, A, C], each between 0 and 1.

    W_2 q is computed from the two terms of q: A + B rows are multiplied instead of A * B.

    Args:
        prototypes: p, [A, C].
        pooled: the mean over regions of v, [B, C].
        w2: [C, C / m].
        w3: [C / m, C].
    """
    of_attributes, of_images = (tf.matmul(tf.cast(standardize(x), w2.dtype), w2) for x in (prototypes, pooled))
    hidden = tf.nn.relu(of_images[:, None] + of_attributes[None])
    logits = tf.matmul(tf.reshape(hidden, [-1, hidden.shape[-1]]), w3)
    return tf.sigmoid(tf.reshape(logits, [-1, *hidden.shape[1:-1], w3.shape[-1]]))


@tf.custom_gradient
def attend_in_blocks(queries, keys, values):
    """softmax(queries keys') values, [S, N, d] of S heads, with one block of the [S, N, M] weights in memory at a time.

    A block is some queries against all keys; the gradient computes it again.

    Args:
        queries: [S, N, d], scaled.
        keys: [S, M, d].
        values: [S, M, d].
    """
    num_heads, num_queries = _size(queries, 0), _size(queries, 1)
    most = 1 + _WEIGHTS_AT_ONCE // (num_heads * _size(keys, 1))
    num_blocks = -(-num_queries // most)
    rows = -(-num_queries // num_blocks)  # blocks of equal size, so that the last has little padding

    def split(vectors):
        padded = tf.pad(vectors, [[0, 0], [0, num_blocks * rows - num_queries], [0, 0]])
        return tf.transpose(tf.reshape(padded, [num_heads, num_blocks, rows, -1]), [1, 0, 2, 3])

    def join(blocks):
        blocks = tf.reshape(tf.transpose(blocks, [1, 0, 2, 3]), [num_heads, num_blocks * rows, -1])
        return tf.ensure_shape(blocks[:, :num_queries], queries.shape)

    def weights_of(block):
        return _softmax(tf.matmul(block, keys, transpose_b=True))

    def forward(block):
        return tf.matmul(weights_of(block), values)

    attended = join(tf.map_fn(forward, split(queries), parallel_iterations=1))

    def gradient(upstream):
        parts = split(queries), split(upstream), split(attended)

        def backward(number, of_queries, of_keys, of_values):
            query, up, out = (part[number] for part in parts)
            weights = weights_of(query)
            along = tf.reduce_sum(up * out, axis=-1, keepdims=True)  # the sum of weights * slopes over keys
            slopes = weights * (tf.matmul(up, values, transpose_b=True) - along)
            of_keys += tf.matmul(slopes, query, transpose_a=True)
            of_values += tf.matmul(weights, up, transpose_a=True)
            return number + 1, of_queries.write(number, tf.matmul(slopes, keys)), of_keys, of_values

        start = 0, tf.TensorArray(queries.dtype, num_blocks), tf.zeros_like(keys), tf.zeros_like(values)
        *_, of_queries, of_keys, of_values = tf.while_loop(
            lambda number, *_: number < num_blocks, backward, start, parallel_iterations=1
        )
        return join(of_queries.stack()), of_keys, of_values

    return attended, gradient


def class_logits(scores, class_embeddings, scale):
    """o of Eq. (8): scale^2 times the cosine of attribute scores [B, A] and class embeddings [K, A], -> [B, K]."""
    return tf.matmul(scale * l2_normalize(scores), scale * l2_normalize(class_embeddings), transpose_b=True)


def class_loss(logits, labels, seen_mask):
    """The first half of Eq. (9): cross entropy over the seen classes, mean over rows."""
    seen = tf.where(seen_mask > 0, logits, logits.dtype.min)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, seen))


def global_loss(logits, labels):
    """L_GC, Eq. (10): cross entropy over all classes of the stage, mean over rows."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


class Projection(keras.layers.Layer):
    """Brings a level to the grid and width of another, and normalises it: [B, h, w, F] -> [B, H, W, C].

    Means and repetitions of cells commute with the product over channels, which is made where there are fewer cells.
    """

    def __init__(self, shape, target, downscaling, momentum, **kwargs):
        super().__init__(**kwargs)
        (*cells, channels), (*self.grid, self.width) = shape, target
        self.factors = [-(-side // wanted) for side, wanted in zip(cells, self.grid, strict=True)]
        if any(f > 1 and -(-side // f) != n for side, f, n in zip(cells, self.factors, self.grid, strict=True)):
            raise InputError(f"levels: a grid of {cells} is no whole multiple of {self.grid}; wanted one that is")
        self.convolves = downscaling == "convolution" and max(self.factors) > 1
        if self.convolves:
            self.project = keras.layers.Conv2D(
                self.width, 3, self.factors, padding="same", use_bias=False, name="project"
            )
            self.project.build((None, *cells, channels))
        else:
            self.project = dense(channels, self.width, "project", use_bias=False)
        self.norm = keras.layers.BatchNormalization(
            momentum=momentum, epsilon=VARIANCE_EPSILON, synchronized=True, name="norm"
        )
        self.norm.build((None, self.width))
        self.built = True

    def call(self, maps, training=False):
        if not self.convolves and max(self.factors) > 1:
            maps = tf.nn.avg_pool2d(maps, self.factors, self.factors, "SAME")
        # A dense layer is one matrix product over all cells.
        projected = self.project(maps if self.convolves else tf.reshape(maps, [-1, maps.shape[-1]]))
        cells = projected.shape[1:3] if self.convolves else maps.shape[1:3]
        projected = self.norm(tf.reshape(projected, [-1, self.width]), training=training)
        projected = tf.reshape(projected, [-1, *cells, self.width])
        for axis, side in enumerate(self.grid, 1):
            if projected.shape[axis] != side:
                projected = tf.repeat(projected, -(-side // projected.shape[axis]), axis=axis)
        return projected[:, : self.grid[0], : self.grid[1]]


class DRMN(ZeroShotModel):
    """Attributes attend to regions, to channels and, in training, to each other."""

    Config = DRMNConfig
    eats = "levels"
    ablations = {
        # Table 2
        "baseline": {"fusion": False, "channel_attention": False, "interaction": False, "lambda_gc": 0.0},
        "dab": {"interaction": False, "lambda_gc": 0.0},
        "sit": {"fusion": False, "channel_attention": False, "lambda_gc": 0.0},
        "dab_sit": {"lambda_gc": 0.0},
        "global_branch": {"beta": 1.0},
        "ensemble": {},
        # Table 3, whose last row is "dab"
        "mff": {"channel_attention": False, "interaction": False, "lambda_gc": 0.0},
        "aca": {"fusion": False, "interaction": False, "lambda_gc": 0.0},
    }
    losses_reported = ("class_loss", "calibration_loss", "global_loss")
    paper_rule = {"gamma": 1.0}  # the indicator in the first line of Algorithm 1

    def __init__(self, config, input_shape, class_embeddings, seen_mask, attribute_vectors=None, seed=0, **kwargs):
        by_vectors = config.prototypes == "vectors"
        # The base keeps vectors that nothing reads; those that prototypes are made of are kept here.
        constant = None if by_vectors else attribute_vectors
        super().__init__(config, input_shape, class_embeddings, seen_mask, constant, seed, **kwargs)
        num_classes, num_attributes = class_embeddings.shape
        shapes = self.level_shapes
        self.level = _place(config.fused_level if config.fusion else config.single_level, len(shapes))
        self.width = shapes[self.level][-1]  # C
        self.seen_classes = np.flatnonzero(np.asarray(seen_mask) > 0)
        self.scalings = [FeatureScaling(shape[-1], name=f"scaling{i}") for i, shape in enumerate(shapes)]
        self.embedding_scaling = FeatureScaling(num_attributes, name="embedding_scaling")
        if config.fusion:
            target, options = shapes[self.level], (config.downscaling, config.norm_momentum)
            self.projections = [
                Projection(shape, target, *options, name=f"projection{i}") for i, shape in enumerate(shapes)
            ]
        spread = keras.initializers.RandomNormal(stddev=config.prototype_length / math.sqrt(self.width))
        if by_vectors:
            self.attribute_vectors = self._unit_vectors(attribute_vectors)
            # Of vectors of unit length it makes prototypes with the same spread as drawn ones.
            shape = self.attribute_vectors.shape[1], self.width
            self.vector_map = self.add_weight(shape=shape, initializer=spread, name="vector_map")
        else:
            shape = num_attributes, self.width
            self.prototypes = self.add_weight(shape=shape, initializer=spread, name="prototypes")
        self.w1 = self._matrix("w1", self.width, self.width)
        self.w4 = self._matrix("w4", self.width, self.width)
        if config.channel_attention:
            bottleneck = max(1, self.width // config.reduction)
            self.w2 = self._matrix("w2", self.width, bottleneck)
            self.w3 = self._matrix("w3", bottleneck, self.width)
        if config.interaction:
            self._add_interaction()
        if config.lambda_gc > 0:
            self.head = dense(shapes[-1][-1], num_classes, "head", dtype="float32")

    def _add_interaction(self):
        """SIT. Queries, keys and values have no bias: that of the keys would cancel in the softmax."""
        width, self.head_width = self.width, max(1, self.width // self.config.heads)
        joined, inner = self.config.heads * self.head_width, self.config.feedforward or width
        self.sit_in = dense(width, 3 * joined, "sit_in", use_bias=False)
        self.sit_out = dense(joined, width, "sit_out")
        self.sit_hidden = dense(width, inner, "sit_hidden", activation="relu")
        self.sit_mlp = dense(inner, width, "sit_mlp")
        self.sit_norms = [
            keras.layers.LayerNormalization(epsilon=VARIANCE_EPSILON, name=f"sit_norm{i}") for i in range(2)
        ]
        for norm in self.sit_norms:
            norm.build((None, None, width))

    def _unit_vectors(self, vectors):
        if vectors is None:
            raise InputError("prototypes: got vectors for data without attribute_vectors; wanted those, or drawn")
        start = keras.initializers.Constant(np.asarray(l2_normalize(np.asarray(vectors, np.float32))))
        trained = self.config.train_vectors
        return self.add_weight(shape=vectors.shape, initializer=start, trainable=trained, name="attribute_vectors")

    def _prototypes(self):
        """p of every attribute: [A, C], in float32, as it costs little."""
        # Within a call, Keras casts the values of variables to the precision of the layers.
        if self.config.prototypes == "drawn":
            return tf.cast(self.prototypes.value, tf.float32)
        return tf.matmul(*(tf.cast(one.value, tf.float32) for one in (self.attribute_vectors, self.vector_map)))

    @classmethod
    def reads_unseen_embeddings(cls, config):
        return config.lambda_sc > 0  # only the self-calibration of Eq. (9) does

    def adapt(self, benchmark):
        rows = benchmark.train
        self.embedding_scaling.fit_classes(self.config.embedding_scaling, benchmark)
        for level, scaling in enumerate(self.scalings):
            maps = lambda rows, level=level: np.asarray(self._read(benchmark.take(rows))[level])  # noqa: E731
            scaling.fit_regions(self.config.region_scaling, maps, rows)

    def compile(self, optimizer=None, **kwargs):
        super().compile(optimizer=optimizer or adam(self.config.learning_rate, self.config.weight_decay), **kwargs)
        self.optimizer.build(self.trainable_variables)

    def schedules(self):
        halve = self.config.halve_every
        return [
            keras.callbacks.LearningRateScheduler(
                lambda epoch, rate: rate / 2 if epoch and epoch % halve == 0 else rate  # the rate is saved and resumed
            )
        ]

    def train_step(self, data):
        inputs, labels = data
        config = self.config
        calibration = global_branch = tf.constant(0.0)  # in settings that leave them out
        with tf.GradientTape() as tape:
            levels = self._levels(inputs)
            found = self._found(self.fuse(levels, training=True))  # h, Eq. (1-4)
            scores = [self._scores(found)]  # e, Eq. (7)
            if config.interaction:
                scores.append(self._interacted(found, scores[0]))  # Eq. (5-6)
            logits = [self._logits(one, self.class_embeddings.value) for one in scores]  # Eq. (8)
            loss = classes = tf.add_n([class_loss(o, labels, self.seen_mask.value) for o in logits]) / len(logits)
            if config.lambda_sc > 0 and len(self.seen_classes) < self.seen_mask.shape[0]:
                calibration = tf.add_n([self._calibration(o) for o in logits]) / len(logits)
                loss += config.lambda_sc * calibration  # Eq. (9)
            if config.lambda_gc > 0:
                global_branch = global_loss(self._global_logits(levels), labels)  # Eq. (10)
                loss += config.lambda_gc * global_branch  # Eq. (11)
        self.minimize(tape, loss, self.optimizer, self.trainable_variables)
        return self.report(class_loss=classes, calibration_loss=calibration, global_loss=global_branch)

    def own_scores(self, inputs, class_embeddings):
        """o of Eq. (8), without the head."""
        return self._scored(self._levels(inputs), class_embeddings)

    def seen_answers(self, scores, inputs, seen_mask):
        """The second argmax of Algorithm 1: of beta softmax(o) + (1 - beta) softmax(g), over the seen classes or all.

        The seen classes in `seen_mask` are those of training, in their order and among any others, or none. Of the
        others the head knows those of the stage, where all classes are those of the stage; it gives nothing to any
        other one.
        """
        if self.config.lambda_gc == 0 or self.config.beta == 1:
            return super().seen_answers(scores, inputs, seen_mask)
        seen = tf.cast(seen_mask, tf.bool)
        trained, given = len(self.seen_classes), tf.math.count_nonzero(seen, dtype=tf.int32)
        message = f"seen_mask: wanted the {trained} classes of training, which the global branch knows, or none"
        with tf.control_dependencies([tf.debugging.Assert((given == trained) | (given == 0), [message])]):
            place = tf.maximum(tf.cumsum(tf.cast(seen, tf.int32)) - 1, 0)
        head = tf.nn.softmax(self._global_logits(self._levels(inputs)))
        g = tf.gather(tf.gather(head, self.seen_classes, axis=1), place, axis=1)
        if self.config.second_argmax == "all":
            g = tf.cond(self._is_stage(seen), lambda: head, lambda: tf.where(seen, g, 0.0))
        ensemble = self.config.beta * tf.nn.softmax(scores) + (1 - self.config.beta) * g
        if self.config.second_argmax == "seen":
            return tf.argmax(tf.where(seen, ensemble, -1.0), axis=-1)
        highest = tf.reduce_max(tf.where(seen, ensemble, -1.0), axis=-1, keepdims=True)
        return tf.argmax(tf.where(seen, ensemble, tf.where(ensemble > highest, ensemble, -1.0)), axis=-1)

    def _is_stage(self, seen):
        """Whether as many classes are given as the stage has, with the seen ones at the same places."""
        own = self.seen_mask.value > 0
        if not seen.shape.is_compatible_with(own.shape):
            return tf.constant(False)
        return tf.cond(
            tf.equal(tf.shape(seen)[0], tf.shape(own)[0]),
            lambda: tf.reduce_all(tf.equal(seen, own)),
            lambda: tf.constant(False),
        )

    def attribute_scores(self, inputs):
        """e of Eq. (7): {"attribute": [B, A]}."""
        return {"attribute": self._attribute_scores(inputs)}

    def attention(self, inputs):
        """Where each attribute looks, Eq. (1): {"attribute": [B, A, H, W]}, which sums to one over places."""
        height, width, _ = self.level_shapes[self.level]
        attention = self._spatial_attention(self.fuse(self._levels(inputs)))
        return {"attribute": tf.reshape(tf.cast(attention, tf.float32), [-1, attention.shape[1], height, width])}

    @property
    def weighs_channels(self):
        """Whether there are `channel_weights`."""
        return self.config.channel_attention

    def channel_weights(self, inputs):
        """eta of Eq. (4): [B, A, C]; only if `weighs_channels`."""
        return tf.cast(self._channel_attention(self.fuse(self._levels(inputs))), tf.float32)

    def embed(self, inputs):
        """The pooled features of the last level and of the fused map, and the attribute scores: name -> [B, D]."""
        levels = self._levels(inputs)
        regions = self.fuse(levels)
        pooled = {"last": _mean_of(levels[-1], [1, 2]), "fused": _mean_of(regions, [1])}
        return {**pooled, "attribute": self._scores(self._found(regions))}

    def fuse(self, levels, training=False):
        """v of Sec. 3.1: [B, R, C], one level plus the projections of all levels; without fusion the single level."""
        height, width, channels = self.level_shapes[self.level]
        fused = levels[self.level]
        if self.config.fusion:
            fused += tf.add_n([p(maps, training=training) for p, maps in zip(self.projections, levels, strict=True)])
        return tf.reshape(fused, [-1, height * width, channels])

    def interact(self, found):
        """SIT of h [B, A, C], Eq. (5-6), in training only: one layer of a transformer's encoder.

        A token is an attribute of an image. It attends to all attributes of all images, or to the same attribute in all
        images, on all replicas: the images of one replica would be another batch.
        """
        attended = self.dropped(self.sit_out(self._look(self.sit_in(found))), self.config.dropout)
        first = self.sit_norms[0](attended + found)  # Eq. (5)
        hidden = self.dropped(self.sit_hidden(first), self.config.dropout)
        return self.sit_norms[1](self.dropped(self.sit_mlp(hidden), self.config.dropout) + first)  # Eq. (6)

    def _look(self, projected):
        """Attention of several heads over [B, A, heads * d], given queries, keys and values side by side."""
        heads, width = self.config.heads, self.head_width
        queries, others = tf.split(projected, [heads * width, 2 * heads * width], axis=2)
        keys, values = tf.split(self.gather(others), 2, axis=2)
        num_attributes = queries.shape[1]
        across_all = self.config.interaction_across == "all"
        # A sequence is all attributes of all images, [heads, B * A, d], or one attribute of them, [A * heads, B, d].
        shape = [-1, heads, width] if across_all else [-1, num_attributes * heads, width]
        sequences = [tf.transpose(tf.reshape(x, shape), [1, 0, 2]) for x in (queries, keys, values)]
        attended = attend_in_blocks(sequences[0] / math.sqrt(width), *sequences[1:])
        return tf.reshape(tf.transpose(attended, [1, 0, 2]), [-1, num_attributes, heads * width])

    @property
    def level_shapes(self):
        """Of each level, fine to coarse: (H, W, F)."""
        return self.row_shape

    def _read(self, inputs):
        """The maps of all levels, as they come."""
        return inputs

    def _levels(self, inputs):
        """The maps of all levels, in the precision of the layers."""
        return self._scaled(self._read(inputs))

    def _scaled(self, levels):
        pairs, kind = zip(self.scalings, levels, strict=True), self.config.region_scaling
        return [tf.cast(scaled_maps(scaling, kind, maps), self.compute_dtype) for scaling, maps in pairs]

    def _found(self, regions):
        """h of Sec. 3.1: [B, A, C], the attended feature of each attribute."""
        found = tf.matmul(self._spatial_attention(regions), regions)  # k, Eq. (2)
        return found * self._channel_attention(regions) if self.config.channel_attention else found

    def _spatial_attention(self, regions):
        return spatial_attention(regions, tf.cast(self._lookups(self.w1), self.compute_dtype))

    def _channel_attention(self, regions):
        w2, w3 = (tf.cast(w.value, self.compute_dtype) for w in (self.w2, self.w3))
        return channel_attention(self._prototypes(), _mean_of(regions, [1]), w2, w3)

    def _scores(self, found, drawn=None):
        """e of Eq. (7): [B, A], of h or SIT's output [B, A, C]; in float32, as its terms nearly cancel.

        Args:
            found: of all attributes, or of those that were `drawn` alone.
            drawn: their numbers.
        """
        lookups = self._lookups(self.w4)
        lookups = lookups if drawn is None else tf.gather(lookups, drawn)
        return tf.reduce_sum(tf.cast(found, tf.float32) * lookups, axis=2)

    def _interacted(self, found, scores):
        """e of Eq. (7) after SIT: [B, A]. Attributes that it does not see in this step keep their score before it."""
        count, seen = found.shape[1], self.config.interaction_attributes
        if seen is None or seen >= count:
            return self._scores(self.interact(found))
        drawn = self.drawn(seen, count)
        after = self._scores(self.interact(tf.gather(found, drawn, axis=1)), drawn)
        return tf.transpose(tf.tensor_scatter_nd_update(tf.transpose(scores), drawn[:, None], tf.transpose(after)))

    def _attribute_scores(self, inputs):
        return self._scores_of_attributes(self._levels(inputs))

    def _scores_of_attributes(self, levels):
        return self._scores(self._found(self.fuse(levels)))

    def _scored(self, levels, class_embeddings):
        return self._logits(self._scores_of_attributes(levels), class_embeddings)

    def _lookups(self, matrix):
        """p_a W of every attribute: [A, C], in float32."""
        return tf.matmul(self._prototypes(), tf.cast(matrix.value, tf.float32))

    def _logits(self, scores, class_embeddings):
        embeddings = self.embedding_scaling(tf.cast(class_embeddings, tf.float32))
        return class_logits(scores, embeddings, self.config.scale)

    def _global_logits(self, levels):
        """g of Sec. 3.3: [B, classes of the stage]."""
        return self.head(_mean_of(levels[-1], [1, 2]))

    def _calibration(self, logits):
        """The second half of Eq. (9)."""
        seen = self.seen_mask.value
        lifted = logits + self.config.indicator * (1.0 - seen)
        if self.config.calibration == "printed":
            return self_calibration_as_printed(lifted, seen)
        return self_calibration(self.gather(lifted), seen)

    def _matrix(self, name, rows, columns):
        return self.add_weight(shape=(rows, columns), initializer="glorot_uniform", name=name)


@dataclasses.dataclass(frozen=True)
class DRMNFromPicturesConfig(BackboneConfig, DRMNConfig):
    """As of DRMN; Sec. 4 has a ResNet-101 trained on ImageNet, but no image size."""

    backbone_rate: float = setting(0.0, least=0)  # times the learning rate; 0 does not train the backbone

    def numbers(self, benchmark):
        return 3 * self.image_size**2

    @property
    def layers(self):
        return backbones.default_layers(self.backbone)


class DRMNFromPictures(OwnBackbone, DRMN):
    """DRMN with its backbone: reads images instead of levels. The backbone's moving statistics never change."""

    Config = DRMNFromPicturesConfig

    @property
    def level_shapes(self):
        return tuple(shape[1:] for shape in self.backbone.output_shape)

    @property
    def trains_backbone(self):
        return self.config.backbone_rate > 0

    def scores_and_pooled(self, inputs, class_embeddings):
        levels = self._read(inputs)
        pooled = conditioning.pooled(levels, self.config.closed_form_pooling)
        return self._scored(self._scaled(levels), class_embeddings), pooled

    def _add_backbone(self):
        config = self.config
        self.backbone = backbones.backbone(config.backbone, None, config.image_size, config.layers)  # see load_backbone
        self.backbone.trainable = config.backbone_rate > 0

    def adapt(self, benchmark):
        load_backbone(self.backbone, self.config, self.config.layers)
        super().adapt(benchmark)

    def compile(self, optimizer=None, **kwargs):
        config = self.config
        options = {"weight_decay": config.weight_decay or None, "share": config.backbone_rate}
        slow = self.backbone.trainable_variables
        super().compile(optimizer or AdamWithSlowPart(config.learning_rate, slow=slow, **options), **kwargs)

    def _read(self, inputs):
        images = augment.plain(inputs, self.config.image_size)
        prepared = backbones.preprocess(self.config.backbone, images, self.config.preprocessing)
        return self.backbone(prepared, training=False)


def _place(level, count):
    """The index of a level that is counted from either end."""
    if not -count <= level < count:
        raise InputError(f"levels: got {count}, which have no level {level}; wanted more, or another level")
    return level % count


def _softmax(logits):
    """Over the last axis; never in half precision, whose sums lose small terms."""
    wide = tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits
    return tf.cast(tf.nn.softmax(wide), logits.dtype)


def _mean_of(values, axes):
    """The mean over `axes`, in float32 in every precision."""
    return tf.reduce_mean(tf.cast(values, tf.float32), axis=axes)


def _size(tensor, axis):
    """The length of an axis: a number where it is known, which XLA and static shapes need, else a tensor."""
    return tensor.shape[axis] or tf.shape(tensor)[axis]
