"""Which backbone a method that reads images takes, and the closed form on that backbone's features."""

import dataclasses
import functools
import types

import keras
import numpy as np
import pytest

from tests.support import harness
from tests.support.tiny import tiny
from zslkeras import protocol
from zslkeras.benchmarks.benchmark import tune_stage
from zslkeras.errors import InputError
from zslkeras.images import backbones
from zslkeras.models import conditioning, own_backbone
from zslkeras.models.conditioning import Setting
from zslkeras.models.dcen import DCEN
from zslkeras.models.own_backbone import BackboneConfig
from zslkeras.training import batches

SETTING = Setting("standard", 1.0, "l2", 0.0, 0.1)
FOUND = {f"closed_form_{name}": value for name, value in dataclasses.asdict(SETTING).items()}
RECORD = {"backbone": "resnet50", "preprocessing": "torch", "size": 128, "weights": "a digest"}
SMALL = {"backbone": "small", "weights": None, "image_size": 16, "feature_dim": 8, "hidden": 8, "queue_size": 16}
SHORT = {"batch_size": 16, "epochs": 2, "patience": None, "views": "flip", "learning_rate": 0.01}


def config_of(**overrides):
    return harness.v1("dcen")(**{**SMALL, **SHORT, **FOUND, "closed_form": 2.0, **overrides})


def made(benchmark, **overrides):
    keras.utils.set_random_seed(0)
    model = DCEN.for_benchmark(benchmark, config_of(**overrides))
    model.compile()
    return model


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of weights for the small backbone, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keras.utils.set_random_seed(5)
    backbones.backbone("small", None, 16).save_weights(tmp_path / "small.weights.h5")
    return str(tmp_path / "small.weights.h5")


# Which backbone.


@pytest.mark.parametrize(
    "given, prepared, wanted",
    [
        ({}, {}, ("small", None, "own", 32)),
        ({}, {"mine": RECORD}, ("resnet50", "imagenet", "torch", 128)),
        ({}, {"mine": RECORD, "maps": RECORD}, ("resnet50", "imagenet", "torch", 128)),
        ({}, {"mine": RECORD | {"size": 448}}, ("resnet50", "imagenet", "torch", 160)),
        ({"weights": "a.h5"}, {"mine": RECORD}, ("resnet50", "a.h5", "torch", 128)),
        ({"weights": "a.h5"}, {}, ("mobilenetv2", "a.h5", "own", 160)),
        ({"weights": "imagenet"}, {}, ("mobilenetv2", "imagenet", "own", 160)),
        ({"weights": None}, {"mine": RECORD}, ("small", None, "own", 32)),
        ({"backbone": "vgg16"}, {"mine": RECORD}, ("vgg16", "imagenet", "own", 160)),
        ({"backbone": "vgg16", "weights": None, "image_size": 99}, {}, ("vgg16", None, "own", 99)),
        ({"preprocessing": "caffe"}, {"mine": RECORD}, ("resnet50", "imagenet", "caffe", 128)),
    ],
    ids=str,
)
def test_the_backbone_is_the_one_of_the_features_if_these_have_a_record(given, prepared, wanted):
    benchmark = dataclasses.replace(tiny("images"), prepared=prepared)
    config = BackboneConfig(**given)
    known = config.known(benchmark)
    assert not set(known) & set(given)
    found = dataclasses.replace(config, **known)
    assert (found.backbone, found.weights, found.preprocessing, found.image_size) == wanted


def test_features_by_several_backbones_leave_it_open():
    prepared = {"mine": RECORD, "other": RECORD | {"backbone": "vgg16"}}
    benchmark = dataclasses.replace(tiny("images"), prepared=prepared)
    wanted = r"^features: got none, and there are mine \(resnet50\), other \(vgg16\); wanted one of them, or a"
    with pytest.raises(InputError, match=wanted):
        BackboneConfig().known(benchmark)
    assert BackboneConfig(backbone="small").known(benchmark)["weights"] is None


def test_what_was_taken_is_a_note_on_the_benchmark():
    benchmark = protocol.as_read(tiny("images"), BackboneConfig())
    assert benchmark.notes == ("backbone small from nothing, on images of 32 pixels",)
    prepared = dataclasses.replace(tiny("images"), prepared={"mine": RECORD})
    (note,) = BackboneConfig().told(prepared)
    assert note == "backbone resnet50 with weights imagenet, on images of 128 pixels"


def test_the_schedule_follows_from_whether_the_backbone_is_trained():
    benchmark = tiny("images")
    nothing, trained = (DCEN.Config(weights=one).known(benchmark) for one in ("auto", "imagenet"))
    assert nothing["freeze_batch_norm"] is False and trained["freeze_batch_norm"] is True
    assert nothing["backbone_rate"] > trained["backbone_rate"] and nothing["epochs"] == 20
    assert trained["queue_size"] == len(benchmark.train) // 2
    assert (trained["epochs"], trained["drop_every"]) == (10, 7)  # for 128 rows
    many = types.SimpleNamespace(train=np.arange(2000), inputs=benchmark.inputs, prepared={})
    assert DCEN.Config(weights="imagenet").known(many)["epochs"] == 3
    assert not set(DCEN.Config(epochs=3, queue_size=5).known(benchmark)) & {"epochs", "queue_size"}


