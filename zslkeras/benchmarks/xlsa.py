"""The field's own files: its six benchmarks in `<root>/<NAME>/`, or a benchmark of yours in any folder.

`<features>.mat` holds features [D, N], labels and image_files; `<features>_maps.npy` and `<features>_<layer>.npy` hold
maps in the same row order; `labels.mat` replaces a missing pooled file. `<splits>.mat` holds the class embeddings and,
as 1-based row numbers, the split; the six have the proposed split of Xian et al., "Zero-Shot Learning: A Comprehensive
Evaluation of the Good, the Bad and the Ugly" (TPAMI 2018). Features name the rows whose images did not decode in
`skipped_rows`, and the split loses these rows.
"""

import itertools
import os
import pathlib
import re

import numpy as np

from zslkeras import atomic
from zslkeras.benchmarks import archives, files
from zslkeras.benchmarks.benchmark import Benchmark
from zslkeras.errors import InputError
from zslkeras.names import NEGATIVES

SPLITS = ("att_splits", "sent_splits")  # as the field calls them
_LOCS = {"train": "trainval_loc", "test_seen": "test_seen_loc", "test_unseen": "test_unseen_loc"}
_FLOWERS = ("setid.mat", "imagelabels.mat")  # as the Oxford flowers are published
_FLOWER_PARTS = ("trnid", "valid", "tstid")  # in the order in which FLO's split counts them


def read(
    name,
    root,
    inputs,
    *,
    features=None,
    splits="att_splits",
    images=None,
    attribute_vectors=None,
    normalize=True,
    negatives="keep",
):
    """Reads a benchmark in the field's own files.

    Args:
        name: one of the field's six in any case, or the path of a folder, whose own name in lower case is then the
            benchmark's.
        root: the folder that holds `<NAME>/`; not used for a path.
        inputs: one of "features", "maps", "levels", "images".
        features: the extractor's name; if None, "res101" if that is there, else the only one there.
        splits: "att_splits", "sent_splits" or the name of a file of your own.
        images: the folder in which image_files are found; `<NAME>/jpg`, `<NAME>/images` or `<NAME>` itself if None.
        attribute_vectors: a .npy file, [A, V].
        normalize: whether class embeddings get L2 length one.
        negatives: "keep", or "zero" to set negative attributes to zero before that.

    Returns:
        A Benchmark of stage "final".
    """
    if negatives not in NEGATIVES:
        raise InputError(f"negatives: got {negatives!r}; wanted one of {', '.join(NEGATIVES)}")
    folder = _folder(name, root)
    splits_file = folder / f"{files.plain_name('splits', splits)}.mat"
    if features is not None:
        files.plain_name("features", features)
    note = None
    if inputs != "images":
        features, note = files.choose_features(folder, inputs, features)
    rows_file = _require_files(name, folder, inputs, features, splits_file)

    fields = files.read_mat(splits_file, ["att", *_LOCS.values()], ["allclasses_names", "train_loc", "val_loc"])
    embeddings = fields["att"].T.astype(np.float32)
    files.require_finite(splits_file, "att", embeddings)
    if negatives == "zero":
        embeddings = np.maximum(embeddings, 0)
    if normalize:
        embeddings = files.unit_rows(embeddings)
    names = _class_names(folder, splits_file, fields, len(embeddings))

    labels, skipped = _labels(folder, rows_file, len(names), splits_file)
    locs = _locs(splits_file, fields, rows_file, len(labels) + len(skipped))
    gone = {field: np.isin(rows, skipped) for field, rows in locs.items()}
    locs = {field: rows[~gone[field]] - np.searchsorted(skipped, rows[~gone[field]]) for field, rows in locs.items()}
    _check_split(splits_file, rows_file, labels, locs, names)
    validation, doubt = _validation_classes(labels, locs)
    counts = ", ".join(f"{gone[loc].sum()} of {loc}" for loc in _LOCS.values())
    lack = f"{rows_file.name} leaves out {len(skipped)} images: {counts}" if len(skipped) else None

    vectors = None if attribute_vectors is None else files.read_matrix(attribute_vectors, embeddings.shape[1])
    if inputs == "images":
        recorded = files.read_mat(rows_file, ["image_files"])["image_files"]
        arrays, finite, source = _pictures(rows_file, recorded, len(labels), folder, images), True, rows_file
    else:
        arrays, finite = files.read_inputs(folder, inputs, features, len(labels))
        source = files.inputs_files(folder, inputs, features)[0]
    return Benchmark(
        name=_name(folder),
        source=str(source),
        kind=inputs,
        inputs=arrays,
        labels=labels.astype(np.int32),
        class_embeddings=embeddings,
        class_names=names,
        seen_classes=np.unique(labels[locs["trainval_loc"]]),
        unseen_classes=np.unique(labels[locs["test_unseen_loc"]]),
        **{field: locs[loc] for field, loc in _LOCS.items()},
        attribute_names=_attribute_names(folder, embeddings.shape[1]) if splits == "att_splits" else (),
        attribute_vectors=vectors,
        validation_classes=validation,
        finite=finite,
        features=None if inputs == "images" else features,
        notes=tuple(sentence for sentence in (note, doubt, lack) if sentence),
        prepared=files.records(folder, features) if inputs == "images" else {},
    )


