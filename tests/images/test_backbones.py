"""Backbones: their names, levels, weights from files, and the preprocessing that the weights expect."""

import urllib.error

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.utils import file_utils

from zslkeras.errors import InputError
from zslkeras.images import backbones


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
        (
            lambda: backbones.backbone("small", "imagenet"),
            "^weights: got imagenet for backbone small, which has none; wanted a file",
        ),
        (lambda: backbones.backbone("small", "none.keras"), "weights: no file none.keras; wanted a .weights.h5"),
        (
            lambda: backbones.backbone("xception", size=32),
            "^backbone: xception cannot be built at size 32 .*at least 71x71",
        ),
        (lambda: backbones.default_layers("vgg16"), "layers: none known for vgg16, only for resnet50, "),
        (lambda: backbones.preprocess("small", np.zeros((1, 2, 2, 3)), "pil"), "got 'pil'; wanted one of own, caffe"),
    ],
)
def test_wrong_names_are_one_sentence(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_imagenet_weights_without_a_network_name_the_flag_for_a_file(tmp_path, monkeypatch):
    def offline(*_):
        raise urllib.error.URLError("[Errno -2] Name or service not known")

    monkeypatch.setattr(file_utils, "urlretrieve", offline)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    with pytest.raises(InputError) as caught:
        backbones.backbone("mobilenetv2", "imagenet")
    words = str(caught.value)
    assert words.startswith("weights: the ImageNet weights of mobilenetv2 cannot be downloaded (URL fetch failure on ")
    assert words.endswith("); wanted a network, or a file of weights") and "\n" not in words


def test_levels_are_maps():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Flatten(name="flat")(inputs), name="mine")
    with pytest.raises(InputError, match=r"layers: the output of flat in mine is no map; wanted \[B, H, W, F\]"):
        backbones.levels(model, ["flat"])


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_weights_from_a_file(tmp_path, suffix):
    saved = backbones.backbone("small", size=16)
    (saved.save_weights if suffix == ".weights.h5" else saved.save)(tmp_path / f"w{suffix}")
    read = backbones.backbone("small", tmp_path / f"w{suffix}", size=32)
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
    """The layers in a .keras file are not even read: those of this one would write a file."""
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
