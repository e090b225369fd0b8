"""Bytes of an image to pixels, by one function for every use.

`picture` needs only TensorFlow, so that extraction, training and an exported model share it. It takes JPEG and PNG;
`read` makes a PNG of every other format. An image is turned as its EXIF data says; grey, palette and CMYK become RGB;
transparency is dropped, which shows the colours under it; of 16 bits the upper 8 stay. Then the shorter side is resized
to `size`, bilinear with antialiasing, and the middle is cut out: torchvision's Resize(size) and CenterCrop(size).
"""

import contextlib
import functools
import io
import os

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from zslkeras import ahead, atomic, graphs
from zslkeras.errors import InputError, brief

MAX_PIXELS = 50_000_000  # per image; checked before decoding
MAX_SCANS = 100  # of a progressive JPEG, each of which is decoded whole; encoders write about ten
MAX_WORK = 20 * MAX_PIXELS  # pixels times scans: seconds
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SCAN = b"\xff\xda"  # starts a scan of a JPEG; in what is between, a zero follows each \xff
_EXIF_IN_JPEG, _EXIF_IN_PNG = b"Exif\0\0", b"eXIf"
_HEAD = 2**16  # bytes that hold the EXIF data, as cameras write them first
_ORIENTATION = 0x0112  # the tag
_AHEAD = 64  # images decoded before they are needed
_THREADS = 8  # at most, as each may hold an image of MAX_PIXELS


def check_header(path):
    """The pixels of an image file, without decoding it; refuses one that is too large, and other files."""
    atomic.require_regular(path)
    try:
        with _open(path) as image:
            pixels = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # its limits are above ours
        raise InputError(f"{path}: {brief(error)}; wanted at most {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow raises anything from SyntaxError to struct.error on a damaged file
        wanted = f"an image, one of {', '.join(_FORMATS)}"
        raise InputError(f"{path}: cannot be read ({brief(error)}); wanted {wanted}") from error
    _require_bounded(path, pixels, 1)
    return pixels


def read(path):
    """The bytes of an image file as `picture` takes them: JPEG and PNG as they are, other formats as a PNG."""
    pixels = check_header(path)
    try:
        with open(path, "rb") as file:
            contents = file.read()
    except OSError as error:
        raise _damaged(path, error) from error
    return _plain(contents, path, pixels, _scans(contents))


def plain(contents, where):
    """The bytes of an image as `picture` takes them; see `read`.

    Args:
        contents: the bytes of a file.
        where: what they are, for the message.
    """
    try:
        size = size_of(contents)
    except Exception as error:  # as in `check_header`
        raise _damaged(where, error) from error
    return _plain(contents, where, *size)


def size_of(contents):
    """(pixels, scans) of the bytes of an image, without decoding it; their product says how long that would take.

    Raises anything where they are of none, as Pillow does.
    """
    with _open(io.BytesIO(contents)) as image:
        pixels = image.width * image.height
    return pixels, _scans(contents)


def png(picture):
    """The bytes of a PNG of uint8 [H, W, 3]."""
    contents = io.BytesIO()
    Image.fromarray(picture).save(contents, "PNG", compress_level=1)
    return contents.getvalue()


def shrunk(path, side):
    """The bytes of an image file as `read` gives them; as a JPEG of at most `side` pixels a side if it is larger."""
    contents = read(path)
    try:
        with _open(io.BytesIO(contents)) as image:
            if max(image.size) <= side:
                return contents
            smaller = ImageOps.exif_transpose(image).convert("RGB")
            smaller.thumbnail((side, side))
            made = io.BytesIO()
            smaller.save(made, "JPEG", quality=95)
            return made.getvalue()
    except Exception as error:  # as in `check_header`
        raise _damaged(path, error) from error


def load(paths, size, crop=True):
    """The images of files, uint8 [N, size, size, 3]; see `picture`."""
    loaded = np.empty((len(paths), size, size, 3), np.uint8)
    with contextlib.closing(stream(paths, size, crop)) as pictures:
        for row, one in enumerate(pictures):
            if isinstance(one, InputError):
                raise one
            loaded[row] = one
    return loaded


def stream(paths, size, crop=True):
    """The image of each file in order, or an InputError that says why it has none; a generator that decodes ahead."""
    attempt = functools.partial(_attempt, size=size, crop=crop)
    return ahead.each(attempt, paths, min(_THREADS, os.cpu_count()), _AHEAD)


def picture(contents, size, crop=True):
    """A square image from the bytes of a JPEG or PNG.

    Args:
        contents: string scalar.
        size: side of the result.
        crop: True resizes the shorter side to `size` and cuts out the middle; False squeezes the whole image.

    Returns:
        uint8 RGB [size, size, 3].
    """
    is_jpeg = tf.io.is_jpeg(contents)
    with tf.control_dependencies([_check(contents, is_jpeg)]):
        contents = tf.identity(contents)
    # Defaults of these two JPEG options differ between builds; the values are Pillow's.
    pixels = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True),
        lambda: tf.io.decode_png(contents, channels=3),
    )
    orientation = _orientation(contents, is_jpeg)
    flip_rows, flip_columns = (_is_one_of(orientation, some) for some in ((3, 4, 6, 7), (2, 3, 7, 8)))
    height, width = tf.unstack(tf.cast(tf.shape(pixels)[:2], tf.int64))
    shorter = tf.minimum(height, width)
    # Rows and columns are those of the file until the image is small; only then is it turned.
    top, bottom, scale_y, shift_y = _axis(height, shorter if crop else height, size, flip_rows)
    left, right, scale_x, shift_x = _axis(width, shorter if crop else width, size, flip_columns)
    small = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None, top:bottom, left:right],
        size=[size, size],
        scale=tf.stack([scale_y, scale_x]),
        translation=tf.stack([shift_y, shift_x]),
        kernel_type="triangle",
        antialias=True,
    )[0]
    small = tf.cond(flip_rows, lambda: small[::-1], lambda: small)
    small = tf.cond(flip_columns, lambda: small[:, ::-1], lambda: small)
    small = tf.cond(orientation > 4, lambda: tf.transpose(small, [1, 0, 2]), lambda: small)
    return tf.ensure_shape(tf.saturate_cast(tf.round(small), tf.uint8), [size, size, 3])


