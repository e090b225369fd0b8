"""DRMN: Han, Gao, Lin, Yan, Ding, Gao and Xia, Dual Relation Mining Network for Zero-Shot Learning (2024).

Every attribute looks for its regions in a map fused from several levels of a backbone, weighs the channels of what it
found, and scores it. While training, the attributes of all pictures of a batch also look at each other (SIT). A head
that knows nothing of attributes helps to tell seen classes apart.

    L = L_AC + lambda_GC L_GC                                       Eq. (11), with Eq. (9) and (10) on logits o, Eq. (8)
    class = argmax of o + an indicator of unseen classes; a seen one is decided anew with the head           Algorithm 1

Deviations, fields of the config where the printed form is at hand:
- Eq. (9) prints a sum over unseen classes of log p, which at CUB's 50 outweighs the classification. The work it cites
  has -log of the mean over the batch of the unseen mass: `calibration` "mass"; "printed" is as printed.
- Algorithm 1 takes its second argmax over all classes, to which the head says nothing of the unseen; here it is one
  over the seen, so that the gate alone decides who is unseen.
- SIT's loss is not printed; "a shared classifier before and after" is read as the mean of L_AC on both.
- The paper does not say whether the backbone is trained. DRMN reads its maps; then nothing is shared between the head
  and the rest, and lambda_GC is no more than a factor of the head's own gradient. DRMNFromPictures has the backbone in
  it, and trains it where it is told to.
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from zslkeras.errors import InputError
from zslkeras.images import augment, backbones
from zslkeras.layers import SCALINGS, FeatureScaling, l2_normalize
from zslkeras.losses import self_calibration, self_calibration_as_printed
from zslkeras.models.base import ZeroShotModel

_EPSILON = 1e-5  # of the variance in every normalisation, as in most published code; Keras has 1e-3
_WEIGHTS_AT_ONCE = 2**24  # attention weights held together while attributes look at each other: 64 MB in float32


@dataclasses.dataclass(frozen=True)
class DRMNConfig:
    """Defaults are CUB's."""

    lambda_sc: float = 0.1  # of the self-calibration in Eq. (9), Sec. 4
    lambda_gc: float = 0.6  # of L_GC, Sec. 4; 0 leaves out the head
    beta: float = 0.3  # of the attributes in Algorithm 1, Sec. 4; 1 leaves out the ensemble
    reduction: int = 4  # m of the bottleneck in Eq. (4), Sec. 4
    learning_rate: float = 1e-3  # Sec. 4
    halve_every: int = 10  # epochs, after which the rate is halved, Sec. 4
    # The ablations of Tables 2 and 3.
    fusion: bool = True  # of the levels; without it one level is seen
    channel_attention: bool = True
    interaction: bool = True  # SIT
    # Not in the paper.
    interaction_across: str = "all"  # one sequence of B * A tokens as described; "pictures": one an attribute, cheap
    heads: int = 4  # of SIT, as the method it cites
    feedforward: int | None = None  # width of SIT's MLP; None is that of the tokens, as the method it cites
    dropout: float = 0.5  # in SIT, as the method it cites; not of its attention weights
    scale: float = 5.0  # gamma in Eq. (8), as the work it cites
    calibration: str = "mass"  # or "printed"
    indicator: float = 1.0  # what I adds to unseen classes in Eq. (9); the work cited takes as much off the seen ones
    fused_level: int = -2  # whose grid and width the others are brought to: "the second last block"
    single_level: int = -1  # the one seen without fusion: baselines of the field see the last
    downscaling: str = "pooling"  # of finer levels: mean of the cells, no weights; or "convolution", 3x3 with strides
    prototype_length: float = 1.0  # at the start: the first attention is soft, and Eq. (3) is well above its epsilon
    norm_momentum: float = 0.9  # of the moving statistics, as in most published code; Keras has 0.99
    region_scaling: str = "none"  # of the channels of each level, fitted on training rows; see layers.SCALINGS
    embedding_scaling: str = "none"  # of the class embeddings, fitted on the seen classes
    weight_decay: float = 0.0  # decoupled
    averaging: float = 0.0  # of the weights over epochs: how much each counts beside the next, see training.Run
    batch_size: int = 32  # what SIT's B * A tokens allow
    epochs: int = 30
    sampler: str = "plain"
    patience: int | None = 10

    def __post_init__(self):
        choices = {
            "interaction_across": ("all", "pictures"),
            "calibration": ("mass", "printed"),
            "downscaling": ("pooling", "convolution"),
            "region_scaling": SCALINGS,
            "embedding_scaling": SCALINGS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}; wanted one of {', '.join(allowed)}")
        for name in ("lambda_sc", "lambda_gc", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted at least 0")
        for name in ("scale", "prototype_length"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted more than 0")
        for name in ("beta", "averaging"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted a number from 0 to 1")
        for name in ("dropout", "norm_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted at least 0 and less than 1")
        for name in ("reduction", "halve_every", "heads", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted at least 1")
        if self.feedforward is not None and self.feedforward < 1:
            raise ValueError(f"feedforward: got {self.feedforward}; wanted at least 1, or None")


def spatial_attention(regions, lookups):
    """omega of Eq. (1): [B, A, R], a softmax over the regions of a picture.

    Args:
        regions: v, [B, R, C].
        lookups: p_a W_1 of every attribute, [A, C]: one product for all pictures, where W_1 v would be one a picture.
    """
    (num_regions, width), num_attributes = regions.shape[1:], lookups.shape[0]
    logits = tf.matmul(tf.reshape(regions, [-1, width]), lookups, transpose_b=True)
    logits = tf.transpose(tf.reshape(logits, [-1, num_regions, num_attributes]), [0, 2, 1])
    return _softmax(logits)


def standardize(vectors):
    """norm of Eq. (3): zero mean and unit variance over the channels."""
    mean, variance = tf.nn.moments(vectors, axes=[-1], keepdims=True)
    return (vectors - mean) * tf.math.rsqrt(variance + _EPSILON)


def channel_attention(prototypes, pooled, w2, w3):
    """eta of Eq. (3-4): [B, A, C], each between 0 and 1.

    W_2 q is the sum of what W_2 makes of the two terms of q: A + B rows are multiplied instead of A * B.

    Args:
        prototypes: p, [A, C].
        pooled: the mean over regions of v, [B, C].
        w2: [C, C / m].
        w3: [C / m, C].
    """
    of_attributes, of_pictures = (tf.matmul(tf.cast(standardize(x), w2.dtype), w2) for x in (prototypes, pooled))
    hidden = tf.nn.relu(of_pictures[:, None] + of_attributes[None])
    logits = tf.matmul(tf.reshape(hidden, [-1, hidden.shape[-1]]), w3)
    return tf.sigmoid(tf.reshape(logits, [-1, *hidden.shape[1:-1], w3.shape[-1]]))


@tf.custom_gradient
def attend_in_blocks(queries, keys, values):
    """softmax(queries keys') values, [S, N, d] of S heads, never holding more than a block of the [S, N, M] weights.

    A block is so many queries against all keys, and is made anew for the gradient.

    Args:
        queries: [S, N, d], scaled.
        keys: [S, M, d].
        values: [S, M, d].
    """
    num_heads, num_queries = _size(queries, 0), _size(queries, 1)
    most = 1 + _WEIGHTS_AT_ONCE // (num_heads * _size(keys, 1))
    num_blocks = -(-num_queries // most)
    rows = -(-num_queries // num_blocks)  # blocks of one size, so that the last is not padded more than it must be

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
            along = tf.reduce_sum(up * out, axis=-1, keepdims=True)  # the sum of weights * slopes, without a pass over
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
    """A level brought to the grid and the width of another, and normalised: [B, h, w, F] -> [B, H, W, C].

    Means and repetitions of cells commute with a product over channels: it is made where there are fewer cells.
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
            self.project = _dense(channels, self.width, "project", use_bias=False)
        self.norm = keras.layers.BatchNormalization(momentum=momentum, epsilon=_EPSILON, synchronized=True, name="norm")
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
    """Attributes that look for regions, for channels and, while training, at each other."""

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

    def __init__(self, config, input_shape, class_embeddings, seen_mask, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, seen_mask, *args, **kwargs)
        num_classes, num_attributes = class_embeddings.shape
        shapes = self.level_shapes = self._shapes_of_levels()
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
        self.prototypes = self.add_weight(shape=(num_attributes, self.width), initializer=spread, name="prototypes")
        self.w1 = self._matrix("w1", self.width, self.width)
        self.w4 = self._matrix("w4", self.width, self.width)
        if config.channel_attention:
            bottleneck = max(1, self.width // config.reduction)
            self.w2 = self._matrix("w2", self.width, bottleneck)
            self.w3 = self._matrix("w3", bottleneck, self.width)
        if config.interaction:
            self._add_interaction()
        if config.lambda_gc > 0:
            self.head = _dense(shapes[-1][-1], num_classes, "head", dtype="float32")

    def _add_interaction(self):
        """SIT. Queries, keys and values have no bias: the keys' would cancel in the softmax."""
        width, self.head_width = self.width, max(1, self.width // self.config.heads)
        joined, inner = self.config.heads * self.head_width, self.config.feedforward or width
        self.sit_in = _dense(width, 3 * joined, "sit_in", use_bias=False)
        self.sit_out = _dense(joined, width, "sit_out")
        self.sit_hidden = _dense(width, inner, "sit_hidden", activation="relu")
        self.sit_mlp = _dense(inner, width, "sit_mlp")
        self.sit_norms = [keras.layers.LayerNormalization(epsilon=_EPSILON, name=f"sit_norm{i}") for i in range(2)]
        for norm in self.sit_norms:
            norm.build((None, None, width))

    @classmethod
    def reads_unseen_embeddings(cls, config):
        return config.lambda_sc > 0  # the self-calibration of Eq. (9) alone does

    def adapt(self, benchmark):
        embeddings, rows = benchmark.class_embeddings, benchmark.train
        self._load()
        self.embedding_scaling.fit(
            self.config.embedding_scaling, lambda classes: embeddings[classes], benchmark.seen_classes
        )
        for level, scaling in enumerate(self.scalings):
            maps = lambda rows, level=level: np.asarray(self._read(benchmark.take(rows))[level])  # noqa: E731
            scaling.fit_regions(self.config.region_scaling, maps, rows)

    def compile(self, optimizer=None, **kwargs):
        rate, decay = self.config.learning_rate, self.config.weight_decay or None
        super().compile(optimizer=optimizer or keras.optimizers.Adam(rate, weight_decay=decay), **kwargs)
        self.optimizer.build(self.trainable_variables)

    def learn(self, run):
        halve = self.config.halve_every
        run.callbacks.append(
            keras.callbacks.LearningRateScheduler(
                lambda epoch, rate: rate / 2 if epoch and epoch % halve == 0 else rate  # the rate is saved and resumed
            )
        )
        run.epochs(self)

    def train_step(self, data):
        inputs, labels = data
        config = self.config
        calibration = global_branch = tf.constant(0.0)  # for what leaves them out
        with tf.GradientTape() as tape:
            levels = self._levels(inputs)
            found = self._found(self.fuse(levels, training=True))  # h, Eq. (1-4)
            both = [found, self.interact(found)] if config.interaction else [found]  # Eq. (5-6)
            logits = [self._logits(self._scores(one), self.class_embeddings.value) for one in both]  # Eq. (7-8)
            loss = classes = tf.add_n([class_loss(o, labels, self.seen_mask.value) for o in logits]) / len(both)
            if config.lambda_sc > 0 and len(self.seen_classes) < self.seen_mask.shape[0]:
                calibration = tf.add_n([self._calibration(o) for o in logits]) / len(both)
                loss += config.lambda_sc * calibration  # Eq. (9)
            if config.lambda_gc > 0:
                global_branch = global_loss(self._global_logits(levels), labels)  # Eq. (10)
                loss += config.lambda_gc * global_branch  # Eq. (11)
        self.minimize(tape, loss, self.optimizer, self.trainable_variables)
        return self.report(class_loss=classes, calibration_loss=calibration, global_loss=global_branch)

    def score_classes(self, inputs, class_embeddings):
        """o of Eq. (8); the head scores no class."""
        return self._logits(self._attribute_scores(inputs), class_embeddings)

    def seen_answers(self, scores, inputs, seen_mask):
        """The second argmax of Algorithm 1: of beta softmax(o) + (1 - beta) softmax(g) over the seen classes.

        The classes of `seen_mask` are those of training in their order, among any others, or none.
        """
        if self.config.lambda_gc == 0 or self.config.beta == 1:
            return super().seen_answers(scores, inputs, seen_mask)
        seen = tf.cast(seen_mask, tf.bool)
        trained, given = len(self.seen_classes), tf.math.count_nonzero(seen, dtype=tf.int32)
        message = f"seen_mask: wanted the {trained} classes of training, which the global branch knows, or none"
        with tf.control_dependencies([tf.debugging.Assert((given == trained) | (given == 0), [message])]):
            place = tf.maximum(tf.cumsum(tf.cast(seen, tf.int32)) - 1, 0)
        g = tf.gather(tf.nn.softmax(self._global_logits(self._levels(inputs))), self.seen_classes, axis=1)
        ensemble = self.config.beta * tf.nn.softmax(scores) + (1 - self.config.beta) * tf.gather(g, place, axis=1)
        return tf.argmax(tf.where(seen, ensemble, -1.0), axis=1)

    def attribute_scores(self, inputs):
        """e of Eq. (7): {"attribute": [B, A]}."""
        return {"attribute": self._attribute_scores(inputs)}

    def attention(self, inputs):
        """Where each attribute looks, Eq. (1): {"attribute": [B, A, H, W]}, sums to one over places."""
        height, width, _ = self.level_shapes[self.level]
        attention = self._spatial_attention(self.fuse(self._levels(inputs)))
        return {"attribute": tf.reshape(tf.cast(attention, tf.float32), [-1, attention.shape[1], height, width])}

    @property
    def weighs_channels(self):
        return self.config.channel_attention

    def channel_weights(self, inputs):
        """eta of Eq. (4): [B, A, C]; where `weighs_channels`."""
        return tf.cast(self._channel_attention(self.fuse(self._levels(inputs))), tf.float32)

    def embed(self, inputs):
        """The pooled features of the last level and of the fused map, and the attribute scores: name -> [B, D]."""
        levels = self._levels(inputs)
        regions = self.fuse(levels)
        pooled = {"last": _mean_of(levels[-1], [1, 2]), "fused": _mean_of(regions, [1])}
        return {**pooled, "attribute": self._scores(self._found(regions))}

    def fuse(self, levels, training=False):
        """v of Sec. 3.1: [B, R, C], the residual level and the projections of all levels; or the single level."""
        height, width, channels = self.level_shapes[self.level]
        fused = levels[self.level]
        if self.config.fusion:
            fused += tf.add_n([p(maps, training=training) for p, maps in zip(self.projections, levels, strict=True)])
        return tf.reshape(fused, [-1, height * width, channels])

    def interact(self, found):
        """SIT of h [B, A, C], Eq. (5-6), in training alone: one layer of a transformer's encoder.

        A token is an attribute of a picture. It looks at all attributes of all pictures, or at its own in all pictures;
        of all replicas too, as the pictures of one would be another batch.
        """
        attended = self._drop(self.sit_out(self._look(self.sit_in(found))))
        first = self.sit_norms[0](attended + found)  # Eq. (5)
        hidden = self._drop(self.sit_hidden(first))
        return self.sit_norms[1](self._drop(self.sit_mlp(hidden)) + first)  # Eq. (6)

    def _look(self, projected):
        """Attention of several heads over [B, A, heads * d], given queries, keys and values side by side."""
        heads, width = self.config.heads, self.head_width
        queries, others = tf.split(projected, [heads * width, 2 * heads * width], axis=2)
        keys, values = tf.split(self.gather(others), 2, axis=2)
        num_attributes = queries.shape[1]
        across_all = self.config.interaction_across == "all"
        # A sequence is all attributes of all pictures, [heads, B * A, d], or one of them, [A * heads, B, d].
        shape = [-1, heads, width] if across_all else [-1, num_attributes * heads, width]
        sequences = [tf.transpose(tf.reshape(x, shape), [1, 0, 2]) for x in (queries, keys, values)]
        attended = attend_in_blocks(sequences[0] / math.sqrt(width), *sequences[1:])
        return tf.reshape(tf.transpose(attended, [1, 0, 2]), [-1, num_attributes, heads * width])

    def _shapes_of_levels(self):
        return self.row_shape

    def _load(self):
        """What has weights of its own takes them before anything is fitted."""

    def _read(self, inputs):
        """The maps of all levels, as they come."""
        return inputs

    def _levels(self, inputs):
        """The maps in what the layers compute in."""
        maps = [tf.cast(one, tf.float32) for one in self._read(inputs)]
        if self.config.region_scaling != "none":
            maps = [scaling(one) for scaling, one in zip(self.scalings, maps, strict=True)]
        return [tf.cast(one, self.compute_dtype) for one in maps]

    def _found(self, regions):
        """h of Sec. 3.1: [B, A, C], what each attribute finds."""
        found = tf.matmul(self._spatial_attention(regions), regions)  # k, Eq. (2)
        return found * self._channel_attention(regions) if self.config.channel_attention else found

    def _spatial_attention(self, regions):
        return spatial_attention(regions, tf.cast(self._lookups(self.w1), self.compute_dtype))

    def _channel_attention(self, regions):
        w2, w3 = (tf.cast(w.value, self.compute_dtype) for w in (self.w2, self.w3))
        return channel_attention(tf.cast(self.prototypes.value, tf.float32), _mean_of(regions, [1]), w2, w3)

    def _scores(self, found):
        """e of Eq. (7): [B, A] of h or SIT's [B, A, C]; float32, as its terms nearly cancel."""
        return tf.reduce_sum(tf.cast(found, tf.float32) * self._lookups(self.w4), axis=2)

    def _attribute_scores(self, inputs):
        return self._scores(self._found(self.fuse(self._levels(inputs))))

    def _lookups(self, matrix):
        """p_a W of every attribute: [A, C], in float32: it costs little."""
        # Within a call Keras makes the values of variables what the layers compute in.
        return tf.matmul(*(tf.cast(weight.value, tf.float32) for weight in (self.prototypes, matrix)))

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

    def _drop(self, units):
        if not self.config.dropout:
            return units
        kept = tf.cast(self.uniform(tf.shape(units)) >= self.config.dropout, units.dtype)
        return units * kept / (1 - self.config.dropout)

    def _matrix(self, name, rows, columns):
        return self.add_weight(shape=(rows, columns), initializer="glorot_uniform", name=name)


@dataclasses.dataclass(frozen=True)
class DRMNFromPicturesConfig(DRMNConfig):
    # Sec. 4 has ResNet-101, trained on ImageNet, and not the size of its pictures.
    backbone: str = "resnet101"
    weights: str | None = "imagenet"  # or a file, or None: random ones
    preprocessing: str = "own"
    image_size: int = 448  # what the works it compares with see
    backbone_rate: float = 0.0  # times the learning rate; 0 leaves the backbone as it is

    def __post_init__(self):
        super().__post_init__()
        if self.preprocessing not in backbones.PREPROCESSINGS:
            wanted = ", ".join(backbones.PREPROCESSINGS)
            raise ValueError(f"preprocessing: got {self.preprocessing!r}; wanted one of {wanted}")
        if self.image_size < 1:
            raise ValueError(f"image_size: got {self.image_size}; wanted at least 1")
        if self.backbone_rate < 0:
            raise ValueError(f"backbone_rate: got {self.backbone_rate}; wanted at least 0")


class AdamWithSlowPart(keras.optimizers.Adam):
    """Adam whose rate is `share` times as high for some variables, which do not decay."""

    def __init__(self, *args, slow=(), share=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.slow, self.share = slow, share
        if slow:
            self.exclude_from_weight_decay(slow)

    def build(self, variables):
        super().build(variables)
        self._slow_places = {self._get_variable_index(variable) for variable in self.slow}

    def update_step(self, gradient, variable, learning_rate):
        slow = self._get_variable_index(variable) in self._slow_places
        super().update_step(gradient, variable, learning_rate * self.share if slow else learning_rate)


class DRMNFromPictures(DRMN):
    """DRMN with its backbone: reads pictures instead of levels. Moving statistics of the backbone stay as they come."""

    Config = DRMNFromPicturesConfig
    eats = "images"

    def _shapes_of_levels(self):
        config = self.config
        layers = backbones.default_layers(config.backbone)
        # Without weights: those of a saved model come with it, others by `adapt`.
        self.backbone = backbones.backbone(config.backbone, None, config.image_size, layers)
        self.backbone.trainable = config.backbone_rate > 0
        return tuple(shape[1:] for shape in self.backbone.output_shape)

    def _load(self):
        config = self.config
        if config.weights:
            layers = backbones.default_layers(config.backbone)
            trained = backbones.backbone(config.backbone, config.weights, config.image_size, layers)
            self.backbone.set_weights(trained.get_weights())

    def compile(self, optimizer=None, **kwargs):
        config = self.config
        options = {"weight_decay": config.weight_decay or None, "share": config.backbone_rate}
        slow = self.backbone.trainable_variables
        super().compile(optimizer or AdamWithSlowPart(config.learning_rate, slow=slow, **options), **kwargs)

    def _read(self, inputs):
        pictures = augment.plain(inputs, self.config.image_size)
        prepared = backbones.preprocess(self.config.backbone, pictures, self.config.preprocessing)
        return self.backbone(prepared, training=False)


def _place(level, count):
    """The number of a level that is counted from either end."""
    if not -count <= level < count:
        raise InputError(f"levels: got {count}, which have no level {level}; wanted more, or another level")
    return level % count


def _softmax(logits):
    """Over the last axis; never in half precision, whose sums lose what is small."""
    wide = tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits
    return tf.cast(tf.nn.softmax(wide), logits.dtype)


def _mean_of(values, axes):
    """The mean over `axes`, in float32 whatever the layers compute in."""
    return tf.reduce_mean(tf.cast(values, tf.float32), axis=axes)


def _size(tensor, axis):
    """A number where it is known, which XLA and shapes in graphs are better off with."""
    return tensor.shape[axis] or tf.shape(tensor)[axis]


def _dense(inputs, units, name, **options):
    layer = keras.layers.Dense(units, name=name, **options)
    layer.build((None, inputs))
    return layer
