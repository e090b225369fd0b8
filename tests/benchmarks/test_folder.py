"""Your own folder: tables, images, splits, feature files, and what is refused in one sentence."""

import csv
import json
import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
import scipy.io
from PIL import Image

from zslkeras.benchmarks import filters, folder, tables
from zslkeras.errors import InputError
from zslkeras.images import decode

NAMES = ("ant", "bee", "cat", "dog", "elk")  # elk has a row but no images
COUNTS = {"ant": 6, "bee": 5, "cat": 10, "dog": 1}


def table(path, header=("class", "wings", "legs", "size"), rows=None, delimiter=",", encoding="utf-8"):
    rows = rows or [(name, i % 2, 6 - i, 0.5 + i) for i, name in enumerate(NAMES)]
    with path.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=delimiter).writerows([header, *rows])


def picture(path, size=(9, 7), seed=0, mode="RGB", **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    for name, count in COUNTS.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(root / name / f"{i}.{'png' if i % 2 else 'JPG'}", seed=100 * NAMES.index(name) + i)
    table(root / "classes.csv")
    return root


def read(pets, inputs="images", **options):
    return folder.read(str(pets), None, inputs, **options)


def refusal(pets, inputs="images", **options):
    with pytest.raises(InputError) as caught:
        read(pets, inputs, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def names(benchmark, ids):
    return [benchmark.class_names[i] for i in ids]


def split(benchmark):
    """The images of each part of the split, whatever their rows are."""
    return {
        part: {str(benchmark.inputs[row]) for row in getattr(benchmark, part)}
        for part in ("train", "test_seen", "test_unseen")
    }


# What it reads.


def test_the_table_and_the_pictures(pets):
    benchmark = read(pets, normalize=False)
    assert (benchmark.name, benchmark.kind, benchmark.stage) == ("pets", "images", "final")
    assert benchmark.class_names == NAMES
    assert benchmark.attribute_names == ("wings", "legs", "size")
    np.testing.assert_array_equal(benchmark.class_embeddings[1], [1, 5, 1.5])
    np.testing.assert_allclose(np.linalg.norm(read(pets).class_embeddings, axis=1), 1, rtol=1e-6)
    assert len(benchmark.inputs) == sum(COUNTS.values())
    for path, label in zip(benchmark.inputs, benchmark.labels, strict=True):
        assert path.startswith(str(pets / NAMES[label]))
    assert benchmark.notes == ()


def test_classes_without_a_folder_are_unseen(pets):
    benchmark = read(pets)
    assert names(benchmark, benchmark.unseen_classes) == ["elk"]
    assert names(benchmark, benchmark.seen_classes) == ["ant", "bee", "cat", "dog"]
    assert len(benchmark.test_unseen) == 0


def test_a_fifth_of_each_class_is_held_out_but_never_a_lone_picture(pets):
    benchmark = read(pets)
    held_out = np.bincount(benchmark.labels[benchmark.test_seen], minlength=5)
    np.testing.assert_array_equal(held_out, [1, 1, 2, 0, 0])
    assert len(benchmark.train) == sum(COUNTS.values()) - 4


def test_the_seed_decides(pets):
    assert split(read(pets)) == split(read(pets, seed=0))
    assert len({str(split(read(pets, seed=seed))) for seed in range(5)}) > 1
    drawn = {str(names(*[(b := read(pets, unseen="0.5", seed=seed)), b.unseen_classes])) for seed in range(9)}
    assert len(drawn) > 1


def test_unseen_by_name(pets):
    benchmark = read(pets, unseen="cat, ant")
    assert names(benchmark, benchmark.unseen_classes) == ["ant", "cat", "elk"]
    assert len(benchmark.test_unseen) == COUNTS["ant"] + COUNTS["cat"]


def test_unseen_by_a_list_of_names(pets):
    assert split(read(pets, unseen=["cat", "ant"])) == split(read(pets, unseen="cat, ant"))
    assert "unseen: no class 'catt'; did you mean cat?" in refusal(pets, unseen=["catt"])
    assert "unseen: got all 4 classes with images" in refusal(pets, unseen=NAMES)


def test_all_classes_with_pictures_can_be_seen(pets):
    benchmark = read(pets, unseen="none")
    assert names(benchmark, benchmark.seen_classes) == list(COUNTS) and not len(benchmark.test_unseen)
    table(pets / "classes.csv", rows=[(name, i % 2, 6 - i, 0.5 + i) for i, name in enumerate(COUNTS)])
    assert read(pets, unseen="none").unseen_classes.tolist() == [] and len(read(pets).unseen_classes) == 1


def test_a_table_may_have_gaps_where_that_is_allowed(pets):
    table(pets / "classes.csv", rows=[("ant", 1, "", 2.5), ("bee", " ", 6, 3)])
    found = tables.read(pets / "classes.csv", gaps=True)
    np.testing.assert_array_equal(found.values, [[1, np.nan, 2.5], [np.nan, 6, 3]])
    with pytest.raises(InputError, match="line 2, column legs: got ''; wanted a finite number"):
        tables.read(pets / "classes.csv")


def test_unseen_by_a_name_with_a_comma(pets):
    (pets / "bee").rename(pets / "bee, honey")
    table(pets / "classes.csv", rows=[("ant", 1, 2, 3), ("bee, honey", 2, 3, 4), ("cat", 3, 4, 5), ("dog", 5, 6, 7)])
    benchmark = read(pets, unseen='"bee, honey",dog')
    assert names(benchmark, benchmark.unseen_classes) == ["bee, honey", "dog"]


@pytest.mark.parametrize(
    "text", ["cat\nant\n", "\ufeffcat\r\n\r\n  ant", "\n\ncat\n \t\nant\n\n"], ids=["plain", "Windows", "blank lines"]
)
def test_unseen_by_a_file(pets, tmp_path, text):
    (tmp_path / "names").write_text(text, encoding="utf-8", newline="")
    benchmark = read(pets, unseen=tmp_path / "names")
    assert benchmark.digest == read(pets, unseen="cat, ant").digest
    assert names(benchmark, benchmark.unseen_classes) == ["ant", "cat", "elk"]


def test_in_a_file_a_comma_belongs_to_the_name(pets, tmp_path):
    (pets / "bee").rename(pets / "bee, honey")
    table(pets / "classes.csv", rows=[("ant", 1, 2, 3), ("bee, honey", 2, 3, 4), ("cat", 3, 4, 5), ("dog", 5, 6, 7)])
    (tmp_path / "names.txt").write_text("bee, honey\ndog\n")
    benchmark = read(pets, unseen=str(tmp_path / "names.txt"))
    assert names(benchmark, benchmark.unseen_classes) == ["bee, honey", "dog"]


def test_the_lines_of_a_file_are_a_list_too(pets):
    """As `--unseen "$(cat FILE)"` has it."""
    benchmark = read(pets, unseen="cat\nant")
    assert names(benchmark, benchmark.unseen_classes) == ["ant", "cat", "elk"]


@pytest.mark.parametrize(("unseen", "unseen_classes"), [("ant", ["ant", "elk"]), ("ant,bee", ["ant", "bee", "elk"])])
def test_classes_come_before_a_file_of_that_name(pets, tmp_path, monkeypatch, unseen, unseen_classes):
    monkeypatch.chdir(tmp_path)
    (tmp_path / unseen).write_text("dog\n")
    benchmark = read(pets, unseen=unseen)
    assert names(benchmark, benchmark.unseen_classes) == unseen_classes


def test_a_fraction_comes_before_a_file_of_that_name(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0.5").write_text("dog\n")
    assert len(read(pets, unseen="0.5").unseen_classes) == 3
    assert len(read(pets, unseen=0.5).unseen_classes) == 3


def test_unseen_by_fraction_is_drawn_among_classes_with_pictures(pets):
    benchmark = read(pets, unseen="0.5")
    assert len(benchmark.unseen_classes) == 3
    assert "elk" in names(benchmark, benchmark.unseen_classes)
    drawn = ", ".join(name for name in names(benchmark, benchmark.unseen_classes) if name != "elk")
    assert benchmark.notes == (f"unseen classes drawn (seed 0): {drawn}",)


@pytest.mark.skipif("ZSLKERAS_DATA" not in os.environ, reason="ZSLKERAS_DATA names no folder with CUB100")
def test_the_unseen_classes_of_cub100_are_those_of_its_file():
    root = pathlib.Path(os.environ["ZSLKERAS_DATA"]) / "CUB100"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    benchmark = read(root / "images", unseen=str(root / "unseen.txt"))
    assert len(benchmark.unseen_classes) == 27 and len(benchmark.seen_classes) == 73
    assert set(names(benchmark, benchmark.unseen_classes)) == set((root / "unseen.txt").read_text().split())


def test_a_fraction_leaves_a_class_to_train_on(pets):
    assert len(read(pets, unseen="0.99").seen_classes) == 1


def test_a_class_whose_name_is_a_number_is_a_name(pets):
    (pets / "dog").rename(pets / "0.5")
    table(pets / "classes.csv", rows=[(name, 1, 2, 3 + i) for i, name in enumerate(("ant", "bee", "cat", "0.5"))])
    benchmark = read(pets, unseen="0.5")
    assert names(benchmark, benchmark.unseen_classes) == ["0.5"]


def test_without_a_list_and_with_pictures_of_every_class_a_fifth_is_drawn(pets):
    table(pets / "classes.csv", rows=[(name, 1, 2, 3 + i) for i, name in enumerate(COUNTS)])
    benchmark = read(pets)
    assert len(benchmark.unseen_classes) == 1
    assert benchmark.notes[0].startswith("unseen classes drawn (seed 0): ")


@pytest.mark.parametrize(
    ("file", "delimiter", "encoding"),
    [("classes.csv", ";", "utf-8"), ("classes.csv", ",", "utf-8-sig"), ("classes.tsv", "\t", "utf-8")],
)
def test_other_tables(pets, file, delimiter, encoding):
    (pets / "classes.csv").unlink()
    table(pets / file, header=("class", "wings, two", "légs", "size"), delimiter=delimiter, encoding=encoding)
    assert read(pets).attribute_names == ("wings, two", "légs", "size")


def test_a_quoted_header_blank_lines_and_a_table_elsewhere(pets, tmp_path):
    lines = [f'"{name}",{i + 1}, 2\r\n,,\r\n' for i, name in enumerate(NAMES)]
    (tmp_path / "mine.csv").write_text('"class","a","b"\r\n' + "\r\n".join(lines), newline="")
    benchmark = read(pets, classes=str(tmp_path / "mine.csv"), normalize=False)
    np.testing.assert_array_equal(benchmark.class_embeddings, [[i + 1, 2] for i in range(5)])


def test_text_embeddings(pets, tmp_path):
    embeddings = np.random.default_rng(0).normal(size=(5, 8))
    np.save(tmp_path / "text.npy", embeddings)
    (tmp_path / "text.txt").write_text("\n".join(NAMES) + "\n")
    benchmark = read(pets, classes=str(tmp_path / "text.npy"), normalize=False)
    assert benchmark.class_names == NAMES
    assert benchmark.attribute_names == ()
    np.testing.assert_array_equal(benchmark.class_embeddings, embeddings.astype(np.float32))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"normalize": False}, "normalize: got False for embedding both, which has unit length; wanted True"),
        ({"attribute_vectors": "vectors.npy"}, "attribute_vectors: got them for embedding both, whose text has none"),
    ],
)
def test_text_beside_attributes_takes_no_other_scale_and_no_vectors(pets, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        read(pets, embedding="both", **wrong)


def test_attribute_vectors(pets, tmp_path):
    np.save(tmp_path / "vectors.npy", np.ones((3, 2)))
    assert read(pets, attribute_vectors=tmp_path / "vectors.npy").attribute_vectors.shape == (3, 2)
    np.save(tmp_path / "vectors.npy", np.ones((4, 2)))
    assert "vectors.npy: got shape (4, 2); wanted (3, columns)" in refusal(
        pets, attribute_vectors=tmp_path / "vectors.npy"
    )


def test_files_that_are_no_pictures_are_skipped_aloud(pets):
    (pets / "bee/notes.txt").write_text("buzz")
    (pets / "bee/.DS_Store").write_text("")
    (pets / ".cache").mkdir()
    benchmark = read(pets)
    assert len(benchmark.inputs) == sum(COUNTS.values())
    assert benchmark.notes == ("skipped, as they are no images: 1 files, first bee/notes.txt",)


# Features.


@pytest.mark.parametrize("kind", ["features", "maps", "levels"])
def test_the_filter_bank(pets, kind, monkeypatch):
    monkeypatch.setattr(folder, "_CHUNK", 5)
    benchmark = read(pets, kind, features="filters")
    pictures = read(pets).inputs
    pixels = decode.load(pictures, 64, crop=False)
    for path, shown in zip(pictures, pixels, strict=True):
        with Image.open(path) as image:
            wanted = image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(shown, np.asarray(wanted, float), atol=1)
    expected = {"features": filters.pooled, "maps": filters.maps, "levels": filters.levels}[kind](pixels)
    taken = benchmark.take(np.arange(len(pictures)))
    if kind != "levels":
        expected, taken = (expected,), (taken,)
    for got, wanted in zip(taken, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert benchmark.finite
    assert split(read(pets)) == {
        part: {str(pictures[row]) for row in getattr(benchmark, part)} for part in ("train", "test_seen", "test_unseen")
    }


def feature_file(pets, name="mobile", prefix=""):
    """Rows in another order, the last of an image that is gone; the features of a row identify its image."""
    files = [f"{name}/{path.name}" for name in COUNTS for path in sorted((pets / name).iterdir())]
    files = [*np.random.default_rng(1).permutation(files), "ant/gone.jpg"]
    features = np.arange(3 * len(files), dtype=np.float32).reshape(len(files), 3)
    scipy.io.savemat(
        pets / f"{name}.mat",
        {
            "features": features.T,
            "labels": np.ones((len(files), 1)),
            "image_files": np.array([prefix + file for file in files], object)[:, None],
        },
    )
    return files, features


@pytest.mark.parametrize("prefix", ["", "./", "/somewhere/else/"])
def test_features_of_a_file_are_matched_by_picture(pets, prefix):
    files, features = feature_file(pets, prefix=prefix)
    benchmark = read(pets, "features", features="mobile")
    np.testing.assert_array_equal(benchmark.inputs, features)
    assert benchmark.labels.tolist() == [NAMES.index(file.split("/")[0]) for file in files[:-1]] + [-1]
    parts = split(read(pets))
    for part, pictures in parts.items():
        assert {str(pets / files[row]) for row in getattr(benchmark, part)} == pictures
    assert benchmark.notes == ()


def test_the_only_features_there_are_taken_and_named(pets):
    feature_file(pets)
    assert read(pets, "features").notes == (f"features by mobile, the only ones in {pets}",)


def test_several_features_are_listed(pets):
    feature_file(pets)
    feature_file(pets, "vgg")
    assert f"features: got none, and {pets} has features by mobile, vgg; wanted one of them" in refusal(
        pets, "features"
    )


@pytest.mark.parametrize("kind", ["maps", "levels"])
def test_maps_of_a_file_are_mapped_not_copied(pets, kind):
    files, _ = feature_file(pets)
    array = np.arange(len(files) * 8, dtype=np.float16).reshape(len(files), 2, 2, 2)
    np.save(pets / ("mobile_maps.npy" if kind == "maps" else "mobile_conv5.npy"), array)
    (pets / "mobile.json").write_text(json.dumps({"layers": ["conv5"], "finite": True}))
    benchmark = read(pets, kind)
    inputs = benchmark.inputs if kind == "maps" else benchmark.inputs[0]
    assert isinstance(inputs, np.memmap)
    assert benchmark.finite
    row = files.index("bee/1.png")
    assert names(benchmark, [benchmark.labels[row]]) == ["bee"]
    np.testing.assert_array_equal(inputs[row], array[row])


@pytest.mark.parametrize("kind", ["features", "maps", "levels"])
def test_without_features_the_sentence_says_what_to_run(pets, kind):
    message = refusal(pets, kind)
    for words in ("missing NAME", "`zslkeras prepare --dataset", "features=filters", str(pets)):
        assert words in message


def test_features_that_are_not_there(pets):
    feature_file(pets)
    message = refusal(pets, "features", features="vgg")
    assert "missing vgg.mat" in message
    assert "pass features=mobile" in message


def test_pictures_newer_than_the_features(pets):
    feature_file(pets)
    picture(pets / "bee/new.png")
    message = refusal(pets, "features")
    assert "mobile.mat: image_files lacks 1 of 23 images" in message
    assert "first bee/new.png" in message


def test_pictures_that_the_features_leave_out(pets):
    """They are in no row set; the others have the same split as with other features."""
    files, features = feature_file(pets)
    fields = scipy.io.loadmat(pets / "mobile.mat")
    left_out = [files.index(file) for file in ("cat/3.png", "bee/0.JPG")]
    kept = np.setdiff1d(np.arange(len(files)), left_out)
    fields |= {"features": features[kept].T} | {name: fields[name][kept] for name in ("labels", "image_files")}
    fields["skipped_files"] = np.array(["cat/3.png", "bee/0.JPG"], object)[:, None]
    scipy.io.savemat(pets / "mobile.mat", {name: value for name, value in fields.items() if name[0] != "_"})
    benchmark = read(pets, "features", features="mobile")
    assert benchmark.notes == ("mobile.mat leaves out 2 images, first cat/3.png",)
    assert benchmark.labels[-1] == -1  # of an image that is no longer in the folder
    gone = {str(pets / "cat/3.png"), str(pets / "bee/0.JPG")}
    parts = split(read(pets))
    assert any(gone & pictures for pictures in parts.values())
    for part, pictures in parts.items():
        assert {str(pets / files[kept[row]]) for row in getattr(benchmark, part)} == pictures - gone
        for row in getattr(benchmark, part):
            assert benchmark.class_names[benchmark.labels[row]] == files[kept[row]].split("/")[0]


def test_pictures_to_make_features_of(pets):
    pictures = folder.pictures(str(pets), None)
    assert [str(pets / file) for file in pictures.files] == list(pictures.paths) == read(pets).inputs.tolist()
    assert [NAMES[label - 1] for label in pictures.labels] == [file.split("/")[0] for file in pictures.files]


def test_features_are_no_path(pets):
    assert "features: got '../x'; wanted a name" in refusal(pets, "features", features="../x")


# Images.


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def test_a_truncated_picture_is_named_when_decoded(pets):
    for file in ("cat/2.JPG", "cat/3.png"):
        whole = (pets / file).read_bytes()
        picture(pets / file, size=(64, 64))
        cut(pets / file)
        assert read(pets).kind == "images"  # its header is whole
        message = refusal(pets, "features", features="filters")
        assert f"{file}: does not decode" in message
        (pets / file).write_bytes(whole)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
@pytest.mark.parametrize(("inputs", "features"), [("images", None), ("features", "filters")])
def test_what_is_no_picture_is_named(pets, content, inputs, features):
    (pets / "dog/0.JPG").write_bytes(content)
    message = refusal(pets, inputs, features=features)
    assert "dog/0.JPG: cannot be read" in message


@pytest.mark.parametrize("side", [7_072, 10_000, 20_000])  # above our limit, Pillow's warning, Pillow's error
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("inputs", "features"), [("images", None), ("maps", "filters")])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(pets, side, inputs, features):
    picture(pets / "dog/big.png")
    content = bytearray((pets / "dog/big.png").read_bytes())
    content[16:24] = struct.pack(">II", side, side)  # the size in the PNG's first chunk, and that chunk's checksum
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (pets / "dog/big.png").write_bytes(content)
    message = refusal(pets, inputs, features=features)
    assert "dog/big.png: " in message
    assert str(side**2) in message.replace(",", "")
    assert "wanted at most 50,000,000 pixels" in message


# What it refuses.

BAD_TABLES = {
    "class twice": ("class,a\nant,1\nbee,2\nant,3\n", "classes.csv: class ant is there 2 times; wanted it once"),
    "column twice": ("class,a,b,a\nant,1,2,3\n", "classes.csv: column a is there 2 times"),
    "column without a name": ("class,a,\nant,1,2\n", "a column has no name"),
    "class without a name": ("class,a\n ,1\n", "a class has no name"),
    "no number": (
        "class,a,b\nant,1,2\nbee,1,many\n",
        "classes.csv: line 3, column b: got 'many'; wanted a finite number",
    ),
    "nothing": ("class,a,b\nant,1,\n", "line 2, column b: got ''"),
    "NaN": ("class,a\nant,nan\n", "line 2, column a: got 'nan'; wanted a finite number"),
    "infinity": ("class,a\nant,1e999\n", "got '1e999'"),
    "too few cells": ("class,a,b\nant,1\n", "line 2: 2 cells; wanted 3"),
    "too many cells": ("class,a,b\nant,1,2\nbee,1,2,3\n", "line 3: 4 cells; wanted 3"),
    "no rows": ("class,a\n", "no line after the header"),
    "no attributes": ("class,\nant,\n", "a column has no name"),
    "no header": ("ant,1\nbee,2\n", r"line 1 is 'ant,1\n'; wanted the header class,attr1,attr2"),
    "empty": ("", "line 1 is ''"),
    "other letters": ("class,a\nbé,1\n".encode("latin-1"), "wanted a CSV or TSV in UTF-8"),
    "open quote": ('class,a\n"ant,1\n', "cannot be read (unexpected end of data)"),
    "all zero": (
        "class,a\n" + "".join(f"{name},{i}\n" for i, name in enumerate(NAMES)),
        "all zero, or as good as that, for class ant",
    ),
}


@pytest.mark.parametrize(("text", "words"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_bad_tables(pets, text, words):
    (pets / "classes.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert words in refusal(pets)


def test_no_table(pets):
    (pets / "classes.csv").unlink()
    message = refusal(pets)
    assert f"{pets}/classes.csv or {pets}/classes.tsv" in message
    assert "or att_splits.mat if the folder is in the field's own format" in message
    assert "classes: no file elsewhere.csv; wanted a table" in refusal(pets, classes="elsewhere.csv")


def test_a_folder_without_pictures(tmp_path):
    table(tmp_path / "classes.csv")
    assert "no sub-folder of images" in refusal(tmp_path)


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_an_empty_class_folder(pets, content):
    (pets / "elk").mkdir()
    if content:
        (pets / "elk" / content).touch()
    assert f"{pets / 'elk'}: no image in it" in refusal(pets)


def test_a_folder_without_a_row(pets):
    (pets / "cat").rename(pets / "cats")
    assert f"{pets / 'cats'}: no row for it in {pets / 'classes.csv'}; did you mean cat?" in refusal(pets)


@pytest.mark.parametrize(
    ("unseen", "words"),
    [
        ("catt", "unseen: no class 'catt'; did you mean cat?"),
        ("zzz,cat", "unseen: no class 'zzz'; wanted one of ant, bee, cat, dog, elk"),
        ("ant,,bee", "unseen: no class ''"),
        ("", "unseen: no class ''"),
        (
            "1.5",
            "unseen: got 1.5; wanted class names separated by commas, a file with one per line, a fraction between 0",
        ),
        ("0", "unseen: got 0; wanted"),
        ("nan", "unseen: got nan; wanted"),
        ("ant,bee,cat,dog", "unseen: got all 4 classes with images; wanted one left to train on"),
    ],
)
def test_bad_unseen_lists(pets, unseen, words):
    assert words in refusal(pets, unseen=unseen)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ant\ncat\nant\n", "names: line 3: class ant is on line 1 too; wanted it once"),
        (b"ant\n\ncatt\n", "names: line 3: no class 'catt'; did you mean cat?"),
        (b"zzz\n", "names: line 1: no class 'zzz'; wanted one of ant, bee, cat, dog, elk"),
        (b"ant,bee\n", "names: line 1: no class 'ant,bee'; "),
        (b"", "names: no class in it; wanted the unseen ones, one per line"),
        (b"\xef\xbb\xbf\n \n", "names: no class in it"),
        (b"ant\nb\xe9\n", "names: cannot be read ('utf-8' codec can't decode"),
        (b"ant\nbee\ncat\ndog\n", "unseen: got all 4 classes with images"),
    ],
    ids=["twice", "near", "unknown", "commas", "empty", "blank", "other letters", "all"],
)
def test_bad_unseen_files(pets, tmp_path, content, words):
    (tmp_path / "names").write_bytes(content)
    assert words in refusal(pets, unseen=str(tmp_path / "names"))


@pytest.mark.skipif(not os.path.isfile("/proc/self/mem"), reason="needs a file that even root cannot read")
def test_an_unseen_file_that_cannot_be_read(pets):
    assert "/proc/self/mem: cannot be read ([Errno 5]" in refusal(pets, unseen="/proc/self/mem")


@pytest.mark.parametrize("unseen", ["names.txt", "./names", "../lists, old/names", "{tmp_path}"])
def test_an_unseen_file_that_is_not_there(pets, tmp_path, unseen):
    unseen = unseen.format(tmp_path=tmp_path)
    assert f"unseen: no file {unseen}; wanted class names separated by commas, a file" in refusal(pets, unseen=unseen)


def test_a_list_with_a_slash_in_a_class_is_no_path(pets):
    rows = [(name, i + 1, 2, 3) for i, name in enumerate((*COUNTS, "rock/metal"))]
    table(pets / "classes.csv", rows=rows)
    benchmark = read(pets, unseen="rock/metal,ant")
    assert names(benchmark, benchmark.unseen_classes) == ["ant", "rock/metal"]
    assert "unseen: no class 'antt'; did you mean ant?" in refusal(pets, unseen="rock/metal,antt")


def test_bad_text_embeddings(pets, tmp_path):
    path = tmp_path / "text.npy"
    np.save(path, np.ones((5, 8)))
    assert "text.txt: cannot be read" in refusal(pets, classes=path)
    (tmp_path / "text.txt").write_text("ant\nbee\n")
    assert "text.txt: 2 classes; wanted 5, one per row of" in refusal(pets, classes=path)
    (tmp_path / "text.txt").write_text("ant\nbee\ncat\ndog\nant\n")
    assert "text.txt: class ant is there 2 times" in refusal(pets, classes=path)
    np.save(path, np.full((5, 8), np.nan))
    assert "text.npy: a value is nan" in refusal(pets, classes=path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    assert "text.npy: cannot be read" in refusal(pets, classes=path)


def test_images_know_how_features_were_made_of_them(pets):
    """A model may take the same backbone. Other JSON in the folder, and features of another origin, say nothing."""
    for name, content in {"mine": {"backbone": "vgg16"}, "other": {"backbone": "resnet50"}, "theirs": {}}.items():
        (pets / f"{name}.json").write_text(json.dumps(content))
        (pets / f"{name}.mat").write_bytes(b"")
    (pets / "notes.json").write_text("[1, 2]")
    (pets / "gone.json").write_text(json.dumps({"backbone": "vgg19"}))
    assert read(pets).prepared == {"mine": {"backbone": "vgg16"}, "other": {"backbone": "resnet50"}}
    assert read(pets, features="mine").prepared == {"mine": {"backbone": "vgg16"}}
    assert read(pets, features=folder.FILTERS).prepared == {}