def pictures(contents, size, crop=True):
    """`picture` for a batch: strings [B] to uint8 [B, size, size, 3]."""
    spec = tf.TensorSpec([size, size, 3], tf.uint8)
    return tf.map_fn(_compiled(size, crop), contents, fn_output_signature=spec)


def _check(contents, is_jpeg):
    """Asserts that the header promises a JPEG or a PNG of bounded size, and a JPEG has few scans."""
    is_png = tf.strings.substr(contents, 0, len(_PNG)) == _PNG
    known = tf.debugging.Assert(is_jpeg | is_png, ["wanted the bytes of a JPEG or a PNG"])
    with tf.control_dependencies([known]):
        sides = tf.cond(
            is_jpeg,
            lambda: tf.cast(tf.image.extract_jpeg_shape(contents)[:2], tf.int64),
            # A PNG has its width in bytes 16 to 19 and its height in 20 to 23.
            lambda: _numbers(tf.io.decode_raw(tf.strings.substr(contents, 0, 24), tf.uint8), [16, 20], 4, False),
        )
        scans = tf.cond(is_jpeg, lambda: _count(contents, _SCAN), lambda: tf.constant(1, tf.int64))
    pixels = tf.reduce_prod(sides)
    few = tf.debugging.Assert(pixels <= MAX_PIXELS, [f"wanted at most {MAX_PIXELS} pixels, got", pixels])
    with tf.control_dependencies([few]):
        most = tf.minimum(tf.constant(MAX_SCANS, tf.int64), MAX_WORK // tf.maximum(pixels, 1))
        return tf.debugging.Assert(scans <= most, ["wanted a JPEG of at most", most, "scans, got", scans])


def _count(contents, marker):
    """How often two bytes stand in a string."""
    raw = tf.io.decode_raw(contents, tf.uint8)
    return tf.math.count_nonzero((raw[:-1] == marker[0]) & (raw[1:] == marker[1]))


def _orientation(contents, is_jpeg):
    """1 to 8 as EXIF data count them; 1 if there are none."""
    head = tf.io.decode_raw(tf.strings.substr(contents, 0, _HEAD), tf.uint8)
    start = tf.cond(is_jpeg, lambda: _after(head, _EXIF_IN_JPEG), lambda: _after(head, _EXIF_IN_PNG))

    def read_tag():
        # A byte order, the place of a directory, its length, and entries of 12 bytes: tag, type, count, value.
        little = head[tf.minimum(start, tf.size(head) - 1)] == ord("I")
        directory = tf.cast(start, tf.int64) + _numbers(head, start + 4, 4, little)
        entries = directory + 2 + 12 * tf.range(_numbers(head, directory, 2, little))
        values = tf.boolean_mask(
            _numbers(head, entries + 8, 2, little), _numbers(head, entries, 2, little) == _ORIENTATION
        )
        value = tf.concat([values, [1]], axis=0)[0]
        return tf.where((value >= 1) & (value <= 8), value, 1)

    return tf.cond(start < tf.size(head), read_tag, lambda: tf.constant(1, tf.int64))


def _after(head, marker):
    """The position after `marker` in the bytes `head`; their number if it is not there."""
    places = tf.maximum(tf.size(head) - len(marker) + 1, 0)
    here = tf.reduce_all([head[i : places + i] == byte for i, byte in enumerate(marker)], axis=0)
    return tf.concat([tf.cast(tf.where(here)[:, 0], tf.int32) + len(marker), [tf.size(head)]], axis=0)[0]


def _numbers(head, places, length, little):
    """The unsigned numbers of `length` bytes at `places`; places past the end read the last bytes."""
    places = tf.clip_by_value(tf.cast(places, tf.int64), 0, tf.size(head, tf.int64) - length)
    digits = tf.cast(tf.gather(head, places[..., None] + tf.range(length, dtype=tf.int64)), tf.int64)
    digits = tf.where(little, tf.reverse(digits, [-1]), digits)
    return tf.reduce_sum(digits * [256**power for power in reversed(range(length))], axis=-1)


def _is_one_of(value, some):
    return tf.reduce_any(value == tf.constant(some, value.dtype))


def _axis(length, shorter, size, flipped):
    """The part of an axis that is used (from, to), and the scale and the shift that turn it into `size` pixels."""
    scaled = size * length // shorter
    scale = tf.cast(scaled, tf.float64) / tf.cast(length, tf.float64)
    spare = tf.cast(scaled - size, tf.float64)
    before = tf.round(spare / 2)  # halves to even, as torchvision does
    before = tf.where(flipped, spare - before, before)
    # The kernel's reach and one pixel more, so that a strip of a million pixels is not scaled up whole.
    reach = tf.maximum(1 / scale, 1) + 1
    start = tf.maximum(tf.cast(tf.floor(before / scale - reach), tf.int64), 0)
    end = tf.minimum(tf.cast(tf.math.ceil((before + size) / scale + reach), tf.int64), length)
    shift = tf.cast(start, tf.float64) * scale - before
    return start, end, tf.cast(scale, tf.float32), tf.cast(shift, tf.float32)


@functools.cache
def _compiled(size, crop):
    """`picture` as a function that is traced once, which takes a second, for all that use it."""
    spec = tf.TensorSpec([], tf.string)
    return graphs.function(lambda contents: picture(contents, size, crop), input_signature=[spec])


def _attempt(path, size, crop):
    try:
        contents = read(path)
        return _compiled(size, crop)(contents).numpy()
    except InputError as error:
        return error
    except tf.errors.InvalidArgumentError as error:
        return _damaged(path, error.message)


def _plain(contents, where, pixels, scans):
    _require_bounded(where, pixels, scans)
    try:
        return contents if contents.startswith((_JPEG, _PNG)) else _as_png(contents)
    except Exception as error:  # as in `check_header`
        raise _damaged(where, error) from error


def _require_bounded(where, pixels, scans):
    if pixels > MAX_PIXELS:
        raise InputError(f"{where}: {pixels:,} pixels; wanted at most {MAX_PIXELS:,} pixels")
    if scans > (most := min(MAX_SCANS, MAX_WORK // max(pixels, 1))):
        raise InputError(f"{where}: a JPEG of {scans:,} scans of {pixels:,} pixels; wanted at most {most} scans")


def _scans(contents):
    return contents.count(_SCAN) if contents.startswith(_JPEG) else 1


def _as_png(contents):
    with _open(io.BytesIO(contents)) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow would clip at 255
        elif image.mode == "P":
            image = image.convert("RGBA")  # Pillow warns if a palette's transparency is dropped directly
        plain = io.BytesIO()
        image.convert("RGB").save(plain, "PNG", compress_level=1)
    return plain.getvalue()


def _open(file):
    # A suffix proves nothing, so the formats are listed: other decoders run programs (EPS) or are rarely tested.
    return Image.open(file, formats=_FORMATS)


def _damaged(path, error):
    return InputError(f"{path}: does not decode ({brief(error)}); wanted a complete image")
