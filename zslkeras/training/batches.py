"""Turns benchmark rows into batches on devices. A batch is a pure function of (seed, step), so it has no state."""

import functools
import os

import numpy as np
import tensorflow as tf

from zslkeras import graphs
from zslkeras.errors import InputError
from zslkeras.names import SAMPLERS

_SCORED_AT_ONCE = 2**26  # bytes of inputs that a batch of scoring may hold
_PICTURES_AT_ONCE = 64  # a backbone's maps are far larger than its image


def steps_per_epoch(benchmark, batch_size):
    """The number of full batches in an epoch. The remaining rows are left out until the next epoch reshuffles all."""
    if batch_size > len(benchmark.train):
        raise InputError(f"batch_size: got {batch_size}; wanted at most the {len(benchmark.train)} training rows")
    return len(benchmark.train) // batch_size


def epoch_rows(benchmark, batch_size, seed, epoch, sampler="plain"):
    """The row ids of one epoch: [steps, batch_size].

    "plain" is a permutation of the training rows, cut to full batches. "balanced" draws distinct classes for each
    batch, as far as its size allows, and one row of each.
    """
    generator = np.random.default_rng([seed, epoch])
    steps = steps_per_epoch(benchmark, batch_size)
    if sampler == "plain":
        return generator.permutation(benchmark.train)[: steps * batch_size].reshape(steps, batch_size)
    if sampler != "balanced":
        raise InputError(f"sampler: got {sampler!r}; wanted one of {', '.join(SAMPLERS)}")
    labels = benchmark.labels[benchmark.train]
    order = np.argsort(labels, kind="stable")
    classes, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    rounds = -(-batch_size // len(classes))
    # One permutation of the classes per step and round: a class repeats only after all others have come.
    drawn = generator.permuted(np.tile(np.arange(len(classes)), (steps, rounds, 1)), axis=2)
    drawn = drawn.reshape(steps, -1)[:, :batch_size]
    within = (generator.random(drawn.shape) * counts[drawn]).astype(np.int64)
    return benchmark.train[order[starts[drawn] + within]]


def training(benchmark, strategy, batch_size, seed, sampler, first_step, last_step, prepare=None):
    """An iterable of (inputs, labels) for `strategy.run`, one global batch per step.

    Args:
        benchmark: its `train` rows are drawn.
        strategy: each of its replicas gets an equal share of every batch.
        batch_size: rows of a global batch.
        seed, sampler: see `epoch_rows`.
        first_step, last_step: counted from the start of the training, so that a resumed run finds its place.
        prepare: applied to each row, (input, seed [2]) -> a structure of tensors; None for nothing. The seed is the
            run's seed and the row's place in the training, which does not depend on the number of replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise InputError(f"batch_size: got {batch_size} for {replicas} replicas; wanted a multiple of {replicas}")
    size, steps = batch_size // replicas, steps_per_epoch(benchmark, batch_size)
    rows_of = functools.lru_cache(maxsize=2)(lambda epoch: epoch_rows(benchmark, batch_size, seed, epoch, sampler))

    def share(index, replica):
        rows = rows_of(int(index) // steps)[int(index) % steps].reshape(replicas, -1)[replica]
        inputs = benchmark.take(rows)
        return (*(inputs if isinstance(inputs, tuple) else (inputs,)), benchmark.labels[rows])

    example = share(0, 0)
    types = [array.dtype for array in example]

    def read(index, replica):
        # Declared stateless, because op determinism would serialise a stateful call.
        arrays = tf.numpy_function(share, [index, replica], types, stateful=False)
        for array, like in zip(arrays, example, strict=True):
            array.set_shape(like.shape)
        inputs = tuple(arrays[:-1])
        return (inputs if benchmark.kind == "levels" else inputs[0]), arrays[-1]

    def places(index, replica):
        return index * batch_size + replica * size + tf.range(size, dtype=tf.int64)

    def prepared(row, place):
        inputs, label = row
        return prepare(inputs, tf.stack([tf.constant(seed, tf.int64), place])), label

    def pipeline(context):
        here = replicas // context.num_input_pipelines
        own = tf.range(here, dtype=tf.int64) + context.input_pipeline_id * here
        pairs = tf.data.Dataset.range(first_step, last_step).flat_map(
            graphs.plain(lambda index: tf.data.Dataset.from_tensor_slices((tf.fill([here], index), own)))
        )
        shares = pairs.map(graphs.plain(read), num_parallel_calls=2, deterministic=True)
        if prepare:
            rows = tf.data.Dataset.zip(shares, pairs.map(graphs.plain(places))).unbatch()
            rows = rows.map(graphs.plain(prepared), num_parallel_calls=os.cpu_count(), deterministic=True)
            shares = rows.batch(size, drop_remainder=True)
        # TensorFlow's autotuner sometimes does not notice that its iterator is gone, and the iterator then waits for it
        # for up to a minute at the end of a training. There is nothing to tune.
        options = tf.data.Options()
        options.autotune.enabled = False
        return shares.prefetch(2 * here).with_options(options)

    return strategy.distribute_datasets_from_function(pipeline)


def scoring(benchmark, rows):
    """Yields (inputs, labels) over `rows` in order, in batches of bounded size."""
    example = benchmark.take(rows[:1])
    bytes_of_a_row = sum(array.nbytes for array in (example if isinstance(example, tuple) else (example,)))
    most = _PICTURES_AT_ONCE if benchmark.kind == "images" else 4096
    size = int(np.clip(_SCORED_AT_ONCE // max(1, bytes_of_a_row), 1, most))
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        yield benchmark.take(batch), benchmark.labels[batch]
