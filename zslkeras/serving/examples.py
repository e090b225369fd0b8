"""A few images of a new class: they draw its prototype towards themselves, in the closed form of a model's scores.

    p' = (1 - w) p + w m, of unit length, with m the mean of the images and w = n / (n + WEIGHT) for n of them

The scores change by the closed form's factor times the cosine with p' less the cosine with p.
"""

import collections.abc
import dataclasses
import numbers

import numpy as np

from zslkeras.errors import InputError
from zslkeras.serving import asked

# How many images count as much as the attributes. Chosen on validation classes, see docs/notes/few_images.md.
WEIGHT = 1.0
_KEYS = {"attributes", "images"}


def split(given):
    """(classes without their images, {name: images}) of classes as they were given.

    A class has images as {"attributes": its attributes, "images": some}.
    """
    if not isinstance(given, collections.abc.Mapping):
        return given, {}
    plain, images = {}, {}
    for name, row in given.items():
        if not isinstance(row, collections.abc.Mapping) or not any(map(_is_more, map(row.get, _KEYS))):
            plain[name] = row
            continue
        if set(row) - _KEYS or "attributes" not in row:
            got = ", ".join(map(str, row))
            raise InputError(f"classes: {name} has {got}; wanted attributes, and images beside them")
        plain[name] = row["attributes"]
        if "images" in row:
            images[str(name)] = row["images"]
    return plain, images


def drawn(classes, images, inside):
    """The Classes, drawn towards {name: images} of some of them.

    Args:
        classes: the Classes.
        images: as `ZeroShotClassifier.predict` takes them.
        inside: what recognises, see `recognisers`.
    """
    shifts = None
    for name, given in images.items():
        place = classes.names.index(name)
        try:
            kind, _, parts = asked.read(given, inside)
            found = [inside.closed_form(kind, part, classes.embeddings[[place]]) for part in parts]
        except InputError as error:
            raise InputError(f"classes: {name}: {error}") from None
        features = np.concatenate([one["features"] for one in found])
        shift = found[0]["factor"] * _shift(found[0]["prototypes"][0], features)
        shifts = np.zeros((len(classes.names), len(shift)), np.float32) if shifts is None else shifts
        shifts[place] = shift
    return dataclasses.replace(classes, shifts=shifts)


def _is_more(value):
    """Whether it is more than the value of an attribute, which may be called "images" too."""
    return value is not None and not isinstance(value, numbers.Real)


def _shift(prototype, features):
    """p' - p, for features [n, D] of images."""
    share = len(features) / (len(features) + WEIGHT)
    moved = (1 - share) * prototype + share * _unit(features.mean(axis=0))
    return _unit(moved) - prototype


def _unit(vector):
    return vector / max(np.linalg.norm(vector), np.finfo(np.float32).tiny)
