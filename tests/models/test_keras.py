"""What a Keras user calls: `fit` trains as the loop does and solves closed forms, `evaluate` tells the share of right
answers, `predict` refuses before anything was learned, and a saved model goes on in the precision it had."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models.test_contract import ALL, GRADIENT, benchmark_for, eagerly, heavy_ones_long, made, small_config
from tests.support.tiny import tiny
from zslkeras.errors import InputError
from zslkeras.models import conditioning, rows
from zslkeras.precision import computing_in
from zslkeras.training import batches
from zslkeras.training.loop import Run, Verdict

CLOSED = [name for name in ALL if name not in GRADIENT]
BESIDE = {
    "closed_form": 2.0,
    "closed_form_scaling": "centred_l2",
    "closed_form_whitening": 1.0,
    "closed_form_embedding_scaling": "l2",
    "closed_form_kernel": 0.0,
    "closed_form_ridge": 0.1,
    "closed_form_pooling": "mean",
}


def overrides(name, **wanted):
    """Those of `wanted` that a model's config has."""
    fields = {field.name for field in dataclasses.fields(ALL[name].Config)}
    return {key: value for key, value in wanted.items() if key in fields}


def training_rows(name):
    benchmark = benchmark_for(name)
    return benchmark.take(benchmark.train), benchmark.labels[benchmark.train]


def as_dataset(x, y, size=50):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def assert_refused(call, *words):
    with pytest.raises(InputError) as caught:
        call()
    for word in words:
        assert word in str(caught.value), caught.value
    assert "\n" not in str(caught.value)


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", heavy_ones_long(ALL))
def test_a_model_is_fitted_evaluated_saved_loaded_and_fitted_again(name, tmp_path):
    model, (x, y) = made(name, **overrides(name, **BESIDE)), training_rows(name)
    with eagerly():
        history = model.fit(x, y, verbose=0, validation_data=(x, y)).history
        accuracy, predicted = model.evaluate(x, y, batch_size=50, verbose=0), model.predict(x, batch_size=50, verbose=0)
        assert accuracy == np.mean(predicted.argmax(axis=1) == y) or name.startswith(
            "drmn"
        )  # which has a rule of its own
        assert history["val_accuracy_at_gamma_0"] == [pytest.approx(accuracy)]
        assert set(history) == {*model.losses_reported, "val_accuracy_at_gamma_0"} | (
            {"learning_rate"} & history.keys()
        )
        assert model.evaluate(as_dataset(x, y), verbose=0, return_dict=True) == {"accuracy_at_gamma_0": accuracy}
        if model.beside is not None:
            assert model.beside.own_factor > 0
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again.predict(x, batch_size=50, verbose=0), predicted)
        before = again.get_weights()
        again.fit(as_dataset(x, y).repeat(), steps_per_epoch=3, verbose=0)
    assert equal(before, again.get_weights()) == (name in CLOSED)


@functools.cache
def few_rows(name):
    """Two batches of rows, of every seen class."""
    benchmark = benchmark_for(name)
    return dataclasses.replace(benchmark, train=benchmark.train[::2])


def trained_by_the_loop(name, epochs, **settings):
    benchmark = few_rows(name)
    model = made(name, benchmark, **settings)
    last = lambda model, state: Verdict({}, float(state), {})  # noqa: E731
    run = Run(benchmark, tf.distribute.get_strategy(), last, 0, states=epochs + (model.beside is not None))
    with eagerly():
        model.learn(run)
    run.finish(model, keep_weights=False)
    return model


