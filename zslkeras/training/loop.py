"""The one training loop, for one device, several devices and several machines. It resumes bit for bit after a kill.

Keras' own `fit` fails under MultiWorkerMirroredStrategy (in its PerReplica conversion) and cannot resume bit for bit,
so the epochs run here. Callbacks, optimizers and `train_step` are Keras' own.
"""

import contextlib
import dataclasses
import functools
import json
import re
import time

import keras
import numpy as np
import tensorflow as tf

from zslkeras import atomic, graphs, structure
from zslkeras.errors import Failed, InputError, brief
from zslkeras.progress import Progress
from zslkeras.training import batches, strategies
from zslkeras.training.clock import Clock

FORMAT = 1  # of a checkpoint; a new layout gets a new number, which older code refuses
_STATE = {
    "format": int,
    "finished": bool,
    "history": [dict],
    "best": structure.OrNull(int),
    "value": structure.OrNull(float),
    "callbacks": [dict],
    "seconds?": float,
}


class _OutOfTime(Exception):
    """Another epoch does not fit into the limit."""


class Diverged(Failed):
    """A loss or a weight is not a finite number."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A judge's verdict on one state of a model.

    Attributes:
        logs: numbers for the history and the callbacks.
        value: the state with the highest value is kept; ties keep the earliest.
        arrays: kept with that state.
    """

    logs: dict
    value: float
    arrays: dict


