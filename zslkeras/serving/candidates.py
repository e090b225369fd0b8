"""The classes among which images are recognised: those of a model, and others that attributes or words describe.

Attributes may be left out. They are filled in with what the model's own classes suggest: attributes go together, so a
class with wings is likely to have feathers. What is said in words is read by `words`.
"""

import collections.abc
import dataclasses
import itertools
import os
import pathlib

import numpy as np

from zslkeras.benchmarks import files, tables
from zslkeras.benchmarks.words import beside, near
from zslkeras.errors import InputError, did_you_mean
from zslkeras.serving import words
from zslkeras.text import descriptions

SCALE = 3.0  # a given class may be this many times shorter or longer than the model's classes
MISSING = ("fill", "refuse")
WAYS = ("conditional", "mean")
# Of the mean variance of the given attributes: how much the regression is drawn to the mean of each attribute.
# Chosen on validation classes of birds, see docs/notes/few_attributes.md.
RIDGE = 0.3
_SAME = 1e-6  # how far equal attributes may be apart


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes that can be recognised.

    Attributes:
        names: K names.
        embeddings: [K, A].
        seen: [K], true for classes that were trained.
        shifts: [K, D], what images of the classes add to their prototypes, see `examples`; None where none has any.
    """

    names: tuple[str, ...]
    embeddings: np.ndarray
    seen: np.ndarray
    shifts: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Given:
    """Classes as they were given.

    Attributes:
        where: what gave them, for sentences.
        names: K names.
        columns: names of the columns of `values`; none where they are the model's attributes in order.
        values: [K, A], NaN where an attribute is missing.
        said: K tuples of texts, which are empty where a class is not described in words.
    """

    where: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    said: tuple[tuple[str, ...], ...]


def among(own, attributes, given, known=True, missing=MISSING[0], text_encoder=None):
    """The classes that are given, and sentences about them that the user should read once.

    A given class whose name the model knows is replaced, and stays seen or unseen. Any other counts as unseen.

    Args:
        own: the model's Classes.
        attributes: what its metadata say about attributes.
        given: the path of a table (see `tables.read`); a dict {name: text}, {name: {attribute: value}} (see
            `tables.of_mapping`) or {name: A values}; (names, [K, A]); [K, A] alone; or names, which a model that was
            trained on names may not know.
        known: whether the model's own classes are among the result too.
        missing: "fill" fills in attributes that are not given; "refuse" refuses them.
        text_encoder: reads words, see `encoders.load`; that of the model if None.
    """
    if missing not in MISSING:
        raise InputError(f"missing: got {missing!r}; wanted one of {', '.join(MISSING)}")
    given = _read(given, own, attributes)
    width = given.values.shape[1]
    if words.embedding_of(attributes) == "both" and (width != attributes["number"] or given.columns):
        values, told, notes = _with_text(own, attributes, given, missing, text_encoder)
    else:
        values, told, notes = _rows(own, attributes, given, missing, text_encoder)
    notes += _note_of_twins(own, attributes, given, told)
    seen = {name: bool(is_seen) for name, is_seen in zip(own.names, own.seen, strict=True)}
    merged = dict(zip(own.names, own.embeddings, strict=True)) if known else {}
    merged |= dict(zip(given.names, values, strict=True))
    classes = Classes(
        tuple(merged),
        np.asarray(list(merged.values()), np.float32),
        np.array([seen.get(name, False) for name in merged]),
    )
    return classes, notes + _note_of_duplicates(own, given, values)


def _rows(own, attributes, given, missing, text_encoder, said=None):
    """The rows [K, A] of classes as they are given, the Told of their words, and notes.

    Args:
        own, attributes, given, missing, text_encoder: see `among`.
        said: [K], which of them the user described; all that have a text if None.
    """
    said = list(map(bool, given.said)) if said is None else said
    by_text = words.embedding_of(attributes) == "text" and (any(given.said) or given.columns)
    values = np.full((len(given.names), attributes["number"]), np.nan) if by_text else _in_order(given, attributes)
    given_part = ~np.isnan(values)
    told = words.read(given, own, attributes, ~given_part.all(axis=1), text_encoder)
    expected = np.full(values.shape, np.nan) if told is None else told.rows
    if by_text:
        values, given_part = told.rows, ~np.isnan(told.rows)
    for name, row, there, in_words in zip(given.names, values, given_part, said, strict=True):
        if not there.any() and not in_words:
            raise InputError(f"{given.where}: no attribute of class {name} is given; wanted at least one")
        if missing == "refuse" and not there.all() and not in_words:
            lacking = [one for one, has in zip(attribute_names(attributes), there, strict=True) if not has]
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise InputError(
                f"{given.where}: attribute {lacking[0]}{more} of class {name} missing; wanted all {len(there)} of the "
                "model"
            )
        if there.any():
            _require_scale(given.where, name, row, attributes, whole=there.all())
    is_read = list(map(bool, given.said))
    lacking = np.where(is_read, 0, np.count_nonzero(~given_part, axis=1))
    values = [
        filled(row, own.embeddings, attributes["unit_length"], expected=one if in_words else None)
        for row, one, in_words in zip(values, expected, is_read, strict=True)
    ]
    values = np.stack(values).astype(np.float32)
    if attributes["unit_length"]:
        values = files.unit_rows(values)
    return values, told, _note_of_filled(given, lacking, values.shape[1]) + _note_of_words(given, given_part)


def _with_text(own, attributes, given, missing, text_encoder):
    """The same for a model of attributes and text side by side: each class has both."""
    own, part = words.without_text(own, attributes)
    said, given = list(map(bool, given.said)), words.with_texts(given, own, attributes)
    values, told, notes = _rows(own, part, given, missing, text_encoder, said)
    return beside(values, told.vectors, attributes["words"]["weight"]).astype(np.float32), told, notes


def attribute_names(attributes):
    """The names of a model's attributes; numbered where they have none."""
    if words.embedding_of(attributes) == "both":
        return words.names_of_attributes(attributes)
    return attributes["names"] or [f"attribute {place}" for place in range(1, attributes["number"] + 1)]


