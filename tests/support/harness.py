"""What the tests of the models share; a model's own file keeps what its paper says.

A test makes a small benchmark and a model whose weights are far from those at the start of training, hands one batch
to the model and to the method's float64 reference, and compares: the values of a function, the reported losses, and
how far SGD moved each weight in one step.
"""

import dataclasses
import functools
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.reference.eszsl import scaled
from tests.support.slopes import assert_slopes
from tests.support.tiny import tiny
from zslkeras.cli import quiet
from zslkeras.models import MODELS, presets
from zslkeras.training import strategies
from zslkeras.training.loop import Run, Verdict


def v1(model):
    """The Config of a model with what version 0.1 had, so mostly what its paper has, where it is not given."""
    return functools.partial(MODELS[model].Config, **presets.settings("v1", model))


# Benchmarks.


def small(kind="features", **options):
    """Five classes, two of them unseen. Maps have 2 x 3 regions, so that code which swaps two axes fails."""
    benchmark = tiny(kind, **{"classes": 5, "unseen": 2, "rows": 5, "attributes": 4, "width": 7, **options})
    return dataclasses.replace(benchmark, inputs=benchmark.inputs[:, :2, :3]) if kind == "maps" else benchmark


def renumbered(benchmark, numbers):
    """The same images, class c being class numbers[c]: the seen classes need not come first."""
    return dataclasses.replace(
        benchmark,
        labels=numbers[benchmark.labels].astype(np.int32),
        class_embeddings=benchmark.class_embeddings[np.argsort(numbers)],
        seen_classes=np.sort(numbers[benchmark.seen_classes]),
        unseen_classes=np.sort(numbers[benchmark.unseen_classes]),
    )


def all_seen(benchmark):
    """The same stage without an unseen class."""
    everyone, nobody = np.arange(len(benchmark.class_names)), np.array([], int)
    return dataclasses.replace(benchmark, seen_classes=everyone, unseen_classes=nobody, test_unseen=nobody)


# A batch.


@dataclasses.dataclass
class Batch:
    """One batch and the classes of the stage, as the model takes them and as the reference does.

    Attributes:
        inputs: for the model.
        labels: [B].
        classes: [C, A] embeddings for the reference: scaled, in float64.
        seen: [C] mask.
        x: the inputs for the reference: scaled, in float64.
        config: of the model.
    """

    inputs: object
    labels: np.ndarray
    classes: np.ndarray
    seen: np.ndarray
    x: object = None
    config: object = None

    @property
    def pair(self):
        return self.inputs, self.labels

    @property
    def seen_ids(self):
        return np.flatnonzero(self.seen)


def batch_for(model, benchmark, as_reference, count=6):
    """`count` training rows; `as_reference(config, inputs, training inputs)` makes the reference's x of them."""
    rows = np.random.default_rng(3).choice(benchmark.train, count, replace=False)
    inputs, config = benchmark.take(rows), model.config
    x = as_reference(config, inputs, benchmark.take(benchmark.train))
    classes = scaled_classes(config, benchmark, benchmark.class_embeddings)
    return Batch(inputs, benchmark.labels[rows], classes, benchmark.seen_mask, x, config)


def scaled_classes(config, benchmark, embeddings):
    """Embeddings of any classes for the reference; their scaling is fitted on the seen ones."""
    return scaled(config.embedding_scaling, embeddings, benchmark.class_embeddings[benchmark.seen_classes])


def scaled_regions(kind, maps, train):
    """Maps [B, H, W, F] for the reference; their scaling is fitted on all regions of the training maps."""
    width = maps.shape[-1]
    return scaled(kind, maps.reshape(-1, width), train.reshape(-1, width)).reshape(maps.shape)


# Weights.


def with_weights(model, variables, value, *rates):
    """The model with SGD at `rates` and new weights: `value(name, normal draws)` for all `variables` of that name."""
    model.compile(*map(keras.optimizers.SGD, rates))
    generator = np.random.default_rng(7)
    for name, of_name in variables.items():
        for variable in of_name if isinstance(of_name, list) else [of_name]:
            variable.assign(value(name, generator.standard_normal(variable.shape)))
    return model


def in_float64(variables):
    """The values of variables in a dict, or in lists in a dict."""
    return keras.tree.map_structure(lambda variable: np.array(variable, np.float64), variables)


def same(one, other):
    """Whether two dicts, lists or arrays hold the same numbers."""
    pairs = zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def assert_finite(model, **losses):
    """No variable of the model, and none of `losses`, is infinite or no number."""
    for name, loss in losses.items():
        assert np.isfinite(loss), name
    for variable in model.variables:
        assert np.isfinite(variable).all(), variable.path


# Steps.


