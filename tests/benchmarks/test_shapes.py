"""The embedded benchmark: frozen to the byte, drawn by attributes, cached whole or not at all."""

import hashlib
import multiprocessing
import os

import numpy as np
import pytest

from zslkeras.benchmarks import filters, load, shapes
from zslkeras.errors import InputError

VERSION_AND_DIGEST = 1, "b6d5f271d5cb1d08"
RGB = {
    "red": np.array([1, 0, 0]),
    "yellow": np.array([1, 1, 0]),
    "green": np.array([0, 1, 0]),
    "cyan": np.array([0, 1, 1]),
    "blue": np.array([0, 0, 1]),
    "magenta": np.array([1, 0, 1]),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module")
def benchmark(root):
    return shapes.read("shapes", root, "images")


@pytest.fixture(scope="module")
def masks(root, benchmark):
    return shapes.object_masks(root)


@pytest.fixture
def small(monkeypatch):
    """Two or three images per class, where their number does not matter."""
    monkeypatch.setattr(shapes, "PICTURES", (2, 3))


def column(benchmark, attribute):
    return benchmark.class_embeddings[:, benchmark.attribute_names.index(attribute)]


def class_means(benchmark, values):
    return np.bincount(benchmark.labels, values) / np.bincount(benchmark.labels)


def correlation(benchmark, expected, values, classes=slice(None)):
    """Over classes, between what the embedding says (an attribute or an array) and the mean over images."""
    expected = column(benchmark, expected) if isinstance(expected, str) else expected
    return np.corrcoef(expected[classes], class_means(benchmark, values)[classes])[0, 1]


def files(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_frozen(benchmark, masks):
    hasher = hashlib.sha256("|".join(benchmark.class_names + benchmark.attribute_names).encode())
    hasher.update(np.ascontiguousarray(benchmark.inputs).tobytes())
    hasher.update(np.ascontiguousarray(masks).tobytes())
    for field in ("class_embeddings", "attribute_vectors"):
        hasher.update(getattr(benchmark, field).astype("<f4").tobytes())
    split = "seen_classes", "unseen_classes", "validation_classes", "train", "test_seen", "test_unseen"
    for field in ("labels", *split):
        hasher.update(getattr(benchmark, field).astype("<i4").tobytes())
    assert (shapes.VERSION, hasher.hexdigest()[:16]) == VERSION_AND_DIGEST


def test_counts(benchmark, masks):
    assert [len(benchmark.class_names), len(benchmark.seen_classes), len(benchmark.unseen_classes)] == [50, 40, 10]
    assert len(benchmark.validation_classes) == 10
    assert np.isin(benchmark.validation_classes, benchmark.seen_classes).all()
    assert len(set(benchmark.attribute_names)) == benchmark.class_embeddings.shape[1] == 33
    assert benchmark.attribute_vectors.shape == (33, 24)
    per_class = np.bincount(benchmark.labels)
    assert per_class.min() >= 50 and per_class.max() <= 70 and 2900 < per_class.sum() < 3100
    assert benchmark.inputs.shape == (*masks.shape, 3) == (per_class.sum(), 64, 64, 3)
    assert benchmark.inputs.dtype == np.uint8 and masks.dtype == bool
    rows = np.concatenate([benchmark.train, benchmark.test_seen, benchmark.test_unseen])
    np.testing.assert_array_equal(np.sort(rows), np.arange(per_class.sum()))
    held_out = np.bincount(benchmark.labels[benchmark.test_seen], minlength=50) / per_class
    assert np.abs(held_out[benchmark.seen_classes] - 0.2).max() < 0.01


def test_every_part_of_an_unseen_class_is_trained_on(benchmark):
    trained = np.setdiff1d(benchmark.seen_classes, benchmark.validation_classes)
    triples = [name.split("-") for name in benchmark.class_names]
    for part, members in enumerate((shapes.GROUPS["hue"], shapes.GROUPS["texture"], shapes.GROUPS["form"])):
        learnt = [triples[i][part] for i in trained]
        assert min(learnt.count(member) for member in members) >= 3


def test_names_follow_the_embeddings(benchmark):
    for i, name in enumerate(benchmark.class_names):
        for part, group in zip(name.split("-"), ("hue", "texture", "form"), strict=True):
            values = {member: column(benchmark, member)[i] for member in shapes.GROUPS[group]}
            assert max(values, key=values.get) == part
            assert abs(sum(values.values()) - 1) < 0.002
    assert benchmark.class_embeddings.min() >= 0 and benchmark.class_embeddings.max() <= 1


def test_attribute_vectors_of_a_group_are_related(benchmark):
    vectors = benchmark.attribute_vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    groups = np.repeat(np.arange(len(shapes.GROUPS)), [len(group) for group in shapes.GROUPS.values()])
    same, other = groups[:, None] == groups, np.eye(33, dtype=bool)
    cosines = vectors @ vectors.T
    assert cosines[same & ~other].mean() > 0.3 > 0.1 > abs(cosines[~same].mean())


def test_same_bytes_again(root, benchmark, masks, tmp_path):
    np.testing.assert_array_equal(shapes.read("shapes", tmp_path, "images").inputs, benchmark.inputs)
    np.testing.assert_array_equal(shapes.object_masks(tmp_path), masks)


def test_a_class_is_drawn_alone_as_among_the_others(benchmark, masks):
    embeddings, _, _, sizes = shapes.class_table()
    rows = benchmark.labels == 7
    pictures, objects = shapes.draw_class(embeddings[7], sizes[7], shapes._generator(0, 8))
    np.testing.assert_array_equal(pictures, benchmark.inputs[rows])
    np.testing.assert_array_equal(objects, masks[rows])


def test_another_draw(small, tmp_path):
    first, second = (load("shapes", tmp_path, "final", "images", draw=draw) for draw in (0, 1))
    assert len(set(first.class_names) & set(second.class_names)) < 40
    assert not set(first.class_embeddings.ravel()[:50]) >= set(second.class_embeddings.ravel()[:50])
    assert first.unseen_classes.tolist() != second.unseen_classes.tolist()
    assert np.mean(first.inputs[:50] == second.inputs[:50]) < 0.1
    assert first.digest != second.digest
    np.testing.assert_array_equal(first.attribute_vectors, second.attribute_vectors)


@pytest.mark.parametrize("draw", [-1, 1.5, "two"])
def test_refuses_a_draw(draw, tmp_path):
    with pytest.raises(InputError, match=r"draw: got .*; wanted 0, 1, 2"):
        load("shapes", tmp_path, draw=draw)
    assert not files(tmp_path)


def test_stage_tune_holds_no_test_rows(root, benchmark):
    tune = load("shapes", root, "tune", "images")
    published = np.concatenate([benchmark.test_seen, benchmark.test_unseen])
    used = np.concatenate([tune.train, tune.test_seen, tune.test_unseen])
    assert len(used) == len(benchmark.train) and not np.isin(used, published).any()
    names = {tune.class_names[i] for i in tune.unseen_classes}
    assert names == {benchmark.class_names[i] for i in benchmark.validation_classes}
    assert not {benchmark.class_names[i] for i in benchmark.unseen_classes} & set(tune.class_names)


def test_masks_cover_the_objects(benchmark, masks):
    area = masks.sum(axis=(1, 2))
    assert area.min() > 50 and area.max() < 0.6 * 64 * 64
    # Across the mask's border colours change more than along any other line of the image.
    pictures = benchmark.inputs.astype(np.float32)
    step = np.abs(np.diff(pictures, axis=2)).mean(axis=-1)
    border = masks[:, :, 1:] != masks[:, :, :-1]
    at_border = (step * border).sum(axis=(1, 2)) / border.sum(axis=(1, 2))
    elsewhere = (step * ~border).sum(axis=(1, 2)) / (~border).sum(axis=(1, 2))
    assert np.mean(at_border > 1.3 * elsewhere) > 0.9


def _excess(pictures, where, channel):
    """How far one colour channel lies above the others, on average over the pixels of each image's mask."""
    excess = pictures[..., channel] - (pictures.sum(axis=-1) - pictures[..., channel]) / 2
    return (excess * where).sum(axis=(1, 2)) / where.sum(axis=(1, 2))


def test_classes_draw_their_pictures(benchmark, masks):
    pictures = benchmark.inputs.astype(np.float32)
    objects, around = masks.sum(axis=(1, 2)), (~masks).sum(axis=(1, 2))
    grey = pictures.mean(axis=-1)
    rgb = sum(column(benchmark, hue)[:, None] * corner for hue, corner in RGB.items())
    for channel in range(3):
        expected = rgb[:, channel] - np.delete(rgb, channel, axis=1).mean(axis=1)
        assert correlation(benchmark, expected, _excess(pictures, masks, channel)) > 0.8
        assert abs(correlation(benchmark, expected, _excess(pictures, ~masks, channel))) < 0.4
    assert correlation(benchmark, "background light", (grey * ~masks).sum(axis=(1, 2)) / around) > 0.9
    assert correlation(benchmark, "background warm", _excess(pictures, ~masks, 0)) > 0.8
    lower = (grey * ~masks)[:, 48:].sum(axis=(1, 2)) / (~masks)[:, 48:].sum(axis=(1, 2))
    upper = (grey * ~masks)[:, :16].sum(axis=(1, 2)) / (~masks)[:, :16].sum(axis=(1, 2))
    assert correlation(benchmark, "background graded", lower - upper) > 0.8
    # A ring has little area for its size, so sizes are compared among the other forms.
    solid = column(benchmark, "ring") + column(benchmark, "cross") + column(benchmark, "star") < 0.5
    assert correlation(benchmark, "large", objects.astype(float), solid) > 0.7
    rough = np.abs(grey[:, :, 4::4] - grey[:, :, 3:-1:4]).mean(axis=(1, 2))
    assert correlation(benchmark, "background grainy", rough) > 0.7


def test_one_attribute_changes_what_it_names():
    """The same random numbers twice, one attribute changed: the rest of the image stays the same."""
    embedding = shapes.class_table()[0][0]

    def drawn(**values):
        changed = embedding.copy()
        for name, value in values.items():
            changed[shapes.ATTRIBUTES.index(name.replace("_", " "))] = value
        return shapes.draw_class(changed, 20, shapes._generator(0, 99))

    (small_pictures, small_masks), (large_pictures, large_masks) = drawn(large=0.2), drawn(large=0.8)
    assert (large_masks.sum(axis=(1, 2)) > small_masks.sum(axis=(1, 2))).all()
    neither = ~large_masks & ~small_masks
    assert np.mean(small_pictures[neither] == large_pictures[neither]) > 0.8  # all but the shadows
    (bare, bare_masks), (shaded, shaded_masks) = drawn(shadow=0.0), drawn(shadow=1.0)
    np.testing.assert_array_equal(bare_masks, shaded_masks)
    assert (shaded <= bare).all() and (shaded < bare)[~bare_masks].any()
    assert (shaded < bare)[bare_masks].mean() < 0.1  # the half-covered pixels of the border
    (dark, _), (bright, _) = drawn(bright=0.1), drawn(bright=0.9)
    assert (bright >= dark).all() and (bright > dark)[bare_masks].mean() > 0.5
    assert (bright > dark)[~bare_masks].mean() < 0.05  # the border again


def test_kinds(small, tmp_path):
    benchmark = shapes.read("shapes", tmp_path, "images")
    pictures = benchmark.inputs[:5]
    shapes_of = {"features": (252,), "maps": (8, 8, 126), "levels": ((16, 16, 42), (8, 8, 42), (4, 4, 42))}
    expected = {"features": filters.pooled, "maps": filters.maps, "levels": filters.levels}
    for kind, shape in shapes_of.items():
        read = shapes.read("shapes", tmp_path, kind)
        assert read.input_shape == shape
        taken, computed = read.take(np.arange(5)), expected[kind](pictures)
        for mine, wanted in zip(*((taken, computed) if kind == "levels" else ([taken], [computed])), strict=True):
            np.testing.assert_allclose(mine, wanted, atol=1e-3)
        for array in read.inputs if kind == "levels" else [read.inputs]:
            assert isinstance(array, np.memmap)
            assert array.min() >= 0 and array.max() <= 1 and np.isfinite(array).all()
            # A channel that never answers would be divided by nothing where features are standardized.
            assert array.reshape(-1, array.shape[-1]).std(axis=0).min() > 1e-4
        np.testing.assert_array_equal(read.labels, benchmark.labels)


def test_computes_only_what_is_asked_for(small, tmp_path):
    shapes.read("shapes", tmp_path, "features")
    assert [path.name for path in files(tmp_path)] == ["features.npy", "masks.npy", "pictures.npy"]
    changed = [path.stat().st_mtime_ns for path in files(tmp_path)]
    shapes.read("shapes", tmp_path, "features")
    assert [path.stat().st_mtime_ns for path in files(tmp_path)] == changed


def test_remains_of_a_killed_run_do_not_matter(small, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        patched.setattr(shapes.pathlib.Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            shapes.read("shapes", tmp_path, "images")
    remains = files(tmp_path)
    assert len(remains) == 1
    remains[0].write_bytes(remains[0].read_bytes()[:1000])
    again = shapes.read("shapes", tmp_path, "images")
    assert len(again.inputs) == len(again.labels)


def _read_in_a_process(root, barrier):
    barrier.wait(60)
    shapes.read("shapes", root, "images")


def test_two_processes_at_once(small, tmp_path):
    # Forked, so that both hold the small image counts; they draw with numpy alone.
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    pair = [context.Process(target=_read_in_a_process, args=(tmp_path, barrier)) for _ in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(60)
    assert [process.exitcode for process in pair] == [0, 0]
    assert [path.name for path in files(tmp_path)] == ["masks.npy", "pictures.npy"]


@pytest.mark.parametrize("size", [0, 50, 5000])
def test_damaged_file_is_named(small, tmp_path, size):
    shapes.read("shapes", tmp_path, "images")
    path = next(tmp_path.rglob("pictures.npy"))
    path.write_bytes(path.read_bytes()[:size])
    for inputs in ("images", "features"):
        with pytest.raises(InputError, match=r"pictures\.npy: damaged .*; delete it"):
            shapes.read("shapes", tmp_path, inputs)
    path.unlink()
    assert len(shapes.read("shapes", tmp_path, "images").inputs)


def test_unwritable_root_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "_draw", lambda draw: pytest.fail("drew before it knew where to write"))
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InputError, match=r"data/shapes-v\d+/draw0: cannot be written .*; wanted a data root"):
        shapes.read("shapes", tmp_path / "data", "images")
