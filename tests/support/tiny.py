"""A tiny benchmark of each kind of input: a picture shows each attribute of its class at a place of its own."""

import csv

import numpy as np
import scipy.io

from zslkeras.benchmarks import Benchmark

SIDE = 4  # cells of a picture, along each side


def tiny(kind="features", classes=12, unseen=4, rows=20, attributes=6, width=16, noise=0.1, seed=0):
    """Stage "final" of a benchmark of `classes` x `rows` pictures; a fifth of each seen class plays test_seen."""
    generator = np.random.default_rng(seed)
    embeddings = generator.random((classes, attributes)).astype(np.float32)
    looks = generator.standard_normal((attributes, width))
    labels = np.repeat(np.arange(classes, dtype=np.int32), rows)
    places = generator.permuted(np.tile(np.arange(SIDE**2), (len(labels), 1)), axis=1)[:, :attributes]
    cells = noise * generator.standard_normal((len(labels), SIDE**2, width))
    cells[np.arange(len(labels))[:, None], places] += embeddings[labels][:, :, None] * looks
    is_unseen, held_out = labels >= classes - unseen, np.tile(np.arange(rows) < rows // 5, classes)
    return Benchmark(
        name="tiny",
        source="tiny",
        kind=kind,
        inputs=_as(kind, cells),
        labels=labels,
        class_embeddings=embeddings,
        class_names=tuple(f"class{c}" for c in range(classes)),
        seen_classes=np.arange(classes - unseen),
        unseen_classes=np.arange(classes - unseen, classes),
        train=np.flatnonzero(~is_unseen & ~held_out),
        test_seen=np.flatnonzero(~is_unseen & held_out),
        test_unseen=np.flatnonzero(is_unseen),
        attribute_names=tuple(f"attribute{a}" for a in range(attributes)),
        attribute_vectors=generator.standard_normal((attributes, 5)).astype(np.float32),
    )


def _as(kind, cells):
    """Cells [N, SIDE^2, F] as features [N, F], float16 maps, two levels of them, or pictures [N, 32, 32, 3]."""
    maps = cells.reshape(len(cells), SIDE, SIDE, -1)
    fine = maps.repeat(2, axis=1).repeat(2, axis=2)
    if kind == "features":
        return cells.sum(axis=1).astype(np.float32)
    if kind == "maps":
        return maps.astype(np.float16)
    if kind == "levels":
        return fine[..., ::2].astype(np.float16), maps.astype(np.float16)
    colours = fine.repeat(4, axis=1).repeat(4, axis=2)[..., :3]
    return np.clip(128 + 50 * colours, 0, 255).astype(np.uint8)


def write_tiny(folder, classes=20, unseen=5, rows=24, width=16, attributes=8, seed=0):
    """Writes res101.mat and att_splits.mat of a benchmark that a linear map nearly solves."""
    generator = np.random.default_rng(seed)
    embeddings = generator.random((classes, attributes))
    mixing = generator.standard_normal((attributes, width))
    labels = np.repeat(np.arange(classes), rows)
    features = embeddings[labels] @ mixing + 0.5 * generator.standard_normal((classes * rows, width))
    place = np.arange(classes * rows)
    is_unseen, held_out = labels >= classes - unseen, place % rows < rows // 5
    folder.mkdir(parents=True)
    scipy.io.savemat(
        folder / "res101.mat",
        {
            "features": np.maximum(features, 0).T,
            "labels": labels[:, None] + 1,
            "image_files": np.array([f"{i:05d}.jpg" for i in place], object)[:, None],
        },
    )
    scipy.io.savemat(
        folder / "att_splits.mat",
        {
            "att": embeddings.T,
            "allclasses_names": np.array([f"class{c}" for c in range(classes)], object)[:, None],
            "trainval_loc": place[~is_unseen & ~held_out][:, None] + 1,
            "test_seen_loc": place[~is_unseen & held_out][:, None] + 1,
            "test_unseen_loc": place[is_unseen][:, None] + 1,
        },
    )


def write_colours(folder, rows):
    """A table of classes that have colours: (name, red, green, blue) each."""
    with open(folder / "classes.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("class", "red", "green", "blue"), *rows])
