"""Archives of unknown origin: nothing leaves its folder, fills the disk or replaces a file of the user."""

import contextlib
import gzip
import os
import stat
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from tests.benchmarks.conftest import (
    PICTURES,
    SPLITS,
    fetched,
    good,
    refused,
    tarred,
    tree,
    zipped,
)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "name",
    ["../T/att_splits.mat", "a/../../T/att_splits.mat", "/T/att_splits.mat", "C:/T/att_splits.mat",
     "a\\..\\/T/att_splits.mat", "images/../../../x.jpg", "images//../x.jpg", "images/a\\b.jpg"],
)  # fmt: skip
def test_a_name_that_leads_out_is_refused(name, pack, offer, tmp_path):
    offer(pack([("T/att_splits.mat", b"x"), (name, b"evil")]))
    refused(tmp_path / "data", repr(name), "wanted names that stay inside")
    assert tree(tmp_path) == {"data/downloads/t.zip"} and not (tmp_path / "data" / "T").exists()


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_what_is_not_wanted_is_not_written_whatever_it_is(pack, offer, tmp_path):
    names = ["../evil.txt", "/tmp/evil.txt", "T/other.exe", "T/sub/att_splits.mat", "images/._1.jpg", "XT/a.mat"]
    offer(pack([(name, b"evil") for name in names] + [("./T/att_splits.mat", b"x")]))
    fetched(tmp_path / "data")
    assert tree(tmp_path) == {"data/T/att_splits.mat", "data/downloads/t.zip", "data/downloads.json"}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link"),
        ({"type": tarfile.LNKTYPE, "linkname": "T/att_splits.mat"}, "a link"),
        ({"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}, "a device"),
        ({"type": tarfile.BLKTYPE}, "a device"),
        ({"type": tarfile.FIFOTYPE}, "a device"),
        ({"type": tarfile.GNUTYPE_SPARSE}, "sparse"),
    ],
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_and_devices_in_a_tar_are_refused(kind, told, mode, offer, tmp_path):
    offer(tarred([("T/att_splits.mat", b"x"), ("images/1.jpg", kind)], mode), "t.tar")
    refused(tmp_path, "'images/1.jpg'", told)
    assert not (tmp_path / "T").exists()


@pytest.mark.parametrize(("mode", "told"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "a device")])
def test_links_and_devices_in_a_zip_are_refused(mode, told, offer, tmp_path):
    info = zipfile.ZipInfo("images/1.jpg")
    info.external_attr = (mode | 0o777) << 16
    offer(zipped([("T/att_splits.mat", b"x"), (info, b"/etc/passwd")]))
    refused(tmp_path, f"'images/1.jpg' is {told}; wanted a plain file")
    assert not (tmp_path / "T").exists()


def test_an_encrypted_member_is_refused(offer, tmp_path):
    content = bytearray(zipped([("T/att_splits.mat", b"x")]))
    content[content.index(b"PK\1\2") + 8] |= 1
    offer(bytes(content))
    refused(tmp_path, "'T/att_splits.mat' is encrypted")


