"""The Python door: what a newcomer writes works for every model, and what is wrong is said in one sentence."""

import ast
import base64
import dataclasses
import functools
import importlib
import inspect
import json
import re
import shlex
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import zslkeras
from tests.models import test_contract
from tests.support import damage
from tests.support.commands import ROOT
from tests.support.example import Example
from tests.support.exported import draw
from tests.support.tiny import tiny
from zslkeras import classifier, protocol
from zslkeras.errors import InputError
from zslkeras.models import MODELS
from zslkeras.serving import export, recognisers, rest
from zslkeras.training.machine import Machine

ESZSL = {"scalings": ("standard",), "gammas": (10.0,), "lambdas": (1.0,)}
STRIPED = {"striped": 1, "square": 1, "red": 1, "vivid": 0.9}


def fit(data, name="eszsl", **more):
    return zslkeras.fit(data, name, say=lambda _: None, **{"settings": ESZSL if name == "eszsl" else None} | more)


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("pictures") / "birds")


@pytest.fixture(scope="module")
def of_birds(birds):
    """A classifier of the folder, and images of it."""
    return fit(birds, features="filters"), sorted(birds.glob("*/*.png"))[::20]


@pytest.fixture(scope="module")
def saved(of_birds, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "birds"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_compare", lambda *_: None)
        patch.setattr(export, "_reloaded", lambda *_: {})
        of_birds[0].save(path)
    return path


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * max(1.0, float(np.abs(wanted).max())))


def test_a_folder_of_pictures_by_paths_bytes_and_arrays(of_birds, birds):
    model, paths = of_birds
    names = model.predict(paths)
    assert names == model.predict(map(str, paths)) == model.predict([path.read_bytes() for path in paths])
    pixels = [np.asarray(Image.open(path)) for path in paths]
    assert names == model.predict(pixels) == model.predict(np.stack(pixels)) == model.predict(map(Image.open, paths))
    assert names[0] == model.predict(paths[0]) == model.predict(pixels[0]) == model.predict(paths[0].read_bytes())
    assert isinstance(model.predict(paths[0]), str) and model.predict([paths[0]]) == [names[0]]
    right = [name == path.parent.name for name, path in zip(names, paths, strict=True)]
    assert np.mean(right) > 2 / 20  # chance is a twentieth
    assert len(model.predict(str(paths[0]) for _ in range(70))) == 70  # in more than one batch
    assert model.evaluate()["S"] == model.evaluate(birds, features="filters")["S"] > 0.1


def test_a_saved_classifier_answers_row_by_row_as_the_one_that_was_trained(of_birds, saved, tmp_path):
    model, paths = of_birds
    again = zslkeras.load(saved)
    close(again.score(paths).values, model.score(paths).values)
    ranked = model.predict(paths, top=3)
    assert [[one.name for one in row] for row in again.predict(paths, top=3)] == [
        [one.name for one in row] for row in ranked
    ]
    assert [row[0].name for row in ranked] == model.predict(paths)
    close(again.keras_model(rows_of(model)), model.keras_model(rows_of(model)))
    served = json.loads(
        rest.answered(
            again._inside.exported.model,
            json.dumps(
                {"instances": [{"b64": base64.b64encode(path.read_bytes()).decode()} for path in paths]}
            ).encode(),
            rest.Limits(),
        )
    )["predictions"]
    assert [model.class_names[one["label"]] for one in served] == model.predict(paths)
    close(np.array([one["scores"] for one in served]) + model.gamma * ~model.trained, model.score(paths).values)
    calibrated = model.keras_model(rows_of(model)).numpy() + model.gamma * ~model.trained
    close(model.score(rows_of(model)).values, calibrated)
    copy = again.save(tmp_path / "copy")
    assert zslkeras.load(copy).predict(paths[:2]) == model.predict(paths[:2])
    again.save(saved)  # over itself
    assert zslkeras.load(saved).evaluate(model._inside.source) == pytest.approx(model.evaluate())


def rows_of(model):
    benchmark = model._inside.benchmark
    return benchmark.take(benchmark.train[:5])


def test_the_precision_is_kept(unchecked_exports, tmp_path):
    model = fit(tiny(), machine=Machine(precision="mixed_bfloat16"))
    again = zslkeras.load(model.save(tmp_path / "coarse"))
    assert keras.config.dtype_policy().name == "float32"
    assert again.keras_model.dtype_policy.name == model.keras_model.dtype_policy.name == "mixed_bfloat16"
    assert again.predict(rows_of(model)) == model.predict(rows_of(model))


