"""Views: how often and how strongly each change happens, what it keeps, and that a seed decides all of it."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from zslkeras.images import augment
from zslkeras.images.augment import TABLE_2, Views, plain, view

SIDE = 24
NOTHING = dict.fromkeys(("crop", "flip", "grey", "jitter", "blur", "rotation", "swap"), 0.0)
DRAWS = 2000
RANDOM = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
# Smooth, and different in every pixel: what a bilinear sampling reads there is the place it comes from.
PLACES = np.stack([*np.meshgrid(np.arange(101.0), np.arange(101.0)), np.full((101, 101), 200.0)], axis=2)


@functools.cache
def compiled(settings, size, pictures=1):
    """View after view of the images, for the seeds [first, first + count)."""

    @tf.function
    def many(picture, first, count):
        seeds = tf.stack([tf.zeros(count, tf.int64), first + tf.range(count, dtype=tf.int64)], axis=1)
        spec = tf.TensorSpec([size, size, 3], tf.float32)
        return tf.map_fn(lambda seed: view(picture, seed, settings, size), seeds, fn_output_signature=spec)

    return many


def views(picture, size=SIDE, count=DRAWS, first=0, **settings):
    return compiled(Views(**NOTHING | settings), size)(picture, tf.constant(first, tf.int64), count).numpy()


def same(drawn, picture):
    """[N] which of the views are the image."""
    return np.isclose(drawn, picture, rtol=0, atol=1e-3).all(axis=(1, 2, 3))


def test_nothing_drawn_is_the_picture_itself():
    np.testing.assert_array_equal(views(RANDOM, count=1)[0], RANDOM)
    np.testing.assert_array_equal(views(RANDOM, count=20, rotation=1.0, rotation_degrees=0.0)[7], RANDOM)


@pytest.mark.parametrize(
    ("change", "strength"),
    [
        ("crop", {}),
        ("flip", {}),
        ("grey", {}),
        ("jitter", {}),
        ("blur", {"blur_sigma": (1.0, 2.0)}),
        ("rotation", {}),
        ("swap", {"swap_patches": 7}),  # of so many patches some moved in 998 of 1,000 draws
    ],
)
@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_a_change_happens_as_often_as_its_chance_says(change, strength, chance):
    # Seven patches leave a rest of 24 pixels, which is cut off: 28.
    picture = np.tile(RANDOM, (2, 2, 1))[:28, :28]
    drawn = views(picture, 28, **{change: chance}, **strength)
    assert abs(np.mean(~same(drawn, picture)) - chance) < 4 * np.sqrt(chance * (1 - chance) / DRAWS) + 5e-3


def test_changes_are_drawn_apart_from_each_other():
    """A flip says nothing of a grey view, and the halves of a pair of seeds nothing of each other."""
    drawn = views(RANDOM, flip=0.5, grey=0.5)
    light = drawn @ np.array([0.299, 0.587, 0.114], np.float32)
    wanted = RANDOM @ np.array([0.299, 0.587, 0.114])
    flipped = np.isclose(light, wanted[:, ::-1], atol=1e-2).all(axis=(1, 2))
    grey = np.ptp(drawn, axis=3).max(axis=(1, 2)) < 1e-3
    assert np.isclose(light[~flipped], wanted, atol=1e-2).all()
    for one, other in ((flipped, grey), (flipped[1:], flipped[:-1]), (grey[1:], flipped[:-1])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_a_flip_is_exact():
    drawn = views(RANDOM, count=5, flip=1.0)
    np.testing.assert_array_equal(drawn, np.broadcast_to(RANDOM[:, ::-1], drawn.shape))


def test_a_seed_decides_a_view():
    settings = {"crop": 1.0, "flip": 0.5, "jitter": 0.8, "grey": 0.2, "blur": 0.5, "rotation": 0.5, "swap": 0.5}
    drawn = views(RANDOM, count=20, **settings)
    np.testing.assert_array_equal(drawn[5:], views(RANDOM, count=15, first=5, **settings))
    assert len(np.unique(drawn.reshape(20, -1), axis=0)) == 20
    eager = view(RANDOM, [0, 7], Views(**NOTHING | settings), SIDE)
    np.testing.assert_allclose(eager, drawn[7], rtol=0, atol=1e-3)
    assert not same(view(RANDOM, [1, 7], Views(**NOTHING | settings), SIDE)[None], drawn[7])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("height", "width", "size"), [(24, 24, 24), (30, 47, 21), (9, 9, 32)])
def test_views_are_float_squares_of_0_to_255_whatever_the_picture(dtype, height, width, size):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(dtype)
    everything = dict.fromkeys(NOTHING, 0.5) | {"jitter_strength": (0.8, 0.8, 0.8, 0.2), "rotation_degrees": 90.0}
    drawn = views(picture, size, 50, **everything)
    assert drawn.shape == (50, size, size, 3) and drawn.dtype == np.float32
    assert np.isfinite(drawn).all() and drawn.min() >= 0 and drawn.max() <= 255 + 1e-3
    assert drawn.max() > 128  # in 0..255, not in 0..1


# Where views look.


def looked_at(drawn):
    """The (x, y) that each pixel of views of PLACES came from, [N, size, size, 2]."""
    np.testing.assert_allclose(drawn[..., 2], 200, atol=1e-3)  # the image alone, nothing filled in
    return drawn[..., :2]


def test_crops_have_the_share_the_ratio_and_the_places_they_may_have():
    scale, ratio = (0.1, 0.4), (0.5, 2.0)
    places = looked_at(views(PLACES, 9, crop=1.0, crop_scale=scale, crop_ratio=ratio))
    width = 9 * (places[:, 4, 5, 0] - places[:, 4, 4, 0])
    height = 9 * (places[:, 5, 4, 1] - places[:, 4, 4, 1])
    share, shape = width * height / 101**2, width / height
    for value, (least, most) in ((share, scale), (shape, ratio)):
        assert value.min() > least - 1e-3 and value.max() < most + 1e-3
        assert value.min() < least + 0.05 * (most - least) and value.max() > most - 0.05 * (most - least)
    assert abs(np.mean(np.log(shape))) < 0.05  # as often wide as high
    left, right = places[:, 4, 4, 0] - width / 2 + 0.5, places[:, 4, 4, 0] + width / 2 + 0.5
    assert left.min() >= -1e-3 and right.max() <= 101 + 1e-3  # within the image
    where = left / (101 - width)
    assert where.min() < 0.02 and where.max() > 0.98 and abs(where.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(where, (places[:, 4, 4, 1] - height / 2 + 0.5) / (101 - height))[0, 1]) < 0.1


def test_a_crop_that_would_leave_the_picture_keeps_its_share_and_ratio_in_range():
    places = looked_at(views(PLACES, 9, crop=1.0, crop_scale=(0.9, 1.0), crop_ratio=(0.5, 2.0)))
    width, height = 9 * (places[:, 4, 5, 0] - places[:, 4, 4, 0]), 9 * (places[:, 5, 4, 1] - places[:, 4, 4, 1])
    assert max(width.max(), height.max()) <= 101 + 1e-3
    assert (width / height).min() >= 0.5 - 1e-3 and (width / height).max() <= 2 + 1e-3
    assert (width * height).min() / 101**2 > 0.45  # a half at the ratio of a half


@pytest.mark.parametrize("degrees", [30.0, 90.0])
def test_rotations_turn_either_way_about_the_middle_up_to_their_angle(degrees):
    places = looked_at(views(PLACES, 101, count=200, rotation=1.0, rotation_degrees=degrees)[:, 40:61, 40:61])
    np.testing.assert_allclose(places[:, 10, 10], 50, atol=1e-3)
    along = places[:, 10, 20] - places[:, 10, 10]
    np.testing.assert_allclose(np.hypot(*along.T), 10, atol=1e-2)  # no stretching
    across = places[:, 20, 10] - places[:, 10, 10]
    np.testing.assert_allclose(along[:, 0], across[:, 1], atol=1e-2)  # nor mirroring
    np.testing.assert_allclose(along[:, 1], -across[:, 0], atol=1e-2)
    angle = np.degrees(np.arctan2(along[:, 1], along[:, 0]))
    assert -degrees - 0.1 <= angle.min() < -0.9 * degrees and 0.9 * degrees < angle.max() <= degrees + 0.1
    assert abs(angle.mean()) < 0.15 * degrees


def test_a_turned_crop_looks_around_its_own_middle():
    """The crop first and the rotation of what it shows after it: squares of a wide crop are wide when turned."""
    settings = {"crop": 1.0, "crop_scale": (0.05, 0.1), "crop_ratio": (1.9, 2.0)}
    straight = looked_at(views(PLACES, 9, count=50, **settings))
    turned = looked_at(views(PLACES, 9, count=50, rotation=1.0, **settings))
    np.testing.assert_allclose(turned[:, 4, 4], straight[:, 4, 4], atol=1e-2)
    step = straight[:, 5, 5] - straight[:, 4, 4]
    along, across = ((turned[:, y, x] - turned[:, 4, 4]) / step for y, x in ((4, 5), (5, 4)))
    np.testing.assert_allclose(np.hypot(*along.T), 1, atol=1e-2)
    np.testing.assert_allclose(across, np.stack([-along[:, 1], along[:, 0]], axis=1), atol=1e-2)


# Colours.


def test_grey_is_the_light_of_each_pixel():
    light = RANDOM @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(views(RANDOM, count=1, grey=1.0)[0], np.repeat(light[..., None], 3, 2), atol=1e-3)


def test_the_factors_of_jitter_by_hand():
    pixels = tf.constant([[[10.0, 20.0, 30.0], [200.0, 100.0, 50.0]]])
    light = np.array([0.299 * 10 + 0.587 * 20 + 0.114 * 30, 0.299 * 200 + 0.587 * 100 + 0.114 * 50])[None, :, None]
    expected = {
        (2.0, 1.0, 1.0, 0.0): np.minimum(2 * pixels, 255),
        (1.0, 0.5, 1.0, 0.0): 0.5 * pixels + 0.5 * light.mean(),
        (1.0, 1.0, 0.5, 0.0): 0.5 * pixels + 0.5 * light,
        (1.0, 1.0, 0.0, 0.0): np.repeat(light, 3, axis=2),
        (1.0, 1.0, 1.0, 1 / 3): [[[30.0, 10.0, 20.0], [50.0, 200.0, 100.0]]],  # red turns green
        (1.0, 1.0, 1.0, -1 / 3): [[[20.0, 30.0, 10.0], [100.0, 50.0, 200.0]]],
    }
    for factors, wanted in expected.items():
        np.testing.assert_allclose(augment.jitter(pixels, *factors), wanted, atol=0.05, err_msg=str(factors))


@pytest.mark.parametrize(("place", "name"), list(enumerate(("brightness", "contrast", "saturation", "hue"))))
def test_jitter_goes_as_far_as_its_strength(place, name):
    dull = np.array([[[110, 100, 90], [140, 130, 120]]], np.uint8)  # nothing of it is clipped
    by = 0.15
    drawn = views(dull, 1, jitter=1.0, jitter_strength=tuple(by * (i == place) for i in range(4)))
    drawn = drawn[:, 0, 0]
    middle = dull[0].mean(axis=0)  # one pixel of both
    if name == "hue":
        turn = np.arctan2(np.sqrt(3) * (drawn[:, 1] - drawn[:, 2]), 2 * drawn[:, 0] - drawn[:, 1] - drawn[:, 2])
        turn -= np.arctan2(np.sqrt(3) * (middle[1] - middle[2]), 2 * middle[0] - middle[1] - middle[2])
        assert -by * 1.02 <= turn.min() / (2 * np.pi) < -0.95 * by and 0.95 * by < turn.max() / (2 * np.pi) <= by * 1.02
        return
    if name == "contrast":  # of a single pixel the mean light is its own
        np.testing.assert_allclose(drawn.mean(axis=0), middle, atol=0.1)
    factor = drawn[:, 0] / middle[0] if name == "brightness" else np.ptp(drawn, axis=1) / np.ptp(middle)
    assert 1 - by - 1e-3 <= factor.min() < 1 - 0.95 * by and 1 + 0.95 * by < factor.max() <= 1 + by + 1e-3


# Blur.


def reference_blur(pixels, sigma, reach):
    """By the definition: each pixel the mean of an image continued in mirrors, weighed by a Gaussian."""
    size = len(pixels)
    wide = np.pad(pixels.astype(float), [(reach, reach), (reach, reach), (0, 0)], mode="symmetric")
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    result = np.zeros(pixels.shape)
    for dy, dx in np.ndindex(weights.shape):
        result += weights[dy, dx] * wide[dy : dy + size, dx : dx + size]
    return result / weights.sum()


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_gaussian_and_keeps_the_mean(sigma):
    blurred = augment.blur(tf.cast(RANDOM, tf.float32), sigma, most=2.0).numpy()
    np.testing.assert_allclose(blurred, reference_blur(RANDOM, sigma, reach=6), atol=1e-2)
    np.testing.assert_allclose(blurred.mean(axis=(0, 1)), RANDOM.mean(axis=(0, 1)), rtol=1e-5)


def test_the_strength_of_blur_is_drawn_between_its_bounds():
    spot = np.zeros((31, 31, 3), np.uint8)
    spot[15, 15] = 255
    drawn = views(spot, 31, count=300, blur=1.0, blur_sigma=(1.0, 2.0))[..., 0]
    share = drawn.sum(axis=1) / drawn.sum(axis=(1, 2))[:, None]
    sigma = np.sqrt(share @ (np.arange(31) - 15.0) ** 2)
    # The largest loses some of its tails, which are cut off.
    assert 0.99 < sigma.min() < 1.05 and 1.9 < sigma.max() < 2 and abs(sigma.mean() - 1.5) < 0.06


# Swap.


def shuffled(patches, patch, count=300):
    """[count, patches, patches] which patch, counted by rows, lies where."""
    number = np.arange(patches**2).reshape(patches, patches)
    picture = np.repeat(np.repeat(number, patch, axis=0), patch, axis=1)[..., None].repeat(3, axis=2).astype(np.uint8)
    drawn = views(picture, patches * patch, count, swap=1.0, swap_patches=patches)
    corners = drawn[:, ::patch, ::patch, 0]
    np.testing.assert_array_equal(np.repeat(np.repeat(corners, patch, axis=1), patch, axis=2), drawn[..., 0])  # whole
    return corners.astype(int)


@pytest.mark.parametrize("patches", [3, 5, 7])
def test_swapped_patches_are_all_there_and_none_goes_far(patches):
    found = shuffled(patches, 4)
    np.testing.assert_array_equal(
        np.sort(found.reshape(len(found), -1)), np.broadcast_to(np.arange(patches**2), (len(found), patches**2))
    )
    rows, columns = found // patches - np.arange(patches)[:, None], found % patches - np.arange(patches)
    for moved in (rows, columns):
        assert set(np.unique(moved)) == {-1, 0, 1}
    assert (rows == rows[:, :, :1]).all()  # whole rows
    assert (columns != columns[:, :1]).any()  # but each row in an order of its own
    assert len(np.unique(found, axis=0)) > (8 if patches == 3 else 100)


def test_a_patch_keeps_its_pixels():
    drawn = views(RANDOM, count=40, swap=1.0, swap_patches=3)

    def patches(picture):
        cut = picture.reshape(3, 8, 3, 8, 3).transpose(0, 2, 1, 3, 4).reshape(9, -1)
        return cut[np.lexsort(cut.T)]

    for one in drawn:
        np.testing.assert_array_equal(patches(one), patches(RANDOM))


def test_patches_that_leave_a_rest_are_cut_from_the_middle():
    picture = RANDOM[:23, :23]  # 3 x 7 and a pixel on either side
    pixels = augment.swap(tf.cast(picture, tf.float32), 1, [0, 0])
    np.testing.assert_array_equal(pixels, picture)
    drawn = views(picture, 23, count=40, swap=1.0, swap_patches=3)
    for one in drawn:
        inner = np.sort(one[1:-1, 1:-1].ravel())
        np.testing.assert_array_equal(inner, np.sort(picture[1:-1, 1:-1].ravel()))
        np.testing.assert_array_equal(one, np.pad(one[1:-1, 1:-1], [(1, 1), (1, 1), (0, 0)], mode="edge"))


# Settings.


def test_plain_pictures_are_scaled_where_they_have_another_size():
    pictures = np.stack([RANDOM, RANDOM[::-1]])
    same_size = plain(pictures, SIDE)
    assert same_size.dtype == tf.float32
    np.testing.assert_array_equal(same_size, pictures)
    half = plain(np.repeat(np.repeat(pictures, 2, axis=1), 2, axis=2), SIDE)
    np.testing.assert_allclose(half.numpy().mean(axis=(1, 2)), pictures.mean(axis=(1, 2)), rtol=0.02)
    stripes = np.zeros((1, 4 * SIDE, 4 * SIDE, 3), np.uint8)
    stripes[:, :, ::4] = 200
    np.testing.assert_allclose(plain(stripes, SIDE)[:, :, 2:-2], 50, atol=5)  # not one stripe in four, nor none


def test_the_rows_of_the_papers_table():
    """DCEN, Table 2: the operations that are marked in each row, and what stands in brackets."""
    marks = {
        "none": {},
        "crop": {"crop": 1.0},
        "flip": {"crop": 1.0, "flip": 0.5},
        "grey": {"crop": 1.0, "flip": 0.5, "grey": 0.2},
        "jitter v1": {"crop": 1.0, "flip": 0.5, "jitter": 0.8, "jitter_strength": (0.4, 0.4, 0.4, 0.4)},
        "jitter v2": {"crop": 1.0, "flip": 0.5, "jitter": 0.8, "jitter_strength": (0.4, 0.4, 0.4, 0.1)},
        "jitter v3": {"crop": 1.0, "flip": 0.5, "jitter": 0.8, "jitter_strength": (0.8, 0.8, 0.8, 0.2)},
        "blur": {"crop": 1.0, "flip": 0.5, "blur": 0.5},
        "rotation 90": {"crop": 1.0, "flip": 0.5, "rotation": 0.5, "rotation_degrees": 90.0},
        "rotation 60": {"crop": 1.0, "flip": 0.5, "rotation": 0.5, "rotation_degrees": 60.0},
        "rotation 30": {"crop": 1.0, "flip": 0.5, "rotation": 0.5, "rotation_degrees": 30.0},
        "swap 7": {"crop": 1.0, "flip": 0.5, "swap": 0.2, "swap_patches": 7},
        "swap 5": {"crop": 1.0, "flip": 0.5, "swap": 0.2, "swap_patches": 5},
        "swap 3": {"crop": 1.0, "flip": 0.5, "swap": 0.2, "swap_patches": 3},
        "blur rotation": {"crop": 1.0, "flip": 0.5, "blur": 0.5, "rotation": 0.5, "rotation_degrees": 30.0},
        "kept": {"crop": 1.0, "flip": 0.5, "blur": 0.5, "rotation": 0.5, "rotation_degrees": 30.0, "swap": 0.2},
    }
    assert list(TABLE_2) == list(marks)
    for name, marked in marks.items():
        assert Views(**TABLE_2[name]) == Views(**NOTHING | marked), name
    assert Views() == Views(**TABLE_2["kept"])


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"flip": 1.5}, "flip: got 1.5; wanted a probability from 0 to 1"),
        ({"crop_scale": (0.5, 0.2)}, r"crop_scale: got \(0.5, 0.2\); wanted two numbers above 0, least and most"),
        ({"crop_scale": (0.5, 1.2)}, r"crop_scale: got \(0.5, 1.2\); wanted at most the whole image, 1"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma: .*wanted two numbers above 0"),
        ({"jitter_strength": (0.1,)}, "jitter_strength: .*wanted four numbers"),
        ({"swap_patches": 0}, "swap_patches: got 0; wanted at least 1"),
    ],
)
def test_wrong_settings_are_named(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(Views(), **setting)


def test_more_patches_than_pixels_are_refused():
    with pytest.raises(ValueError, match="swap_patches: got 9; wanted at most the 8 pixels of a view"):
        view(RANDOM, [0, 0], Views(swap_patches=9), 8)