def step(model, batch):
    """One training step on a `Batch` or a pair (inputs, labels); returns the losses as floats."""
    pair = batch.pair if isinstance(batch, Batch) else batch
    model.reset_metrics()
    losses = model.train_step(tf.nest.map_structure(tf.constant, pair))
    return {name: float(loss) for name, loss in losses.items()}


def assert_losses(got, wanted, **tolerances):
    """Two dicts have the same losses, by name and by value."""
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, err_msg=name, **tolerances)


def assert_step_follows(loss, before, after, **options):
    """SGD at rate 1 moved weights from `before` to `after` by minus the slope of `loss()`, which reads `before`."""
    ends = keras.tree.flatten(after)
    for (path, array), end in zip(keras.tree.flatten_with_path(before), ends, strict=True):
        assert_slopes(loss, array, array - end, err_msg=" ".join(map(str, path)), **options)


def assert_function(function, wanted, arrays, value_rtol=1e-12, **options):
    """`function` of float64 tensors has the value of `wanted`, the reference's, and its slope in each of `arrays`.

    Returns the gradients of `function`.
    """
    arrays = [array.copy() for array in arrays]
    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    np.testing.assert_allclose(value, wanted(*arrays), rtol=value_rtol)
    gradients = [gradient.numpy() for gradient in tape.gradient(value, tensors)]
    for array, gradient in zip(arrays, gradients, strict=True):
        assert_slopes(lambda: wanted(*arrays), array, gradient, **options)
    return gradients


def six_steps(optimizer, traced=True):
    """(start, six gradients as functions of the weight, end) of two float64 weights under `optimizer(variables)`."""
    generator = np.random.default_rng(0)
    starts = [generator.standard_normal(shape) for shape in ((3, 2), (4,))]
    shifts = [generator.standard_normal((6, *array.shape)) for array in starts]
    variables = [keras.Variable(array, dtype="float64") for array in starts]
    made = optimizer(variables)
    made.build(variables)

    def apply(*gradients):
        made.apply(gradients, variables)

    apply = tf.function(apply) if traced else apply
    for number in range(6):
        apply(*(tf.sin(v.value) + shift[number] for v, shift in zip(variables, shifts, strict=True)))
    for array, shift, variable in zip(starts, shifts, variables, strict=True):
        yield array, [lambda w, one=one: np.sin(w) + one for one in shift], variable.numpy()


def depends_on_unseen_embeddings(small, ready, **overrides):
    """Whether the weights after one step of `ready(small())` change with the embedding of an unseen class."""
    ends = []
    for shift in (0.0, 0.3):
        benchmark = small()
        benchmark.class_embeddings[benchmark.unseen_classes[0], 1] += shift
        model, batch = ready(benchmark, **overrides)
        step(model, batch)
        ends.append([variable.numpy() for variable in model.trainable_variables])
    return not same(*ends)


def run_of(benchmark, path=None, epochs=None, callbacks=(), judge=lambda *_: Verdict({}, 0.0, {})):
    """A whole run for `model.learn`, on one device and with seed 0."""
    return Run(benchmark, tf.distribute.get_strategy(), judge, 0, path, epochs, callbacks)


def learn_path(model, benchmark, config, look=lambda model: 0, prefer=0):
    """A closed form: the finished model, the run, and what `look` saw at each setting; state `prefer` is kept."""
    seen = []

    def judge(model, state, *_):
        seen.append(look(model))
        return Verdict({"state": state}, float(state == prefer), {})

    made, run = model.for_benchmark(benchmark, config), run_of(benchmark, judge=judge)
    made.learn(run)
    run.finish(made, keep_weights=True)
    return made, run, seen


# Scores.


def scores_in_any_company(model, inputs, new, alone=None, **tolerances):
    """Scores of `new` classes and then of those built in, the same for each class alone, reordered and built in.

    `alone` are the places of those to score alone; all by default.
    """
    classes = np.concatenate([new, model.class_embeddings])
    scores = model.score_classes(inputs, classes).numpy()
    order = np.random.default_rng(6).permutation(len(classes))
    np.testing.assert_allclose(model(inputs), scores[:, len(new) :], **tolerances)
    np.testing.assert_allclose(model.score_classes(inputs, classes[order]), scores[:, order], **tolerances)
    for c in range(len(classes)) if alone is None else alone:
        np.testing.assert_allclose(model.score_classes(inputs, classes[c : c + 1]), scores[:, c : c + 1], **tolerances)
    return scores


