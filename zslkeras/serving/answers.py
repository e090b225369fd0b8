"""What a classifier answers with: names, scores and numbers that also print well in a terminal and in a notebook."""

import base64
import html
import io
import os
import typing

import numpy as np
from PIL import Image

from zslkeras.evaluation import tables
from zslkeras.evaluation.metrics import METRICS
from zslkeras.images import decode
from zslkeras.serving.rejection import NONE

SHOWN = 24  # images that are kept for a notebook
_SIDE = 96  # pixels of a thumbnail
_COLUMNS = 12  # classes in a table of scores
_NEVER = "never trained"


class Scored(typing.NamedTuple):
    """A class and its calibrated score.

    Attributes:
        name: of the class.
        score: with gamma for a class that was never trained.
        trained: whether it was.
    """

    name: str
    score: float
    trained: bool

    def __repr__(self):
        return f"({self.name!r}, {self.score:.3f})"


class _One:
    """The answer for one image: an HTML table of it and its best classes."""

    best, image, rejected = (), None, False

    def _with(self, best, image, rejected=False):
        self.best, self.image, self.rejected = tuple(best), image, bool(rejected)
        return self

    def _repr_html_(self):
        return _table([_row(self)])


class Name(_One, str):
    """The name of a class. `best` has it and the next best classes, with scores."""


class Ranking(_One, list):
    """The best classes of an image as Scored, the decision first; `rejected` if it shows none of them."""

    def __repr__(self):
        width = max((len(one.name) for one in self), default=0)
        marks = ("" if one.trained else f"  {_NEVER}" for one in self)
        lines = [f"{one.name:{width}s}  {one.score:8.3f}{mark}" for one, mark in zip(self, marks, strict=True)]
        lines = [f"{NONE}; the nearest are", *lines] if self.rejected else lines
        return "\n".join(lines) if lines else "[]"


class Predictions(list):
    """The answers for several images, each a Name or a Ranking, and None in place of a Name that was rejected."""

    def __init__(self):
        super().__init__()
        self._shown = []

    def add(self, answers):
        for one in answers:
            self.append(None if one.rejected and isinstance(one, Name) else one)
            self._shown += [one] * (len(self._shown) < SHOWN)

    def __repr__(self):
        if not any(isinstance(one, Ranking) for one in self):
            return super().__repr__()
        return "\n".join(f"[{place}]\n{one!r}" for place, one in enumerate(self))

    def _repr_html_(self):
        more = f"<p>and {len(self) - SHOWN} more</p>" if len(self) > SHOWN else ""
        return _table([_row(one) for one in self._shown]) + more


class Scores(typing.NamedTuple("_Scores", [("values", np.ndarray), ("names", tuple)])):
    """Calibrated scores [B, K] and the K names: `values, names = model.score(images)`."""

    images, what = (), "scores"

    def __repr__(self):
        lines = [f"{self.what} of {len(self.values)} images and {len(self.names)} classes; the best of each:"]
        for place, row in enumerate(self.values[:SHOWN]):
            best = np.argsort(-row, kind="stable")[:3]
            lines.append(f"[{place}]  " + ", ".join(f"{self.names[one]} {row[one]:.3f}" for one in best))
        return "\n".join(lines + ["..."] * (len(self.values) > SHOWN))

    def _repr_html_(self):
        columns = np.sort(np.argsort(-self.values.max(axis=0), kind="stable")[:_COLUMNS])
        head = "".join(f"<th>{html.escape(self.names[column])}</th>" for column in columns)
        lines = []
        for place, row in enumerate(self.values[:SHOWN]):
            best = row.argmax()
            cells = "".join(_cell(f"{row[column]:.3f}", column == best) for column in columns)
            image = self.images[place] if place < len(self.images) else None
            lines.append(f"<tr><td>{_thumbnail(image) or place}</td>{cells}</tr>")
        left = [f"{count - shown} more {what}" for count, shown, what in _left(self.values.shape, len(columns))]
        more = f"<p>{' and '.join(left)}</p>" if left else ""
        return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>{more}"


class Probabilities(Scores):
    """Probabilities [B, K] and the K names: `values, names = model.probabilities(images)`."""

    what = "probabilities"