def pictures(name, root, *, splits="att_splits", images=None):
    """The images of a benchmark in the row order of its split, which is the only right one.

    Args:
        name, root, splits, images: as for `read`.

    Returns:
        files.Pictures.
    """
    folder = _folder(name, root)
    splits_file = folder / f"{files.plain_name('splits', splits)}.mat"
    if not splits_file.is_file():
        got = f"{_name(folder)}: missing {splits_file.name} in {folder}"
        raise InputError("; ".join([got, *_where_to_get(name)]))
    source, recorded, labels = _order(name, folder)
    fields = files.read_mat(splits_file, ["att", *_LOCS.values()], ["allclasses_names"])
    names = _class_names(folder, splits_file, fields, fields["att"].shape[1])
    labels = files.ids(source, "labels", labels, len(names), f"the classes of {splits_file}")
    _check_split(splits_file, source, labels, _locs(splits_file, fields, source, len(labels)), names)
    paths = _pictures(source, recorded, len(labels), folder, images)
    return files.Pictures(folder, tuple(recorded), tuple(map(str, paths)), labels + 1)


def _order(name, folder):
    """The file that says which image is which row, the images' names, and their labels."""
    is_flowers = _name(folder) == "flo"
    if is_flowers and all((folder / file).is_file() for file in _FLOWERS):
        return _flowers(*(folder / file for file in _FLOWERS))
    candidates = [folder / "labels.mat", folder / f"{files.DEFAULT_FEATURES}.mat", *sorted(folder.glob("*.mat"))]
    for path in dict.fromkeys(path for path in candidates if path.is_file()):
        fields = files.read_mat(path, [], ["labels", "image_files", "skipped_rows"])
        if fields.keys() == {"labels", "image_files"}:
            return path, fields["image_files"], fields["labels"]
    wanted = "labels.mat or a feature file, with labels and image_files"
    wanted += f", or {' and '.join(_FLOWERS)}" if is_flowers else ""
    got = f"{_name(folder)}: no file in {folder} says which image is which row"
    raise InputError("; ".join([got, f"wanted {wanted}", *_where_to_get(name)]))


def _flowers(setid, imagelabels):
    """The row order of FLO: image numbers of the original parts, one after the other."""
    parts = files.read_mat(setid, list(_FLOWER_PARTS))
    labels = files.read_mat(imagelabels, ["labels"])["labels"].ravel()
    numbers = [files.ids(setid, part, parts[part], len(labels), f"images of {imagelabels}") for part in _FLOWER_PARTS]
    numbers = np.concatenate(numbers)
    if not np.array_equal(np.sort(numbers), np.arange(len(labels))):
        got = f"{', '.join(_FLOWER_PARTS)} hold {len(numbers)} numbers, {len(np.unique(numbers))} of them different"
        raise InputError(f"{setid}: {got}; wanted each of the {len(labels)} images of {imagelabels} once")
    return setid, [f"jpg/image_{number + 1:05d}.jpg" for number in numbers], labels[numbers][:, None]


