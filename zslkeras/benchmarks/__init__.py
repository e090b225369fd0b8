"""The only door to data: `load` reads one stage of one benchmark, whatever it is stored in."""

import dataclasses
import inspect
import os
import pathlib

import numpy as np

from zslkeras.benchmarks import folder, shapes, xlsa
from zslkeras.benchmarks.benchmark import KINDS, STAGES, Benchmark, tune_stage
from zslkeras.errors import InputError
from zslkeras.images import store

__all__ = ["Benchmark", "decoded", "default_root", "load", "pictures", "tune_stage"]


def default_root():
    """Where data lies unless told otherwise: $ZSLKERAS_DATA, then ./data."""
    return pathlib.Path(os.environ.get("ZSLKERAS_DATA") or "data")


def load(name, root=None, stage="tune", inputs="features", fold=0, **options):
    """Reads one stage of a benchmark.

    Args:
        name: "shapes", one of the field's six (any case), or the path of your own folder of pictures.
        root: the data root; `default_root()` if None.
        stage: "tune", where everything is chosen, or "final", the published split.
        inputs: one of "features", "maps", "levels", "images": what the model eats.
        fold: of stage "tune": 0 for the published validation classes, k for a further draw.
        **options: what the reader takes (see `xlsa.read`, `folder.read`, `shapes.read`); None means its default.

    Returns:
        A Benchmark.
    """
    if stage not in STAGES:
        raise InputError(f"stage: got {stage!r}; wanted one of {', '.join(STAGES)}")
    if inputs not in KINDS:
        raise InputError(f"inputs: got {inputs!r}; wanted one of {', '.join(KINDS)}")
    read = _reader(name).read
    final = read(name, pathlib.Path(root) if root else default_root(), inputs, **_known(read, name, options))
    return tune_stage(final, fold) if stage == "tune" else final


def decoded(benchmark, image_size):
    """The benchmark with the pixels of its pictures where it had paths: see `store.decoded`; any other as it is."""
    if benchmark.kind != "images" or benchmark.inputs.dtype == np.uint8:
        return benchmark
    return dataclasses.replace(benchmark, inputs=store.decoded(benchmark.inputs, image_size))


def pictures(name, root=None, **options):
    """The pictures of a benchmark in the order of its rows, which features are made of.

    Args:
        name, root: as for `load`.
        **options: what `xlsa.pictures` or `folder.pictures` takes; None means its default.

    Returns:
        files.Pictures.
    """
    reader = _reader(name)
    if reader is shapes:
        raise InputError("dataset: got shapes, which needs no preparation; wanted a benchmark of photographs")
    options = _known(reader.pictures, name, options)
    return reader.pictures(name, pathlib.Path(root) if root else default_root(), **options)


def _known(function, name, options):
    """The options that are set; refuses those that the function does not take."""
    options = {key: value for key, value in options.items() if value is not None}
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in options:
        if key not in known:
            raise InputError(f"--{key} has no meaning for dataset {name}; it takes {', '.join(known) or 'no options'}")
    return options


def _reader(name):
    if name.lower() == "shapes":
        return shapes
    if os.sep in name or name in (os.curdir, os.pardir):
        return folder
    if name.upper() in xlsa.NAMES:
        return xlsa
    raise InputError(
        f"dataset: got {name!r}; wanted shapes, {', '.join(n.lower() for n in xlsa.NAMES)}, "
        "or the path of a folder with one sub-folder of pictures a class (written with a slash: ./flowers)"
    )
