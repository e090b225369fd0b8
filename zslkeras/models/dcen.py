"""DCEN: Wang, Chen, Min, Sun and Li, Task-Independent Knowledge Makes for Transferable Representations for Generalized
Zero-Shot Learning (AAAI 2021).

Learns a backbone on two tasks at once: to bring a picture f(I) near its class h(a) and away from the most confusing
other one, and to tell each picture from all others, whatever its class, by two views of it.

    L = lambda1 L_id + L_sa + lambda2 L_sp                                Eq. (7), with Eq. (5), Eq. (3) and Eq. (4)
    class = argmax of cos(f(I), h(a)) over seen and unseen                                                   Eq. (8)

What the paper does not say, and its supplement, which is not public, may; "lineage" is later code of its authors:
- f is the backbone, a 1x1 convolution with normalisation and ReLU, and the mean over places, as in the lineage. Its
  first view is also what is aligned with the class, as in Fig. 2; h ends in f's width.
- d in Eq. (1-4) is 1 - cosine. Eq. (3) has no margin, and its classes k are the seen ones.
- Eq. (1) compares f with the attributes themselves, whose widths differ; Basic-ZSL here is Eq. (3) without its second
  term, unmasked.
- g runs on its moving statistics, which are averaged like its weights: they belong to the weights they were made with.
  Those that come with no weights start at what they are on some training pictures.
- "Data from previous batches" is a queue of MoCo's kind, with g's outputs: the paper names no head of its own.
- The lineage trains twice, with the backbone and its normalisation frozen and then with larger steps of all. Here that
  is one run of one batch size, and where there is a frozen part the backbone's normalisation stays frozen throughout.

Deviation: Eq. (4) prints a norm; `prediction_norm` "squared", the default, is the loss without its pole, "printed" the
norm. A masked element is 0, and one mask a class and step serves all rows: a triplet compares like with like.
"""

import dataclasses
import warnings

import keras
import numpy as np
import tensorflow as tf

from zslkeras.errors import InputError
from zslkeras.images import augment, backbones
from zslkeras.layers import l2_normalize
from zslkeras.models.base import ZeroShotModel

_EPSILON = 1e-5  # of the variance in every normalisation, as in most published code; Keras has 1e-3
_MEASURED = 64  # pictures that the first moving statistics are taken from
_NORM_FLOOR = 1e-12  # of the printed Eq. (4), whose gradient is infinite at zero


