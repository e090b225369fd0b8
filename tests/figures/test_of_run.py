"""What is drawn of a finished run: which pictures, maps, classes and points; and where attention points."""

import csv
import dataclasses
import functools
import io
import pathlib
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import run as run_command
from experiments import screen
from tests.support.commands import assert_refused, call, result_of
from tests.support.tiny import SIDE, tiny, write_colours
from zslkeras import benchmarks, protocol, runs
from zslkeras.benchmarks import tune_stage
from zslkeras.errors import InputError
from zslkeras.evaluation import metrics
from zslkeras.figures import of_run, plots
from zslkeras.models import MODELS
from zslkeras.models.base import ZeroShotModel
from zslkeras.models.config import Config
from zslkeras.training.machine import Machine


@dataclasses.dataclass(frozen=True)
class LookerConfig(Config):
    learning_rate: float = 1.0
    epochs: int = 2
    batch_size: int = 16
    sampler: str = "plain"


class Looker(ZeroShotModel):
    """The least that draws everything: attributes are looked up in regions by one matrix."""

    Config = LookerConfig
    eats = "maps"
    ablations = {"full": {}, "slow": {"learning_rate": 0.1}}
    default_seeds = 1
    losses_reported = ("loss",)

    def __init__(self, config, input_shape, class_embeddings, *args, **kwargs):
        super().__init__(config, input_shape, class_embeddings, *args, **kwargs)
        shape = input_shape[-1], class_embeddings.shape[1]
        self.lookup = self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(), name="lookup")

    def compile(self, optimizer=None, **kwargs):
        super().compile(optimizer=optimizer or keras.optimizers.SGD(self.config.learning_rate), **kwargs)
        self.optimizer.build(self.trainable_variables)

    def found(self, inputs):
        """[B, A, H, W]"""
        return tf.einsum("bhwf,fa->bahw", tf.cast(inputs, tf.float32), self.lookup.value)

    def attention(self, inputs):
        found = self.found(inputs)
        of_class = tf.einsum("bahw,ca->bchw", found, self.class_embeddings.value)
        return {"part_to_whole": tf.exp(found), "class": tf.exp(of_class)}

    def attribute_scores(self, inputs):
        return {"part_to_whole": tf.reduce_mean(self.found(inputs), axis=[2, 3])}

    def embed(self, inputs):
        pooled = tf.reduce_mean(tf.cast(inputs, tf.float32), axis=[1, 2])
        return {"part_to_whole": self.attribute_scores(inputs)["part_to_whole"], "baseline": pooled}

    def score_classes(self, inputs, class_embeddings):
        return tf.matmul(self.attribute_scores(inputs)["part_to_whole"], class_embeddings, transpose_b=True)

    def train_step(self, data):
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self.score_classes(inputs, self.class_embeddings.value)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        self.minimize(tape, loss, self.optimizer, self.trainable_variables)
        return self.report(loss=loss)


class Weigher(Looker):
    """Lets all of a picture's channels through to an attribute, as much as the attribute scores."""

    weighs_channels = True

    def channel_weights(self, inputs):
        scores = tf.sigmoid(self.attribute_scores(inputs)["part_to_whole"])
        return tf.repeat(scores[..., None], inputs.shape[-1], axis=2)


@dataclasses.dataclass(frozen=True)
class ViewerConfig(LookerConfig):
    image_size: int = 16


class Viewer(Looker):
    """Trains on a picture's upper half, darkened at random, and its lower half."""

    Config = ViewerConfig
    eats = "images"
    weighs_channels = False

    def prepare(self, picture, seed):
        picture = tf.cast(picture, tf.float32)
        return tf.random.stateless_uniform([], seed) * picture[:16], picture[16:]

    def train_step(self, data):
        (first_view, second_view), labels = data
        return super().train_step((tf.concat([first_view, second_view], axis=1), labels))


class OfClasses(Looker):
    """Attention over classes alone."""

    def attention(self, inputs):
        return {"class": super().attention(inputs)["class"]}


@dataclasses.dataclass
class Shelf:
    """What `protocol.Data` is, out of memory: {kind: Benchmark}."""

    benchmarks: dict
    name: str = "tiny"
    root: str | None = None
    options: dict = dataclasses.field(default_factory=dict)

    def load(self, stage, inputs, fold=0):
        if inputs not in self.benchmarks:
            raise InputError(f"no {inputs} on the shelf; wanted some")
        return tune_stage(self.benchmarks[inputs], fold) if stage == "tune" else self.benchmarks[inputs]


