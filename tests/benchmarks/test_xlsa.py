"""The field's files: what the reader accepts, what it refuses and with which words, and the six published splits."""

import json
import os
import pathlib
import re
import shutil
import time

import h5py
import numpy as np
import pytest
import scipy.io

from zslkeras.benchmarks import load, xlsa
from zslkeras.errors import InputError

CLASSES, UNSEEN, PER_CLASS, DIM = 6, 2, 4, 7
ROWS = CLASSES * PER_CLASS


def fields(per_class=PER_CLASS):
    """Four seen classes, the last for validation, then two unseen; the last row of each seen class is for testing."""
    labels = np.repeat(np.arange(1, CLASSES + 1), per_class)
    rows = np.arange(1, len(labels) + 1)
    seen, last = labels <= CLASSES - UNSEEN, rows % per_class == 0
    attributes = np.random.default_rng(0).normal(size=(5, CLASSES))
    attributes[0] = 1  # so that no class is all negative
    column = {
        "trainval_loc": rows[seen & ~last],
        "train_loc": rows[labels < CLASSES - UNSEEN],  # overlaps test_seen_loc, as the published ones do
        "val_loc": rows[labels == CLASSES - UNSEEN],
        "test_seen_loc": rows[seen & last],
        "test_unseen_loc": rows[~seen],
    }
    pooled = {
        "features": np.arange(DIM * len(labels), dtype=np.float32).reshape(len(labels), DIM).T,
        "labels": labels[:, None],
        "image_files": [
            f"/BS/xian/work/data/CUB/images/{label:03d}.Bird/bird_{row}.jpg"
            for label, row in zip(labels, rows, strict=True)
        ],
    }
    names = [f"{label:03d}.Bird" for label in range(1, CLASSES + 1)]
    split = {"att": attributes, "allclasses_names": names, **{name: loc[:, None] for name, loc in column.items()}}
    return {"res101": pooled, "att_splits": split}


def write_v5(path, content):
    cells = {name: np.array(value, object)[:, None] for name, value in content.items() if isinstance(value, list)}
    scipy.io.savemat(path, {**content, **cells}, do_compression=True)