# The features of a backbone.


def test_features_of_a_pretrained_backbone_are_made_once_for_all_folds_and_both_stages(weights, monkeypatch):
    final = tiny("images", classes=20, unseen=5)
    stages = [tune_stage(final), tune_stage(final, 1), final]
    config, asked, make = config_of(weights=weights), [], own_backbone._features
    monkeypatch.setattr(own_backbone, "_features", lambda *args: asked.append(0) or make(*args))
    read = [conditioning.pooled_stage(config, stage) for stage in stages]
    assert len(asked) == 1
    backbone = backbones.backbone("small", weights, 16)
    for stage, one in zip(stages, read, strict=True):
        assert one.kind == "features" and one.input_shape == (256,)
        rows = stage.train[:5]
        images = keras.ops.image.resize(stage.take(rows).astype(np.float32), (16, 16), antialias=True)
        expected = np.mean(backbone(backbones.preprocess("small", images)), axis=(1, 2))
        np.testing.assert_allclose(one.take(rows), expected, rtol=1e-3, atol=1e-4)
    assert not read[0].inputs[final.test_unseen].any() and not read[0].inputs[final.test_seen].any()
    conditioning.pooled_stage(config_of(weights=weights, image_size=18), stages[0])
    assert len(asked) == 2


def test_a_damaged_cache_and_none_at_all_change_nothing(weights, tmp_path, monkeypatch):
    stage, config = tune_stage(tiny("images", classes=20, unseen=5)), config_of(weights=weights)
    wanted = conditioning.pooled_stage(config, stage).inputs
    (path,) = (tmp_path / "cache/zslkeras/features").glob("*.npy")
    path.write_bytes(b"")
    np.testing.assert_array_equal(conditioning.pooled_stage(config, stage).inputs, wanted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(weights))  # a file
    np.testing.assert_array_equal(conditioning.pooled_stage(config, stage).inputs, wanted)


def test_a_backbone_from_nothing_is_the_same_in_every_probe():
    stage, config = tune_stage(tiny("images", classes=20, unseen=5)), config_of()
    one, other = (conditioning.pooled_stage(config, stage).inputs for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert one[stage.train].std() > 0.01


# The closed form beside a backbone that is trained.


@pytest.mark.long
def test_after_an_epoch_the_closed_form_is_the_one_of_the_trained_backbone():
    benchmark = tiny("images")
    model = made(benchmark)
    before = np.array(model.beside.form.matrix)
    run = harness.run_of(benchmark, epochs=2)
    model.learn(run)
    fresh = made(benchmark)
    fresh.encoder.set_weights(model.encoder.get_weights())
    fresh.beside.fit(fresh.pooled_stage(benchmark))
    after = np.array(model.beside.form.matrix)
    np.testing.assert_allclose(after, fresh.beside.form.matrix, rtol=1e-3, atol=1e-4)
    assert np.abs(after - before).max() > 0.01
    assert [state["epoch"] for state in run.history] == [0, 1]


def test_a_backbone_that_stays_as_it_is_has_the_closed_form_that_it_had():
    benchmark = tiny("images")
    model = made(benchmark, freeze_backbone=True)
    before = np.array(model.beside.form.matrix)
    model.settle(benchmark, functools.partial(batches.scoring, benchmark))
    np.testing.assert_array_equal(model.beside.form.matrix, before)
    assert float(model.beside.own_factor) > 0


def test_both_scores_share_one_pass_through_the_backbone(monkeypatch):
    benchmark = tiny("images")
    model, passes = made(benchmark), []
    whole = model.encoder.backbone.call
    monkeypatch.setattr(model.encoder.backbone, "call", lambda *args, **kw: passes.append(0) or whole(*args, **kw))
    model.score_classes(benchmark.take(benchmark.train[:3]), benchmark.class_embeddings)
    assert len(passes) == 1


@pytest.mark.long
def test_a_resumed_run_ends_as_an_unbroken_one_with_its_closed_form(tmp_path):
    def trained(path, epochs):
        benchmark = tiny("images")
        model = made(benchmark)
        run = harness.run_of(benchmark, path, epochs)
        model.learn(run)
        return model, run

    whole, _ = trained(None, 3)  # the untrained state, and two epochs
    trained(tmp_path / "run.npz", 2)
    resumed, run = trained(tmp_path / "run.npz", 3)
    assert [state["epoch"] for state in run.history] == [0, 1, 2]
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


@pytest.mark.long
def test_an_export_answers_as_the_model_with_its_closed_form(tmp_path):
    benchmark = tiny("images")
    model = made(benchmark)
    model.settle(benchmark, functools.partial(batches.scoring, benchmark))
    harness.exported(model, tmp_path, np.asarray(benchmark.take(benchmark.test_unseen[:7])))
