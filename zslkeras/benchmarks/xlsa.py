"""The field's six benchmarks, in the files that the field shares: `<root>/<NAME>/`.

`<features>.mat` holds features [D, N], labels and image_files; `<features>_maps.npy` and `<features>_<layer>.npy` hold
maps in the same row order; `labels.mat` stands in where there is no pooled file. `<splits>.mat` holds the class
embeddings and, as 1-based row numbers, the proposed split of Xian et al., "Zero-Shot Learning: A Comprehensive
Evaluation of the Good, the Bad and the Ugly" (TPAMI 2018). Rows whose pictures did not decode are named by the
features in `skipped_rows`: the split goes without them.
"""

import itertools
import os
import re

import numpy as np

from zslkeras.benchmarks import files
from zslkeras.benchmarks.benchmark import Benchmark
from zslkeras.errors import InputError

NAMES = ("CUB", "SUN", "AWA1", "AWA2", "APY", "FLO")
NEGATIVES = ("keep", "zero")
_LOCS = {"train": "trainval_loc", "test_seen": "test_seen_loc", "test_unseen": "test_unseen_loc"}
_ARCHIVES = {"FLO": "cvpr18xian.zip"}  # the others are in xlsa17.zip
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
    """Reads one of `NAMES`.

    Args:
        name: any case.
        root: the folder that holds `<NAME>/`.
        inputs: one of "features", "maps", "levels", "images".
        features: the extractor's name; "res101" where it is there, else the only one there.
        splits: "att_splits" or "sent_splits".
        images: the folder that image_files is looked up in; `<NAME>/jpg`, `<NAME>/images` or `<NAME>` itself if None.
        attribute_vectors: a .npy file, [A, V].
        normalize: whether class embeddings get L2 length one.
        negatives: "keep", or "zero" to set negative attributes to zero before that.

    Returns:
        A Benchmark of stage "final".
    """
    dataset = name.lower()
    if negatives not in NEGATIVES:
        raise InputError(f"negatives: got {negatives!r}; wanted one of {', '.join(NEGATIVES)}")
    folder = _folder(root, name.upper())
    splits_file = folder / f"{files.plain_name('splits', splits)}.mat"
    if features is not None:
        files.plain_name("features", features)
    note = None
    if inputs != "images":
        features, note = files.choose_features(folder, inputs, features)
    rows_file = _require_files(dataset, folder, inputs, features, splits_file)

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
    lack = f"{rows_file.name} leaves out {len(skipped)} pictures: {counts}" if len(skipped) else None

    vectors = None if attribute_vectors is None else files.read_matrix(attribute_vectors, embeddings.shape[1])
    if inputs == "images":
        recorded = files.read_mat(rows_file, ["image_files"])["image_files"]
        arrays, finite, source = _pictures(rows_file, recorded, len(labels), folder, images), True, rows_file
    else:
        arrays, finite = files.read_inputs(folder, inputs, features, len(labels))
        source = files.inputs_files(folder, inputs, features)[0]
    return Benchmark(
        name=dataset,
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
    )


def pictures(name, root, *, splits="att_splits", images=None):
    """The pictures of one of `NAMES` in the order that its split counts, and no other.

    Args:
        name, root, splits, images: as for `read`.

    Returns:
        files.Pictures.
    """
    dataset, folder = name.lower(), _folder(root, name.upper())
    splits_file = folder / f"{files.plain_name('splits', splits)}.mat"
    if not splits_file.is_file():
        raise InputError(f"{dataset}: missing {splits_file.name} in {folder}; {_where_to_get(folder)}")
    source, recorded, labels = _order(dataset, folder)
    fields = files.read_mat(splits_file, ["att", *_LOCS.values()], ["allclasses_names"])
    names = _class_names(folder, splits_file, fields, fields["att"].shape[1])
    labels = files.ids(source, "labels", labels, len(names), f"the classes of {splits_file}")
    _check_split(splits_file, source, labels, _locs(splits_file, fields, source, len(labels)), names)
    paths = _pictures(source, recorded, len(labels), folder, images)
    return files.Pictures(folder, tuple(recorded), tuple(map(str, paths)), labels + 1)


def _order(dataset, folder):
    """What tells which picture is which row: that file, the pictures' names, and their labels."""
    if dataset == "flo" and all((folder / file).is_file() for file in _FLOWERS):
        return _flowers(*(folder / file for file in _FLOWERS))
    candidates = [folder / "labels.mat", folder / f"{files.DEFAULT_FEATURES}.mat", *sorted(folder.glob("*.mat"))]
    for path in dict.fromkeys(path for path in candidates if path.is_file()):
        fields = files.read_mat(path, [], ["labels", "image_files", "skipped_rows"])
        if fields.keys() == {"labels", "image_files"}:
            return path, fields["image_files"], fields["labels"]
    wanted = "labels.mat or a feature file, with labels and image_files"
    wanted += f", or {' and '.join(_FLOWERS)}" if dataset == "flo" else ""
    raise InputError(
        f"{dataset}: nothing in {folder} tells which picture is which row; wanted {wanted}; {_where_to_get(folder)}"
    )


