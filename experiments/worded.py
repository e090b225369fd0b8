"""The work of `experiments.words`: class embeddings of each kind of words, on validation classes."""

import dataclasses

import numpy as np

from experiments import published
from zslkeras import protocol
from zslkeras.benchmarks import files
from zslkeras.benchmarks.words import Words, beside
from zslkeras.errors import InputError, did_you_mean
from zslkeras.evaluation import metrics, tables
from zslkeras.models import MODELS
from zslkeras.text import descriptions, encoders
from zslkeras.text.attributes import FromWords
from zslkeras.weighing import WEIGHTS

SHOWN, MANY = ("T", "H"), 12  # metrics; attributes in the longer sentences


@dataclasses.dataclass(frozen=True)
class Worded(protocol.Data):
    """Data whose class embeddings are replaced in stage tune.

    Attributes:
        embed: a function of a benchmark of stage tune, to class embeddings [C, A].
    """

    embed: object = None

    def load(self, stage, inputs, fold=0):
        if stage != "tune":
            raise InputError(f"stage: got {stage}; wanted tune, as words are measured on validation classes")
        loaded = super().load(stage, inputs, fold)
        embeddings = np.asarray(self.embed(loaded), np.float32)
        return dataclasses.replace(loaded, class_embeddings=embeddings, attribute_names=(), attribute_vectors=None)


def measure(settings):
    """The work of `experiments.words`; see there."""
    asked = dataclasses.replace(settings.data, embedding="attributes")
    if MODELS[settings.model].eats != "features":
        raise InputError(f"model: {settings.model} takes {MODELS[settings.model].eats}; wanted one that takes features")
    data = protocol.Data(**asked.arguments())
    benchmark = data.load("tune", "features")
    if not benchmark.attribute_names:
        raise InputError(f"dataset: the attributes of {benchmark.name} have no names; wanted a table with a header")
    config, encoder = published.config(settings.model, benchmark, settings.overrides), encoders.load(asked.text_encoder)
    found, known = [], ways(encoder, benchmark.words, settings.few)
    for name in settings.row:
        if name not in known:
            raise InputError(f"row: got {name!r}; {did_you_mean(name, known, every=True)}")
    for name in settings.row or known:
        embed = known[name]
        source, numbers = Worded(data.name, data.root, data.options, embed), []
        for fold in range(settings.folds):
            experiment = protocol.Experiment(settings.model, config, source, settings.machine.machine(), logs=False)
            numbers.append(metrics.numbers(*protocol.validated(experiment, 0, fold)))
        means = [np.mean([one[metric] for one in numbers]) for metric in SHOWN]
        found.append((name, [tables.percent(mean) for mean in means]))
    chance = tables.percent(1 / len(benchmark.unseen_classes))
    title = f"{settings.model} on {benchmark.name}, validation classes, {settings.folds} folds, percent"
    print(tables.grid(title, SHOWN, [*found, ("chance", [chance, ""])]))


def ways(encoder, told, few):
    """{row of the table: function of a benchmark to class embeddings}.

    Args:
        encoder: of sentences.
        told: the Words of the benchmark.
        few: how many attributes the shorter sentences have.
    """
    kinds = {
        "names": lambda benchmark: descriptions.of_names(benchmark.class_names),
        "sentences": lambda benchmark: made(benchmark, MANY),
        "short sentences": lambda benchmark: made(benchmark, few),
    }
    if not told.by_name:
        kinds["descriptions"] = lambda one: one.words.said

    def text(kind):
        return lambda benchmark: descriptions.embedded(encoder, kinds[kind](benchmark))

    found = {"attributes": lambda benchmark: benchmark.class_embeddings}
    found |= {f"text: {kind}": text(kind) for kind in kinds}
    found |= {
        f"attributes, {kind} by {one:g}": with_text(text(kind), one) for kind in kinds for one in filter(None, WEIGHTS)
    }
    for kind in kinds:
        found[f"attributes by regression: {kind}"] = guessed(regression(encoder), text(kind))
    for kind in kinds:
        found[f"attributes by similarity: {kind}"] = guessed(similarity(encoder, kinds[kind]), text(kind))
    return found


def with_text(text, weight):
    """Attributes and text side by side."""
    return lambda benchmark: beside(benchmark.class_embeddings, text(benchmark), weight)


def made(benchmark, most):
    return descriptions.of_attributes(benchmark.attribute_names, benchmark.class_embeddings, most)


def guessed(way, asked):
    """Attributes of the trained classes, and those of the validation classes as words suggest them.

    Args:
        way: a function of a benchmark that has only the trained classes, to one of texts to attributes.
        asked: a function of a benchmark to texts [C, D] of its classes.
    """

    def embed(benchmark):
        seen, unseen = benchmark.seen_classes, benchmark.unseen_classes
        embeddings = np.array(benchmark.class_embeddings, np.float64)
        guess = way(_Known.of(benchmark, seen))(asked(benchmark)[unseen])
        is_unit = np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-4)
        embeddings[unseen] = files.unit_rows(guess) if is_unit else guess
        return embeddings

    return embed


@dataclasses.dataclass(frozen=True)
class _Known:
    """What a benchmark says of some of its classes."""

    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    class_embeddings: np.ndarray
    words: Words

    @classmethod
    def of(cls, benchmark, classes):
        names = tuple(benchmark.class_names[place] for place in classes)
        words = benchmark.words.of(classes)
        return cls(names, benchmark.attribute_names, benchmark.class_embeddings[classes], words)


def regression(encoder):
    """As `serving.words` does it."""

    def way(known):
        said = None if known.words.by_name else known.words.said
        asked = known.class_names, known.attribute_names, known.class_embeddings
        return FromWords.of_classes(encoder, *asked, said)

    return way


def similarity(encoder, kind):
    """How near a text is to the name of each attribute, from its mean and in one scale for all attributes."""

    def way(known):
        attributes = np.asarray(known.class_embeddings, np.float64)
        phrases = descriptions.embedded(encoder, list(map(descriptions.phrase, known.attribute_names)))
        near, mean = descriptions.embedded(encoder, kind(known)) @ phrases.T, attributes.mean(axis=0)
        centre = near.mean(axis=0)
        slope = ((near - centre) * (attributes - mean)).sum() / ((near - centre) ** 2).sum()
        low, high = attributes.min(axis=0), attributes.max(axis=0)
        return lambda asked: np.clip(mean + slope * (asked @ phrases.T - centre), low, high)

    return way
