"""The rows that Keras' `fit` is given: as a stage that a model can learn from, and as what `train_step` takes."""

import dataclasses
import itertools

import keras
import numpy as np
import tensorflow as tf

from zslkeras import graphs
from zslkeras.errors import InputError

_AT_ONCE = 64  # rows that are scored at a time


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Stage:
    """Training rows in memory, as far as models read a stage; see benchmarks.Benchmark.

    Attributes:
        kind: "features", "maps", "levels" or "images".
        inputs: [N, ...], or a tuple of such arrays.
        labels: [N] class ids.
        class_embeddings: [C, A].
        seen_classes: class ids.
        finite: whether `inputs` are known to hold no NaN or infinity.
    """

    kind: str
    inputs: np.ndarray | tuple[np.ndarray, ...]
    labels: np.ndarray
    class_embeddings: np.ndarray
    seen_classes: np.ndarray
    finite: bool = False

    @property
    def input_shape(self):
        shapes = tuple(array.shape[1:] for array in tf.nest.flatten(self.inputs))
        return shapes if self.kind == "levels" else shapes[0]

    @property
    def train(self):
        return np.arange(len(self.labels))

    def take(self, rows):
        return tf.nest.map_structure(lambda array: array[rows], self.inputs)

    def read(self, rows):
        """Batches of (inputs, labels) of some rows."""
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            yield self.take(part), self.labels[part]


def in_batches(x):
    """Whether what `fit` is given comes in batches of (inputs, labels), and not as arrays, which have a shape."""
    return not all(hasattr(one, "shape") for one in tf.nest.flatten(x))


def given(model, x, y, options):
    """What `fit` is given, without `validation_split`: the last rows of arrays are validation data in its place."""
    for name in ("sample_weight", "class_weight"):
        if options.get(name) is not None:
            raise InputError(f"{name}: got it for {type(model).__name__}; wanted none: all rows count alike")
    options = {"shuffle": not isinstance(x, tf.data.Dataset), **options}
    share = options.pop("validation_split", 0.0)
    if share:
        if in_batches(x) or y is None:
            raise InputError("validation_split: got it without arrays x and y; wanted validation_data")
        first = round(len(y) * (1 - share))
        options["validation_data"] = _every((x, y), slice(first, None))
        x, y = _every((x, y), slice(first))
    return x, y, options


def stage(model, x, y=None, steps=None, most=None):
    """The rows that `fit` is given, as a Stage.

    Args:
        model: has the classes, and says what its inputs are.
        x, y: arrays; or a tf.data.Dataset or a PyDataset of batches (inputs, labels) alone, which are read once more.
        steps: how many batches an epoch has, for a dataset without an end.
        most: of a dataset, keep evenly spaced rows alone, fewer than twice this number; None to keep all, which then
            have to be of every seen class and of no other.
    """
    seen_classes = np.flatnonzero(np.asarray(model.seen_mask) > 0)
    if in_batches(x):
        inputs, labels = _joined(model, x, steps, most)
    else:
        inputs, labels = _checked(model, x, y)
    if most is None:
        _require_seen(labels, seen_classes)
    return Stage(model.eats, inputs, labels, np.asarray(model.class_embeddings), seen_classes)


def prepared(model, x, y, batch_size, shuffle=True):
    """The rows as `train_step` takes them, a tf.data.Dataset: each by the model's `prepare`, drawn anew in each epoch.

    A dataset whose inputs do not look like the model's was prepared already, and is returned as it is.
    """
    if isinstance(x, tf.data.Dataset):
        if not looks_raw(model, x):
            return x
        batch_size = int(tf.shape(next(iter(x))[1])[0])
        rows = x.unbatch()
    elif in_batches(x):
        name = type(model).__name__
        raise InputError(f"x: got {type(x).__name__} for {name}; wanted arrays, or a tf.data.Dataset")
    else:
        inputs, labels = _checked(model, x, y)
        rows = tf.data.Dataset.from_tensor_slices((inputs, labels))
        rows = rows.shuffle(len(labels), seed=model.seed) if shuffle else rows
    seeds = tf.data.Dataset.random(seed=model.seed, rerandomize_each_iteration=True).batch(2)
    prepared = graphs.plain(lambda row, seed: (model.prepare(row[0], seed), row[1]))
    made = tf.data.Dataset.zip(rows, seeds).map(prepared, num_parallel_calls=2, deterministic=True)
    return made.batch(batch_size).prefetch(2)


def looks_raw(model, dataset):
    """Whether the inputs of a tf.data.Dataset have the structure and the shapes of the model's."""
    return _fits(model, dataset.element_spec[0])


def _fits(model, inputs):
    shapes = model.row_shape if model.eats == "levels" else (model.row_shape,)
    given = list(inputs) if isinstance(inputs, tuple | list) else [inputs]
    if isinstance(inputs, tuple | list) != (model.eats == "levels") or len(given) != len(shapes):
        return False
    return all(
        tf.TensorShape(one.shape).is_compatible_with([None, *shape]) for one, shape in zip(given, shapes, strict=True)
    )


def _checked(model, inputs, labels):
    """Arrays of one batch or of all rows, with the shapes that the model takes."""
    if labels is None:
        raise InputError("y: got none; wanted the class id of each row")
    inputs = tf.nest.map_structure(np.asarray, tuple(inputs) if isinstance(inputs, list) else inputs)
    labels = np.asarray(labels)
    if not _fits(model, inputs):
        got = [one.shape for one in tf.nest.flatten(inputs)]
        raise InputError(f"x: got {model.eats} of shape {', '.join(map(str, got))}; wanted (N, {model.row_shape})")
    if labels.shape != (len(tf.nest.flatten(inputs)[0]),) or labels.dtype.kind not in "iu":
        raise InputError(f"y: got {labels.dtype} {labels.shape}; wanted a class id for each row of x")
    return inputs, labels


def _require_seen(labels, seen_classes):
    if len(stray := np.setdiff1d(labels, seen_classes)):
        raise InputError(f"y: got a row of class {stray[0]}, which is not seen; wanted rows of seen classes only")
    if len(without := np.setdiff1d(seen_classes, labels)):
        raise InputError(f"y: got no row of class {without[0]}, which is seen; wanted rows of every seen class")


def _joined(model, batches, steps, most):
    if not isinstance(batches, tf.data.Dataset | keras.utils.PyDataset):
        raise InputError(f"x: got {type(batches).__name__}; wanted arrays, a tf.data.Dataset or a PyDataset")
    if isinstance(batches, keras.utils.PyDataset):
        batches = (batches[number] for number in range(batches.num_batches))
    elif steps is None and int(batches.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise InputError("steps_per_epoch: got none for a dataset without an end; wanted a number of batches")
    kept, stride, count = [], 1, 0
    for batch in itertools.islice(batches, steps):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise InputError("x: got a dataset of something else; wanted batches (inputs, labels)")
        one = _checked(model, *batch)
        kept.append(_every(one, slice(-count % stride, None, stride)))
        count += len(one[1])
        while most and sum(len(labels) for _, labels in kept) >= 2 * most:
            kept, stride = [_every(_concatenated(kept), slice(None, None, 2))], 2 * stride
    if not count:
        raise InputError("x: got a dataset without a row; wanted some")
    return _concatenated(kept)


def _every(rows, places):
    return tf.nest.map_structure(lambda array: array[places], rows)


def _concatenated(parts):
    return tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
