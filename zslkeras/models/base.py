"""What every zero-shot model shares: the parts that distribution, resuming, saving and new classes make subtle.

A method is a subclass with a frozen `Config`, the networks in `__init__`, the optimizers in `compile`, the algorithm
in `train_step`, and `score_classes`, which scores any candidate classes by their embeddings.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from zslkeras.errors import InputError
from zslkeras.models import conditioning

FORMAT = 2  # of a saved `.keras` model; another number is another layout


class ZeroShotModel(keras.Model):
    """Base of all methods. Knows none of them by name.

    Class attributes:
        Config: the frozen dataclass of hyperparameters, each written once; see config.Config.
        eats: the kind of inputs: "features", "maps", "levels" or "images".
        ablations: the paper's ablation rows, name -> config overrides.
        default_seeds: how many seeds a result is the mean of by default.
        losses_reported: the names that `report` takes.
        prepare: a method without weights, run while rows are read: (input, seed [2]) -> what `train_step` gets for
            one row; None where it gets the input itself.
        paper_rule: how the paper decides between seen and unseen classes, {"gamma": added to unseen scores}, or None.
    """

    Config = None
    eats = "features"
    ablations = {}
    default_seeds = 3
    losses_reported = ()
    prepare = None
    paper_rule = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package="zslkeras")(cls)

    def __init__(self, config, input_shape, class_embeddings, seen_mask, attribute_vectors=None, seed=0, **kwargs):
        """
        Args:
            config: an instance of this class's `Config`.
            input_shape: of one row: (D,), (H, W, F), or a tuple of those.
            class_embeddings: [C, A], the classes of the stage.
            seen_mask: [C], true where a class has training rows.
            attribute_vectors: [A, V] or None.
            seed: of the noise drawn in training.
        """
        super().__init__(**kwargs)
        self.config = config
        self.row_shape = input_shape
        self.seed = seed
        self.class_embeddings = self._constant("class_embeddings", class_embeddings)
        self.seen_mask = self._constant("seen_mask", np.asarray(seen_mask, np.float32))
        self.attribute_vectors = None
        if attribute_vectors is not None:
            self.attribute_vectors = self._constant("attribute_vectors", attribute_vectors)
        # How many draws `noise` has made. It is a weight, so that a resumed run continues with the next draw.
        self.draws = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="draws",
        )
        self._add_backbone()
        self.beside = self._closed_form()
        self.trackers = {name: keras.metrics.Mean(name) for name in self.losses_reported}
        # Sub-networks are built in __init__: `fit` calls an unbuilt model symbolically, which fails under a strategy.
        self.built = True

    @classmethod
    def for_benchmark(cls, benchmark, config, seed=0):
        """A model of the stage's sizes; its fitted parts (scalers and the like) are fitted on the training rows.

        Settings that are "auto" are found here in stage "tune". In stage "final" they must be what was found there.
        """
        if found := conditioning.resolved(config, benchmark):
            config = dataclasses.replace(config, **found)
        model = cls(
            config,
            benchmark.input_shape,
            benchmark.class_embeddings,
            benchmark.seen_mask,
            benchmark.attribute_vectors,
            seed,
        )
        model.adapt(benchmark)
        if model.beside is not None:
            model.beside.fit(model.pooled_stage(benchmark))
        return model

    @classmethod
    def reads_unseen_embeddings(cls, config):
        """Whether training reads the embeddings of unseen classes (class-transductive); results report it."""
        del config
        return False

    def adapt(self, benchmark):
        """Fits what is fitted and not trained, on training rows only; the base has nothing to fit."""

    def settle(self, benchmark, read):
        """Fits what follows from the trained weights; called before each state is judged.

        Args:
            benchmark: the stage.
            read: row ids -> batches of (inputs, labels).
        """
        if self.beside is not None:
            rows, classes = conditioning.measured(benchmark), self.class_embeddings.value
            self.beside.settle(tf.concat([self.own_scores(inputs, classes) for inputs, _ in read(rows)], axis=0))

    def learn(self, run):
        """Learns the stage and hands each state worth scoring to `run`: here an epoch, in a closed form a setting."""
        run.epochs(self)

    def minimize(self, tape, loss, optimizer, variables):
        """Applies one step; gradients are averaged over replicas, not summed."""
        share = tf.constant(1.0 / self.distribute_strategy.num_replicas_in_sync, loss.dtype)
        optimizer.apply(tape.gradient(loss, variables, output_gradients=share), variables)

    def gather(self, rows):
        """The rows of all replicas, with gradient: for losses that are not means over rows."""
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return rows
        return context.all_gather(rows, axis=0)

    def noise(self, shape):
        """Standard normal draws: different at every call and on every replica, the same in a run of the same seed."""
        return tf.random.stateless_normal(shape, self._next_seed())

    def uniform(self, shape):
        """Uniform draws from 0 to 1, otherwise like `noise`."""
        return tf.random.stateless_uniform(shape, self._next_seed())

    def kept(self, shape, rate):
        """Dropout's draw: bool of this shape, false with a chance of `rate`."""
        return self.uniform(shape) >= rate

    def report(self, **losses):
        """Updates the mean of each loss and returns the means so far; the run stops at a loss that is not finite."""
        for name, loss in losses.items():
            self.trackers[name].update_state(tf.debugging.check_numerics(loss, name))
        return {name: self.trackers[name].result() for name in losses}

    def score_classes(self, inputs, class_embeddings):
        """Scores any K candidate classes, without a bias towards seen or unseen ones.

        Args:
            inputs: [B, ...] of the kind the model eats.
            class_embeddings: [K, A], of classes from training or of others.

        Returns:
            [B, K]. A class has the same score alone, in another order and among others.
        """
        if self.beside is None:
            return self.own_scores(inputs, class_embeddings)
        return self.beside(*self.scores_and_pooled(inputs, class_embeddings), class_embeddings)

    def own_scores(self, inputs, class_embeddings):
        """`score_classes` of the method alone, where a closed form may be added to it."""
        raise NotImplementedError

    def scores_and_pooled(self, inputs, class_embeddings):
        """`own_scores`, and the features [B, D] that the closed form reads."""
        return self.own_scores(inputs, class_embeddings), conditioning.pooled(inputs)

    def pooled_stage(self, benchmark):
        """The stage as the closed form reads it before training."""
        return benchmark

    @property
    def form(self):
        """(the ClosedForm in this model's scores, its factor there), or None."""
        return self.beside and (self.beside.form, self.beside.form_factor)

    def form_features(self, inputs):
        """[B, D] what the closed form compares with prototypes."""
        _, rows = self.scores_and_pooled(inputs, self.class_embeddings.value[:1])
        return self.beside.form.features(rows)

    def decide(self, scores, inputs, seen_mask, gamma):
        """Labels [B] by calibrated stacking: unseen classes get `gamma` on top; a tie goes to the seen class."""
        minus_infinity = tf.constant(float("-inf"), scores.dtype)
        seen = tf.cast(seen_mask, tf.bool)
        best_unseen = tf.where(seen, minus_infinity, scores)
        best_seen = tf.reduce_max(tf.where(seen, scores, minus_infinity), 1)
        unseen_wins = tf.reduce_max(best_unseen, 1) + gamma > best_seen
        return tf.where(unseen_wins, tf.argmax(best_unseen, 1), self.seen_answers(scores, inputs, seen_mask))

    def seen_answers(self, scores, inputs, seen_mask):
        """[B] the seen class of each row, used where gamma decides for a seen one: the class of the highest score.

        A model that knows more about its training classes may answer differently. This changes no decision for unseen.
        """
        del inputs  # for rules that look at them again
        return tf.argmax(tf.where(tf.cast(seen_mask, tf.bool), scores, scores.dtype.min), 1)

    def call(self, inputs):
        return self.score_classes(inputs, self.class_embeddings)

    def get_config(self):
        vectors = self.attribute_vectors
        return {
            "format": FORMAT,
            "config": dataclasses.asdict(self.config),
            "input_shape": self.row_shape,
            "embeddings_shape": tuple(self.class_embeddings.shape),
            "vectors_shape": None if vectors is None else tuple(vectors.shape),
            "seen_mask": keras.ops.convert_to_numpy(self.seen_mask).tolist(),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        if config.get("format") != FORMAT:
            raise InputError(f"format: got {config.get('format')!r}; wanted {FORMAT}, which this version reads")
        # The constants are restored with the weights; here only their shapes matter.
        vectors = config["vectors_shape"]
        return cls(
            cls.Config(**_tuples(config["config"])),
            _tuple(config["input_shape"]),
            np.zeros(config["embeddings_shape"], np.float32),
            config["seen_mask"],
            None if vectors is None else np.zeros(vectors, np.float32),
            config["seed"],
        )

    def get_compile_config(self):
        return {key: value for key, value in vars(self).items() if isinstance(value, keras.optimizers.Optimizer)}

    def compile_from_config(self, config):
        # `compile` makes its optimizers from the model's config, with the variables they treat apart. Only those that
        # were handed to it instead are made from what was saved. Their state is restored with the weights.
        self.compile()
        made = {key: keras.saving.serialize_keras_object(value) for key, value in self.get_compile_config().items()}
        given = {key: saved for key, saved in config.items() if _kind(saved) != _kind(made[key])}
        if given:
            self.compile(**{key: keras.saving.deserialize_keras_object(saved) for key, saved in given.items()})

    @property
    def pooled_width(self):
        """How many features the closed form reads."""
        return conditioning.pooled_width(self.row_shape)

    def _add_backbone(self):
        """Makes the layers that images go through first, for methods that read images."""

    def _closed_form(self):
        """The closed form that the config puts beside the method, or None."""
        if not conditioning.is_beside(self.config):
            return None
        seen = int(np.count_nonzero(keras.ops.convert_to_numpy(self.seen_mask)))
        return conditioning.Beside(self.config, self.pooled_width, self.class_embeddings.shape[1], seen, name="beside")

    def _next_seed(self):
        self.draws.assign_add(1)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.random.experimental.stateless_fold_in([self.seed, self.draws.value], replica)

    def _constant(self, name, value):
        value = np.asarray(value, np.float32)
        return self.add_weight(
            shape=value.shape, initializer=keras.initializers.Constant(value), trainable=False, name=name
        )


def _kind(optimizer):
    """A serialized optimizer without its name, which Keras numbers, and its rate, which is among the weights."""
    settings = {key: value for key, value in optimizer["config"].items() if key not in ("name", "learning_rate")}
    return optimizer["class_name"], settings


def _tuples(config):
    return {key: _tuple(value) for key, value in config.items()}


def _tuple(value):
    """JSON has lists where a frozen config and a shape have tuples."""
    return tuple(_tuple(item) for item in value) if isinstance(value, list | tuple) else value
