"""Decoded images: made once, whole or not at all, and one sentence if they cannot be made."""

import concurrent.futures
import os
import pathlib
import signal

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import start
from zslkeras.errors import InputError
from zslkeras.images import decode, store

SIDE = 23  # of images for views of 20 pixels


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def paths(tmp_path):
    return np.array(written(tmp_path, 5))


def written(folder, count):
    """Pictures of several sizes and formats."""
    generator, paths = np.random.default_rng(0), []
    for number in range(count):
        path = folder / f"{number}.{'png' if number % 2 else 'jpg'}"
        Image.fromarray(generator.integers(0, 256, (30 + number, 40, 3), np.uint8)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture
def decodings(monkeypatch):
    """Lengths of what is decoded."""
    lengths, stream = [], decode.stream

    def counting(paths, *args):
        lengths.append(len(paths))
        return stream(paths, *args)

    monkeypatch.setattr(decode, "stream", counting)
    return lengths


def test_pictures_are_those_of_the_common_decoder_in_a_read_only_map(paths):
    pictures = store.decoded(paths, 20)
    assert isinstance(pictures, np.memmap) and pictures.shape == (5, SIDE, SIDE, 3) and pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures, decode.load(paths, SIDE))
    with pytest.raises(ValueError, match="read-only"):
        pictures[0] = 0


def test_pictures_are_decoded_once_and_anew_where_anything_changes(paths, decodings):
    first = store.decoded(paths, 20)
    np.testing.assert_array_equal(store.decoded(paths, 20), first)
    assert decodings == [5]
    store.decoded(paths[:4], 20)
    store.decoded(paths[::-1], 20)
    store.decoded(paths, 40)
    assert decodings == [5, 4, 5, 5]
    os.utime(paths[2], (0, 0))
    store.decoded(paths, 20)
    assert decodings == [5, 4, 5, 5, 5]
    Image.new("RGB", (50, 50), "red").save(paths[0])
    np.testing.assert_allclose(store.decoded(paths, 20)[0], np.broadcast_to([254, 0, 0], (SIDE, SIDE, 3)), atol=1)


def test_a_picture_that_does_not_decode_is_named_and_nothing_is_kept(paths, cache):
    path = pathlib.Path(paths[3])
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    with pytest.raises(InputError, match=r"3\.png: does not decode \(.*\); wanted a complete image"):
        store.decoded(paths, 20)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    path.write_bytes(contents)
    assert len(store.decoded(paths, 20)) == 5


def test_a_picture_that_is_gone_is_named(paths):
    os.remove(paths[1])
    with pytest.raises(InputError, match=r"1\.png: cannot be read \(No such file or directory\); wanted an image"):
        store.decoded(paths, 20)


def test_a_cache_that_cannot_be_written_is_said(paths, cache, monkeypatch):
    cache.write_text("a file")
    with pytest.raises(InputError, match="cache: decoded images, 0.00 GB, cannot be kept .*XDG_CACHE_HOME"):
        store.decoded(paths, 20)
    cache.unlink()
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5 * SIDE * SIDE * 3 - 1}))
    with pytest.raises(InputError, match="cache: .*No space left on device"):
        store.decoded(paths, 20)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_damaged_file_is_named(paths, cache):
    store.decoded(paths, 20)
    (path,) = cache.rglob("pictures.npy")
    for damaged in (path.read_bytes()[:-1], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"pictures\.npy: damaged \(.*\); delete it, and it is made again"):
            store.decoded(paths, 20)


def test_of_two_at_once_one_decodes_and_the_other_waits(paths, decodings):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: store.decoded(paths, 20), range(2))
    assert decodings == [5]
    np.testing.assert_array_equal(one, other)


_KILLED = """
import os, signal, sys
from zslkeras.images import store
def advance(self, *args):
    self.done += 1
    if self.done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
store.Progress.advance = advance
store.decoded(sys.argv[1:], 20)
"""


def test_what_a_killed_process_left_is_neither_read_nor_kept(paths, cache, tmp_path):
    (tmp_path / "killed.py").write_text(_KILLED)
    died = start("killed", *paths, cwd=tmp_path, XDG_CACHE_HOME=str(cache)).wait_for(60)
    assert died.returncode == -signal.SIGKILL, died.err
    (draft,) = (path for path in (cache / "zslkeras").rglob("*") if path.is_file())
    assert draft.name != "pictures.npy"
    np.testing.assert_array_equal(store.decoded(paths, 20), decode.load(paths, SIDE))
    assert [path.name for path in (cache / "zslkeras").rglob("*") if path.is_file()] == ["pictures.npy"]
