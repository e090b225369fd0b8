"""Classes that are described in words, as what a model knows classes by: text embeddings, or attributes.

A model that was trained on text embeddings is asked with those of the same encoder. One of attributes gets the
attributes that its own classes suggest: a ridge regression from what is said about them to their attributes.
"""

import dataclasses

import numpy as np

from zslkeras.benchmarks import files
from zslkeras.errors import InputError
from zslkeras.text import descriptions, encoders
from zslkeras.text.attributes import FromWords

_HELPED = 1.5  # times chance, from which on words are said to help


@dataclasses.dataclass(frozen=True)
class Told:
    """What words say.

    Attributes:
        rows: [K, A] text embeddings or attributes, NaN for a class of which nothing is said, or nothing that is needed.
        names: of the n classes of which something is said.
        vectors: [n, D] of what is said of them.
    """

    rows: np.ndarray
    names: tuple[str, ...]
    vectors: np.ndarray


def embedding_of(attributes):
    """What a model was trained on, from names.EMBEDDINGS."""
    words = attributes.get("words")
    return words["embedding"] if words else "attributes"


def are_known_by_name(attributes):
    """Whether a model was trained on the names of classes alone, so that a name describes a class."""
    return embedding_of(attributes) == "text" and attributes["words"]["by_name"]


def require_whole(attributes, classes, path):
    """Refuses metadata that do not say what was said of each class, or how text stands beside attributes."""
    words, names = attributes.get("words"), attributes["names"] or []
    if words and len(words["said"]) != classes:
        raise InputError(f"model: {path} has words about {len(words['said'])} of {classes} classes; wanted all")
    if embedding_of(attributes) == "both" and not ("weight" in words and 0 < words.get("attributes", 0) < len(names)):
        raise InputError(f"model: {path} has text beside attributes, and no weight or number of them; wanted both")


def names_of_attributes(attributes):
    """The names of the attributes that text stands beside."""
    return attributes["names"][: attributes["words"]["attributes"]]


def without_text(own, attributes):
    """The Classes of a model of attributes and text, and what its metadata say, as they would be without the text."""
    names = names_of_attributes(attributes)
    rows = files.unit_rows(own.embeddings[:, : len(names)])
    known = attributes["words"] | {"embedding": "attributes"}
    part = attributes | {"names": names, "number": len(names), "unit_length": True, "words": known}
    part["has_negatives"] = bool((rows < 0).any())
    return dataclasses.replace(own, embeddings=rows), part


def with_texts(given, own, attributes):
    """Classes as they are given, for such a model, with a text for each one of which nothing is said.

    A class that the model knows keeps its text. Another one is read by its name, if the trained classes were.
    """
    known = attributes["words"]
    trained = dict(zip(own.names, known["said"], strict=True))
    if known["by_name"]:
        trained = dict(zip(given.names, descriptions.of_names(given.names), strict=True)) | trained
    said = tuple(texts or trained.get(name, ()) for name, texts in zip(given.names, given.said, strict=True))
    if lacking := [name for name, texts in zip(given.names, said, strict=True) if not texts]:
        raise InputError(f"{given.where}: class {lacking[0]} is not described in words; wanted that, as in training")
    return dataclasses.replace(given, said=said)


def doubt(attributes, validation):
    """A sentence where text embeddings hardly helped on the validation classes; None where they did, or none are used.

    Args:
        attributes: what the metadata of a model say about attributes.
        validation: {"T", "chance", ...}, see `ZeroShotClassifier.validation`.
    """
    if embedding_of(attributes) != "text" or not validation:
        return None
    known = attributes["words"]
    if validation["T"] >= _HELPED * validation["chance"]:
        return None
    what, better = ("names", "descriptions, or attributes") if known["by_name"] else ("descriptions", "attributes")
    return (
        f"{what} alone did not help on your validation classes: T {100 * validation['T']:.0f} where chance is "
        f"{100 * validation['chance']:.0f}; {better} may tell more"
    )


def text_of(own, attributes):
    """[C, D] vectors of unit length of the text of a model's own classes; None where it was not trained on text."""
    if embedding_of(attributes) == "attributes":
        return None
    return files.unit_rows(own.embeddings[:, attributes["words"].get("attributes", 0) :])


def read(given, own, attributes, lacking, text_encoder=None):
    """The Told of classes as they are given; None where nothing is said of any.

    Args:
        given: a candidates.Given.
        own: the model's Classes.
        attributes: what its metadata say about attributes; "words" of them is a benchmark's Words, as a dict.
        lacking: [K] bool, which of the classes lack attributes.
        text_encoder: see `encoders.load`; that of the model if None.
    """
    known, places = attributes.get("words"), [place for place, texts in enumerate(given.said) if texts]
    by_text = embedding_of(attributes) == "text"
    if by_text and len(places) < len(given.names) and (places or given.columns):
        name = next(name for name, texts in zip(given.names, given.said, strict=True) if not texts)
        raise InputError(f"{given.where}: class {name} is not described in words; wanted that, as in training")
    if not places:
        return None
    encoder = _encoder(given, known, text_encoder)
    vectors = descriptions.embedded(encoder, [given.said[place] for place in places])
    rows = np.full((len(given.names), attributes["number"]), np.nan)
    if by_text:
        rows[places] = vectors
    elif lacking[places].any():
        rows[places] = _attributes(encoder, known, own, attributes)(vectors)
    return Told(rows, tuple(given.names[place] for place in places), vectors)


def _encoder(given, known, text_encoder):
    """The encoder that reads; refuses words where there is none."""
    if text_encoder is None and not known:
        name = next(name for name, texts in zip(given.names, given.said, strict=True) if texts)
        wanted = "the folder of a sentence encoder, as the model was trained without one"
        raise InputError(f"text_encoder: got none, and class {name} is described in words; wanted {wanted}")
    return encoder_of(known, text_encoder)


def encoder_of(known, text_encoder=None):
    """The encoder of a name, or that of the training; refuses another one than that of the training.

    Args:
        known: what the metadata of a model say about words, or None.
        text_encoder: see `encoders.load`; that of the model if None.
    """
    encoder = encoders.load(known["encoder"] if text_encoder is None else text_encoder)
    if known and encoder.digest != known["digest"]:
        wanted = f"{known['digest']} of {known['encoder']}, with which the model was trained"
        raise InputError(f"text_encoder: {encoder.name} has digest {encoder.digest}; wanted {wanted}")
    return encoder


def _attributes(encoder, known, own, attributes):
    """The FromWords of a model's own classes."""
    said = known["said"] if known and not known["by_name"] else None
    return FromWords.of_classes(encoder, own.names, attributes["names"], own.embeddings, said)
