"""Answers to many images in a file that grows: CSV, or JSON with a line for each image.

A record beside the file says what was asked and how far the file is whole; it is gone once the file is finished. The
same command goes on from there.
"""

import csv
import hashlib
import io
import json
import os
import pathlib
import time

from zslkeras import atomic
from zslkeras.errors import InputError
from zslkeras.names import IMAGE_SUFFIXES
from zslkeras.progress import Progress

_RECORD_SECONDS = 1.0
_RECORD = {"asked": str, "done": int, "bytes": int}
_EXPORT = ("metadata.json", "class_embeddings.npy", "saved_model.pb", "variables/variables.index")


def images_in(places):
    """The paths of images, where folders stand for the images in them and in their folders."""
    found = []
    for place in map(pathlib.Path, places):
        inside = sorted(_inside(place)) if place.is_dir() else [place]
        if not inside:
            raise InputError(f"{place}: no image in it; wanted one")
        found += inside
    return found


def _inside(place):
    """The images below a folder; links are followed, but no folder is entered twice."""
    entered = set()
    for folder, folders, names in os.walk(place, followlinks=True):
        if os.path.realpath(folder) in entered:
            folders.clear()
            continue
        entered.add(os.path.realpath(folder))
        # A folder goes before a link to it, whatever their order on the disk.
        folders.sort(key=lambda name, folder=folder: (os.path.islink(os.path.join(folder, name)), name))
        yield from (pathlib.Path(folder, name) for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def write(exported, images, path, asking, top, attention=None, skip_bad=False, say=print):
    """Recognises images and writes a line for each, from where the same call before was killed.

    Args:
        exported: a `recognise.Exported`.
        images: their paths.
        path: of the file, one of names.ANSWER_FILES.
        asking, top, attention, skip_bad: see `Exported.answers`.
        say: called with the line at the end.
    """
    asked, form = _digest(exported, images, asking, top), _FORMS[path.suffix](top)
    try:
        with open(path, "ab") as file, atomic.locked(path):
            done = _resume(path, file, asked)
            try:
                answers = exported.answers(images, asking, top, attention, skip_bad, done)
                _fill(path, file, form, asked, answers, done, len(images))
            finally:
                if not file.tell():
                    path.unlink()
            file.flush()
            _record_of(path).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"out: {path}: {error.strerror}; wanted a file that can be written") from error
    say(f"{path}: {len(images)} images")


class _Csv:
    """A row for each image: the answer, the classes with the highest scores, and why there are none."""

    def __init__(self, top):
        self._places = range(1, top + 1)

    def start(self):
        ranked = [f"{what}_{place}" for place in self._places for what in ("class", "score", "trained")]
        return self._line(["picture", "class", "score", "trained", *ranked, "error"])

    def line(self, one):
        cells = [one["picture"], *_cells(one)]
        for place in self._places:
            cells += _cells(one["top"][place - 1]) if place <= len(one.get("top", ())) else [""] * 3
        return self._line([*cells, one.get("error", "")])

    def _line(self, cells):
        text = io.StringIO()
        csv.writer(text).writerow(cells)
        return text.getvalue()


class _JsonLines:
    def __init__(self, top):
        del top

    def start(self):
        return ""

    def line(self, one):
        return json.dumps(one) + "\n"


_FORMS = {".csv": _Csv, ".jsonl": _JsonLines}


def _cells(answer):
    """class, score, trained; empty where there is no answer."""
    values = (answer.get(key) for key in ("class", "score", "trained"))
    return ["" if value is None else value for value in values]


def _fill(path, file, form, asked, answers, done, total):
    """Writes the lines of each batch of answers; the record is never ahead of the file."""
    recorded = None
    with Progress("predict", total, done) as bar:
        for batch in answers:
            if not file.tell():
                file.write(form.start().encode())
            if recorded is None or time.monotonic() - recorded > _RECORD_SECONDS:
                file.flush()
                atomic.write_json(_record_of(path), {"asked": asked, "done": done, "bytes": file.tell()})
                recorded = time.monotonic()
            file.write("".join(map(form.line, batch)).encode("utf-8", "surrogateescape"))
            done += len(batch)
            bar.advance(len(batch))


def _resume(path, file, asked):
    """How many images a former call has done; the file is cut to their lines."""
    record, size = atomic.read_json(_record_of(path), _RECORD), file.tell()
    if not record or not size:
        if size:
            raise InputError(f"out: {path} exists already; wanted another name")
        return 0
    if record["asked"] != asked:
        raise InputError(f"out: {path} was begun with other images or flags; wanted the same, or another name")
    if size < record["bytes"]:
        raise InputError(f"out: {path} has {size} bytes; wanted the {record['bytes']} that were written to it")
    file.truncate(record["bytes"])
    file.seek(0, os.SEEK_END)
    return record["done"]


def _record_of(path):
    return path.with_name(f".{path.name}.partial")


def _digest(exported, images, asking, top):
    """Of all that the lines depend on, but for what the images show."""
    rate = asking.rule and asking.rule.rate
    hashed = hashlib.sha256(repr((list(map(str, images)), asking.classes.names, top, rate)).encode())
    for rows in (asking.classes.embeddings, asking.classes.seen):
        hashed.update(rows.tobytes())
    for name in _EXPORT:
        hashed.update((exported.path / name).read_bytes())
    return hashed.hexdigest()
