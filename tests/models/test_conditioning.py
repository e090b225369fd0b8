"""The closed form beside a model, its choice in stage tune, and what the model is before training."""

import dataclasses
import functools
import types

import numpy as np
import pytest
import tensorflow as tf

from tests.support.tiny import tiny
from zslkeras import protocol
from zslkeras.benchmarks.benchmark import tune_stage
from zslkeras.errors import InputError
from zslkeras.models import MODELS, conditioning, presets
from zslkeras.models.conditioning import MEAN, MEAN_STD, ClosedForm, Setting
from zslkeras.training import batches
from zslkeras.training.machine import Machine

SETTING = Setting("standard", 1.0, "l2", 2.0, 0.1)
FOUND = {f"closed_form_{name}": value for name, value in dataclasses.asdict(SETTING).items()}
SHORT = {"batch_size": 16, "epochs": 2, "patience": None}
# Kind of inputs of each model that has a closed form beside it.
BESIDE = {name: model.eats for name, model in MODELS.items() if getattr(model.Config(), "closed_form", 0)}


def config_of(name, **overrides):
    """Small settings, with the closed form beside the model."""
    small = {"hidden": 8, "critic_hidden": 8, "heads": 2, "interaction": False, "feature_dim": 8, "queue_size": 16}
    small |= {"backbone": "small", "weights": None, "image_size": 16}
    known = {field.name for field in dataclasses.fields(MODELS[name].Config)}
    settings = {**presets.settings("v1", name), **small, **SHORT, **FOUND, "closed_form": 2.0, **overrides}
    return MODELS[name].Config(**{key: value for key, value in settings.items() if key in known})


def made(name, benchmark, **overrides):
    model = MODELS[name].for_benchmark(benchmark, config_of(name, **overrides))
    model.compile()
    return model


def fitted(benchmark, setting=SETTING):
    form = ClosedForm.for_benchmark(benchmark)
    list(form.fit([setting], benchmark, benchmark.take))
    return form


def test_there_is_a_closed_form_beside_these_models():
    assert set(BESIDE) == {"aspn", "dcen", "drmn", "drmn_pictures", "jlaf", "msdn"}


def test_prototypes_by_a_gaussian_kernel_equal_numpy():
    benchmark = tiny()
    form, new = fitted(benchmark), np.random.default_rng(1).random((3, 6))
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    seen, classes = (unit(rows) for rows in (benchmark.class_embeddings[benchmark.seen_classes], new))
    distances = lambda one: ((one[:, None] - seen[None]) ** 2).sum(2)  # noqa: E731
    width = 2.0 * np.median(distances(seen)[np.triu_indices(len(seen), 1)])
    features = np.asarray(form.features(benchmark.inputs[benchmark.train]), np.float64)
    labels = benchmark.labels[benchmark.train]
    means = np.array([features[labels == c].mean(axis=0) for c in benchmark.seen_classes])
    weights = np.linalg.inv(np.exp(-distances(seen) / width) + 0.1 * np.eye(len(seen))) @ means
    expected = unit(np.exp(-distances(classes) / width) @ weights)
    np.testing.assert_allclose(form.prototypes(new.astype(np.float32)), expected, atol=1e-4)


def test_features_maps_and_levels_are_pooled():
    features, maps = np.ones((2, 3), np.float32), np.random.default_rng(0).random((2, 4, 5, 3)).astype(np.float16)
    np.testing.assert_array_equal(conditioning.pooled(features), features)
    mean = maps.astype(np.float32).mean(axis=(1, 2))
    np.testing.assert_allclose(conditioning.pooled(maps), mean, rtol=1e-5)
    both = np.asarray(conditioning.pooled((maps, 2 * maps)))
    np.testing.assert_allclose(both, np.tile(mean / np.linalg.norm(mean, axis=1, keepdims=True), 2), rtol=1e-5)
    assert conditioning.pooled_width(((4, 5, 3), (2, 2, 7))) == 10 and conditioning.pooled_width((4, 5, 3)) == 3


def test_maps_are_pooled_by_their_deviation_too():
    maps, unit = np.random.default_rng(0).random((2, 4, 5, 3)).astype(np.float32), lambda x: x / np.linalg.norm(x)
    wanted = [np.concatenate([unit(one.mean(axis=(0, 1))), unit(one.std(axis=(0, 1)))]) for one in maps]
    np.testing.assert_allclose(conditioning.pooled(maps, MEAN_STD), wanted, rtol=1e-5)
    levels = np.asarray(conditioning.pooled((maps, maps), MEAN_STD))
    np.testing.assert_allclose(levels, np.tile(wanted, 2) / np.sqrt(2), rtol=1e-5)
    assert conditioning.pooled_width(((4, 5, 3), (2, 2, 7)), MEAN_STD) == 20
    assert conditioning.pooled_width((4, 5, 3), MEAN_STD) == 6 and conditioning.pooled_width((3,), MEAN_STD) == 3
    features = maps[:, 0, 0]
    np.testing.assert_array_equal(conditioning.pooled(features, MEAN_STD), features)


