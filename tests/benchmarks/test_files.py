"""MATLAB files from strangers: a damaged one, or one that links to other files, becomes one sentence."""

import os
import pathlib
import shutil

import h5py
import numpy as np
import pytest

from tests.benchmarks.test_xlsa import DIM, ROWS, fields, truncate, write_v5, write_v73
from zslkeras.benchmarks import files
from zslkeras.errors import InputError
from zslkeras.images import decode


def pooled(folder, writer=write_v5):
    """A file of features, written by `writer`."""
    writer(folder / "res101.mat", fields()["res101"])
    return folder / "res101.mat"


def read(path):
    return files.read_mat(path, ["features", "labels"])


def refusal(path):
    with pytest.raises(InputError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shorten_to_header(path):
    path.write_bytes(path.read_bytes()[:100])


def flip_bytes(path):
    content = bytearray(path.read_bytes())
    content[136:400] = bytes(255 - byte for byte in content[136:400])
    path.write_bytes(content)


DAMAGE = {
    "truncated": (write_v5, truncate, "res101.mat: truncated or damaged"),
    "truncated v7.3": (write_v73, truncate, "res101.mat: truncated or damaged"),
    "cut in the header": (write_v5, shorten_to_header, "wanted a MATLAB file of version 5 or 7.3"),
    "flipped": (write_v5, flip_bytes, "res101.mat: truncated or damaged"),
    "empty": (write_v5, lambda path: path.write_bytes(b""), "res101.mat: begins with b''; wanted a MATLAB file"),
    "a web page": (write_v5, lambda path: path.write_text("<!DOCTYPE html>" * 20), "begins with b'<!DOCTYPE html><'"),
    "a v7.3 header alone": (
        write_v5,
        lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)),
        "res101.mat: truncated or damaged",
    ),
}


@pytest.mark.parametrize(("writer", "damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_files(tmp_path, writer, damage, words):
    path = pooled(tmp_path, writer)
    damage(path)
    assert words in refusal(path)


def test_wherever_a_file_is_cut_it_reads_as_before_or_is_refused(tmp_path):
    path = pooled(tmp_path)
    whole, content, refused = read(path), path.read_bytes(), 0
    lengths = range(0, len(content), 7)
    for length in lengths:
        path.write_bytes(content[:length])
        try:
            cut = read(path)
        except InputError as error:
            assert "res101.mat: " in str(error)
            refused += 1
        else:  # cut between two variables
            assert all(np.array_equal(cut[name], whole[name]) for name in ("features", "labels"))
    assert refused >= len(lengths) - 2


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    for name in ("res101.mat", "maps.npy", "image.png"):
        os.mkfifo(tmp_path / name)
    assert "res101.mat: is a folder, a pipe or a device; wanted a file" in refusal(tmp_path / "res101.mat")
    for name, opening in (("maps.npy", files.read_npy), ("image.png", decode.check_header)):
        with pytest.raises(InputError, match=f"{name}: is a folder, a pipe or a device"):
            opening(tmp_path / name)


def test_arrays_without_numbers_are_refused(tmp_path):
    np.save(tmp_path / "matrix.npy", np.zeros((8, 0), np.float32))
    with pytest.raises(InputError, match=r"matrix.npy: got shape \(8, 0\); wanted \(8, columns\)"):
        files.read_matrix(tmp_path / "matrix.npy", 8)
    np.save(tmp_path / "x_maps.npy", np.zeros((8, 0, 2, 4), np.float32))
    with pytest.raises(InputError, match=r"x_maps.npy: got shape \(8, 0, 2, 4\); wanted \(8, H, W, C\)"):
        files.read_inputs(tmp_path, "maps", "x", 8)


def linked(link):
    def rewrite(path):
        with h5py.File(path, "r+") as file:
            del file["features"]
            link(file)

    return rewrite


def soft(file):
    file["other"] = np.zeros((ROWS, DIM))
    file["features"] = h5py.SoftLink("/other")


def external(file):
    file["features"] = h5py.ExternalLink("elsewhere.mat", "/features")


def external_storage(file):
    pathlib.Path(file.filename).with_name("raw").write_bytes(bytes(ROWS * DIM * 4))
    raw = [(str(pathlib.Path(file.filename).with_name("raw")), 0, ROWS * DIM * 4)]
    file.create_dataset("features", (ROWS, DIM), "f4", external=raw)


def virtual(file):
    layout = h5py.VirtualLayout((ROWS, DIM), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.mat", "features", (ROWS, DIM))
    file.create_virtual_dataset("features", layout)


def huge(file):
    file.create_dataset("features", (10**6, 10**6), "f8", chunks=(1000, 1000))


def group(file):
    file.create_group("features")


V73 = {
    soft: "features is a link to other data",
    external: "features is a link to other data",
    external_storage: "features is stored in another file",
    virtual: "features is stored in another file",
    huge: "features claims 8,000,000,000,000 bytes",
    group: "features is a Group; wanted a matrix",
}


@pytest.mark.parametrize("link", V73, ids=lambda link: link.__name__)
def test_v73_stays_inside_its_file(tmp_path, link):
    path = pooled(tmp_path, write_v73)
    shutil.copy(path, tmp_path / "elsewhere.mat")
    linked(link)(path)
    assert V73[link] in refusal(path)


@pytest.mark.parametrize("writer", [write_v5, write_v73])
def test_both_versions_of_matlab_files_read_the_same(tmp_path, writer):
    wanted = fields()["res101"]
    found = files.read_mat(pooled(tmp_path, writer), ["features", "labels", "image_files"], ["skipped_rows"])
    assert found.keys() == wanted.keys() and found["image_files"] == wanted["image_files"]
    for name in ("features", "labels"):
        np.testing.assert_array_equal(found[name], wanted[name])


def test_lines_are_numbered_as_an_editor_does(tmp_path):
    (tmp_path / "names").write_bytes("\ufeffone\r\n\r\n two\u2028three \n".encode())
    assert files.read_lines(tmp_path / "names", "names") == [(1, "one"), (3, "two\u2028three")]
    with pytest.raises(InputError, match=r"none: cannot be read \(.*\); wanted names$"):
        files.read_lines(tmp_path / "none", "names")


@pytest.mark.parametrize(
    ("dataset", "is_path"), [("flo", False), ("./flo", True), ("flo/", True), (".", True), ("..", True), ("", False)]
)
def test_a_slash_makes_a_path(dataset, is_path):
    assert files.is_path(dataset) is is_path
