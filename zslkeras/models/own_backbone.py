"""What methods share that read images by a backbone of their own: which backbone, and the closed form on its features.

The closed form reads the pooled features of the method's own backbone, and is fitted again after every epoch. So it is
the closed form on the pretrained backbone before training, and has what training the backbone gains.
"""

import contextlib
import dataclasses
import hashlib
import types

import keras
import numpy as np
import tensorflow as tf

from zslkeras import atomic, cache, graphs
from zslkeras.errors import InputError
from zslkeras.images import augment, backbones
from zslkeras.models import conditioning
from zslkeras.models.base import ZeroShotModel
from zslkeras.models.conditioning import BesideConfig
from zslkeras.models.config import setting
from zslkeras.models.layers import load_backbone
from zslkeras.names import AUTO, PREPROCESSINGS
from zslkeras.progress import Progress
from zslkeras.version import __version__

PRETRAINED = "mobilenetv2"  # where weights are given and nothing says whose: the cheapest of the usual ones
_SIZE = 160  # pixels, the most for pretrained networks: half the time of 224
_SMALL_SIZE = 32  # the most for the small one
_AT_ONCE = 64  # images


@dataclasses.dataclass(frozen=True)
class BackboneConfig(BesideConfig):
    """The backbone. "auto" is the one that the features of the same images were made with; see `known`."""

    backbone: str = setting(AUTO, auto=True)
    weights: str | None = setting(AUTO, auto=True)  # "imagenet", a file, or None: random ones
    preprocessing: str = setting(AUTO, choices=PREPROCESSINGS, auto=True)
    image_size: int = setting(AUTO, least=1, auto=True)
    closed_form_pooling: str = setting(conditioning.MEAN, choices=conditioning.POOLINGS)

    def known(self, benchmark):
        """The settings of the backbone that are "auto", by the record of the features that were made of the images.

        Without a record it is PRETRAINED where weights are given, and otherwise the small one, from nothing.
        """
        record = _record(benchmark.prepared) if self.backbone == AUTO and self.weights is not None else {}
        other = backbones.SMALL if self.weights in (AUTO, None) else PRETRAINED
        backbone = record.get("backbone", other) if self.backbone == AUTO else self.backbone
        weights = self.weights
        if weights == AUTO:
            weights = None if backbone == backbones.SMALL else "imagenet"
        found = {
            "backbone": backbone,
            "weights": weights,
            "preprocessing": record.get("preprocessing", "own"),
            "image_size": min(record.get("size", _SIZE), _SIZE) if weights else _size_of(benchmark.inputs),
        }
        found = {name: value for name, value in found.items() if getattr(self, name) == AUTO}
        # What else follows from the data may follow from the size of the images.
        return super(BackboneConfig, dataclasses.replace(self, **found)).known(benchmark) | found

    def told(self, benchmark):
        config = dataclasses.replace(self, **self.known(benchmark))
        trained = f"with weights {config.weights}" if config.weights else "from nothing"
        return (f"backbone {config.backbone} {trained}, on images of {config.image_size} pixels",)

    def pooled_stage(self, benchmark):
        """The features of the untrained backbone; of a network from nothing, those of one that stands for all seeds."""
        backbone = backbones.backbone(self.backbone, None, self.image_size, self.layers)
        load_backbone(backbone, self, self.layers)
        if not self.weights:
            _redraw(backbone)
        return pooled_stage(self, backbone, benchmark)

    @property
    def layers(self):
        """The layers whose maps the closed form reads; None for the last map."""
        return None


def _record(prepared):
    """How the features of the images were made: {} where none were, or where it is not known."""
    ways = {(one["backbone"], one["preprocessing"]): one for one in prepared.values()}
    if len(ways) > 1:
        had = ", ".join(f"{name} ({one['backbone']})" for name, one in prepared.items())
        raise InputError(f"features: got none, and there are {had}; wanted one of them, or a backbone that is not auto")
    return next(iter(ways.values()), {})


def _size_of(images):
    """The side of images that are at hand, as a small network reads them."""
    return min(images.shape[1], _SMALL_SIZE) if images.ndim == 4 else _SMALL_SIZE


def _redraw(backbone):
    """Gives random kernels that are the same in every process."""
    for number, variable in enumerate(backbone.trainable_variables):
        if len(variable.shape) > 1:
            variable.assign(keras.initializers.GlorotUniform(seed=number)(variable.shape))