def test_the_probe_pools_maps_as_it_is_best(monkeypatch):
    """Where classes differ in how channels vary over places and not in their mean, the deviation is needed."""
    tune = tune_stage(tiny("maps", classes=20, unseen=5))
    means = conditioning.pooled(tune.take(np.arange(len(tune.labels)))).numpy()[:, None, None]
    signs = np.where(np.indices(tune.input_shape[:2]).sum(axis=0) % 2, 1, -1)[None, :, :, None]
    varied = dataclasses.replace(tune, inputs=(1 + 0.1 * signs * means).astype(np.float32))
    monkeypatch.setattr(conditioning, "PROBED", [Setting("standard", 1.0, "l2", 0.0, 1e-2)])
    assert conditioning.probe(varied).pooling == MEAN_STD
    with monkeypatch.context() as patch:
        patch.setattr(conditioning, "_WIDEST", 1)
        patch.setattr(conditioning, "_kept", lambda *_: None)
        assert conditioning.probe(varied).pooling == MEAN
    areas = {MEAN: 0.5, MEAN_STD: 0.5}
    monkeypatch.setattr(conditioning, "_best", lambda settings, *_: (settings[0], areas[settings[0].pooling]))
    monkeypatch.setattr(conditioning, "_kept", lambda *_: None)
    assert conditioning.probe(varied).pooling == MEAN  # the narrower one, if both are as good
    with pytest.raises(InputError, match="^closed_form_pooling: got mean_std for features"):
        made("aspn", tiny(), closed_form_pooling=MEAN_STD)


@pytest.mark.parametrize(
    ("name", "pooling"), [(name, MEAN) for name in BESIDE] + [(name, MEAN_STD) for name in BESIDE if name != "aspn"]
)
def test_before_training_a_model_is_its_closed_form(name, pooling):
    benchmark = tiny(BESIDE[name])
    model, rows = made(name, benchmark, closed_form_pooling=pooling), benchmark.test_unseen
    form = model.beside.form
    _, pooled = model.scores_and_pooled(benchmark.take(rows), benchmark.class_embeddings)
    cosines = form(pooled, benchmark.class_embeddings).numpy()
    scores = model.score_classes(benchmark.take(rows), benchmark.class_embeddings).numpy()
    np.testing.assert_allclose(scores, float(model.beside.form_factor) * cosines, rtol=1e-6)
    assert float(model.beside.form_factor) > 0