def test_a_run_opens_as_a_classifier(exported, of_birds):
    """With its export, and without it by its checkpoints and its data."""
    paths = of_birds[1]
    by_export = zslkeras.load(exported.run)
    by_checkpoint = classifier.ZeroShotClassifier(recognisers.Live(exported.experiment, exported.finished))
    close(by_export.score(paths).values, by_checkpoint.score(paths).values)
    assert by_export.predict(paths[0]) == by_checkpoint.predict(paths[0])


def test_checkpoints_alone_open_too(exported, of_birds, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(exported.run, run, ignore=shutil.ignore_patterns("saved_model"))
    assert zslkeras.load(run).predict(of_birds[1]) == zslkeras.load(exported.run).predict(of_birds[1])
    (run / "result.json").unlink()
    with pytest.raises(InputError, match="path: .* holds neither metadata.json nor result.json"):
        zslkeras.load(run)


# Classes.


def test_a_class_is_the_same_by_dict_table_and_arrays(of_birds, birds, tmp_path):
    model, paths = of_birds
    names, matrix = model.class_names, model.class_embeddings
    wanted = model.score(paths[:3])
    by_name = model.score(paths[:3], classes=list(names))
    by_dict = model.score(
        paths[:3],
        classes={n: dict(zip(model.attribute_names, row, strict=True)) for n, row in zip(names, matrix, strict=True)},
    )
    by_rows = model.score(paths[:3], classes=dict(zip(names, matrix, strict=True)))
    by_pair = model.score(paths[:3], classes=(names, matrix))
    by_table = model.score(paths[:3], classes=birds / "classes.csv")
    for got in (by_name, by_dict, by_rows, by_pair):
        assert got.names == names
        close(got.values, wanted.values)
    order = [by_table.names.index(name) for name in names]
    close(by_table.values[:, order], wanted.values)
    with pytest.warns(UserWarning, match="class 1 is a duplicate of .*; class 2 is a duplicate of"):
        alone = model.score(paths[:3], classes=matrix[:2])  # without names they are new, so gamma is added
    assert alone.names == ("class 1", "class 2")
    close(alone.values, wanted.values[:, :2] + model.gamma * model.trained[:2])


def test_classes_are_candidates_alone_or_beside_the_known_ones(of_birds):
    model, paths = of_birds
    row = dict(zip(model.attribute_names, model.class_embeddings[3] + 0.01, strict=True))
    assert model.predict(paths[:2], classes={"okapi": row}) == ["okapi", "okapi"]
    both = model.score(paths[:2], classes={"okapi": row}, known=True)
    assert both.names == (*model.class_names, "okapi")
    close(both.values[:, :-1], model.score(paths[:2]).values)


# A few images of a class.


@pytest.fixture(scope="module")
def with_form(birds, tmp_path_factory):
    """A classifier with a closed form, and as it was saved."""
    settings = {"scalings": ("standard",), "whitenings": (1.0,), "embedding_scalings": ("l2",), "lambdas": (0.1,)}
    model = fit(birds, "prototypes", features="filters", settings=settings, unseen=0.15)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_compare", lambda *_: None)
        patch.setattr(export, "_reloaded", lambda *_: {})
        return model, zslkeras.load(model.save(tmp_path_factory.mktemp("form") / "saved"))


def test_images_draw_the_prototype_of_their_class(with_form, birds):
    model, again = with_form
    unseen = [name for name, trained in zip(model.class_names, model.trained, strict=True) if not trained]
    described = {
        f"new {name}": dict(
            zip(model.attribute_names, model.class_embeddings[model.class_names.index(name)], strict=True)
        )
        for name in unseen
    }
    paths = sorted((birds / unseen[0]).glob("*.png"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the new ones are duplicates
        plain = model.score(paths, described).values
        for count, share in ((1, 1 / 2), (6, 6 / 7)):
            first = {"attributes": described[f"new {unseen[0]}"], "images": paths[:count]}
            given = described | {f"new {unseen[0]}": first}
            drawn = model.score(paths, given).values
            np.testing.assert_array_equal(drawn[:, 1:], plain[:, 1:])
            form, rows = (
                model.keras_model.closed_form,
                model._inside.front.inputs(np.stack([np.asarray(Image.open(path)) for path in paths])),
            )
            features = form.features(rows).numpy()
            mean = features[:count].mean(axis=0)
            prototype = form.prototypes(tf.constant([list(first["attributes"].values())], tf.float32)).numpy()[0]
            moved = share * mean / np.linalg.norm(mean) + (1 - share) * prototype
            close(drawn[:, 0], features @ (moved / np.linalg.norm(moved)) + model.gamma)
            assert (drawn[:count, 0] > plain[:count, 0]).all()
            close(again.score(paths, given).values, drawn)
            assert model.predict(paths, given) == again.predict(paths, given)
            named = [row[0].name for row in model.predict(paths, given, top=1, reject=0.05)]  # beside the trained ones
            assert named == model.predict(paths, given)
            rows_given = given | {f"new {unseen[0]}": first | {"images": rows[:count]}}
            close(again.score(rows, rows_given).values, drawn)


def test_missing_attributes_are_filled_in_and_said_once(of_birds):
    model, paths = of_birds
    with pytest.warns(UserWarning, match="classes: filled in 29 of 33 attributes of okapi, by what goes") as said:
        model.predict(paths[0], classes={"okapi": STRIPED})
    assert len(said) == 1
    with pytest.raises(InputError, match="attribute circle and 28 more of class okapi missing; wanted all 33"):
        model.predict(paths[0], classes={"okapi": STRIPED}, missing="refuse")
    with pytest.raises(InputError, match="missing: got 'zero'; wanted one of fill, refuse"):
        model.predict(paths[0], classes={"okapi": STRIPED}, missing="zero")
    whole = dict(zip(model.attribute_names, model.class_embeddings[3] + 0.01, strict=True))
    with warnings.catch_warnings(action="error"):
        model.predict(paths[0], classes={"okapi": whole}, missing="refuse")


def test_a_duplicate_under_a_new_name_is_said(of_birds):
    model, paths = of_birds
    twin = {"okapi": dict(zip(model.attribute_names, 2 * model.class_embeddings[3], strict=True))}
    with pytest.warns(UserWarning, match=f"okapi is a duplicate of {model.class_names[3]}"):
        model.predict(paths[0], classes=twin)


# None of these.


def listed_of(model):
    """Three of its classes: two trained ones, and one that was not."""
    return [*np.array(model.class_names)[model.trained][[2, 9]], np.array(model.class_names)[~model.trained][1]]


def rejected(model, images, names, rate):
    """Which images show none of the named classes, by loops over the definition, from the scores of all classes."""
    known, (scores, every) = model._inside.confidence, model.score(images)
    threshold = known.threshold(rate, *(sum(model.trained[every.index(n)] == kind for n in names) for kind in (1, 0)))
    warmth, told = known.warmth, []
    for row in scores.astype(float):
        exponentials = [np.exp(score / warmth) for score, trained in zip(row, model.trained, strict=True) if trained]
        reference = warmth * np.log(np.mean(exponentials))
        told.append(max(row[every.index(name)] for name in names) - reference < threshold)
    return told


def test_images_of_no_listed_class_are_none_of_these(of_birds, birds):
    model, paths = of_birds[0], sorted(birds.glob("*/*.png"))[::2]
    listed = listed_of(model)
    names, plain = model.predict(paths, classes=listed, reject=0.2), model.predict(paths, classes=listed)
    told = [name is None for name in names]
    assert told == rejected(model, paths, listed, 0.2)
    assert [name for name in names if name is not None] == [
        one for one, none in zip(plain, told, strict=True) if not none
    ]
    shown = [path.parent.name in listed for path in paths]
    assert np.mean(np.array(told)[np.array(shown)]) < 0.4 < np.mean(np.array(told)[~np.array(shown)])
    first = told.index(True)
    assert model.predict(paths[first], classes=listed, reject=0.2) is None
    ranked = model.predict(paths, classes=listed, reject=0.2, top=2)
    assert [one.rejected for one in ranked] == told and [one[0].name for one in ranked] == plain
    assert repr(ranked[first]).splitlines()[0] == "none of these; the nearest are"
    assert repr(ranked[told.index(False)]).startswith(plain[told.index(False)])
    page = model.predict(paths[first : first + 1], classes=listed, reject=0.2)._repr_html_()
    assert "<b>none of these</b>" in page and plain[first] in page and "data:image/png" in page


def test_among_all_classes_and_among_new_ones_too(of_birds, birds):
    model, paths = of_birds[0], sorted(birds.glob("*/*.png"))[::5]
    every = model.predict(paths, reject=0.5)
    assert [name is None for name in every] == rejected(model, paths, model.class_names, 0.5)
    assert None in every and set(every) > {None}
    row = dict(zip(model.attribute_names, model.class_embeddings[3] + 0.01, strict=True))
    alone = model.predict(paths, classes={"okapi": row}, reject=0.2)
    assert set(alone) == {None, "okapi"}
    beside = model.predict(paths, classes={"okapi": row}, known=True, reject=0.2)
    plain = model.predict(paths, classes={"okapi": row}, known=True)
    assert all(one in (other, None) for one, other in zip(beside, plain, strict=True))


def test_a_list_without_the_trained_classes_is_answered_as_without_reject(of_birds):
    """They are asked for beside it, and take no part in the answer."""
    model, paths = of_birds
    listed = [name for name, trained in zip(model.class_names, model.trained, strict=True) if not trained]
    ranked, plain = (model.predict(paths, classes=listed, top=9, reject=one) for one in (0.05, None))
    assert [[one.name for one in row] for row in ranked] == [[one.name for one in row] for row in plain]
    close(np.array([[one.score for one in row] for row in ranked]), [[one.score for one in row] for row in plain])


def test_probabilities_are_those_of_the_calibrated_scores(of_birds):
    model, paths = of_birds
    for classes in (None, listed_of(model)):
        (values, names), (scores, same) = model.probabilities(paths, classes), model.score(paths, classes)
        np.testing.assert_allclose(values.sum(axis=1), 1)
        shares = np.exp(scores.astype(float) / model.calibration["temperature"])
        np.testing.assert_allclose(values, shares / shares.sum(axis=1, keepdims=True), rtol=1e-6)
        assert names == same and repr(model.probabilities(paths, classes)).startswith("probabilities of ")
    assert "<img" in model.probabilities(paths[:2])._repr_html_()


def test_a_saved_classifier_rejects_and_is_as_sure_as_the_one_that_was_trained(of_birds, saved, birds):
    model, paths = of_birds[0], sorted(birds.glob("*/*.png"))[::5]
    again = zslkeras.load(saved)
    for classes, rate in ((None, 0.5), (listed_of(model), 0.2)):
        names = model.predict(paths, classes, reject=rate)
        assert None in names and again.predict(paths, classes, reject=rate) == names
        close(again.probabilities(paths, classes).values, model.probabilities(paths, classes).values)
    assert again.calibration == model.calibration == json.loads((saved / "metadata.json").read_text())["calibration"]
    assert 0 <= model.calibration["after"] < model.calibration["before"] <= 1


def test_the_calibration_error_of_test_images_is_told(exported, of_birds):
    model = zslkeras.load(exported.run)
    result = model.evaluate(exported.experiment.data.name, **exported.experiment.data.options)
    (told,) = json.loads((exported.run / "result.json").read_text())["calibration"]
    assert result.calibration_error == pytest.approx((told["test"]["before"], told["test"]["after"]))
    assert told["temperature"] == model.calibration["temperature"]
    assert told["validation"] == {name: model.calibration[name] for name in ("before", "after")}
    benchmark = exported.experiment.load("final")
    calibrated = model.keras_model(benchmark.take(benchmark.tested)).numpy() + model.gamma * ~model.trained
    shares = np.exp(calibrated.astype(float) / model.calibration["temperature"])
    shares /= shares.sum(axis=1, keepdims=True)
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == benchmark.labels[benchmark.tested]
    bins = [(sure * 15 >= low) & (sure * 15 < low + 1) for low in range(15)]
    wanted = sum(abs(sure[rows].mean() - right[rows].mean()) * rows.mean() for rows in bins if rows.any())
    assert result.calibration_error[1] == pytest.approx(wanted, abs=1e-6)
    assert f"expected calibration error of probabilities: {100 * wanted:.1f}, without the" in repr(result)


@pytest.mark.parametrize("wrong", [0, 1, 2, -0.1, True, "0.05", float("nan")])
def test_a_rate_that_is_no_share_is_refused(of_birds, wrong):
    model, paths = of_birds
    with pytest.raises(InputError, match=f"reject: got {wrong!r}; wanted the share of images to lose, above 0 and"):
        model.predict(paths, reject=wrong)


def test_an_export_of_an_earlier_version_says_that_it_knows_no_threshold(of_birds, saved, tmp_path):
    path = shutil.copytree(saved, tmp_path / "old")
    (path / export.VALIDATION).unlink()
    metadata = json.loads((path / "metadata.json").read_text())
    del metadata["calibration"]
    (path / "metadata.json").write_text(json.dumps(metadata))
    requires_no_more(zslkeras.load(path), of_birds)
    assert zslkeras.load(path).evaluate(of_birds[0]._inside.source).calibration_error is None


def test_a_run_of_an_earlier_version_says_so_too(exported, of_birds, tmp_path):
    run = shutil.copytree(exported.run, tmp_path / "run", ignore=shutil.ignore_patterns("saved_model"))
    for checkpoint in (run / "checkpoint").glob("*.npz"):
        with np.load(checkpoint) as file:
            arrays = {name: file[name] for name in file.files if name not in ("verdict/scores", "start/scores")}
            assert len(arrays) < len(file.files)
        np.savez(checkpoint, **arrays)
    requires_no_more(zslkeras.load(run), (zslkeras.load(exported.run), of_birds[1]))


def requires_no_more(old, whole):
    """An old classifier answers as ever, and says in one sentence what it does not know."""
    model, paths = whole
    assert old.predict(paths) == model.predict(paths) and old.calibration == {}
    with pytest.raises(InputError, match="reject: got 0.05, and this classifier has no scores of validation classes"):
        old.predict(paths, reject=0.05)
    with pytest.raises(InputError, match="probabilities: this classifier has no scores of .*; wanted one that was tr"):
        old.probabilities(paths)


def test_damaged_metadata_are_said(saved, of_birds, tmp_path):
    path = shutil.copytree(saved, tmp_path / "damaged")
    refused = damage.refusals_of_file(path / "metadata.json", lambda: zslkeras.load(path))
    for what in ("no inputs", "no preprocessing", "no seen", "gamma: x", "seen: [1]", "classes: {}", "no format"):
        assert what in refused


def test_an_export_of_another_format_is_refused(saved, tmp_path):
    path = shutil.copytree(saved, tmp_path / "later")
    metadata = json.loads((path / "metadata.json").read_text())
    (path / "metadata.json").write_text(json.dumps(metadata | {"format": export.FORMAT + 1}))
    with pytest.raises(InputError) as error:
        zslkeras.load(path)
    assert (
        str(error.value)
        == f"model: {path} has format {export.FORMAT + 1}; wanted {export.FORMAT}, which this version reads"
    )


def test_class_embeddings_of_another_width_are_said(saved, tmp_path):
    path = shutil.copytree(saved, tmp_path / "wide")
    embeddings = np.load(path / "class_embeddings.npy")
    np.save(path / "class_embeddings.npy", np.pad(embeddings, ((0, 0), (0, 1))))
    with pytest.raises(InputError, match=r"class_embeddings.npy: got shape .*; wanted \d+ columns, one for each"):
        zslkeras.load(path)


def test_damaged_scores_are_said(saved, of_birds, tmp_path):
    path = shutil.copytree(saved, tmp_path / "damaged")
    (path / export.VALIDATION).write_bytes(b"PK" + bytes(50))
    with pytest.raises(InputError, match=f"{export.VALIDATION} cannot be read .*; wanted a whole export"):
        zslkeras.load(path).predict(of_birds[1], reject=0.05)


# Data.


def from_arrays(held, **more):
    return zslkeras.from_arrays(
        held.inputs,
        [held.class_names[label] for label in held.labels],
        dict(zip(held.class_names, held.class_embeddings, strict=True)),
        unseen=held.class_names[8:],
        attribute_names=held.attribute_names,
        attribute_vectors=held.attribute_vectors,
        **more,
    )


def test_arrays_are_data(unchecked_exports, tmp_path):
    data = from_arrays(tiny())
    model, rows = fit(data), data.take(data.test_unseen[:5])
    names = model.predict(rows)
    assert len(names) == 5 and names[0] == model.predict(rows[0]) and names == model.predict(list(rows))
    assert model.evaluate(data)["T"] == model.evaluate()["T"] > 0.25
    again = zslkeras.load(model.save(tmp_path / "held"))
    assert again.predict(rows) == names and again.evaluate(data) == pytest.approx(model.evaluate())
    with pytest.raises(InputError, match="data: got none, and a saved classifier has none"):
        again.evaluate()
    for one in (model, again):
        with pytest.raises(
            InputError, match=r"images: got images, and eszsl takes features, which cannot be made.*no "
        ):
            one.predict(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("kind", ["maps", "levels", "images"])
def test_arrays_of_every_kind_are_the_benchmark_that_they_were(kind):
    held = tiny(kind)
    data = from_arrays(held, normalize=False)
    assert (data.kind, data.class_names, data.attribute_names) == (kind, held.class_names, held.attribute_names)
    for one, other in zip(tf.nest.flatten(data.take(held.train)), tf.nest.flatten(held.take(held.train)), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(data.labels, held.labels)
    np.testing.assert_array_equal(data.test_unseen, held.test_unseen)
    np.testing.assert_array_equal(data.class_embeddings, held.class_embeddings)
    assert len(data.train) == len(held.train)


def test_labels_may_be_numbers_and_classes_without_rows_are_unseen():
    held = tiny()
    keep = held.labels < 10
    data = zslkeras.from_arrays(held.inputs[keep], held.labels[keep], held.class_embeddings, unseen=[9])
    assert data.unseen_classes.tolist() == [9, 10, 11] and data.class_names[11] == "11"
    assert data.stage == "final" and len(data.test_unseen) == 20
    np.testing.assert_allclose(np.linalg.norm(data.class_embeddings, axis=1), 1, rtol=1e-6)


def test_all_classes_with_pictures_can_be_learned(birds):
    model = fit(birds, features="filters", unseen="none")
    assert model.trained.all() and len(model.class_names) == 20
    assert model.validation["classes"] == 4 and model.validation["chance"] == 1 / 4
    result = model.evaluate()
    assert np.isnan(result["T"]) and result["S"] > 0.1 and result.chance == {}
    assert "-" in repr(result)


def test_the_best_of_several_seeds_on_validation_is_kept(monkeypatch):
    choices, finish = [], protocol.finish
    monkeypatch.setitem(MODELS, "example", Example)
    monkeypatch.setattr(
        protocol, "finish", lambda experiment, choice: choices.append(choice) or finish(experiment, choice)
    )
    with test_contract.eagerly():
        model = fit(tiny(), "example", settings={"epochs": 1, "hidden": 4, "batch_size": 32}, seed=[0, 1])
    areas = [choice.history[choice.state]["val_AUSUC"] for choice in choices]
    assert areas[0] != areas[1] and model.validation["AUSUC"] == max(areas)
    assert model._inside.finished.choice is choices[int(np.argmax(areas))]


def test_given_weights_are_those_of_a_model_s_own_backbone_too(monkeypatch):
    class Asked(Exception):
        pass

    def ask(experiment, *_):
        raise Asked(experiment.config.weights)

    monkeypatch.setattr(classifier, "_trained", ask)
    for settings, wanted in ((None, "mine.h5"), ({"weights": "others.h5"}, "others.h5")):
        with pytest.raises(Asked, match=wanted):
            fit("shapes", "dcen", weights="mine.h5", settings=settings)


def test_a_changed_copy_of_a_benchmark_is_taken_as_it_is(few_shapes):
    data = zslkeras.load_benchmark("shapes", few_shapes)
    assert data.origin is not None and repr(data).startswith("<Benchmark shapes, stage tune: features (252,), 30 seen")
    with pytest.raises(InputError, match="data: got a changed copy of stage tune"):
        fit(dataclasses.replace(data, train=data.train[:50]))
    final = protocol.Data("shapes", few_shapes).load("final", "features")
    model = fit(dataclasses.replace(final, train=final.train[::2]))
    assert len(model._inside.benchmark.train) == -(-len(final.train) // 2)


# What is written about it.


def test_the_page_has_every_argument_and_its_code_is_code():
    page = (ROOT / "docs/python.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        ast.parse(block)
    for function in (zslkeras.fit, zslkeras.ZeroShotClassifier.predict, zslkeras.ZeroShotClassifier.probabilities):
        for name in set(inspect.signature(function).parameters) - {"self"}:
            assert f"`{name}`" in page or f"`**{name}`" in page, name
    whole = inspect.signature(zslkeras.fit)
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in whole.parameters.values()]
    signature = str(inspect.Signature(plain)).replace("'", '"')
    assert f"fit{signature}".replace("<built-in function print>", "print") in page.replace("\n", " ")
    commands = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("zslkeras ")]
    assert {name for name, *_ in commands} == {"train", "predict"}
    for name, *args in commands:
        importlib.import_module(f"zslkeras.cli.{name}").COMMAND.read(args)


# How it prints.


def test_answers_print_well_in_a_terminal_and_in_a_notebook(of_birds):
    model, paths = of_birds
    (found,), page = model.predict(paths[:1], top=2), model.predict(paths[:1], top=2)._repr_html_()
    assert repr(found).splitlines()[0].startswith(found[0].name) and f"{found[0].score:.3f}" in repr(found)
    assert "data:image/png;base64," in page and paths[0].name in page and found[1].name in page
    assert "data:image/png" in model.predict(paths[0])._repr_html_() and "<img" in model.score(paths[:2])._repr_html_()
    assert "<img" not in model.predict(rows_of(model))._repr_html_()
    assert "95 % over classes" in repr(model.evaluate()) and "<table>" in model.evaluate()._repr_html_()
    assert (
        repr(model).startswith("<ZeroShotClassifier eszsl: classes 20 (16 trained)")
        and "<table>" in model._repr_html_()
    )
    assert "20 classes" in repr(model.score(paths))
    many = model.predict([paths[0]] * 40)
    assert many._repr_html_().count("<img") == 24 and "and 16 more" in many._repr_html_()


def test_names_cannot_put_anything_into_a_notebook(of_birds, tmp_path):
    model, paths = of_birds
    evil = tmp_path / "<script>x.png"
    shutil.copy(paths[0], evil)
    page = model.predict([evil], classes={"<b>&okapi": model.class_embeddings[0] + 0.01})._repr_html_()
    assert "<script" not in page and "<b>&okapi" not in page and "&lt;b&gt;&amp;okapi" in page
    evil.unlink()  # a picture that is gone by then is not shown
    assert "<img" not in model.predict([paths[0]])[0]._with((), evil)._repr_html_()


# What is wrong.


@functools.cache
def held():
    return fit(tiny("features"))


WRONG = {
    "no images": (lambda: [], None, "images: got none"),
    "a narrow row": (
        lambda: np.ones((2, 15), np.float32),
        None,
        r"images: got float32 of shape \(2, 15\); wanted paths",
    ),
    "no number": (lambda: np.full((2, 16), np.nan), None, "inputs: got NaN or infinity"),
    "ragged": (lambda: [np.ones(16), np.ones(3)], None, "images: got rows of different shapes"),
    "no classes": (lambda: np.ones((1, 16)), {}, "classes: got none"),
    "what is it": (lambda: np.ones((1, 16)), 3, "classes: got int; wanted a dict of attributes"),
    "unknown name": (
        lambda: np.ones((1, 16)),
        ["clas1"],
        "classes: 'clas1' is given by its name alone.*did you mean class1",
    ),
    "unknown attribute": (
        lambda: np.ones((1, 16)),
        {"a": {"atribute1": 1}},
        "knows no attribute 'atribute1'; did you mean",
    ),
    "text": (
        lambda: np.ones((1, 16)),
        {"a": {"attribute1": "much"}},
        "classes: a has attribute1 'much'; wanted a number",
    ),
    "nothing known": (lambda: np.ones((1, 16)), {"a": {"attribute1": None}}, "no attribute of class a is given"),
    "wide": (lambda: np.ones((1, 16)), np.ones((2, 7)), "classes: 7 attributes; wanted the 6 of the model"),
    "twice": (lambda: np.ones((1, 16)), ["class1", "class1"], "class class1 is there 2 times"),
    "no table": (lambda: np.ones((1, 16)), "nowhere.csv", "nowhere.csv: cannot be read"),
    "images": (
        lambda: np.ones((1, 16)),
        {"a": {"attributes": {"attribute1": 1}, "images": np.ones((1, 16))}},
        "classes: a: got images, which eszsl cannot learn from",
    ),
    "images alone": (lambda: np.ones((1, 16)), {"a": {"images": "a.jpg"}}, "classes: a has images; wanted attributes,"),
    "images among attributes": (
        lambda: np.ones((1, 16)),
        {"a": {"attribute1": 1, "images": ["a.jpg"]}},
        "classes: a has attribute1, images; wanted attributes,",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_question_is_one_sentence(case):
    images, classes, sentence = WRONG[case]
    with pytest.raises(InputError, match=sentence) as caught:
        held().predict(images(), classes=classes)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)


def test_an_image_that_does_not_decode_is_named(of_birds, saved, tmp_path):
    model, paths = of_birds
    (tmp_path / "cut.png").write_bytes(paths[0].read_bytes()[:1000])
    for one in (model, zslkeras.load(saved)):
        with pytest.raises(InputError, match="cut.png: does not decode"):
            one.predict([paths[0], tmp_path / "cut.png"])
        with pytest.raises(InputError, match="images: number 1: does not decode"):
            one.predict([paths[0].read_bytes(), b"no image"])
        with pytest.raises(InputError, match="nowhere.png: cannot be read"):
            one.predict("nowhere.png")


REFUSED = {
    "model": (lambda: zslkeras.fit("shapes", "aspm"), "model: got 'aspm'; did you mean aspn"),
    "data": (lambda: zslkeras.fit(3, "eszsl"), "data: got int; wanted what load_benchmark"),
    "no folder": (lambda: zslkeras.fit("./nowhere", "eszsl"), "no folder nowhere"),
    "setting": (lambda: zslkeras.fit("shapes", "eszsl", settings={"gamma": 1}), "gamma: eszsl has no such setting"),
    "settings of auto": (lambda: zslkeras.fit("shapes", settings={"epochs": 1}), "settings: got epochs for model auto"),
    "no seed": (lambda: zslkeras.fit("shapes", "eszsl", seed=[]), "seed: got an empty list"),
    "option": (lambda: zslkeras.fit(tiny(), "eszsl", features="filters"), "features: got it beside data"),
    "kind": (lambda: zslkeras.fit(tiny(), "msdn"), "data: tiny holds features in memory; wanted maps"),
    "load": (lambda: zslkeras.load("nowhere"), "path: no folder nowhere"),
    "top": (lambda: held().predict(np.ones((1, 16)), top=0), "top: got 0; wanted a number of classes"),
    "other data": (lambda: held().evaluate(tiny(attributes=5)), "data: tiny has 5 attributes; wanted the 6"),
    "labels": (lambda: zslkeras.from_arrays(np.ones((2, 3)), ["a", "x"], {"a": [1, 2]}), "labels: no class 'x'"),
    "label numbers": (
        lambda: zslkeras.from_arrays(np.ones((2, 3)), [0, 5], [[1, 2]]),
        "labels: got values from 0 to 5",
    ),
    "names": (lambda: zslkeras.from_arrays(np.ones((2, 3)), [0, 0], [[1, 2]], ["a", "b"]), "class_names: got 2 for 1"),
    "rows": (lambda: zslkeras.from_arrays(np.ones((2, 3, 4)), [0, 0], [[1, 2]]), "features: got float64 of shape"),
    "all unseen": (lambda: zslkeras.from_arrays(np.ones((2, 3)), [0, 0], [[1, 2]], unseen=[0]), "unseen: got all 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_one_sentence_about_an_argument(case):
    call, sentence = REFUSED[case]
    with pytest.raises(InputError) as caught:
        call()
    assert sentence in str(caught.value) and "\n" not in str(caught.value) and "--" not in str(caught.value)


def test_saving_never_replaces_anything_but_an_export(of_birds, birds, tmp_path):
    model, paths = of_birds
    with pytest.raises(InputError, match="path: .*birds holds other files"):
        model.save(birds)
    assert paths[0].is_file()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="path: .*file is a file"):
        model.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_export_of_version_0_1_opens_and_says_what_it_lacks(saved, of_birds, tmp_path):
    path = tmp_path / "old"
    shutil.copytree(saved, path)
    (path / export.KERAS).unlink()
    facts = json.loads((path / "metadata.json").read_text())
    (path / "metadata.json").write_text(
        json.dumps({k: v for k, v in facts.items() if k not in ("validation", "precision")})
    )
    old = zslkeras.load(path)
    assert old.predict(of_birds[1]) == of_birds[0].predict(of_birds[1]) and old.validation == {}
    with pytest.raises(InputError, match="keras_model: no .*model.keras; wanted an export by version 0.2"):
        old.keras_model  # noqa: B018


@pytest.mark.parametrize("name", ["eszsl", "prototypes", "aspn"])
def test_without_test_images_all_are_trained_on(birds, name, unchecked_exports, tmp_path):
    settings = {"aspn": {"epochs": 1, "batch_size": 64}, "eszsl": ESZSL}.get(name)
    options = {"features": "filters", "unseen": "none", "tests": False}
    made = fit(birds, name, settings=settings, out=tmp_path / "run", **options)
    images = sorted(birds.glob("*/*.png"))
    assert len(made._inside.benchmark.train) == len(images)
    assert made.validation["classes"] > 0 and set(made.predict(images[:3])) <= set(made.class_names)
    again = zslkeras.load(made.save(tmp_path / "saved"))
    with pytest.raises(InputError, match="has no row to test on; wanted some"):
        made.evaluate()
    for one in (made, again):  # its images are no tests, whatever part of them a benchmark holds out
        with pytest.raises(InputError, match="data: all images of .*birds were trained on; wanted others"):
            one.evaluate(birds, features="filters")
    if name == "eszsl":
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert [*result["calibration"][0]] == ["temperature", "validation"]
    assert again.predict(images[:9]) == made.predict(images[:9]) == zslkeras.load(tmp_path / "run").predict(images[:9])


@pytest.mark.parametrize(
    ("name", "settings", "states"),
    [
        ("aspn", {"epochs": 2, "learning_rate": 0.05, "batch_size": 64}, 3),  # training does harm
        ("eszsl", {"scalings": ("standard",), "gammas": (10.0, 1e6), "lambdas": (1.0, 1e6)}, 4),  # so do the last ones
    ],
)
def test_the_last_training_ends_with_the_chosen_state(birds, name, settings, states, tmp_path):
    """What comes after it would only tell what is best on the test classes, which nobody asks for here."""
    made = fit(birds, name, features="filters", unseen="0.2", settings=settings, out=tmp_path / "run")
    finished = made._inside.finished
    assert len(finished.choice.history) == states
    assert len(finished.history) == finished.choice.state + 1 < states
    assert json.loads((tmp_path / "run" / "result.json").read_text())["best_on_test"] is None
    again = zslkeras.load(tmp_path / "run")
    assert again.gamma == made.gamma and len(again._inside.finished.history) == len(finished.history)


@pytest.mark.long
def test_training_goes_on_where_it_was_killed_and_refuses_another(birds, tmp_path, monkeypatch):
    out = tmp_path / "run"
    made = fit(birds, features="filters", out=out)
    with monkeypatch.context() as patch:
        patch.setattr(MODELS["eszsl"], "learn", lambda *_: pytest.fail("trained again"))
        assert fit(birds, features="filters", out=out).gamma == made.gamma
    with pytest.raises(InputError, match="out: .*run was started with gammas=.*wanted the same, or another folder"):
        fit(birds, features="filters", out=out, settings=ESZSL | {"gammas": (1.0,)})
    assert zslkeras.load(out).validation == made.validation
