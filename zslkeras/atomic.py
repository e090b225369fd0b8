"""Writes files whole or not at all: under another name first, then renamed. JSON is read and written here."""

import contextlib
import ctypes
import fcntl
import json
import math
import os
import pathlib
import stat
import uuid

from zslkeras import structure
from zslkeras.errors import InputError, brief


@contextlib.contextmanager
def replacing(path):
    """Yields a draft to write to, which replaces `path` at the end, or is removed if anything fails.

    Each draft has its own name, so two processes may write the same file, and the last one wins. A killed process
    leaves its draft behind; `sweep` removes those.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def sweep(path):
    """Removes drafts of `path` that killed processes left."""
    for draft in path.parent.glob(f".{path.name}.*"):
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder, wait=False):
    """Keeps other processes out of a folder, or waits for them; a killed process releases its lock."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(f"{folder}: {_holder(handle)} works there; wanted one at a time") from None
        yield
    finally:
        os.close(handle)


def _holder(handle):
    """The process that has a lock, where the system says."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        number = os.fstat(handle).st_ino
        for line in pathlib.Path("/proc/locks").read_text().splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE process device:inode ...
            if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == number and int(words[4]) > 0:
                return f"process {words[4]}"
    return "another process"


def exchange(one, other):
    """Swaps the names of two files or folders in one step; False where this system cannot."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None)  # of Linux
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return swap is not None and swap(here, os.fsencode(one), here, os.fsencode(other), both) == 0


def write_text(path, text):
    """Writes a file of text, whole or not at all."""
    sweep(path)
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path, content):
    write_text(path, json.dumps(_finite(content), indent=2) + "\n")


def write_lines(path, content):
    """Writes a JSON object with a line for each of its values, or for each item of a list: for long rows of numbers."""
    entries = []
    for key, value in _finite(content).items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n    " + ",\n    ".join(json.dumps(item) for item in value) + "\n  ]"
        entries.append(f"  {json.dumps(key)}: {text}")
    write_text(path, "{\n" + ",\n".join(entries) + "\n}\n")


def read_json(path, kind=dict):
    """The object in a JSON file; empty where there is no file.

    Args:
        path: of the file.
        kind: what the object has to be; see `structure.require`.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({brief(error)}); wanted JSON") from error
    if not isinstance(read, dict):
        raise InputError(f"{path}: holds a {type(read).__name__}; wanted a JSON object")
    return structure.require(read, kind, path)


def require_regular(path):
    """Refuses what is there and no file: opening a pipe would wait for ever."""
    with contextlib.suppress(OSError):  # whoever opens it says what is wrong
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path}: is a folder, a pipe or a device; wanted a file")


def _finite(value):
    """JSON has no NaN: a metric without rows becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
