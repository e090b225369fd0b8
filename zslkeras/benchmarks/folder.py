"""Your own data: a folder with one sub-folder of images per class, and a table of class attributes.

The table says by attributes, in words, or by both what each class is, see `tables`. Classes with a row but no folder
are unseen classes that a model can still recognise.
"""

import csv
import os
import pathlib

import numpy as np

from zslkeras.benchmarks import files, filters, tables, words
from zslkeras.benchmarks.benchmark import UNSEEN_SHARE, Benchmark, draw_held_out
from zslkeras.errors import InputError, did_you_mean
from zslkeras.images import decode
from zslkeras.names import IMAGE_SUFFIXES

FILTERS = "filters"  # the built-in filter bank, as a name of features
TABLES = ("classes.csv", "classes.tsv", "classes.json")
NONE = "none"  # the unseen classes are those without images alone, if there are any
_UNSEEN = f"class names separated by commas, a file with one per line, a fraction between 0 and 1, or {NONE}"
_CHUNK = 1024  # images decoded at a time


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
    text_encoder=None,
    embedding=None,
    text_weight=None,
    tests=True,
    seed=0,
):
    """Reads your folder.

    Args:
        name: its path.
        root: not used, as the path says where the data is.
        inputs: one of "features", "maps", "levels", "images".
        classes: the table; `<folder>/classes.csv` or `classes.tsv` if None.
        unseen: a list of class names; or a text: class names separated by commas, a file with one class name per line,
            a fraction of the classes with images, which are drawn, or "none" for the classes without images alone. If
            None, the classes without images, or a fraction of UNSEEN_SHARE if all have some. A text that is both a
            class and something else is the class.
        features: "filters" for the built-in filter bank, or the name of feature files in the folder.
        attribute_vectors: a .npy file, [A, V].
        normalize: whether class embeddings get L2 length one.
        text_encoder: a folder or a handle, see `text.encoders.load`; reads what the table says in words.
        embedding: from words.EMBEDDINGS, what class embeddings are made of; see `words.described`.
        text_weight: of text beside attributes, where the embedding is "both"; see `words.described`.
        tests: whether a fifth of the images of each class are kept to test on. Without them all images of seen
            classes are trained on, and nothing can be said about these classes in stage "final".
        seed: of the draws.

    Returns:
        A Benchmark of stage "final".
    """
    folder = pathlib.Path(name)
    table, pictures, labels, notes = _contents(folder, classes)
    class_names = table.names
    if embedding == "both" and not normalize:
        raise InputError("normalize: got False for embedding both, which has unit length; wanted True")
    if embedding == "both" and attribute_vectors is not None:
        raise InputError("attribute_vectors: got them for embedding both, whose text has none; wanted attributes alone")
    embeddings, attribute_names, told, note = words.described(table, text_encoder, embedding, text_weight)
    with_pictures = np.unique(labels)
    unseen_classes, drawn = _unseen(unseen, class_names, with_pictures, seed)
    train, test_seen, test_unseen = _split(labels, unseen_classes, tests, seed)

    prepared = files.records(folder, features) if inputs == "images" else {}
    # The rows keep the order of the file that holds the inputs, so that maps are never copied to be reordered.
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
        notes=tuple(one for one in (*notes, note, drawn, chosen) if one),
        prepared=prepared,
        words=told,
    )


def pictures(name, root, *, classes=None):
    """The images of your folder, to make features of; arguments as for `read`. Returns files.Pictures."""
    folder = pathlib.Path(name)
    _, found, labels, notes = _contents(folder, classes)
    paths = tuple(str(folder / picture) for picture in found)
    return files.Pictures(folder, tuple(found), paths, labels + 1, tuple(notes))


def _contents(folder, classes):
    """The Table, the images "class/file" in a fixed order, their labels, and notes."""
    path = _table(folder, classes)
    table = tables.read(path)
    ids = {class_name: label for label, class_name in enumerate(table.names)}
    pictures, notes = _pictures(folder, table.names, path)
    return table, pictures, np.array([ids[os.path.dirname(picture)] for picture in pictures]), notes


def _table(folder, classes):
    choices = [folder / name for name in TABLES] if classes is None else [pathlib.Path(classes)]
    for choice in choices:
        if choice.is_file():
            return choice
    wanted = "a table with the header class,attr1,attr2,... or class,description, and one line per class"
    if classes is None:
        wanted += ", or att_splits.mat if the folder is in the field's own format"
    raise InputError(f"classes: no file {' or '.join(map(str, choices))}; wanted {wanted}")


def _pictures(folder, class_names, table):
    """Images "class/file" in a fixed order, and a note on what was skipped."""
    pictures, skipped = [], []
    for directory in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        if directory.name not in class_names:
            raise InputError(f"{directory}: no row for it in {table}; {did_you_mean(directory.name, class_names)}")
        found = []
        for entry in sorted(os.listdir(directory)):
            if os.path.splitext(entry)[1].lower() in IMAGE_SUFFIXES:
                found.append(entry)
            elif entry[0] != ".":
                skipped.append(f"{directory.name}/{entry}")
        if not found:
            raise InputError(f"{directory}: no image in it; wanted one, or no folder for a class without images")
        pictures += [f"{directory.name}/{entry}" for entry in found]
    if not pictures:
        raise InputError(f"{folder}: no sub-folder of images; wanted one for each class that has images")
    return pictures, [f"skipped, as they are no images: {len(skipped)} files, first {skipped[0]}"] if skipped else []


