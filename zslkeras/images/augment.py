"""Random views of an image: crop, flip, rotation, colour, grey, blur and swapped patches, each with its probability.

`view` is pure TensorFlow: all randomness comes from its seed, so that a resumed run sees the same views. Changes that
are not drawn are not computed. Crop, flip and rotation are one bilinear sampling, in which the fine detail of images
much larger than the view would alias, so `store` keeps them only a little larger.
"""

import dataclasses
import math

import tensorflow as tf

_LIGHT = (0.299, 0.587, 0.114)  # weights of red, green and blue in ITU-R BT.601
_CHANGES = ("crop", "flip", "grey", "jitter", "blur", "rotation", "swap")
_JITTERED = ("brightness", "contrast", "saturation", "hue")
_NEIGHBOURHOOD = 1  # places that a patch may move along each axis; DCL's shuffles take two neighbours at a time


@dataclasses.dataclass(frozen=True)
class Views:
    """How likely each change of an image is, and how strong; the defaults are DCEN's, Table 2, last row.

    Attributes:
        crop, flip, grey, jitter, blur, rotation, swap: probabilities.
        crop_scale, crop_ratio: least and most of a crop's share of the image, and of its width over its height.
        jitter_strength: of brightness, contrast and saturation, factors of 1 +- it, and of hue, turns of +- it.
        blur_sigma: least and most, in pixels of the view.
        rotation_degrees: at most, either way.
        swap_patches: along each side.
    """

    crop: float = 1.0
    flip: float = 0.5
    grey: float = 0.0
    jitter: float = 0.0
    blur: float = 0.5
    rotation: float = 0.5
    swap: float = 0.2
    # The paper has no strengths of crops and blur. For crops these are torchvision's, as in later code of the same
    # authors; for blur those of MoCo v2, whose loss this is.
    crop_scale: tuple[float, ...] = (0.08, 1.0)
    crop_ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    jitter_strength: tuple[float, ...] = (0.4, 0.4, 0.4, 0.4)
    blur_sigma: tuple[float, ...] = (0.1, 2.0)
    rotation_degrees: float = 30.0
    swap_patches: int = 3

    def __post_init__(self):
        for name in _CHANGES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; wanted a probability from 0 to 1")
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1]:
                raise ValueError(f"{name}: got {value}; wanted two numbers above 0, least and most")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale: got {self.crop_scale}; wanted at most the whole image, 1")
        if len(self.jitter_strength) != 4 or min(self.jitter_strength) < 0:
            wanted = "four numbers, of brightness, contrast, saturation and hue"
            raise ValueError(f"jitter_strength: got {self.jitter_strength}; wanted {wanted}")
        if self.swap_patches < 1:
            raise ValueError(f"swap_patches: got {self.swap_patches}; wanted at least 1")


_NONE = {"crop": 0.0, "flip": 0.0, "blur": 0.0, "rotation": 0.0, "swap": 0.0}
_CROP = _NONE | {"crop": 1.0}
_FLIP = _CROP | {"flip": 0.5}
# Rows of DCEN's Table 2 in its order: overrides of Views. The first, with an H of 65.3, is the table's baseline, which
# contrasts no views.
TABLE_2 = {
    "none": _NONE,
    "crop": _CROP,
    "flip": _FLIP,
    "grey": _FLIP | {"grey": 0.2},
    "jitter v1": _FLIP | {"jitter": 0.8, "jitter_strength": (0.4, 0.4, 0.4, 0.4)},
    "jitter v2": _FLIP | {"jitter": 0.8, "jitter_strength": (0.4, 0.4, 0.4, 0.1)},
    "jitter v3": _FLIP | {"jitter": 0.8, "jitter_strength": (0.8, 0.8, 0.8, 0.2)},
    "blur": _FLIP | {"blur": 0.5},
    "rotation 90": _FLIP | {"rotation": 0.5, "rotation_degrees": 90.0},
    "rotation 60": _FLIP | {"rotation": 0.5, "rotation_degrees": 60.0},
    "rotation 30": _FLIP | {"rotation": 0.5},
    "swap 7": _FLIP | {"swap": 0.2, "swap_patches": 7},
    "swap 5": _FLIP | {"swap": 0.2, "swap_patches": 5},
    "swap 3": _FLIP | {"swap": 0.2},
    "blur rotation": _FLIP | {"blur": 0.5, "rotation": 0.5},
    "kept": {},
}


def view(picture, seed, settings, size):
    """One random view of an image.

    Args:
        picture: RGB [H, W, 3], 0 to 255, of any type.
        seed: two integers; the same seed makes the same view.
        settings: Views.
        size: side of the view.

    Returns:
        float32 [size, size, 3], 0 to 255.
    """
    if settings.swap and settings.swap_patches > size:
        raise ValueError(f"swap_patches: got {settings.swap_patches}; wanted at most the {size} pixels of a view")
    strengths = _ranges(settings)
    draws = tf.random.stateless_uniform([len(_CHANGES) + len(strengths)], seed)
    least, most = (tf.constant(side, tf.float32) for side in zip(*strengths.values(), strict=True))
    chances = [getattr(settings, name) for name in _CHANGES]
    happens = dict(zip(_CHANGES, tf.unstack(draws[: len(_CHANGES)] < chances), strict=True))
    drawn = dict(zip(strengths, tf.unstack(least + draws[len(_CHANGES) :] * (most - least)), strict=True))
    changes = {
        "jitter": lambda: jitter(pixels, *(drawn[name] for name in _JITTERED)),
        "grey": lambda: tf.repeat(_light(pixels), 3, axis=2),
        "blur": lambda: blur(pixels, drawn["sigma"], settings.blur_sigma[1]),
        "swap": lambda: swap(pixels, settings.swap_patches, tf.random.experimental.stateless_fold_in(seed, 1)),
    }
    pixels = _sampled(tf.cast(picture, tf.float32), size, happens, drawn)
    for name, changed in changes.items():
        if getattr(settings, name):
            pixels = tf.cond(happens[name], changed, lambda: pixels)  # noqa: B023  called at once
    return pixels