def write_v73(path, content):
    """As MATLAB lays it out: a 512-byte header, matrices transposed, strings behind references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in content.items():
            if isinstance(value, list):
                refs = file.create_dataset(name, (1, len(value)), h5py.ref_dtype)
                for i, text in enumerate(value):
                    codes = np.frombuffer(text.encode("utf-16-le"), np.uint16)[:, None]
                    refs[0, i] = file.create_dataset(f"#refs#/{name}{i}", data=codes).ref
            else:
                file[name] = np.asarray(value).T
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def write(root, content, writer=write_v5, name="CUB"):
    folder = root / name
    folder.mkdir(exist_ok=True)
    for file, variables in content.items():
        writer(folder / f"{file}.mat", variables)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, fields())


def read(folder, inputs="features", **options):
    return xlsa.read("cub", folder.parent, inputs, **options)


def refusal(folder, inputs="features", **options):
    with pytest.raises(InputError) as caught:
        read(folder, inputs, **options).take([0])
    message = str(caught.value)
    assert "\n" not in message
    return message


def maps(folder, name="res101_maps", shape=(ROWS, 3, 3, 2), dtype=np.float16):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.save(folder / f"{name}.npy", array)
    return array


# What it reads.


@pytest.mark.parametrize("writer", [write_v5, write_v73])
def test_reads_every_field(tmp_path, writer):
    content = fields()
    benchmark = read(write(tmp_path, content, writer))
    assert (benchmark.name, benchmark.kind, benchmark.stage) == ("cub", "features", "final")
    assert benchmark.inputs.dtype == np.float32
    assert benchmark.inputs.flags.c_contiguous
    np.testing.assert_array_equal(benchmark.inputs, np.arange(ROWS * DIM).reshape(ROWS, DIM))
    np.testing.assert_array_equal(benchmark.labels, np.repeat(range(CLASSES), PER_CLASS))
    expected = content["att_splits"]["att"].T
    expected = expected / np.sqrt((expected**2).sum(1, keepdims=True))
    np.testing.assert_allclose(benchmark.class_embeddings, expected, rtol=1e-6)
    assert benchmark.class_names[:2] == ("001.Bird", "002.Bird")
    for field, values in {
        "seen_classes": [0, 1, 2, 3],
        "unseen_classes": [4, 5],
        "validation_classes": [3],
        "train": [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14],
        "test_seen": [3, 7, 11, 15],
        "test_unseen": range(16, 24),
    }.items():
        np.testing.assert_array_equal(getattr(benchmark, field), values, err_msg=field)
    assert benchmark.finite
    assert benchmark.notes == ()


def test_a_folder_in_another_case(tmp_path):
    write(tmp_path, fields(), name="aPY")
    assert xlsa.read("apy", tmp_path, "features").name == "apy"


def test_normalize_and_negatives(folder):
    raw = fields()["att_splits"]["att"].T.astype(np.float32)
    np.testing.assert_array_equal(read(folder, normalize=False).class_embeddings, raw)
    clipped = read(folder, normalize=False, negatives="zero").class_embeddings
    np.testing.assert_array_equal(clipped, np.where(raw < 0, 0, raw))
    both = read(folder, negatives="zero").class_embeddings
    assert both.min() == 0
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, rtol=1e-6)  # zeroed first, then scaled


def test_unnormalised_sentences(tmp_path):
    content = fields()
    content["sent_splits"] = {**content.pop("att_splits"), "att": np.full((9, CLASSES), 5.0) + np.eye(9, CLASSES)}
    folder = write(tmp_path, content)
    (folder / "attributes.txt").write_text("these belong to att_splits\n")
    benchmark = read(folder, splits="sent_splits")
    np.testing.assert_allclose(np.linalg.norm(benchmark.class_embeddings, axis=1), 1, rtol=1e-6)
    assert benchmark.attribute_names == ()


def test_without_class_names(tmp_path):
    content = fields()
    del content["att_splits"]["allclasses_names"]
    folder = write(tmp_path, content)
    assert read(folder).class_names[:2] == ("class 1", "class 2")
    (folder / "cat_to_name.json").write_text(json.dumps({"1": "pink primrose"}))
    assert read(folder).class_names[:2] == ("pink primrose", "class 2")


@pytest.mark.parametrize("writer", [write_v5, write_v73])
@pytest.mark.parametrize("gone", [["val_loc"], ["train_loc"], ["train_loc", "val_loc"]])
def test_without_train_loc_or_val_loc(tmp_path, gone, writer):
    content = fields()
    for name in gone:
        del content["att_splits"][name]
    classes = read(write(tmp_path, content, writer)).validation_classes
    assert classes is None if "val_loc" in gone else classes.tolist() == [3]


def test_an_empty_val_loc_is_none(tmp_path):
    content = fields()
    content["att_splits"]["val_loc"] = np.zeros((0, 0))
    folder = write(tmp_path, content)
    assert read(folder).validation_classes is None
    write(tmp_path, content, write_v73)
    with h5py.File(folder / "att_splits.mat", "r+") as file:
        del file["val_loc"]
        file["val_loc"] = np.zeros(2, np.uint64)
        file["val_loc"].attrs["MATLAB_empty"] = np.uint8(1)
    assert read(folder).validation_classes is None


@pytest.mark.parametrize(
    "val_loc", [[13, 1], [13, 17], [1, 5, 9, 13]], ids=["shares a class with train_loc", "unseen", "every seen class"]
)
def test_a_val_loc_that_makes_no_sense_is_ignored_aloud(tmp_path, val_loc):
    content = fields()
    content["att_splits"]["val_loc"] = np.array(val_loc)[:, None]
    benchmark = read(write(tmp_path, content))
    assert benchmark.validation_classes is None
    assert "val_loc is ignored" in benchmark.notes[0]


@pytest.mark.parametrize("text", ["{} tail length\n", "{:6d}\ttail length\n", "tail length {}\n"])
def test_attribute_names(folder, text):
    (folder / "attributes.txt").write_text("".join(text.format(i) for i in range(5)))
    names = read(folder).attribute_names
    assert names == tuple(text.format(i).strip() if text[0] == "t" else "tail length" for i in range(5))


def test_attribute_vectors(folder, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    np.save(tmp_path / "vectors.npy", vectors)
    read_back = read(folder, attribute_vectors=str(tmp_path / "vectors.npy")).attribute_vectors
    np.testing.assert_array_equal(read_back, vectors.astype(np.float32))


def test_the_only_features_there_are_taken_and_named(folder):
    (folder / "res101.mat").rename(folder / "mobile.mat")
    scipy.io.savemat(folder / "setid.mat", {"trnid": np.eye(2)})
    benchmark = read(folder)
    assert benchmark.notes == (f"features by mobile, the only ones in {folder}",)
    assert benchmark.source.endswith("mobile.mat")
    assert read(folder, features="mobile").notes == ()


def test_res101_is_the_default_among_several(folder):
    shutil.copy(folder / "res101.mat", folder / "mobile.mat")
    assert read(folder).source.endswith("res101.mat")


def test_several_features_are_listed(folder):
    shutil.copy(folder / "res101.mat", folder / "vgg.mat")
    (folder / "res101.mat").rename(folder / "mobile.mat")
    message = refusal(folder)
    assert message == f"features: got none, and {folder} has features by mobile, vgg; wanted one of them"


def test_no_features(folder):
    (folder / "res101.mat").unlink()
    message = refusal(folder)
    assert "missing res101.mat in " + str(folder) in message
    assert "`zslkeras prepare --dataset cub --name NAME`" in message


@pytest.mark.parametrize("pooled", [True, False])
def test_maps_stay_mapped(folder, pooled):
    expected = maps(folder)
    if not pooled:
        labels = {"labels": fields()["res101"]["labels"]}
        (folder / "res101.mat").unlink()
        write_v5(folder / "labels.mat", labels)
    benchmark = read(folder, "maps")
    assert isinstance(benchmark.inputs, np.memmap)
    assert benchmark.inputs.dtype == np.float16
    np.testing.assert_array_equal(benchmark.take([5, 2]), expected[[5, 2]])
    assert not benchmark.finite


def test_the_sidecar_says_that_maps_are_finite(folder):
    array = maps(folder)
    array[2, 1, 0, 1] = np.nan
    np.save(folder / "res101_maps.npy", array)
    message = read_and_take(folder, [7, 2])
    assert "res101_maps.npy: inputs: nan at row 2, position 1, 0, 1" in message
    (folder / "res101_maps.json").write_text('{"finite": false}')
    assert "nan at row 2" in read_and_take(folder, [2])
    (folder / "res101_maps.json").write_text('{"finite": true}')
    assert read(folder, "maps").finite


def read_and_take(folder, rows):
    benchmark = read(folder, "maps")
    benchmark.take([0])
    with pytest.raises(InputError) as caught:
        benchmark.take(rows)
    return str(caught.value)


def test_levels_by_size_or_as_the_sidecar_lists_them(folder):
    for layer, side in {"conv4": 2, "conv5": 1, "conv3": 4}.items():
        maps(folder, f"res101_{layer}", (ROWS, side, side, 8 // side))
    maps(folder)  # is no level
    benchmark = read(folder, "levels")
    assert benchmark.input_shape == ((4, 4, 2), (2, 2, 4), (1, 1, 8))
    assert not benchmark.finite
    (folder / "res101.json").write_text('{"layers": ["conv5", "conv3"], "finite": true}')
    benchmark = read(folder, "levels")
    assert benchmark.input_shape == ((1, 1, 8), (4, 4, 2))
    assert benchmark.finite


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads RssAnon from /proc")
def test_large_maps_open_at_once_and_stay_on_disk(tmp_path):
    content = fields(per_class=2390)
    del content["res101"]["features"]
    content["labels"] = content.pop("res101")
    folder = write(tmp_path, content)
    shape = (14340, 14, 14, 2048)  # SUN at 448 pixels: 11.5 GB
    with (folder / "res101_maps.npy").open("wb") as stream:
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + 2 * int(np.prod(shape)))
    before, start = anonymous_bytes(), time.perf_counter()
    benchmark = read(folder, "maps")
    assert time.perf_counter() - start < 1
    peak = 0
    for batch in np.random.default_rng(0).choice(benchmark.train, (3, 20), replace=False):
        taken = benchmark.take(batch)
        peak = max(peak, anonymous_bytes())
    assert taken.shape == (20, *shape[1:])
    assert peak - before < 2**28  # a batch takes 16 MB


def anonymous_bytes():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


# Images.


def draw_pictures(root, tail=slice(-3, None)):
    """Empty files: reading paths opens none."""
    for recorded in fields()["res101"]["image_files"]:
        path = root.joinpath(*recorded.split("/")[tail])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("where", ["", "CUB_200_2011", "jpg"])
def test_pictures_are_found_by_the_tail_of_a_foreign_path(folder, where):
    draw_pictures(folder / where, slice(-2, None) if where == "jpg" else slice(-3, None))
    images = folder / where if where == "CUB_200_2011" else None
    benchmark = read(folder, "images", images=images)
    assert benchmark.kind == "images"
    assert os.path.samefile(benchmark.take([9])[0], next(folder.rglob("bird_10.jpg")))
    assert [os.path.basename(path) for path in benchmark.inputs] == [f"bird_{row + 1}.jpg" for row in range(ROWS)]


def test_pictures_need_labels_only(folder):
    draw_pictures(folder)
    content = fields()["res101"]
    (folder / "res101.mat").rename(folder / "mobile.mat")
    assert read(folder, "images").notes == ()
    (folder / "mobile.mat").unlink()
    assert "missing labels.mat" in refusal(folder, "images")
    write_v5(folder / "labels.mat", {name: content[name] for name in ("labels", "image_files")})
    assert len(read(folder, "images").inputs) == ROWS


def test_missing_pictures_are_counted_and_the_first_is_named(folder):
    draw_pictures(folder)
    for row in (5, 9):
        next(folder.rglob(f"bird_{row}.jpg")).unlink()
    message = refusal(folder, "images")
    assert f"images: 2 of {ROWS} images of {folder / 'res101.mat'} are not under {folder}" in message
    assert "first /BS/xian/work/data/CUB/images/002.Bird/bird_5.jpg" in message


@pytest.mark.parametrize("recorded", ["../../../etc/passwd", "images/../../CUB/images/001.Bird/bird_1.jpg", "a\0b", ""])
def test_pictures_do_not_leave_the_root_by_name(tmp_path, recorded):
    content = fields()
    content["res101"]["image_files"][3] = recorded
    folder = write(tmp_path, content, write_v73)
    draw_pictures(folder)
    message = refusal(folder, "images")
    assert f"image_files names {recorded!r}; wanted a path that stays under the image root" in message


def test_pictures_do_not_leave_the_root_by_link(folder, tmp_path):
    draw_pictures(folder)
    (tmp_path / "secret.jpg").touch()
    picture = folder / "images/001.Bird/bird_2.jpg"
    picture.unlink()
    picture.symlink_to(tmp_path / "secret.jpg")
    assert "001.Bird/bird_2.jpg, which leads out of" in refusal(folder, "images")
    picture.unlink()
    picture.symlink_to("bird_1.jpg")
    assert len(read(folder, "images").inputs) == ROWS


def test_a_linked_image_root_is_fine(folder, tmp_path):
    draw_pictures(tmp_path / "disk")
    (folder / "images").symlink_to(tmp_path / "disk/images")
    assert len(read(folder, "images").inputs) == ROWS


def test_two_pictures_are_not_one_file(tmp_path):
    content = fields()
    content["res101"]["image_files"] = [f"{row}/same.jpg" for row in range(ROWS)]
    folder = write(tmp_path, content)
    (folder / "same.jpg").touch()
    assert f"{ROWS} names in image_files are only 1 files" in refusal(folder, "images")


def test_an_image_root_that_is_none(folder, tmp_path):
    assert "wanted a folder of images" in refusal(folder, "images", images=tmp_path / "none")


# What it refuses: (file, field, what becomes of it, words of the sentence). None for a field deletes it.


def at(position, value):
    def change(array):
        array = np.array(array, np.float64 if isinstance(value, float) else None)
        array[position] = value
        return array

    return change


BAD_FIELDS = {
    "a label too large": ("res101", "labels", at((2, 0), 7), "res101.mat: labels is 7 at position 3; wanted 1..6"),
    "a label of zero": ("res101", "labels", at((0, 0), 0), "labels is 0 at position 1; wanted 1..6, the classes of"),
    "a label between": ("res101", "labels", at((4, 0), 1.5), "labels is 1.5 at position 5"),
    "a label of NaN": ("res101", "labels", at((4, 0), np.nan), "labels is nan at position 5"),
    "labels in two columns": (
        "res101",
        "labels",
        lambda x: np.hstack([x, x]),
        "labels has shape (24, 2); wanted a single",
    ),
    "labels as text": (
        "res101",
        "labels",
        lambda x: ["a"] * ROWS,
        "labels is object (24, 1); wanted a matrix of numbers",
    ),
    "no labels": ("res101", "labels", None, "res101.mat: no field labels; it holds features, image_files"),
    "no features": ("res101", "features", None, "res101.mat: no field features; it holds labels, image_files"),
    "NaN": ("res101", "features", at((3, 10), np.nan), "res101.mat: features is nan at row 10, column 3"),
    "infinity": ("res101", "features", at((3, 10), 1e300), "features is inf at row 10, column 3"),
    "features transposed": ("res101", "features", np.transpose, "features has shape (24, 7); wanted (D, 24)"),
    "features of other rows": ("res101", "features", lambda x: x[:, 1:], "features has shape (7, 23); wanted (D, 24)"),
    "complex features": ("res101", "features", lambda x: x + 1j, "wanted a matrix of numbers"),
    "a row too far": ("att_splits", "test_seen_loc", at((1, 0), 25), "test_seen_loc is 25 at position 2; wanted 1..24"),
    "a row of zero": ("att_splits", "trainval_loc", at((0, 0), 0), "trainval_loc is 0 at position 1; wanted 1..24"),
    "a val_loc too far": ("att_splits", "val_loc", at((0, 0), 99), "val_loc is 99 at position 1"),
    "a row twice": ("att_splits", "trainval_loc", at((0, 0), 2), "trainval_loc has row 2 twice; wanted each row once"),
    "train and test": (
        "att_splits",
        "trainval_loc",
        at((0, 0), 8),
        "trainval_loc and test_seen_loc share 1 rows, first 8",
    ),
    "both tests": (
        "att_splits",
        "test_unseen_loc",
        at((1, 0), 4),
        "test_seen_loc and test_unseen_loc share 1 rows, first 4",
    ),
    "seen and unseen": (
        "res101",
        "labels",
        at((18, 0), 2),
        "att_splits.mat: 1 classes are both seen and unseen, first 002.Bird; the rows of",
    ),
    "a test class not trained on": (
        "res101",
        "labels",
        at((slice(0, 3), 0), 2),
        "test_seen_loc has row 4 of 001.Bird, which has no row in trainval_loc",
    ),
    "no unseen rows": (
        "att_splits",
        "test_unseen_loc",
        None,
        "att_splits.mat: no field test_unseen_loc; it holds att,",
    ),
    "empty rows": ("att_splits", "test_seen_loc", lambda x: x[:0], "test_seen_loc is"),
    "no embeddings": ("att_splits", "att", None, "no field att"),
    "NaN embeddings": ("att_splits", "att", at((2, 1), np.nan), "att_splits.mat: att is nan at row 1, column 2"),
    "embeddings transposed": (
        "att_splits",
        "att",
        np.transpose,
        "allclasses_names has 6; wanted 5, one per column of att",
    ),
    "a zero embedding": (
        "att_splits",
        "att",
        at((slice(None), 1), 0),
        "all zero, or as good as that, for class 002.Bird",
    ),
    "a class name twice": (
        "att_splits",
        "allclasses_names",
        lambda x: [*x[:5], x[2]],
        "att_splits.mat: class 003.Bird is there 2 times; wanted it once",
    ),
    "class names as numbers": (
        "att_splits",
        "allclasses_names",
        lambda x: np.eye(6),
        "allclasses_names is no cell array; wanted one of strings",
    ),
}


@pytest.mark.parametrize("writer", [write_v5, write_v73])
@pytest.mark.parametrize(("file", "field", "change", "words"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_bad_fields(tmp_path, file, field, change, words, writer):
    content = fields()
    content[file][field] = None if change is None else change(content[file][field])
    if change is None:
        del content[file][field]
    if writer is write_v73:
        # h5py has no object matrices, and keeps fields in alphabetical order.
        words = words.replace("labels is object (24, 1); wanted a matrix of numbers", "labels is object (24, 1)")
        words = words.replace("it holds labels, image_files", "it holds image_files, labels")
        words = words.replace("it holds att,", "it holds allclasses_names, att,")
    assert words in refusal(write(tmp_path, content, writer))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])


def test_a_damaged_split_file_is_the_one_named(folder):
    truncate(folder / "att_splits.mat")
    assert "att_splits.mat: truncated or damaged" in refusal(folder)


@pytest.mark.parametrize("name", ["../secret", "a/b", "a\\b", "/abs", ""])
@pytest.mark.parametrize("option", ["features", "splits"])
@pytest.mark.parametrize("inputs", ["features", "images"])
def test_names_are_no_paths(folder, option, name, inputs):
    assert refusal(folder, inputs, **{option: name}).startswith(
        f"{option}: got {name!r}; wanted a name, without a path"
    )


def test_the_sidecar_cannot_name_a_path(folder):
    (folder / "res101.json").write_text('{"layers": ["conv3", "../x"]}')
    assert "'../x'; wanted a name" in refusal(folder, "levels", features="res101")


def test_every_missing_file_is_named(tmp_path):
    (tmp_path / "FLO").mkdir()
    with pytest.raises(InputError) as caught:
        xlsa.read("flo", tmp_path, "maps", splits="sent_splits")
    for words in (
        f"missing sent_splits.mat and res101_maps.npy and labels.mat in {tmp_path / 'FLO'}",
        "https://datasets.d2.mpi-inf.mpg.de/xian/cvpr18xian.zip",
        "$ZSLKERAS_DATA",
        "--dataset flo",
        "NAME_maps.npy",
    ):
        assert words in str(caught.value)
    with pytest.raises(InputError, match=r"missing att_splits.mat and res101.mat in .*xlsa17.zip"):
        xlsa.read("cub", tmp_path / "nowhere", "features")


def test_features_that_are_not_there_beside_some_that_are(folder):
    message = refusal(folder, features="vgg")
    assert "missing vgg.mat" in message
    assert "pass features=res101" in message


def test_labels_that_disagree(folder):
    labels = fields()["res101"]["labels"]
    write_v5(folder / "labels.mat", {"labels": labels[::-1]})
    assert "res101.mat: its 24 labels are not the 24 of" in refusal(folder)
    write_v5(folder / "labels.mat", {"labels": labels[1:]})
    assert "its 24 labels are not the 23 of" in refusal(folder)


def test_an_unknown_word_for_negatives(folder):
    assert refusal(folder, negatives="drop") == "negatives: got 'drop'; wanted one of keep, zero"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5,), np.float32), "got shape (5,); wanted (5, columns)"),
        (np.zeros((4, 3), np.float32), "got shape (4, 3); wanted (5, columns)"),
        (np.full((5, 3), np.nan), "a value is nan at row 0, column 0"),
        (np.zeros((5, 3), np.int64), "got dtype int64; wanted float16"),
        (np.array([[{}] * 3] * 5), "Python objects"),
    ],
    ids=["one axis", "too few", "NaN", "integers", "objects"],
)
def test_bad_attribute_vectors(folder, tmp_path, array, words):
    np.save(tmp_path / "vectors.npy", array, allow_pickle=True)
    message = refusal(folder, attribute_vectors=tmp_path / "vectors.npy")
    assert "vectors.npy: " in message
    assert words in message


def test_attribute_names_of_another_number(folder):
    (folder / "attributes.txt").write_text("one\ntwo\n")
    assert "attributes.txt: 2 names; wanted 5" in refusal(folder)


def test_image_files_of_another_number(tmp_path):
    content = fields()
    content["res101"]["image_files"].pop()
    assert "image_files has 23; wanted 24" in refusal(write(tmp_path, content), "images")


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((ROWS, 9, 2), np.float16, "got shape (24, 9, 2); wanted (24, H, W, C)"),
        ((23, 3, 3, 2), np.float16, "got shape (23, 3, 3, 2); wanted (24, H, W, C)"),
        ((ROWS, 3, 3, 2), np.uint8, "got dtype uint8"),
        ((ROWS, 3, 3, 2), ">f4", "got dtype >f4"),
        ((ROWS, 3, 3, 2), object, "Python objects"),
    ],
)
@pytest.mark.parametrize("inputs", ["maps", "levels"])
def test_bad_maps(folder, shape, dtype, words, inputs):
    maps(folder, "res101_maps" if inputs == "maps" else "res101_conv5", shape, dtype)
    assert words in refusal(folder, inputs)


def test_a_map_file_cut_short_and_a_pickle(folder):
    maps(folder)
    truncate(folder / "res101_maps.npy")
    assert "res101_maps.npy: cannot be read" in refusal(folder, "maps")
    (folder / "res101_maps.npy").write_bytes(b"\x80\x04N.")
    assert "wanted a complete .npy file of floats" in refusal(folder, "maps")


def test_a_damaged_sidecar(folder):
    maps(folder)
    (folder / "res101_maps.json").write_text('{"finite": tr')
    assert "res101_maps.json: cannot be read" in refusal(folder, "maps")
    (folder / "res101_maps.json").write_text("[true]")
    assert "res101_maps.json: holds a list; wanted a JSON object" in refusal(folder, "maps")


# The published splits.

DATA = os.environ.get("ZSLKERAS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="ZSLKERAS_DATA names no folder with the published split files")
# rows of trainval_loc, test_seen_loc, test_unseen_loc; classes seen, unseen, validation
PUBLISHED = {
    "CUB": (7057, 1764, 2967, 150, 50, 50),
    "SUN": (10320, 2580, 1440, 645, 72, 65),
    "AWA1": (19832, 4958, 5685, 40, 10, 13),
    "AWA2": (23527, 5882, 7913, 40, 10, 13),
    "APY": (5932, 1483, 7924, 20, 12, 5),
    "FLO": (5631, 1403, 1155, 82, 20, 20),
}


def drawn_labels(split, sizes):
    """Labels that fit the split, for the two whose labels are only in their feature files."""
    trainval, test_seen, test_unseen = (
        split[f"{name}_loc"].ravel() for name in ("trainval", "test_seen", "test_unseen")
    )
    *_, seen, unseen, validation = sizes
    labels = np.zeros(len(trainval) + len(test_seen) + len(test_unseen), int)
    rows = np.arange(1, len(labels) + 1)
    groups = {
        "unseen": (np.isin(rows, test_unseen), seen + 1, seen + unseen),
        "validation": (np.isin(rows, split["val_loc"]), seen - validation + 1, seen),
    }
    groups["train"] = (~groups["unseen"][0] & ~groups["validation"][0], 1, seen - validation)
    for among, first, last in groups.values():
        labels[among] = np.resize(np.arange(first, last + 1), among.sum())
    return labels


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request, tmp_path_factory):
    """A data root with the real split file and features three wide; the split and the labels as scipy reads them."""
    name = request.param
    real, folder = pathlib.Path(DATA) / name, tmp_path_factory.mktemp("data") / name
    if not (real / "att_splits.mat").is_file():
        pytest.skip(f"no att_splits.mat in {real}")
    folder.mkdir()
    (folder / "att_splits.mat").symlink_to(real / "att_splits.mat")
    split = scipy.io.loadmat(real / "att_splits.mat")
    stored = next((real / file for file in ("labels.mat", "mobilenetv2.mat") if (real / file).is_file()), None)
    labels = drawn_labels(split, PUBLISHED[name])
    if stored:
        labels = scipy.io.loadmat(stored, variable_names=["labels"])["labels"].ravel().astype(int)
    features = np.random.default_rng(0).normal(size=(3, len(labels)))
    scipy.io.savemat(folder / "tiny.mat", {"features": features, "labels": labels[:, None]})
    return name, folder.parent, split, labels


@needs_data
def test_published_sizes(published):
    name, root, split, labels = published
    final = load(name, root, "final")
    train, test_seen, test_unseen, seen, unseen, validation = PUBLISHED[name]
    assert (len(final.train), len(final.test_seen), len(final.test_unseen)) == (train, test_seen, test_unseen)
    assert (len(final.seen_classes), len(final.unseen_classes)) == (seen, unseen)
    assert len(final.validation_classes) == validation
    np.testing.assert_array_equal(final.labels, labels - 1)
    np.testing.assert_array_equal(final.train, split["trainval_loc"].ravel().astype(int) - 1)
    np.testing.assert_allclose(np.linalg.norm(final.class_embeddings, axis=1), 1, rtol=1e-6)


@needs_data
@pytest.mark.parametrize("fold", [0, 1])
def test_nothing_of_the_published_test_is_in_stage_tune(published, fold):
    name, root, split, labels = published
    tune = load(name, root, "tune", fold=fold)
    test_seen, test_unseen = (split[f"{which}_loc"].ravel().astype(int) - 1 for which in ("test_seen", "test_unseen"))
    hidden_rows = np.concatenate([test_seen, test_unseen])
    hidden_classes = np.unique(labels[test_unseen])
    used = np.concatenate([tune.train, tune.test_seen, tune.test_unseen])
    assert not np.isin(used, hidden_rows).any()
    assert (tune.labels[hidden_rows] == -1).all()
    assert not np.isin(labels[tune.labels >= 0], hidden_classes).any()
    assert set(used) == set(split["trainval_loc"].ravel().astype(int) - 1)

    # `att` is scaled here independently of the reader; 1e-3 is far above rounding and below any two classes' distance.
    att = split["att"].T / np.linalg.norm(split["att"].T, axis=1, keepdims=True)
    hidden = att[hidden_classes - 1]
    nearest = np.abs(tune.class_embeddings[:, None] - hidden).max(axis=2).min()
    assert nearest > 1e-3
    assert len(tune.class_names) == len(att) - len(hidden)
    if "allclasses_names" in split:
        names = [str(cell[0]) for cell in split["allclasses_names"].ravel()]
        assert not {names[label - 1] for label in hidden_classes} & set(tune.class_names)
    # Each row that keeps a label keeps its own class: its embedding is that class's.
    np.testing.assert_allclose(tune.class_embeddings[tune.labels[used]], att[labels[used] - 1], atol=1e-6)


@needs_data
def test_stored_flowers_load_in_three_seconds():
    if not (pathlib.Path(DATA) / "FLO/mobilenetv2.mat").is_file():
        pytest.skip("no FLO/mobilenetv2.mat in ZSLKERAS_DATA")
    start = time.perf_counter()
    final = load("flo", DATA, "final", features="mobilenetv2")
    assert time.perf_counter() - start < 3
    assert final.inputs.shape == (8189, 1280)
    assert final.class_names[0] != final.class_names[1]
    pictures = load("flo", DATA, "final", "images")
    assert len(pictures.inputs) == 8189
    assert all(os.path.isfile(path) for path in pictures.inputs[::500])


@needs_data
def test_flowers_in_picture_order_are_refused(tmp_path):
    real = pathlib.Path(DATA) / "FLO"
    if not (real / "mobilenetv2.mat").is_file():
        pytest.skip(f"no mobilenetv2.mat in {real}")
    stored = scipy.io.loadmat(real / "mobilenetv2.mat", variable_names=["labels", "image_files"])
    order = np.argsort([str(cell[0]) for cell in stored["image_files"].ravel()])
    (tmp_path / "FLO").mkdir()
    (tmp_path / "FLO/att_splits.mat").symlink_to(real / "att_splits.mat")
    labels = stored["labels"].ravel()[order]
    scipy.io.savemat(tmp_path / "FLO/tiny.mat", {"features": np.ones((3, 8189)), "labels": labels[:, None]})
    with pytest.raises(InputError, match=r"6 classes are both seen and unseen, first .* in another order"):
        load("flo", tmp_path, "final")


@needs_data
@pytest.mark.parametrize("name", ["CUB", "SUN", "AWA2"])
def test_published_word_vectors_fit(name, tmp_path):
    vectors, real = pathlib.Path(DATA) / f"word_vectors/{name}_attributes_300.npy", pathlib.Path(DATA) / name
    if not vectors.is_file():
        pytest.skip(f"no {vectors}")
    labels = scipy.io.loadmat(real / "labels.mat", variable_names=["labels"])["labels"]
    (tmp_path / name).mkdir()
    for path in real.iterdir():
        (tmp_path / name / path.name).symlink_to(path)
    scipy.io.savemat(tmp_path / name / "tiny.mat", {"features": np.ones((2, len(labels))), "labels": labels})
    final = load(name, tmp_path, "final", attribute_vectors=vectors)
    assert final.attribute_vectors.shape == (final.class_embeddings.shape[1], 300)
    assert bool(final.attribute_names) == (name != "SUN")
