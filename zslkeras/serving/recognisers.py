"""What recognises inside a classifier: a model that was trained here, or an export."""

import functools
import shutil

import keras
import tensorflow as tf

from zslkeras import protocol
from zslkeras.errors import InputError
from zslkeras.images import decode
from zslkeras.models import MODELS
from zslkeras.precision import computing_in
from zslkeras.serving import asked, bundle, candidates, export


class _Recogniser:
    """What both have: the answers of endpoints as numpy arrays, for rows of what the model takes and for pictures."""

    def scored(self, kind, part, classes):
        """{"scores": [B, K], "label": [B]} of a part of what `asked.read` returns, among some Classes."""
        given = {
            "class_embeddings": tf.constant(classes.embeddings, tf.float32),
            "seen_mask": tf.constant(classes.seen),
        }
        if classes.shifts is None:
            return self._answer(kind, "score_classes", part, given)
        return self._answer(kind, "score_shifted", part, given | {"shifts": tf.constant(classes.shifts)})

    def closed_form(self, kind, part, embeddings):
        """{"features": [B, D], "prototypes": [K, D], "factor": a number} of the closed form in the model's scores."""
        if not self.has_closed_form:
            wanted = "attributes alone, or a model with a closed form in its scores"
            raise InputError(f"got images, which {self.method} cannot learn from here; wanted {wanted}")
        return self._answer(kind, "closed_form", part, {"class_embeddings": tf.constant(embeddings, tf.float32)})

    @functools.cached_property
    def _endpoints(self):
        return export.endpoints(self.keras_model, self.gamma)

    def _answer(self, kind, endpoint, part, given):
        asked = functools.partial(self._of_rows if kind == "rows" else self._of_pictures, endpoint, given=given)
        answers = asked(part) if kind == "rows" else _seen(asked, part, *self._decoded)
        return {name: value.numpy() for name, value in answers.items()}


class Live(_Recogniser):
    """A classifier that was trained here, or a finished run that was opened again."""

    def __init__(self, experiment, finished, weights=None):
        self.experiment, self.finished, self.weights = experiment, finished, weights
        self.method, self.gamma, self.source = experiment.model, finished.choice.gamma, experiment.data
        self.eats = MODELS[self.method].eats

    @functools.cached_property
    def benchmark(self):
        return protocol.published(self.experiment)

    @property
    def digest(self):
        return self.benchmark.digest

    @property
    def test_rows(self):
        return len(self.benchmark.tested)

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

    @property
    def has_closed_form(self):
        return self.keras_model.form is not None

    @functools.cached_property
    def _endpoints_of_pictures(self):
        return export.endpoints(self.keras_model, self.gamma, self.front)

    def _of_rows(self, endpoint, inputs, given):
        return self._endpoints[endpoint](inputs, **given)

    def _of_pictures(self, endpoint, contents, given):
        return self._endpoints_of_pictures[endpoint](contents, **given)

    @property
    def _decoded(self):
        if isinstance(self.front, InputError):
            raise _no_pictures(self.method, self.eats, str(self.front))
        return self.front.size, self.front.crop

    def save(self, path):
        front = self.front
        why, front = (str(front), None) if isinstance(front, InputError) else (None, front)
        more = {"validation": self.validation, "without_images": why}
        bundle.save(path, self.experiment, self.finished, self.benchmark, self.keras_model, front, **more)


class Stored(_Recogniser):
    """A classifier that was saved: images go through its SavedModel, and rows through its Keras model if they must."""

    source = None

    def __init__(self, exported):
        self.exported, facts = exported, exported.metadata
        self.method, self.gamma, self.classes = facts["model"], facts["gamma"], exported.classes
        self.attributes, self.kind = facts["attributes"], facts["inputs"]["kind"]
        self.digest, self.test_rows = facts.get("dataset_digest"), facts.get("test_rows")
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

    @property
    def has_closed_form(self):
        return "closed_form" in self.exported.metadata["endpoints"]

    def _of_rows(self, endpoint, inputs, given):
        if self.kind == "bytes":  # its signatures take images
            return self._endpoints[endpoint](inputs, **given)
        levels = isinstance(inputs, tuple)
        named = {f"inputs_{level}": one for level, one in enumerate(inputs)} if levels else {"inputs": inputs}
        return self.exported.model.signatures[endpoint](**named, **given)

    def _of_pictures(self, endpoint, contents, given):
        inputs = contents if self.kind == "bytes" else decode.pictures(contents, *self._decoded)
        return self.exported.model.signatures[endpoint](inputs=inputs, **given)

    @property
    def _decoded(self):
        if self.kind not in ("bytes", "images"):
            raise _no_pictures(self.method, self.eats, self.exported.metadata.get("without_images"))
        front = self.exported.metadata["preprocessing"] or {"size": self.row_shape[0], "crop": True}
        return front["size"], front["crop"]

    def save(self, path):
        if path.exists() and path.samefile(self.exported.path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with export.replacing(path) as draft:
            shutil.copytree(self.exported.path, draft, dirs_exist_ok=True)


def _no_pictures(method, eats, why):
    why = f" ({why.removeprefix('with_backbone: ')})" if why else ""
    return InputError(f"images: got images, and {method} takes {eats}, which cannot be made of them here{why}")


def _seen(endpoint, part, size, crop):
    """The answers for a part of pictures; names one that does not decode."""
    contents = asked.contents(part)
    try:
        return endpoint(tf.constant(contents))
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
