"""Shared by the tests of archives: a server on this machine that can misbehave, and archives to serve."""

import contextlib
import hashlib
import http.server
import io
import re
import tarfile
import threading
import typing
import zipfile

import numpy as np
import pytest

from zslkeras.benchmarks import download
from zslkeras.benchmarks.archives import DATASETS, Archive, Part
from zslkeras.errors import InputError

MATS = ((r"(?:.*/)?T/(\w+\.mat)", r"\1"), (r"(?:.*/)?images/(.+\.jpg)", r"images/\1"))
PICTURES = [(f"a/images/{i}.jpg", np.random.default_rng(i).bytes(50_000)) for i in range(3)]
SPLITS = np.random.default_rng(0).bytes(300_000)


class Answer(typing.NamedTuple):
    """How one request is answered; the default is a good server's answer."""

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
def server(quick):
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


@pytest.fixture
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
    """A zip of [(name or ZipInfo, bytes)]; the same bytes each time, as a ZipInfo has a fixed time."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            archive.writestr(info, content, compression)
    return file.getvalue()


def tarred(members, mode="w:gz"):
    """A tar of [(name or TarInfo, bytes or other fields of the TarInfo)]."""
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
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def digest(content):
    return hashlib.sha256(content).hexdigest()
