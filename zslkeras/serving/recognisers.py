"""What recognises inside a classifier: a model that was trained here, or an export."""

import functools
import shutil

import keras
import tensorflow as tf

from zslkeras import protocol
from zslkeras.errors import InputError
from zslkeras.images import decode
from zslkeras.models import MODELS
from zslkeras.serving import asked, bundle, candidates, export
from zslkeras.training.machine import computing_in


class Live:
    """A classifier that was trained here, or a finished run that was opened again."""

    def __init__(self, experiment, finished, weights=None):
        self.experiment, self.finished, self.weights = experiment, finished, weights
        self.method, self.gamma, self.source = experiment.model, finished.choice.gamma, experiment.data
        self.eats = MODELS[self.method].eats

    @functools.cached_property
    def benchmark(self):
        return protocol.published(self.experiment)

    @functools.cached_property
    def keras_model(self):
        return protocol.rebuilt(self.experiment, self.finished, self.benchmark)

    @functools.cached_property
    def classes(self):
        benchmark = self.benchmark
        return candidates.Classes(benchmark.class_names, benchmark.class_embeddings, benchmark.seen_mask)

    @functools.cached_property
    def attributes(self):
        return bundle.attributes(self.benchmark, self.source.options)

    @property
    def row_shape(self):
        return self.benchmark.input_shape

    @property
    def validation(self):
        return validation(self.finished.choice)

    @property
    def confidence(self):
        return self.finished.choice.confidence

    @functools.cached_property
    def front(self):
        """A FrontEnd, or the InputError that says why there is none."""
        try:
            return bundle.front_end(self.source, self.benchmark, self.keras_model, self.weights)
        except InputError as error:
            return error

    @functools.cached_property
    def _by_rows(self):
        return export.endpoints(self.keras_model, self.gamma)["score_classes"]

    @functools.cached_property
    def _by_pictures(self):
        return export.endpoints(self.keras_model, self.gamma, self.front)["score_classes"]

    def of_rows(self, inputs, classes):
        return _answered(self._by_rows, inputs, classes)

    def of_pictures(self, part, classes):
        if isinstance(self.front, InputError):
            raise _no_pictures(self.method, self.eats, str(self.front))
        return _seen(self._by_pictures, part, classes, self.front.size, self.front.crop)

    def save(self, path):
        front = self.front
        why, front = (str(front), None) if isinstance(front, InputError) else (None, front)
        more = {"validation": self.validation, "without_images": why}
        bundle.save(path, self.experiment, self.finished, self.benchmark, self.keras_model, front, **more)


class Stored:
    """A classifier that was saved: images go through its SavedModel, and rows through its Keras model if they must."""

    source = None

    def __init__(self, exported):
        self.exported, facts = exported, exported.metadata
        self.method, self.gamma, self.classes = facts["model"], facts["gamma"], exported.classes
        self.attributes, self.kind = facts["attributes"], facts["inputs"]["kind"]
        self.validation = facts.get("validation") or {}

    @property
    def confidence(self):
        return self.exported.confidence

    @functools.cached_property
    def keras_model(self):
        path = self.exported.path / export.KERAS
        if not path.is_file():
            raise InputError(f"keras_model: no {path}; wanted an export by version 0.2 or later")
        if self.method not in MODELS:
            raise InputError(f"path: {self.exported.path} is of model {self.method!r}; wanted it in zslkeras.MODELS")
        with computing_in(self.exported.metadata.get("precision", "float32")):
            return keras.saving.load_model(path, {self.method: MODELS[self.method]}, compile=False)

    @property
    def eats(self):
        return MODELS[self.method].eats if self.kind == "bytes" else self.kind

    @property
    def row_shape(self):
        shape = self.exported.metadata["inputs"]["shape"]
        return tuple(tuple(one) if isinstance(one, list) else one for one in shape)

    @functools.cached_property
    def _by_rows(self):
        return export.endpoints(self.keras_model, self.gamma)["score_classes"]

    def of_rows(self, inputs, classes):
        if self.kind == "bytes":
            return _answered(self._by_rows, inputs, classes)
        levels = isinstance(inputs, tuple)
        named = {f"inputs_{level}": one for level, one in enumerate(inputs)} if levels else {"inputs": inputs}
        return _answered(self._signature, named, classes)

    def of_pictures(self, part, classes):
        if self.kind not in ("bytes", "images"):
            raise _no_pictures(self.method, self.eats, self.exported.metadata.get("without_images"))
        front = self.exported.metadata["preprocessing"] or {"size": self.row_shape[0], "crop": True}
        size, crop = front["size"], front["crop"]

        def scored(contents, *given):
            inputs = contents if self.kind == "bytes" else decode.pictures(contents, size, crop)
            return self._signature({"inputs": inputs}, *given)

        return _seen(scored, part, classes, size, crop)

    def _signature(self, named, class_embeddings, seen_mask):
        scored = self.exported.model.signatures["score_classes"]
        return scored(**named, class_embeddings=class_embeddings, seen_mask=seen_mask)

    def save(self, path):
        if path.exists() and path.samefile(self.exported.path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with export.replacing(path) as draft:
            shutil.copytree(self.exported.path, draft, dirs_exist_ok=True)


def _no_pictures(method, eats, why):
    why = f" ({why.removeprefix('with_backbone: ')})" if why else ""
    return InputError(f"images: got images, and {method} takes {eats}, which cannot be made of them here{why}")


def _answered(endpoint, inputs, classes):
    given = tf.constant(classes.embeddings, tf.float32), tf.constant(classes.seen, tf.bool)
    return {name: value.numpy() for name, value in endpoint(inputs, *given).items()}


def _seen(endpoint, part, classes, size, crop):
    """The answers for a part of pictures; names one that does not decode."""
    contents = asked.contents(part)
    try:
        return _answered(endpoint, tf.constant(contents), classes)
    except tf.errors.InvalidArgumentError:
        for content, (_, where) in zip(contents, part, strict=True):
            try:
                decode.picture(tf.constant(content), size, crop)
            except tf.errors.InvalidArgumentError as error:
                got = f"does not decode ({export.sentence(error)})"
                raise InputError(f"{where}: {got}; wanted a complete image") from None
        raise


def validation(choice):
    """What a Choice reached on validation classes; {} if nothing was chosen."""
    if not choice.history:
        return {}
    state = choice.history[choice.state]
    reached = {metric: state[f"val_{metric}"] for metric in ("T", "U", "S", "H", "AUSUC")}
    number = len(choice.outcomes.unseen)
    return reached | {"classes": number, "chance": 1 / number}
