"""Fetches the published archives of a benchmark and unpacks them to where its reader looks.

`<root>/downloads/NAME` is always whole and checked: an unfinished download is `NAME.part`, with its origin in
`NAME.part.json`, and a wrong file is renamed to `NAME.wrong`. `<root>/downloads.json` has the digest of each archive
that was used; later copies of an archive without a published digest are checked against it.
"""

import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

from zslkeras import atomic
from zslkeras.benchmarks import archives, unpack
from zslkeras.benchmarks.archives import DATASETS
from zslkeras.errors import InputError, brief
from zslkeras.progress import Progress
from zslkeras.version import __version__

_CHUNK = 1 << 20
_STALL_SECONDS = 60  # without a byte
_WAITS = (1, 5, 20, 60)  # seconds before each further attempt
_ADVANCE = 10**6  # bytes of progress after which the attempts are counted anew
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may soon be others
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def fetch(dataset, root, say=print, pictures=True):
    """Makes sure that the files of a published benchmark are there.

    Files that are there already are neither fetched nor overwritten. After a kill, the same call continues.

    Args:
        dataset: one of the field's six, any case.
        root: the data root.
        say: called with each sentence for the user.
        pictures: False leaves out the images, and fetches features, class embeddings and splits only.

    Returns:
        The folder of the dataset.
    """
    name, root = dataset.upper(), pathlib.Path(root)
    if name not in DATASETS:
        raise InputError(f"dataset: {dataset!r} cannot be downloaded; wanted one of {', '.join(DATASETS).lower()}")
    folder = archives.folder(root, name)
    parts = [part for part in DATASETS[name] if pictures or not part.pictures]
    if pictures and not any(part.pictures for part in parts):
        say(f"{name}: its images are not published; there are only features and splits")
    try:
        missing = []
        for part in parts:
            if _is_there(part, folder):
                say(f"{part.archive.name}: not needed, {' and '.join(part.gives)} in {folder} already")
            else:
                missing.append(part)
        if missing:
            (root / "downloads").mkdir(parents=True, exist_ok=True)
            with atomic.locked(root / "downloads"):
                for part in missing:
                    _provide(part, root, folder, say)
            say(f"{name}: the archives stay in {root / 'downloads'}, for other datasets and copies")
    except OSError as error:
        where = error.filename or root
        raise InputError(f"{where}: {error.strerror or error}; wanted a writable disk with enough room") from error
    return folder


def _is_there(part, folder):
    return not _marker(part, folder).exists() and all((folder / given).exists() for given in part.gives)


def _marker(part, folder):
    """The folder that an archive is unpacked in; while it exists, only some of the files may be in place."""
    return folder / f".unpacking-{part.archive.name}"


def _provide(part, root, folder, say):
    archive, marker = part.archive, _marker(part, folder)
    path, digest = _whole(archive, root, say)
    made, staged = [place for place in (marker, folder) if not place.exists()], marker / "members"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        with _Megabytes(f"{archive.name}: unpacking", path.stat().st_size) as bar:
            unpack.extract(path, part, staged, bar.reach)
            bar.reach(path.stat().st_size)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()
        raise
    kept = unpack.place(staged, folder)
    _record(root, archive, path, digest)
    shutil.rmtree(marker)
    say(f"{archive.name}: unpacked into {folder}")
    for other in kept[:3]:
        say(f"{other}: kept as it was; {archive.name} has another ({len(kept)} such files)")


def _whole(archive, root, say):
    """The path of the whole archive, and its digest."""
    path = root / "downloads" / archive.name
    part = path.with_name(f"{archive.name}.part")
    fresh = not path.exists()
    if fresh:
        note = "" if archive.sha256 else f", unverified: its digest goes into {root / 'downloads.json'}"
        say(f"{archive.name}: from {archive.url}{note}")
        _download(archive, part, say)
    digest = _checked(archive, root, part if fresh else path)
    if fresh:
        os.replace(part, path)
        _note(part).unlink(missing_ok=True)
    return path, digest


def _checked(archive, root, path):
    """The digest of a file, which is renamed if it is not the archive."""
    size = path.stat().st_size
    wanted, source = archive.sha256, "as published"
    if wanted is None:
        wanted, source = _recorded(root, archive), f"as {root / 'downloads.json'} recorded it at first use"
    digest = None
    if archive.size in (None, size):
        digest = _digest(path)
        if wanted in (None, digest):
            return digest
    aside = path.with_name(f"{archive.name}.wrong")
    got = f"has {size:,} bytes" if digest is None else f"has sha256 {digest}"
    should = f"{archive.size:,}" if digest is None else f"{wanted}, {source}"
    stays = f"it is renamed to {aside}" + (", in place of an earlier one" if aside.exists() else "")
    os.replace(path, aside)
    _note(path).unlink(missing_ok=True)
    raise InputError(f"{path}: {got}; wanted {should}; {stays}, and the next run downloads it again")


def _digest(path):
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file, _Megabytes(f"{path.name}: checking", path.stat().st_size) as bar:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            bar.reach(done)
    return digest.hexdigest()


def _recorded(root, archive):
    path = root / "downloads.json"
    entry = atomic.read_json(path).get(archive.name, {"sha256": None})
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str | None):
        raise InputError(f'{path}: has {entry!r} for {archive.name}; wanted {{"sha256": "..."}}')
    return entry.get("sha256")


def _record(root, archive, path, digest):
    entries = atomic.read_json(root / "downloads.json")
    entries[archive.name] = {"url": archive.url, "size": path.stat().st_size, "sha256": digest}
    atomic.write_json(root / "downloads.json", entries)


class _Cut(Exception):
    """An attempt that ended early; another one may succeed."""


