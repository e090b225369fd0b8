"""Backbones: the convolutional part of every keras.applications network by name, and a small one to train from scratch.

A backbone takes RGB images after `preprocess` and returns its last map [B, H, W, F], or maps of several levels. Its
batch normalisation is synchronized over replicas.
"""

import hashlib
import pathlib
import sys
import warnings

import keras
import numpy as np
import tensorflow as tf

from zslkeras.errors import InputError, brief, did_you_mean
from zslkeras.names import PREPROCESSINGS

SMALL = "small"
_SMALL_WIDTHS = (32, 64, 128, 256)  # of its stages, each of which halves the map
# Levels, fine to coarse, at strides 8, 16 and 32: what object detectors call C3, C4 and C5.
LEVELS = {
    "resnet50": ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    "resnet101": ("conv3_block4_out", "conv4_block23_out", "conv5_block3_out"),
    "resnet152": ("conv3_block8_out", "conv4_block36_out", "conv5_block3_out"),
    "mobilenetv2": ("block_6_expand_relu", "block_13_expand_relu", "out_relu"),
    SMALL: ("stage2", "stage3", "stage4"),  # strides 4, 8 and 16
}


# Name in lower case -> its constructor.
_APPLICATIONS = {name.lower(): value for name, value in vars(keras.applications).items() if name[0].isupper()}
NAMES = (*sorted(_APPLICATIONS), SMALL)


def backbone(name, weights=None, size=224, layers=None):
    """Builds a backbone.

    Args:
        name: one of NAMES, in any case.
        weights: "imagenet", None for random ones, or a file: .weights.h5, .h5, or .keras, of which only the weights are
            read.
        size: side of the images.
        layers: names of the layers whose maps are returned; None for the last map only.

    Returns:
        A keras.Model: float32 [B, size, size, 3] to a map [B, H, W, F], or to a list of them.
    """
    name = known(name)
    model = _built(name, "imagenet" if weights == "imagenet" else None, size)
    if weights not in (None, "imagenet"):
        _load(model, name, pathlib.Path(weights))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True  # keras.applications leaves it off; replicas would drift apart
    return model if layers is None else keras.Model(model.input, levels(model, layers), name=name)


def levels(model, layers, argument="layers"):
    """The output maps of the named layers of a backbone; `argument` is what named them, for errors."""
    names, outputs = [layer.name for layer in model.layers], []
    for layer in layers:
        if layer not in names:
            raise InputError(f"{argument}: no {layer!r} in {model.name}; {did_you_mean(layer, names, every=True)}")
        outputs.append(model.get_layer(layer).output)
        if len(getattr(outputs[-1], "shape", ())) != 4:
            raise InputError(f"{argument}: the output of {layer} in {model.name} is no map; wanted [B, H, W, F]")
    return outputs


def default_layers(name):
    """The levels to take if none are named."""
    if name not in LEVELS:
        raise InputError(f"layers: none known for {name}, only for {', '.join(LEVELS)}; wanted names of its layers")
    return LEVELS[name]


def preprocess(name, pictures, style="own"):
    """RGB images as the weights of a backbone expect them.

    Args:
        name: one of NAMES, in any case.
        pictures: [B, H, W, 3] RGB, 0 to 255, of any type.
        style: "own" is the style in which the ImageNet weights of keras.applications were trained, such as "caffe" for
            ResNet and VGG; weights converted from torchvision need "torch". "caffe": BGR minus the ImageNet means;
            "torch": 0 to 1, minus means, over standard deviations; "tf": -1 to 1.

    Returns:
        float32 [B, H, W, 3].
    """
    name, pictures = known(name), tf.cast(pictures, tf.float32)
    if style not in PREPROCESSINGS:
        raise InputError(f"preprocessing: got {style!r}; wanted one of {', '.join(PREPROCESSINGS)}")
    if style == "own" and name != SMALL:
        return sys.modules[_APPLICATIONS[name].__module__].preprocess_input(pictures)
    mode = "tf" if style == "own" else style
    return keras.applications.imagenet_utils.preprocess_input(pictures, data_format="channels_last", mode=mode)


def known(name):
    """The name as NAMES has it."""
    if name.lower() not in NAMES:
        raise InputError(f"backbone: no {name!r}; {did_you_mean(name.lower(), NAMES, every=True)}")
    return name.lower()


def digest(model):
    """A name for the weights of a model, whatever file they come from."""
    hasher = hashlib.sha256()
    for weight in model.weights:
        hasher.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return hasher.hexdigest()


def _built(name, weights, size):
    if name == SMALL and weights:
        raise InputError(f"weights: got {weights} for backbone {SMALL}, which has none; wanted a file, or no weights")
    try:
        if name == SMALL:
            return _small(size)
        return _APPLICATIONS[name](include_top=False, weights=weights, input_shape=(size, size, 3))
    except Exception as error:  # a size too small, or a failed download
        if "URL fetch failure" in str(error):  # Keras raises a plain Exception with these words
            got = f"the ImageNet weights of {name} cannot be downloaded ({brief(error)})"
            raise InputError(f"weights: {got}; wanted a network, or a file of weights") from error
        raise InputError(f"backbone: {name} cannot be built at size {size} ({brief(error)})") from error


def _small(size):
    """Four stages of 3x3 convolution, batch normalisation and pooling, for images of about 64 pixels."""
    inputs = maps = keras.Input((size, size, 3))
    for stage, width in enumerate(_SMALL_WIDTHS, 1):
        maps = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"stage{stage}_conv")(maps)
        maps = keras.layers.BatchNormalization(synchronized=True, name=f"stage{stage}_norm")(maps)
        maps = keras.layers.ReLU(name=f"stage{stage}_relu")(maps)
        maps = keras.layers.MaxPooling2D(name=f"stage{stage}")(maps)
    return keras.Model(inputs, maps, name=SMALL)


def _load(model, name, path):
    if not path.is_file():
        raise InputError(f"weights: no file {path}; wanted a .weights.h5, .h5 or .keras file, or imagenet")
    try:
        with warnings.catch_warnings(action="ignore"):  # hundreds, about containers that hold no weight
            model.load_weights(path)  # only the weights, from a .keras file too: nothing in it is built or run
    except Exception as error:  # Keras raises anything from ValueError to KeyError and OSError
        raise InputError(f"weights: {path} does not fit {name} without its top ({brief(error)})") from error
    for weight in model.weights:
        if not np.isfinite(weight.numpy()).all():
            raise InputError(f"weights: {path} has values in {weight.path} that are not finite; wanted trained ones")
