"""Class embeddings out of what a table says in words."""

import dataclasses

import numpy as np

from zslkeras.benchmarks.files import unit_rows
from zslkeras.errors import InputError
from zslkeras.names import EMBEDDINGS
from zslkeras.text import descriptions, encoders

WEIGHT = 0.5  # of text beside attributes, where nothing chooses one; see docs/notes/words.md
_AT_ONCE = 1024  # classes compared with all others
_NEAR = 0.98  # cosine above which two descriptions hardly tell their classes apart


@dataclasses.dataclass(frozen=True)
class Words:
    """What was said about the classes of a benchmark, and who read it.

    Attributes:
        encoder: the name of the encoder, its folder or handle.
        digest: of the encoder.
        embedding: one of EMBEDDINGS.
        by_name: whether nothing was said but the names of the classes, in `descriptions.PROMPTS`.
        said: for each class a tuple of texts.
        weight: of text beside attributes, where the embedding is both; else 0.
        attributes: how many columns of the embedding are attributes, where it is both; else 0.
    """

    encoder: str
    digest: str
    embedding: str
    by_name: bool
    said: tuple[tuple[str, ...], ...]
    weight: float = 0.0
    attributes: int = 0

    def of(self, classes):
        """The Words of some of the classes, by their numbers."""
        return dataclasses.replace(self, said=tuple(self.said[place] for place in classes))


def described(table, text_encoder=None, embedding=None, text_weight=None):
    """The class embeddings [C, A] of a table, the names of their columns, the Words, and a note.

    Args:
        table: a Table without gaps.
        text_encoder: see `encoders.load`; None where nothing is read.
        embedding: "attributes"; "text": its descriptions, or the names of its classes if it has none; or "both", side
            by side. If None, the attributes where it has any. With an encoder, a model of attributes can be asked in
            words later.
        text_weight: the length of text beside attributes of length one; WEIGHT if None.
    """
    embedding = embedding or EMBEDDINGS[table.values.shape[1] == 0]
    if embedding not in EMBEDDINGS:
        raise InputError(f"embedding: got {embedding!r}; wanted one of {', '.join(EMBEDDINGS)}")
    if embedding != "text" and not table.values.shape[1]:
        raise InputError(f"embedding: got {embedding}, and the table of classes has no attributes; wanted text")
    if text_weight is not None and embedding != "both":
        raise InputError(f"text_weight: got {text_weight} for embedding {embedding}; wanted it for both alone")
    if text_weight is not None and not 0 <= text_weight < np.inf:
        raise InputError(f"text_weight: got {text_weight}; wanted a number of at least 0")
    if text_encoder is None:
        if embedding != "attributes":
            what = "descriptions" if any(table.said) else "names"
            raise InputError(
                f"text_encoder: got none to read the {what} of classes; wanted a folder of a sentence encoder"
            )
        note = "the descriptions of classes are not read without a text_encoder" if any(table.said) else None
        return table.values, table.columns, None, note
    encoder, by_name = encoders.load(text_encoder), not any(table.said)
    said = tuple(descriptions.of_names(table.names)) if by_name else table.said
    told = Words(encoder.name, encoder.digest, embedding, by_name, said)
    if embedding == "attributes":
        return table.values, table.columns, told, None
    vectors = descriptions.embedded(encoder, said)
    note = near(table.names, vectors)
    if embedding == "text":
        return vectors, (), told, note
    weight = WEIGHT if text_weight is None else float(text_weight)
    told = dataclasses.replace(told, weight=weight, attributes=table.values.shape[1])
    columns = (*(table.columns or _numbered("attribute", table.values)), *_numbered("text", vectors))
    return beside(table.values, vectors, weight), columns, told, note


def _numbered(kind, matrix):
    return (f"{kind} {place}" for place in range(1, matrix.shape[1] + 1))


def beside(attributes, vectors, weight):
    """Attributes [K, A] and text [K, D] as one embedding [K, A + D] of unit length."""
    return unit_rows(np.hstack([unit_rows(attributes), weight * vectors]))


def near(names, vectors, known=0):
    """A sentence about the two classes that are nearest, if hardly anything tells them apart; else None.

    Args:
        names: of K classes.
        vectors: [K, D] of unit length.
        known: how many of the first classes are not compared with each other.
    """
    count, nearest = 0, (-1.0, 0, 0)
    for start in range(known, len(vectors), _AT_ONCE):
        cosines = np.tril(vectors[start : start + _AT_ONCE] @ vectors.T, start - 1)  # with all that come before
        count += np.count_nonzero(cosines > _NEAR)
        row, column = np.unravel_index(cosines.argmax(), cosines.shape)
        nearest = max(nearest, (cosines[row, column], column, start + row))
    if not count:
        return None
    cosine, first, second = nearest
    more = f"; {count - 1} more pairs are as near" if count > 1 else ""
    return (
        f"{names[first]} and {names[second]} are described nearly alike (cosine {cosine:.3f} of at "
        f"most 1): say what tells them apart{more}"
    )