def filled(row, known, unit_length=False, way=WAYS[0], expected=None):
    """A class's attributes with those that are missing filled in.

        missing = mean + B (given - mean), with B the ridge regression of the missing on the given ones

    Args:
        row: [A] with NaN for what is missing.
        known: [C, A] complete classes.
        unit_length: whether `known` was scaled to unit length, class by class. Then `row` may have any scale: it gets
            the one at which the completed row has unit length.
        way: "conditional" as above; "mean" has B = 0.
        expected: [A], in the scale of `known`, in place of the mean; that of `known` if None.

    Returns:
        [A] float64; the given part is in its own scale, or in that of `known` with `unit_length`.
    """
    row, known = np.array(row, np.float64), np.asarray(known, np.float64)
    there = ~np.isnan(row)
    if there.all():
        return row
    if expected is not None and not there.any():
        return np.array(expected, np.float64)
    mean = known.mean(axis=0) if expected is None else expected
    given = row[there]
    slope = np.zeros((np.count_nonzero(~there), len(given)))
    if way == "conditional":
        centred = known - known.mean(axis=0)
        gram = centred[:, there].T @ centred[:, there]
        ridge = max(RIDGE * np.trace(gram) / len(gram), np.finfo(np.float64).tiny)
        slope = np.linalg.solve(gram + ridge * np.eye(len(gram)), centred[:, there].T @ centred[:, ~there]).T
    start, factor = mean[~there] - slope @ mean[there], 1.0
    if unit_length:
        factor = _factor(given, start, slope @ given)
    row[there] = factor * given
    row[~there] = np.clip(start + factor * (slope @ given), known[:, ~there].min(axis=0), known[:, ~there].max(axis=0))
    return row


def _factor(given, start, change):
    """The factor f > 0 with |f given|^2 + |start + f change|^2 = 1; 1 / |given| where there is none."""
    square, linear, constant = given @ given + change @ change, start @ change, start @ start - 1
    if not given.any():
        return 1.0
    inside = linear**2 - square * constant
    factor = (-linear + np.sqrt(inside)) / square if inside > 0 else 0.0
    return factor if factor > 0 else 1 / np.linalg.norm(given)