class Evaluation(dict):
    """{metric: fraction} of a classifier on the test images of a benchmark.

    Attributes:
        calibration_error: (of the scores as they are, of `probabilities`), expected, 0..1; None where not known.
        intervals: {"rows": {metric: [low, high]}, "classes": {metric: [low, high]}}: of 95 %, over images and classes.
        chance: {"T": what guessing gives}, or {} where no unseen class has an image.
        title: what was evaluated on what.
    """

    def __init__(self, numbers, intervals, chance, title, calibration_error=None):
        super().__init__(numbers)
        self.intervals, self.chance, self.title = intervals, chance, title
        self.calibration_error = calibration_error

    def __repr__(self):
        lines = [f"{self.title}, percent", tables.grid("", METRICS, self._rows())]
        if self.calibration_error:
            before, after = map(tables.percent, self.calibration_error)
            lines.append(f"expected calibration error of probabilities: {after}, without the temperature {before}")
        return "\n".join(lines)

    def _repr_html_(self):
        head = "".join(f"<th>{metric}</th>" for metric in METRICS)
        lines = [
            f"<tr><th style='text-align:left'>{html.escape(name.strip())}</th>{''.join(map(_cell, cells))}</tr>"
            for name, cells in self._rows()
        ]
        title = f"<caption>{html.escape(self.title)}, percent</caption>"
        return f"<table>{title}<tr><th></th>{head}</tr>{''.join(lines)}</table>"

    def _rows(self):
        rows = [("at the gamma of the classifier", [tables.percent(self[metric]) for metric in METRICS])]
        for kind, label in (("rows", "  95 % over images"), ("classes", "  95 % over classes")):
            rows.append((label, [tables.span(self.intervals[kind][metric]) for metric in METRICS]))
        return [*rows, ("chance", [tables.percent(self.chance.get(m)) if m in self.chance else "" for m in METRICS])]


def answers(scores, labels, classes, top, images, rejected):
    """An answer for each of [B, K] calibrated scores: Names, or Rankings of `top` classes.

    Args:
        scores: [B, K].
        labels: [B], the decisions.
        classes: the Classes.
        top: how many classes are listed; None for the name alone.
        images: what was given for the first rows; as many are shown in a notebook.
        rejected: [B] bool, which show none of the classes.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, : top or 3]
    for row, places in enumerate(order):
        # A model's own rule may decide for a class that has not the highest score.
        first = int(labels[row])
        places = [first, *(place for place in places.tolist() if place != first)][: len(places)]
        best = [Scored(classes.names[p], float(scores[row, p]), bool(classes.seen[p])) for p in places]
        made = Name(best[0].name) if top is None else Ranking(best)
        yield made._with(best, images[row] if row < len(images) else None, rejected[row])


def facts_as_html(title, facts):
    """A table of {name: value}."""
    lines = "".join(f"<tr><th style='text-align:left'>{_text(key)}</th>{_cell(facts[key])}</tr>" for key in facts)
    return f"<table><caption>{_text(title)}</caption>{lines}</table>"


def _row(one):
    lines = [f"<div><b>{NONE}</b></div>"] * one.rejected
    for place, (name, score, trained) in enumerate(one.best):
        name = _text(name) if place or one.rejected else f"<b>{_text(name)}</b>"
        lines.append(f"<div>{name} {score:.3f}{'' if trained else f' <i>{_NEVER}</i>'}</div>")
    named = _text(os.path.basename(one.image)) if isinstance(one.image, str | os.PathLike) else ""
    best = f"<td style='text-align:left'>{''.join(lines)}</td>"
    return f"<tr><td>{_thumbnail(one.image)}</td><td>{named}</td>{best}</tr>"


def _table(rows):
    return f"<table>{''.join(rows)}</table>"


def _cell(text, bold=False):
    return f"<td><b>{_text(text)}</b></td>" if bold else f"<td>{_text(text)}</td>"


def _text(text):
    return html.escape(str(text))


def _left(shape, columns):
    return [one for one in ((shape[0], SHOWN, "images"), (shape[1], columns, "classes")) if one[0] > one[1]]


def _thumbnail(given):
    """An <img> of what was given for an image; nothing where that is gone, or was a row of features."""
    if given is None:
        return ""
    try:
        if isinstance(given, np.ndarray):
            picture = Image.fromarray(given)
        else:
            contents = given if isinstance(given, bytes) else decode.read(given)
            picture = Image.open(io.BytesIO(decode.plain(contents, "image"))).convert("RGB")
        picture.thumbnail((_SIDE, _SIDE))
        content = io.BytesIO()
        picture.save(content, "PNG")
    except (OSError, ValueError):  # an InputError is a ValueError
        return ""
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">'
