"""Your own data: a folder with one sub-folder of pictures a class, and a table of class attributes.

The table is a CSV or TSV `class,attr1,attr2,...`, or a `.npy` of text embeddings [C, A] with the names of the classes,
one a line, in a `.txt` of the same stem. Classes with a row but no folder are unseen classes that a model can still
recognise.
"""

import csv
import difflib
import math
import os
import pathlib
import re

import numpy as np

from zslkeras.benchmarks import files, filters
from zslkeras.benchmarks.benchmark import HELD_OUT_SHARE, Benchmark
from zslkeras.errors import InputError
from zslkeras.images import decode

FILTERS = "filters"  # the name, among features, of the built-in weight-free filter bank
UNSEEN_SHARE = 0.2  # of the classes with pictures, where nothing else says which are unseen
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_CHUNK = 1024  # pictures decoded at a time
_LARGEST = float(np.finfo(np.float32).max)


def read(
    name,
    root,
    inputs,
    *,
    classes=None,
    unseen=None,
    features=None,
    attribute_vectors=None,
    normalize=True,
    seed=0,
):
    """Reads your folder.

    Args:
        name: its path.
        root: not used: the path says where the data lies.
        inputs: one of "features", "maps", "levels", "images".
        classes: the table; `<folder>/classes.csv` or `classes.tsv` if None.
        unseen: class names separated by commas, or a fraction of the classes with pictures to draw; if None, the
            classes without pictures, and where there are none, a fraction of UNSEEN_SHARE.
        features: "filters" for the built-in filter bank, or the name of feature files in the folder.
        attribute_vectors: a .npy file, [A, V].
        normalize: whether class embeddings get L2 length one.
        seed: of the draws.

    Returns:
        A Benchmark of stage "final".
    """
    folder = pathlib.Path(name)
    table = _table(folder, classes)
    class_names, attribute_names, embeddings = read_table(table)
    pictures, notes = _pictures(folder, class_names, table)
    ids = {class_name: label for label, class_name in enumerate(class_names)}
    labels = np.array([ids[os.path.dirname(picture)] for picture in pictures])
    with_pictures = np.unique(labels)
    unseen_classes, drawn = _unseen(unseen, class_names, with_pictures, seed)
    train, test_seen, test_unseen = _split(labels, unseen_classes, seed)

    # The rows are those of whatever holds the inputs, so that a map file is never copied to be reordered.
    arrays, finite, order, rows, features, chosen = _inputs(folder, inputs, features, pictures)
    row_labels = np.full(rows, -1, np.int32)
    row_labels[order[order >= 0]] = labels[order >= 0]
    train, test_seen, test_unseen = (order[part][order[part] >= 0] for part in (train, test_seen, test_unseen))
    vectors = None if attribute_vectors is None else files.read_matrix(attribute_vectors, embeddings.shape[1])
    return Benchmark(
        name=os.path.basename(os.path.realpath(folder)),
        source=str(folder),
        kind=inputs,
        inputs=arrays,
        labels=row_labels,
        class_embeddings=files.unit_rows(embeddings) if normalize else embeddings,
        class_names=class_names,
        seen_classes=np.setdiff1d(with_pictures, unseen_classes),
        unseen_classes=unseen_classes,
        train=train,
        test_seen=test_seen,
        test_unseen=test_unseen,
        attribute_names=attribute_names,
        attribute_vectors=vectors,
        finite=finite,
        features=features,
        notes=tuple(note for note in (*notes, drawn, chosen) if note),
    )


def pictures(name, root, *, classes=None):
    """The pictures of your folder, for features to be made of; args as for `read`. Returns files.Pictures."""
    folder = pathlib.Path(name)
    table = _table(folder, classes)
    class_names, _, _ = read_table(table)
    found, notes = _pictures(folder, class_names, table)
    labels = np.array([class_names.index(os.path.dirname(picture)) + 1 for picture in found])
    return files.Pictures(folder, tuple(found), tuple(str(folder / picture) for picture in found), labels, tuple(notes))


def read_table(path):
    """Class names, attribute names (none for an .npy) and the [C, A] values of a table of classes."""
    return _read_npy(path) if path.suffix == ".npy" else _read_csv(path)