def trained_by_fit(name, epochs, **settings):
    benchmark = few_rows(name)
    model = made(name, benchmark, **settings)
    config, steps = model.config, batches.steps_per_epoch(benchmark, model.config.batch_size)
    strategy, span = tf.distribute.get_strategy(), (0, epochs * steps)
    data = batches.training(benchmark, strategy, config.batch_size, 0, config.sampler, *span, model.prepare)
    with eagerly():
        model.fit(data, epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("name", heavy_ones_long(GRADIENT))
def test_fit_trains_as_the_loop(name):
    """The loop's batches, its rates and its mean of the epochs: all variables end with the same bits."""
    settings = overrides(name, averaging=0.5, halve_every=1, drop_every=1)
    by_loop, by_fit = (train(name, 2, **settings) for train in (trained_by_the_loop, trained_by_fit))
    for a, b in zip(by_loop.variables, by_fit.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    for key, optimizer in by_loop.get_compile_config().items():
        assert equal(optimizer.variables, by_fit.get_compile_config()[key].variables)
    if name == "example":  # or the comparison could not fail
        plain = trained_by_fit(name, 2, **settings | {"averaging": 0.0})
        assert not equal(plain.trainable_variables, by_fit.trainable_variables)


@pytest.mark.parametrize("name", ["aspn", "jlaf", "msdn"])
def test_fit_trains_beside_a_closed_form_as_the_loop(name):
    """But for the spread of the model's own scores, which a dataset of batches gives on other rows."""
    by_loop, by_fit = (train(name, 1, **BESIDE) for train in (trained_by_the_loop, trained_by_fit))
    for a, b in zip(by_loop.variables, by_fit.variables, strict=True):
        rtol = 0.3 if a is by_loop.beside.own_factor else 0
        np.testing.assert_allclose(a, b, rtol=rtol, atol=0, err_msg=a.path)
    assert by_fit.beside.own_factor > 0


@pytest.mark.parametrize("name", ["aspn", "dcen"])  # the second one fits its closed form anew
def test_arrays_settle_the_closed_form_beside_a_model_as_the_stage_does(name):
    model, benchmark = made(name, **BESIDE), benchmark_for(name)
    with eagerly():
        model.fit(*training_rows(name), verbose=0)
        settled = [variable.numpy() for variable in model.beside.weights]
        for variable in (model.beside.own_factor, model.beside.form_factor):
            variable.assign(0.0)
        model.settle(benchmark, functools.partial(batches.scoring, benchmark))
    fitted = dict(zip([one.path for one in model.beside.weights], settled, strict=True))
    for variable in [model.beside.own_factor] + ([model.beside.form_factor] if name == "dcen" else []):
        np.testing.assert_allclose(fitted[variable.path], variable, rtol=1e-4)


@pytest.mark.parametrize("name", CLOSED)
def test_fit_solves_what_learn_solves(name):
    benchmark, (x, y) = benchmark_for(name), training_rows(name)
    learned, fitted, of_batches = (made(name) for _ in range(3))
    learned.learn(Run(benchmark, tf.distribute.get_strategy(), lambda *_: Verdict({}, 0.0, {}), 0))
    fitted.fit(x, y)
    of_batches.fit(as_dataset(x, y, 7).repeat(), steps_per_epoch=-(-len(y) // 7))
    for a, b, c in zip(learned.variables, fitted.variables, of_batches.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
        np.testing.assert_array_equal(a, c, err_msg=a.path)


def test_fit_of_a_closed_form_wants_one_setting():
    model = made("eszsl", gammas=(1.0, 10.0), lambdas=(1.0, 2.0))
    words = "gammas: got 2 values; wanted one value of gammas, lambdas in ESZSLConfig", "zslkeras.fit chooses"
    assert_refused(lambda: model.fit(*training_rows("eszsl")), *words)


@pytest.mark.parametrize("name", [*CLOSED, "msdn"])
def test_what_has_learned_nothing_refuses_to_score_until_it_has(name, tmp_path):
    benchmark, config = benchmark_for(name), ALL[name].Config(**small_config(name) | overrides(name, **BESIDE))
    vectors = benchmark.attribute_vectors
    sizes = benchmark.input_shape, benchmark.class_embeddings, benchmark.seen_mask, vectors
    model, (x, y) = ALL[name](config, *sizes), training_rows(name)
    model.compile()
    wanted = "wanted fit(x, y) first" if name in CLOSED else "wanted MSDN.for_benchmark(benchmark, config), which"
    words = f"{ALL[name].__name__}: has learned nothing", wanted
    asked = [
        lambda: model(x),
        lambda: model.predict(x, verbose=0),
        lambda: model.evaluate(x, y, verbose=0),
        lambda: model.score_classes(x, benchmark.class_embeddings),
        lambda: tf.function(model.score_classes, autograph=False)(x, benchmark.class_embeddings),
        lambda: model.export(tmp_path / "export", verbose=False, input_signature=[tf.TensorSpec([None, *x.shape[1:]])]),
    ]
    for ask in asked:
        assert_refused(ask, *words)
    if name not in CLOSED:
        assert_refused(lambda: model.fit(x, y, verbose=0), *words)
    # Weights that come later are those of a model that has learned.
    learned = made(name, **overrides(name, **BESIDE))
    if name in CLOSED:
        learned.fit(x, y)
    model.set_weights(learned.get_weights())
    for ask in asked:
        ask()
    np.testing.assert_array_equal(model(x), learned(x))


@pytest.mark.parametrize("name", ["aspn", "drmn", "jlaf", "msdn"])
def test_a_model_of_half_precision_is_loaded_as_one(name, tmp_path):
    with computing_in("mixed_bfloat16"):
        model = made(name, **overrides(name, **BESIDE))
    x, _ = training_rows(name)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.dtype_policy.name == "mixed_bfloat16" and keras.config.dtype_policy().name == "float32"
    predicted = model.predict(x, verbose=0)
    np.testing.assert_array_equal(again.predict(x, verbose=0), predicted)
    whole = made(name, **overrides(name, **BESIDE))
    whole.set_weights(model.get_weights())
    assert (
        np.abs(whole.predict(x, verbose=0) - predicted).max() > 0 or name == "aspn"
    )  # whose layers are not in `predict`


def test_metrics_of_compile_are_evaluated_and_come_back(tmp_path):
    model, (x, y) = made("aspn"), training_rows("aspn")
    model.compile(metrics=[keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3")])
    with eagerly():
        numbers = model.evaluate(x, y, verbose=0, return_dict=True)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras").evaluate(x, y, verbose=0, return_dict=True)
    ranks = (np.argsort(-model.predict(x, verbose=0), axis=1)[:, :3] == y[:, None]).any(axis=1)
    assert (
        numbers == again == {"accuracy_at_gamma_0": numbers["accuracy_at_gamma_0"], "top3": pytest.approx(ranks.mean())}
    )


def test_the_last_rows_are_held_out_by_validation_split():
    (x, y), (one, other) = training_rows("aspn"), (made("aspn") for _ in range(2))
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order], y[order]
    with eagerly():
        split = one.fit(x, y, shuffle=False, validation_split=0.25, verbose=0).history
        first = len(y) * 3 // 4
        apart = other.fit(
            x[:first], y[:first], shuffle=False, verbose=0, validation_data=(x[first:], y[first:])
        ).history
    assert split == apart and equal(one.variables, other.variables)


def test_what_fit_cannot_take_is_one_sentence():
    model, closed, (x, y) = made("aspn", **BESIDE), made("eszsl"), training_rows("aspn")
    assert_refused(lambda: model.compile(loss="mse"), "loss: got 'mse'", "ASPN has losses of its own")
    for one in (model, closed):
        assert_refused(lambda one=one: one.fit(x, y, sample_weight=np.ones(len(y))), "sample_weight: got it")
        assert_refused(lambda one=one: one.fit(x[:, :3], y), "x: got features of shape (128, 3); wanted (N, (16,))")
        assert_refused(lambda one=one: one.fit(x), "y: got none")
        assert_refused(lambda one=one: one.fit(), "x: got NoneType; wanted arrays")
        assert_refused(lambda one=one: one.fit(x, y.astype(float)), "y: got float64 (128,); wanted a class id for each")
        assert_refused(
            lambda one=one: one.fit(iter([(x, y)])), "x: got list_iterator; wanted arrays, a tf.data.Dataset"
        )
        assert_refused(lambda one=one: one.fit(as_dataset(x, y).repeat()), "steps_per_epoch: got none")
        assert_refused(
            lambda one=one: one.fit(as_dataset(x, y), validation_split=0.5), "validation_split: got it without"
        )
    assert_refused(lambda: closed.fit(x, np.full(len(y), 9)), "y: got a row of class 9, which is not seen")
    assert_refused(lambda: closed.fit(x[y != 2], y[y != 2]), "y: got no row of class 2, which is seen")
    with eagerly():
        assert_refused(lambda: model.evaluate(x, verbose=0), "y: got none")


@pytest.mark.parametrize("count", [3, 300, 5000])
def test_of_a_dataset_evenly_spaced_rows_are_kept(count):
    model = made("eszsl")
    x = np.repeat(np.arange(count, dtype=np.float32)[:, None], 16, axis=1)
    kept = rows.stage(model, as_dataset(x, np.zeros(count, int), 37), most=conditioning.MEASURED).take(slice(None))[
        :, 0
    ]
    assert min(count, conditioning.MEASURED) <= len(kept) < 2 * conditioning.MEASURED
    assert kept[0] == 0 and len(set(np.diff(kept))) == 1 and kept[-1] > count - 2 * np.diff(kept)[0]


def test_a_third_of_the_rows_is_right():
    """`evaluate` against an example whose answers are known."""
    benchmark = tiny()
    model, (x, y) = made("eszsl", benchmark), training_rows("eszsl")
    model.fit(x, y)
    answers = model.predict(x, verbose=0).argmax(axis=1)
    wrong = np.where(np.arange(len(y)) % 3, (answers + 1) % 12, answers)
    assert model.evaluate(x, wrong, verbose=0) == pytest.approx(np.mean(np.arange(len(y)) % 3 == 0))