@functools.cache
def shelf():
    return Shelf({kind: tiny(kind) for kind in ("maps", "images")})


@functools.cache
def finished(model, **overrides):
    """The experiment and what came of it; weights are those after two epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "looker", model)
        experiment = experiment_of(model, None, **overrides)
        return protocol.finish(experiment, protocol.fixed(experiment, 0))


def experiment_of(model, out, data=None, **overrides):
    return protocol.Experiment("looker", model.Config(**overrides), data or shelf(), Machine(deterministic=False), out)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Runs a function of `figures` on runs of the model; returns what it handed to `plots`, by file."""
    calls = {}
    monkeypatch.setattr(plots, "attention", lambda path, *args: calls.update({path: args}))
    monkeypatch.setattr(plots, "embeddings", lambda path, *args: calls.update({path: args}))

    def draw(count, names=(None,), model=Looker, data=None, **overrides):
        monkeypatch.setitem(MODELS, "looker", model)
        runs = {}
        for name in names:
            out = tmp_path / name if name else tmp_path
            out.mkdir(exist_ok=True)
            overrides = model.ablations[name] if name else overrides
            runs[name] = experiment_of(model, out, data, **overrides), finished(model, **overrides)
        return of_run.write_attention(tmp_path, runs, count), calls

    return draw


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def row_in(path):
    return int(re.search(r"(\d+)\.png", path.name)[1])


def with_rows(benchmark, order):
    """The same pictures in another order."""
    place = np.argsort(order)
    sets = {name: place[getattr(benchmark, name)] for name in ("train", "test_seen", "test_unseen")}
    return dataclasses.replace(benchmark, inputs=benchmark.inputs[order], labels=benchmark.labels[order], **sets)


# Beside the yardsticks.


@pytest.fixture
def beside(monkeypatch, tmp_path):
    """Draws a run of the model under a name beside yardsticks; returns the labels in curve.png and confusion.png."""

    def draw(name, yardsticks):
        monkeypatch.setitem(MODELS, name, Looker)
        labels = {}
        for figure in ("seen_unseen_curve", "confusion"):
            monkeypatch.setattr(plots, figure, lambda path, runs, *_: labels.update({path.name: list(runs)}))
        experiment = dataclasses.replace(experiment_of(Looker, tmp_path), model=name)
        of_run.write_plots(experiment, [finished(Looker)], yardsticks)
        return labels["curve.png"], labels["confusion.png"]

    return draw


def test_curves_are_drawn_beside_both_yardsticks_and_confusion_beside_eszsl(beside):
    eszsl, prototypes = (dataclasses.replace(finished(Looker)) for _ in range(2))
    both = {"eszsl": eszsl, "prototypes": prototypes}
    assert beside("looker", both) == (["looker", "ESZSL", "prototypes"], ["ESZSL", "looker"])
    assert beside("looker", {}) == (["looker"], ["looker"])


@pytest.mark.parametrize(
    ("name", "itself", "other_settings"),
    [
        (
            "eszsl",
            (["eszsl", "prototypes"], ["eszsl"]),
            (["eszsl", "default ESZSL", "prototypes"], ["default ESZSL", "eszsl"]),
        ),
        (
            "prototypes",
            (["prototypes", "ESZSL"], ["ESZSL", "prototypes"]),
            (["prototypes", "ESZSL", "default prototypes"], ["ESZSL", "prototypes"]),
        ),
    ],
)
def test_a_yardstick_is_not_drawn_beside_itself_but_its_other_settings_are(beside, name, itself, other_settings):
    both = {yardstick: dataclasses.replace(finished(Looker)) for yardstick in protocol.YARDSTICKS}
    assert beside(name, both | {name: finished(Looker)}) == itself
    assert beside(name, both) == other_settings


def test_without_pooled_features_the_result_has_the_reason_and_no_yardstick(monkeypatch):
    monkeypatch.setitem(MODELS, "looker", Looker)
    experiment, one = experiment_of(Looker, None), finished(Looker)
    yardsticks = protocol.yardsticks(experiment, [one])
    assert yardsticks == ({}, "no features on the shelf; wanted some")
    result = runs.result(experiment, [one], yardsticks, 0.0)
    assert result["yardsticks"] == {} and result["without_yardsticks"] == yardsticks[1]


# Attention.