def _table(folder, classes):
    if not folder.is_dir():
        raise InputError(f"dataset: no folder {folder}; wanted one with a sub-folder of pictures for each class")
    choices = [pathlib.Path(classes)] if classes is not None else [folder / "classes.csv", folder / "classes.tsv"]
    for choice in choices:
        if choice.is_file():
            return choice
    raise InputError(
        f"classes: no file {' or '.join(map(str, choices))}; wanted a table with the header class,attr1,attr2,... "
        "and one line a class (--classes says where it lies)"
    )


def _read_npy(path):
    embeddings, listed = files.read_matrix(path), path.with_suffix(".txt")
    try:
        names = listed.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{listed}: cannot be read ({error}); wanted the classes of {path}, one a line") from error
    if len(names) != len(embeddings):
        raise InputError(f"{listed}: {len(names)} classes; wanted {len(embeddings)}, one a row of {path}")
    return _different(listed, "class", names), (), embeddings


def _read_csv(path):
    """Class names, attribute names and the [C, A] values of a table."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            # The delimiter is what follows the first word, so that a comma inside a quoted name cannot mislead.
            header = stream.readline()
            found = re.match(r'("?)class\1([,;\t])', header, re.IGNORECASE)
            if not found:
                raise InputError(f"{path}: line 1 is {header[:40]!r}; wanted the header class,attr1,attr2,...")
            stream.seek(0)
            reader = csv.reader(stream, delimiter=found[2], strict=True)
            attributes = _different(path, "column", next(reader)[1:])
            names, rows = [], []
            for cells in reader:
                if any(cells):
                    names.append(cells[0])
                    rows.append(_numbers(f"{path}: line {reader.line_num}", cells, attributes))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); wanted a CSV or TSV in UTF-8") from error
    if not rows:
        raise InputError(f"{path}: no line after the header; wanted one a class")
    return _different(path, "class", names), attributes, np.array(rows, np.float32)


def _numbers(where, cells, attributes):
    if len(cells) != len(attributes) + 1:
        raise InputError(f"{where}: {len(cells)} cells; wanted {len(attributes) + 1}, as in the header")
    numbers = []
    for cell, attribute in zip(cells[1:], attributes, strict=True):
        try:
            numbers.append(float(cell))
        except ValueError:
            numbers.append(math.nan)
        if not abs(numbers[-1]) <= _LARGEST:  # NaN fails every comparison
            raise InputError(f"{where}, column {attribute}: got {cell!r}; wanted a finite number")
    return numbers


def _different(path, what, names):
    for name in names:
        if not name.strip():
            raise InputError(f"{path}: a {what} has no name; wanted one for each")
        if names.count(name) > 1:
            raise InputError(f"{path}: {what} {name} stands there {names.count(name)} times; wanted once")
    return tuple(names)


def _pictures(folder, class_names, table):
    """Paths "class/file" in a fixed order, and a note on what was skipped."""
    pictures, skipped = [], []
    for directory in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        if directory.name not in class_names:
            raise InputError(f"{directory}: no row for it in {table}{_nearest(directory.name, class_names)}")
        found = []
        for entry in sorted(os.listdir(directory)):
            if os.path.splitext(entry)[1].lower() in _SUFFIXES:
                found.append(entry)
            elif entry[0] != ".":
                skipped.append(f"{directory.name}/{entry}")
        if not found:
            raise InputError(f"{directory}: no picture in it; wanted one, or no folder for a class without pictures")
        pictures += [f"{directory.name}/{entry}" for entry in found]
    if not pictures:
        raise InputError(f"{folder}: no sub-folder of pictures; wanted one for each class that has pictures")
    return pictures, [f"skipped as no pictures: {len(skipped)} files, first {skipped[0]}"] if skipped else []


def _unseen(wanted, class_names, with_pictures, seed):
    """Ids of the unseen classes, and a note if they were drawn."""
    without = np.setdiff1d(np.arange(len(class_names)), with_pictures)
    if wanted is None and len(without):
        return without, None
    share = _share(UNSEEN_SHARE if wanted is None else wanted, class_names)
    if share is None:
        named = [name.strip() for name in next(csv.reader([wanted], skipinitialspace=True))]
        for name in named or [""]:
            if name not in class_names:
                raise InputError(f"unseen: no class {name!r}{_nearest(name, class_names)}")
        chosen, note = [class_names.index(name) for name in named], None
    else:
        count = max(1, min(len(with_pictures) - 1, round(share * len(with_pictures))))
        chosen = np.sort(np.random.default_rng([seed, 0]).choice(with_pictures, count, replace=False))
        note = f"unseen classes drawn (seed {seed}): {', '.join(class_names[label] for label in chosen)}"
    unseen = np.union1d(chosen, without).astype(int)
    if not len(np.setdiff1d(with_pictures, unseen)):
        raise InputError(f"unseen: all {len(with_pictures)} classes with pictures; wanted one left to train on")
    return unseen, note


def _share(wanted, class_names):
    """`wanted` as a fraction, or None if it is a list of names."""
    try:
        share = float(wanted)
    except ValueError:
        return None
    if wanted in class_names:
        return None
    if not 0 < share < 1:
        raise InputError(f"unseen: got {wanted}; wanted class names or a fraction between 0 and 1")
    return share


def _nearest(name, names):
    near = difflib.get_close_matches(name, names, 1)
    return (
        f"; did you mean {near[0]}?" if near else f"; wanted one of {', '.join(names[:5])}{', ...' * (len(names) > 5)}"
    )


def _split(labels, unseen_classes, seed):
    """Picture numbers of train, test_seen and test_unseen; a lone picture of a seen class is trained on."""
    generator = np.random.default_rng([seed, 1])
    test_unseen = np.flatnonzero(np.isin(labels, unseen_classes))
    test_seen = []
    for label in np.setdiff1d(labels, unseen_classes):
        rows = np.flatnonzero(labels == label)
        count = max(1, round(HELD_OUT_SHARE * len(rows))) if len(rows) > 1 else 0
        test_seen.append(generator.choice(rows, count, replace=False))
    test_seen = np.sort(np.concatenate(test_seen))
    return np.setdiff1d(np.arange(len(labels)), np.concatenate([test_seen, test_unseen])), test_seen, test_unseen


def _inputs(folder, kind, features, pictures):
    """The inputs, whether they are finite, the row of each picture in them, how many rows, their extractor, a note.

    A picture that the features leave out because it did not decode has row -1.
    """
    count, same, note = len(pictures), np.arange(len(pictures)), None
    if kind == "images":
        for picture in pictures:
            decode.check_header(folder / picture)
        return np.array([str(folder / picture) for picture in pictures]), True, same, count, None, None
    if features != FILTERS:
        features, note = files.choose_features(folder, kind, features)
    if features == FILTERS:
        return _filtered(folder, kind, pictures), True, same, count, FILTERS, None
    missing = [path for path in files.inputs_files(folder, kind, features or "NAME") if not path.is_file()]
    rows_file = files.rows_file(folder, features)
    if missing or rows_file is None:
        lacking = " and ".join(path.name for path in missing) or "labels.mat with image_files"
        raise InputError(
            f"{folder}: missing {lacking}; {files.how_to_get(folder, kind, os.path.join(folder, ''))}, "
            f"or pass --features {FILTERS} for the built-in filter bank without weights"
        )
    fields = files.read_mat(rows_file, ["image_files"], ["skipped_files"])
    recorded, skipped = fields["image_files"], fields.get("skipped_files", [])
    rows = dict.fromkeys(map(_class_and_file, skipped), -1)
    rows |= {_class_and_file(file): row for row, file in enumerate(recorded)}
    absent = [picture for picture in pictures if picture not in rows]
    if skipped:
        lack = f"{rows_file.name} leaves out {len(skipped)} pictures, first {skipped[0]}"
        note = lack if note is None else f"{note}; {lack}"
    if absent:
        got = f"image_files lacks {len(absent)} of {count} pictures of {folder}, first {absent[0]}"
        raise InputError(f"{rows_file}: {got}; wanted all of them: make the features again")
    arrays, finite = files.read_inputs(folder, kind, features, len(recorded))
    return arrays, finite, np.array([rows[picture] for picture in pictures]), len(recorded), features, note


def _class_and_file(recorded):
    return "/".join(recorded.replace("\\", "/").split("/")[-2:])


def _filtered(folder, kind, pictures):
    extract = {"features": filters.pooled, "maps": filters.maps, "levels": filters.levels}[kind]
    parts = []
    for start in range(0, len(pictures), _CHUNK):
        paths = [folder / picture for picture in pictures[start : start + _CHUNK]]
        parts.append(extract(decode.load(paths, filters.SIDE, crop=False)))
    return tuple(map(np.concatenate, zip(*parts, strict=True))) if kind == "levels" else np.concatenate(parts)