def _unseen(wanted, class_names, with_pictures, seed):
    """Ids of the unseen classes, and a note if they were drawn."""
    without = np.setdiff1d(np.arange(len(class_names)), with_pictures)
    if (wanted is None and len(without)) or (wanted == NONE and NONE not in class_names):
        return without, None
    if isinstance(wanted, list | tuple):
        chosen = [class_names.index(name) for name in _known(wanted, class_names)]
        return _some_left(np.union1d(chosen, without).astype(int), with_pictures), None
    wanted = str(UNSEEN_SHARE if wanted is None else wanted)
    share = _share(wanted, class_names)
    if share is None:
        chosen, note = [class_names.index(name) for name in _named(wanted, class_names)], None
    else:
        count = max(1, min(len(with_pictures) - 1, round(share * len(with_pictures))))
        chosen = np.sort(np.random.default_rng([seed, 0]).choice(with_pictures, count, replace=False))
        note = f"unseen classes drawn (seed {seed}): {', '.join(class_names[label] for label in chosen)}"
    return _some_left(np.union1d(chosen, without).astype(int), with_pictures), note


def _some_left(unseen, with_pictures):
    if not len(np.setdiff1d(with_pictures, unseen)):
        raise InputError(f"unseen: got all {len(with_pictures)} classes with images; wanted one left to train on")
    return unseen


def _known(names, class_names):
    for name in names:
        if name not in class_names:
            raise InputError(f"unseen: no class {name!r}; {did_you_mean(str(name), class_names)}")
    return names


def _share(wanted, class_names):
    """`wanted` as a fraction, or None if it is something else."""
    try:
        share = float(wanted)
    except ValueError:
        return None
    if wanted in class_names:
        return None
    if not 0 < share < 1:
        raise InputError(f"unseen: got {wanted}; wanted {_UNSEEN}")
    return share


def _named(wanted, class_names):
    """The classes that `wanted` lists, or the file that it names."""
    listed = ",".join(wanted.splitlines())  # lines come from "$(cat FILE)"
    names = [name.strip() for name in next(csv.reader([listed], skipinitialspace=True))] or [""]
    unknown = next((name for name in names if name not in class_names), None)
    if unknown is None:
        return names
    if os.path.isfile(wanted):
        return _in_file(pathlib.Path(wanted), class_names)
    if os.sep in unknown or wanted.endswith(".txt"):
        raise InputError(f"unseen: no file {wanted}; wanted {_UNSEEN}")
    raise InputError(f"unseen: no class {unknown!r}; {did_you_mean(unknown, class_names)}")


def _in_file(path, class_names):
    lines = {}
    for number, name in files.read_lines(path, "the unseen classes, one per line, in UTF-8"):
        if name not in class_names:
            raise InputError(f"{path}: line {number}: no class {name!r}; {did_you_mean(name, class_names)}")
        if name in lines:
            raise InputError(f"{path}: line {number}: class {name} is on line {lines[name]} too; wanted it once")
        lines[name] = number
    if not lines:
        raise InputError(f"{path}: no class in it; wanted the unseen ones, one per line")
    return list(lines)


def _split(labels, unseen_classes, tests, seed):
    """Row ids of train, test_seen and test_unseen."""
    rows, seen_classes = np.arange(len(labels)), np.setdiff1d(labels, unseen_classes)
    test_unseen, test_seen = np.flatnonzero(np.isin(labels, unseen_classes)), rows[:0]
    if tests:
        test_seen = draw_held_out(rows, labels, seen_classes, np.random.default_rng([seed, 1]))
    return np.setdiff1d(rows, np.concatenate([test_seen, test_unseen])), test_seen, test_unseen


def _inputs(folder, kind, features, pictures):
    """The inputs, whether they are finite, the row of each image in them, how many rows, their extractor, a note.

    An image that the features leave out because it does not decode has row -1.
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
            f"or pass features={FILTERS} for the built-in filter bank without weights"
        )
    fields = files.read_mat(rows_file, ["image_files"], ["skipped_files"])
    recorded, skipped = fields["image_files"], fields.get("skipped_files", [])
    rows = dict.fromkeys(map(_class_and_file, skipped), -1)
    rows |= {_class_and_file(file): row for row, file in enumerate(recorded)}
    absent = [picture for picture in pictures if picture not in rows]
    if skipped:
        lack = f"{rows_file.name} leaves out {len(skipped)} images, first {skipped[0]}"
        note = lack if note is None else f"{note}; {lack}"
    if absent:
        got = f"image_files lacks {len(absent)} of {count} images of {folder}, first {absent[0]}"
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
