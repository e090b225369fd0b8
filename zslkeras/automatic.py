"""Which model to take: all that the data allow are compared on validation classes, in a given time.

Models on pooled features come first, because they are the fastest, then those on maps, levels and images. Each is
selected in stage tune as it would be alone. One that would take too long is left out, and the reason is told: the time
has to suffice for its own training and for stage final of the best model. The published test classes are not opened.
"""

import dataclasses
import pathlib
import time

from zslkeras import atomic, benchmarks, protocol
from zslkeras.errors import InputError
from zslkeras.evaluation import metrics, tables, uncertainty
from zslkeras.models import MODELS
from zslkeras.names import YARDSTICKS
from zslkeras.structure import Each

MINUTES = 10.0  # for all models together
_SHOWN = ("T", "U", "S", "H", "AUSUC")


class _LeftOut(Exception):
    """A model does not join in; its argument says why."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model that was compared.

    Attributes:
        experiment: how it is trained.
        choice: what stage tune decided.
        seconds: that stage tune took.
    """

    experiment: protocol.Experiment
    choice: protocol.Choice
    seconds: float

    @property
    def numbers(self):
        """{metric: value} on the validation classes at the chosen state and gamma."""
        return metrics.numbers(self.choice.outcomes, self.choice.gamma)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        candidates: {name of a model: Candidate}, the best one first.
        left_out: {name of a model: reason}.
    """

    candidates: dict
    left_out: dict

    @property
    def best(self):
        """The Experiment of the model with the highest AUSUC on the validation classes."""
        return next(iter(self.candidates.values())).experiment

    @property
    def choice(self):
        """Its Choice, for `protocol.finish`."""
        return next(iter(self.candidates.values())).choice

    @property
    def verdict(self):
        """How the best model stands to the yardsticks on validation classes, in sentences."""
        name = self.best.model
        sentences = [f"{name} is the best on validation classes."]
        for other in YARDSTICKS:
            if other == name or other not in self.candidates:
                continue
            versus = _versus(self.candidates[name], self.candidates[other])
            sentences += [tables.in_words(name, tables.label(other), m, versus[m]) for m in "TH"]
        return "\n".join(sentences)

    @property
    def table(self):
        """All candidates on validation classes, and what was left out, as text."""
        rows = []
        for name, one in self.candidates.items():
            cells = [tables.percent(one.numbers[metric]) for metric in _SHOWN]
            rows.append((tables.label(name), [*cells, tables.duration(one.seconds)]))
        lines = [tables.grid("on validation classes, percent", [*_SHOWN, "time"], rows)]
        return "\n".join([*lines, *(f"left out: {name}: {reason}" for name, reason in self.left_out.items())])


def any_stage(data):
    """Stage tune as the fastest models that the data allow read it: for a heading, and to know the data again.

    Args:
        data: a protocol.Data.
    """
    first = None
    for kind in benchmarks.KINDS:
        try:
            return data.load("tune", kind)
        except InputError as error:
            first = first or error
    raise first


def compare(data, machine, minutes=MINUTES, seed=0, out=None, say=print, weights=None):
    """Selects every model that the data allow and the time suffices for, in stage tune.

    Args:
        data: a protocol.Data.
        machine: a Machine to train on.
        minutes: for all of them, and for stage final of the best one.
        seed: of the draws.
        out: a folder, in which a comparison that was killed goes on; None to keep nothing.
        say: called with each line about the progress.
        weights: of the backbone, for models that have one; None for their default.

    Returns:
        A Comparison.
    """
    book = _Book(out and pathlib.Path(out) / "auto.json", 60 * minutes)
    candidates, left_out = {}, {}
    for name in sorted(MODELS, key=lambda name: (benchmarks.KINDS.index(MODELS[name].eats), name)):
        config, began = MODELS[name].Config(), time.monotonic()
        if weights and hasattr(config, "weights"):
            config = dataclasses.replace(config, weights=weights)
        folder = out and pathlib.Path(out) / name
        experiment = protocol.Experiment(name, config, data, machine, folder, logs=False)
        try:
            book.require_not_left_out(name)
            choice = protocol.select(experiment, seed, expect=book.require_time)
        except (InputError, _LeftOut) as error:
            left_out[name] = book.leave_out(name, str(error))
            say(f"{name} is left out: {error}")
            continue
        one = candidates[name] = Candidate(experiment, choice, book.enter(name, time.monotonic() - began))
        H = tables.percent(one.numbers["H"])
        say(f"{name}: H {H} on validation classes, {tables.duration(one.seconds)}")
    if not candidates:
        raise InputError(f"dataset: no model can be trained on {data.name}: {next(iter(left_out.values()))}")
    order = sorted(candidates, key=lambda name: candidates[name].choice.area, reverse=True)
    return Comparison({name: candidates[name] for name in order}, left_out)


_ENTRIES = Each({"tune?": float, "after?": float, "left_out?": str})


class _Book:
    """How long each model took, or why it was left out: on disk, so that a comparison that goes on decides alike."""

    def __init__(self, path, limit):
        """
        Args:
            path: of the JSON file; None to keep nothing.
            limit: seconds for everything.
        """
        self.path, self.limit = path, limit
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.entries = atomic.read_json(path, _ENTRIES) if path else {}
        self._final = None  # seconds that stage final of the present model is expected to take

    def require_not_left_out(self, name):
        if reason := self.entries.get(name, {}).get("left_out"):
            raise _LeftOut(reason)

    def require_time(self, tune, final):
        """Ends the training of a model that would not be ready in time, with the seconds that its stages will take."""
        self._final = final
        left = self.limit - sum(entry.get("tune", 0.0) for entry in self.entries.values())
        longest = max([final, *(entry.get("after", 0.0) for entry in self.entries.values())])
        if tune + longest > left:
            needed, left = tables.duration(tune + longest), tables.duration(max(left, 0.0))
            raise _LeftOut(f"about {needed} with the final training; {left} are left")

    def enter(self, name, seconds):
        """Notes that a model took `seconds` in stage tune; returns what was noted first."""
        final, self._final = self._final or seconds, None
        return self._note(name, {"tune": seconds, "after": final})["tune"]

    def leave_out(self, name, reason):
        return self._note(name, {"left_out": reason})["left_out"]

    def _note(self, name, entry):
        entry = self.entries.setdefault(name, entry)
        if self.path:
            atomic.write_json(self.path, self.entries)
        return entry


def _versus(one, other):
    """A Candidate against another one, paired by class."""
    sides = ([(each.choice.outcomes, each.choice.gamma)] for each in (one, other))
    return uncertainty.versus([tuple(sides)])
