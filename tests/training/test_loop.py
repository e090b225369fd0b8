"""The loop with Keras' own callbacks, losses that diverge, and checkpoints that do not fit."""

import contextlib
import dataclasses
import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support import damage
from tests.support.example import Example, ExampleConfig
from tests.support.tiny import tiny
from zslkeras.errors import InputError
from zslkeras.training import batches
from zslkeras.training.loop import Diverged, Run, Verdict

TINY = tiny()  # 128 training rows: 4 steps an epoch
VALUES = [1.0, 3.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]  # of the states


def judge(model, state):
    return Verdict({"val_H": VALUES[state]}, VALUES[state], {"state": np.array(state)})


def made(**config):
    keras.utils.set_random_seed(0)
    model = Example.for_benchmark(TINY, ExampleConfig(**{"batch_size": 32, "epochs": 4} | config))
    model.compile()
    return model


def trained(path=None, callbacks=(), epochs=None, jit=False, benchmark=TINY, **config):
    """A model and its run after the last epoch; nothing is finished."""
    model = made(**config)
    run = Run(benchmark, tf.distribute.get_strategy(), judge, 0, path, epochs, callbacks, jit)
    model.learn(run)
    return model, run


def assert_equal_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def early_stopping():
    return keras.callbacks.EarlyStopping("val_H", patience=3, mode="max", restore_best_weights=True)


@pytest.fixture(scope="module")
def stopped_early():
    return trained(callbacks=[early_stopping()], epochs=8)


def test_early_stopping_stops(stopped_early):
    model, run = stopped_early
    assert len(run.history) == 5  # the best is the second; the fourth is only equal
    assert_equal_weights(model, trained(epochs=2)[0])


@pytest.mark.parametrize("epochs_before", [1, 3, 4])
def test_early_stopping_survives_a_resume(epochs_before, stopped_early, tmp_path):
    unbroken, whole = stopped_early
    trained(tmp_path / "run.npz", [early_stopping()], epochs=epochs_before)
    resumed, run = trained(tmp_path / "run.npz", [early_stopping()], epochs=8)
    assert run.history == whole.history and len(run.history) == 5
    assert_equal_weights(resumed, unbroken)  # those of the second epoch, which a resumed process never saw


def test_the_learning_rate_is_scheduled_each_epoch_and_resumed(tmp_path):
    rates = {}

    class Rates(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rates[epoch] = float(self.model.optimizer.learning_rate)

    def callbacks():
        return [keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / 2**epoch), Rates()]

    unbroken, _ = trained(callbacks=callbacks(), epochs=3)
    assert rates == pytest.approx({0: 0.1, 1: 0.05, 2: 0.025})
    trained(tmp_path / "run.npz", callbacks(), epochs=1)
    rates.clear()
    resumed, _ = trained(tmp_path / "run.npz", callbacks(), epochs=3)
    assert rates == pytest.approx({1: 0.05, 2: 0.025})
    assert_equal_weights(resumed, unbroken)


