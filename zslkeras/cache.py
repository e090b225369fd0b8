"""The cache of things that can be made again: $XDG_CACHE_HOME/zslkeras, or ~/.cache/zslkeras."""

import hashlib
import os
import pathlib


def folder(*names):
    """Makes a folder in the cache; raises OSError or RuntimeError if there is no home or it cannot be written."""
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    path = root.joinpath("zslkeras", *names)
    path.mkdir(parents=True, exist_ok=True)
    return path


def of_this_code(kind, *names):
    """A folder for what this very code makes: a changed line makes another one. None where there is no cache."""
    try:
        return folder(f"{kind}-{_CODE}", *names)
    except (OSError, RuntimeError):
        return None


def _digest_of_code():
    hasher = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:12]


_CODE = _digest_of_code()  # as it is imported: files may be replaced while a long training runs
