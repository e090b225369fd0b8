"""Decoding: every kind of file becomes what Pillow and torchvision make of it, wherever it is decoded."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from zslkeras.errors import InputError
from zslkeras.images import backbones, decode

SIZE = 32


def drawn(height, width, seed=0):
    """An image with large and small structure."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), int)
    return Image.fromarray(np.clip(smooth + generator.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8))


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def field_way(image, size):
    """torchvision's Resize(size) and CenterCrop(size) on a Pillow image, by their published formulas."""
    width, height = image.size
    if width < height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    image = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@functools.cache
def served(size, crop):
    """The graph of an exported model."""
    spec = tf.TensorSpec([None], tf.string)
    return tf.function(lambda contents: decode.pictures(contents, size, crop), input_signature=[spec])


def decoded(contents, size=SIZE, crop=True):
    return served(size, crop)(tf.constant([contents]))[0].numpy()


def assert_alike(got, wanted):
    """Equal except for rounding in the resize, which Pillow does twice."""
    assert (got.shape, got.dtype) == (wanted.shape, np.uint8)
    np.testing.assert_allclose(got, wanted.astype(int), atol=1)


# Sizes.


@pytest.mark.parametrize(
    "sides",
    [(32, 32), (33, 32), (32, 35), (40, 57), (101, 64), (17, 23), (480, 333), (1, 1), (1, 40), (40, 1), (2, 3)],
    ids=str,
)
def test_resized_and_cropped_as_the_field_does(sides):
    image = drawn(*sides)
    assert_alike(decoded(encoded(image, "PNG")), field_way(image, SIZE))


def test_a_picture_of_the_right_size_stays_as_it_is():
    image = drawn(SIZE, SIZE)
    np.testing.assert_array_equal(decoded(encoded(image, "PNG")), np.asarray(image))


def test_squeezed_whole():
    image = drawn(41, 90)
    wanted = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    assert_alike(decoded(encoded(image, "PNG"), crop=False), wanted)


def test_a_strip_is_not_scaled_up_whole():
    """The whole of it at the height of the result would take 38 GB."""
    strip = np.zeros((1, 1_000_000, 3), np.uint8)
    strip[0, 500_000:] = 255
    got = decoded(encoded(Image.fromarray(strip), "PNG"), 100)
    # The result shows the step from the last black pixel to the first white one.
    np.testing.assert_allclose(got, np.broadcast_to(255 * (np.arange(100)[:, None] + 0.5) / 100, got.shape), atol=1)


def header_of(side):
    """A PNG whose header claims a size that its data do not have."""
    content = bytearray(encoded(drawn(4, 4), "PNG"))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path):
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 50000000 pixels"):
        decoded(header_of(7072))
    jpeg = bytearray(encoded(drawn(8, 8), "JPEG"))
    start = jpeg.index(b"\xff\xc0")  # the frame header: length, precision, height, width
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 50000000 pixels"):
        decoded(bytes(jpeg))
    for content in (header_of(7072), bytes(jpeg)):
        (tmp_path / "huge").write_bytes(content)
        with pytest.raises(InputError, match="huge.*at most 50,000,000 pixels"):
            decode.read(tmp_path / "huge")


# Formats and modes.


def test_a_jpeg_has_the_pixels_that_pillow_gives_it():
    content = encoded(drawn(SIZE, SIZE), "JPEG", quality=70)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(decoded(content), np.asarray(image))


