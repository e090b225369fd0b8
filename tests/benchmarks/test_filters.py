"""The filter bank: what each filter answers, its three scales, and how maps and pooled features follow from them."""

import numpy as np
import pytest

from zslkeras.benchmarks import filters, shapes


@pytest.fixture(scope="module")
def pictures():
    embeddings, *_ = shapes.class_table()
    return shapes.draw_class(embeddings[3], 7, np.random.default_rng(0))[0]


def stripes(degrees, wavelength=5, colours=((255, 255, 255), (0, 0, 0))):
    """An image whose brightness waves along a direction `degrees` away from the x axis."""
    y, x = np.mgrid[:64, :64]
    angle = np.deg2rad(degrees)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi / wavelength * (x * np.cos(angle) + y * np.sin(angle)))
    first, second = np.array(colours)
    return np.round(wave[..., None] * first + (1 - wave[..., None]) * second).astype(np.uint8)


def test_oriented_filters_answer_their_own_orientation():
    pictures = np.stack([stripes(30 * k) for k in range(6)])
    fine = filters.levels(pictures)[0].mean(axis=(1, 2))
    light = fine[:, 1:7]  # channel 0 is the Gaussian
    np.testing.assert_array_equal(light.argmax(axis=1), np.arange(6))
    across = light[np.arange(6), (np.arange(6) + 3) % 6]
    assert (light.diagonal() > 5 * across).all()


def test_the_pyramid_is_a_scale():
    """Stripes twice as wide are found one level further on."""
    for wavelength, best in ((5, 0), (10, 1), (20, 2)):
        answers = [level[..., 1].mean() for level in filters.levels(stripes(0, wavelength)[None])]
        assert np.argmax(answers) == best


def test_opponent_filters_answer_their_own_colour():
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
    pictures = np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in colours.values()])
    means = dict(zip(colours, filters.levels(pictures)[2].mean(axis=(1, 2)), strict=True))
    red_green, blue_yellow = 7, 14
    for colour, channel in (("red", 0), ("green", 21)):
        assert means[colour][red_green + channel] > 0.2
        assert means[colour][red_green + 21 - channel] == 0
    for colour, channel in (("blue", 0), ("yellow", 21)):
        assert means[colour][blue_yellow + channel] > 0.2
        assert means[colour][blue_yellow + 21 - channel] == 0
    assert abs(means["blue"][red_green]) < 1e-6


def test_a_flat_picture_has_no_orientation():
    answers = filters.maps(np.full((1, 64, 64, 3), (200, 30, 90), np.uint8))
    oriented = np.arange(126) % 7 != 0
    assert answers[..., oriented].max() < 1e-6
    assert answers[..., ~oriented].max() > 0.2


def test_filters_against_a_loop(pictures):
    """One position of one filter, computed from the docstring with loops."""
    picture = pictures[5] / 255 - 0.5
    light = picture.mean(axis=-1)
    y, x = np.mgrid[-4:5, -4:5]
    blob = np.exp(-(x**2 + y**2) / 8)
    blob /= blob.sum()
    angle = np.deg2rad(60)
    wave = np.cos(2 * np.pi / 5 * (x * np.cos(angle) + y * np.sin(angle)))
    gabor = blob * wave - blob * (blob * wave).sum()
    gabor /= np.abs(gabor).sum()
    positive = negative = 0.0
    for i in range(20, 24):
        for j in range(36, 40):
            answer = (light[i - 4 : i + 5, j - 4 : j + 5] * gabor).sum()
            positive, negative = positive + max(answer, 0) / 16, negative + max(-answer, 0) / 16
    computed = filters.levels(pictures[5:6])[0][0, 5, 9]
    np.testing.assert_allclose(computed[[3, 24]], [positive, negative], rtol=1e-4, atol=1e-6)


def test_maps_and_pooled_are_made_of_the_levels(pictures):
    fine, middle, coarse = filters.levels(pictures)
    maps, pooled = filters.maps(pictures), filters.pooled(pictures)
    np.testing.assert_allclose(maps[:, 2, 5, :42], fine[:, 4:6, 10:12].mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(maps[..., 42:84], middle, atol=1e-6)
    np.testing.assert_allclose(maps[:, 2, 5, 84:], coarse[:, 1, 2], atol=1e-6)
    expected = np.concatenate([maps.mean(axis=(1, 2)), maps.std(axis=(1, 2))], axis=1)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


def test_batch_size_changes_nothing(pictures):
    np.testing.assert_allclose(filters.pooled(pictures, batch_size=3), filters.pooled(pictures), atol=1e-6)


def test_filters_refuse_other_pictures():
    with pytest.raises(ValueError, match=r"images: got float32 \(1, 64, 64, 3\); wanted uint8"):
        filters.maps(np.zeros((1, 64, 64, 3), np.float32))
