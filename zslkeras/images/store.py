"""Images decoded once and kept: models that learn from images read them instead of the files."""

import contextlib
import errno
import hashlib
import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf

from zslkeras import atomic, cache
from zslkeras.errors import InputError, brief
from zslkeras.images import decode
from zslkeras.progress import Progress
from zslkeras.version import __version__

MARGIN = 1.15  # of the side kept over the side that the model sees, so that crops are scaled up less


def decoded(paths, image_size):
    """The images of files, as large as views of `image_size` pixels need them.

    They are kept in the user's cache, identified by the names, sizes and times of the files. If several processes want
    the same images, one decodes them and the others wait for it.

    Args:
        paths: N of them.
        image_size: side of the model's input.

    Returns:
        A memory map, uint8 RGB [N, side, side, 3] with a side of MARGIN times `image_size`; see `decode.picture`.
    """
    shape = len(paths), *2 * [round(MARGIN * image_size)], 3
    key = _key(paths, shape)
    try:
        path = cache.folder("pictures", key) / "pictures.npy"
        if not path.exists():
            with atomic.locked(path.parent, wait=True):
                if not path.exists():
                    _write(path, paths, shape)
    except (OSError, RuntimeError) as error:
        got = f"decoded images, {np.prod(shape) / 1e9:.2f} GB, cannot be kept ({brief(error)})"
        raise InputError(f"cache: {got}; wanted a folder with room for them, set by $XDG_CACHE_HOME") from error
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:  # EOFError if the file is empty, as a crash of the machine can leave it
        raise InputError(f"{path}: damaged ({brief(error)}); delete it, and it is made again") from error


def _key(paths, shape):
    """A name for the result, which changes with everything that it is made of."""
    made_by = __version__, tf.__version__, pathlib.Path(decode.__file__).read_bytes()
    hasher = hashlib.sha256(repr((made_by, shape)).encode())
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); wanted an image") from error
        hasher.update(f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return hasher.hexdigest()[:16]


def _write(path, paths, shape):
    atomic.sweep(path)
    if shutil.disk_usage(path.parent).free < np.prod(shape):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
    with (
        atomic.replacing(path) as draft,
        open(draft, "wb") as file,
        contextlib.closing(decode.stream(paths, shape[1])) as pictures,
        Progress("decode images", len(paths)) as bar,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for picture in pictures:
            if isinstance(picture, InputError):
                raise picture
            file.write(picture)
            bar.advance()