def test_pictures_are_drawn_by_turns_of_unseen_and_seen_classes(drawn, tmp_path):
    lack, calls = drawn(5)
    assert lack is None
    table = rows_of(tmp_path / "attention.csv")
    assert [row["group"] for row in table] == ["unseen", "seen", "unseen", "seen", "unseen"]
    assert [row["file"] for row in table] == [path.name for path in calls]
    benchmark = shelf().load("final", "maps")
    for row, (path, (picture, heading, _)) in zip(table, calls.items(), strict=True):
        number = int(row["row"])
        assert number == row_in(path)
        assert number in (benchmark.test_unseen if row["group"] == "unseen" else benchmark.test_seen)
        assert row["class"] == benchmark.class_names[benchmark.labels[number]]
        assert heading == f"{row['class']}\n{row['group']} class"
        np.testing.assert_array_equal(picture, shelf().load("final", "images").inputs[number])


def test_fewer_pictures_are_the_first_of_more_and_all_is_the_most(drawn):
    few, more = list(drawn(2)[1]), list(drawn(6)[1])
    assert more[:2] == few
    benchmark = shelf().load("final", "maps")
    rows = {row_in(path) for path in drawn(10_000)[1]}
    assert rows == {*benchmark.test_seen, *benchmark.test_unseen}


def test_attributes_are_the_highest_scored_with_their_own_maps(drawn):
    benchmark = shelf().load("final", "maps")
    lookup = next(w for w in finished(Looker).weights if w.shape == (16, 6))
    for path, (_, _, lines) in drawn(3)[1].items():
        found = benchmark.inputs[row_in(path)].astype(np.float64) @ lookup
        scores = found.mean(axis=(0, 1))
        panels = lines["part → whole"]
        best = sorted(range(6), key=lambda a: -scores[a])[: of_run.TOP_ATTRIBUTES]
        assert [title for title, _ in panels] == [f"attribute{a}\n{scores[a]:z.2f}" for a in best]
        for (_, heat), a in zip(panels, best, strict=True):
            np.testing.assert_allclose(heat, np.exp(found[..., a]), rtol=1e-4)


def test_classes_are_the_true_one_and_the_highest_scored_wrong_ones(drawn):
    benchmark = shelf().load("final", "maps")
    lookup = next(w for w in finished(Looker).weights if w.shape == (16, 6))
    for path, (_, _, lines) in drawn(4)[1].items():
        found = benchmark.inputs[row_in(path)].astype(np.float64) @ lookup @ benchmark.class_embeddings.T
        scores, true = found.mean(axis=(0, 1)), benchmark.labels[row_in(path)]
        wrong = sorted(set(range(12)) - {true}, key=lambda c: -scores[c])[:3]
        assert [title for title, _ in lines["looker"]] == [f"class{c}\n{scores[c]:z.2f}" for c in (true, *wrong)]
        for (_, heat), c in zip(lines["looker"], (true, *wrong), strict=True):
            np.testing.assert_allclose(heat, np.exp(found[..., c]), rtol=1e-4)


def test_an_ablation_draws_attributes_in_its_own_folder_and_classes_together(drawn, tmp_path):
    _, calls = drawn(2, names=("full", "slow"))
    lines = {path.parent.name: list(args[2]) for path, args in calls.items()}
    assert lines == {
        "full": ["part → whole"],
        "slow": ["part → whole"],
        tmp_path.name: ["slow", "full"],
    }
    assert {path.parent.name for path in tmp_path.rglob("attention.csv")} == set(lines)
    for path, (_, _, of_runs) in calls.items():
        if path.parent == tmp_path:
            names = [[title.split("\n")[0] for title, _ in line] for line in of_runs.values()]
            assert names[0] == names[1]  # the same classes, so that rows compare
            assert any(np.abs(a - b).max() > 1e-6 for (_, a), (_, b) in zip(*of_runs.values(), strict=True))


def test_a_model_without_scores_of_attributes_draws_its_classes(drawn, monkeypatch):
    monkeypatch.setattr(OfClasses, "attribute_scores", Looker.attribute_scores)
    assert {tuple(args[2]) for args in drawn(2, model=OfClasses)[1].values()} == {("looker",)}


