"""Batches: what an epoch holds, what a resumed run gets, what is made of rows, and what is refused."""

import dataclasses
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.support.tiny import tiny
from zslkeras import benchmarks, names, protocol
from zslkeras.benchmarks import tune_stage
from zslkeras.errors import InputError
from zslkeras.images import store
from zslkeras.models import MODELS
from zslkeras.training import batches

TINY = tiny()  # 8 seen classes of 16 training rows each
ONE_DEVICE = tf.distribute.get_strategy()


def on_device(benchmark, batch_size=16, seed=0, sampler="plain", first=0, last=3, strategy=ONE_DEVICE):
    return list(batches.training(benchmark, strategy, batch_size, seed, sampler, first, last))


def test_a_plain_epoch_is_a_permutation_without_its_remainder():
    rows = batches.epoch_rows(TINY, 30, seed=0, epoch=0)
    assert rows.shape == (4, 30)
    assert len(np.unique(rows)) == rows.size
    assert np.isin(rows, TINY.train).all()
    assert (np.diff(rows.ravel()) < 0).any()
    everything = batches.epoch_rows(TINY, 32, seed=0, epoch=0)
    np.testing.assert_array_equal(np.sort(everything.ravel()), TINY.train)


@pytest.mark.parametrize("sampler", names.SAMPLERS)
def test_the_order_follows_seed_and_epoch(sampler):
    first = batches.epoch_rows(TINY, 16, 3, 5, sampler)
    np.testing.assert_array_equal(first, batches.epoch_rows(TINY, 16, 3, 5, sampler))
    for seed, epoch in ((3, 6), (4, 5), (5, 3)):
        assert (first != batches.epoch_rows(TINY, 16, seed, epoch, sampler)).any()


def test_balanced_batches_have_distinct_classes():
    """Up to the number of classes; beyond, each class comes before any comes again."""
    for size, least, most in ((5, 0, 1), (8, 1, 1), (20, 2, 3)):
        for rows in batches.epoch_rows(TINY, size, 0, 0, "balanced"):
            counts = np.bincount(TINY.labels[rows], minlength=12)[:8]
            assert counts.sum() == size and counts.min() >= least and counts.max() <= most


def test_balanced_draws_are_even_over_classes_and_over_rows_of_a_class():
    uneven = dataclasses.replace(TINY, train=TINY.train[14:])  # class 0 has two rows, the others 16
    rows = np.concatenate([batches.epoch_rows(uneven, 5, 0, epoch, "balanced").ravel() for epoch in range(200)])
    by_class = np.bincount(TINY.labels[rows], minlength=12) / len(rows)
    np.testing.assert_allclose(by_class, [1 / 8] * 8 + [0] * 4, atol=0.02 / 8)
    _, by_row = np.unique(rows, return_counts=True)
    assert len(by_row) == len(uneven.train)
    np.testing.assert_allclose(by_row / len(rows), [1 / 16] * 2 + [1 / 128] * 112, rtol=0.2)


def test_an_unknown_sampler_is_named():
    with pytest.raises(InputError, match="sampler: got 'odd'; wanted one of plain, balanced"):
        batches.epoch_rows(TINY, 16, 0, 0, "odd")


