"""Benchmark rows to batches on devices. What a batch holds is a pure function of (seed, step): nothing to save."""

import functools
import os

import numpy as np
import tensorflow as tf

from zslkeras.errors import InputError

SAMPLERS = ("plain", "balanced")
_SCORED_AT_ONCE = 2**26  # bytes of inputs a batch of scoring may hold
_PICTURES_AT_ONCE = 64  # a backbone makes far more of a picture than it is


def steps_per_epoch(benchmark, batch_size):
    """Full batches in an epoch; the rest of the rows waits for the next epoch's order."""
    if batch_size > len(benchmark.train):
        raise InputError(f"batch_size: got {batch_size}; wanted at most the {len(benchmark.train)} training rows")
    return len(benchmark.train) // batch_size


def epoch_rows(benchmark, batch_size, seed, epoch, sampler="plain"):
    """The row ids of one epoch: [steps, batch_size].

    "plain" is a permutation without its remainder. "balanced" draws distinct classes for each batch, as evenly as
    its size allows, and a row of each.
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
    # Per step and round a permutation of the classes: a class comes again only once all the others have come.
    drawn = generator.permuted(np.tile(np.arange(len(classes)), (steps, rounds, 1)), axis=2)
    drawn = drawn.reshape(steps, -1)[:, :batch_size]
    within = (generator.random(drawn.shape) * counts[drawn]).astype(np.int64)
    return benchmark.train[order[starts[drawn] + within]]


def training(benchmark, strategy, batch_size, seed, sampler, first_step, last_step, prepare=None):
    """An iterable of (inputs, labels) for `strategy.run`, one global batch a step.

    Args:
        benchmark: its `train` rows are drawn.
        strategy: each of its replicas gets an equal share of every batch.
        batch_size: rows of a global batch.
        seed, sampler: see `epoch_rows`.
        first_step, last_step: counted from the start of the training, so that a resumed run goes on in place.
        prepare: what a row goes through, (input, seed [2]) -> a structure of tensors; None for nothing. The seed is the
            run's and the row's place in the training, whatever number of replicas share it.
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
        # Stateless as far as TensorFlow goes; a stateful call would be serialised under op determinism.
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
            lambda index: tf.data.Dataset.from_tensor_slices((tf.fill([here], index), own))
        )
        shares = pairs.map(read, num_parallel_calls=2, deterministic=True)
        if prepare:
            rows = tf.data.Dataset.zip(shares, pairs.map(places)).unbatch()
            rows = rows.map(prepared, num_parallel_calls=os.cpu_count(), deterministic=True)
            shares = rows.batch(size, drop_remainder=True)
        # TensorFlow's tuner of pipelines now and then misses that its iterator is gone, and the iterator waits for it:
        # up to a minute at the end of a training. There is nothing to tune.
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