def _read(given, own, attributes):
    if isinstance(given, str | os.PathLike):
        path = pathlib.Path(given)
        return _named(Given(str(path), *tables.read(path, gaps=True)), own, attributes)
    if isinstance(given, collections.abc.Mapping):
        return _of_dict(given)
    if isinstance(given, tuple) and len(given) == 2 and np.ndim(given[1]) == 2:
        return _of_matrix(given[1], _names(given[0]))
    if isinstance(given, np.ndarray | list) and len(given) and not isinstance(given[0], str):
        return _of_matrix(given)
    names = _names(given)
    return _named(Given("classes", names, (), np.empty((len(names), 0)), ((),) * len(names)), own, attributes)


def _named(given, own, attributes):
    """Classes that are given by their names alone, with what these stand for; any others as they are."""
    if given.values.size or any(given.said):
        return given
    if words.are_known_by_name(attributes):
        return dataclasses.replace(given, said=tuple(descriptions.of_names(given.names)))
    places = {name: place for place, name in enumerate(own.names)}
    for name in given.names:
        if name not in places:
            nearest = did_you_mean(name, own.names)
            got = f"{name!r} is given by its name alone, and the model does not know it"
            raise InputError(f"{given.where}: {got}; {nearest}")
    values = own.embeddings[[places[name] for name in given.names]].astype(np.float64)
    return dataclasses.replace(given, columns=(), values=values)


def _names(given):
    if not isinstance(given, list | tuple | np.ndarray) or not all(isinstance(name, str) for name in given):
        wanted = "a dict of attributes by class, a table's path, [K, A] numbers, (names, numbers), or names it knows"
        raise InputError(f"classes: got {type(given).__name__}; wanted {wanted}")
    if not len(given):
        raise InputError("classes: got none; wanted at least one")
    return files.different("classes", "class", tuple(map(str, given)))


def _of_matrix(values, names=None):
    try:
        values = np.asarray(values, np.float64)
    except (ValueError, TypeError):
        raise InputError("classes: got values that are no numbers; wanted [K, A] numbers") from None
    if values.ndim != 2 or not values.size:
        raise InputError(f"classes: got shape {values.shape}; wanted [K, A], one row for each class")
    names = tuple(f"class {place}" for place in range(1, len(values) + 1)) if names is None else names
    if len(names) != len(values):
        raise InputError(f"classes: got {len(names)} names for {len(values)} rows; wanted one for each")
    return Given("classes", names, (), values, ((),) * len(names))


def _of_dict(given):
    """{name: text or {attribute: value}}, or {name: values of all attributes in order}."""
    if not given:
        raise InputError("classes: got none; wanted at least one")
    rows = list(given.values())
    if all(map(_is_described, rows)):
        return Given("classes", *tables.of_mapping("classes", given))
    if any(map(_is_described, rows)) or len({np.size(row) for row in rows}) > 1:
        wanted = "a text or a dict of attributes for each class"
        raise InputError(f"classes: got different kinds of values; wanted {wanted}")
    names = files.different("classes", "class", tuple(map(str, given)))
    return _of_matrix(np.stack([np.ravel(row) for row in rows]), names)


def _is_described(row):
    """Whether a class is described by a text, by several, or by a dict."""
    texts = isinstance(row, list | tuple) and all(isinstance(one, str) for one in row)
    return isinstance(row, collections.abc.Mapping | str) or texts


def _in_order(given, attributes):
    """The values in the model's order, NaN where one is missing."""
    if not given.values.shape[1]:
        return np.full((len(given.names), attributes["number"]), np.nan)
    names = attributes["names"]
    if not names and set(given.columns) <= set(attribute_names(attributes)):
        names = attribute_names(attributes) if given.columns else names
    if not names or not given.columns:  # only their number can be checked
        if given.values.shape[1] != attributes["number"]:
            got = f"{given.values.shape[1]} attributes"
            raise InputError(f"{given.where}: {got}; wanted the {attributes['number']} of the model")
        return np.asarray(given.values, np.float64)
    for column in given.columns:
        if column not in names:
            near = did_you_mean(column, names)
            raise InputError(f"{given.where}: the model knows no attribute {column!r}; {near}")
    values = np.full((len(given.names), len(names)), np.nan)
    values[:, [names.index(column) for column in given.columns]] = given.values
    return values


