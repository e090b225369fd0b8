"""What is said about classes, as one vector for each: the mean of its sentences, or of prompts with its name.

A description is a text or several. Each sentence of it is read on its own, as encoders are trained on sentences, and
the mean of their vectors gets unit length.
"""

import re

import numpy as np

from zslkeras.errors import InputError
from zslkeras.text import encoders

PROMPTS = ("a photo of a {}",)  # what is read of a class that has a name alone
TOLD = (3, 5, 12, 24)  # attributes in descriptions that are made of them: people say little, or much
MOST = 20_000  # letters of a description
_WORDS = 60  # in a sentence; a longer one is read in parts, so that no encoder cuts off its end
_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_NUMBER = re.compile(r"^\d+[._ -]+")


def checked(where, name, given):
    """The texts of a class as a tuple; refuses what is no text, an empty one, and one that is too long.

    Args:
        where: what gave them, for the message.
        name: of the class.
        given: a text, or a list of texts.
    """
    texts = (given,) if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"{where}: the description of class {name} is {given!r:.60}; wanted a text, or a list of texts"
        )
    if not texts or not all(text.strip() for text in texts):
        raise InputError(f"{where}: the description of class {name} is empty; wanted at least a word")
    if (letters := sum(map(len, texts))) > MOST:
        raise InputError(f"{where}: the description of class {name} has {letters} letters; wanted at most {MOST}")
    return tuple(texts)


def sentences(texts):
    """The sentences of one or several texts, without spaces around them."""
    found = []
    for text in [texts] if isinstance(texts, str) else texts:
        for sentence in filter(None, map(str.strip, _END.split(text))):
            words = sentence.split()
            found += [" ".join(words[start : start + _WORDS]) for start in range(0, len(words), _WORDS)]
    return found


def embedded(encoder, several):
    """[K, D] rows of unit length for K descriptions, each a text or several."""
    parts = [sentences(texts) for texts in several]
    vectors, places = encoder.encode([one for part in parts for one in part]), np.cumsum([0, *map(len, parts)])
    means = [vectors[start:stop].mean(axis=0) for start, stop in zip(places, places[1:], strict=False)]
    return encoders.unit(np.stack(means))


def of_names(names, prompts=PROMPTS):
    """K descriptions made of the names of K classes, for `embedded`."""
    return [tuple(prompt.format(spoken(name)) for prompt in prompts) for name in names]


def of_known(names, attributes, table, said=None):
    """All that can be said about classes with known attributes: a list of K descriptions each.

    Args:
        names: of K classes.
        attributes: names of A attributes; none where they have no names.
        table: [K, A].
        said: what was said about the classes, if anything was.
    """
    made = [of_attributes(attributes, table, most) for most in TOLD] if attributes else []
    return [of_names(names), *([said] if said else []), *made]


def of_attributes(names, table, most):
    """K descriptions made of attributes: for each class those that it has most beyond other classes.

    Args:
        names: of A attributes.
        table: [K, A].
        most: how many of them.
    """
    phrases, beyond = list(map(phrase, names)), np.asarray(table) - np.mean(table, axis=0)
    best = np.argsort(-beyond, axis=1, kind="stable")[:, :most]
    return [(", ".join(phrases[place] for place in places),) for places in best]


def phrase(attribute):
    """The name of an attribute in words: "has_wing_color::blue" is "blue wing color"."""
    thing, _, value = attribute.removeprefix("has_").partition("::")
    return spoken(f"{value} {thing}")


def spoken(name):
    """The name of a class or an attribute in words: "001.Black_footed_Albatross" is "Black footed Albatross"."""
    return " ".join(re.sub(r"[_:\-+/()]+", " ", _NUMBER.sub("", name)).split()) or name
