"""Pictures of files, decoded once and kept: what a model that learns from pictures reads instead of the files."""

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf

from zslkeras import atomic, cache
from zslkeras.errors import InputError
from zslkeras.images import decode
from zslkeras.progress import Progress
from zslkeras.version import __version__

MARGIN = 1.15  # of the side kept over the side that the model sees: crops of it are not scaled up as much


def decoded(paths, image_size):
    """The pictures of files, as large as views of `image_size` pixels need them.

    They are kept in the user's cache under the names, sizes and times of the files. Of several processes that want the
    same ones, one decodes and the others wait for it.

    Args:
        paths: N of them.
        image_size: side of what the model sees.

    Returns:
        A memory map, uint8 RGB [N, side, side, 3] with a side of MARGIN times `image_size`; see `decode.picture`.
    """
    shape = len(paths), *2 * [round(MARGIN * image_size)], 3
    key = _key(paths, shape)
    try:
        path = cache.folder("pictures", key) / "pictures.npy"
        if not path.exists():
            with _locked(path.parent):
                if not path.exists():
                    _write(path, paths, shape)
    except (OSError, RuntimeError) as error:
        got = f"decoded pictures, {np.prod(shape) / 1e9:.2f} GB, cannot be kept ({error})"
        raise InputError(f"cache: {got}; wanted a folder that holds them, named by XDG_CACHE_HOME") from error
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:  # EOFError of a file without a byte, as a crash of the machine leaves it
        raise InputError(f"{path}: damaged ({error}); delete it, and it is made again") from error


def _key(paths, shape):
    """Names the result by all that it is made of."""
    made_by = __version__, tf.__version__, pathlib.Path(decode.__file__).read_bytes()
    hasher = hashlib.sha256(repr((made_by, shape)).encode())
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); wanted a picture") from error
        hasher.update(f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return hasher.hexdigest()[:16]


@contextlib.contextmanager
def _locked(folder):
    """Waits for other processes at work there; the lock of one that is killed goes with it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path, paths, shape):
    atomic.sweep(path)
    if shutil.disk_usage(path.parent).free < np.prod(shape):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
    with (
        atomic.replacing(path) as draft,
        open(draft, "wb") as file,
        contextlib.closing(decode.stream(paths, shape[1])) as pictures,
        Progress("decode pictures", len(paths)) as bar,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for picture in pictures:
            if isinstance(picture, InputError):
                raise picture
            file.write(picture)
            bar.advance()
