"""Pictures to tensors: every kind of file decodes as Pillow and torchvision would; what backbones promise."""

import functools
import io
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from zslkeras.errors import InputError
from zslkeras.images import backbones, decode

SIZE = 32


def drawn(height, width, seed=0):
    """A picture with large and small structure."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), int)
    return Image.fromarray(np.clip(smooth + generator.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8))


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def field_way(image, size):
    """torchvision's Resize(size) and CenterCrop(size) on a Pillow picture, by their published formulas."""
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
    """As an exported model has it."""
    spec = tf.TensorSpec([None], tf.string)
    return tf.function(lambda contents: decode.pictures(contents, size, crop), input_signature=[spec])


def decoded(contents, size=SIZE, crop=True):
    return served(size, crop)(tf.constant([contents]))[0].numpy()


def assert_alike(got, wanted):
    """Equal but for the rounding of the resize, which Pillow does twice."""
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
    """All of it at the height of the result would take 38 GB."""
    strip = np.zeros((1, 1_000_000, 3), np.uint8)
    strip[0, 500_000:] = 255
    got = decoded(encoded(Image.fromarray(strip), "PNG"), 100)
    # What is left of it is the way from the last black pixel to the first white one.
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
            image = image.convert("RGBA")  # Pillow warns where transparency goes directly
        wanted = field_way(image, SIZE)
    (got,) = decode.load([tmp_path / name], SIZE)
    assert got.std() > 20
    # Of CMYK, TensorFlow and Pillow round the products differently.
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
    """Longer than high by an odd number once it is scaled: which side the crop spares then depends on the turning."""
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
    """Whatever stands where EXIF data should: one of the eight ways to stand, and never a failure."""
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
    with pytest.raises(InputError, match=r"none.jpg: cannot be read .*; wanted a picture, one of JPEG, PNG"):
        decode.load([tmp_path / "none.jpg"], SIZE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF"])
def test_a_truncated_picture_is_named(tmp_path, kind):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.write_bytes(encoded(drawn(200, 200), kind))
    cut.write_bytes(whole.read_bytes()[:-3000])
    with pytest.raises(InputError, match="cut: does not decode .*; wanted a complete picture"):
        decode.load([whole, cut], SIZE)
    first, second, third = decode.stream([whole, cut, whole], SIZE)
    np.testing.assert_array_equal(first, third)
    assert isinstance(second, InputError)


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


# Backbones.


def test_every_application_is_known():
    assert {"resnet101", "mobilenetv2", "mobilenetv3small", "efficientnetv2b0", "vgg16", "small"} <= set(
        backbones.NAMES
    )
    assert len(backbones.NAMES) > 35
    assert backbones.backbone("MobileNetV2", size=448).output.shape == (None, 14, 14, 1280)


@pytest.mark.parametrize("name", ["resnet101", "resnet50", "mobilenetv2", "small"])
def test_levels_halve_from_one_to_the_next_and_end_with_the_last_map(name):
    model = backbones.backbone(name, size=64, layers=backbones.default_layers(name))
    sides = [output.shape[1] for output in model.outputs]
    assert [output.shape[2] for output in model.outputs] == sides
    assert sides == ([16, 8, 4] if name == "small" else [8, 4, 2])
    assert model.layers[-1].name == backbones.LEVELS[name][-1]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) > 3 and all(layer.synchronized for layer in norms)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: backbones.backbone("resnet1O1"), "no 'resnet1O1'; did you mean resnet101"),
        (lambda: backbones.backbone("quux"), "no 'quux'; wanted one of convnextbase, "),
        (lambda: backbones.backbone("small", layers=["stage9"]), "no 'stage9' in small; did you mean stage"),
        (lambda: backbones.backbone("small", "imagenet"), "imagenet for backbone small; wanted a file"),
        (lambda: backbones.backbone("small", "none.keras"), "weights: no file none.keras; wanted a .weights.h5"),
        (lambda: backbones.backbone("xception", size=32), "xception with weights None, size 32: .*at least 71x71"),
        (lambda: backbones.default_layers("vgg16"), "layers: none known for vgg16, only for resnet50, "),
        (lambda: backbones.preprocess("small", np.zeros((1, 2, 2, 3)), "pil"), "got 'pil'; wanted one of own, caffe"),
    ],
)
def test_wrong_names_are_one_sentence(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_levels_are_maps():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Flatten(name="flat")(inputs), name="mine")
    with pytest.raises(InputError, match=r"layers: flat of mine puts out no map; wanted \[B, H, W, F\]"):
        backbones.levels(model, ["flat"])


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_weights_from_a_file(tmp_path, suffix):
    saved = backbones.backbone("small", size=16)
    (saved.save_weights if suffix == ".weights.h5" else saved.save)(tmp_path / f"w{suffix}")
    read = backbones.backbone("small", tmp_path / f"w{suffix}", size=SIZE)
    assert backbones.digest(read) == backbones.digest(saved) != backbones.digest(backbones.backbone("small"))
    for one, other in zip(read.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_a_model_with_a_top_the_top_is_left(tmp_path):
    whole = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=7)
    for suffix in (".weights.h5", ".keras"):
        (whole.save_weights if suffix == ".weights.h5" else whole.save)(tmp_path / f"w{suffix}")
        read = backbones.backbone("mobilenet", tmp_path / f"w{suffix}", size=64)
        for one, other in zip(read.weights, whole.weights, strict=False):
            np.testing.assert_array_equal(one, other)