def test_model_checkpoint_writes_models_that_load(tmp_path):
    path = tmp_path / "epoch{epoch}.keras"
    model, _ = trained(callbacks=[keras.callbacks.ModelCheckpoint(path)], epochs=2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["epoch1.keras", "epoch2.keras"]
    assert_equal_weights(keras.models.load_model(tmp_path / "epoch2.keras"), model)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_is_judged_and_kept_is_the_mean_of_the_epochs(share):
    ends, judged = [], []

    class Ends(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                ends.append(self.model.get_weights())

    def remember(model, state):
        judged.append(model.get_weights())
        return judge(model, state)

    model = made(averaging=share)
    run = Run(TINY, tf.distribute.get_strategy(), remember, 0, states=3, callbacks=[Ends()])
    model.learn(run)
    plain, _ = trained(epochs=3)
    assert_equal_weights(model, plain)  # it is trained as if there were no mean
    for state in range(3):
        shares = share ** np.arange(state, -1, -1.0)
        for one, *values in zip(judged[state], *ends[: state + 1], strict=True):
            counts = np.issubdtype(one.dtype, np.integer)  # how many draws were made
            expected = values[-1] if counts else np.average(np.array(values, np.float64), axis=0, weights=shares)
            np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-7)
    run.finish(model, keep_weights=True)
    for one, kept in zip(model.get_weights(), judged[1], strict=True):  # the best is the second
        np.testing.assert_array_equal(one, kept)


def test_the_mean_of_the_epochs_survives_a_resume(tmp_path):
    _, whole = trained(epochs=4, averaging=0.8)
    trained(tmp_path / "run.npz", epochs=2, averaging=0.8)
    _, resumed = trained(tmp_path / "run.npz", epochs=4, averaging=0.8)
    assert resumed.history == whole.history
    for one, other in zip(resumed._mean, whole._mean, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tensorboard_shows_the_losses_of_each_epoch(tmp_path):
    _, run = trained(callbacks=[keras.callbacks.TensorBoard(tmp_path, write_graph=False)], epochs=2)
    events = EventAccumulator(str(tmp_path / "train"), {"tensors": 0}).Reload()
    for name in ("loss", "entropy"):
        shown = [tf.make_ndarray(event.tensor_proto) for event in events.Tensors(f"epoch_{name}")]
        np.testing.assert_allclose(shown, [logs[name] for logs in run.history], rtol=1e-6)


def test_a_callback_that_changes_nothing_may_come_and_go(tmp_path):
    class Watches(keras.callbacks.Callback):
        is_kept, seen = False, [np.zeros(3)]

    halving = lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / 2**epoch)  # noqa: E731
    unbroken, _ = trained(callbacks=[halving()], epochs=3)
    trained(tmp_path / "run.npz", [halving()], epochs=1)
    trained(tmp_path / "run.npz", [Watches(), halving()], epochs=2)
    resumed, _ = trained(tmp_path / "run.npz", [halving()], epochs=3)
    assert_equal_weights(resumed, unbroken)


def test_callbacks_hear_of_every_step():
    heard, epoch = [], ["epoch_begin", *["train_batch_begin", "train_batch_end"] * 4, "epoch_end"]

    class Ears(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            for when in ("train_begin", "train_end", *epoch):
                setattr(self, f"on_{when}", lambda *args, when=when, **kwargs: heard.append(when))

    trained(callbacks=[Ears()], epochs=2)
    assert heard == ["train_begin", *epoch, *epoch, "train_end"]


def test_a_loss_that_is_not_finite_is_named_and_the_checkpoint_kept(tmp_path):
    good, _ = trained(tmp_path / "good.npz", epochs=1)
    with pytest.raises(Diverged, match=r"^loss is not a finite number at step 6; the last good .* is .*run\.npz$"):
        trained(tmp_path / "run.npz", epochs=2, explode_at=5)
    with np.load(tmp_path / "run.npz") as file, np.load(tmp_path / "good.npz") as expected:
        assert file.files == expected.files
        for name in file.files:
            np.testing.assert_array_equal(file[name], expected[name])
    with pytest.raises(Diverged, match="^loss is not a finite number at step 1; no checkpoint yet$"):
        trained(tmp_path / "other.npz", explode_at=0)


def test_xla_leaves_out_the_check_of_a_step_but_not_that_of_an_epoch():
    with pytest.raises(Diverged, match="^loss is not a finite number in epoch 2; no checkpoint yet$"):
        trained(explode_at=5, jit=True)


def test_a_row_that_is_not_finite_is_one_sentence():
    row = batches.epoch_rows(TINY, 32, 0, 0)[2, 5]
    inputs = TINY.inputs.copy()
    inputs[row, 3] = np.nan
    with pytest.raises(InputError, match=f"^tiny: inputs: nan at row {row}, position 3; wanted finite numbers$"):
        trained(benchmark=dataclasses.replace(TINY, inputs=inputs))


def test_the_best_state_is_kept_and_of_equals_the_first(tmp_path):
    second, _ = trained(epochs=2)
    model, run = trained(tmp_path / "run.npz")  # values 1 3 2 3
    assert (run.best, run.value, run.arrays["state"]) == (1, 3.0, 1)
    with pytest.raises(AssertionError):
        assert_equal_weights(model, second)
    run.finish(model, keep_weights=True)
    assert_equal_weights(model, second)
    again = Run(TINY, tf.distribute.get_strategy(), judge, 0, tmp_path / "run.npz")
    assert again.finished and again.best == 1 and again.history == run.history
    for a, b in zip(again.weights, second.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_xla_trains_to_nearly_the_same_weights():
    plain, _ = trained(epochs=2, optimizer="sgd")
    start = made(optimizer="sgd")
    compiled, _ = trained(epochs=2, optimizer="sgd", jit=True)
    for a, b in zip(plain.get_weights(), compiled.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert max(np.abs(a - c).max() for a, c in zip(plain.get_weights(), start.get_weights(), strict=True)) > 0.01


def test_xla_with_replicas_is_refused():
    with pytest.raises(InputError, match="jit: got 2 replicas; wanted one"):
        Run(TINY, types.SimpleNamespace(num_replicas_in_sync=2), judge, 0, jit=True)


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
    trained(tmp_path / "run.npz", epochs=1)
    with pytest.raises(InputError, match=r"run\.npz: got \d+ arrays that do not fit the model's \d+; start afresh"):
        trained(tmp_path / "run.npz", epochs=2, hidden=8)


def test_noise_goes_on_where_a_resumed_run_stopped(tmp_path):
    unbroken, _ = trained(epochs=2, noise_weight=0.1)
    trained(tmp_path / "run.npz", epochs=1, noise_weight=0.1)
    resumed, _ = trained(tmp_path / "run.npz", epochs=2, noise_weight=0.1)
    assert_equal_weights(resumed, unbroken)
    assert int(resumed.draws.numpy()) == 8


def test_keras_fit_trains_too():
    model = made()
    before = model.get_weights()
    rows = TINY.train
    history = model.fit(TINY.inputs[rows], TINY.labels[rows], batch_size=32, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert max(np.abs(a - b).max() for a, b in zip(model.get_weights(), before, strict=True)) > 0.01


@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, finished):
    path = tmp_path / "run.npz"
    model, run = trained(path, [early_stopping()], epochs=1)
    if finished:
        run.finish(model, keep_weights=True)
    with np.load(path) as file:
        arrays = dict(file)
    state = json.loads(arrays["state"].tobytes())

    def read(changed):
        np.savez(path, **changed)
        again = Run(TINY, tf.distribute.get_strategy(), judge, 0, path, 1, [early_stopping()])
        if not again.finished:
            again._restore(made())

    def read_state(state):
        read(arrays | {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)})

    read_state(state)
    refused = damage.refusals(state, read_state)
    assert {f"no {key}" for key in state} <= set(refused)
    assert "best is 1.5; wanted a whole number or null" in refused["best: 1.5"]
    for name in arrays if not finished else ():
        if name.startswith(("model/", "optimizer")):
            with pytest.raises(InputError, match="do not fit"):
                read(arrays | {name: np.zeros((1, 2, 3), np.float32)})


def test_a_checkpoint_with_a_flipped_bit_is_read_or_refused(tmp_path):
    path = tmp_path / "run.npz"
    trained(path, epochs=1)
    content, generator = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        flipped = bytearray(content)
        flipped[generator.integers(len(content))] ^= 1 << generator.integers(8)
        path.write_bytes(flipped)
        with contextlib.suppress(InputError):
            Run(TINY, tf.distribute.get_strategy(), judge, 0, path, 1)
