"""The only way to data: `load` reads one stage of one benchmark, whatever files it is in."""

import dataclasses
import inspect
import os
import pathlib
from typing import Any

import numpy as np

from zslkeras.benchmarks import files, folder, shapes, xlsa
from zslkeras.benchmarks.arrays import from_arrays
from zslkeras.benchmarks.benchmark import KINDS, STAGES, Benchmark, tune_stage
from zslkeras.errors import InputError
from zslkeras.images import store
from zslkeras.names import BENCHMARKS

__all__ = ["Benchmark", "decoded", "default_root", "from_arrays", "load", "pictures", "takes", "tune_stage"]


def default_root():
    """The data root if none is given: $ZSLKERAS_DATA, then ./data."""
    return pathlib.Path(os.environ.get("ZSLKERAS_DATA") or "data")


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    stage: str = "tune",
    inputs: str = "features",
    fold: int = 0,
    **options: Any,
) -> Benchmark:
    """Reads one stage of a benchmark.

    Args:
        name: "shapes", one of the field's six (any case), or the path of your own folder, with a slash in it. The
            folder has either sub-folders of images and a table of classes, which `folder` reads, or att_splits.mat
            beside feature files, the field's own format, which `xlsa` reads. If it has both a table and splits, the
            option `classes` or `splits` says which.
        root: the data root; `default_root()` if None.
        stage: "tune", in which everything is chosen, or "final", the published split.
        inputs: one of "features", "maps", "levels", "images": what the model takes.
        fold: of stage "tune": 0 for the published validation classes, k for a further draw.
        **options: options of the reader (see `xlsa.read`, `folder.read`, `shapes.read`); None means its default.

    Returns:
        A Benchmark.
    """
    if stage not in STAGES:
        raise InputError(f"stage: got {stage!r}; wanted one of {', '.join(STAGES)}")
    if inputs not in KINDS:
        raise InputError(f"inputs: got {inputs!r}; wanted one of {', '.join(KINDS)}")
    read = _reader(name, options).read
    final = read(name, pathlib.Path(root) if root else default_root(), inputs, **_known(read, name, options))
    benchmark = tune_stage(final, fold) if stage == "tune" else final
    object.__setattr__(benchmark, "origin", (name, root, options))
    return benchmark


def decoded(benchmark, image_size):
    """The benchmark with the pixels of its images instead of their paths (see `store.decoded`); any other as it is."""
    if benchmark.kind != "images" or benchmark.inputs.dtype == np.uint8:
        return benchmark
    return dataclasses.replace(benchmark, inputs=store.decoded(benchmark.inputs, image_size))


def pictures(name, root=None, **options):
    """The images of a benchmark in the order of its rows, to make features of.

    Args:
        name, root: as for `load`.
        **options: options of `xlsa.pictures` or `folder.pictures`; None means its default.

    Returns:
        files.Pictures.
    """
    reader = _reader(name, options)
    if reader is shapes:
        raise InputError("dataset: got shapes, which needs no preparation; wanted a benchmark with image files")
    options = _known(reader.pictures, name, options)
    return reader.pictures(name, pathlib.Path(root) if root else default_root(), **options)


def takes(name, option, **options):
    """Whether the reader of a benchmark has an option.

    Args:
        name: as for `load`.
        option: its name.
        **options: others that are given.
    """
    return option in _options(_reader(name, options).read)


def _options(function):
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _known(function, name, options):
    """The options that are set; refuses those that the function does not take."""
    options = {key: value for key, value in options.items() if value is not None}
    known = _options(function)
    for key in options:
        if key not in known:
            raise InputError(f"{key}: has no meaning for dataset {name}; wanted one of {', '.join(known)}")
    return options


def _reader(name, options):
    if name.lower() == "shapes":
        return shapes
    if files.is_path(name):
        return _reader_of_folder(pathlib.Path(name), options)
    if name.upper() in BENCHMARKS:
        return xlsa
    raise InputError(
        f"dataset: got {name!r}; wanted shapes, {', '.join(BENCHMARKS).lower()}, "
        "or the path of your own folder, written with a slash: ./flowers"
    )


def _reader_of_folder(path, options):
    if not path.is_dir():
        raise InputError(f"dataset: no folder {path}; wanted one of images by class, or one in the field's own format")
    wanted = options.get("splits")
    splits = [name for name in (*xlsa.SPLITS, wanted) if (path / f"{name}.mat").is_file()]
    tables = [path / name for name in folder.TABLES if (path / name).is_file()]
    if not splits or (tables and options.get("classes")):
        return folder
    if tables and not wanted:
        choice = f"classes={tables[0]} or splits={splits[0]}"
        raise InputError(f"dataset: {path} has both {tables[0].name} and {splits[0]}.mat; wanted one, or {choice}")
    return xlsa
