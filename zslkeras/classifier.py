"""The door to the library: `fit` trains a classifier, and `load` opens one that was saved.

    model = zslkeras.fit(zslkeras.load_benchmark("shapes"), model="aspn")
    model.predict(["a.png", "b.png"])
    model.predict(["a.png", "b.png"], classes={"okapi": {"striped": 1, "hooved": 1}})
    model.predict(["a.png", "b.png"], classes={"okapi": "a brown animal with striped legs"})

Stages, early stopping and gamma are inside: everything is chosen on validation classes, as `protocol` does it.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from zslkeras import automatic, benchmarks, graphs, protocol, runs, weighing
from zslkeras.benchmarks import files, folder
from zslkeras.errors import InputError, did_you_mean
from zslkeras.evaluation import confidence, metrics, tables, uncertainty
from zslkeras.images import backbones, extract
from zslkeras.models import MODELS, base, config
from zslkeras.names import AUTO, BENCHMARKS
from zslkeras.serving import (
    answers,
    asked,
    bundle,
    candidates,
    examples,
    export,
    recognise,
    recognisers,
    rejection,
    words,
)
from zslkeras.serving.answers import SHOWN
from zslkeras.training.machine import Machine

BACKBONE = "mobilenetv2"  # makes features of a folder of images that has none; the cheapest of the usual ones
_SIZE, _AT_ONCE = 224, 32  # pixels of the images that it gets, and how many at a time


def fit(
    data: benchmarks.Benchmark | str | os.PathLike[str],
    model: str = AUTO,
    seed: int | Sequence[int] = 0,
    *,
    settings: Mapping[str, Any] | None = None,
    minutes: float | None = None,
    out: str | os.PathLike[str] | None = None,
    machine: Machine | None = None,
    backbone: str = BACKBONE,
    weights: str | os.PathLike[str] | None = None,
    say: Callable[[str], object] = print,
    **options: Any,
) -> "ZeroShotClassifier":
    """Trains a classifier. What has to be chosen is chosen on validation classes, which are held out of training.

    Args:
        data: what `load_benchmark` or `from_arrays` returned, or the path of a folder of images and a table of classes.
        model: one of MODELS, or "auto": several are compared on validation classes, and the best one is taken.
        seed: of all draws. A list trains once with each, and takes the one that is best on validation classes.
        settings: {name: value} of the model's Config; its defaults hold for the others.
        minutes: that the training may take; None for no limit, and for 10 with "auto".
        out: a folder for checkpoints: the same call goes on there after a kill. None keeps none.
        machine: a training.machine.Machine: devices and precision.
        backbone: of keras.applications; makes features of a folder of images that has none.
        weights: of the backbone of the features, or of the model's own: "imagenet", the default, or a file.
        say: called with each line for the user.
        **options: of `load_benchmark` where `data` is a path, such as `features`, `classes`, `unseen` and
            `text_encoder`.

    Returns:
        A ZeroShotClassifier.
    """
    source, seeds = source_of(data, options), [seed] if isinstance(seed, int | np.integer) else list(seed)
    machine, out, began = machine or Machine(), pathlib.Path(out) if out else None, time.monotonic()
    if not seeds:
        raise InputError("seed: got an empty list; wanted at least one")
    if model != AUTO and model not in MODELS:
        raise InputError(f"model: got {model!r}; {did_you_mean(str(model), [AUTO, *MODELS], every=True)}")
    settings = dict(settings or {})
    if model == AUTO and settings:
        raise InputError(f"settings: got {', '.join(settings)} for model auto; wanted the name of a model beside them")
    if weights and model != AUTO and hasattr(MODELS[model].Config, "weights"):
        settings.setdefault("weights", str(weights))
    chosen = None if model == AUTO else config.build(MODELS[model], model, settings)
    kinds = {MODELS[model].eats} if chosen else {"features", "maps"}
    source = weighing.chosen(_with_features(source, kinds, backbone, weights, say), say)
    if chosen:
        minutes = minutes and minutes / len(seeds)
        experiment = protocol.Experiment(
            model, chosen, source, machine, out, logs=False, minutes=minutes, best_on_test=False
        )
        finished, verdict = _trained(experiment, seeds, say), None
    else:
        experiment, finished, verdict = _compared(source, machine, minutes, seeds, out, weights, say)
    finished.sort(key=lambda one: one.choice.area, reverse=True)  # the best is the first, which `load` and exports take
    if out:
        result = runs.result(experiment, finished, ({}, "not asked for"), time.monotonic() - began)
        runs.write_result(experiment.out, result, finished)
    made = ZeroShotClassifier(recognisers.Live(experiment, finished[0], weights), verdict)
    if source.options.get("text_encoder") and (doubt := words.doubt(made._inside.attributes, made.validation)):
        say(f"note: {doubt}")
    return made


def load(
    path: str | os.PathLike[str],
    *,
    data_root: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> "ZeroShotClassifier":
    """Opens a classifier.

    Args:
        path: a folder that `ZeroShotClassifier.save`, `zslkeras train` or `zslkeras export` wrote, or that of a
            finished run of `experiments.run`, whose data have to be there.
        data_root, images: where data and images of a run lie now, if they were moved.
        weights: of the backbone that made the features of a run; None for ImageNet's.

    Returns:
        A ZeroShotClassifier.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise InputError(f"path: no folder {path}; wanted one of a saved classifier, or of a finished run")
    if any((place / "metadata.json").is_file() for place in (path, path / bundle.NAME)):
        return ZeroShotClassifier(recognisers.Stored(recognise.Exported(path)))
    if not (path / "result.json").is_file() and (path / "auto.json").is_file():  # of several models, one was finished
        path = next((result.parent for result in sorted(path.glob("*/result.json"))), path)
    if not (path / "result.json").is_file():
        got = "a run that has not ended" if (path / "run.json").is_file() else "neither metadata.json nor result.json"
        raise InputError(f"path: {path} holds {got}; wanted the folder of a saved classifier, or of a finished run")
    experiment, (finished,) = runs.reopened(path, data_root, images, seeds=1, argument="path")
    return ZeroShotClassifier(recognisers.Live(experiment, finished, weights))


