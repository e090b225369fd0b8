"""DCEN: Wang, Chen, Min, Sun and Li, Task-Independent Knowledge Makes for Transferable Representations for Generalized
Zero-Shot Learning (AAAI 2021).

Learns a backbone on two tasks at once: to bring an image f(I) near its class h(a) and away from the most confusing
other class, and to tell each image from all others, whatever their classes, by two views of it.

    L = lambda1 L_id + L_sa + lambda2 L_sp                                Eq. (7), with Eq. (5), Eq. (3) and Eq. (4)
    class = argmax of cos(f(I), h(a)) over seen and unseen                                                   Eq. (8)

What the paper does not say (its supplement is not public); "lineage" is later code of the same authors:
- f is the backbone, a 1x1 convolution with normalisation and ReLU, and the mean over places, as in the lineage. f of
  the first view is also aligned with the class, as in Fig. 2; h ends in the width of f.
- d in Eq. (1-3) and (8) is 1 - cosine. Eq. (3) has no margin, and its classes k are the seen ones.
- Eq. (1) compares f with the attributes themselves, whose widths differ; Basic-ZSL here is Eq. (3) without its second
  term and without masking.
- g uses its moving statistics, which are averaged like its weights, as they belong to those weights. Statistics that
  come without trained weights start at those of some training images.
- "Data from previous batches" is a queue like MoCo's, of g's outputs: the paper names no extra head.
- The lineage trains twice: with the backbone and its normalisation frozen, and then all of it. Here this is one run
  with one batch size; if it has a frozen part, the backbone's normalisation stays frozen throughout.

Deviations:
- Eq. (1) and (3-5) print sums over images; all are means over the batch, so that no weight changes with its size.
- Eq. (4) prints a norm; `prediction_norm` "squared", the default, has no infinite gradient; "printed" is the norm. Both
  are of whole embeddings, which have unit length as they are read: lambda2 then means the same for 64 attributes and
  for 312. With `--normalize false` the square grows with their number, and "relative" does not: it is a share of the
  mean squared length of the seen classes' embeddings.
- The paper masks a share sigma of the elements of a chosen class. Here each of them is masked with the chance sigma, so
  that the share varies. A masked element is 0, and one mask per class and step serves all rows, so a triplet compares
  equal masks.
- The last of the K blocks of the decoder in Fig. 3 is linear, see Predictor.
"""

import dataclasses
import warnings

import keras
import numpy as np
import tensorflow as tf

from zslkeras.errors import InputError
from zslkeras.images import augment, backbones
from zslkeras.models import conditioning
from zslkeras.models.config import epochs_for, setting
from zslkeras.models.layers import NORM_FLOOR, VARIANCE_EPSILON, dense, l2_normalize, load_backbone
from zslkeras.models.optimizers import CoupledAdam
from zslkeras.models.own_backbone import BackboneConfig, OwnBackbone
from zslkeras.names import AUTO, SAMPLERS

# What `DCENConfig` means by "auto". A pretrained backbone moves little, with the statistics that it came with, and for
# about as many images of training whatever the data.
_PRETRAINED = {"backbone_rate": 0.1, "freeze_batch_norm": True}
_FROM_NOTHING = {"backbone_rate": 1.0, "freeze_batch_norm": False}
_SCHEDULE = 6_000, 3, 10  # of a pretrained backbone: images, and bounds of epochs; see config.epochs_for
_EPOCHS = 20  # from nothing
_QUEUE = 1024  # keys, where there are images enough
_MEASURED = 64  # images that the first moving statistics are computed from