@pytest.mark.parametrize("name", BESIDE)
def test_own_scores_and_the_closed_form_are_added_in_units_of_their_spread(name):
    benchmark = tiny(BESIDE[name])
    model = made(name, benchmark)
    model.settle(benchmark, functools.partial(batches.scoring, benchmark))
    classes, rows = benchmark.class_embeddings, conditioning.measured(benchmark)
    own, inputs = (lambda rows: np.asarray(model.own_scores(benchmark.take(rows), classes))), benchmark.take
    pooled = lambda rows: model.scores_and_pooled(inputs(rows), classes)[1]  # noqa: E731
    form = lambda rows: np.asarray(model.beside.form(pooled(rows), classes))  # noqa: E731
    spreads = [scores(rows).std(axis=1).mean() for scores in (own, form)]
    some = benchmark.test_seen[:5]
    expected = own(some) / spreads[0] + 2.0 * form(some) / spreads[1]
    np.testing.assert_allclose(model.score_classes(inputs(some), classes), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", BESIDE)
def test_scores_of_each_weight_are_those_of_a_model_that_has_it(name):
    benchmark = tiny(BESIDE[name])
    model, some = made(name, benchmark, closed_form="auto"), benchmark.take(benchmark.test_seen[:5])
    model.settle(benchmark, functools.partial(batches.scoring, benchmark))
    every = model.scores_by_weight(some, benchmark.class_embeddings).numpy()
    np.testing.assert_array_equal(every[0], model.score_classes(some, benchmark.class_embeddings))
    factor = float(model.beside.form_factor)
    first, *_ = weights = conditioning.weights(model.config)
    assert first == (8.0 if name == "dcen" else 2.0) and sorted(weights) == list(conditioning.WEIGHTS)
    for weight, scores in zip(weights, every, strict=True):
        model.beside.form_factor.assign(weight / first * factor)
        np.testing.assert_allclose(scores, model.score_classes(some, benchmark.class_embeddings), rtol=1e-5, atol=1e-5)


def test_a_state_is_judged_at_its_best_weight_which_stage_final_keeps(monkeypatch):
    """The method learns the same whatever stands beside it."""
    weights = (0.1, 0.5, 2.0)
    monkeypatch.setattr(conditioning, "WEIGHTS", weights)
    monkeypatch.setattr(MODELS["jlaf"].Config, "first_weight", 0.1)
    data, machine = Shelf(tiny("maps", classes=20, unseen=5)), Machine(deterministic=False)
    weak = {"closed_form_scaling": "none", "closed_form_whitening": 0.0, "closed_form_ridge": 100.0}

    def of(weight):
        config = config_of("jlaf", closed_form=weight, closed_form_kernel=0.0, learning_rate=0.01, epochs=3, **weak)
        return protocol.Experiment("jlaf", config, data, machine)

    choice, fixed = protocol.select(of("auto"), 0), {weight: protocol.select(of(weight), 0) for weight in weights}
    for state, found in enumerate(choice.history):
        scores = {weight: one.history[state]["val_AUSUC"] for weight, one in fixed.items()}
        assert found["val_AUSUC"] == pytest.approx(max(scores.values()), abs=1e-9)
        assert scores[found["closed_form"]] == pytest.approx(found["val_AUSUC"], abs=1e-9)
    weight = choice.found["closed_form"]
    assert weight == choice.history[choice.state]["closed_form"] != choice.history[0]["closed_form"]
    assert choice.state == fixed[weight].state and choice.gamma == pytest.approx(fixed[weight].gamma, rel=1e-5)
    assert choice.start_gamma == pytest.approx(fixed[weight].start_gamma, rel=1e-5)
    finished = protocol.finish(of("auto"), choice)
    same = protocol.finish(of(weight), dataclasses.replace(choice, found={}))
    np.testing.assert_array_equal(finished.outcomes.flip, same.outcomes.flip)
    assert "closed_form" not in finished.history[0]
    assert protocol.fixed(of("auto"), 0).found == {"closed_form": 0.1} and protocol.fixed(of(0.5), 0).found == {}


def test_scores_that_are_all_equal_do_not_divide_by_zero():
    model = made("jlaf", tiny("maps"))
    model.beside.settle(tf.zeros([4, 12]))
    assert float(model.beside.own_factor) == 1.0


def test_the_probe_takes_the_best_of_its_settings_and_only_in_stage_tune(monkeypatch):
    final = tiny(classes=20, unseen=5)
    tune = tune_stage(final)
    worst, best = Setting("none", 0.0, "none", 0.0, 1e6), Setting("standard", 1.0, "l2", 0.0, 1e-2)
    monkeypatch.setattr(conditioning, "PROBED", [worst, best, dataclasses.replace(worst, whitening=50.0)])
    assert conditioning.probe(tune) == best
    with pytest.raises(InputError, match="^config: has auto in stage final; wanted"):
        conditioning.probe(final)


def test_what_the_probe_found_is_kept_by_all_that_it_depends_on(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tune, others = tune_stage(tiny(classes=20, unseen=5)), [SETTING, dataclasses.replace(SETTING, ridge=1.0)]
    fits, fit = [], ClosedForm.fit
    monkeypatch.setattr(ClosedForm, "fit", lambda self, *args: fits.append(1) or fit(self, *args))
    monkeypatch.setattr(conditioning, "PROBED", others)
    found = conditioning.probe(tune)
    assert conditioning.probe(dataclasses.replace(tune)) == found and len(fits) == 1
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text("{")
    draft = kept.with_name(f".{kept.name}.of-another-process")
    draft.touch()
    assert conditioning.probe(tune) == found and len(fits) == 2
    assert draft.exists() and conditioning.probe(tune) == found and len(fits) == 2
    draft.unlink()
    changed = tune.class_embeddings.copy()
    changed[tune.seen_classes[0]] += 1
    conditioning.probe(dataclasses.replace(tune, class_embeddings=changed))
    conditioning.probe(dataclasses.replace(tune, train=tune.train[::-1]))
    monkeypatch.setattr(conditioning, "PROBED", others[:1])
    conditioning.probe(tune)
    assert len(fits) == 5
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))  # a file
    assert conditioning.probe(tune) == SETTING and len(fits) == 6