class Run:
    """One seed in one stage: trains a model, judges each of its states, and keeps the best one.

    After `model.learn(run)` and `finish` it has `history` (one dict per state), `best` (the index of the kept state),
    `arrays` (from its verdict), `weights` (its variables) and `start` (the arrays of the untrained state, where that is
    worth judging).
    """

    def __init__(
        self,
        benchmark,
        strategy,
        judge,
        seed,
        path=None,
        states=None,
        callbacks=(),
        jit=False,
        title="",
        limit=None,
        expect=None,
    ):
        """
        Args:
            benchmark: its `train` rows are trained on.
            strategy: from `strategies.get_strategy`.
            judge: called with the model and the number of its state; returns a Verdict.
            seed: of the order of rows.
            path: the checkpoint file; None keeps nothing on disk.
            states: how many to go through, the untrained one included; None for all that the model's config has.
            callbacks: Keras callbacks.
            jit: compile the step with XLA; one device only.
            title: of the progress line.
            limit: seconds; no epoch begins that would end after them, but for one without which there is no state.
            expect: called once, in the first epoch, with the seconds that all epochs take at most.
        """
        if jit and strategy.num_replicas_in_sync > 1:
            raise InputError(f"jit: got {strategy.num_replicas_in_sync} replicas; wanted one: XLA fails under replicas")
        self.benchmark, self.strategy, self.judge, self.seed = benchmark, strategy, judge, seed
        self.path, self.jit, self.title, self.states = path, jit, title, states
        self.limit, self.expect, self.callbacks = limit, expect, list(callbacks)
        self.history, self.best, self.value, self.arrays, self.weights, self.start = [], None, -np.inf, {}, [], {}
        self.finished = False
        self._mean = []  # see `_averaged`
        self._clock = Clock()
        self._saved = self._read() if path else None
        if self._saved and self._saved["state"]["finished"]:
            self._restore_history()

    def epochs(self, model):
        """Trains epoch by epoch; `learn` calls this for models without a closed form."""
        config, strategy = model.config, self.strategy
        self.callbacks += model.schedules()
        if self._saved:
            self._restore(model)
        steps = batches.steps_per_epoch(self.benchmark, config.batch_size)
        untrained = int(model.beside is not None)  # states before the first epoch: a closed form is worth judging
        clock = self._clock = Clock(self.limit, self._saved["state"].get("seconds", 0.0) if self._saved else 0.0)
        if untrained and not self.history:
            self.score(model, {"epoch": 0})
            self.start = self.arrays
        epochs = self.states - untrained if self.states else config.epochs
        first = len(self.history) - untrained
        span = first * steps, epochs * steps
        rows = batches.training(
            self.benchmark, strategy, config.batch_size, self.seed, config.sampler, *span, model.prepare
        )

        @graphs.function(jit_compile=self.jit)
        def train_step(batch):
            strategy.run(model.train_step, args=(batch,))

        callbacks = keras.callbacks.CallbackList(self.callbacks, model=model)
        iterator = iter(rows)
        model.stop_training = False
        callbacks.on_train_begin()
        if self._saved:
            self._restore_callbacks()  # only now, because on_train_begin resets them
        with self.progress(epochs * steps, first * steps) as bar, contextlib.suppress(_OutOfTime):
            for epoch in range(first, epochs):
                began = clock.spent
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
                    if clock.stepped(steps, epochs - epoch):
                        self._expect(clock)
                # Reading a metric sums its total and its count over all replicas.
                losses = {name: float(tracker.result()) for name, tracker in model.trackers.items()}
                for name, loss in losses.items():
                    if not np.isfinite(loss):  # XLA drops the check in each step
                        raise self._diverged(name, f"in epoch {epoch + 1}")
                # A loss is computed before its step's update, so an epoch's last update shows only in the weights.
                for variable in model.trainable_variables:
                    if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                        raise self._diverged(variable.path, f"at the end of epoch {epoch + 1}")
                with self._averaged(model):
                    model.settle(self.benchmark, functools.partial(batches.scoring, self.benchmark))
                    logs = self.score(model, {"epoch": epoch + 1, **losses})
                    bar.advance(0, "  ".join(f"{k} {v:.3f}" for k, v in logs.items() if k in losses or k.endswith("H")))
                    # Callbacks get the epoch as an argument; ModelCheckpoint fails if the logs have it too.
                    callbacks.on_epoch_end(epoch, {name: value for name, value in logs.items() if name != "epoch"})
                if epoch > first:  # the first one compiles
                    clock.ended(clock.spent - began)
                if model.stop_training:
                    break
                if self.path and strategies.is_chief(strategy):
                    self._write(model)
                if epoch + 1 < epochs:
                    self._require_time(clock)
        callbacks.on_train_end()

    def _expect(self, clock):
        if self.expect:
            self.expect(clock.expected)
        if self.history:  # otherwise the first epoch goes on in any case
            self._require_time(clock)

    def _require_time(self, clock):
        """Ends the training if another epoch does not fit; all workers do as the chief's clock says."""
        if self.limit is not None and strategies.from_chief(self.strategy, {"over": float(clock.over)})["over"]:
            raise _OutOfTime

    @contextlib.contextmanager
    def _averaged(self, model):
        """Inside the `with`, the weights are in the mean over epochs that the model is judged in."""
        variables = model.averaged_variables
        trained, self._mean = _values(variables), model.averaged(self._mean, len(self.history))
        assign(variables, self._mean, self.path)
        yield
        assign(variables, trained, self.path)

    def progress(self, total, done=0):
        """The progress line of this run."""
        return Progress(self.title, total, done)

    def read(self, rows):
        """Batches of (inputs, labels) of some rows, as the judge reads them."""
        return batches.scoring(self.benchmark, rows)

    def score(self, model, logs, *scores):
        """Judges one state, keeps it if it is the best so far, and returns its logs.

        Args:
            model: in that state.
            logs: for the history, beside what the judge adds.
            *scores: [N, C] of the rows `benchmark.tested`, where `learn` knows a shorter way to them than the model.
        """
        began = time.monotonic()
        verdict = self.judge(model, len(self.history), *scores)
        self._clock.judged(time.monotonic() - began)
        numbers = strategies.from_chief(self.strategy, {**verdict.logs, "value": verdict.value})
        value = numbers.pop("value")
        if self.best is None or value > self.value:
            self.best, self.value, self.arrays = len(self.history), value, verdict.arrays
            self.weights = _values(model.variables)
        self.history.append({**logs, **numbers})
        return self.history[-1]

    def finish(self, model, keep_weights):
        """Gives the model its best state and marks this (seed, stage) as finished: it is never trained again."""
        assign(model.variables, self.weights, self.path)
        self.finished = True
        if self.path and strategies.is_chief(self.strategy):
            self._write(model, keep_weights)

    def _write(self, model, keep_weights=True):
        """Writes one file and renames it into place: a reader sees the old state or the new one, never half of one."""
        state = {
            "format": FORMAT,
            "finished": self.finished,
            "history": self.history,
            "best": self.best,
            "value": self.value,
            "callbacks": [] if self.finished else [_scalars(callback) for callback in self._kept],
        }
        if self.limit is not None and not self.finished:
            state["seconds"] = self._clock.spent
        arrays = {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
        arrays |= {f"verdict/{name}": array for name, array in self.arrays.items()}
        arrays |= {f"start/{name}": array for name, array in self.start.items()}
        if keep_weights:
            arrays |= _named("best", self.weights)
        if not self.finished:
            for number, optimizer in enumerate(_optimizers(model)):
                arrays |= _named(f"optimizer{number}", _values(optimizer.variables))
            arrays |= _named("model", _values(model.variables)) | _named("mean", self._mean)
            for number, callback in enumerate(self._kept):
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
            saved["state"] = structure.require(json.loads(saved["state"].tobytes()), {"format": int}, self.path)
            if (got := saved["state"]["format"]) != FORMAT:
                raise InputError(f"{self.path}: has format {got}; wanted {FORMAT}, which this version reads")
            state = structure.require(saved["state"], _STATE, self.path)
        except InputError:
            raise
        except Exception as error:  # NumPy and zipfile raise anything from zlib.error to TokenError
            raise self._damaged(brief(error)) from None
        if state["history"] and state["best"] not in range(len(state["history"])):
            raise self._damaged(f"best is {state['best']} of {len(state['history'])} states")
        return saved

    def _damaged(self, why):
        return InputError(f"{self.path}: damaged ({why}); delete it, and its stage is trained again")

    def _restore_history(self):
        state, saved = self._saved["state"], self._saved
        self.finished, self.history = state["finished"], state["history"]
        self.best, self.value = state["best"], state["value"]
        self.arrays, self.start = _inside(saved, "verdict/"), _inside(saved, "start/")
        self.weights = [saved[name] for name in sorted(saved) if name.startswith("best/")]

    def _restore(self, model):
        self._restore_history()
        if (got := len(self._saved["state"]["callbacks"])) < len(self._kept):
            raise self._damaged(f"it has {got} callbacks, not {len(self._kept)}")
        for number, optimizer in enumerate(_optimizers(model)):
            assign(optimizer.variables, _under(self._saved, f"optimizer{number}"), self.path)
        assign(model.variables, _under(self._saved, "model"), self.path)
        self._mean = _under(self._saved, "mean")

    @property
    def _kept(self):
        """The callbacks that checkpoints remember: all but those that say that they change nothing."""
        return [callback for callback in self.callbacks if getattr(callback, "is_kept", True)]

    def _restore_callbacks(self):
        for number, callback in enumerate(self._kept):
            vars(callback).update(self._saved["state"]["callbacks"][number])
            for name in _array_lists(callback, empty=True):
                setattr(callback, name, _under(self._saved, f"callback{number}/{name}") or getattr(callback, name))

    def _explain(self, error, step):
        """Raises the data error or the Diverged behind a TensorFlow error; any other error is raised as it is."""
        if found := re.search(r"InputError: (.*)", error.message):  # raised while a batch was read
            raise InputError(found[1]) from None
        if found := re.search(r"(\S+) : Tensor had", error.message):  # the message of check_numerics in `report`
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


def _inside(saved, folder):
    return {name.removeprefix(folder): array for name, array in saved.items() if name.startswith(folder)}


def _under(saved, prefix):
    return [saved[name] for name in sorted(saved) if name.startswith(f"{prefix}/")]


def assign(variables, values, path):
    """Gives variables their kept values; `path` is where those are from, for the sentence if they do not fit."""
    shapes, wanted = [v.shape for v in values], [tuple(v.shape) for v in variables]
    if shapes != wanted:
        raise InputError(f"{path}: got {len(shapes)} arrays that do not fit the model's {len(wanted)}; start afresh")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _scalars(callback):
    """The part of a Keras callback's state that JSON can hold, such as `wait` and `best` of EarlyStopping."""
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in vars(callback).items()}
    return {key: value for key, value in values.items() if isinstance(value, bool | int | float | None)}


def _array_lists(callback, empty=False):
    """The part that JSON cannot hold: `best_weights`. With `empty`, also if it is not set yet."""
    lists = {key: value for key, value in vars(callback).items() if isinstance(value, list) and value}
    lists = {key: value for key, value in lists.items() if all(isinstance(v, np.ndarray | np.generic) for v in value)}
    return lists | ({"best_weights": None} if empty and "best_weights" in vars(callback) else {})