@dataclasses.dataclass(frozen=True)
class DCENConfig:
    """Defaults are the paper's where it speaks, for a small backbone trained from scratch."""

    lambda1: float = 0.1  # of L_id, "suitable for most cases"; 0 leaves out the visual contrastive module
    lambda2: float = 0.1  # of L_sp, to be read off Fig. 4 (b) only; 0 leaves out the prediction of attributes
    tau: float = 0.07  # in Eq. (5)
    momentum: float = 0.999  # m in Eq. (6); in fewer than some 5,000 steps g stays near its start
    blocks: int = 2  # K
    mask_probability: float = 0.5  # of a class
    sigma: float = 0.3  # share of its elements that are masked, unreadable in Fig. 6 (a); 0 leaves out the masking
    triplet: bool = True  # the second term of Eq. (3)
    views: str = "kept"  # a row of Table 2, see augment.TABLE_2
    # Not in the paper.
    prediction_norm: str = "squared"  # or "printed"
    queue_size: int = 4096  # keys; at most half the training rows, see for_benchmark
    crop_scale: tuple[float, ...] = augment.Views.crop_scale
    blur_sigma: tuple[float, ...] = augment.Views.blur_sigma
    backbone: str = backbones.SMALL
    weights: str | None = None  # "imagenet" or a file
    preprocessing: str = "own"
    image_size: int = 64
    feature_dim: int = 2048  # of f and h, as in the lineage
    hidden: int = 1024  # of h, as in the lineage, and of the prediction
    norm_momentum: float = 0.9  # of the moving statistics, as in most published code; Keras has 0.99
    learning_rate: float = 2e-4  # as in the lineage, and the next four
    beta1: float = 0.5  # of Adam
    weight_decay: float = 1e-4  # in the gradient
    drop_every: int = 30  # epochs, after which the rate is a tenth; counted anew after the frozen ones
    epochs: int = 90
    backbone_rate: float = 1.0  # times the learning rate
    frozen_epochs: int = 0  # the first ones, in which the backbone stays as it is
    freeze_backbone: bool = False  # in all of them
    freeze_batch_norm: bool = False  # of the backbone; so it is wherever one of the two above is set
    averaging: float = 0.0  # of the weights over epochs: how much each counts beside the next, see training.Run
    batch_size: int = 64
    sampler: str = "plain"
    patience: int | None = 20

    def __post_init__(self):
        choices = {
            "prediction_norm": ("squared", "printed"),
            "views": tuple(augment.TABLE_2),
            "preprocessing": backbones.PREPROCESSINGS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}; wanted one of {', '.join(allowed)}")
        for name in ("lambda1", "lambda2", "weight_decay", "backbone_rate", "frozen_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted at least 0")
        for name in ("mask_probability", "sigma", "momentum", "averaging"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted 0 to 1")
        for name in ("beta1", "norm_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted at least 0 and less than 1")
        for name in ("tau", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted more than 0")
        sizes = ("blocks", "queue_size", "image_size", "feature_dim", "hidden", "drop_every", "epochs", "batch_size")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted at least 1")
        self.view_settings()  # what it refuses is refused here

    def view_settings(self):
        row = augment.TABLE_2[self.views]
        return augment.Views(**row, crop_scale=self.crop_scale, blur_sigma=self.blur_sigma)


# The ablations: rows of Table 3, and of Table 2, whose first one does without the module that its views are for.
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


class CoupledAdam(keras.optimizers.Optimizer):
    """Adam as PyTorch computes it, by which the lineage was trained: decay is a part of the gradient.

    One group of variables has a rate of its own, and its first step after `start` steps of the others.
    """

    def __init__(self, learning_rate, beta1=0.9, beta2=0.999, decay=0.0, group=(), group_rate=1.0, start=0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.beta1, self.beta2, self.decay = beta1, beta2, decay
        self.group, self.group_rate, self.start = {id(variable) for variable in group}, group_rate, start

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._means, self._squares = self.add_optimizer_variables(variables, ["mean", "square"])
            self._in_group = [id(variable) in self.group for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        place = self._get_variable_index(variable)
        means, squares = self._means[place].value, self._squares[place].value
        rate, step = tf.cast(learning_rate, variable.dtype), tf.cast(self.iterations.value + 1, variable.dtype)
        gradient = gradient + self.decay * variable
        if self._in_group[place]:
            rate, step = rate * self.group_rate, step - tf.cast(self.start, variable.dtype)
            gradient = tf.where(step > 0, gradient, 0.0)  # moments of zero move nothing
            step = tf.maximum(step, 1.0)
        mean = self.beta1 * means + (1 - self.beta1) * gradient
        square = self.beta2 * squares + (1 - self.beta2) * tf.square(gradient)
        self.assign(means, mean)
        self.assign(squares, square)
        spread = tf.sqrt(square / (1 - self.beta2**step)) + 1e-8
        self.assign_sub(variable, rate * mean / (1 - self.beta1**step) / spread)


def distance(features, classes):
    """d of Eq. (3): 1 - cosine of features [B, D] and classes [K, D], -> [B, K]."""
    return 1.0 - tf.matmul(l2_normalize(features), l2_normalize(classes), transpose_b=True)


def semantic_loss(distances, labels):
    """L_zsl, Eq. (1): the mean distance of rows to their own class; distances [B, S], labels [B] number its columns."""
    return tf.reduce_mean(tf.gather(distances, labels, batch_dims=1))


def triplet_loss(distances, labels):
    """L_sa, Eq. (3): `semantic_loss` minus the mean distance to the nearest other class."""
    own = tf.one_hot(labels, tf.shape(distances)[1], on_value=True, off_value=False)
    others = tf.where(own, distances.dtype.max, distances)
    return semantic_loss(distances, labels) - tf.reduce_mean(tf.reduce_min(others, axis=1))


def prediction_loss(predicted, attributes, norm="squared"):
    """L_sp, Eq. (4): the mean over rows [B, A] of the norm of what is missed, or of its square."""
    squares = tf.reduce_sum(tf.square(predicted - attributes), axis=1)
    return tf.reduce_mean(squares if norm == "squared" else tf.sqrt(tf.maximum(squares, _NORM_FLOOR**2)))


def info_nce(queries, keys, queue, tau):
    """L_id, Eq. (5): the mean over rows of -log of the share that a row's own key has among it and the queue.

    Args:
        queries: f of first views, [B, D].
        keys: g of second views of the same pictures, [B, D].
        queue: g of other pictures, [N, D]; N may be 0.
        tau: the temperature of the cosines.
    """
    queries = l2_normalize(queries)
    positive = tf.reduce_sum(queries * l2_normalize(keys), axis=1, keepdims=True)
    logits = tf.concat([positive, tf.matmul(queries, l2_normalize(queue), transpose_b=True)], axis=1) / tau
    return tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - logits[:, 0])


def mask_attributes(attributes, uniform_class, uniform_element, probability, sigma):
    """a^ of Eq. (3): attributes [C, A] with a share of `sigma` at zero in the classes that are chosen.

    Args:
        attributes: [C, A].
        uniform_class: draws from 0..1, [C]: a class is chosen by `probability`.
        uniform_element: draws from 0..1, [C, A].
        probability, sigma: 0..1.
    """
    masked = (uniform_class < probability)[:, None] & (uniform_element < sigma)
    return tf.where(masked, tf.zeros_like(attributes), attributes)


def enqueue(queue, position, keys):
    """The queue [N, D] with keys [B, D] in place of its oldest, the next of which is at `position`; and the new place.

    Any B and N do; of more keys than the queue holds the last stay.
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
    """f, and g: pictures [B, S, S, 3], 0 to 255, to representations [B, D]."""

    def __init__(self, config, **kwargs):
        super().__init__(autocast=False, **kwargs)  # bfloat16 has no place for the fractions of 0 to 255
        self.config = config
        # Without weights: those of a saved model come with it, others by DCEN.adapt.
        self.backbone = backbones.backbone(config.backbone, None, config.image_size)
        self.backbone.trainable = not config.freeze_backbone
        norms = [layer for layer in self.backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
        for layer in norms:
            layer.momentum = config.norm_momentum
            if config.freeze_batch_norm or config.frozen_epochs:
                layer.trainable = False  # for Keras: its moving statistics in training too
        self.projection = keras.layers.Conv2D(config.feature_dim, 1, use_bias=False, name="projection")
        self.projection.build(self.backbone.output_shape)
        self.norm = _normalisation(config, "norm")
        self.norm.build((None, None, None, config.feature_dim))
        self.untrained_norms = [self.norm] if config.weights else [self.norm, *norms]
        self.built = True

    def call(self, pictures, frozen=None, training=False):
        """`frozen`: bool [], whether the backbone is left without gradient in this step; None if it is in none."""
        prepared = self._prepared(pictures)

        def looked_at():
            return self.backbone(prepared, training=training)

        # A frozen step is spared the way back through the backbone.
        maps = looked_at() if frozen is None else tf.cond(frozen, lambda: tf.stop_gradient(looked_at()), looked_at)
        return self._projected(maps, training)

    def measure(self, pictures):
        """Starts moving statistics that came with no weights at those of `pictures`. Else g, whose statistics follow
        as slowly as its weights, would see through those of no picture for long."""
        for norm in self.untrained_norms:
            norm.momentum = 0.0
        maps = self.backbone(self._prepared(pictures), training=not self.config.weights)
        self._projected(maps, training=True)
        for norm in self.untrained_norms:
            norm.momentum = self.config.norm_momentum

    def _prepared(self, pictures):
        return backbones.preprocess(self.config.backbone, pictures, self.config.preprocessing)

    def _projected(self, maps, training):
        maps = tf.nn.relu(self.norm(self.projection(maps), training=training))
        return tf.reduce_mean(tf.cast(maps, tf.float32), axis=[1, 2])


class Predictor(keras.layers.Layer):
    """h^ of Eq. (4), Fig. 3: a representation [B, D] and h of its class [B, D] to its attributes [B, A]."""

    def __init__(self, config, num_attributes, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        hidden = config.hidden
        self.from_picture = _fc_blocks(config, config.feature_dim, [hidden], "from_picture")
        self.from_class = _fc_blocks(config, config.feature_dim, [hidden], "from_class")
        self.decoder = _fc_blocks(config, 2 * hidden, [hidden] * (config.blocks - 1), "decoder")
        # Linear: a ReLU would forbid negative attributes. It starts about as long as embeddings of unit norm are; else
        # the square of what is missed would grow with their width, and outweigh all other losses for long.
        start = keras.initializers.VarianceScaling(1 / num_attributes)
        self.out = keras.layers.Dense(num_attributes, kernel_initializer=start, dtype="float32", name="out")
        self.out.build((None, hidden if config.blocks > 1 else 2 * hidden))
        self.built = True

    def call(self, features, classes, training=False):
        both = self.from_picture(features, training=training), self.from_class(classes, training=training)
        return self.out(self.decoder(tf.concat(both, axis=1), training=training))


class DCEN(ZeroShotModel):
    """Representations of pictures, and of classes, that know their task and more than their task."""

    Config = DCENConfig
    eats = "images"
    ablations = _TABLE_3 | _TABLE_2
    losses_reported = ("instance_loss", "semantic_loss", "prediction_loss")

    def __init__(self, config, input_shape, class_embeddings, seen_mask, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, seen_mask, *args, **kwargs)
        seen, num_attributes = np.asarray(seen_mask) > 0, class_embeddings.shape[1]
        if config.triplet and seen.sum() < 2:
            raise InputError(f"seen classes: got {seen.sum()}; wanted at least 2 for a triplet")
        self.seen_classes = np.flatnonzero(seen)
        self.place_among_seen = np.cumsum(seen, dtype=np.int32) - 1
        self.encoder = Encoder(config, name="encoder")  # f
        self.momentum_encoder = Encoder(config, name="momentum_encoder")  # g
        self.momentum_encoder.trainable = False
        widths = [config.hidden] * (config.blocks - 1) + [config.feature_dim]
        self.semantic = _fc_blocks(config, num_attributes, widths, "semantic")  # h
        if config.lambda2 > 0:
            self.predictor = Predictor(config, num_attributes, name="predictor")
        drawn = np.random.default_rng(self.seed).standard_normal((config.queue_size, config.feature_dim))
        drawn = keras.initializers.Constant(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
        # Every replica holds all keys: nothing is to be averaged.
        shared = {"trainable": False, "aggregation": "only_first_replica"}
        self.queue = self.add_weight(shape=drawn.value.shape, initializer=drawn, name="queue", **shared)
        self.position = self.add_weight(shape=(), dtype="int32", initializer="zeros", name="position", **shared)
        self.frozen_steps = self.add_weight(shape=(), dtype="int32", initializer="zeros", name="frozen_steps", **shared)
        self._follow(momentum=0.0)

    @classmethod
    def for_benchmark(cls, benchmark, config, seed=0):
        """As of the base; the queue holds no more than half the training rows: with more, a picture would soon be told
        apart from its own older keys."""
        most = max(1, len(benchmark.train) // 2)
        if config.lambda1 > 0 and config.queue_size > most:
            warnings.warn(
                f"queue_size: {config.queue_size} is more than half the {len(benchmark.train)} training rows, and "
                f"pictures would be told apart from their own older keys; {most} are kept",
                stacklevel=2,
            )
            config = dataclasses.replace(config, queue_size=most)
        return super().for_benchmark(benchmark, config, seed)

    def adapt(self, benchmark):
        config = self.config
        if config.weights:
            trained = backbones.backbone(config.backbone, config.weights, config.image_size)
            self.encoder.backbone.set_weights(trained.get_weights())
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
                group=self.encoder.backbone.trainable_variables,
                group_rate=config.backbone_rate,
                start=self.frozen_steps.value,
            )
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.trainable_variables)

    def learn(self, run):
        run.callbacks.append(keras.callbacks.LearningRateScheduler(lambda epoch, rate: self.rate_in(epoch)))
        run.epochs(self)

    def rate_in(self, epoch):
        """The learning rate in an epoch, counted from 0."""
        config = self.config
        since = epoch - config.frozen_epochs if epoch >= config.frozen_epochs else epoch
        return config.learning_rate * 0.1 ** (since // config.drop_every)

    def prepare(self, picture, seed):
        """Two views of a picture [H, W, 3]; `seed` is two integers."""
        settings, size = self.config.view_settings(), self.config.image_size
        seeds = (tf.random.experimental.stateless_fold_in(seed, view) for view in range(2))
        return tuple(augment.view(picture, one, settings, size) for one in seeds)

    def train_step(self, data):
        (first_view, second_view), labels = data
        config = self.config
        instance = prediction = tf.constant(0.0)  # for what leaves them out
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
                prediction = prediction_loss(predicted, tf.gather(attributes, labels), config.prediction_norm)
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

    def score_classes(self, inputs, class_embeddings):
        """The cosine of f(I) and h(a), Eq. (8)."""
        return 1.0 - distance(self.features(inputs), self.semantic(tf.cast(class_embeddings, tf.float32)))

    def features(self, inputs):
        """f(I) of pictures [B, H, W, 3], 0 to 255: [B, D]."""
        return self.encoder(augment.plain(inputs, self.config.image_size))

    def embed(self, inputs):
        """The space of Fig. 5: {"representation": f(I)}."""
        return {"representation": self.features(inputs)}

    def _masked(self, attributes):
        """a^ of attributes [S, A], while training; the same on all replicas, by the draws of the first."""
        if self.config.sigma == 0:
            return attributes
        shapes = attributes.shape[:1], attributes.shape
        draws = [self.gather(self.uniform(shape))[: len(attributes)] for shape in shapes]
        return mask_attributes(attributes, *draws, self.config.mask_probability, self.config.sigma)

    def _frozen(self):
        if self.config.frozen_epochs == 0:
            return None
        return tf.cast(self.optimizer.iterations.value, tf.int32) < self.frozen_steps.value

    def _follow(self, momentum):
        """Eq. (6): g's weights and moving statistics follow f's."""
        for slow, fast in zip(self.momentum_encoder.weights, self.encoder.weights, strict=True):
            slow.assign(ema(slow, fast, momentum))


def _normalisation(config, name, **kwargs):
    return keras.layers.BatchNormalization(
        momentum=config.norm_momentum, epsilon=_EPSILON, synchronized=True, name=name, **kwargs
    )


def _fc_blocks(config, width, widths, name):
    """Blocks of FC, batch normalisation and ReLU, [B, width] to [B, widths[-1]]; without any, what they are given.

    In float32 whatever the model computes in: what differs between classes may be small. No bias: the normalisation
    would take it away.
    """
    inputs = outputs = keras.Input((width,))
    for number, wide in enumerate(widths, 1):
        outputs = keras.layers.Dense(wide, use_bias=False, dtype="float32", name=f"fc{number}")(outputs)
        outputs = _normalisation(config, f"norm{number}", dtype="float32")(outputs)
        outputs = keras.layers.ReLU(dtype="float32", name=f"relu{number}")(outputs)
    return keras.Model(inputs, outputs, name=name)