@pytest.mark.parametrize("wrong", ["none", "another order", "within a class"])
def test_where_pictures_are_missing_maps_are_drawn_alone_and_it_is_said(drawn, wrong):
    maps, images = (shelf().load("final", kind) for kind in ("maps", "images"))
    benchmarks = {"maps": maps}
    if wrong == "another order":
        benchmarks["images"] = with_rows(images, np.arange(len(images.labels))[::-1])
    if wrong == "within a class":  # all labels agree, and every picture stands beside another's maps
        order = np.arange(len(images.labels)).reshape(12, -1)[:, ::-1].ravel()
        benchmarks["images"] = with_rows(images, order)
        np.testing.assert_array_equal(benchmarks["images"].labels, maps.labels)
    lack, calls = drawn(3, data=Shelf(benchmarks))
    assert lack.startswith("attention is drawn without the images behind it: ") and "\n" not in lack
    assert ("no images on the shelf" if wrong == "none" else "not those of the images") in lack
    assert len(calls) == 3 and all(picture is None for picture, _, _ in calls.values())


@pytest.mark.parametrize(("features", "share"), [("filters", 0.25), ("mobilenetv2", 0.0)])
def test_photographs_are_drawn_as_their_features_saw_them(drawn, tmp_path, features, share):
    """The filter bank squeezes a picture, everything else cuts out its middle, where these have no white."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10] = 255
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    maps, images = (shelf().load("final", kind) for kind in ("maps", "images"))
    images = dataclasses.replace(images, inputs=np.full(len(maps.labels), str(tmp_path / "picture.png")))
    lack, calls = drawn(1, data=Shelf({"maps": dataclasses.replace(maps, features=features), "images": images}))
    assert lack is None
    ((picture, _, _),) = calls.values()
    assert picture.shape[0] == picture.shape[1] and picture.dtype == np.uint8
    assert np.mean(picture > 128) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("grizzly+bear", "grizzly bear"),
        ("has_bill_shape::hooked_seabird", "bill shape: hooked seabird"),
        ("attribute_to_visual", "attribute → visual"),
        ("3.5_mm", "5 mm"),
        ("red-plain-star", "red-plain-star"),
    ],
)
def test_names_are_words(name, words):
    assert of_run.readable(name) == words


# Models of finished runs.


def test_a_model_is_rebuilt_as_it_was_judged_also_from_its_checkpoint(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "looker", Looker)
    experiment = dataclasses.replace(experiment_of(Looker, tmp_path), logs=False)
    first = protocol.finish(experiment, protocol.fixed(experiment, 0))
    monkeypatch.setattr(Looker, "train_step", None)  # nothing is trained again
    again = protocol.finish(experiment, protocol.fixed(experiment, 0))
    benchmark = shelf().load("final", "maps")
    rows = np.concatenate([benchmark.test_seen, benchmark.test_unseen])
    for one in (first, again):
        scores = protocol.rebuilt(experiment, one, benchmark)(tf.constant(benchmark.take(rows))).numpy()
        outcomes = metrics.outcomes(scores, benchmark.labels[rows], benchmark.seen_classes, benchmark.unseen_classes)
        np.testing.assert_allclose(outcomes.flip, first.outcomes.flip, atol=1e-5)
    started = protocol.rebuilt(experiment, first, benchmark, trained=False)
    keras.utils.set_random_seed(0)
    fresh = Looker.for_benchmark(benchmark, Looker.Config(), 0)
    np.testing.assert_array_equal(started.lookup.numpy(), fresh.lookup.numpy())
    assert np.abs(started.lookup.numpy() - protocol.rebuilt(experiment, first, benchmark).lookup.numpy()).max() > 1e-3


# Views.


def test_views_are_those_that_training_makes_of_training_pictures(monkeypatch, tmp_path):
    sheets = []
    monkeypatch.setattr(plots, "views", lambda *args: sheets.append(args))
    monkeypatch.setitem(MODELS, "looker", Viewer)
    experiment, done = experiment_of(Viewer, tmp_path), finished(Viewer)
    of_run.write_views(experiment, done, 3)
    of_run.write_views(experiment, done, 2)
    (path, pictures, drawn), (_, fewer, _) = sheets
    benchmark = shelf().load("final", "images")
    assert path == tmp_path / "views.png" and len(pictures) == len(drawn) == 3
    np.testing.assert_array_equal(fewer, pictures[:2])
    shares = []
    for picture, of_picture in zip(pictures, drawn, strict=True):
        (row,) = np.flatnonzero((benchmark.inputs == picture).all(axis=(1, 2, 3)))
        assert row in benchmark.train
        for first, second in of_picture:
            np.testing.assert_array_equal(second, picture[16:])
            shares.append(first.sum() / picture[:16].sum())
            np.testing.assert_allclose(first, shares[-1] * picture[:16], rtol=1e-4, atol=1e-2)
    assert len(np.unique(np.round(shares, 4))) == 3 * of_run.VIEW_DRAWS


def test_a_sheet_of_views_is_written_by_its_flag(pets, monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "looker", Viewer)
    ran = pets("--plot_views", 2)
    assert ran.code == 0, ran.err
    assert (tmp_path / "out" / "views.png").read_bytes().startswith(b"\x89PNG")


# t-SNE.


@pytest.fixture
def scattered(monkeypatch, tmp_path):
    """t-SNE of a benchmark of 12 + 12 classes; what was handed to `plots`, and the table."""
    benchmark = tiny("maps", classes=24, unseen=12, rows=20, noise=0.02)
    calls = []
    monkeypatch.setattr(plots, "embeddings", lambda *args: calls.append(args))
    monkeypatch.setitem(MODELS, "looker", Looker)
    monkeypatch.setattr(of_run, "TSNE_POINTS", 160)
    experiment = experiment_of(Looker, tmp_path, Shelf({"maps": benchmark}))
    model = Looker.for_benchmark(benchmark, Looker.Config())
    weights = [variable.numpy() for variable in model.variables]
    done = protocol.Finished(protocol.fixed(experiment, 0), None, [], weights)

    def scatter():
        of_run.write_tsne(experiment, done)
        return calls[-1], rows_of(tmp_path / "tsne.csv")

    return benchmark, scatter


def test_tsne_shows_ten_classes_of_each_group_in_every_space(scattered):
    benchmark, scatter = scattered
    (path, points, classes), table = scatter()
    assert path.name == "tsne.png"
    assert [list(spaces) for spaces in points.values()] == [["baseline", "part → whole"]] * 2
    # Seen classes have four test pictures each, and of unseen ones as many are taken as the limit allows: eight.
    assert {group: len(names) for group, names in classes.items()} == {"seen classes": 40, "unseen classes": 80}
    for group, names in classes.items():
        assert len(set(names)) == 10
        ids = benchmark.unseen_classes if group == "unseen classes" else benchmark.seen_classes
        assert set(names) <= {benchmark.class_names[c] for c in ids}
        assert {xy.shape for xy in points[group].values()} == {(len(names), 2)}
    assert len(table) == 2 * (40 + 80)
    for row in table:
        assert benchmark.class_names[benchmark.labels[int(row["row"])]] == row["class"]
        group = benchmark.test_unseen if row["group"] == "unseen" else benchmark.test_seen
        assert int(row["row"]) in group
    for space in ("baseline", "part_to_whole"):
        own = [row for row in table if (row["space"], row["group"]) == (space, "seen")]
        xy = points["seen classes"][of_run.readable(space)]
        np.testing.assert_allclose([(float(row["x"]), float(row["y"])) for row in own], xy, atol=1e-4)
        assert [row["class"] for row in own] == classes["seen classes"]


def test_tsne_is_the_same_each_time_and_keeps_neighbours(scattered):
    _, scatter = scattered
    (_, points, classes), table = scatter()
    assert scatter()[1] == table
    xy, names = points["unseen classes"]["baseline"], np.array(classes["unseen classes"])
    distance = np.linalg.norm(xy[:, None] - xy, axis=2) + 1e9 * np.eye(len(xy))
    assert np.mean(names[distance.argmin(axis=1)] == names) > 0.8  # a class of ten; they hardly overlap


def test_a_group_of_a_few_points_has_no_panels(scattered, monkeypatch):
    _, scatter = scattered
    monkeypatch.setattr(of_run, "FEWEST_POINTS", 60)
    (_, points, _), table = scatter()
    assert list(points) == ["unseen classes"] and {row["group"] for row in table} == {"unseen"}


# Pointing.


def test_pointing_by_hand():
    masks = np.zeros((4, 8, 8), bool)
    masks[:, 3, 4] = True  # in cell (1, 2) of 4 x 4, and in (0, 1) of 2 x 2
    maps = np.zeros((4, 4, 4))
    maps[0, 1, 2] = 1  # on it
    maps[1, 1, 1] = 1  # beside it
    maps[2, 1, 2] = maps[2, 3, 3] = 1  # one of two peaks; the last map is flat
    hits, chances = metrics.pointing(maps, masks)
    np.testing.assert_allclose(hits, [1, 0, 1 / 2, 1 / 16])
    np.testing.assert_allclose(chances, np.full(4, 1 / 16))
    hits, chances = metrics.pointing(np.array([[[0, 1], [0, 0]], [[0, 0], [1, 0]]]), masks[:2])
    np.testing.assert_allclose(hits, [1, 0])
    np.testing.assert_allclose(chances, [1 / 4, 1 / 4])


def test_every_pixel_belongs_to_one_cell_where_sides_do_not_divide():
    """7 x 5 pixels under 3 x 2 cells: rows 0-1, 2-3, 4-6 and columns 0-1, 2-4."""
    place = np.arange(35)
    masks = np.eye(35, dtype=bool).reshape(35, 7, 5)
    _, chances = metrics.pointing(np.zeros((35, 3, 2)), masks)
    np.testing.assert_allclose(chances, np.full(35, 1 / 6))
    rows, columns = np.array([0, 0, 1, 1, 2, 2, 2])[place // 5], np.array([0, 0, 1, 1, 1])[place % 5]
    maps = np.zeros((35, 3, 2))
    maps[place, rows, columns] = 1
    np.testing.assert_array_equal(metrics.pointing(maps, masks)[0], np.ones(35))


@pytest.mark.parametrize("masks", [np.ones((1, 8, 8), bool), np.ones((2, 2, 8), bool)])
def test_pointing_refuses_masks_that_do_not_fit(masks):
    with pytest.raises(ValueError, match="expected a mask per map"):
        metrics.pointing(np.zeros((2, 4, 4)), masks)


class Pointer(Looker):
    """Trained (its weights are ones), even attributes and classes point at the object and odd ones past it."""

    def attention(self, inputs):
        aim = tf.reduce_mean(self.lookup.value)

        def alternate(number):
            return tf.stack([aim * tf.cast(inputs[..., i % 2], tf.float32) for i in range(number)], axis=1)

        classes, attributes = self.class_embeddings.shape
        return {"part_to_whole": alternate(attributes), "class": alternate(classes)}


@pytest.fixture
def pointed(monkeypatch):
    """A benchmark of objects of one cell each; `pointing` of a Pointer over several seeds."""
    benchmark = tiny("maps")
    rows = np.arange(len(benchmark.labels))
    cells = np.zeros((len(rows), SIDE**2, 16), np.float16)
    cells[rows, rows % 16, 0] = cells[rows, (rows + 5) % 16, 1] = 1
    masks = np.zeros((len(rows), SIDE**2), bool)
    masks[rows, rows % 16] = True
    masks = masks.reshape(-1, SIDE, SIDE).repeat(2, axis=1).repeat(2, axis=2)
    names = ("red", "star", "shadow", "background warm", "large", "striped")
    inputs = cells.reshape(-1, SIDE, SIDE, 16)
    benchmark = dataclasses.replace(benchmark, name="shapes", inputs=inputs, attribute_names=names)
    asked = []
    monkeypatch.setattr(of_run.shapes, "object_masks", lambda *args: asked.append(args) or masks)
    monkeypatch.setattr(keras.initializers, "RandomNormal", lambda: "zeros")  # untrained: flat maps
    monkeypatch.setitem(MODELS, "looker", Pointer)
    data = Shelf({"maps": benchmark}, "shapes", "here", {"draw": 3})
    experiment = experiment_of(Pointer, pathlib.Path(), data)
    model = Pointer.for_benchmark(benchmark, Pointer.Config())
    trained = [np.ones_like(v) if v.shape == (16, 6) else v for v in (w.numpy() for w in model.variables)]
    # The second seed looks away: the lowest cells of the first are its peaks.
    away = [-value if value.shape == (16, 6) else value for value in trained]
    choices = [protocol.fixed(experiment, seed) for seed in (0, 1)]
    seeds = [protocol.Finished(choice, None, [], w) for choice, w in zip(choices, (trained, away), strict=True)]
    return benchmark, asked, lambda: of_run.pointing(experiment, seeds)["pointing"]


def test_pointing_counts_the_attributes_that_a_class_has(pointed):
    benchmark, asked, point = pointed
    table = point()
    assert asked == [("here", 3)]
    assert list(table) == ["part_to_whole", "class"]
    hits = {"attributes of the object": [], "all attributes": [], "true class": []}
    for row in (*benchmark.test_seen, *benchmark.test_unseen):
        label = benchmark.labels[row]
        hits["true class"].append(label % 2 == 0)
        for place, value in enumerate(benchmark.class_embeddings[label]):
            if value > 0.5:
                hits["all attributes"].append(place % 2 == 0)
                if place not in (2, 3):
                    hits["attributes of the object"].append(place % 2 == 0)
    for which, expected in hits.items():
        entry = table["class" if which == "true class" else "part_to_whole"][which]
        assert entry["maps"] == len(expected)
        assert 0 < np.mean(expected) < 1
        assert entry["trained"]["values"][0] == pytest.approx(np.mean(expected))
        # Odd attributes are -1 past the object, so their peaks are all other cells, the object's among them.
        assert entry["trained"]["values"][1] == pytest.approx(np.mean(~np.array(expected)) / 15)
        assert entry["trained"]["mean"] == pytest.approx(np.mean(entry["trained"]["values"]))
        assert entry["trained"]["std"] == pytest.approx(np.std(entry["trained"]["values"], ddof=1))
        assert entry["chance"] == pytest.approx(1 / 16)
        assert entry["untrained"]["values"] == pytest.approx([1 / 16, 1 / 16])


def test_pointing_on_the_screen():
    def entry(trained, untrained, chance):
        return {"trained": {"mean": trained}, "untrained": {"mean": untrained}, "chance": chance}

    table = {
        "part_to_whole": {"all attributes": entry(0.5, 0.25, 0.246)},
        "class": {"true class": entry(1.0, 0.1, 0.3)},
    }
    assert screen.pointing(table).splitlines() == [
        "                                     trained untrained    chance",
        "  part_to_whole, all attributes         50.0      25.0      24.6",
        "  class, true class                    100.0      10.0      30.0",
    ]


def test_pointing_is_for_attention_on_shapes_alone(monkeypatch):
    monkeypatch.setitem(MODELS, "looker", Looker)
    experiment = experiment_of(Looker, None)
    assert of_run.pointing(experiment, [finished(Looker)]) == {}
    blind = dataclasses.replace(experiment, model="eszsl", data=Shelf({}, "shapes"))
    assert of_run.pointing(blind, []) == {}


def test_what_is_not_on_the_object_are_attributes_of_shapes():
    assert set(of_run.NOT_ON_OBJECT) < set(of_run.shapes.ATTRIBUTES)
    assert "background warm" in of_run.NOT_ON_OBJECT and "outlined" not in of_run.NOT_ON_OBJECT


# The command line.


@pytest.fixture
def pets(monkeypatch, tmp_path, tiny_root):
    """Runs the model on a folder of ten classes of pictures, whose colours are their attributes, and nothing beside."""
    monkeypatch.setitem(MODELS, "looker", Looker)
    monkeypatch.setattr(of_run, "write_plots", lambda *_: None)
    monkeypatch.setattr(protocol, "yardsticks", lambda *_: ({}, "not asked for"))
    generator = np.random.default_rng(0)
    rows = [(f"pet{i}", *generator.random(3).round(3)) for i in range(10)]
    for name, *colour in rows:
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(6):
            pixels = 40 * generator.random((20, 30, 3)) + 200 * np.array(colour)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pets" / name / f"{i}.png")
    write_colours(tmp_path / "pets", rows)
    args = ("--model", "looker", "--dataset", "./pets", "--features", "filters", "--out", "out", "--select", "fixed")
    return lambda *more: call(run_command, tmp_path, tiny_root, tmp_path / "cache", *args, *more)


def test_a_run_draws_what_it_is_asked_and_a_finished_one_too(pets, tmp_path, monkeypatch):
    ran = pets()
    assert ran.code == 0, ran.err
    assert not list((tmp_path / "out").glob("*.png"))
    assert "pointing" not in result_of(tmp_path / "out") and "peaks of attention" not in ran.out
    monkeypatch.setattr(Looker, "train_step", None)  # nothing is trained again
    ran = pets("--resume", "--plot_attention", 3, "--plot_tsne")
    assert ran.code == 0, ran.err
    assert "without the pictures" not in ran.out
    table = rows_of(tmp_path / "out/attention.csv")
    assert len(table) == 3
    expected = {"tsne.png", *(row["file"] for row in table)}
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == expected
    assert len(rows_of(tmp_path / "out/tsne.csv")) > 0


def test_tensorboard_shows_attention_after_each_epoch_of_stage_tune(pets, tmp_path, monkeypatch):
    drawn = []
    original = of_run.plots.attention
    monkeypatch.setattr(of_run.plots, "attention", lambda *given: drawn.append(given) or original(*given))
    ran = pets("--select", "val", "--watch_attention", 2, "--epochs", 3)
    assert ran.code == 0, ran.err
    events = EventAccumulator(str(tmp_path / "out/tensorboard/seed0-tune/attention")).Reload()
    benchmark = benchmarks.load(f"{tmp_path}/pets", None, "tune", "images", features="filters")
    tags = events.Tags()["tensors"]
    rows = [int(tag.split("/")[1].split("-")[0]) for tag in tags]
    assert set(rows) <= {*benchmark.test_unseen, *benchmark.test_seen} and len(set(rows)) == 2
    for tag in tags:
        shown = events.Tensors(tag)
        assert [one.step for one in shown] == [0, 1, 2]
        pngs = (Image.open(io.BytesIO(one.tensor_proto.string_val[2])) for one in shown)  # after width and height
        assert all(len(set(png.convert("L").tobytes())) > 50 for png in pngs)
    assert len(drawn) == 6 and all(picture.shape == (224, 224, 3) for _, picture, *_ in drawn)
    first, last = (maps[1] for (*_, lines) in (drawn[0], drawn[-2]) for maps in next(iter(lines.values()))[:1])
    assert first.shape == last.shape and not np.array_equal(first, last)  # the model has learned meanwhile
    assert not list((tmp_path / "out/tensorboard/seed0-final").glob("attention"))
    assert_refused(pets("--watch_attention", 2), "--watch_attention: got it with --select fixed")
    monkeypatch.setattr(Looker, "attention", lambda self, inputs: {})  # as in a row of MSDN's ablation
    ran = pets("--select", "val", "--watch_attention", 2, "--out", "blind")
    assert ran.code == 0, ran.err


def test_channel_weights_are_of_the_pictures_and_attributes_they_are_drawn_beside(monkeypatch, tmp_path):
    benchmark, panels = tiny("maps"), {}
    model = Weigher.for_benchmark(benchmark, LookerConfig())
    monkeypatch.setattr(protocol, "published", lambda _: benchmark)
    monkeypatch.setattr(protocol, "rebuilt", lambda *_: model)
    monkeypatch.setattr(of_run, "DRAWN_ATTRIBUTES", 4)
    monkeypatch.setattr(of_run.plots, "channel_weights", lambda path, *rest: panels.update({path.name: rest}))
    of_run.write_channels(types.SimpleNamespace(out=tmp_path), None, 9)
    shown, names = panels["channels.png"]
    assert len(shown) == of_run.MOST_PANELS and len(names) == 4
    attributes = [benchmark.attribute_names.index(name) for name in names]
    for title, weights in shown.items():
        row = int(title.split()[-1])
        assert title.startswith(benchmark.class_names[benchmark.labels[row]])
        wanted = model.channel_weights(tf.constant(benchmark.take([row])))[0].numpy()
        np.testing.assert_allclose(weights, wanted[attributes], rtol=1e-5)
    monkeypatch.setattr(Weigher, "weighs_channels", False)
    panels.clear()
    of_run.write_channels(types.SimpleNamespace(out=tmp_path), None, 9)
    assert not panels


def test_a_model_that_has_nothing_to_draw_is_refused_at_the_door(pets, tmp_path, monkeypatch):
    monkeypatch.delattr(MODELS["eszsl"], "embed")  # every model here has one; of others none is promised
    for flag, args in (
        ("plot_attention", ("--plot_attention", 2)),
        ("plot_tsne", ("--plot_tsne",)),
        ("watch_attention", ("--watch_attention", 2, "--select", "val")),
    ):
        ran = pets("--model", "eszsl", *args)
        assert_refused(ran, f"--{flag}: eszsl has nothing to draw there", "looker")
    ran = pets("--model", "eszsl", "--plot_views", 2)
    assert_refused(ran, "--plot_views: eszsl has nothing to draw there; wanted one of", "dcen")
    assert_refused(pets("--plot_attention", 0), "plot_attention")
    assert not (tmp_path / "out").exists()


def test_text_beside_attributes_is_not_drawn():
    scores = np.array([[0.1, 0.9, 5.0], [0.7, 0.2, 6.0]])
    benchmark = types.SimpleNamespace(class_embeddings=np.ones((4, 3)), words=types.SimpleNamespace(attributes=2))
    assert of_run._highest(scores, benchmark).tolist() == [[1, 0], [0, 1]]
    benchmark.words = None
    assert of_run._highest(scores, benchmark).tolist() == [[2, 1, 0], [2, 0, 1]]