def pooled_stage(config, backbone, benchmark):
    """A stage with pooled features in place of images, in the rows that training or a choice may read.

    They are kept in the user's cache for a pretrained backbone: one pass over the images takes about a minute.

    Args:
        config: a `BackboneConfig` without "auto".
        backbone: images, preprocessed, to maps.
        benchmark: the stage; in stage "tune" the features of all rows with a label are made, which are the training
            rows of stage "final". So all folds and both stages share them.
    """
    rows = np.flatnonzero(benchmark.labels >= 0) if benchmark.stage == "tune" else np.sort(benchmark.train)
    path = _cached(config, backbone, benchmark, rows) if config.weights else None
    table = None
    if path is not None and path.exists():
        with contextlib.suppress(OSError, ValueError, EOFError):  # damaged: it is made again
            table = np.load(path, allow_pickle=False)
    if table is None:
        table = _features(config, backbone, benchmark, rows)
        if path is not None:
            with atomic.replacing(path) as draft, open(draft, "wb") as file:
                np.save(file, table, allow_pickle=False)
    return with_features(benchmark, rows, table)


def with_features(benchmark, rows, table):
    """A stage with features [n, D] of some rows in place of its inputs; other rows have zeros."""
    features = np.zeros((len(benchmark.labels), table.shape[1]), np.float32)
    features[rows] = table
    return dataclasses.replace(benchmark, kind="features", inputs=features, finite=True)


def _features(config, backbone, benchmark, rows):
    @graphs.function(reduce_retracing=True)
    def pooled(images):
        prepared = backbones.preprocess(config.backbone, augment.plain(images, config.image_size), config.preprocessing)
        return conditioning.pooled(backbone(prepared, training=False), config.closed_form_pooling)

    parts = []
    with Progress(f"features by {config.backbone}", len(rows)) as bar:
        for start in range(0, len(rows), _AT_ONCE):
            images = benchmark.take(rows[start : start + _AT_ONCE])
            parts.append(pooled(tf.constant(images)).numpy())
            bar.advance(len(images))
    return np.concatenate(parts)


def _cached(config, backbone, benchmark, rows):
    """The file for features, named by all that they are made of; None where there is no cache."""
    made_by = __version__, tf.__version__, keras.__version__
    settings = (
        config.backbone,
        config.layers,
        config.closed_form_pooling,
        config.preprocessing,
        config.image_size,
        backbone.compute_dtype,
    )
    hasher = hashlib.sha256(repr((made_by, settings, backbones.digest(backbone))).encode())
    for start in range(0, len(rows), _AT_ONCE):
        hasher.update(np.ascontiguousarray(benchmark.take(rows[start : start + _AT_ONCE])).tobytes())
    try:
        return cache.folder("features") / f"{hasher.hexdigest()[:24]}.npy"
    except (OSError, RuntimeError):  # no home, or not writable: they are made anew each time
        return None


class OwnBackbone(ZeroShotModel):
    """Base of methods that read images by a backbone of their own, which `_add_backbone` makes: `backbone`."""

    eats = "images"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._traced = types.SimpleNamespace(look=None)  # a function that is an attribute would be exported

    @property
    def pooled_width(self):
        shapes = [maps.shape[1:] for maps in self.backbone.outputs]
        return sum(conditioning.pooled_width(shape, self.config.closed_form_pooling) for shape in shapes)

    def pooled_stage(self, benchmark):
        return pooled_stage(self.config, self.backbone, benchmark)

    @property
    def settles_on_all_rows(self):
        return self.trains_backbone

    @property
    def trains_backbone(self):
        """Whether training changes what the closed form reads."""
        raise NotImplementedError

    def scores_and_pooled(self, inputs, class_embeddings):
        raise NotImplementedError

    def own_scores(self, inputs, class_embeddings):
        return self.scores_and_pooled(inputs, class_embeddings)[0]

    def settle(self, benchmark, read):
        """As in the base; where the backbone is trained, the closed form is fitted anew on its features."""
        if self.beside is None or not self.trains_backbone:
            super().settle(benchmark, read)
            return
        rows = benchmark.train
        # One trace serves all epochs: the variables change, the function does not.
        look = self._traced.look = self._traced.look or graphs.function(
            lambda inputs: self.scores_and_pooled(inputs, self.class_embeddings.value), reduce_retracing=True
        )
        own, table = zip(*(look(tf.constant(inputs)) for inputs, _ in read(rows)), strict=True)
        self.beside.fit(with_features(benchmark, rows, np.concatenate(table)))
        self.beside.settle(np.concatenate(own)[np.isin(rows, conditioning.measured(benchmark))])