@pytest.mark.parametrize("sampler", names.SAMPLERS)
def test_training_goes_through_epochs_and_resumes_in_the_middle(sampler):
    whole = on_device(TINY, 30, 7, sampler, last=10)  # 4 steps an epoch
    resumed = on_device(TINY, 30, 7, sampler, first=6, last=10)
    assert len(whole) == 10 and len(resumed) == 4
    for step, (inputs, labels) in enumerate(whole):
        rows = batches.epoch_rows(TINY, 30, 7, step // 4, sampler)[step % 4]
        np.testing.assert_array_equal(inputs, TINY.inputs[rows])
        np.testing.assert_array_equal(labels, TINY.labels[rows])
    for (inputs, labels), (other_inputs, other_labels) in zip(whole[6:], resumed, strict=True):
        np.testing.assert_array_equal(inputs, other_inputs)
        np.testing.assert_array_equal(labels, other_labels)


@pytest.mark.parametrize("kind", ["maps", "levels", "images"])
def test_inputs_keep_their_kind_shape_and_dtype(kind):
    benchmark = tiny(kind)
    ((inputs, labels),) = on_device(benchmark, last=1)
    rows = batches.epoch_rows(benchmark, 16, 0, 0)[0]
    expected = benchmark.take(rows)
    assert isinstance(inputs, tuple) == (kind == "levels")
    for array, wanted in zip(tf.nest.flatten(inputs), tf.nest.flatten(expected), strict=True):
        assert array.dtype == wanted.dtype == ("uint8" if kind == "images" else "float16")
        np.testing.assert_array_equal(array, wanted)
    np.testing.assert_array_equal(labels, benchmark.labels[rows])


@pytest.mark.parametrize("prepare", [None, lambda row, seed: row])
def test_no_tuner_of_pipelines_can_hold_up_the_end_of_a_training(prepare):
    """It missed the end of one in two trainings of 25 seconds, and went on waiting for up to a minute."""
    rows = batches.training(tiny(), ONE_DEVICE, 16, 0, "plain", 0, 3, prepare)
    assert rows.options().autotune.enabled is False


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="batch_size: got 129; wanted at most the 128 training rows"):
        on_device(TINY, 129)
    four = types.SimpleNamespace(num_replicas_in_sync=4)
    with pytest.raises(InputError, match="batch_size: got 30 for 4 replicas; wanted a multiple of 4"):
        on_device(TINY, 30, strategy=four)


def test_scoring_covers_the_rows_in_order_in_bounded_batches(monkeypatch):
    rows = np.concatenate([TINY.test_unseen[::-1], TINY.test_seen])
    monkeypatch.setattr(batches, "_SCORED_AT_ONCE", 7 * TINY.inputs[0].nbytes)
    parts = list(batches.scoring(TINY, rows))
    assert [len(labels) for _, labels in parts] == [7] * 16  # 80 + 32 rows
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in parts]), TINY.inputs[rows])
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), TINY.labels[rows])
    monkeypatch.setattr(batches, "_SCORED_AT_ONCE", 1)  # less than a row
    assert [len(labels) for _, labels in batches.scoring(TINY, rows[:3])] == [1, 1, 1]


def test_scoring_counts_the_bytes_of_all_levels(monkeypatch):
    benchmark = tiny("levels")
    monkeypatch.setattr(batches, "_SCORED_AT_ONCE", 5 * sum(level[0].nbytes for level in benchmark.inputs))
    inputs, labels = next(batches.scoring(benchmark, benchmark.test_seen))
    assert [len(level) for level in inputs] == [5, 5] and len(labels) == 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_found_when_it_is_read(value):
    inputs = TINY.inputs.copy()
    inputs[TINY.train[3], 9] = value
    broken = dataclasses.replace(TINY, inputs=inputs)
    with pytest.raises(InputError, match=rf"tiny: inputs: {value} at row {TINY.train[3]}, position 9; wanted finite"):
        broken.take(TINY.train[1:5])
    np.testing.assert_array_equal(broken.take(TINY.train[4:]), TINY.inputs[TINY.train[4:]])


# Rows that go through what a model prepares.

PICTURES = tiny("images")


def marked(picture, seed):
    """What tells of which row and which seed it was made."""
    return tf.cast(picture[:2, :2], tf.float32), tf.random.stateless_uniform([3], seed), seed


def pipelines(replicas, workers, *args, **kwargs):
    """What each worker of a cluster reads, [workers] lists of one batch a replica and step."""

    def distribute(pipeline):
        contexts = [tf.distribute.InputContext(workers, worker, replicas) for worker in range(workers)]
        return [list(pipeline(context)) for context in contexts]

    strategy = types.SimpleNamespace(num_replicas_in_sync=replicas, distribute_datasets_from_function=distribute)
    return batches.training(PICTURES, strategy, 16, *args, **kwargs)


def test_prepared_rows_have_seeds_of_their_own():
    prepared = list(batches.training(PICTURES, ONE_DEVICE, 16, 5, "plain", 0, 10, marked))  # 8 steps an epoch
    rows = np.concatenate([batches.epoch_rows(PICTURES, 16, 5, epoch) for epoch in range(2)])[:10]
    for step, ((corner, _, seed), labels) in enumerate(prepared):
        assert corner.shape == (16, 2, 2, 3) and corner.dtype == tf.float32
        np.testing.assert_array_equal(corner, PICTURES.inputs[rows[step], :2, :2])
        np.testing.assert_array_equal(labels, PICTURES.labels[rows[step]])
        np.testing.assert_array_equal(seed, [[5, 16 * step + place] for place in range(16)])
    draws = np.concatenate([draw for (_, draw, _), _ in prepared])
    assert len(np.unique(draws)) == draws.size  # a row is seen anew in each epoch


