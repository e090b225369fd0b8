"""Prototypes in closed form: the space in which features are compared, and a map from class embeddings to it.

Seconds of work, and hard to beat. `prototypes` is this as a model of its own; other models add its scores to theirs,
and take their scalings from what is best for it: `probe`.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json

import keras
import numpy as np
import tensorflow as tf

from zslkeras import atomic, cache
from zslkeras.errors import InputError
from zslkeras.evaluation import metrics
from zslkeras.models.config import Config, setting
from zslkeras.models.layers import FeatureScaling, Whitening, add_rows, l2_normalize
from zslkeras.names import AUTO, SCALINGS

_ROWS = 2048  # rows brought into the space at a time
_PREFIX = "closed_form_"  # of a Setting's parts in a config
WEIGHT = "closed_form"  # the name of a setting, and of a column of histories
WEIGHTS = (0.5, 1.0, 2.0, 4.0, 8.0)  # of which stage tune chooses
MEASURED = 256  # rows whose scores tell their spread
_WIDEST = 3000  # features with deviations that `probe` tries: a whitening of more takes minutes
MEAN, MEAN_STD = POOLINGS = ("mean", "mean_std")  # of maps over places: their mean, or their standard deviation too


@dataclasses.dataclass(frozen=True)
class Setting:
    """What `ClosedForm` is fitted with.

    Attributes:
        scaling: of features, one of SCALINGS.
        whitening: shrinkage of `Whitening` after it; 0 is none.
        embedding_scaling: of class embeddings, one of SCALINGS.
        kernel: width of the Gaussian kernel between class embeddings, in medians of the squared distances of the seen
            ones; 0 is the linear kernel, their inner products.
        ridge: lambda of the regression.
        pooling: of maps, one of POOLINGS.
    """

    scaling: str
    whitening: float
    embedding_scaling: str
    kernel: float
    ridge: float
    pooling: str = MEAN

    @property
    def space(self):
        """What the space of the features depends on."""
        return self.pooling, self.scaling, self.whitening


def settings(scalings, whitenings, embedding_scalings, kernels, ridges):
    """Every combination, in the order that `ClosedForm.fit` is fast at."""
    return [Setting(*one) for one in itertools.product(scalings, whitenings, embedding_scalings, kernels, ridges)]


# What `probe` chooses from: the scalings that were best somewhere, and none that was best nowhere.
PROBED = settings(
    ("centred_l2", "standard", "root_centred_l2", "root_standard"),
    (0.1, 1.0, 8.0),
    ("l2", "centred_l2"),
    (0.0, 2.0, 5.0),
    (1e-3, 1e-2, 1e-1, 0.3),
)


class ClosedForm(keras.layers.Layer):
    """Prototypes of classes by kernel ridge regression, in a whitened space, compared by cosine.

        M = mean over the images of a class of x / |x|, x whitened                    [S, D]
        P = k(A_K, A_S) (k(A_S, A_S) + lambda I)^-1 M, rows of unit length            [K, D]

    with A_S the scaled embeddings of the seen classes, A_K those of any K classes, and k(a, b) = a'b, or a Gaussian.
    """

    def __init__(self, width, attributes, seen, dtype="float32", **kwargs):
        """
        Args:
            width: D.
            attributes: width of class embeddings.
            seen: how many seen classes there are, S.
            dtype: float32 in every model: cosines of prototypes differ little.
        """
        super().__init__(dtype=dtype, **kwargs)
        self.scaling = FeatureScaling(width, name="scaling")
        self.whitening = Whitening(width, name="whitening")
        self.embedding_scaling = FeatureScaling(attributes, name="embedding_scaling")
        state = {"initializer": "zeros", "trainable": False}
        self.centres = self.add_weight(shape=(seen, attributes), name="centres", **state)  # A_S
        self.kernel_width = self.add_weight(shape=(), name="kernel_width", **state)  # 0: linear
        self.matrix = self.add_weight(shape=(seen, width), name="matrix", **state)  # (k + lambda I)^-1 M
        self.built = True

    @classmethod
    def for_benchmark(cls, benchmark, pooling=MEAN):
        """One of the sizes of a stage, not fitted."""
        attributes = benchmark.class_embeddings.shape[1]
        return cls(pooled_width(benchmark.input_shape, pooling), attributes, len(benchmark.seen_classes))

    def fit(self, settings, benchmark, take):
        """Fits each of `settings` in turn on the training rows, and yields it while the layer holds it.

        Args:
            settings: list of Setting. What is equal in neighbours is fitted once.
            benchmark: the stage.
            take: row ids -> [n, D].
        """
        rows, labels = benchmark.train, benchmark.labels[benchmark.train]
        scaled = lambda some: self.scaling(np.asarray(take(some), np.float32))  # noqa: E731
        last = Setting(None, None, None, None, None)
        for one in settings:
            if new_scaling := one.scaling != last.scaling:
                self.scaling.fit(one.scaling, take, rows)
                scatter = self.whitening.scatter(scaled, rows, labels)
            if new_scaling or one.whitening != last.whitening:
                self.whitening.set(scatter, one.whitening)
                means = self._class_means(take, rows, labels, benchmark.seen_classes)
            if one.embedding_scaling != last.embedding_scaling:
                self.embedding_scaling.fit_classes(one.embedding_scaling, benchmark)
                self.centres.assign(self.embedding_scaling(benchmark.class_embeddings[benchmark.seen_classes]))
                distances = np.asarray(_squared_distances(self.centres, self.centres))
            if (one.embedding_scaling, one.kernel) != (last.embedding_scaling, last.kernel):
                between = np.median(distances[np.triu_indices(len(distances), 1)]) if one.kernel else 0.0
                self.kernel_width.assign(one.kernel * between)
                kernel = np.asarray(self._kernel(self.centres), np.float64)
            self.matrix.assign(np.linalg.solve(kernel + one.ridge * np.eye(len(kernel)), means))
            last = one
            yield one

    def features(self, inputs):
        """[B, D] in the space, of unit length."""
        return self.whitening(self.scaling(tf.cast(inputs, tf.float32)))

    def prototypes(self, class_embeddings):
        """[K, D] of unit length."""
        return l2_normalize(self._kernel(self.embedding_scaling(class_embeddings)) @ self.matrix)

    def call(self, inputs, class_embeddings):
        """The cosine [B, K] of rows and prototypes."""
        return self.compare(self.features(inputs), class_embeddings)

    def compare(self, features, class_embeddings):
        """`call` for rows that are in the space already: what differs between settings with the same space."""
        return tf.matmul(features, self.prototypes(class_embeddings), transpose_b=True)

    def _kernel(self, classes):
        """k(classes, A_S): [K, S]."""
        width = tf.convert_to_tensor(self.kernel_width)
        gaussian = tf.exp(-_squared_distances(classes, self.centres) / tf.where(width > 0, width, 1.0))
        return tf.where(width > 0, gaussian, tf.matmul(classes, self.centres, transpose_b=True))

    def _class_means(self, take, rows, labels, seen_classes):
        sums, places = np.zeros((len(seen_classes), self.matrix.shape[1])), np.searchsorted(seen_classes, labels)
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            add_rows(sums, places[part], np.asarray(self.features(np.asarray(take(rows[part]), np.float32))))
        return sums / np.bincount(places, minlength=len(seen_classes))[:, None]


def _squared_distances(one, other):
    """[K, S], at least 0."""
    lengths = tf.reduce_sum(one**2, axis=1, keepdims=True) + tf.reduce_sum(other**2, axis=1)
    return tf.maximum(lengths - 2 * tf.matmul(one, other, transpose_b=True), 0.0)


def pooled(inputs, pooling=MEAN):
    """Features [B, D] as they are; of maps the mean over places, and with MEAN_STD the standard deviation too, each of
    unit length; of levels such features, of unit length, in a row.
    """
    if isinstance(inputs, tuple | list):
        return tf.concat([l2_normalize(pooled(maps, pooling)) for maps in inputs], axis=1)
    inputs = tf.cast(inputs, tf.float32)
    if inputs.shape.rank == 2:
        return inputs
    mean = tf.reduce_mean(inputs, axis=[1, 2])
    if pooling != MEAN_STD:
        return mean
    return tf.concat([l2_normalize(mean), l2_normalize(tf.math.reduce_std(inputs, axis=[1, 2]))], axis=1)


def pooled_width(input_shape, pooling=MEAN):
    """D of `pooled` for rows of this shape."""
    if isinstance(input_shape[0], tuple):
        return sum(pooled_width(shape, pooling) for shape in input_shape)
    return input_shape[-1] * (2 if pooling == MEAN_STD and len(input_shape) > 1 else 1)


def pooled_rows(benchmark, rows, pooling=MEAN):
    """`take` of pooled features, which are made once for `rows`: maps are too large to be read again and again."""
    table = np.zeros((len(rows), pooled_width(benchmark.input_shape, pooling)), np.float32)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        table[part] = pooled(benchmark.take(rows[part]), pooling)
    places = np.full(len(benchmark.labels), -1)
    places[rows] = np.arange(len(rows))
    return lambda some: table[places[some]]


def probe(benchmark):
    """The Setting of the closed form that has the highest AUSUC on the validation classes of stage "tune".

    The standard deviation of maps is tried where the scaling or the whitening is the one that is best for their mean
    alone: features are twice as wide with it, and a whitening takes most of the time.

    It is kept in the user's cache: all models on the same inputs ask for it, with every seed and in every trial.
    """
    if benchmark.stage != "tune":
        wanted = "what conditioning.resolved finds in stage tune"
        raise InputError(f"config: has {AUTO} in stage {benchmark.stage}; wanted {wanted}")
    rows = np.concatenate([benchmark.train, benchmark.tested])
    take = pooled_rows(benchmark, rows)
    path = _kept(benchmark, rows, take)
    if path is not None and path.exists():
        with contextlib.suppress(InputError, TypeError):  # damaged: it is found again
            return Setting(**atomic.read_json(path))
    best, area = _best(PROBED, benchmark, take)
    if benchmark.kind != "features" and pooled_width(benchmark.input_shape, MEAN_STD) <= _WIDEST:
        near = [one for one in PROBED if best.scaling == one.scaling or best.whitening == one.whitening]
        wide = [dataclasses.replace(one, pooling=MEAN_STD) for one in near]
        other, other_area = _best(wide, benchmark, pooled_rows(benchmark, rows, MEAN_STD))
        best = other if other_area > area else best
    if path is not None:
        with atomic.replacing(path) as draft:  # several processes may write it at once
            draft.write_text(json.dumps(dataclasses.asdict(best)))
    return best


def _kept(benchmark, rows, take):
    """The file for what `probe` finds, named by all that it depends on; None where there is no cache."""
    folder = cache.of_this_code("probed")
    if folder is None:
        return None
    made_by = PROBED, benchmark.kind, tf.__version__, tf.config.list_physical_devices("GPU")
    hasher = hashlib.sha256(repr(made_by).encode())
    for array in (take(rows), benchmark.labels[rows], benchmark.class_embeddings, benchmark.seen_mask, benchmark.train):
        hasher.update(np.ascontiguousarray(array))
    return folder / f"{hasher.hexdigest()[:24]}.json"


def _best(settings, benchmark, take):
    """The best of settings with the same pooling, and its AUSUC."""
    form, tested = ClosedForm.for_benchmark(benchmark, settings[0].pooling), benchmark.tested
    labels, classes = benchmark.labels[tested], benchmark.class_embeddings
    best, highest, space = None, -np.inf, None
    for one in form.fit(settings, benchmark, take):
        if space != one.space:
            features, space = form.features(take(tested)), one.space
        scores = form.compare(features, classes).numpy()
        area = metrics.evaluate(scores, labels, benchmark.seen_classes, benchmark.unseen_classes)["AUSUC"]
        if area > highest:
            best, highest = one, area
    return best, highest


@dataclasses.dataclass(frozen=True)
class BesideConfig(Config):
    """The settings of a model that may have a closed form beside it.

    Attributes:
        first_weight: of the closed form where "auto" has nothing to choose on.
    """

    first_weight = 2.0
    # Neither in a paper nor in released code: the weight of the closed form's scores; 0 is the method alone. "auto" is
    # that of WEIGHTS which is best on the validation classes, chosen together with the state.
    closed_form: float = setting(AUTO, least=0, auto=True)
    closed_form_scaling: str = setting(AUTO, choices=SCALINGS, auto=True)
    closed_form_whitening: float = setting(AUTO, least=0, auto=True)
    closed_form_embedding_scaling: str = setting(AUTO, choices=SCALINGS, auto=True)
    closed_form_kernel: float = setting(AUTO, least=0, auto=True)
    closed_form_ridge: float = setting(AUTO, above=0, auto=True)
    closed_form_pooling: str = setting(AUTO, choices=POOLINGS, auto=True)

    def pooled_stage(self, benchmark):
        """The stage as the closed form reads it before training; without images, if it has any."""
        return benchmark


def is_beside(config):
    """Whether a config puts a closed form beside its model."""
    weight = getattr(config, WEIGHT, 0.0)
    return weight == AUTO or weight > 0


def weights(config):
    """The weights that a closed form may have beside its model; none where it has none."""
    if not is_beside(config):
        return ()
    weight, first = getattr(config, WEIGHT), config.first_weight
    return (first, *(one for one in WEIGHTS if one != first)) if weight == AUTO else (weight,)


def automatic(config):
    """The names of the settings that are "auto", have a meaning, and are found before anything is trained."""
    names = [field.name for field in dataclasses.fields(config) if getattr(config, field.name) == AUTO]
    return [name for name in names if name != WEIGHT and (is_beside(config) or not name.startswith(_PREFIX))]


def resolved(config, benchmark):
    """{setting: value} for each of `automatic`: by the benchmark alone, or what `probe` chooses in stage "tune"."""
    known = config.known(benchmark)
    config = dataclasses.replace(config, **known)
    if benchmark.kind == "features" and getattr(config, f"{_PREFIX}pooling", None) == MEAN_STD:
        raise InputError(f"{_PREFIX}pooling: got {MEAN_STD} for features, which are pooled already; wanted {MEAN}")
    names = automatic(config)
    found = dataclasses.asdict(probe(pooled_stage(config, benchmark))) if names else {}
    return known | {name: found[name.removeprefix(_PREFIX).removeprefix("region_")] for name in names}


def pooled_stage(config, benchmark):
    """The stage as a closed form reads it, for a config of any model."""
    return config.pooled_stage(benchmark) if isinstance(config, BesideConfig) else benchmark


def setting_of(config, state):
    """The Setting of the closed form in a model's score: beside it by its config, or, of `prototypes`, in the chosen
    state of its history; None where there is none."""
    names = [part.name for part in dataclasses.fields(Setting)]
    if is_beside(config):
        return Setting(*(getattr(config, _PREFIX + name) for name in names))
    return Setting(*(state[name] for name in names)) if set(names) <= set(state) else None


def validated(setting, benchmark):
    """The Outcomes of the closed form alone on the test rows of a stage."""
    form, tested = ClosedForm.for_benchmark(benchmark, setting.pooling), benchmark.tested
    take = pooled_rows(benchmark, np.concatenate([benchmark.train, tested]), setting.pooling)
    for _ in form.fit([setting], benchmark, take):
        scores = form(take(tested), benchmark.class_embeddings).numpy()
    return metrics.outcomes(scores, benchmark.labels[tested], benchmark.seen_classes, benchmark.unseen_classes)


class Beside(keras.layers.Layer):
    """Adds the scores of a closed form to a model's own, both in units of their spread over classes.

        score = weight * closed form / its spread + trained * own score / its spread

    Of several weights it takes the first one, until one was chosen.

    Until `settle` has measured the spread of the model's own scores, `trained` is 0: the untrained model is the closed
    form exactly, and training starts from there.
    """

    def __init__(self, config, width, attributes, seen, **kwargs):
        """
        Args:
            config: a `BesideConfig` without "auto", but for the weight.
            width, attributes, seen: as of `ClosedForm`.
        """
        super().__init__(dtype="float32", **kwargs)
        self.config = config
        self.form = ClosedForm(width, attributes, seen, name="form")
        self.form_factor = self.add_weight(shape=(), initializer="ones", trainable=False, name="form_factor")
        self.own_factor = self.add_weight(shape=(), initializer="zeros", trainable=False, name="own_factor")
        self.built = True

    def fit(self, benchmark):
        """Fits the closed form on the training rows."""
        take = pooled_rows(benchmark, benchmark.train, self.config.closed_form_pooling)
        for _ in self.form.fit([setting_of(self.config, {})], benchmark, take):
            scores = self.form(take(measured(benchmark)), benchmark.class_embeddings)
            self.form_factor.assign(weights(self.config)[0] / _spread(scores))

    def settle(self, own_scores):
        """Sets the factor of the model's own scores by what they are for `measured` rows."""
        self.own_factor.assign(1.0 / _spread(own_scores))

    def call(self, own_scores, features, class_embeddings):
        """Own scores [B, K], of classes [K, A], plus those of the closed form on pooled features [B, D]."""
        return self.own_factor * own_scores + self.form_factor * self.form(features, class_embeddings)

    def each(self, own_scores, features, class_embeddings):
        """What `call` would return with each of the `weights`: [W, B, K]."""
        own, form = self.own_factor * own_scores, self.form_factor * self.form(features, class_embeddings)
        first, *_ = every = weights(self.config)
        return tf.stack([own + weight / first * form for weight in every])


def measured(benchmark):
    """Training rows that stand for all where a spread is measured, evenly spaced."""
    rows = benchmark.train
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), MEASURED)).astype(int)]


def _spread(scores):
    """The standard deviation of a row's scores over classes, in the mean over rows; 1 if all scores are equal."""
    spread = tf.reduce_mean(tf.math.reduce_std(scores, axis=1))
    return tf.where(spread > 0, spread, 1.0)