def plain(pictures, size):
    """Images without changes, resized: RGB [B, H, W, 3], 0 to 255, to float32 [B, size, size, 3]."""
    pictures = tf.cast(pictures, tf.float32)
    if tuple(pictures.shape[1:3]) == (size, size):
        return pictures
    return tf.image.resize(pictures, [size, size], antialias=True)


def jitter(pixels, brightness, contrast, saturation, hue):
    """Changes colours: three factors, towards black, the mean light and each pixel's light, and the hue in turns."""
    pixels = tf.clip_by_value(brightness * pixels, 0, 255)
    pixels = _away(pixels, tf.reduce_mean(_light(pixels)), contrast)
    pixels = _away(pixels, _light(pixels), saturation)
    return tf.image.adjust_hue(pixels, hue)


def blur(pixels, sigma, most):
    """Gaussian, cut off at three times `most`, the largest sigma; borders are mirrored, which keeps the mean."""
    reach = min(math.ceil(3 * most), pixels.shape[0], pixels.shape[1])
    kernel = tf.exp(tf.square(tf.range(-reach, reach + 1, dtype=tf.float32)) / (-2 * sigma**2))
    kernel = tf.tile((kernel / tf.reduce_sum(kernel))[:, None, None, None], [1, 1, 3, 1])
    pixels = tf.pad(pixels, [[reach, reach], [reach, reach], [0, 0]], "SYMMETRIC")[None]
    for weights in (kernel, tf.transpose(kernel, [1, 0, 2, 3])):  # down the rows, along the columns
        pixels = tf.nn.depthwise_conv2d(pixels, weights, [1, 1, 1, 1], "VALID")
    return pixels[0]


def swap(pixels, patches, seed):
    """Shuffles square patches among their neighbours: those of each row, then whole rows; DCL.

    Pixels that do not fit into the patches are cut off on all sides, and replaced by the mirrored border.
    """
    size = pixels.shape[0]
    patch = size // patches
    before = (size - patch * patches) // 2
    after = size - patch * patches - before
    grid = pixels[before : size - after, before : size - after]
    grid = tf.transpose(tf.reshape(grid, [patches, patch, patches, patch, 3]), [0, 2, 1, 3, 4])
    # DCL's permutation, in which nothing moves far: each place plus a draw, sorted.
    draws = tf.random.stateless_uniform([patches + 1, patches], seed, -_NEIGHBOURHOOD, _NEIGHBOURHOOD)
    order = tf.argsort(tf.range(patches, dtype=tf.float32) + draws, axis=1)
    grid = tf.gather(grid, order[1:], axis=1, batch_dims=1)
    grid = tf.gather(grid, order[0])
    grid = tf.reshape(tf.transpose(grid, [0, 2, 1, 3, 4]), [patch * patches, patch * patches, 3])
    return tf.pad(grid, [[before, after], [before, after], [0, 0]], "SYMMETRIC")


def _ranges(settings):
    """{strength: (least, most)}; it is drawn evenly between them."""
    angle = math.radians(settings.rotation_degrees)
    *factors, hue = settings.jitter_strength
    return {
        "scale": settings.crop_scale,
        "ratio": tuple(math.log(ratio) for ratio in settings.crop_ratio),
        "left": (0, 1),
        "top": (0, 1),
        "angle": (-angle, angle),
        **{name: (max(0, 1 - by), 1 + by) for name, by in zip(_JITTERED, factors, strict=False)},
        "hue": (-hue, hue),
        "sigma": settings.blur_sigma,
    }


def _sampled(picture, size, happens, drawn):
    """Crop, flip and rotation in one bilinear sampling.

    Deviation: the corners that a rotation brings in show the image beside the crop, and outside the image its
    reflection; torchvision leaves them black.
    """
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(picture)[:2]))
    ratio = tf.exp(drawn["ratio"])
    area = drawn["scale"] * height * width
    # A crop wider or higher than the image is cut off; the share and the ratio stay within their ranges.
    across = tf.where(happens["crop"], tf.minimum(tf.sqrt(area * ratio), width), width)
    down = tf.where(happens["crop"], tf.minimum(tf.sqrt(area / ratio), height), height)
    middle_x = (across - 1) / 2 + drawn["left"] * (width - across)
    middle_y = (down - 1) / 2 + drawn["top"] * (height - down)
    angle = tf.where(happens["rotation"], drawn["angle"], 0.0)
    step_x, step_y = across / size * tf.where(happens["flip"], -1.0, 1.0), down / size
    # The pixel (x, y) of the view comes from (a x + b y + c, d x + e y + f); the middle comes from the crop's middle.
    a, b = step_x * tf.cos(angle), -step_x * tf.sin(angle)
    d, e = step_y * tf.sin(angle), step_y * tf.cos(angle)
    half = (size - 1) / 2
    places = [a, b, middle_x - half * (a + b), d, e, middle_y - half * (d + e), 0.0, 0.0]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=picture[None],
        transforms=tf.stack(places)[None],
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )[0]


def _light(pixels):
    return tf.reduce_sum(pixels * _LIGHT, axis=2, keepdims=True)


def _away(pixels, others, factor):
    """`pixels` for a factor of 1, `others` for 0; farther away from them for more than 1."""
    return tf.clip_by_value(factor * pixels + (1 - factor) * others, 0, 255)
