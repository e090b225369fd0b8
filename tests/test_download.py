"""The published archives: the table, fetching them over a bad line from a server on this machine, unpacking safely."""

import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import typing
import zipfile

import numpy as np
import pytest
import scipy.io

from experiments import download
from experiments.archives import DATASETS, Archive, Part
from tests.conftest import ROOT, write_tiny
from zslkeras.benchmarks import load, xlsa
from zslkeras.errors import InputError

TABLE = sorted({part.archive for parts in DATASETS.values() for part in parts}, key=lambda archive: archive.name)
MATS = ((r"(?:.*/)?T/(\w+\.mat)", r"\1"), (r"(?:.*/)?images/(.+\.jpg)", r"images/\1"))
SPLITS = np.random.default_rng(0).bytes(300_000)


class Answer(typing.NamedTuple):
    """What is done to one request: the default serves the file as a good server does."""

    status: int = 0
    cut: int | None = None  # bytes of the body that are sent
    stall: float = 0  # seconds before the rest
    whole: bool = False  # ignores Range
    stubborn: bool = False  # ignores If-Range
    length: int | None = None  # said instead of the true one
    silent: bool = False  # says no length
    to: str = ""  # redirects


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.lstrip("/")
        answer = server.answers.pop(0) if server.answers else Answer()
        server.asked.append((name, self.headers.get("Range"), self.headers.get("If-Range")))
        content, first = server.content.get(name, b""), 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = answer.stubborn or self.headers.get("If-Range") in (None, server.tag)
        status = answer.status or (200 if name in server.content else 404)
        if status == 200 and asked and same and not answer.whole:
            first = int(asked[1])
            status = 206 if first < len(content) else 416
        self.send_response(302 if answer.to else status)
        if answer.to:
            self.send_header("Location", answer.to)
        body = content[first:] if status in (200, 206) and not answer.to else b""
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if server.tag:
            self.send_header("ETag", server.tag)
        if not answer.silent:
            self.send_header("Content-Length", str(len(body) if answer.length is None else answer.length))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body[: answer.cut])
            if answer.stall:
                server.closing.wait(answer.stall)
                self.wfile.write(body[answer.cut :])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.content, running.answers, running.asked, running.tag = {}, [], [], '"1"'
    running.closing = threading.Event()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.closing.set()
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "_WAITS", (0, 0, 0))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def offer(server, monkeypatch):
    """Publishes one archive of a dataset T and returns it."""

    def publish(content, name="t.zip", take=MATS, gives=("att_splits.mat",), files=1, **known):
        server.content[name] = content
        bounds = {"most_bytes": 10**7, "most_unpacked": 10**7, "most_members": 1000, **known}
        archive = Archive(f"http://127.0.0.1:{server.server_port}/{name}", **bounds)
        monkeypatch.setitem(DATASETS, "T", (Part(archive, take, gives, files),))
        return archive

    return publish


def zipped(members, compression=zipfile.ZIP_STORED):
    """A zip of [(name or ZipInfo, bytes)]; the same bytes each time, for a ZipInfo has no time of its own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            archive.writestr(info, content, compression)
    return file.getvalue()


def tarred(members, mode="w:gz"):
    """A tar of [(name or TarInfo, bytes, or what else the TarInfo has)]."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            for key, value in ({"size": len(content)} if isinstance(content, bytes) else content).items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return file.getvalue()


def good(splits=SPLITS):
    return zipped([("data/T/att_splits.mat", splits), ("data/readme.txt", b"hello")])


def fetched(root, dataset="t", **options):
    said = []
    download.fetch(dataset, root, said.append, **options)
    return said


def refused(root, *parts):
    """The sentence that fetching ends with, which has all `parts`."""
    with pytest.raises(InputError) as caught:
        fetched(root)
    sentence = str(caught.value)
    assert all(part in sentence for part in parts), sentence
    return sentence