def files_of_all_kinds():
    image = drawn(45, 60)
    alpha = image.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (45, 1))))
    palette = image.quantize(40)
    return {
        "rgb.jpg": encoded(image, "JPEG"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "grey.jpg": encoded(image.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "rgba.png": encoded(alpha, "PNG"),
        "grey alpha.png": encoded(image.convert("LA"), "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "palette with transparency.png": encoded(palette, "PNG", transparency=3),
        "one bit.png": encoded(image.convert("1"), "PNG"),
        "palette.gif": encoded(palette, "GIF"),
        "two frames.gif": encoded(palette, "GIF", save_all=True, append_images=[drawn(45, 60, 1).quantize(40)]),
        "rgb.bmp": encoded(image, "BMP"),
        "palette.bmp": encoded(palette, "BMP"),
        "grey.tif": encoded(image.convert("L"), "TIFF"),
        "cmyk.tif": encoded(image.convert("CMYK"), "TIFF"),
        "lossless.webp": encoded(alpha, "WEBP", lossless=True, exact=True),
    }


@pytest.mark.parametrize("name", files_of_all_kinds())
def test_every_kind_of_file_becomes_rgb(tmp_path, name):
    content = files_of_all_kinds()[name]
    (tmp_path / name).write_bytes(content)
    with Image.open(io.BytesIO(content)) as image:
        if image.mode == "P":
            image = image.convert("RGBA")  # Pillow warns if transparency is dropped directly
        wanted = field_way(image, SIZE)
    (got,) = decode.load([tmp_path / name], SIZE)
    assert got.std() > 20
    # TensorFlow and Pillow round the products of CMYK differently.
    np.testing.assert_allclose(got, wanted.astype(int), atol=2 if "cmyk.jpg" in name else 1)


def test_sixteen_bits_keep_their_upper_half(tmp_path):
    for kind in ("png", "tiff"):
        Image.fromarray(np.full((4, 4), 0x80FF, np.uint16)).save(tmp_path / f"grey.{kind}")
        assert (decode.load([tmp_path / f"grey.{kind}"], 4) == 0x80).all()


def test_the_suffix_promises_nothing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(drawn(9, 9), "PNG"))
    assert_alike(decode.load([tmp_path / "a.jpg"], 9)[0], np.asarray(drawn(9, 9)))


# Orientation.


def turned(number, kind):
    """After scaling its width exceeds its height by an odd number, so that the crop depends on the orientation."""
    exif = Image.Exif()
    exif[0x010F] = "a maker"  # a tag before the one looked for
    exif[0x0112] = number
    return encoded(drawn(45, 64), kind, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("number", range(9))
def test_pictures_stand_as_their_exif_data_say(tmp_path, number, kind):
    content = turned(number, kind)
    (tmp_path / "turned").write_bytes(content)
    with Image.open(io.BytesIO(content)) as image:
        wanted = field_way(ImageOps.exif_transpose(image), SIZE)
    assert_alike(decode.load([tmp_path / "turned"], SIZE)[0], wanted)


def test_the_other_byte_order():
    little = turned(6, "JPEG")
    start = little.index(b"Exif\0\0") + 6
    assert little[start : start + 2] in (b"II", b"MM")
    exif = {
        b"II": b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0),
        b"MM": b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0),
    }[little[start : start + 2]]
    other = encoded(drawn(45, 64), "JPEG", exif=b"Exif\0\0" + exif)
    np.testing.assert_array_equal(decoded(other), decoded(little))


def test_damaged_exif_data_leave_the_picture_standing():
    """Any bytes in place of EXIF data give one of the eight orientations, and never a failure."""
    upright, content = decoded(turned(1, "JPEG")), turned(6, "JPEG")
    ways = [np.rot90(one, turns) for one in (upright, upright[:, ::-1]) for turns in range(4)]
    start = content.index(b"Exif\0\0") + 6
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in generator.integers(0, 40, 4):
            damaged[start + place] = generator.integers(0, 256)
        got = decoded(bytes(damaged)).astype(int)
        assert min(np.abs(got - way).max() for way in ways) <= 1


# What does not decode.


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"<html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + bytes(30)],
    ids=repr,
)
def test_what_is_no_picture_is_refused(tmp_path, content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(content)
    (tmp_path / "none.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"none.jpg: cannot be read .*; wanted an image, one of JPEG, PNG"):
        decode.load([tmp_path / "none.jpg"], SIZE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF"])
def test_a_truncated_picture_is_named(tmp_path, kind):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.write_bytes(encoded(drawn(200, 200), kind))
    cut.write_bytes(whole.read_bytes()[:-3000])
    with pytest.raises(InputError, match="cut: does not decode .*; wanted a complete image") as error:
        decode.load([whole, cut], SIZE)
    assert "function_node" not in str(error.value)
    first, second, third = decode.stream([whole, cut, whole], SIZE)
    np.testing.assert_array_equal(first, third)
    assert isinstance(second, InputError)


def with_scans(count):
    """A progressive JPEG whose last scan is there again and again; it is valid, and each scan takes time."""
    content = encoded(drawn(40, 40), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * (count - content.count(b"\xff\xda")) + content[-2:]


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    few, many = tmp_path / "few.jpg", tmp_path / "many.jpg"
    few.write_bytes(with_scans(decode.MAX_SCANS))
    many.write_bytes(with_scans(1000))
    assert decode.load([few], SIZE).any()
    with pytest.raises(InputError, match="many.jpg: a JPEG of 1,000 scans of 1,600 pixels; wanted at most 100 scans"):
        decode.load([many], SIZE)
    with pytest.raises(tf.errors.InvalidArgumentError, match="wanted a JPEG of at most.*100.*scans, got.*1000"):
        decoded(many.read_bytes())
    monkeypatch.setattr(decode, "MAX_WORK", 1600 * 20)
    with pytest.raises(InputError, match="wanted at most 20 scans"):
        decode.load([few], SIZE)


def test_the_graph_takes_jpeg_and_png_alone():
    with pytest.raises(tf.errors.InvalidArgumentError, match="wanted the bytes of a JPEG or a PNG"):
        decoded(encoded(drawn(9, 9), "BMP"))


# One function everywhere.


def test_pictures_come_in_order_and_only_so_far_ahead(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(150)]
    for i, path in enumerate(paths):
        Image.new("RGB", (3, 3), (i, 0, 0)).save(path)
    taken = []
    pictures = decode.stream((taken.append(path) or path for path in paths), 3)
    assert next(pictures)[0, 0, 0] == 0
    assert len(taken) < 100
    assert [picture[0, 0, 0] for picture in pictures] == list(range(1, 150))


def test_extraction_a_pipeline_and_an_exported_model_see_the_same(tmp_path):
    contents = [turned(6, "JPEG"), *files_of_all_kinds().values()]
    contents = [content for content in contents if content[:3] == b"\xff\xd8\xff" or content[:4] == b"\x89PNG"]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    loaded = decode.load([tmp_path / str(number) for number in range(len(contents))], SIZE)
    pipeline = tf.data.Dataset.from_tensor_slices(contents).map(lambda one: decode.picture(one, SIZE), 2)
    np.testing.assert_array_equal(np.stack([one.numpy() for one in pipeline]), loaded)

    archive = tf.Module()
    archive.serve = tf.function(
        lambda contents: backbones.preprocess("resnet101", decode.pictures(contents, SIZE)),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    tf.saved_model.save(archive, tmp_path / "saved")
    loaded_again = tf.saved_model.load(tmp_path / "saved")
    got = loaded_again.serve(tf.constant(contents))
    np.testing.assert_allclose(got, backbones.preprocess("resnet101", loaded), atol=1e-5)