def _where_to_get(name):
    """Parts of a sentence; none for a folder of your own."""
    if files.is_path(name):
        return []
    url = archives.DATASETS[name.upper()][0].archive.url
    return [
        f"$ZSLKERAS_DATA names the folder that holds {name.upper()}/",
        f"`zslkeras prepare --dataset {name.lower()} --download` fetches att_splits.mat and res101.mat from {url}",
    ]


def _folder(name, root):
    return pathlib.Path(name) if files.is_path(name) else archives.folder(root, name.upper())


def _name(folder):
    return os.path.basename(os.path.abspath(folder)).lower()


def _require_files(name, folder, inputs, features, splits_file):
    """Names every missing file in one sentence; returns the file that says what the rows are."""
    rows_file = files.rows_file(folder, features)
    wanted = [splits_file]
    if inputs != "images":
        wanted += files.inputs_files(folder, inputs, features or files.DEFAULT_FEATURES)
    if inputs != "features" and rows_file is None:
        wanted.append(folder / "labels.mat")
    missing = [path.name for path in wanted if not path.is_file()]
    if not missing:
        return rows_file
    kind = "features" if inputs == "images" else inputs
    got = f"{_name(folder)}: missing {' and '.join(missing)} in {folder}"
    how = f"for other {kind} {files.how_to_get(folder, kind, name)}"
    raise InputError("; ".join([got, *_where_to_get(name), how]))


def _class_names(folder, path, fields, count):
    names = fields.get("allclasses_names")
    if names is None:
        # FLO's split names no class; many copies of the Oxford flowers come with this list of their names by label.
        known = atomic.read_json(folder / "cat_to_name.json")
        names = [str(known.get(str(label), f"class {label}")) for label in range(1, count + 1)]
    if len(names) != count:
        raise InputError(f"{path}: allclasses_names has {len(names)}; wanted {count}, one per column of att")
    return files.different(path, "class", names)


def _labels(folder, path, count, splits_file):
    """[N] class ids, and the rows of the split that the file leaves out; refuses labels that labels.mat contradicts."""
    fields, what = files.read_mat(path, ["labels"], ["skipped_rows"]), f"the classes of {splits_file}"
    labels, skipped = files.ids(path, "labels", fields["labels"], count, what), np.empty(0, np.int64)
    if "skipped_rows" in fields:
        rows = fields["skipped_rows"]
        skipped = np.unique(files.ids(path, "skipped_rows", rows, len(labels) + rows.size, "the rows of the split"))
    all_labels = folder / "labels.mat"
    if all_labels.is_file():
        others = files.ids(all_labels, "labels", files.read_mat(all_labels, ["labels"])["labels"], count, what)
        if not np.array_equal(labels, np.delete(others, skipped[skipped < len(others)])):
            got = f"its {len(labels)} labels are not the {len(others)} of {all_labels}"
            raise InputError(f"{path}: {got}; wanted the same rows in the same order")
    return labels, skipped


def _locs(path, fields, rows_file, count):
    """The 0-based rows of each part of the split."""
    what = f"the rows of {rows_file}"
    return {
        field: files.ids(path, field, values, count, what) for field, values in fields.items() if field.endswith("_loc")
    }