class ZeroShotClassifier:
    """Recognises images among classes that it was trained on, and among any others that attributes or
    words describe.

    `fit` and `load` make it.

    Attributes:
        method: the name of its model in MODELS.
        keras_model: the Keras model inside, a `ZeroShotModel`.
        gamma: what is added to the scores of classes that were never trained.
        class_names: the names of all classes that it knows.
        trained: [C] bool, which of them were trained.
        attribute_names: what describes a class, in the order of the columns of a table.
        class_embeddings: [C, A], how the classes that it knows are described.
        validation: {"T", "U", "S", "H", "AUSUC", "classes", "chance"}: what was reached on validation classes, how many
            they were, and the T of guessing; {} where it is not known.
        calibration: {"temperature", "before", "after"}: of `probabilities`, and the expected calibration error on
            validation rows without and with it; {} where it is not known.
        verdict: what comparing models gave, in words; None where one model was asked for.
    """

    def __init__(self, inside, verdict=None):
        self._inside, self.verdict = inside, verdict

    @property
    def method(self) -> str:
        return self._inside.method

    @property
    def keras_model(self) -> base.ZeroShotModel:
        return self._inside.keras_model

    @property
    def gamma(self) -> float:
        return self._inside.gamma

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._inside.classes.names

    @property
    def trained(self) -> np.ndarray:
        return self._inside.classes.seen

    @property
    def class_embeddings(self) -> np.ndarray:
        return self._inside.classes.embeddings

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return tuple(candidates.attribute_names(self._inside.attributes))

    @property
    def validation(self) -> dict[str, float]:
        return self._inside.validation

    @property
    def calibration(self) -> dict[str, float]:
        known = self._inside.confidence
        return export.calibration(known) if known is not None else {}

    def predict(
        self,
        images: Any,
        classes: Any = None,
        *,
        top: int | None = None,
        known: bool = False,
        missing: str = "fill",
        reject: float | None = None,
        text_encoder: str | os.PathLike[str] | None = None,
    ) -> Any:
        """The class of each image.

        Args:
            images: paths, bytes of files, uint8 images [H, W, 3] or [B, H, W, 3], or rows of what the model takes;
                one, or a list, an array or an iterator of many.
            classes: among which classes; None for all that it knows. Else a dict {name: text}, {name: {attribute:
                value}} or {name: A values}, the path of a table, (names, [K, A]), or a list of names that it knows.
                Classes that it does not know count as never trained. A class may have a few images beside its text or
                attributes: {name: {"attributes": {...}, "images": [...]}}.
            top: how many of the best classes to return, with scores; None for the name alone.
            known: whether the classes that it knows are candidates beside `classes`.
            missing: "fill" fills in attributes that are not given, "refuse" refuses them.
            reject: the share of the images of these classes that may be lost, such as 0.05, so that images of no class
                among them are answered with None. The threshold comes from validation classes. None rejects nothing.
            text_encoder: reads texts, a folder or a handle; that of the training if None. Another one is refused.

        Returns:
            A name for one image and a list of names for several, None for one that shows none of the classes; with
            `top`, lists of (name, score, trained) for them, whose `rejected` says so.
        """
        if top is not None and (not isinstance(top, int | np.integer) or top < 1):
            raise InputError(f"top: got {top!r}; wanted a number of classes, at least 1")
        classes = self._among(classes, known, missing, text_encoder)
        made, single, parts = answers.Predictions(), *self._scored(images, classes, reject)
        for given, scores, labels, rejected in parts:
            kept = given[: max(0, SHOWN - len(made))]
            made.add(answers.answers(scores, labels, classes, top, kept, rejected))
        return made[0] if single else made

    def score(
        self,
        images: Any,
        classes: Any = None,
        *,
        known: bool = False,
        missing: str = "fill",
        text_encoder: str | os.PathLike[str] | None = None,
    ) -> answers.Scores:
        """Calibrated scores [B, K], with gamma for classes that were never trained, and the K names.

        Arguments are those of `predict`. One image has one row.
        """
        return self._table(images, self._among(classes, known, missing, text_encoder))

    def probabilities(
        self,
        images: Any,
        classes: Any = None,
        *,
        known: bool = False,
        missing: str = "fill",
        text_encoder: str | os.PathLike[str] | None = None,
    ) -> answers.Probabilities:
        """Probabilities [B, K], given that an image shows one of the K classes, and the K names.

        They are softmax(scores / temperature), with a temperature that was fitted on validation rows. Arguments are
        those of `predict`. One image has one row.
        """
        temperature = rejection.required(self._inside.confidence, "probabilities:").temperature
        scores = self._table(images, self._among(classes, known, missing, text_encoder))
        made = answers.Probabilities(confidence.probabilities(scores.values, temperature), scores.names)
        made.images = scores.images
        return made

    def evaluate(
        self, data: benchmarks.Benchmark | str | os.PathLike[str] | None = None, **options: Any
    ) -> answers.Evaluation:
        """The metrics on the test images of a benchmark, with 95 % intervals over images and over classes.

        Args:
            data: as for `fit`; None for what it was trained on, where it was trained here.
            **options: as for `fit`.

        Returns:
            An Evaluation: a dict of fractions, with `intervals`.
        """
        source, model = self._inside.source if data is None else source_of(data, options), self.keras_model
        if source is None:
            raise InputError("data: got none, and a saved classifier has none; wanted a benchmark")
        if source.options.get("embedding") == "both":
            source = dataclasses.replace(source, options=source.options | self._as_trained())
        if data is not None and self._inside.test_rows == 0 and is_folder(source):
            self._require_not_trained_on(source)
        benchmark = protocol.published(protocol.Experiment(self.method, model.config, source))
        own, width = self._inside.classes, benchmark.class_embeddings.shape[1]
        if width != own.embeddings.shape[1]:
            wanted = f"the {own.embeddings.shape[1]} that it was trained with"
            raise InputError(f"data: {benchmark.source} has {width} attributes; wanted {wanted}")
        if benchmark.input_shape != model.row_shape:
            got = f"{benchmark.source} has {benchmark.kind} of shape {benchmark.input_shape}"
            raise InputError(f"data: {got}; wanted {model.row_shape}, as it was trained with")
        same = own.names == benchmark.class_names and np.array_equal(own.embeddings, benchmark.class_embeddings)
        was_trained = {name for name, seen in zip(own.names, own.seen, strict=True) if seen}
        seen = np.array([name in was_trained for name in benchmark.class_names])
        outcomes, scores = _outcomes(model, benchmark, seen, same)
        numbers, unseen = metrics.numbers(outcomes, self.gamma), np.flatnonzero(~seen)
        tested = np.isin(benchmark.labels[benchmark.test_unseen], unseen).any()
        title = f"{self.method} on {benchmark.name}: {seen.sum()} trained and {len(unseen)} unseen classes"
        chance = {"T": 1 / len(unseen)} if tested else {}
        known, errors = self._inside.confidence, None
        if known is not None:
            tests = confidence.of(outcomes, scores, self.gamma)
            errors = tests.error(1.0), tests.error(known.temperature)
        return answers.Evaluation(numbers, uncertainty.intervals(outcomes, self.gamma), chance, title, errors)

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Writes a folder for `zslkeras.load`, `zslkeras predict`, `zslkeras serve` and `tf.saved_model.load`.

        It takes images where the classifier does, and otherwise rows of what the model takes.

        Args:
            path: of the folder. An earlier export there is replaced; anything else is left alone and refused.

        Returns:
            The path.
        """
        path = pathlib.Path(path)
        if path.is_dir() and any(path.iterdir()) and not (path / "metadata.json").is_file():
            raise InputError(f"path: {path} holds other files; wanted a new folder, or an earlier export")
        if path.exists() and not path.is_dir():
            raise InputError(f"path: {path} is a file; wanted a folder")
        self._inside.save(path)
        return path

    def __repr__(self):
        facts = ", ".join(f"{key} {value}" for key, value in self._facts().items())
        return f"<ZeroShotClassifier {self.method}: {facts}>"

    def _repr_html_(self):
        return answers.facts_as_html(f"ZeroShotClassifier {self.method}", self._facts())

    def _facts(self):
        reached = self.validation
        facts = {
            "classes": f"{len(self.class_names)} ({np.count_nonzero(self.trained)} trained)",
            "attributes": len(self.attribute_names),
            "gamma": f"{self.gamma:.3g}",
        }
        if reached:
            facts["right on validation classes"] = f"{reached['T']:.1%} (chance {reached['chance']:.1%})"
        return facts

    def _require_not_trained_on(self, source):
        """Refuses the folder of a classifier that kept no image to test on, as `zslkeras train` makes it."""
        for changed in ({}, {"unseen": folder.NONE}):
            whole = dataclasses.replace(source, options=source.options | changed | {"tests": False})
            if protocol.published_digest(whole, MODELS[self.method].eats) == self._inside.digest:
                raise InputError(f"data: all images of {source.name} were trained on; wanted others to test on")

    def _as_trained(self):
        """The options of data whose words stand beside attributes as they did in training."""
        embedding = words.embedding_of(self._inside.attributes)
        if embedding != "both":
            return {"embedding": embedding}
        return {"text_weight": self._inside.attributes["words"]["weight"]}

    def _among(self, given, known, missing, text_encoder):
        if given is None:
            return self._inside.classes
        described, images = examples.split(given)
        own, attributes = self._inside.classes, self._inside.attributes
        classes, notes = candidates.among(own, attributes, described, known, missing, text_encoder)
        for note in notes:
            warnings.warn(note, stacklevel=3)
        return examples.drawn(classes, images, self._inside)

    def _table(self, images, classes):
        scored, shown = [], []
        _, parts = self._scored(images, classes)
        for given, scores, *_ in parts:
            scored.append(scores)
            shown += given[: SHOWN - len(shown)]
        made = answers.Scores(np.concatenate(scored), classes.names)
        made.images = shown
        return made

    def _scored(self, images, classes, reject=None):
        """Whether it is one image, and (its pictures, calibrated scores, labels, which are rejected) of each part."""
        rule = None
        if reject is not None:
            rule = rejection.Rejection(reject, self._inside.confidence, self._inside.classes, classes, self.gamma)
        kind, single, parts = asked.read(images, self._inside)

        def scored():
            for part in parts:
                try:
                    found = self._inside.scored(kind, part, rule.asked if rule else classes)
                except tf.errors.InvalidArgumentError as error:
                    raise InputError(export.sentence(error)) from None
                found, rejected = rule(found) if rule else (found, np.zeros(len(found["label"]), bool))
                calibrated = found["scores"] + np.float32(self.gamma) * ~classes.seen
                yield ([one for one, _ in part] if kind == "pictures" else []), calibrated, found["label"], rejected

        return single, scored()


# What was given.


class _Held(protocol.Data):
    """Data that lie in memory: a Benchmark of stage "final"."""

    def __init__(self, benchmark):
        super().__init__(benchmark.name)
        object.__setattr__(self, "benchmark", benchmark)

    def load(self, stage, inputs, fold=0):
        held = self.benchmark
        if inputs != held.kind:
            raise InputError(f"data: {held.name} holds {held.kind} in memory; wanted {inputs}, which this model takes")
        return benchmarks.tune_stage(held, fold) if stage == "tune" else held


def source_of(data, options):
    """What stages are read from: a protocol.Data."""
    is_path = isinstance(data, str | os.PathLike)
    if options and not is_path:
        first = next(iter(options))
        raise InputError(f"{first}: got it beside data that was loaded; wanted it as an argument of load_benchmark")
    if isinstance(data, protocol.Data):
        return data
    if isinstance(data, benchmarks.Benchmark):
        if data.origin is None:
            if data.stage == "tune":
                raise InputError("data: got a changed copy of stage tune; wanted a whole benchmark, as it was loaded")
            return _Held(data)
        data, root, options = data.origin
    elif is_path:
        root, options = options.pop("root", None), dict(options)
    else:
        wanted = "what load_benchmark or from_arrays returned, or the path of a folder of images"
        raise InputError(f"data: got {type(data).__name__}; wanted {wanted}")
    name = os.fspath(data)
    published = name.lower() == "shapes" or name.upper() in BENCHMARKS
    if not files.is_path(name) and (isinstance(data, os.PathLike) or (os.path.isdir(name) and not published)):
        name = os.path.join(name, "")
    options = {key: os.fspath(one) if isinstance(one, os.PathLike) else one for key, one in options.items()}
    return protocol.Data(name, root and os.fspath(root), {k: one for k, one in options.items() if one is not None})


def _with_features(source, kinds, backbone, weights, say):
    """The data, with features made of the images of a folder that has none of them."""
    kinds = kinds - {"images"}
    if not kinds or not is_folder(source) or source.options.get("features"):
        return source
    directory = pathlib.Path(source.name)
    if any(_has_features(directory, kind) for kind in kinds):
        return source
    pictures = benchmarks.pictures(source.name, source.root, classes=source.options.get("classes"))
    say(f"no features in {directory}: made now by {backbone} of {len(pictures.files)} images, and kept there")
    levels, name = "levels" in kinds, backbones.known(backbone)
    extractor = extract.Extractor(name, weights or "imagenet", _SIZE, ["pooled", "levels" if levels else "maps"])
    name += "-levels" * levels
    extract.extract(extractor, pictures, name, batch_size=_AT_ONCE, say=say)
    return dataclasses.replace(source, options=source.options | {"features": name})


def is_folder(source):
    """Whether data are a folder of images with a table of classes."""
    held = isinstance(source, _Held) or not files.is_path(source.name)
    return not held and benchmarks.takes(source.name, "unseen", **source.options)


def _has_features(directory, kind):
    """Whether a folder has features of a kind, by whatever extractor."""
    try:
        return files.choose_features(directory, kind, None)[0] is not None
    except InputError:  # several, of which the user has to name one
        return True


# Training and judging.


def _trained(experiment, seeds, say):
    """A Finished for each seed of an experiment."""
    tune, out = experiment.load("tune"), experiment.out
    for line in _heading(experiment.model, tune):
        say(line)
    more = {"select": "val", "best_on_test": experiment.best_on_test}
    more |= {"minutes": experiment.minutes} if experiment.minutes else {}
    configs, final = {None: experiment.config}, protocol.published_digest(experiment.data, tune.kind)
    identity = runs.identity(experiment.model, experiment.machine, tune, configs, final, **more)

    def expect(tune, final):
        say(tables.expected(len(seeds), tune, final))

    with runs.opened(out, identity, resume=None) if out else contextlib.nullcontext():
        choices = (protocol.select(experiment, seed, expect=expect if seed == seeds[0] else None) for seed in seeds)
        return [protocol.finish(experiment, choice) for choice in choices]


def _compared(source, machine, minutes, seeds, out, weights, say):
    """The Experiment of the model that is best on validation classes, a Finished for each seed, and a verdict."""
    minutes, tune = minutes or automatic.MINUTES, automatic.any_stage(source)
    for line in _heading(AUTO, tune):
        say(line)
    final = protocol.published_digest(source, tune.kind)
    identity = runs.identity(AUTO, machine, tune, {}, final, minutes=minutes, weights=weights, best_on_test=False)
    first, *others = seeds
    with runs.opened(out, identity, resume=None) if out else contextlib.nullcontext():
        found = automatic.compare(source, machine, minutes, first, out, say, weights)
        for text in (found.table, found.verdict):
            say(text)
        best = dataclasses.replace(found.best, best_on_test=False)
        choices = itertools.chain([found.choice], (protocol.select(best, seed) for seed in others))
        return best, [protocol.finish(best, choice) for choice in choices], found.verdict


def _heading(model, tune):
    yield (
        f"{model} on {tune.name}: {len(tune.train)} training rows of {tune.kind}, {len(tune.seen_classes)} "
        f"classes to train on and {len(tune.unseen_classes)} to choose on"
    )
    for note in tune.notes:
        yield f"note: {note}"


def _outcomes(model, benchmark, seen, same):
    """The Outcomes of a model on the test rows of a benchmark, and the scores that `protocol.tested` keeps.

    Args:
        model: a ZeroShotModel.
        benchmark: stage "final".
        seen: [C] bool, which of its classes were trained.
        same: whether its classes are those of the model, so that the model's own rule for seen classes holds.
    """
    classes, mask = tf.constant(benchmark.class_embeddings), tf.constant(seen, tf.float32)

    @graphs.function(reduce_retracing=True)
    def scored(inputs):
        scores = model.score_classes(inputs, classes)
        return scores[None], model.seen_answers(scores, inputs, mask)[None] if same else None

    if not len(benchmark.tested):
        raise InputError(f"data: {benchmark.source} has no row to test on; wanted some")
    (found,) = protocol.tested(scored, benchmark, np.flatnonzero(seen), np.flatnonzero(~seen))
    return found