def test_only_what_is_auto_is_found_and_nothing_for_a_method_alone(monkeypatch):
    monkeypatch.setattr(conditioning, "probe", lambda benchmark: SETTING)
    config = MODELS["aspn"].Config(closed_form_ridge=3.0)
    found = conditioning.resolved(config, tiny())
    assert found == {key: value for key, value in FOUND.items() if key != "closed_form_ridge"} | {
        "scaling": "standard",
        "whitening": 1.0,
    }
    alone = MODELS["aspn"].Config(closed_form=0.0)
    assert conditioning.resolved(alone, tiny()) == {"scaling": "standard", "whitening": 1.0}
    assert conditioning.resolved(MODELS["aspn"].Config(**presets.settings("v1", "aspn")), tiny()) == {}


class Shelf:
    """Stands for protocol.Data: the stages of one benchmark."""

    name = "tiny"

    def __init__(self, final):
        self.stages = {"final": final, "tune": tune_stage(final)}

    def load(self, stage, inputs, fold=0):
        return self.stages[stage]


def test_what_stage_tune_found_is_kept_and_used_in_both_stages(tmp_path, monkeypatch):
    config = config_of("jlaf", closed_form_whitening="auto", region_scaling="auto")
    data, machine = Shelf(tiny("maps", classes=20, unseen=5)), Machine(deterministic=False)
    experiment = protocol.Experiment("jlaf", config, data, machine, tmp_path, logs=False)
    asked = []
    monkeypatch.setattr(conditioning, "probe", lambda benchmark: asked.append(benchmark.stage) or SETTING)
    choice = protocol.select(experiment, 0)
    assert choice.found == {"closed_form_whitening": 1.0, "region_scaling": "standard"}
    assert [state["epoch"] for state in choice.history] == [0, 1, 2] and choice.states == 3
    finished = protocol.finish(experiment, choice)
    assert [state["epoch"] for state in finished.history] == [0, 1, 2]
    assert protocol.select(experiment, 1).found == choice.found and asked == ["tune"]
    (tmp_path / "found.json").write_text('{"region_scaling": "l2", "other": 1}')
    with pytest.raises(InputError, match="found.json: closed_form_whitening, other is missing or too much; wanted"):
        protocol.select(experiment, 0)
    again = protocol.rebuilt(experiment, finished, data.load("final", "maps"))
    assert again.config.region_scaling == "standard" and again.config.closed_form_whitening == 1.0


@pytest.mark.parametrize("state", [0, 1])
def test_without_unseen_test_images_stage_final_ends_at_the_chosen_state(state):
    """Later ones would be judged on test images alone; what is learned until then is the same."""
    benchmark = tiny("maps", classes=20, unseen=5)
    alone = dataclasses.replace(benchmark, test_unseen=np.array([], int))
    choice, machine, ends = protocol.Choice(0, state, 3, 0.0, {}, []), Machine(deterministic=False), []
    for final in (alone, benchmark):
        data = types.SimpleNamespace(name="tiny", load=lambda *_, final=final: final)
        ends.append(protocol.finish(protocol.Experiment("jlaf", config_of("jlaf"), data, machine), choice))
    short, whole = ends
    assert [one["epoch"] for one in short.history] == [0, 1][: state + 1] and len(whole.history) == 3
    for one, other in zip(short.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gamma_is_corrected_by_the_closed_form_on_other_folds(tmp_path, monkeypatch):
    data, machine = Shelf(tiny("maps", classes=20, unseen=5)), Machine(deterministic=False)
    experiment = protocol.Experiment("jlaf", config_of("jlaf"), data, machine, tmp_path, logs=False)
    gammas, asked = iter([0.2, 0.1, 0.3, 0.9]), []
    monkeypatch.setattr(conditioning, "validated", lambda setting, stage: asked.append(setting))
    monkeypatch.setattr(protocol.calibration, "best_gamma", lambda outcomes: (next(gammas), 0.0))
    state = {"gamma": 4.0}
    assert protocol._carried(experiment, state, 0) == pytest.approx(4.0 * 0.2 / 0.2)  # the mean of the first three
    assert asked == [SETTING] * 3
    assert protocol._carried(experiment, {"gamma": 1.0}, 0) == pytest.approx(1.0) and len(asked) == 3  # kept
    alone = dataclasses.replace(experiment, config=config_of("jlaf", closed_form=0.0))
    assert protocol._carried(alone, state, 0) == 4.0 and len(asked) == 3


def test_the_closed_form_of_a_score_is_known():
    assert conditioning.setting_of(config_of("msdn"), {}) == SETTING
    assert conditioning.setting_of(MODELS["prototypes"].Config(), dataclasses.asdict(SETTING)) == SETTING
    assert conditioning.setting_of(MODELS["eszsl"].Config(), {"scaling": "l2", "gamma": 1.0}) is None