def test_a_keras_file_runs_nothing(tmp_path):
    """What a .keras file says of its layers is not even read: this one would write a file."""
    canary = tmp_path / "canary"

    def touch(inputs):
        canary.touch()
        return inputs

    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Lambda(touch)(inputs))
    canary.unlink()
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(InputError, match=r"lambda.keras does not fit small"):
        backbones.backbone("small", tmp_path / "lambda.keras", size=16)
    assert not canary.exists()


def test_weights_that_do_not_fit(tmp_path):
    narrow = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), include_top=False, alpha=0.25)
    narrow.save_weights(tmp_path / "narrow.weights.h5")
    (tmp_path / "text.weights.h5").write_text("no weights")
    (tmp_path / "weights.bin").write_text("no weights")
    for file, name in {"narrow.weights.h5": "mobilenet", "text.weights.h5": "small", "weights.bin": "small"}.items():
        with pytest.raises(InputError, match=f"weights: .*{file} does not fit {name} without its top") as caught:
            backbones.backbone(name, tmp_path / file, size=32)
        assert "\n" not in str(caught.value)
    model = backbones.backbone("small", size=16)
    model.weights[0].assign(model.weights[0] * np.nan)
    model.save_weights(tmp_path / "nan.weights.h5")
    with pytest.raises(InputError, match=r"nan.weights.h5 has values in stage1_conv.* that are not finite"):
        backbones.backbone("small", tmp_path / "nan.weights.h5", size=16)


def test_preprocessing_by_hand():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3), np.uint8)
    expected = {
        "caffe": pixels[..., ::-1] - np.array([103.939, 116.779, 123.68]),
        "torch": (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "tf": pixels / 127.5 - 1,
    }
    for style, wanted in expected.items():
        got = backbones.preprocess("resnet101", pixels, style)
        assert got.dtype == tf.float32
        np.testing.assert_allclose(got, wanted, atol=2e-5)
    for name, style in {"resnet101": "caffe", "mobilenetv2": "tf", "small": "tf", "densenet121": "torch"}.items():
        np.testing.assert_allclose(backbones.preprocess(name, pixels), expected[style], atol=2e-5)
    np.testing.assert_array_equal(backbones.preprocess("efficientnetb0", pixels), pixels)  # it does its own inside
