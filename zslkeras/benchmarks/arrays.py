"""A benchmark made of arrays that are in memory already."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from zslkeras.benchmarks import files
from zslkeras.benchmarks.benchmark import Benchmark, draw_held_out
from zslkeras.errors import InputError, did_you_mean


def from_arrays(
    features: ArrayLike | tuple[np.ndarray, ...],
    labels: ArrayLike,
    class_embeddings: ArrayLike | Mapping[str, Sequence[float]],
    class_names: Sequence[str] | None = None,
    unseen: ArrayLike | None = None,
    *,
    attribute_names: Sequence[str] = (),
    attribute_vectors: ArrayLike | None = None,
    normalize: bool = True,
    name: str = "arrays",
    seed: int = 0,
) -> Benchmark:
    """A benchmark of stage "final".

    Args:
        features: [N, D] features, [N, H, W, F] maps, a tuple of such maps (levels), or uint8 images [N, H, W, 3].
        labels: [N] names of classes, or numbers of rows of `class_embeddings`, from 0.
        class_embeddings: [C, A], or a dict {name of a class: its A numbers}.
        class_names: C names, in the order of `class_embeddings`; "0", "1", ... if None.
        unseen: names, or numbers, of classes whose images are only tested on. Classes without any image are unseen in
            any case.
        attribute_names: A names for the columns of `class_embeddings`; without them, classes cannot be given as dicts.
        attribute_vectors: [A, V], which msdn can use.
        normalize: whether class embeddings get L2 length one, as those of files do.
        name: of the benchmark, for tables.
        seed: of the draw of a fifth of each seen class's rows, which are tested on.

    Returns:
        A Benchmark.
    """
    if isinstance(class_embeddings, Mapping):
        if class_names is not None:
            raise InputError("class_names: got them beside names in class_embeddings; wanted one of the two")
        class_names, class_embeddings = tuple(class_embeddings), list(class_embeddings.values())
    embeddings = _matrix("class_embeddings", class_embeddings)
    names = tuple(map(str, range(len(embeddings)) if class_names is None else class_names))
    if len(names) != len(embeddings):
        raise InputError(f"class_names: got {len(names)} for {len(embeddings)} class_embeddings; wanted one for each")
    inputs, kind = _inputs(features)
    labels = _ids("labels", labels, names).astype(np.int32)
    without = np.setdiff1d(np.arange(len(names)), labels)
    unseen = np.union1d(without, _ids("unseen", [] if unseen is None else unseen, names)).astype(np.int64)
    seen = np.setdiff1d(labels, unseen)
    if not len(seen):
        raise InputError(f"unseen: got all {len(np.unique(labels))} classes with rows; wanted one left to train on")
    rows = np.arange(len(labels))
    test_unseen = np.flatnonzero(np.isin(labels, unseen))
    test_seen = draw_held_out(rows, labels, seen, np.random.default_rng([seed, 1]))
    return Benchmark(
        name=name,
        source=name,
        kind=kind,
        inputs=inputs,
        labels=labels,
        class_embeddings=files.unit_rows(embeddings) if normalize else embeddings,
        class_names=names,
        seen_classes=seen,
        unseen_classes=unseen,
        train=np.setdiff1d(rows, np.concatenate([test_seen, test_unseen])),
        test_seen=test_seen,
        test_unseen=test_unseen,
        attribute_names=tuple(attribute_names),
        attribute_vectors=None if attribute_vectors is None else _matrix("attribute_vectors", attribute_vectors),
    )


def _inputs(features):
    """The inputs as a Benchmark has them, and their kind."""
    if isinstance(features, tuple):
        levels = tuple(map(np.asarray, features))
        if any(one.ndim != 4 or one.dtype.kind != "f" for one in levels):
            shapes = ", ".join(f"{one.dtype} {one.shape}" for one in levels)
            raise InputError(f"features: got {shapes}; wanted a tuple of maps [N, H, W, F] of floats")
        return levels, "levels"
    array = np.asarray(features)
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] == 3:
        return array, "images"
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 4):
        got = f"{array.dtype} of shape {array.shape}"
        wanted = "[N, D] features, [N, H, W, F] maps, or uint8 images [N, H, W, 3]"
        raise InputError(f"features: got {got}; wanted {wanted}")
    array = array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)
    return array, "features" if array.ndim == 2 else "maps"


def _matrix(argument, values):
    try:
        matrix = np.asarray(values, np.float32)
    except (ValueError, TypeError):
        got = "got rows that are no numbers, or of different lengths"
        raise InputError(f"{argument}: {got}; wanted a matrix") from None
    if matrix.ndim != 2:
        raise InputError(f"{argument}: got shape {matrix.shape}; wanted a matrix, one row for each")
    return matrix


def _ids(argument, given, names):
    """Numbers of classes, of names or of numbers."""
    given = np.asarray([given] if isinstance(given, str) else given)
    if given.ndim != 1:
        raise InputError(f"{argument}: got shape {given.shape}; wanted one dimension")
    if given.dtype.kind in "US":
        numbers = {name: number for number, name in enumerate(names)}
        unknown = [name for name in map(str, given) if name not in numbers]
        if unknown:
            raise InputError(f"{argument}: no class {unknown[0]!r} in class_names; {did_you_mean(unknown[0], names)}")
        return np.array([numbers[str(name)] for name in given], np.int64)
    if given.size and (given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= len(names)):
        got = f"values from {given.min()} to {given.max()}" if given.dtype.kind in "iuf" else f"{given.dtype}"
        raise InputError(f"{argument}: got {got}; wanted names of classes, or whole numbers from 0 to {len(names) - 1}")
    return given.astype(np.int64)