def test_prepared_rows_are_the_same_resumed_and_of_another_seed_others():
    whole = list(batches.training(PICTURES, ONE_DEVICE, 16, 5, "balanced", 0, 10, marked))
    resumed = list(batches.training(PICTURES, ONE_DEVICE, 16, 5, "balanced", 7, 10, marked))
    for one, other in zip(tf.nest.flatten(whole[7:]), tf.nest.flatten(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
    other = next(iter(batches.training(PICTURES, ONE_DEVICE, 16, 6, "balanced", 0, 1, marked)))
    assert (other[0][1].numpy() != whole[0][0][1].numpy()).all()


@pytest.mark.parametrize(("replicas", "workers"), [(2, 1), (2, 2), (4, 2)])
def test_replicas_share_the_very_rows_that_one_device_prepares(replicas, workers):
    one = list(batches.training(PICTURES, ONE_DEVICE, 16, 5, "plain", 6, 10, marked))
    shared, each = pipelines(replicas, workers, 5, "plain", 6, 10, prepare=marked), replicas // workers
    for step, batch in enumerate(one):
        parts = [part for worker in shared for part in worker[step * each : (step + 1) * each]]
        assert len(parts) == replicas
        for whole, *shares in zip(tf.nest.flatten(batch), *map(tf.nest.flatten, parts), strict=True):
            np.testing.assert_array_equal(np.concatenate(shares), whole)
    assert all(len(worker) == 4 * each for worker in shared)


@pytest.mark.parametrize("kind", ["features", "levels"])
def test_any_kind_of_rows_can_be_prepared(kind):
    benchmark = tiny(kind)
    plain = next(iter(batches.training(benchmark, ONE_DEVICE, 16, 0, "plain", 0, 1)))
    prepare = lambda row, seed: tf.nest.map_structure(lambda one: -one, row)  # noqa: E731
    prepared = next(iter(batches.training(benchmark, ONE_DEVICE, 16, 0, "plain", 0, 1, prepare)))
    for one, negative in zip(tf.nest.flatten(plain[0]), tf.nest.flatten(prepared[0]), strict=True):
        np.testing.assert_array_equal(-one, negative)


# Pictures in files.


@pytest.fixture
def in_files(tmp_path, monkeypatch):
    """PICTURES in PNG files, by their paths."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths = [str(tmp_path / f"{row}.png") for row in range(len(PICTURES.labels))]
    for path, picture in zip(paths, PICTURES.inputs, strict=True):
        Image.fromarray(picture).save(path)
    return dataclasses.replace(PICTURES, inputs=np.array(paths))


def test_paths_and_arrays_make_the_same_batches(in_files):
    size = round(32 / store.MARGIN)
    assert round(store.MARGIN * size) == 32  # as large as they are: nothing is resampled
    read = benchmarks.decoded(in_files, size)
    assert read.input_shape == PICTURES.input_shape and benchmarks.decoded(read, size) is read
    assert protocol.as_read(in_files, MODELS["dcen"].Config(image_size=20)).input_shape == (23, 23, 3)
    for one, other in zip(on_device(read), on_device(PICTURES), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    scored, wanted = (next(batches.scoring(one, PICTURES.test_unseen)) for one in (read, PICTURES))
    np.testing.assert_array_equal(scored[0], wanted[0])
    tune, of_arrays = (tune_stage(one) for one in (read, PICTURES))
    np.testing.assert_array_equal(tune.take(tune.train), of_arrays.take(of_arrays.train))
    assert tune.digest == of_arrays.digest


def test_arrays_and_other_kinds_are_not_decoded():
    for kind in ("features", "maps", "levels", "images"):
        benchmark = tiny(kind)
        assert benchmarks.decoded(benchmark, 16) is benchmark


def test_a_broken_file_is_named_before_anything_is_trained(in_files):
    pathlib.Path(in_files.inputs[77]).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(InputError, match=r"77\.png: (cannot be read|does not decode)"):
        benchmarks.decoded(in_files, 16)
