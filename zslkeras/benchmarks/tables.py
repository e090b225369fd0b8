"""Tables of classes: what describes each class, by numbers, by words, or by both.

    class,stripes,hooves                 class,description                       {"okapi": "a brown animal",
    okapi,1,1                            okapi,a brown animal. Striped legs       "gnu": {"stripes": 0, "hooves": 1}}

A CSV or TSV has a line for each class, and a JSON file an object. A column, or a key, `description` holds a text: of
several sentences, or a list of them in JSON. An .npy [C, A] has the names in a .txt beside it, one per line.
"""

import collections.abc
import csv
import io
import json
import math
import re
import typing

import numpy as np

from zslkeras.benchmarks import files
from zslkeras.errors import InputError, brief
from zslkeras.text import descriptions

DESCRIPTION = "description"
LARGEST = float(np.finfo(np.float32).max)  # value of an attribute


class Table(typing.NamedTuple):
    """Classes as they are described.

    Attributes:
        names: C names.
        columns: A names of the columns of `values`; none where these have no names.
        values: [C, A] attributes; NaN where one is not given.
        said: for each class a tuple of texts, which is empty where nothing is said.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    said: tuple[tuple[str, ...], ...]


def read(path, gaps=False):
    """The Table in a file.

    Args:
        path: a CSV, a TSV, a JSON file, or an .npy.
        gaps: whether attributes and descriptions may be left out for some classes.
    """
    if path.suffix == ".npy":
        return _read_npy(path)
    return _read_json(path, gaps) if path.suffix == ".json" else _read_csv(path, gaps)


def parse(text, where, gaps=False):
    """The Table in the text of a CSV or TSV; `where` says what it is, for messages."""
    return _parsed(io.StringIO(text, newline=""), where, gaps)


def of_mapping(where, given):
    """The Table of {class: text, list of texts, or {attribute: value, "description": text}}.

    Args:
        where: what gave it, for messages.
        given: the mapping.
    """
    names = files.different(where, "class", tuple(map(str, given)))
    rows, said = [], []
    for name, one in zip(names, given.values(), strict=True):
        row, text = {}, one
        if isinstance(one, collections.abc.Mapping):
            # A number is the value of an attribute that happens to have this name.
            text = one.get(DESCRIPTION) if isinstance(one.get(DESCRIPTION), str | list | tuple) else None
            row = {key: value for key, value in one.items() if key != DESCRIPTION or text is None}
        said.append(() if text is None and one is not None else descriptions.checked(where, name, text))
        rows.append(row)
    columns = tuple(dict.fromkeys(str(key) for row in rows for key in row))
    values = np.full((len(rows), len(columns)), np.nan)
    for place, (name, row) in enumerate(zip(names, rows, strict=True)):
        for key, value in row.items():
            if value is None:
                continue
            try:
                values[place, columns.index(str(key))] = float(value)
            except (ValueError, TypeError):
                raise InputError(f"{where}: {name} has {key} {value!r:.60}; wanted a number") from None
    return Table(names, columns, values, tuple(said))


def _read_npy(path):
    embeddings, listed = files.read_matrix(path), path.with_suffix(".txt")
    names = [name for _, name in files.read_lines(listed, f"the classes of {path}, one per line, in UTF-8")]
    if len(names) != len(embeddings):
        raise InputError(f"{listed}: {len(names)} classes; wanted {len(embeddings)}, one per row of {path}")
    return Table(files.different(listed, "class", names), (), embeddings, ((),) * len(names))


def _read_json(path, gaps):
    def once(pairs):
        files.different(path, "name", [name for name, _ in pairs])  # JSON itself would take the last one
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({brief(error)}); wanted JSON in UTF-8") from error
    if not isinstance(content, dict) or not content:
        wanted = 'a JSON object of classes, as in {"okapi": "a brown animal"}'
        raise InputError(f"{path}: holds no class; wanted {wanted}")
    table = of_mapping(str(path), content)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are refused as such
        table = table._replace(values=table.values.astype(np.float32))
    if not gaps:
        _require_whole(path, table)
    return table


def _read_csv(path, gaps):
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            return _parsed(stream, path, gaps)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({brief(error)}); wanted a CSV or TSV in UTF-8") from error


def _parsed(stream, path, gaps):
    # The delimiter is what follows the first word: a name further on may have a comma in its quotes.
    header = stream.readline()
    found = re.match(r'("?)class\1([,;\t]|\s*$)', header, re.IGNORECASE)
    if not found:
        raise InputError(f"{path}: line 1 is {header[:40]!r}; wanted the header class,attr1,attr2,...")
    stream.seek(0)
    reader = csv.reader(stream, delimiter=found[2].strip(" \r\n") or ",", strict=True)
    names, rows, said = [], [], []
    try:
        columns = list(files.different(path, "column", next(reader)[1:]))
        text = next((place for place, one in enumerate(columns, 1) if one.strip().lower() == DESCRIPTION), None)
        attributes = columns if text is None else [*columns[: text - 1], *columns[text:]]
        for cells in reader:
            if not any(cells):
                continue
            where = f"{path}: line {reader.line_num}"
            if len(cells) != len(columns) + 1:
                raise InputError(f"{where}: {len(cells)} cells; wanted {len(columns) + 1}, as in the header")
            words = cells.pop(text) if text else None
            is_said = words is not None and (words.strip() or not gaps)
            said.append(descriptions.checked(where, cells[0], words) if is_said else ())
            names.append(cells[0])
            rows.append(_numbers(where, cells[1:], attributes, gaps))
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read ({brief(error)}); wanted a CSV or TSV in UTF-8") from error
    if not rows:
        raise InputError(f"{path}: no line after the header; wanted one per class")
    values = np.array(rows, np.float32).reshape(len(rows), len(attributes))
    return Table(files.different(path, "class", names), tuple(attributes), values, tuple(said))


def _numbers(where, cells, attributes, gaps):
    numbers = []
    for cell, attribute in zip(cells, attributes, strict=True):
        if gaps and not cell.strip():
            numbers.append(math.nan)
            continue
        try:
            numbers.append(float(cell))
        except ValueError:
            numbers.append(math.nan)
        if not abs(numbers[-1]) <= LARGEST:  # NaN fails every comparison
            raise InputError(f"{where}, column {attribute}: got {cell!r}; wanted a finite number")
    return numbers


def _require_whole(path, table):
    """Refuses an attribute that is not given, and a class without a description beside others that have one."""
    lacking = np.argwhere(~np.isfinite(table.values))
    if len(lacking):
        place, column = lacking[0]
        what = f"{table.columns[column]} of class {table.names[place]}"
        raise InputError(f"{path}: {what} is {table.values[place, column]:g}; wanted a finite number")
    if any(table.said) and not all(table.said):
        name = table.names[[bool(texts) for texts in table.said].index(False)]
        raise InputError(f"{path}: the description of class {name} is empty; wanted at least a word")