def _require_scale(where, name, row, attributes, whole=True):
    """Refuses attributes that cannot have the scale of the model's attributes; NaN are not given."""
    row = row[~np.isnan(row)]
    with np.errstate(over="ignore"):
        length, (shortest, longest) = float(np.linalg.norm(row.astype(np.float32))), attributes["lengths"]
    if not np.isfinite(length):
        raise InputError(f"{where}: the attributes of class {name} have length {length}; wanted a finite one")
    if whole and not length:
        raise InputError(f"{where}: all attributes of class {name} are 0; wanted at least one other value")
    if row.min() < 0 and not attributes["has_negatives"]:
        got = f"attribute value {row.min():g}"
        raise InputError(f"{where}: class {name} has {got}; wanted none below 0, as in training")
    if not attributes["unit_length"] and not (shortest / SCALE if whole else 0) <= length <= longest * SCALE:
        raise InputError(
            f"{where}: the attributes of class {name} have length {length:.3g}, those in training {shortest:.3g} to "
            f"{longest:.3g}; wanted the same scale"
        )


def _note_of_filled(given, lacking, number):
    """A line about the attributes, of `number`, that were filled in."""
    if not lacking.any():
        return []
    some = lacking[lacking > 0]
    count = f"{some.min()}" if some.min() == some.max() else f"{some.min()} to {some.max()}"
    first = given.names[np.flatnonzero(lacking)[0]]
    of = first if len(some) == 1 else f"{len(some)} classes, {first} first"
    return [
        f"{given.where}: filled in {count} of {number} attributes of {of}, by what goes together in the known classes"
    ]


def _note_of_duplicates(own, given, values):
    """A line about classes that are the same."""
    same = [f"{name} is a duplicate of {other}" for name, other in _duplicates(own, given.names, values)]
    more = f"; and {len(same) - 3} more" if len(same) > 3 else ""
    return [f"{given.where}: {'; '.join(same[:3])}{more}: nothing but their names tells them apart"] if same else []


def _duplicates(own, names, values):
    """(a name that is new, the first earlier one with the same row), for each row that has one."""
    replaced, mine = set(names), set(own.names)
    known = [name not in replaced for name in own.names]
    every = [*itertools.compress(own.names, known), *names]
    rows = np.concatenate([own.embeddings[known], values]).astype(np.float64)
    firsts = {}
    for place, row in enumerate(rows):
        firsts.setdefault(row.tobytes(), place)
    # Rows that are nearly the same lie near each other on a line, where few others do.
    different = np.array(list(firsts.values()))
    line = np.random.default_rng(0).uniform(-1, 1, rows.shape[1])
    images, reach = rows[different] @ line, _SAME * np.abs(line).sum()
    order = np.argsort(images, kind="stable")
    for place in range(len(every) - len(names), len(every)):
        first, image = firsts[rows[place].tobytes()], rows[place] @ line
        start, end = np.searchsorted(images, (image - reach, image + reach), sorter=order)
        near = different[order[start:end]]
        near = near[np.abs(rows[near] - rows[place]).max(axis=1, initial=0) <= _SAME]
        earliest = min([first, *near])
        if earliest < place and every[place] not in mine:
            yield every[place], every[earliest]


def _note_of_words(given, there):
    """A line about the classes whose attributes follow from words.

    Args:
        given: the Given.
        there: [K, A], which columns are known without that.
    """
    said = zip(given.names, given.said, there, strict=True)
    read = [name for name, texts, has in said if texts and not has.all()]
    if not read:
        return []
    of = read[0] if len(read) == 1 else f"{len(read)} classes, {read[0]} first"
    return [f"{given.where}: the attributes of {of} follow from what is said, by what is known of other classes"]


def _note_of_twins(own, attributes, given, told):
    """A line about classes that are described nearly alike: the given ones, and those that the model knows."""
    if told is None:
        return []
    names, vectors, known = told.names, told.vectors, 0
    if (texts := words.text_of(own, attributes)) is not None:
        others = [place for place, name in enumerate(own.names) if name not in set(given.names)]
        names, known = [*(own.names[place] for place in others), *names], len(others)
        vectors = np.concatenate([texts[others], vectors])
    note = near(names, vectors, known)
    return [f"{given.where}: {note}"] if note else []