@dataclasses.dataclass(frozen=True)
class DCENConfig(BackboneConfig):
    """One setting for all data: docs/notes/dcen.md. The paper's values are in `presets` where these differ."""

    first_weight = 8.0  # the method alone is behind after so few epochs
    lambda1: float = setting(0.1, least=0)  # of L_id, "suitable for most cases"; 0: no visual contrastive module
    lambda2: float = setting(0.1, least=0)  # of L_sp, only shown in Fig. 4 (b); 0: no prediction of attributes
    tau: float = setting(0.07, above=0)  # in Eq. (5)
    momentum: float = setting(0.99, least=0, most=1)  # m in Eq. (6); with 0.999 g stays near its start for 5,000 steps
    blocks: int = setting(1, least=1)  # K
    mask_probability: float = setting(0.5, least=0, most=1)  # of a class
    sigma: float = setting(0.3, least=0, most=1)  # share of masked elements, unreadable in Fig. 6 (a); 0: no masking
    triplet: bool = True  # the second term of Eq. (3)
    views: str = setting("flip", choices=tuple(augment.TABLE_2))  # a row of Table 2
    # Not in the paper.
    prediction_norm: str = setting("squared", choices=("squared", "printed", "relative"))  # in Eq. (4)
    queue_size: int = setting(AUTO, least=1, auto=True)  # keys; at most half the training rows, see for_benchmark
    crop_scale: tuple[float, ...] = (0.4, 1.0)
    blur_sigma: tuple[float, ...] = augment.Views.blur_sigma
    # Of the backbone, fine to coarse: what the closed form reads; f is made of the last one. None: the last map.
    pool_layers: tuple[str, ...] | None = setting(AUTO, auto=True)
    feature_dim: int = setting(512, least=1)  # of f and h
    hidden: int = setting(512, least=1)  # of h and of the prediction
    norm_momentum: float = setting(0.9, least=0, below=1)  # of moving statistics; Keras has 0.99
    learning_rate: float = setting(1e-3, above=0)
    beta1: float = setting(0.5, least=0, below=1)  # of Adam, as in the lineage
    weight_decay: float = setting(1e-4, least=0)  # in the gradient, as in the lineage
    # Epochs, after which the rate is a tenth; counted anew after frozen ones.
    drop_every: int = setting(AUTO, least=1, auto=True)
    epochs: int = setting(AUTO, least=1, auto=True)
    backbone_rate: float = setting(AUTO, least=0, auto=True)  # times the learning rate
    frozen_epochs: int = setting(0, least=0)  # the first ones, in which the backbone does not change
    freeze_backbone: bool = False  # in all epochs
    # Of the backbone; it is also frozen if one of the two above is set.
    freeze_batch_norm: bool = setting(AUTO, auto=True)
    averaging: float = setting(0.0, least=0, most=1)  # of weights over epochs, see base.averaged
    batch_size: int = setting(32, least=1)
    sampler: str = setting("plain", choices=SAMPLERS)
    patience: int | None = setting(None, least=1)

    def __post_init__(self):
        super().__post_init__()
        self.view_settings()  # checks its own settings

    def known(self, benchmark):
        """As in the base; "auto" in the schedule is what a pretrained backbone takes, or one from nothing."""
        found = super().known(benchmark)
        rows, pretrained = len(benchmark.train), found.get("weights", self.weights)
        epochs = self.epochs
        if epochs == AUTO:
            epochs = epochs_for(rows, *_SCHEDULE) if pretrained else _EPOCHS
        wanted = {
            **(_PRETRAINED if pretrained else _FROM_NOTHING),
            "epochs": epochs,
            "drop_every": max(1, round(0.7 * epochs)),
            "queue_size": max(1, min(_QUEUE, rows // 2)),
            "pool_layers": backbones.LEVELS.get(found.get("backbone", self.backbone), ())[-2:] or None,
        }
        return found | {name: value for name, value in wanted.items() if getattr(self, name) == AUTO}

    @property
    def layers(self):
        return self.pool_layers

    def view_settings(self):
        row = augment.TABLE_2[self.views]
        return augment.Views(**row, crop_scale=self.crop_scale, blur_sigma=self.blur_sigma)


# The ablations: rows of Table 3, and of Table 2, whose first row has no module that needs views.
_TABLE_3 = {
    "basic_zsl": {"lambda1": 0.0, "sigma": 0.0, "triplet": False, "lambda2": 0.0},
    "vcm": {"sigma": 0.0, "triplet": False, "lambda2": 0.0},
    "masking": {"triplet": False, "lambda2": 0.0},
    "triplet": {"lambda2": 0.0},
    "full": {},
}
_TABLE_2 = {
    f"views_{row.replace(' ', '_')}": _TABLE_3["basic_zsl" if row == "none" else "vcm"] | {"views": row}
    for row in augment.TABLE_2
}


def distance(features, classes):
    """d of Eq. (3): 1 - cosine of features [B, D] and classes [K, D], -> [B, K]."""
    return 1.0 - tf.matmul(l2_normalize(features), l2_normalize(classes), transpose_b=True)


def semantic_loss(distances, labels):
    """L_zsl, Eq. (1): the mean distance of rows to their class; labels [B] number the columns of distances [B, S]."""
    return tf.reduce_mean(tf.gather(distances, labels, batch_dims=1))


def triplet_loss(distances, labels):
    """L_sa, Eq. (3): `semantic_loss` minus the mean distance to the nearest other class."""
    own = tf.one_hot(labels, tf.shape(distances)[1], on_value=True, off_value=False)
    others = tf.where(own, distances.dtype.max, distances)
    return semantic_loss(distances, labels) - tf.reduce_mean(tf.reduce_min(others, axis=1))


def prediction_loss(predicted, attributes, norm="squared", unit=1.0):
    """L_sp, Eq. (4): the mean over rows [B, A] of the norm of the error, or of its square, in units of `unit` where it
    is "relative"."""
    squares = tf.reduce_sum(tf.square(predicted - attributes), axis=1)
    if norm == "printed":  # the gradient of the root is infinite at zero
        return tf.reduce_mean(tf.sqrt(tf.maximum(squares, NORM_FLOOR**2)))
    return tf.reduce_mean(squares) / (unit if norm == "relative" else 1.0)


def info_nce(queries, keys, queue, tau):
    """L_id, Eq. (5): the mean over rows of -log of the softmax at the row's own key, among that key and the queue.

    Args:
        queries: f of first views, [B, D].
        keys: g of second views of the same images, [B, D].
        queue: g of other images, [N, D]; N may be 0.
        tau: the temperature of the cosines.
    """
    queries = l2_normalize(queries)
    positive = tf.reduce_sum(queries * l2_normalize(keys), axis=1, keepdims=True)
    logits = tf.concat([positive, tf.matmul(queries, l2_normalize(queue), transpose_b=True)], axis=1) / tau
    return tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - logits[:, 0])


def mask_attributes(attributes, uniform_class, uniform_element, probability, sigma):
    """a^ of Eq. (3): attributes [C, A], of which a share of `sigma` is zero in the chosen classes.

    Args:
        attributes: [C, A].
        uniform_class: draws from 0..1, [C]: a class is chosen with `probability`.
        uniform_element: draws from 0..1, [C, A].
        probability, sigma: 0..1.
    """
    masked = (uniform_class < probability)[:, None] & (uniform_element < sigma)
    return tf.where(masked, tf.zeros_like(attributes), attributes)


def enqueue(queue, position, keys):
    """Replaces the oldest rows of the queue [N, D], from `position` on, by keys [B, D].

    B may exceed N: then only the last N keys are kept.

    Returns:
        The queue, and the position of its oldest row.
    """
    size, count = tf.shape(queue)[0], tf.shape(keys)[0]
    kept = tf.minimum(size, count)
    first = position + count - kept
    age = tf.math.floormod(tf.range(size) - first, size)  # of the new key for each place
    new = tf.gather(keys[count - kept :], tf.minimum(age, kept - 1))
    return tf.where((age < kept)[:, None], new, queue), tf.math.floormod(position + count, size)


def ema(old, new, momentum):
    """Eq. (6)."""
    return momentum * old + (1 - momentum) * new


class Encoder(keras.layers.Layer):
    """f, and g: images [B, S, S, 3], 0 to 255, to representations [B, D]."""

    def __init__(self, config, **kwargs):
        super().__init__(autocast=False, **kwargs)  # bfloat16 cannot hold fractions of 0 to 255
        self.config = config
        self.backbone = backbones.backbone(config.backbone, None, config.image_size, config.layers)  # see load_backbone
        self.backbone.trainable = not config.freeze_backbone
        norms = [layer for layer in self.backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
        for layer in norms:
            layer.momentum = config.norm_momentum
            if config.freeze_batch_norm or config.frozen_epochs:
                layer.trainable = False  # Keras then uses the moving statistics in training too
        self.projection = keras.layers.Conv2D(config.feature_dim, 1, use_bias=False, name="projection")
        self.projection.build(self.backbone.outputs[-1].shape)
        self.norm = _normalisation(config, "norm")
        self.norm.build((None, None, None, config.feature_dim))
        self.untrained_norms = [self.norm] if config.weights else [self.norm, *norms]
        self.built = True

    def call(self, images, frozen=None, training=False):
        """`frozen`: bool [], whether the backbone has no gradient in this step; None if it has one in every step."""
        prepared = self._prepared(images)

        def last_map():
            return self._maps(prepared, training)[-1]

        # A frozen step saves the backward pass through the backbone.
        maps = last_map() if frozen is None else tf.cond(frozen, lambda: tf.stop_gradient(last_map()), last_map)
        return self._projected(maps, training)

    def with_maps(self, images):
        """Representations, and the maps [B, H, W, F] of the layers that the closed form reads, of which f is made."""
        maps = self._maps(self._prepared(images), training=False)
        return self._projected(maps[-1], training=False), maps

    def _maps(self, prepared, training):
        maps = self.backbone(prepared, training=training)
        return maps if isinstance(maps, list) else [maps]

    def _projected(self, maps, training):
        maps = tf.nn.relu(self.norm(self.projection(maps), training=training))
        return tf.reduce_mean(tf.cast(maps, tf.float32), axis=[1, 2])

    def measure(self, images):
        """Starts moving statistics that came without trained weights at those of `images`. Otherwise g, whose
        statistics follow as slowly as its weights, would normalise with statistics of no image for a long time."""
        for norm in self.untrained_norms:
            norm.momentum = 0.0
        maps = self._maps(self._prepared(images), training=not self.config.weights)
        self._projected(maps[-1], training=True)
        for norm in self.untrained_norms:
            norm.momentum = self.config.norm_momentum

    def _prepared(self, images):
        return backbones.preprocess(self.config.backbone, images, self.config.preprocessing)


class Predictor(keras.layers.Layer):
    """h^ of Eq. (4), Fig. 3: a representation [B, D] and h of its class [B, D] to the attributes [B, A]."""

    def __init__(self, config, num_attributes, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        hidden = config.hidden
        self.from_picture = _fc_blocks(config, config.feature_dim, [hidden], "from_picture")
        self.from_class = _fc_blocks(config, config.feature_dim, [hidden], "from_class")
        self.decoder = _fc_blocks(config, 2 * hidden, [hidden] * (config.blocks - 1), "decoder")
        # Linear: a ReLU would exclude negative attributes. Its outputs start with about unit norm, as embeddings have;
        # otherwise the squared error would grow with their width and outweigh all other losses for a long time.
        start = keras.initializers.VarianceScaling(1 / num_attributes)
        width = hidden if config.blocks > 1 else 2 * hidden
        self.out = dense(width, num_attributes, "out", kernel_initializer=start, dtype="float32")
        self.built = True

    def call(self, features, classes, training=False):
        both = self.from_picture(features, training=training), self.from_class(classes, training=training)
        return self.out(self.decoder(tf.concat(both, axis=1), training=training))


class DCEN(OwnBackbone):
    """Representations of images and classes, learned for the task and beyond it."""

    Config = DCENConfig
    ablations = _TABLE_3 | _TABLE_2
    losses_reported = ("instance_loss", "semantic_loss", "prediction_loss")

    def __init__(self, config, input_shape, class_embeddings, seen_mask, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, seen_mask, *args, **kwargs)
        seen, num_attributes = np.asarray(seen_mask) > 0, class_embeddings.shape[1]
        if config.triplet and seen.sum() < 2:
            raise InputError(f"seen classes: got {seen.sum()}; wanted at least 2 for a triplet")
        self.seen_classes = np.flatnonzero(seen)
        self.place_among_seen = np.cumsum(seen, dtype=np.int32) - 1
        widths = [config.hidden] * (config.blocks - 1) + [config.feature_dim]
        self.semantic = _fc_blocks(config, num_attributes, widths, "semantic")  # h
        if config.lambda2 > 0:
            self.predictor = Predictor(config, num_attributes, name="predictor")
        drawn = np.random.default_rng(self.seed).standard_normal((config.queue_size, config.feature_dim))
        drawn = keras.initializers.Constant(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
        # Every replica holds all keys, so nothing is averaged.
        shared = {"trainable": False, "aggregation": "only_first_replica"}
        self.queue = self.add_weight(shape=drawn.value.shape, initializer=drawn, name="queue", **shared)
        self.position = self.add_weight(shape=(), dtype="int32", initializer="zeros", name="position", **shared)
        self.frozen_steps = self.add_weight(shape=(), dtype="int32", initializer="zeros", name="frozen_steps", **shared)
        self._follow(momentum=0.0)

    @classmethod
    def for_benchmark(cls, benchmark, config, seed=0):
        """As in the base; the queue holds at most half the training rows: with more, an image would soon be told apart
        from its own older keys."""
        most = max(1, len(benchmark.train) // 2)
        if config.lambda1 > 0 and config.queue_size > most:
            warnings.warn(
                f"queue_size: {config.queue_size} is more than half the {len(benchmark.train)} training rows, and "
                f"images would be told apart from their own older keys; {most} are kept",
                stacklevel=2,
            )
            config = dataclasses.replace(config, queue_size=most)
        return super().for_benchmark(benchmark, config, seed)

    def adapt(self, benchmark):
        config = self.config
        load_backbone(self.backbone, config, config.layers)
        rows = np.random.default_rng(self.seed).permutation(benchmark.train)[:_MEASURED]
        self.encoder.measure(augment.plain(benchmark.take(rows), config.image_size))
        self._follow(momentum=0.0)
        self.frozen_steps.assign(config.frozen_epochs * (len(benchmark.train) // config.batch_size))

    def compile(self, optimizer=None, **kwargs):
        config = self.config
        if optimizer is None:
            optimizer = CoupledAdam(
                config.learning_rate,
                config.beta1,
                decay=config.weight_decay,
                group=self.backbone.trainable_variables,
                group_rate=config.backbone_rate,
                start=self.frozen_steps.value,
            )
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.trainable_variables)

    def schedules(self):
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: self.rate_in(epoch))]

    def rate_in(self, epoch):
        """The learning rate in an epoch, counted from 0."""
        config = self.config
        since = epoch - config.frozen_epochs if epoch >= config.frozen_epochs else epoch
        return config.learning_rate * 0.1 ** (since // config.drop_every)

    def prepare(self, image, seed):
        """Two views of an image [H, W, 3]; `seed` is two integers."""
        settings, size = self.config.view_settings(), self.config.image_size
        seeds = (tf.random.experimental.stateless_fold_in(seed, view) for view in range(2))
        return tuple(augment.view(image, one, settings, size) for one in seeds)

    def train_step(self, data):
        (first_view, second_view), labels = data
        config = self.config
        instance = prediction = tf.constant(0.0)  # in settings that leave them out
        attributes = tf.gather(self.class_embeddings.value, self.seen_classes)
        labels = tf.gather(self.place_among_seen, labels)
        if config.lambda1 > 0:
            keys = l2_normalize(self.momentum_encoder(second_view))  # g(I^v2)
        with tf.GradientTape() as tape:
            features = self.encoder(first_view, frozen=self._frozen(), training=True)  # f(I^v1)
            classes = self.semantic(self._masked(attributes), training=True)  # h(a^)
            align = triplet_loss if config.triplet else semantic_loss
            loss = semantic = align(distance(features, classes), labels)  # Eq. (3)
            if config.lambda2 > 0:
                predicted = self.predictor(features, tf.gather(classes, labels), training=True)
                unit = tf.reduce_mean(tf.reduce_sum(attributes**2, axis=1))
                prediction = prediction_loss(predicted, tf.gather(attributes, labels), config.prediction_norm, unit)
                loss += config.lambda2 * prediction  # Eq. (4)
            if config.lambda1 > 0:
                instance = info_nce(features, keys, self.queue.value, config.tau)  # Eq. (5)
                loss += config.lambda1 * instance  # Eq. (7)
        self.minimize(tape, loss, self.optimizer, self.trainable_variables)
        if config.lambda1 > 0:
            self._follow(config.momentum)  # Eq. (6)
            queue, position = enqueue(self.queue.value, self.position.value, self.gather(keys))
            self.queue.assign(queue)
            self.position.assign(position)
        return self.report(instance_loss=instance, semantic_loss=semantic, prediction_loss=prediction)

    def scores_and_pooled(self, inputs, class_embeddings):
        """The cosine of f(I) and h(a), Eq. (8), and the pooled maps of the backbone."""
        features, maps = self.encoder.with_maps(augment.plain(inputs, self.config.image_size))
        classes = self.semantic(tf.cast(class_embeddings, tf.float32))
        maps = maps if self.config.layers else maps[-1]
        return 1.0 - distance(features, classes), conditioning.pooled(maps, self.config.closed_form_pooling)

    def features(self, inputs):
        """f(I) of images [B, H, W, 3], 0 to 255: [B, D]."""
        return self.encoder(augment.plain(inputs, self.config.image_size))

    def embed(self, inputs):
        """The space of Fig. 5: {"representation": f(I)}."""
        return {"representation": self.features(inputs)}

    @property
    def backbone(self):
        return self.encoder.backbone

    @property
    def trains_backbone(self):
        return not self.config.freeze_backbone

    def _add_backbone(self):
        self.encoder = Encoder(self.config, name="encoder")  # f
        self.momentum_encoder = Encoder(self.config, name="momentum_encoder")  # g
        self.momentum_encoder.trainable = False

    def _masked(self, attributes):
        """a^ of attributes [S, A] in training; all replicas use the draws of the first."""
        if self.config.sigma == 0:
            return attributes
        shapes = attributes.shape[:1], attributes.shape
        draws = [self.gather(self.uniform(shape))[: attributes.shape[0]] for shape in shapes]
        return mask_attributes(attributes, *draws, self.config.mask_probability, self.config.sigma)

    def _frozen(self):
        """Whether the backbone is frozen in this step, bool []; None if it never is."""
        if self.config.frozen_epochs == 0:
            return None
        return tf.cast(self.optimizer.iterations.value, tf.int32) < self.frozen_steps.value

    def _follow(self, momentum):
        """Eq. (6): g's weights and moving statistics follow f's."""
        for slow, fast in zip(self.momentum_encoder.weights, self.encoder.weights, strict=True):
            slow.assign(ema(slow, fast, momentum))


def _normalisation(config, name, **kwargs):
    return keras.layers.BatchNormalization(
        momentum=config.norm_momentum, epsilon=VARIANCE_EPSILON, synchronized=True, name=name, **kwargs
    )


def _fc_blocks(config, width, widths, name):
    """Blocks of FC, batch normalisation and ReLU, [B, width] to [B, widths[-1]]; the identity if there are no widths.

    In float32 in every precision: differences between classes may be small. Without bias: the normalisation would
    cancel it.
    """
    inputs = outputs = keras.Input((width,))
    for number, wide in enumerate(widths, 1):
        outputs = keras.layers.Dense(wide, use_bias=False, dtype="float32", name=f"fc{number}")(outputs)
        outputs = _normalisation(config, f"norm{number}", dtype="float32")(outputs)
        outputs = keras.layers.ReLU(dtype="float32", name=f"relu{number}")(outputs)
    return keras.Model(inputs, outputs, name=name)
