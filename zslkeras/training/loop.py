"""The one training loop, on one device, on several and on several machines; a killed training resumes bit for bit.

Keras' own `fit` fails under MultiWorkerMirroredStrategy (its PerReplica conversion), and cannot resume bit for bit, so
the epochs are driven here; callbacks, optimizers and `train_step` are Keras' own.
"""

import contextlib
import dataclasses
import json
import re
import zipfile

import keras
import numpy as np
import tensorflow as tf

from zslkeras import atomic
from zslkeras.errors import Failed, InputError
from zslkeras.progress import Progress
from zslkeras.training import batches, strategies


FORMAT = 1  # of a checkpoint; another number is another layout, and no older code reads it


class Diverged(Failed):
    """A loss that is not a finite number."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a judge says of one state of a model.

    Attributes:
        logs: numbers for the history and the callbacks.
        value: the state with the highest is kept; ties keep the earliest.
        arrays: kept with it.
    """

    logs: dict
    value: float
    arrays: dict


class Run:
    """One seed in one stage: trains through the states of a model, has each judged, and keeps the best.

    After `model.learn(run)` and `finish`: `history` (a dict a state), `best` (the index of the state kept), `arrays`
    (its verdict's), `weights` (its variables).
    """

    def __init__(self, benchmark, strategy, judge, seed, path=None, epochs=None, callbacks=(), jit=False, title=""):
        """
        Args:
            benchmark: whose `train` rows are learned.
            strategy: from `strategies.get_strategy`.
            judge: called with the model after each state, returns a Verdict.
            seed: of the order of rows.
            path: the checkpoint file; None keeps nothing on disk.
            epochs: how many; the model's config says if None.
            callbacks: Keras callbacks.
            jit: compile the step with XLA; one device only.
            title: of the progress line.
        """
        if jit and strategy.num_replicas_in_sync > 1:
            raise InputError(f"jit: got {strategy.num_replicas_in_sync} replicas; wanted one: XLA fails under replicas")
        self.benchmark, self.strategy, self.judge, self.seed = benchmark, strategy, judge, seed
        self.path, self.jit, self.title, self._epochs = path, jit, title, epochs
        self.callbacks = list(callbacks)
        self.history, self.best, self.value, self.arrays, self.weights = [], None, -np.inf, {}, []
        self.finished = False
        self._mean = []  # see `_averaged`
        self._saved = self._read() if path else None
        if self._saved and self._saved["state"]["finished"]:
            self._restore_history()

    def epochs(self, model):
        """Trains epoch after epoch: what `learn` does for a model without a closed form."""
        config, strategy = model.config, self.strategy
        if self._saved:
            self._restore(model)
        steps = batches.steps_per_epoch(self.benchmark, config.batch_size)
        epochs, first = self._epochs or config.epochs, len(self.history)
        span = first * steps, epochs * steps
        rows = batches.training(
            self.benchmark, strategy, config.batch_size, self.seed, config.sampler, *span, model.prepare
        )

        @tf.function(jit_compile=self.jit)
        def train_step(batch):
            strategy.run(model.train_step, args=(batch,))

        callbacks = keras.callbacks.CallbackList(self.callbacks, model=model)
        iterator = iter(rows)
        model.stop_training = False
        callbacks.on_train_begin()
        if self._saved:
            self._restore_callbacks()  # only now: on_train_begin sets them back to their start
        with self.progress(epochs * steps, first * steps) as bar:
            for epoch in range(first, epochs):
                model.reset_metrics()
                callbacks.on_epoch_begin(epoch)
                for step in range(steps):
                    callbacks.on_train_batch_begin(step)
                    try:
                        train_step(next(iterator))
                    except tf.errors.InvalidArgumentError as error:
                        self._explain(error, epoch * steps + step)
                    callbacks.on_train_batch_end(step)
                    bar.advance()
                # Read across replicas: each metric's total and count are summed over all of them.
                losses = {name: float(tracker.result()) for name, tracker in model.trackers.items()}
                for name, loss in losses.items():
                    if not np.isfinite(loss):  # XLA leaves out the check of each step
                        raise self._diverged(name, f"in epoch {epoch + 1}")
                # A loss is that before its step: the last step of an epoch shows in the weights alone.
                for variable in model.trainable_variables:
                    if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                        raise self._diverged(variable.path, f"at the end of epoch {epoch + 1}")
                with self._averaged(model):
                    logs = self.score(model, {"epoch": epoch + 1, **losses})
                    bar.advance(0, "  ".join(f"{k} {v:.3f}" for k, v in logs.items() if k in losses or k.endswith("H")))
                    # Callbacks are told the epoch already; ModelCheckpoint fails on hearing it twice.
                    callbacks.on_epoch_end(epoch, {name: value for name, value in logs.items() if name != "epoch"})
                if model.stop_training:
                    break
                if self.path and strategies.is_chief(strategy):
                    self._write(model)
        callbacks.on_train_end()

    @contextlib.contextmanager
    def _averaged(self, model):
        """Within, the model's weights are their mean over the ends of epochs, where its config asks for `averaging`: how
        much each epoch counts relative to the next. What is judged then varies less than what is trained."""
        share = getattr(model.config, "averaging", 0.0)
        if not share:
            yield
            return
        variables = [variable for variable in model.variables if "float" in variable.dtype]  # a counter has no mean
        trained = _values(variables)
        weight = 1.0 / sum(share**age for age in range(len(self.history) + 1))
        self._mean = [m + weight * (new - m) for m, new in zip(self._mean or trained, trained, strict=True)]
        _assign(variables, self._mean, self.path)
        yield
        _assign(variables, trained, self.path)

    def progress(self, total, done=0):
        """The line that tells how far this run is."""
        return Progress(self.title, total, done)

    def score(self, model, logs):
        """Has one state judged and keeps it if it is the best; returns all logs of it."""
        verdict = self.judge(model, len(self.history))
        numbers = strategies.from_chief(self.strategy, {**verdict.logs, "value": verdict.value})
        value = numbers.pop("value")
        if self.best is None or value > self.value:
            self.best, self.value, self.arrays = len(self.history), value, verdict.arrays
            self.weights = _values(model.variables)
        self.history.append({**logs, **numbers})
        return self.history[-1]

    def finish(self, model, keep_weights):
        """Gives the model its best state and marks this (seed, stage) as never to be trained again."""
        _assign(model.variables, self.weights, self.path)
        self.finished = True
        if self.path and strategies.is_chief(self.strategy):
            self._write(model, keep_weights)

    def _write(self, model, keep_weights=True):
        """One file, renamed into place: a reader sees the old state or the new one, never half of one."""
        state = {
            "format": FORMAT,
            "finished": self.finished,
            "history": self.history,
            "best": self.best,
            "value": self.value,
            "callbacks": [] if self.finished else [_scalars(callback) for callback in self.callbacks],
        }
        arrays = {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
        arrays |= {f"verdict/{name}": array for name, array in self.arrays.items()}
        if keep_weights:
            arrays |= _named("best", self.weights)
        if not self.finished:
            for number, optimizer in enumerate(_optimizers(model)):
                arrays |= _named(f"optimizer{number}", _values(optimizer.variables))
            arrays |= _named("model", _values(model.variables)) | _named("mean", self._mean)
            for number, callback in enumerate(self.callbacks):
                for name, values in _array_lists(callback).items():
                    arrays |= _named(f"callback{number}/{name}", values)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(self.path) as draft, open(draft, "wb") as file:
            np.savez(file, **arrays)
        if self.finished:
            atomic.sweep(self.path)

    def _read(self):
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                saved = {name: file[name] for name in file.files}
            saved["state"] = json.loads(saved["state"].tobytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.path}: damaged ({error}); delete it, and its stage is trained again") from None
        if saved["state"].get("format") != FORMAT:
            got = saved["state"].get("format")
            raise InputError(f"{self.path}: has format {got}; wanted {FORMAT}, which this version reads")
        return saved

    def _restore_history(self):
        state, saved = self._saved["state"], self._saved
        self.finished, self.history = state["finished"], state["history"]
        self.best, self.value = state["best"], state["value"]
        self.arrays = {name.removeprefix("verdict/"): saved[name] for name in saved if name.startswith("verdict/")}
        self.weights = [saved[name] for name in sorted(saved) if name.startswith("best/")]

    def _restore(self, model):
        self._restore_history()
        for number, optimizer in enumerate(_optimizers(model)):
            _assign(optimizer.variables, _under(self._saved, f"optimizer{number}"), self.path)
        _assign(model.variables, _under(self._saved, "model"), self.path)
        self._mean = _under(self._saved, "mean")

    def _restore_callbacks(self):
        for number, callback in enumerate(self.callbacks):
            vars(callback).update(self._saved["state"]["callbacks"][number])
            for name in _array_lists(callback, empty=True):
                setattr(callback, name, _under(self._saved, f"callback{number}/{name}") or getattr(callback, name))

    def _explain(self, error, step):
        """Raises what an error of TensorFlow is about, where it is about the data or a loss."""
        if found := re.search(r"InputError: (.*)", error.message):  # raised while a batch was read
            raise InputError(found[1]) from None
        if found := re.search(r"(\S+) : Tensor had", error.message):  # what check_numerics says in `report`
            raise self._diverged(found[1], f"at step {step + 1}") from None
        raise error

    def _diverged(self, loss, when):
        kept = f"the last good checkpoint is {self.path}" if self.path and self.path.exists() else "no checkpoint yet"
        return Diverged(f"{loss} is not a finite number {when}; {kept}")


def _optimizers(model):
    return [value for _, value in sorted(vars(model).items()) if isinstance(value, keras.optimizers.Optimizer)]


def _values(variables):
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _named(prefix, values):
    return {f"{prefix}/{i:04d}": value for i, value in enumerate(values)}


def _under(saved, prefix):
    return [saved[name] for name in sorted(saved) if name.startswith(f"{prefix}/")]


def _assign(variables, values, path):
    shapes, wanted = [v.shape for v in values], [tuple(v.shape) for v in variables]
    if shapes != wanted:
        raise InputError(f"{path}: got {len(shapes)} arrays that do not fit the model's {len(wanted)}; start afresh")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _scalars(callback):
    """The state of a Keras callback as far as JSON holds it: `wait` and `best` of EarlyStopping and its like."""
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in vars(callback).items()}
    return {key: value for key, value in values.items() if isinstance(value, bool | int | float | None)}


def _array_lists(callback, empty=False):
    """The rest of it: `best_weights`. With `empty`, also where it is not set yet."""
    lists = {key: value for key, value in vars(callback).items() if isinstance(value, list) and value}
    lists = {key: value for key, value in lists.items() if all(isinstance(v, np.ndarray | np.generic) for v in value)}
    return lists | ({"best_weights": None} if empty and "best_weights" in vars(callback) else {})
