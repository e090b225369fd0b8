"""What every zero-shot model shares: the parts that distribution, resuming, saving and new classes make subtle.

A method is a subclass with a frozen `Config`, the networks in `__init__`, the optimizers in `compile`, the algorithm
in `train_step`, and `score_classes`, which scores any candidate classes by their embeddings.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from zslkeras.errors import InputError
from zslkeras.models import conditioning, rows
from zslkeras.models.epochs import EndOfEpoch
from zslkeras.precision import computing_in

FORMAT = 2  # of a saved `.keras` model; another number is another layout
# Options of Keras' `compile` that are saved where they are not as usual.
_COMPILED = {"metrics": None, "weighted_metrics": None, "run_eagerly": False, "steps_per_execution": 1}


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
        keras.saving.register_keras_serializable(package=cls.__module__.partition(".")[0])(cls)

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
        self.right = keras.metrics.Mean("accuracy_at_gamma_0")
        self._is_learned = False  # see `require_learned`
        # Sub-networks are built in __init__: `fit` calls an unbuilt model symbolically, which fails under a strategy.
        self.built = True

    @classmethod
    def for_benchmark(cls, benchmark, config, seed=0):
        """A model of the stage's sizes; its fitted parts (scalers and the like) are fitted on the training rows.

        Settings that are "auto" are found here in stage "tune". In stage "final" they must be what was found there. The
        weight of a closed form is not: it is chosen with the state, and until then the config's `first_weight`.
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

    @property
    def settles_on_all_rows(self):
        """Whether `settle` reads all training rows, and not `conditioning.measured` alone."""
        return False

    def schedules(self):
        """Keras callbacks that change learning rates from epoch to epoch."""
        return []

    @property
    def averaged_variables(self):
        """The variables that are judged in their mean over epochs: those with a fraction, if the config sets
        `averaging`. The judged state then varies less than the trained one."""
        if not getattr(self.config, "averaging", 0.0):
            return []
        return [variable for variable in self.variables if "float" in variable.dtype]  # a counter has no mean

    def averaged(self, mean, states):
        """The mean of `averaged_variables` over the ends of all epochs so far, where each counts `averaging` times as
        much as the next.

        Args:
            mean: what this returned at the end of the epoch before; [] in the first.
            states: how many states were judged before this one.
        """
        trained = [np.array(keras.ops.convert_to_numpy(variable)) for variable in self.averaged_variables]
        if not trained:
            return []
        weight = 1.0 / sum(self.config.averaging**age for age in range(states + 1))
        return [m + weight * (new - m) for m, new in zip(mean or trained, trained, strict=True)]

    def learn(self, run):
        """Learns the stage and hands each state worth scoring to `run`: here an epoch, in a closed form a setting."""
        run.epochs(self)

    def compile(self, *args, loss=None, **kwargs):
        if loss is not None:
            raise InputError(f"loss: got {loss!r}; wanted none: {type(self).__name__} has losses of its own")
        kwargs.setdefault("jit_compile", False)  # as in the training loop; Keras would use XLA on a GPU
        super().compile(*args, **kwargs)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **options):
        """Keras' `fit`, with what belongs to the method: its rates by epoch, and averaged weights.

        It has no validation classes to choose on: `zslkeras.fit` chooses the epoch and gamma. A closed form beside the
        method has to be fitted, as `for_benchmark` does.

        Args:
            x, y: arrays of what the model eats and class ids [N]; or a tf.data.Dataset or a PyDataset of batches
                (inputs, labels) alone, which is read once more where there is a closed form beside the method.
            batch_size: of arrays; None for the config's.
            epochs, verbose, callbacks, **options: as of Keras. Its weights of rows and classes are refused.

        Returns:
            Keras' History.
        """
        x, y, options = rows.given(self, x, y, options)
        if batch_size is None and not rows.in_batches(x):
            batch_size = self.config.batch_size
        stage = None
        if self.beside is not None:
            self.require_learned()
            most = None if self.settles_on_all_rows else conditioning.MEASURED
            stage = rows.stage(self, x, y, options.get("steps_per_epoch"), most)
        if self.prepare is not None:
            x, y, batch_size = rows.prepared(self, x, y, batch_size, options["shuffle"]), None, None
            options["shuffle"] = False
        own = [*self.schedules(), EndOfEpoch(stage)]
        given = keras.tree.flatten(callbacks) if callbacks else []
        return super().fit(x, y, batch_size, epochs, verbose, [*own, *given], **options)

    def test_step(self, data):
        """The share of rows that are right among all classes of the stage at gamma 0, and the metrics of `compile`."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if labels is None:
            raise InputError("y: got none; wanted the class id of each row")
        scores = self(inputs, training=False)
        answers = self.decide(scores, inputs, self.seen_mask.value, 0.0)
        self.right.update_state(answers == tf.cast(labels, answers.dtype), weights)
        results = self.compute_metrics(inputs, labels, scores, weights)
        of_training = {"loss", *self.trackers}
        return {name: result for name, result in results.items() if name not in of_training}

    def require_learned(self):
        """Refuses to score before what is solved in closed form was; in a function, while the function is traced."""
        if self._is_learned:
            return
        with tf.init_scope():
            if not tf.executing_eagerly():
                return
            self._is_learned = all(keras.ops.convert_to_numpy(weight).any() for weight in self._solved())
        if not self._is_learned:
            name = type(self).__name__
            raise InputError(f"{name}: has learned nothing to score with; wanted {self._how_to_learn()} first")

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

    def dropped(self, units, rate):
        """Dropout of training: units with a chance of `rate` to become 0, and the others larger by 1 / (1 - rate)."""
        return units * tf.cast(self.kept(tf.shape(units), rate), units.dtype) / (1 - rate) if rate else units

    def drawn(self, number, of):
        """So many different ones of `of` numbers from 0: others at every call, the same on every replica."""
        return tf.random.experimental.stateless_shuffle(tf.range(of), self._next_seed(for_all=True))[:number]

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
        self.require_learned()
        return self.beside(*self.scores_and_pooled(inputs, class_embeddings), class_embeddings)

    def scores_by_weight(self, inputs, class_embeddings):
        """`score_classes` for each weight that the closed form may have, [W, B, K]; without one, W is 1."""
        if self.beside is None:
            return self.score_classes(inputs, class_embeddings)[None]
        self.require_learned()
        return self.beside.each(*self.scores_and_pooled(inputs, class_embeddings), class_embeddings)

    def own_scores(self, inputs, class_embeddings):
        """`score_classes` of the method alone, where a closed form may be added to it."""
        raise NotImplementedError

    def scores_and_pooled(self, inputs, class_embeddings):
        """`own_scores`, and the features [B, D] that the closed form reads."""
        return self.own_scores(inputs, class_embeddings), conditioning.pooled(inputs, self.config.closed_form_pooling)

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
        """[B] the class of each row where gamma decides for a seen one: the seen class of the highest score.

        Scores [W, B, C] of several weights of a closed form give [W, B].

        A model that knows more about its training classes may answer differently. This changes no decision for unseen.
        """
        del inputs  # for rules that look at them again
        return tf.argmax(tf.where(tf.cast(seen_mask, tf.bool), scores, scores.dtype.min), -1)

    def __call__(self, *args, **kwargs):
        self.require_learned()  # Keras would wrap what `call` raises in a page of text
        return super().__call__(*args, **kwargs)

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
            "precision": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config):
        if config.get("format") != FORMAT:
            raise InputError(f"format: got {config.get('format')!r}; wanted {FORMAT}, which this version reads")
        # The constants are restored with the weights; here only their shapes matter.
        vectors = config["vectors_shape"]
        with computing_in(config.get("precision", keras.config.dtype_policy())):  # not in models of version 0.2
            return cls(
                cls.Config(**_tuples(config["config"])),
                _tuple(config["input_shape"]),
                np.zeros(config["embeddings_shape"], np.float32),
                config["seen_mask"],
                None if vectors is None else np.zeros(vectors, np.float32),
                config["seed"],
            )

    def get_compile_config(self):
        options = super().get_compile_config() or {}
        options = {key: options[key] for key, usual in _COMPILED.items() if options.get(key, usual) != usual}
        optimizers = {key: value for key, value in vars(self).items() if isinstance(value, keras.optimizers.Optimizer)}
        return options | optimizers

    def compile_from_config(self, config):
        # `compile` makes its optimizers from the model's config, with the variables they treat apart. Only those that
        # were handed to it instead are made from what was saved. Their state is restored with the weights.
        options = {key: keras.saving.deserialize_keras_object(config[key]) for key in _COMPILED.keys() & config.keys()}
        self.compile(**options)
        made = {key: keras.saving.serialize_keras_object(value) for key, value in self.get_compile_config().items()}
        saved = {key: value for key, value in config.items() if key not in _COMPILED}
        given = {key: value for key, value in saved.items() if _kind(value) != _kind(made[key])}
        if given:
            given = {key: keras.saving.deserialize_keras_object(value) for key, value in given.items()}
            self.compile(**given, **options)

    @property
    def pooled_width(self):
        """How many features the closed form reads."""
        return conditioning.pooled_width(self.row_shape, self.config.closed_form_pooling)

    def _solved(self):
        """Weights that are zero until a closed form is solved. Not kept: Keras would save a kept list once more."""
        return [] if self.beside is None else [self.beside.form.matrix]

    def _how_to_learn(self):
        """What to call so that `_solved` are solved."""
        return f"{type(self).__name__}.for_benchmark(benchmark, config), which fits its closed form,"

    def _add_backbone(self):
        """Makes the layers that images go through first, for methods that read images."""

    def _closed_form(self):
        """The closed form that the config puts beside the method, or None."""
        if not conditioning.is_beside(self.config):
            return None
        seen = int(np.count_nonzero(keras.ops.convert_to_numpy(self.seen_mask)))
        return conditioning.Beside(self.config, self.pooled_width, self.class_embeddings.shape[1], seen, name="beside")

    def _next_seed(self, for_all=False):
        """Of the next draw on this replica, or on all replicas alike."""
        self.draws.assign_add(1)
        replica = -1 if for_all else tf.distribute.get_replica_context().replica_id_in_sync_group
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