def exported(model, folder, inputs, **endpoints):
    """The model loaded from a SavedModel, after its scores agree for two sizes of batch and of candidates.

    `endpoints` are further functions of inputs to save.
    """
    rows = tf.nest.map_structure(lambda level: tf.TensorSpec([None, *level.shape[1:]], level.dtype), inputs)
    width = model.class_embeddings.shape[1]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("score_classes", model.score_classes, [rows, tf.TensorSpec([None, width], tf.float32)])
    for name, function in endpoints.items():
        archive.add_endpoint(name, function, [rows])
    archive.write_out(folder / "saved", verbose=False)
    loaded = tf.saved_model.load(folder / "saved")
    new = np.random.default_rng(5).random((9, width)).astype(np.float32)
    for count, classes in ((1, new), (7, new[:2])):
        some = tf.nest.map_structure(lambda level, count=count: level[:count], inputs)
        wanted = model.score_classes(some, classes)
        np.testing.assert_allclose(loaded.score_classes(some, classes), wanted, rtol=1e-5, atol=1e-5)
    return loaded


# Graphs.


def floats_made_by(model, what, batch=8):
    """(operation, number of elements) of each floating tensor in the graph of one of the model's methods.

    `what` is "train_step", "score_classes" or a method of inputs alone; the batch has `batch` rows of float16.
    """
    shapes = model.row_shape if isinstance(model.row_shape[0], tuple) else (model.row_shape,)
    rows = tuple(tf.TensorSpec([batch, *shape], tf.float16) for shape in shapes)
    rows = rows if isinstance(model.row_shape[0], tuple) else rows[0]
    arguments = {
        "train_step": [(rows, tf.TensorSpec([batch], tf.int32))],
        "score_classes": [rows, tf.TensorSpec(model.class_embeddings.shape, tf.float32)],
    }
    graph = tf.function(getattr(model, what)).get_concrete_function(*arguments.get(what, [rows])).graph
    found = list(_floats_of(graph))
    assert all(shape.is_fully_defined() for _, shape in found), [one for one in found if not one[1].is_fully_defined()]
    return [(kind, shape.num_elements()) for kind, shape in found]


def _floats_of(graph):
    """(operation, shape), also in the functions that the graph calls."""
    for op in graph.get_operations():
        # What a function is given was made, and is counted, outside of it.
        if op.type != "Placeholder":
            yield from ((op.type, output.shape) for output in op.outputs if output.dtype.is_floating)
        for attribute in ("f", "body", "cond", "then_branch", "else_branch"):
            if attribute in op.node_def.attr:
                yield from _floats_of(graph._get_function(op.get_attr(attribute).name).graph)


# Settings.


def assert_refuses(config, name, value, wanted):
    """A Config answers a wrong value with a sentence that says what it got and what it wanted."""
    with pytest.raises(ValueError) as caught:
        config(**{name: value})
    assert str(caught.value) == f"{name}: got {value!r}; wanted {wanted}"


# Replicas. A process has one MirroredStrategy, so a model file trains on two replicas in a process of its own:
# its `__main__` calls `save_from_two_replicas`, and its test reads the arrays through `arrays_of`.


def part_of_replica(array):
    """This replica's share of the rows."""
    context = tf.distribute.get_replica_context()
    share = array.shape[0] // context.num_replicas_in_sync
    return tf.convert_to_tensor(array)[context.replica_id_in_sync_group * share :][:share]


def batches_of(benchmark, count):
    """Pairs (inputs, labels) of eight training rows each."""
    generator = np.random.default_rng(2)
    rows = [generator.choice(benchmark.train, 8, replace=False) for _ in range(count)]
    return [(benchmark.take(some), benchmark.labels[some]) for some in rows]


def trained_under(strategy, make, batches, traced=True):
    """The model that `make()` returns after a step on each batch, and its losses in the first step."""
    with strategy.scope():
        model = make()

    def train_step(batch):
        strategy.run(lambda: model.train_step(tf.nest.map_structure(part_of_replica, batch)))

    train_step = tf.function(train_step) if traced else train_step
    losses = None
    for batch in batches:
        train_step(tf.nest.map_structure(tf.constant, batch))
        losses = losses or {name: float(tracker.result()) for name, tracker in model.trackers.items()}
    return model, losses


def save_from_two_replicas(train, names, variables_of):
    """Writes the losses and weights of `train(strategy, name)` to the file named on the command line."""
    quiet.tensorflow()
    (out,) = sys.argv[1:]
    strategy, arrays = strategies.get_strategy("mirrored", 2), {}
    for name in names:
        model, losses = train(strategy, name)
        found = losses | {key: variable.numpy() for key, variable in variables_of(model).items()}
        arrays |= {f"{name}/{key}": value for key, value in found.items()}
    np.savez(out, **arrays)


def saved_under(name, arrays):
    """What `save_from_two_replicas` wrote for one name."""
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


def assert_trained_alike(got, wanted, before, atol):
    """Variables by name end as the arrays of `got`, and each has moved: otherwise the comparison could not fail."""
    for name, variable in wanted.items():
        np.testing.assert_allclose(got[name], variable, rtol=0, atol=atol, err_msg=name)
        assert np.abs(variable - before[name]).max() > 1e-3, name