def _flowers(setid, imagelabels):
    """The row order of FLO: picture numbers of the original parts, one after the other."""
    parts = files.read_mat(setid, list(_FLOWER_PARTS))
    labels = files.read_mat(imagelabels, ["labels"])["labels"].ravel()
    numbers = [files.ids(setid, part, parts[part], len(labels), f"pictures of {imagelabels}") for part in _FLOWER_PARTS]
    numbers = np.concatenate(numbers)
    if not np.array_equal(np.sort(numbers), np.arange(len(labels))):
        got = f"{', '.join(_FLOWER_PARTS)} hold {len(numbers)} numbers, {len(np.unique(numbers))} of them different"
        raise InputError(f"{setid}: {got}; wanted each of the {len(labels)} pictures of {imagelabels} once")
    return setid, [f"jpg/image_{number + 1:05d}.jpg" for number in numbers], labels[numbers][:, None]


def _where_to_get(folder):
    archive = _ARCHIVES.get(folder.name.upper(), "xlsa17.zip")
    return (
        f"$ZSLKERAS_DATA says where {folder.name}/ lies; "
        f"https://datasets.d2.mpi-inf.mpg.de/xian/{archive} holds att_splits.mat and res101.mat, "
        "which --download of experiments.prepare fetches"
    )


def _folder(root, name):
    """`<root>/<NAME>`, or the sub-folder that differs from it in case only (aPY, AwA2)."""
    if not (root / name).is_dir() and root.is_dir():
        return next((path for path in sorted(root.iterdir()) if path.name.upper() == name), root / name)
    return root / name


def _require_files(dataset, folder, inputs, features, splits_file):
    """Names every missing file in one sentence; returns the file that tells the rows."""
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
    raise InputError(
        f"{dataset}: missing {' and '.join(missing)} in {folder}; {_where_to_get(folder)}; "
        f"for other {kind} {files.how_to_get(folder, kind, dataset)}"
    )


def _class_names(folder, path, fields, count):
    names = fields.get("allclasses_names")
    if names is None:
        # FLO's split names no class; this list of the Oxford flowers, by label, travels with many copies of them.
        known = files.read_json(folder / "cat_to_name.json")
        names = [str(known.get(str(label), f"class {label}")) for label in range(1, count + 1)]
    if len(names) != count:
        raise InputError(f"{path}: allclasses_names has {len(names)}; wanted {count}, one a column of att")
    if len(set(names)) < count:
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: allclasses_names has {twice} twice; wanted different names")
    return tuple(names)


def _labels(folder, path, count, splits_file):
    """[N] class ids, and the rows of the split that the file leaves out; where labels.mat is there too, it agrees."""
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
    order = f"the rows of {rows_file} seem to stand in another order than the split counts"
    both = np.intersect1d(seen, unseen)
    if len(both):
        raise InputError(f"{path}: {len(both)} classes are both seen and unseen, first {names[both[0]]}; {order}")
    stray = test_seen[~np.isin(labels[test_seen], seen)]
    if len(stray):
        got = f"test_seen_loc has row {stray[0] + 1} of {names[labels[stray[0]]]}"
        raise InputError(f"{path}: {got}, a class without a row in trainval_loc; {order}")


def _validation_classes(labels, locs):
    """The classes of val_loc, and what is wrong with them if they cannot be used.

    Only classes are taken: the published rows of train_loc and val_loc overlap those of test_seen_loc.
    """
    if "val_loc" not in locs:
        return None, None
    classes = np.unique(labels[locs["val_loc"]])
    seen = np.unique(labels[locs["trainval_loc"]])
    rest = np.unique(labels[locs["train_loc"]]) if "train_loc" in locs else np.setdiff1d(seen, classes)
    if len(np.setdiff1d(classes, seen)) or len(np.intersect1d(classes, rest)) or len(classes) == len(seen):
        return None, "val_loc is ignored: its classes are not a part of the seen classes apart from those of train_loc"
    return classes, None


def _attribute_names(folder, count):
    """Names beside the split, as CUB (attributes.txt) and AWA (predicates.txt) publish them, numbered or not."""
    path = next((folder / file for file in ("attributes.txt", "predicates.txt") if (folder / file).is_file()), None)
    if path is None:
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = tuple(re.sub(r"^\s*\d+\s+", "", line).strip() for line in lines if line.strip())
    if len(names) != count:
        raise InputError(f"{path}: {len(names)} names; wanted {count}, one a row of att")
    return names


def _pictures(rows_file, recorded, count, folder, images):
    """Paths [N] of the pictures in image_files, each under the image root by the longest tail that exists there.

    What stands before the tail is whatever it was on the machine that wrote the file.
    """
    if len(recorded) != count:
        raise InputError(f"{rows_file}: image_files has {len(recorded)}; wanted {count}, one a label")
    if images is not None and not os.path.isdir(images):
        raise InputError(f"images: got {images}; wanted a folder of pictures")
    roots = [images] if images is not None else [folder / "jpg", folder / "images", folder]
    roots = [os.path.realpath(root) for root in roots if os.path.isdir(root)]
    paths, missing, last = [], [], []
    for file in recorded:
        parts = [part for part in file.replace("\\", "/").split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in file or not parts:
            raise InputError(f"{rows_file}: image_files names {file!r}; wanted a path that stays under the image root")
        # What held for the last picture is tried first: N pictures then cost N look-ups.
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
            raise InputError(f"{rows_file}: {got}; wanted pictures inside the image root (--images sets it)")
        paths.append(path)
        last = [(root, length)]
    if missing:
        got = f"{len(missing)} of {count} pictures are not under {roots[-1]}, first {missing[0]}"
        raise InputError(f"{rows_file}: {got}; wanted all of them (--images says where they lie)")
    if len(set(paths)) < len(set(recorded)):
        got = f"image_files has {len(set(recorded))} pictures that are {len(set(paths))} files under {roots[-1]}"
        raise InputError(f"{rows_file}: {got}; wanted a file for each")
    return np.array(paths)
