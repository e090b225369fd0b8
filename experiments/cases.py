"""Where data are read from: by the flags of data, and by a file of benchmarks that names draws of them."""

import dataclasses
import pathlib

from zslkeras import atomic, protocol, weighing
from zslkeras.cli import flags
from zslkeras.errors import InputError

# Where no file of benchmarks is given: three draws of images, classes and split.
_SHAPES = {"shapes": [{"dataset": "shapes", "draw": draw} for draw in (3, 5, 10)]}


@dataclasses.dataclass(frozen=True)
class Case:
    """A draw of validation classes of one case of a benchmark."""

    benchmark: str
    flags: dict
    fold: int

    @property
    def said(self):
        """Its flags: the same wherever the data lie."""
        return {name: pathlib.Path(str(one)).name for name, one in sorted(self.flags.items()) if name != "data_root"}

    @property
    def key(self):
        """Its name in a file."""
        return " ".join(f"{name}={value}" for name, value in {**self.said, "fold": self.fold}.items())

    @property
    def data(self):
        return flags.Data(**self.flags)


def source(data):
    """Where the stages of a benchmark are read from: a protocol.Data of the flags of data."""
    return weighing.chosen(protocol.Data(**data.arguments()))


def read(file, folds):
    """Every draw of validation classes of the benchmarks in a JSON file, {name: [{flag of data: value}, ...]}.

    Args:
        file: its path; None for `shapes` alone.
        folds: numbers of the draws for each case.
    """
    asked = _SHAPES
    if file:
        path = pathlib.Path(file)
        asked = atomic.read_json(path)
        if not asked:
            raise InputError(f"benchmarks: no file {path}; wanted JSON, {{name: [{{flag of data: value}}, ...]}}")
    known, cases = flags.names_of(flags.Data), []
    for name, several in asked.items():
        for one in several if isinstance(several, list) else [several]:
            wrong = set(one) - set(known) if isinstance(one, dict) else {one}
            if wrong or "dataset" not in one:
                raise InputError(f"benchmarks: {name} has {one!r}; wanted dataset and any of {', '.join(known)}")
            cases += [Case(name, one, fold) for fold in folds]
    return cases
