"""What methods in closed form share: they have settings to choose from in place of epochs, and `fit` solves."""

import dataclasses
import itertools
import math

import keras

from zslkeras.errors import InputError
from zslkeras.models import rows
from zslkeras.models.base import ZeroShotModel


class Solved(ZeroShotModel):
    """Base of methods in closed form. Their config has tuples of values, of which stage tune chooses."""

    default_seeds = 1  # nothing in them is drawn

    def solutions(self, stage):
        """Solves for each setting in turn, and yields it, {name: value}, while the model holds its solution."""
        raise NotImplementedError

    @property
    def number_of_settings(self):
        return math.prod(len(values) for values in self._tried().values())

    def learn(self, run):
        solved = self.scored_solutions(run)
        if not len(run.benchmark.tested):  # then there is nothing to score
            solved = ((state,) for state in self.solutions(run.benchmark))
        with run.progress(run.states or self.number_of_settings) as bar:
            for state, *scores in itertools.islice(solved, run.states):
                run.score(self, state, *scores)
                bar.advance()

    def scored_solutions(self, run):
        """Yields each setting as `solutions` does, and the scores [N, C] of the rows `benchmark.tested`, where there is
        a shorter way to them than the model's."""
        return ((state,) for state in self.solutions(run.benchmark))

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        **options,
    ):
        """Solves on all rows at once; the arguments are those of Keras' `fit`.

        The config must have one value of each setting, as there are no validation classes to choose on. A closed form
        has no epochs: `batch_size`, `epochs` and `shuffle` change nothing.

        Args:
            x, y: arrays [N, ...] and class ids [N]; or a dataset of batches (inputs, labels) alone.
            callbacks: get the beginning and the end of the one epoch.
            **options: `validation_data` is evaluated once; `steps_per_epoch` are read of a dataset without an end.

        Returns:
            Keras' History, with one epoch.
        """
        if several := {name: values for name, values in self._tried().items() if len(values) != 1}:
            name, values = next(iter(several.items()))
            wanted = f"one value of {', '.join(several)} in {type(self.config).__name__}"
            chosen = "zslkeras.fit chooses among several on validation classes"
            raise InputError(f"{name}: got {len(values)} values; wanted {wanted}; {chosen}")
        x, y, options = rows.given(self, x, y, options)
        stage = rows.stage(self, x, y, options.get("steps_per_epoch"))
        callbacks = keras.callbacks.CallbackList(callbacks, add_history=True, model=self, epochs=1, steps=1)
        self.stop_training = False
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(0)
        for _ in self.solutions(stage):
            pass
        logs = {}
        if (data := options.get("validation_data")) is not None:
            data = data if isinstance(data, tuple | list) else (data,)
            numbers = self.evaluate(*data[:2], callbacks=callbacks, return_dict=True)
            logs = {f"val_{name}": value for name, value in numbers.items()}
        callbacks.on_epoch_end(0, logs)
        callbacks.on_train_end(logs)
        return self.history

    def train_step(self, data):
        raise InputError(f"{type(self).__name__}: has no training steps; wanted fit(x, y), which solves")

    def _tried(self):
        values = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(self.config)}
        return {name: value for name, value in values.items() if isinstance(value, tuple)}

    def _how_to_learn(self):
        return "fit(x, y)"