def _download(archive, part, say):
    """Completes `part`, from the bytes that it has."""
    failures, farthest = 0, _size(part)
    while True:
        try:
            return _attempt(archive, part)
        except _Cut as cut:
            if isinstance(cut.__cause__, socket.gaierror) and not _size(part):
                raise InputError(f"{archive.url}: {cut}; wanted a network, or the file in {part.parent}") from cut
            failures = 0 if _size(part) >= farthest + _ADVANCE else failures
            farthest = max(farthest, _size(part))
            if failures == len(_WAITS):
                got = f"{cut}, {failures + 1} attempts in a row; {_size(part):,} bytes are in {part}"
                raise InputError(f"{archive.url}: {got}; run the same command again to continue") from cut
            say(f"{archive.name}: {cut}; trying again in {_WAITS[failures]} s")
            time.sleep(_WAITS[failures])
            failures += 1


def _attempt(archive, part):
    """One request for the bytes that `part` lacks."""
    known = _known(part)
    done = _size(part) if known["url"] == archive.url else 0
    if done and done == known["total"]:
        return
    _require_https(archive.url)
    request = urllib.request.Request(archive.url, headers={"User-Agent": f"zslkeras/{__version__}"})
    if done:
        request.add_header("Range", f"bytes={done}-")
        if known["version"]:
            request.add_header("If-Range", known["version"])
    with _response(archive, part, request) as response:
        total, version = _total(archive, response, done), _version(response.headers)
        _require_size(archive, total)
        if response.status != http.client.PARTIAL_CONTENT:  # the whole file, asked for or not
            done = 0
            _start_over(part)
            atomic.write_json(_note(part), {"url": archive.url, "version": version, "total": total})
        elif total is None or known["total"] not in (None, total) or version not in (None, known["version"]):
            _start_over(part)
            raise _Cut("the file on the server has changed since the download began")
        _require_room(part, (total or 0) - done)
        _receive(archive, part, response, done, total)


def _receive(archive, part, response, done, total):
    with open(part, "ab") as file, _Megabytes(f"{archive.name}: downloading", total, done) as bar:
        while total is None or done < total:
            try:
                chunk = response.read1(_CHUNK if total is None else min(_CHUNK, total - done))
            except (OSError, http.client.HTTPException) as error:
                raise _Cut(brief(error)) from error
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            bar.reach(done)
            if total is None:
                _require_size(archive, done, ended=False)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise _Cut(f"the connection was cut after {done:,} of {total:,} bytes")


def _response(archive, part, request):
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=_STALL_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            here = _size(part)
            _start_over(part)
            raise _Cut(f"the server has nothing after the {here:,} bytes that are here") from error
        if error.code in _PASSING:
            raise _Cut(f"the server says {error.code} {brief(error.reason)}") from error
        by_hand = f"wanted the file; if you have it from elsewhere, put it in {part.parent} as {archive.name}"
        raise InputError(f"{archive.url}: the server says {error.code} {brief(error.reason)}; {by_hand}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(f"{archive.url}: {brief(reason)}; wanted a valid certificate") from error
        raise _Cut(brief(reason)) from (reason if isinstance(reason, Exception) else error)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{archive.url}: leads to an invalid address ({brief(error)}); wanted https") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, response, code, message, headers, url):
        _require_https(url, request.full_url)
        return super().redirect_request(request, response, code, message, headers, url)


def _require_https(url, before=None):
    """Refuses connections that others can read or change; plain http only reaches this machine, for the tests."""
    scheme, host = urllib.parse.urlsplit(url).scheme, urllib.parse.urlsplit(url).hostname
    local = scheme == "http" and host in _LOOPBACK and not (before or "").startswith("https")
    if scheme != "https" and not local:
        raise InputError(f"{url}: no https" + (f", and {before} leads there" if before else "") + "; wanted https")


def _total(archive, response, done):
    """Bytes of the whole file; None if neither the server nor the table says."""
    if response.status != http.client.PARTIAL_CONTENT:
        return archive.size if response.length is None else response.length
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    return int(told[2]) if told and int(told[1]) == done else None


def _version(headers):
    """What identifies this version of the file: a strong ETag, else the time of its last change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _require_size(archive, size, ended=True):
    if size is not None and (size > archive.most_bytes or (ended and archive.size not in (None, size))):
        most = f"at most {archive.most_bytes:,}" if archive.size is None else f"{archive.size:,}"
        raise InputError(f"{archive.url}: has {size:,} bytes{'' if ended else ' and more'}; wanted {most}")


def _require_room(part, size):
    free = shutil.disk_usage(part.parent).free
    if size > free:
        raise InputError(f"{part.parent}: has room for {free:,} bytes; wanted {size:,} more")


def _start_over(part):
    """Removes the bytes, then the note on their origin, so that a kill in between leaves no bytes without a note."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _known(part):
    """The origin of the bytes of `part`; a note that cannot be read counts as none."""
    known = {"url": None, "version": None, "total": None}
    with contextlib.suppress(InputError):
        known |= atomic.read_json(_note(part))
    return known


def _note(part):
    return part.with_name(f"{part.name}.json")


def _size(path):
    return path.stat().st_size if path.exists() else 0


class _Megabytes(Progress):
    """A progress line in megabytes, with their rate."""

    def __init__(self, title, size, done=0):
        super().__init__(f"{title}, {'MB' if size else 'MB so far'}", _megabytes(size or 0), _megabytes(done))
        self.first = done

    def reach(self, position):
        rate = (position - self.first) / 1e6 / max(1e-3, time.monotonic() - self.began)
        self.total = max(self.total, _megabytes(position))
        self.advance(_megabytes(position) - self.done, f"{rate:.1f} MB/s")


def _megabytes(size):
    return -(-size // 10**6)