def test_a_folder_through_a_link_is_not_made(offer, tmp_path):
    """The link is not written, so what follows lands in a plain folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    offer(tarred([("images", {"type": tarfile.SYMTYPE, "linkname": str(outside)}), ("images/1.jpg", b"x")]),
          gives=("images",))  # fmt: skip
    fetched(tmp_path / "data")
    assert not any(outside.iterdir()) and not (tmp_path / "data" / "T" / "images").is_symlink()


DEFLATED = {"compression": zipfile.ZIP_DEFLATED}


def test_a_bomb_is_refused_by_its_ratio(offer, tmp_path):
    offer(zipped([("T/att_splits.mat", bytes(4_000_000))], **DEFLATED))
    refused(tmp_path, "unpacks to 4,000,000 bytes or more", "wanted at most 1,")
    assert not (tmp_path / "T").exists()


def test_a_bomb_in_a_tar_is_refused_by_its_ratio(offer, tmp_path):
    offer(tarred([("T/other.bin", bytes(4_000_000)), ("T/att_splits.mat", b"x")]), "t.tgz")
    refused(tmp_path, "unpacks to 4,000,000 bytes or more")


def test_zeros_behind_the_end_of_a_tar_are_refused(offer, tmp_path):
    offer(tarred([("T/att_splits.mat", b"x")]) + gzip.compress(bytes(4_000_000)), "t.tgz")
    refused(tmp_path, "unpacks to", "wanted at most 1,")


def test_a_header_that_would_fill_the_memory_is_refused(offer, tmp_path):
    noise = np.random.default_rng(0).bytes(750_000).hex()
    offer(tarred([("T/att_splits.mat", {"pax_headers": {"comment": noise}, "size": 0})]), "t.tgz")
    refused(tmp_path, "has a header of 1,5", "bytes; wanted one of at most 1,048,576")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_the_bounds_of_the_table_hold(pack, offer, tmp_path):
    content = pack([("T/att_splits.mat", SPLITS), *((f"other/{i}", b"") for i in range(20))])
    offer(content, most_unpacked=200_000)
    refused(tmp_path, "bytes or more; wanted at most 200,000")
    offer(content, most_members=20)
    refused(tmp_path, "has 21 members or more; wanted at most 20")
    offer(content, most_members=21)
    fetched(tmp_path)


@pytest.mark.parametrize(("size", "told"), [(100, "damaged"), (400_000, "does not have its announced 400,000 bytes")])
def test_a_member_that_has_not_what_it_announces_is_refused(size, told, offer, tmp_path):
    content = bytearray(zipped([("T/att_splits.mat", SPLITS)]))
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, size)
    offer(bytes(content))
    refused(tmp_path, told)
    assert not (tmp_path / "T").exists()


def broken(content, at):
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        good()[:-10],
        good()[:1000],
        broken(good(), 1000),
        tarred([("T/att_splits.mat", SPLITS)])[:-3],
        tarred([("T/att_splits.mat", SPLITS)])[:1000],
        broken(tarred([("T/att_splits.mat", SPLITS)]), 1000),
        broken(tarred([("T/att_splits.mat", SPLITS)]), -6),
        tarred([("T/att_splits.mat", SPLITS)], "w")[:1000],
        gzip.compress(b"no tar"),
        b"PK, and nothing else",
    ],
    ids=["zip-end", "zip-short", "zip-bit", "gz-end", "gz-short", "gz-bit", "gz-sum", "tar-short", "gz-alone", "PK"],
)
def test_a_damaged_archive_is_one_sentence_and_leaves_nothing(content, offer, tmp_path):
    offer(content)
    sentence = refused(tmp_path, str(tmp_path / "downloads" / "t.zip"), "damaged", "wanted a whole archive")
    assert "\n" not in sentence and tree(tmp_path) == {"downloads/t.zip"} and not (tmp_path / "T").exists()


def test_a_page_instead_of_an_archive_is_told(offer, tmp_path):
    offer(b"<!DOCTYPE html><title>Log in</title>")
    refused(tmp_path, "begins with b'<!DOCTYPE html><'", "wanted a zip, a tar or a MATLAB file")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_name_twice_has_to_be_the_same_file(pack, offer, tmp_path):
    same = [("a/T/att_splits.mat", SPLITS), ("b/T/att_splits.mat", SPLITS), ("a/T/att_splits.mat", SPLITS)]
    with pytest.warns(UserWarning, match="Duplicate") if pack is zipped else contextlib.nullcontext():
        offer(pack(same))
        fetched(tmp_path / "same")
        assert (tmp_path / "same" / "T" / "att_splits.mat").read_bytes() == SPLITS
        offer(pack([*same, ("a/T/att_splits.mat", SPLITS[:-1])]))
    refused(tmp_path, "has 'att_splits.mat' twice, with different contents")
    assert not (tmp_path / "T").exists()


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_names_that_differ_in_case_alone_are_refused(pack, offer, tmp_path):
    offer(pack([("T/att_splits.mat", b"x"), ("images/a.jpg", b"1"), ("images/A.jpg", b"1")]))
    refused(tmp_path, "'images/a.jpg' and 'images/A.jpg' differ only in case")


@pytest.mark.parametrize("names", [("images/a.jpg", "images/a.jpg/b.jpg"), ("images/a.jpg/b.jpg", "images/a.jpg")])
def test_a_name_that_is_file_and_folder_is_refused(names, offer, tmp_path):
    offer(tarred([(name, b"x") for name in names]), gives=("images",))
    refused(tmp_path, "both a file and a folder")


def test_an_archive_without_what_is_wanted_is_told(offer, tmp_path):
    offer(zipped([("T/other.mat", b"x")]))
    refused(tmp_path, "gives 1 wanted files, not att_splits.mat; wanted 1 or more")
    offer(zipped(PICTURES), "u.zip", gives=("images",), files=4)
    refused(tmp_path, "gives 3 wanted files; wanted 4 or more")
    assert not (tmp_path / "T").exists()


def test_files_of_the_user_stay_as_they_are(offer, tmp_path):
    mine = {"att_splits.mat": b"mine", "images/1.jpg": b"mine too", "images/2.jpg": b"2", "notes.txt": b"n"}
    for name, content in mine.items():
        (tmp_path / "T" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "T" / name).write_bytes(content)
    theirs = {"T/att_splits.mat": b"theirs", "T/res101.mat": b"r"}
    pictures = {f"images/{i}.jpg": str(i).encode() for i in range(4)}
    offer(zipped((theirs | pictures).items()), gives=("res101.mat",))
    said = fetched(tmp_path)
    after = {str(path.relative_to(tmp_path / "T")): path.read_bytes() for path in (tmp_path / "T").rglob("*.*")}
    assert after == pictures | {"res101.mat": b"r"} | mine
    kept = [line for line in said if "kept as it was" in line]
    assert len(kept) == 2 and str(tmp_path / "T" / "att_splits.mat") in kept[0] and "2 such files" in kept[0]


def test_nothing_of_an_archive_can_be_run_or_keeps_its_owner(offer, tmp_path):
    info = tarfile.TarInfo("T/att_splits.mat")
    info.mode, info.uid = 0o4777, 1234
    offer(tarred([(info, b"x")]))
    fetched(tmp_path)
    written = (tmp_path / "T" / "att_splits.mat").stat()
    assert not written.st_mode & 0o7111 and written.st_uid == os.getuid()
