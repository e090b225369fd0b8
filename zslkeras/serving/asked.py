"""What a classifier is given to recognise: images in any form, or rows of what its model takes."""

import collections.abc
import itertools
import os

import numpy as np
import tensorflow as tf
from PIL import Image

from zslkeras.errors import InputError
from zslkeras.images import decode
from zslkeras.serving import recognise

_ROWS_AT_ONCE = 256  # rows of features that are scored at a time


def read(images, inside):
    """What was given: ("pictures" or "rows", whether it is one, an iterable of parts).

    A part of pictures is a list of (what was given, its name for messages); a part of rows is what the model takes.
    """
    shape, eats = inside.row_shape, inside.eats
    if isinstance(images, str | os.PathLike | bytes | Image.Image):
        return "pictures", True, _pictures([images])
    if eats == "levels" and isinstance(images, tuple) and all(np.ndim(one) in (3, 4) for one in images):
        return _rows(images, shape)
    if isinstance(images, list | tuple | collections.abc.Iterator):
        images = iter(images)
        first = next(images, None)
        if first is None:
            raise InputError("images: got none; wanted at least one")
        images = itertools.chain([first], images)
        if _is_picture(first):
            return "pictures", False, _pictures(images)
        if eats == "levels" and isinstance(first, tuple):
            return _rows(tuple(np.stack(level) for level in zip(*images, strict=True)), shape)
        try:
            images = np.stack([np.asarray(one) for one in images])
        except ValueError:
            raise InputError("images: got rows of different shapes; wanted the same for all") from None
    array = np.asarray(images)
    if array.dtype.kind in "USO" and array.ndim == 1 and array.size:
        return "pictures", False, _pictures(array.tolist())
    if array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-1] == 3 and array.size:
        return "pictures", array.ndim == 3, _pictures([array] if array.ndim == 3 else array)
    if eats not in ("levels", "images") and array.dtype.kind in "fiu" and array.shape[-len(shape) :] == shape:
        return _rows(array, shape)
    wanted = f"paths, bytes, uint8 images [B, H, W, 3], or {eats} [B, {', '.join(map(str, shape))}]"
    if eats in ("levels", "images"):
        wanted = "paths, bytes, uint8 images [B, H, W, 3]" + (", or a tuple of levels" if eats == "levels" else "")
    raise InputError(f"images: got {array.dtype} of shape {array.shape}; wanted {wanted}")


def _is_picture(one):
    array = np.asarray(one) if isinstance(one, np.ndarray | tf.Tensor) else None
    whole = array is not None and array.dtype == np.uint8 and array.ndim == 3
    return isinstance(one, str | os.PathLike | bytes | Image.Image) or whole


def _pictures(images):
    numbered = ((one, f"images: number {place}") for place, one in enumerate(images))
    while part := list(itertools.islice(numbered, recognise.AT_ONCE)):
        yield [(_picture(one, where), _where(one, where)) for one, where in part]


def _picture(one, where):
    if isinstance(one, Image.Image):
        return np.asarray(one.convert("RGB"))
    if isinstance(one, str | os.PathLike | bytes):
        return one
    array = np.asarray(one)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise InputError(f"{where}: got {array.dtype} of shape {array.shape}; wanted uint8 [H, W, 3]")
    return array


def _where(one, where):
    return os.fspath(one) if isinstance(one, str | os.PathLike) else where


def contents(part):
    """The bytes of a part of pictures."""
    read = []
    for one, where in part:
        if isinstance(one, bytes):
            read.append(decode.plain(one, where))
        else:
            read.append(decode.png(one) if isinstance(one, np.ndarray) else decode.read(os.fspath(one)))
    return read


def _rows(given, shape):
    """`read` for rows: an array, or a tuple of levels."""
    levels = isinstance(given, tuple)
    arrays, shapes = ([np.asarray(one) for one in given], shape) if levels else ([given], [shape])
    if len(arrays) != len(shapes) or any(a.shape[-len(s) :] != tuple(s) for a, s in zip(arrays, shapes, strict=True)):
        got = ", ".join(str(array.shape) for array in arrays)
        raise InputError(f"images: got {got}; wanted rows of {', '.join(map(str, shapes))}")
    single = arrays[0].ndim == len(shapes[0])
    arrays = [(array[None] if single else array) for array in arrays]
    if any(array.ndim != len(s) + 1 or len(array) != len(arrays[0]) for array, s in zip(arrays, shapes, strict=True)):
        got = ", ".join(str(array.shape) for array in arrays)
        raise InputError(f"images: got {got}; wanted rows of {', '.join(map(str, shapes))}")
    if not len(arrays[0]):
        raise InputError("images: got none; wanted at least one")
    starts = range(0, len(arrays[0]), _ROWS_AT_ONCE)
    parts = (tuple(tf.constant(a[start : start + _ROWS_AT_ONCE], tf.float32) for a in arrays) for start in starts)
    return "rows", single, (part if levels else part[0] for part in parts)
