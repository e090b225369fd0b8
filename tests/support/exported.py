"""A run that the tests of exports, predictions and servers share: ESZSL on a folder of drawn pictures."""

import csv
import dataclasses
import pathlib

import numpy as np
from PIL import Image

from zslkeras import protocol, runs
from zslkeras.benchmarks import shapes
from zslkeras.models.eszsl import ESZSLConfig
from zslkeras.serving import bundle
from zslkeras.training.machine import Machine

CLASSES, PICTURES = 20, 8
UNSEEN = 3


@dataclasses.dataclass(frozen=True)
class Exported:
    """A finished run and its export, whose endpoints take the bytes of pictures.

    Attributes:
        run: the folder of the run.
        pictures: the folder with a sub-folder a class.
        experiment, finished: what was run.
        line: what `bundle.write` said.
    """

    run: pathlib.Path
    pictures: pathlib.Path
    experiment: protocol.Experiment
    finished: protocol.Finished
    line: str

    @property
    def saved_model(self):
        return self.run / "saved_model"


def export_drawn(folder):
    pictures = draw(folder / "pictures")
    unseen = ",".join(sorted(path.name for path in pictures.iterdir() if path.is_dir())[:UNSEEN])
    data = protocol.Data(f"{pictures}/", None, {"features": "filters", "unseen": unseen})
    config = ESZSLConfig(scalings=("standard",), gammas=(10.0,), lambdas=(1.0, 10.0))
    out = folder / "run"
    experiment = protocol.Experiment("eszsl", config, data, Machine(deterministic=False), out, logs=False)
    finished = protocol.finish(experiment, protocol.select(experiment, 0))
    runs.write_result(out, runs.result(experiment, [finished], ({}, "none made"), 0.0), [finished])
    return Exported(out, pictures, experiment, finished, bundle.write(experiment, finished, with_backbone=True))


def draw(folder):
    """Draws a folder of classes of `shapes` with their table."""
    embeddings, names, _, _ = shapes.class_table()
    for label in range(CLASSES):
        (folder / names[label]).mkdir(parents=True)
        drawn, _ = shapes.draw_class(embeddings[label], PICTURES, np.random.default_rng(label))
        for number, picture in enumerate(drawn):
            Image.fromarray(picture).save(folder / names[label] / f"{number}.png")
    write_table(folder / "classes.csv", range(CLASSES))
    return folder


def write_table(path, classes, attributes=shapes.ATTRIBUTES, values=lambda row: row, rename=lambda name: name):
    """A table of some classes of `shapes`."""
    embeddings, names, _, _ = shapes.class_table()
    columns = [shapes.ATTRIBUTES.index(name) for name in attributes if name in shapes.ATTRIBUTES]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", *attributes])
        writer.writerows([rename(names[c]), *values(embeddings[c][columns])] for c in classes)
    return path
