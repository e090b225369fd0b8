"""Takes the wanted members out of an archive of unknown origin, and puts them where they belong.

A member that is not wanted is never written, whatever its kind or name. A wanted one has to be a plain file whose name
stays inside. Both the announced and the actual sizes have to be within the bounds of the table.
"""

import filecmp
import functools
import gzip
import os
import re
import stat
import tarfile
import typing
import zipfile

from zslkeras.errors import InputError, brief

_CHUNK = 1 << 20
_MOST_DEFLATED = 100  # images hardly shrink, tables about tenfold, a bomb a thousandfold
_PADDING = 10**6  # a small tar is mostly padding, which no ratio fits
_AGAIN = "remove it to have it downloaded again"


class _Member(typing.NamedTuple):
    name: str
    kind: str  # "file", "folder", or words for anything else
    size: int
    position: int  # bytes of the archive before it
    open: typing.Callable


def extract(path, part, folder, report):
    """Writes what `part` takes of an archive under `folder`.

    Args:
        path: the archive: a zip, a tar, a gzipped tar, or a single .mat file.
        part: an `archives.Part`.
        folder: an empty folder.
        report: called now and then with the number of bytes read.
    """
    written = {}
    try:
        for member in _members(path, part.archive):
            report(member.position)
            target = _target(path, member, part.take)
            if target is not None:
                _write(path, member, folder, target, written)
    except InputError:
        raise
    except Exception as error:  # zipfile and tarfile raise anything from zlib.error to RecursionError on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk, not of the archive
        raise InputError(f"{path}: damaged ({brief(error)}); wanted a whole archive; {_AGAIN}") from error
    missing = [given for given in part.gives if not (folder / given).exists()]
    if missing or len(written) < part.files:
        got = f"gives {len(written)} wanted files" + (f", not {missing[0]}" if missing else "")
        raise InputError(f"{path}: {got}; wanted {part.files} or more; {_AGAIN}")


def place(staged, folder):
    """Moves the contents of `staged` into `folder`, and leaves files that are there already as they are.

    Returns:
        Those of them that have other contents.
    """
    kept = []
    for path in sorted(staged.iterdir()):
        target = folder / path.name
        if not os.path.lexists(target):
            os.rename(path, target)
        elif path.is_dir() and target.is_dir():
            kept += place(path, target)
        elif path.is_dir() or not target.is_file() or not filecmp.cmp(path, target, shallow=False):
            kept.append(target)
    return kept


def _members(path, archive):
    with open(path, "rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    if start.startswith(b"PK"):
        return _zip_members(path, archive)
    if start.startswith(b"\x1f\x8b") or start[257:262] == b"ustar":
        return _tar_members(path, archive, gzipped=start.startswith(b"\x1f\x8b"))
    if start.startswith(b"MATLAB"):
        size = path.stat().st_size
        return [_Member(archive.name, "file", size, size, functools.partial(open, path, "rb"))]
    raise InputError(f"{path}: begins with {start[:16]!r}; wanted a zip, a tar or a MATLAB file; {_AGAIN}")


def _zip_members(path, archive):
    with zipfile.ZipFile(path) as file:
        infos = file.infolist()
        _require_bounds(path, archive, len(infos), sum(info.file_size for info in infos))
        for info in infos:
            opener = functools.partial(file.open, info)
            yield _Member(info.filename, _zip_kind(info), info.file_size, info.header_offset, opener)


def _zip_kind(info):
    mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where no Unix wrote it
    if info.flag_bits & 1:
        return "encrypted"
    if info.is_dir():
        return "folder"
    return "file" if mode in (0, stat.S_IFREG) else "a link" if mode == stat.S_IFLNK else "a device"


def _tar_members(path, archive, gzipped):
    with open(path, "rb") as raw:
        stream = _Bounded(gzip.GzipFile(fileobj=raw) if gzipped else raw, path, archive)
        with tarfile.open(fileobj=stream, mode="r:") as file:
            count, size = 0, 0
            while (info := file.next()) is not None:
                count, size = count + 1, size + abs(info.size)
                _require_bounds(path, archive, count, size)
                opener = functools.partial(file.extractfile, info)
                yield _Member(info.name, _tar_kind(info), info.size, raw.tell(), opener)
        while stream.read(_CHUNK):  # to the end, which has gzip's checksum
            pass


def _tar_kind(info):
    if info.size < 0:
        return "of negative size"
    if info.isdir():
        return "folder"
    if info.isreg():
        return "sparse" if info.issparse() else "file"
    return "a link" if info.issym() or info.islnk() else "a device"


class _Bounded:
    """The part of a file that tarfile needs, over a stream whose length or headers may exceed the bounds."""

    def __init__(self, stream, path, archive):
        self.stream, self.path, self.archive = stream, path, archive
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size):
        if size > _CHUNK:  # data is read in smaller pieces, so this is a header that would fill the memory
            raise InputError(f"{self.path}: has a header of {size:,} bytes; wanted one of at most {_CHUNK:,}")
        data = self.stream.read(size)
        _require_bounds(self.path, self.archive, 0, self.tell())
        return data


def _require_bounds(path, archive, members, size):
    if members > archive.most_members:
        raise InputError(f"{path}: has {members:,} members or more; wanted at most {archive.most_members:,}")
    most = min(archive.most_unpacked, _MOST_DEFLATED * os.path.getsize(path) + _PADDING)
    if size > most:
        raise InputError(f"{path}: unpacks to {size:,} bytes or more; wanted at most {most:,}")


def _target(path, member, take):
    """Where a member goes, relative; None if it is not wanted."""
    name = member.name.removeprefix("./")
    parts = name.split("/")
    # macOS adds a file ._NAME to each.
    if member.kind == "folder" or any(part.startswith("._") for part in parts):
        return None
    wanted = ((re.fullmatch(pattern, name), target) for pattern, target in take)
    match, target = next((pair for pair in wanted if pair[0]), (None, None))
    if match is None:
        return None
    if ".." in parts or name.startswith("/") or re.match("[A-Za-z]:", name) or set(name) & set("\\\0"):
        raise InputError(f"{path}: has a member {member.name!r}; wanted names that stay inside")
    if member.kind != "file":
        raise InputError(f"{path}: {member.name!r} is {member.kind}; wanted a plain file")
    return match.expand(target)


def _write(path, member, folder, target, written):
    before = written.setdefault(target.casefold(), target)
    if before != target:
        raise InputError(f"{path}: {before!r} and {target!r} differ only in case; wanted names that differ on any disk")
    place = folder / target
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_file():
            with member.open() as source, open(place, "xb") as file:
                _copy(path, member, source, file)
        elif not _same(member, place):
            raise InputError(f"{path}: has {target!r} twice, with different contents; wanted it once")
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path}: {target!r} is or needs both a file and a folder; wanted one of them") from None


def _copy(path, member, source, file):
    copied = 0
    while chunk := source.read(_CHUNK):
        copied += len(chunk)
        if copied > member.size:
            break
        file.write(chunk)
    if copied != member.size:
        raise InputError(f"{path}: {member.name!r} does not have its announced {member.size:,} bytes; wanted them")


def _same(member, place):
    with member.open() as source, open(place, "rb") as file:
        while True:
            first, second = source.read(_CHUNK), file.read(_CHUNK)
            if first != second:
                return False
            if not first:
                return True
