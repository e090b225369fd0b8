"""Figures, by what is drawn: which map under which title, what colour where, and which points belong together."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from zslkeras.figures import plots


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Calls a function of `plots` and returns the figure that it wrote."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)

    def draw(function, *args):
        function(tmp_path / "figure.png", *args)
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
        return figures[-1]

    yield draw
    monkeypatch.undo()
    plt.close("all")


def peaked(row, column, side=4):
    heat = np.full((side, side), 0.1)
    heat[row, column] = 0.4
    return heat


PICTURE = np.full((32, 32, 3), 100, np.uint8)
ROWS = {"one": [("red\n0.9", peaked(0, 1)), ("blue\n0.8", peaked(2, 2))], "other": [("red\n0.5", peaked(3, 0))]}


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def pixels_of(figure, axes):
    """RGB [h, w, 3] in 0..1 of what is inside `axes`."""
    figure.canvas.draw()
    left, bottom, right, top = axes.get_window_extent().extents.round().astype(int)
    buffer = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    return buffer[len(buffer) - top : len(buffer) - bottom, left:right]


def heat_of(pixels):
    """How much redder than blue: the picture and the low end of the heat are neither."""
    return pixels[..., 0] - pixels[..., 2]


def test_attention_has_a_panel_a_map_and_the_picture(drawn):
    figure = drawn(plots.attention, PICTURE, "a cat\nunseen class", ROWS)
    assert titles(figure) == ["red\n0.9", "blue\n0.8", "red\n0.5", "a cat\nunseen class", ""]  # the last is the bar
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == ["one", "", "other"]
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), PICTURE)


def test_attention_without_a_picture(drawn):
    figure = drawn(plots.attention, None, "a cat\nunseen class", ROWS)
    assert titles(figure) == ["red\n0.9", "blue\n0.8", "red\n0.5", ""]
    assert figure.get_suptitle() == "a cat\nunseen class"


@pytest.mark.parametrize("picture", [PICTURE, PICTURE[:, :24], None], ids=["square", "upright", "none"])
def test_a_peak_is_drawn_over_the_part_of_the_picture_it_stands_for(drawn, picture):
    for row, column in ((0, 1), (2, 2), (3, 0)):
        figure = drawn(plots.attention, picture, "", {"": [("", peaked(row, column))]})
        heat = heat_of(pixels_of(figure, figure.axes[0]))
        hot = np.argwhere(heat > 0.9 * heat.max()).mean(axis=0) / heat.shape  # middle of the glow, in 0..1
        # Towards a border the glow is cut off, so its middle lies anywhere in the cell.
        np.testing.assert_allclose(hot, [(row + 0.5) / 4, (column + 0.5) / 4], atol=0.1)


def test_maps_are_brought_up_bilinearly(drawn):
    """Half-way between a cell at the peak and one of zero the heat is half of it."""
    step = np.repeat([[1.0, 0.0]], 2, axis=0)
    figure = drawn(plots.attention, None, "", {"": [("", step)]})
    pixels = pixels_of(figure, figure.axes[0])
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    np.testing.assert_allclose(middle, plt.cm.inferno(0.5)[:3], atol=0.03)


def test_a_map_is_scaled_by_its_own_peak_and_not_by_its_lowest_value(drawn):
    """A nearly flat map looks flat; ten times less attention everywhere looks the same."""
    flat = np.full((4, 4), 0.99) + 0.01 * np.eye(4)
    figure = drawn(plots.attention, None, "", {"": [("", flat), ("", 0.1 * peaked(1, 1)), ("", peaked(1, 1))]})
    first, second, third = (pixels_of(figure, axes)[3:-3, 3:-3] for axes in figure.axes[:3])
    assert np.ptp(first, axis=(0, 1)).max() < 0.1
    height, width = np.minimum(second.shape[:2], third.shape[:2])
    assert np.abs(second[:height, :width] - third[:height, :width]).mean() < 0.02
    assert np.ptp(third, axis=(0, 1)).max() > 0.5


def test_where_attention_is_low_the_picture_shows(drawn):
    picture = PICTURE.copy()
    picture[:, 16:] = 250
    figure = drawn(plots.attention, picture, "", {"": [("", np.diag([1.0, 0.0, 0.0, 0.0]))]})
    pixels = pixels_of(figure, figure.axes[0])
    left, right = (pixels[-10, place] for place in (pixels.shape[1] // 4, -pixels.shape[1] // 4))
    np.testing.assert_allclose(left, np.full(3, 100 / 255), atol=0.02)
    np.testing.assert_allclose(right, np.full(3, 250 / 255), atol=0.02)


def test_a_map_of_zeros_is_drawn(drawn):
    figure = drawn(plots.attention, PICTURE, "", {"": [("", np.zeros((4, 4)))]})
    assert heat_of(pixels_of(figure, figure.axes[0])).max() < 0.05


def test_a_sheet_of_views_has_a_row_a_picture_and_the_views_of_a_draw_side_by_side(drawn):
    pictures = np.stack([PICTURE, PICTURE // 2])
    views = [[[np.full((8, 8, 3), 100.0 * k + 10 * d + v) for v in range(2)] for d in range(3)] for k in range(2)]
    figure = drawn(plots.views, pictures, views)
    assert titles(figure) == ["image", *["view 1", "view 2"] * 3, *[""] * 7]
    shown = [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes]
    assert shown == [100, 0, 1, 10, 11, 20, 21, 50, 100, 101, 110, 111, 120, 121]
    left = np.array([axes.get_position().x0 for axes in figure.axes]).reshape(2, 7)
    np.testing.assert_array_equal(left[0], left[1])
    gaps = np.diff(left[0])
    np.testing.assert_allclose(gaps[[1, 3, 5]], gaps[1])
    assert (gaps[[0, 2, 4]] > 1.1 * gaps[1]).all()  # a gap before each draw


def test_channel_weights_have_a_panel_a_picture_on_one_scale(drawn):
    weights = np.linspace(0, 0.6, 6).reshape(2, 3)
    figure = drawn(plots.channel_weights, {"a cat": weights, "a dog": 0.5 * weights}, ["red", "striped"])
    assert titles(figure)[:2] == ["a cat", "a dog"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["red", "striped"]
    for axes, wanted in zip(figure.axes, (weights, 0.5 * weights), strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), wanted)
        assert axes.images[0].get_clim() == (0, 1)


def test_the_curve_has_a_colour_for_the_model_and_each_yardstick(drawn):
    ends = np.array([0.0, 0.5]), np.array([0.6, 0.0]), (0.2, 0.3), 0.15
    figure = drawn(plots.seen_unseen_curve, dict.fromkeys(("aspn", "ESZSL", "prototypes"), ends))
    texts = figure.axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == [f"{name}, area 0.150" for name in ("aspn", "ESZSL", "prototypes")]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 3


def test_embeddings_have_a_panel_a_group_and_a_space(drawn):
    generator = np.random.default_rng(0)
    points = {
        group: {space: generator.random((6, 2)) for space in ("baseline", "both")} for group in ("seen", "unseen")
    }
    classes = {"seen": ["cat", "dog", "cat", "dog", "bee", "bee"], "unseen": ["ant"] * 6}
    figure = drawn(plots.embeddings, points, classes)
    assert titles(figure) == ["baseline", "both", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["seen", "", "unseen", ""]
    legends = [axes.get_legend() for axes in figure.axes]
    assert [legend and [text.get_text() for text in legend.get_texts()] for legend in legends] == [
        None,
        ["bee", "cat", "dog"],
        None,
        ["ant"],
    ]
    for axes, space in zip(figure.axes[:2], ("baseline", "both"), strict=True):
        for collection in axes.collections:
            own = np.array(classes["seen"]) == collection.get_label()
            np.testing.assert_array_equal(collection.get_offsets(), points["seen"][space][own])


def test_a_class_looks_the_same_in_all_spaces_and_like_no_other(drawn):
    names = [f"class {i}" for i in range(10)]
    points = {"seen": {space: np.arange(20.0).reshape(10, 2) for space in ("one", "other")}}
    figure = drawn(plots.embeddings, points, {"seen": names})
    looks = [
        [(*one.get_facecolor()[0], one.get_paths()[0].vertices.tobytes()) for one in axes.collections]
        for axes in figure.axes
    ]
    assert looks[0] == looks[1]
    assert len(set(looks[0])) == 10
    assert len({look[:3] for look in looks[0]}) == 10 and len({look[-1] for look in looks[0]}) == 5