def tree(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def digest(content):
    return hashlib.sha256(content).hexdigest()


# The table


@pytest.mark.parametrize("archive", TABLE, ids=lambda archive: archive.name)
def test_an_archive_of_the_table_makes_sense(archive):
    assert re.fullmatch(r"https://[a-z0-9.-]+/[\w~./-]+", archive.url)
    assert re.fullmatch(r"\w[\w.-]*\.(zip|tgz|tar|tar\.gz|mat)", archive.name)
    assert archive.sha256 is None or re.fullmatch("[0-9a-f]{64}", archive.sha256)
    assert 0 < (archive.size or 1) <= archive.most_bytes
    assert (archive.size or 1) <= archive.most_unpacked and archive.most_members > 0


def test_the_table_has_each_archive_once():
    for values in ([a.name.casefold() for a in TABLE], [a.url for a in TABLE], [a.sha256 for a in TABLE if a.sha256]):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", xlsa.NAMES)
def test_a_dataset_has_what_its_reader_needs(name, tmp_path):
    parts = DATASETS[name]
    assert parts[0].gives == ("res101.mat", "att_splits.mat") and not parts[0].pictures
    assert any(part.pictures for part in parts) == (name != "AWA1")
    for part in parts:
        assert part.gives and part.files >= 1
        for given in part.gives:
            assert not pathlib.PurePosixPath(given).is_absolute() and ".." not in given
        for pattern, target in part.take:
            assert re.compile(pattern).groups or "\\" not in target
    with pytest.raises(InputError) as caught:
        xlsa.read(name, tmp_path, "features")
    assert parts[0].archive.url in str(caught.value)  # the reader names the same place


def test_the_table_has_no_other_dataset():
    assert set(DATASETS) == set(xlsa.NAMES)


# How the pictures are called where they are published, and how res101.mat calls them. Where APY's stand was not seen.
PUBLISHED = {
    "CUB": (
        "/BS/Deep_Fragments/work/MSc/CUB_200_2011/CUB_200_2011/images/{0:03d}.Bird/Bird_{1}.jpg",
        {"CUB_200_2011.tgz": "CUB_200_2011/images/{0:03d}.Bird/Bird_{1}.jpg"},
    ),
    "SUN": (
        "/BS/Deep_Fragments/work/MSc/data/SUN/images/a/abbey{0}/inside/sun_{1}.jpg",
        {"SUNAttributeDB_Images.tar.gz": "images/a/abbey{0}/inside/sun_{1}.jpg"},
    ),
    "AWA1": (None, {}),
    "AWA2": (
        "/BS/xian/work/data/Animals_with_Attributes2//JPEGImages/ox{0}/ox{0}_{1}.jpg",
        {"AwA2-data.zip": "Animals_with_Attributes2/JPEGImages/ox{0}/ox{0}_{1}.jpg"},
    ),
    "APY": (
        "/BS/somewhere/{2}",
        {
            "VOCtrainval_14-Jul-2008.tar": "VOCdevkit/VOC2008/JPEGImages/2008_{1:06d}.jpg",
            "ayahoo_test_images.tar.gz": "ayahoo_test_images/bag_{1}.jpg",
        },
    ),
    "FLO": ("/BS/xian/work/data/FLO/jpg/image_{1:05d}.jpg", {"102flowers.tgz": "jpg/image_{1:05d}.jpg"}),
}


@pytest.mark.parametrize("name", xlsa.NAMES)
def test_what_is_published_comes_to_where_the_reader_looks(name, server, monkeypatch, tmp_path):
    recorded, published = PUBLISHED[name]
    write_tiny(tmp_path / "source", classes=6, unseen=2, rows=5)
    res101 = scipy.io.loadmat(tmp_path / "source" / "res101.mat")
    rows, members = [], {archive: [] for archive in published}
    for row, label in enumerate(res101["labels"][:, 0]):
        archive = sorted(published)[row % len(published)] if published else None
        member = published[archive].format(label, row) if published else "none"
        rows.append((recorded or "").format(label, row, member.rpartition("/")[2]))
        members.setdefault(archive, []).append((member, f"picture {row}".encode()))
    res101["image_files"] = np.array(rows, object)[:, None]
    pooled = io.BytesIO()
    scipy.io.savemat(pooled, {key: value for key, value in res101.items() if not key.startswith("_")})
    splits = (tmp_path / "source" / "att_splits.mat").read_bytes()
    for folder in ("xlsa17", "cvpr18xian"):
        server.content[f"{folder}.zip"] = zipped(
            [
                (f"{folder}/data/{name}/res101.mat", pooled.getvalue()),
                (f"{folder}/data/{name}/att_splits.mat", splits),
                (f"{folder}/data/OTHER{name}/res101.mat", b"not this one"),
                (f"{folder}/data/{name}/binaryAtt_splits.mat", b"nor this"),
                (f"__MACOSX/data/{name}/._res101.mat", b"nor this"),
            ]
        )
    server.content["AwA2-base.zip"] = zipped(
        [("Animals_with_Attributes2/predicates.txt", b"".join(b"%d\tp%d\n" % (i, i) for i in range(8)))]
    )
    for single in ("imagelabels.mat", "setid.mat"):
        server.content[single] = splits
    for archive, pictures in members.items():
        extra = [("./attributes.txt", b"".join(b"%d a::%d\n" % (i, i) for i in range(8))), ("other/x.txt", b"x")]
        pack = {"zip": zipped, "tar": lambda content: tarred(content, "w")}.get(str(archive).rpartition(".")[2], tarred)
        server.content[archive] = pack(pictures + extra)
    here = f"http://127.0.0.1:{server.server_port}/"
    parts = [
        dataclasses.replace(
            part,
            archive=dataclasses.replace(part.archive, url=here + part.archive.name, size=None, sha256=None),
            files=1,
            gives=tuple(re.sub("2008_000008|bag_5", lambda m: {"b": "bag_1"}.get(m[0][0], "2008_000000"), given)
                        for given in part.gives),
        )
        for part in DATASETS[name]
    ]  # fmt: skip
    monkeypatch.setitem(DATASETS, name, tuple(parts))
    root = tmp_path / "data"
    fetched(root, name.lower(), pictures=False)
    assert load(name, root, stage="final").train.size and not any(root.rglob("*.jpg"))
    fetched(root, name.lower())
    if name == "AWA1":
        return
    benchmark = load(name, root, stage="final", inputs="images")
    contents = [pathlib.Path(path).read_bytes() for path in benchmark.inputs]
    assert contents == [f"picture {row}".encode() for row in range(len(contents))]
    assert bool(benchmark.attribute_names) == (name in ("CUB", "AWA2"))


# Fetching


def test_fetching_leaves_the_archive_and_its_digest_and_is_not_repeated(server, offer, tmp_path, capsys):
    archive = offer(good())
    said = fetched(tmp_path)
    assert tree(tmp_path) == {"T/att_splits.mat", "downloads/t.zip", "downloads.json"}
    assert (tmp_path / "T" / "att_splits.mat").read_bytes() == SPLITS
    assert json.loads((tmp_path / "downloads.json").read_text()) == {
        "t.zip": {"url": archive.url, "size": len(good()), "sha256": digest(good())}
    }
    assert any("unverified" in line for line in said) and str(tmp_path / "downloads") in said[-1]
    assert "t.zip: downloading, MB: 1/1" in (shown := capsys.readouterr().err) and "MB/s" in shown
    assert fetched(tmp_path)[1:] == [f"t.zip: not needed, att_splits.mat in {tmp_path / 'T'} already"]
    (tmp_path / "T" / "att_splits.mat").unlink()
    fetched(tmp_path)  # out of the archive that stayed
    assert (tmp_path / "T" / "att_splits.mat").read_bytes() == SPLITS and len(server.asked) == 1


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', ""])
def test_a_cut_download_goes_on_where_it_was_cut(tag, server, offer, tmp_path):
    content = good()
    offer(content, sha256=digest(content), size=len(content))
    server.tag, server.answers = tag, [Answer(cut=0), Answer(cut=1), Answer(cut=150_000), Answer()]
    said = fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == content
    version = tag if tag == '"1"' else None  # a weak tag does not promise the same bytes
    asked = [(None, None), (None, None), ("bytes=1-", version), ("bytes=150001-", version)]
    assert [pair for _, *pair in server.asked] == [list(pair) for pair in asked]
    assert sum("trying again" in line for line in said) == 3 and "cut after 1 of 300," in said[3]


def test_without_a_digest_the_length_tells_a_cut(server, offer, tmp_path):
    offer(good())
    server.answers = [Answer(cut=100_000)]
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == good()


def test_where_the_server_says_no_length_the_table_tells_a_cut(server, offer, tmp_path):
    offer(good(), size=len(good()))
    server.answers = [Answer(cut=100_000, silent=True), Answer(silent=True)]
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == good() and len(server.asked) == 2


def test_a_server_that_ignores_range_is_heard_from_the_start(server, offer, tmp_path):
    offer(good())
    server.answers = [Answer(cut=100_000), Answer(whole=True, cut=50_000), Answer(whole=True)]
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == good()


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_file_that_changes_between_attempts_is_not_mixed(stubborn, server, offer, tmp_path, monkeypatch):
    old, new = good(b"o" * 300_000), good(np.random.default_rng(1).bytes(300_000))
    offer(old)
    server.answers = [Answer(cut=100), Answer(stubborn=stubborn)]

    def change(_):
        server.content["t.zip"], server.tag = new, '"2"'

    monkeypatch.setattr(download.time, "sleep", change)
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == new
    assert len(server.asked) == 2 + stubborn


@pytest.mark.parametrize("size", [250_000, 350_000])
def test_without_tags_another_length_tells_another_file(size, server, offer, tmp_path, monkeypatch):
    server.tag, new = "", good(np.random.default_rng(1).bytes(size))
    offer(good())
    server.answers = [Answer(cut=260_000)]
    monkeypatch.setattr(download.time, "sleep", lambda _: server.content.update({"t.zip": new}))
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == new


def test_a_stalled_server_is_asked_again(server, offer, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_STALL_SECONDS", 0.5)  # the others have the true one: a busy machine is no stall
    offer(good())
    server.answers = [Answer(cut=70_000, stall=50)]
    start = time.monotonic()
    said = fetched(tmp_path)
    assert time.monotonic() - start < 40 and any("timed out" in line for line in said)
    assert server.asked[1][1] == "bytes=70000-"


def test_attempts_end_with_how_to_go_on_and_the_next_run_does(server, offer, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(download, "_WAITS", (1, 5, 20))
    monkeypatch.setattr(download.time, "sleep", waited.append)
    offer(good())
    server.answers = [Answer(cut=100_000)] + 3 * [Answer(cut=0)]
    sentence = refused(tmp_path, "4 attempts in a row", "100,000 bytes are in", "run the same command again to go on")
    assert waited == [1, 5, 20] and "\n" not in sentence
    assert tree(tmp_path) == {"downloads/t.zip.part", "downloads/t.zip.part.json"}
    fetched(tmp_path)
    assert server.asked[-1][1] == "bytes=100000-"
    assert tree(tmp_path) == {"T/att_splits.mat", "downloads/t.zip", "downloads.json"}


def test_attempts_that_get_further_are_counted_anew_and_others_are_not(server, offer, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_WAITS", (0,))
    content = good(np.random.default_rng(0).bytes(4_500_000))
    offer(content)
    server.answers = 4 * [Answer(cut=1_050_000)]
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == content
    server.answers, server.asked[:] = 9 * [Answer(cut=2_000_000, whole=True)], []
    refused(tmp_path / "other", "2 attempts in a row")
    assert len(server.asked) == 2  # as far as before, not further


def test_a_length_too_large_ends_in_the_same_sentence(server, offer, tmp_path):
    offer(good())
    server.answers = 9 * [Answer(length=400_000)]
    refused(tmp_path, "nothing beyond the 300,", "4 attempts in a row", "run the same command again")
    assert len(server.asked) == 4 and not (tmp_path / "T").exists()


def test_a_length_that_is_not_the_published_one_is_refused_before_the_download(server, offer, tmp_path):
    content = good()
    archive = offer(content, size=len(content))
    server.answers = [Answer(length=1000)]
    refused(tmp_path, archive.url, "has 1,000 bytes", f"wanted {len(content):,}")
    assert tree(tmp_path) == set()


def test_a_length_too_small_does_not_pass_for_the_archive(server, offer, tmp_path):
    offer(good())
    server.answers = [Answer(length=1000)]
    refused(tmp_path, "damaged", "wanted a whole archive", "remove it to have it downloaded again")
    assert tree(tmp_path) == {"downloads/t.zip"}  # and no digest on record


@pytest.mark.parametrize("silent", [False, True])
def test_more_than_the_bound_is_not_taken(silent, server, offer, tmp_path):
    offer(good(), most_bytes=100_000)
    server.answers = [Answer(silent=silent)]
    refused(tmp_path, "wanted at most 100,000")
    taken = tmp_path / "downloads" / "t.zip.part"
    assert not taken.exists() or taken.stat().st_size < 100_000 + download._CHUNK


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_not_there_is_asked_for_once(status, server, offer, tmp_path):
    archive = offer(good())
    server.answers = [Answer(status=status)]
    refused(tmp_path, archive.url, f"the server says {status}", f"belongs in {tmp_path / 'downloads'} as t.zip")
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(server, offer, tmp_path):
    offer(good())
    server.answers = [Answer(status=503), Answer(status=429)]
    assert sum("the server says" in line for line in fetched(tmp_path)) == 2


def test_a_file_got_in_another_way_is_used(server, offer, tmp_path):
    offer(good(), sha256=digest(good()), size=len(good()))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "t.zip").write_bytes(good())
    fetched(tmp_path)
    assert (tmp_path / "T" / "att_splits.mat").is_file() and not server.asked


def test_without_a_network_there_is_one_sentence_and_no_waiting(offer, tmp_path, monkeypatch):
    def nobody(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    archive = dataclasses.replace(offer(good()), url="https://data.example.org/t.zip")
    monkeypatch.setitem(DATASETS, "T", (Part(archive, MATS, ("att_splits.mat",)),))
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr(download.time, "sleep", pytest.fail)
    refused(tmp_path, archive.url, "Name or service not known", f"or the file in {tmp_path / 'downloads'}")


def test_a_server_that_does_not_listen_is_tried_a_few_times(server, offer, tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        archive = dataclasses.replace(offer(good()), url=f"http://127.0.0.1:{unused.getsockname()[1]}/t.zip")
    monkeypatch.setitem(DATASETS, "T", (Part(archive, MATS, ("att_splits.mat",)),))
    refused(tmp_path, "refused", "4 attempts in a row")


@pytest.mark.parametrize("url", ["http://example.org/t.zip", "ftp://example.org/t.zip", "file:///etc/t.zip", "t.zip"])
def test_nothing_but_https_leaves_this_machine(url, server, offer, tmp_path, monkeypatch):
    archive = offer(good())
    monkeypatch.setattr(socket, "getaddrinfo", pytest.fail)
    monkeypatch.setitem(DATASETS, "T", (Part(dataclasses.replace(archive, url=url), MATS, ("att_splits.mat",)),))
    refused(tmp_path, f"got {url}", "wanted https")


@pytest.mark.parametrize("url", ["http://example.org/t.zip", "file:///etc/passwd", "ftp://example.org/t", "http://[/"])
def test_nor_does_a_redirect(url, server, offer, tmp_path):
    archive = offer(good())
    server.answers = [Answer(to=url)]
    sentence = refused(tmp_path, archive.url)
    assert "wanted https" in sentence or "the server says 302" in sentence
    assert len(server.asked) == 1 and tree(tmp_path) == set()


def test_a_redirect_does_not_leave_https_for_this_machine():
    with pytest.raises(InputError, match="http://127.0.0.1/x, where https://a.org/x leads; wanted https"):
        download._require_https("http://127.0.0.1/x", "https://a.org/x")
    download._require_https("https://b.org/x", "https://a.org/x")


def test_a_redirect_is_followed_with_what_was_asked(server, offer, tmp_path):
    offer(good())
    server.content["else.zip"] = good()
    server.answers = [Answer(cut=1000), Answer(to="/else.zip")]
    fetched(tmp_path)
    assert server.asked[-1] == ("else.zip", "bytes=1000-", '"1"')
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == good()


def test_another_digest_than_the_published_one_puts_the_file_aside(server, offer, tmp_path):
    wanted = good()
    offer(wanted, sha256=digest(wanted))
    server.content["t.zip"] = other = good(b"x" * 1000)
    sentence = refused(tmp_path, f"has sha256 {digest(other)}", f"wanted {digest(wanted)}, as published")
    aside = tmp_path / "downloads" / "t.zip.wrong"
    assert str(aside) in sentence and aside.read_bytes() == other and tree(tmp_path) == {"downloads/t.zip.wrong"}
    refused(tmp_path, "in place of an earlier one")
    server.content["t.zip"] = wanted
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == wanted and aside.exists()


def test_a_digest_from_first_use_holds_later_copies(server, offer, tmp_path):
    offer(good())
    fetched(tmp_path)
    for old in (tmp_path / "downloads" / "t.zip", tmp_path / "T" / "att_splits.mat"):
        old.unlink()
    server.content["t.zip"] = good(b"x" * 1000)
    refused(tmp_path, f"wanted {digest(good())}, as {tmp_path / 'downloads.json'} has it from first use")
    assert not (tmp_path / "T" / "att_splits.mat").exists()
    (tmp_path / "downloads.json").write_text('{"t.zip": {"sha256": 3}}')
    refused(tmp_path, "downloads.json", "{'sha256': 3}", '{"sha256": "..."}')


def test_a_whole_file_of_another_size_is_put_aside(server, offer, tmp_path):
    offer(good(), size=len(good()))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "t.zip").write_bytes(b"half")
    refused(tmp_path, "has 4 bytes", f"wanted {len(good()):,}", "put aside")
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip.wrong").read_bytes() == b"half"


def test_a_part_that_nobody_can_tell_the_origin_of_is_not_gone_on_with(server, offer, tmp_path):
    offer(good())
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "t.zip.part").write_bytes(b"of what?")
    (tmp_path / "downloads" / "t.zip.part.json").write_text("{")
    fetched(tmp_path)
    assert [asked for _, asked, _ in server.asked] == [None]


def test_a_full_disk_is_told_before_the_download(server, offer, tmp_path, monkeypatch):
    offer(good())
    usage = download.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    refused(tmp_path, "has room for 1,000 bytes", f"wanted {len(good()):,} more")


def test_a_folder_that_cannot_be_made_is_one_sentence(offer, tmp_path):
    offer(good())
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", str(tmp_path / "file"), "wanted a disk with room that can be written")


def test_two_processes_do_not_write_the_same_file(offer, tmp_path):
    offer(good())
    (tmp_path / "downloads").mkdir()
    with open(tmp_path / "downloads" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(tmp_path, str(tmp_path / "downloads"), "another process")
    fetched(tmp_path)


def test_an_unknown_dataset_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="got 'shapes'; wanted one of cub, sun, awa1"):
        download.fetch("shapes", tmp_path / "data")
    assert not (tmp_path / "data").exists()


# Killed

SCRIPT = """
import importlib.machinery, os, signal, sys, types
for name in ("zslkeras", "zslkeras.benchmarks", "experiments"):  # without their own imports, which take seconds
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [os.path.join({root!r}, *name.split("."))]
from experiments import archives, download
archive = archives.Archive({url!r}, 10**7, 10**7, 1000)
archives.DATASETS["T"] = (archives.Part(archive, {take!r}, ("images",), 3),)
{more}
download.fetch("t", {data!r})
"""
DIE = """
def dies(*_, calls=[], real=download.unpack.{function}, **__):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*_, **__)
download.unpack.{function} = dies
"""
PICTURES = [(f"a/images/{i}.jpg", np.random.default_rng(i).bytes(50_000)) for i in range(3)]


def start(url, data, more=""):
    script = SCRIPT.format(root=str(ROOT), url=url, take=MATS, data=str(data), more=more)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_killed_download_goes_on(server, offer, tmp_path):
    content = zipped(PICTURES)
    archive = offer(content, gives=("images",), files=3)
    server.answers = [Answer(cut=80_000, stall=60)]
    process, part = start(archive.url, tmp_path), tmp_path / "downloads" / "t.zip.part"
    give_up = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < give_up and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    held = part.stat().st_size
    fetched(tmp_path)
    assert 0 < held <= 80_000 and server.asked[-1][1] == f"bytes={held}-"
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == content


@pytest.mark.parametrize(("function", "call", "merged"), [("_copy", 2, False), ("os.rename", 2, True)])
def test_killed_while_unpacking_leaves_no_half_files_and_is_made_good(function, call, merged, server, offer, tmp_path):
    archive = offer(zipped(PICTURES), gives=("images",), files=3)
    if merged:  # so that pictures are moved one by one
        (tmp_path / "T" / "images").mkdir(parents=True)
        (tmp_path / "T" / ".unpacking-t.zip").mkdir()
    process = start(archive.url, tmp_path, DIE.format(function=function, call=call))
    assert process.wait(60) == -signal.SIGKILL
    whole = dict(PICTURES)
    there = list((tmp_path / "T").glob("images/*"))
    assert len(there) == merged
    assert all(path.read_bytes() == whole[f"a/images/{path.name}"] for path in there)
    fetched(tmp_path)
    assert len(server.asked) == 1
    assert tree(tmp_path / "T") == {f"images/{i}.jpg" for i in range(3)}
    assert [(tmp_path / "T" / "images" / f"{i}.jpg").read_bytes() for i in range(3)] == list(whole.values())


def test_what_was_moved_in_part_is_not_taken_for_all_of_it(server, offer, tmp_path):
    """Even where the attempt to make it good fails too."""
    offer(zipped(PICTURES), gives=("images/0.jpg",), files=3)
    (tmp_path / "T" / "images").mkdir(parents=True)
    (tmp_path / "T" / "images" / "0.jpg").write_bytes(PICTURES[0][1])
    (tmp_path / "T" / ".unpacking-t.zip").mkdir()
    server.content["t.zip"] = zipped(PICTURES[:2])
    refused(tmp_path, "gives 2 wanted files")
    (tmp_path / "downloads" / "t.zip").unlink()
    server.content["t.zip"] = zipped(PICTURES)
    fetched(tmp_path)
    assert tree(tmp_path / "T") == {f"images/{i}.jpg" for i in range(3)}


# Unpacking


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


@pytest.mark.parametrize(("size", "told"), [(100, "damaged"), (400_000, "has other than 400,000 bytes")])
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


def test_a_folder_that_differs_in_case_is_used_as_the_reader_does(offer, tmp_path):
    (tmp_path / "t").mkdir()
    offer(good())
    assert download.fetch("t", tmp_path, print) == tmp_path / "t"
    assert (tmp_path / "t" / "att_splits.mat").is_file() and not os.path.isdir(tmp_path / "T")


def test_nothing_of_an_archive_can_be_run_or_keeps_its_owner(offer, tmp_path):
    info = tarfile.TarInfo("T/att_splits.mat")
    info.mode, info.uid = 0o4777, 1234
    offer(tarred([(info, b"x")]))
    fetched(tmp_path)
    written = (tmp_path / "T" / "att_splits.mat").stat()
    assert not written.st_mode & 0o7111 and written.st_uid == os.getuid()
