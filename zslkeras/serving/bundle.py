"""Exports a finished run as a folder that needs nothing else: the SavedModel, and what its numbers mean.

With a front end, the endpoints take the bytes of images. The front end makes the features that the model was trained
on: by the built-in filter bank, or by a backbone with the weights in the features' record. For a model that learns
from images, it only brings them to size.
"""

import dataclasses
import os
import pathlib

import numpy as np
import tensorflow as tf

from zslkeras import protocol
from zslkeras.benchmarks import filters, folder
from zslkeras.errors import InputError
from zslkeras.images import decode, extract, prepared
from zslkeras.serving import export

CHECKED_ROWS = 8  # on which the reloaded model is checked
NAME = "saved_model"
# How far features may be from the stored ones, relative to the largest: those are rounded, from other batches.
_STORED = 1e-2
_UNIT = 1e-4  # how far from 1 the length of a normalised embedding may be


def write(experiment, finished, with_backbone=False, weights=None, formats=()):
    """Writes `saved_model/` into the folder of a run, and returns a line about it.

    Args:
        experiment: what was run.
        finished: a Finished; the first of several seeds.
        with_backbone: whether endpoints take the bytes of images.
        weights: of the backbone, as given to `zslkeras prepare`; None for ImageNet's.
        formats: further formats, from names.FORMATS.
    """
    benchmark = protocol.published(experiment)
    model = protocol.rebuilt(experiment, finished, benchmark)
    front = front_end(experiment.data, benchmark, model, weights) if with_backbone else None
    return save(experiment.out / NAME, experiment, finished, benchmark, model, front, formats)


def save(path, experiment, finished, benchmark, model, front=None, formats=(), **more):
    """Writes the SavedModel of a rebuilt model of a run to `path`, and returns a line about it.

    Args:
        path: of the folder.
        experiment, finished: what was run.
        benchmark: its stage "final".
        model: see `protocol.rebuilt`.
        front: from `front_end`, or None for endpoints that take what the model takes.
        formats: further formats, from names.FORMATS.
        **more: what else `metadata.json` says.
    """
    rows = _checked(benchmark)
    asked = _contents(experiment.data, benchmark, rows) if front else benchmark.take(rows)
    facts = {
        "model": experiment.model,
        "dataset": experiment.data.name,
        "dataset_digest": benchmark.digest,
        "test_rows": len(benchmark.tested),
        "features": benchmark.features,
        "classes": list(benchmark.class_names),
        "seen": benchmark.seen_mask.tolist(),
        "attributes": attributes(benchmark, experiment.data.options),
        "seed": finished.choice.seed,
        **more,
    }
    choice = finished.choice
    export.write(path, model, facts, asked, choice.gamma, front, formats, choice.confidence)
    size = sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    takes = "images" if front else benchmark.kind
    return f"exported: {path}, {size / 1e6:.1f} MB, takes {takes}; reloaded without this package, it answers the same"


def front_end(data, benchmark, model, weights=None):
    """The FrontEnd that makes of images what a model was trained on; refuses one that does not.

    Args:
        data: where the benchmark's images are read from.
        benchmark: stage "final", as the model read it.
        model: of it.
        weights: of the backbone, as given to `zslkeras prepare`; None for ImageNet's.
    """
    front, rows = _front_end(benchmark, model, weights or "imagenet"), _checked(benchmark)
    _require_as_stored(front(tf.constant(_contents(data, benchmark, rows))), benchmark.take(rows), benchmark)
    return front


def _checked(benchmark):
    """The rows on which an export is checked."""
    tests = np.concatenate([benchmark.test_unseen, benchmark.test_seen, benchmark.train])
    return np.unique(tests[np.linspace(0, len(tests) - 1, CHECKED_ROWS).astype(int)])


def attributes(benchmark, options):
    """What one needs to describe a new class: the names of the attributes, what was done to their values, and what was
    said in words of the classes."""
    lengths, told = np.linalg.norm(benchmark.class_embeddings, axis=1), benchmark.words
    return {
        "number": benchmark.class_embeddings.shape[1],
        "names": list(benchmark.attribute_names),
        "unit_length": bool(np.all(np.abs(lengths - 1) < _UNIT)),
        "negatives": options.get("negatives", "keep"),
        "has_negatives": bool((benchmark.class_embeddings < 0).any()),
        "lengths": [float(lengths.min()), float(lengths.max())],
        "words": told and dataclasses.asdict(told),
    }


def _front_end(benchmark, model, weights):
    if benchmark.kind == "images":
        side = model.row_shape[0]
        return export.FrontEnd(side, True, lambda pictures: pictures, {"size": side, "crop": True})
    if benchmark.features == folder.FILTERS:
        settings = {"filters": benchmark.kind, "size": filters.SIDE, "crop": False}
        inputs = _as_stored(lambda pictures: filters.answers(pictures, benchmark.kind), benchmark)
        return export.FrontEnd(filters.SIDE, False, inputs, settings)
    source = pathlib.Path(benchmark.source)
    record = (source if source.is_dir() else source.parent) / f"{benchmark.features}.json"
    made = prepared.read(record) if benchmark.features else {}
    if "backbone" not in made:
        known = f"no {record} tells how {benchmark.features} was made" if benchmark.features else "no record is there"
        raise InputError(f"with_backbone: {known}; wanted features made by zslkeras prepare, or no backbone")
    extractor = extract.Extractor.again(made, weights, [benchmark.kind.replace("features", "pooled")])
    if extractor.settings["weights"] != made["weights"]:
        raise InputError(
            f"weights: {weights} has digest {extractor.settings['weights'][:12]}, {record} says "
            f"{made['weights'][:12]}; wanted the weights that the features were made with"
        )

    def stores(pictures):
        outputs = extractor.outputs(pictures)
        if benchmark.kind == "levels":
            return tuple(outputs[layer] for layer in made["layers"])
        return outputs["pooled" if benchmark.kind == "features" else "maps"]

    told = "backbone", "weights", "preprocessing", "layers", "size", "pooling", "pool_layers"
    settings = {key: made[key] for key in told if key in made} | {"crop": True}
    return export.FrontEnd(made["size"], True, _as_stored(stores, benchmark), settings)


def _as_stored(function, benchmark):
    """`function` with its results rounded as they are stored, because the model was trained on stored ones."""
    dtypes = tf.nest.map_structure(lambda array: array.dtype, benchmark.take(benchmark.train[:1]))
    return lambda pictures: tf.nest.map_structure(tf.cast, function(pictures), dtypes)


def _contents(data, benchmark, rows):
    """The bytes of the images of `rows`; drawn images become PNGs."""
    images = protocol.published_pictures(data)
    if not np.array_equal(images.labels, benchmark.labels):
        raise InputError(f"{benchmark.source}: its rows are not those of the images in {images.source}")
    drawn = images.inputs.dtype == np.uint8
    return [decode.png(one) if drawn else decode.read(os.fspath(one)) for one in images.take(rows)]


def _require_as_stored(made, stored, benchmark):
    """Refuses a front end that does not make what the model was trained on."""
    for one, other in zip(tf.nest.flatten(made), tf.nest.flatten(stored), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        largest = np.abs(other).max(initial=0)
        off = np.abs(one - other).max(initial=0) if one.shape == other.shape else np.inf
        if not off <= _STORED * largest:
            raise InputError(
                f"with_backbone: what it makes of the images is off by {off:.3g} from the {benchmark.kind} in "
                f"{benchmark.source}, whose largest is {largest:.3g}; wanted the images that these were made from"
            )