def _check_split(path, rows_file, labels, locs, names):
    train, test_seen, test_unseen = (locs[field] for field in _LOCS.values())
    for field in _LOCS.values():
        rows, counts = np.unique(locs[field], return_counts=True)
        if (counts > 1).any():
            raise InputError(f"{path}: {field} has row {rows[counts > 1][0] + 1} twice; wanted each row once")
    for first, second in itertools.combinations(_LOCS.values(), 2):
        both = np.intersect1d(locs[first], locs[second])
        if len(both):
            got = f"{first} and {second} share {len(both)} rows, first {both[0] + 1}"
            raise InputError(f"{path}: {got}; wanted none shared")
    seen, unseen = np.unique(labels[train]), np.unique(labels[test_unseen])
    order = f"the rows of {rows_file} seem to be in another order than the split counts"
    both = np.intersect1d(seen, unseen)
    if len(both):
        raise InputError(f"{path}: {len(both)} classes are both seen and unseen, first {names[both[0]]}; {order}")
    stray = test_seen[~np.isin(labels[test_seen], seen)]
    if len(stray):
        got = f"test_seen_loc has row {stray[0] + 1} of {names[labels[stray[0]]]}, which has no row in trainval_loc"
        raise InputError(f"{path}: {got}; {order}")


def _validation_classes(labels, locs):
    """The classes of val_loc, and a note if they cannot be used.

    Only its classes are used, as the published rows of train_loc and val_loc overlap those of test_seen_loc.
    """
    if "val_loc" not in locs:
        return None, None
    classes = np.unique(labels[locs["val_loc"]])
    seen = np.unique(labels[locs["trainval_loc"]])
    rest = np.unique(labels[locs["train_loc"]]) if "train_loc" in locs else np.setdiff1d(seen, classes)
    if len(np.setdiff1d(classes, seen)) or len(np.intersect1d(classes, rest)) or len(classes) == len(seen):
        return None, "val_loc is ignored: its classes have to be some of the seen ones, and none of those in train_loc"
    return classes, None


def _attribute_names(folder, count):
    """Names from a file beside the split, numbered or not, as CUB (attributes.txt) and AWA (predicates.txt) have it."""
    path = next((folder / file for file in ("attributes.txt", "predicates.txt") if (folder / file).is_file()), None)
    if path is None:
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = tuple(re.sub(r"^\s*\d+\s+", "", line).strip() for line in lines if line.strip())
    if len(names) != count:
        raise InputError(f"{path}: {len(names)} names; wanted {count}, one per row of att")
    return names


def _pictures(rows_file, recorded, count, folder, images):
    """Paths [N] of the images in image_files, each found under the image root by the longest tail that exists there.

    The rest of the recorded path belongs to the machine that wrote the file.
    """
    if len(recorded) != count:
        raise InputError(f"{rows_file}: image_files has {len(recorded)}; wanted {count}, one per label")
    if images is not None and not os.path.isdir(images):
        raise InputError(f"images: got {images}; wanted a folder of images")
    roots = [images] if images is not None else [folder / "jpg", folder / "images", folder]
    roots = [os.path.realpath(root) for root in roots if os.path.isdir(root)]
    paths, missing, last = [], [], []
    for file in recorded:
        parts = [part for part in file.replace("\\", "/").split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in file or not parts:
            raise InputError(f"{rows_file}: image_files names {file!r}; wanted a path that stays under the image root")
        # The root and length of the last image are tried first, so that N images cost about N look-ups.
        tails = [(root, length) for root in roots for length in range(len(parts), 0, -1)]
        for root, length in last + tails:
            path = os.path.join(root, *parts[-length:])
            if os.path.isfile(path):
                break
        else:
            missing.append(file)
            continue
        if not os.path.realpath(path).startswith(os.path.join(root, "")):
            got = f"image_files names {file}, which leads out of {root}"
            raise InputError(f"{rows_file}: {got}; wanted images inside the image root, which the argument images sets")
        paths.append(path)
        last = [(root, length)]
    if missing:
        got = f"{len(missing)} of {count} images of {rows_file} are not under {roots[-1]}, first {missing[0]}"
        raise InputError(f"images: {got}; wanted the folder that has all of them")
    if len(set(paths)) < len(set(recorded)):
        got = f"{len(set(recorded))} names in image_files are only {len(set(paths))} files under {roots[-1]}"
        raise InputError(f"{rows_file}: {got}; wanted a file for each")
    return np.array(paths)
