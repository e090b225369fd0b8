"""Exported models answer as live ones do, for the classes they know and for any others, or are not exported."""

import functools
import json
import pathlib
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments import run as run_command
from tests.models import test_conditioning, test_contract
from tests.support.commands import ROOT, call
from tests.support.tiny import tiny
from zslkeras import atomic, benchmarks, names, protocol, runs
from zslkeras.benchmarks import files, filters, shapes
from zslkeras.cli import export as export_command
from zslkeras.errors import InputError
from zslkeras.figures import of_run
from zslkeras.images import extract
from zslkeras.models import MODELS
from zslkeras.models.base import ZeroShotModel
from zslkeras.serving import bundle, export

GAMMA = 0.3


@functools.cache
def live(name):
    """A model with tiny sizes whose every weight was moved a little: at their start some scores are all equal."""
    if name not in test_contract.GRADIENT:
        return test_contract.trained(name)
    model = test_contract.made(name)
    generator = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(weight + 0.1 * generator.standard_normal(weight.shape).astype(np.float32))
    return model


@pytest.fixture(scope="module", params=MODELS)
def loaded(request, tmp_path_factory):
    """(live model, its SavedModel loaded again, its benchmark); more than twelve classes are scored in parts."""
    name, path = request.param, tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "CLASSES_AT_ONCE", 12)
        export.save(path, export.endpoints(live(name), GAMMA))
    return live(name), tf.saved_model.load(str(path)), test_contract.benchmark_for(name)


def named(inputs):
    """What a benchmark's rows are called as arguments of an endpoint."""
    if isinstance(inputs, tuple):
        return {f"inputs_{level}": tf.constant(one, tf.float32) for level, one in enumerate(inputs)}
    return {"inputs": tf.constant(inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32))}


def taken(benchmark, count):
    return benchmark.take(np.resize(np.concatenate([benchmark.test_unseen, benchmark.train]), count))


def close(got, wanted):
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(np.asarray(got), np.asarray(wanted), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("rows", [1, 7, 256])
def test_serve_is_the_model(loaded, rows):
    model, saved, benchmark = loaded
    inputs = taken(benchmark, rows)
    tensors = tf.nest.map_structure(tf.constant, inputs)
    answers = saved.signatures["serve"](**named(inputs))
    scores = model(tensors)
    close(answers["scores"], scores)
    labels = model.decide(scores, tensors, model.seen_mask.value, GAMMA)
    np.testing.assert_array_equal(answers["label"], labels)


def test_czsl_knows_unseen_classes_alone(loaded):
    model, saved, benchmark = loaded
    inputs = taken(benchmark, 7)
    answers = saved.signatures["czsl"](**named(inputs))
    scores = np.asarray(model(tf.nest.map_structure(tf.constant, inputs)))[:, benchmark.unseen_classes]
    close(answers["scores"], scores)
    np.testing.assert_array_equal(answers["label"], benchmark.unseen_classes[np.argmax(scores, axis=1)])


def test_a_class_given_at_call_time_has_exactly_the_score_of_a_built_in_one(loaded):
    _, saved, benchmark = loaded
    inputs = named(taken(benchmark, 7))
    built_in = saved.signatures["serve"](**inputs)
    given = {
        "class_embeddings": tf.constant(benchmark.class_embeddings),
        "seen_mask": tf.constant(benchmark.seen_mask),
    }
    answers = saved.signatures["score_classes"](**inputs, **given)
    np.testing.assert_array_equal(answers["scores"], built_in["scores"])
    np.testing.assert_array_equal(answers["label"], built_in["label"])


@pytest.mark.parametrize("number", [1, 10, 40])
def test_any_classes_are_scored_in_parts_too(loaded, number):
    model, saved, benchmark = loaded
    inputs = taken(benchmark, 7)
    classes = np.random.default_rng(number).random((number, 6)).astype(np.float32)
    seen = np.zeros(number, bool)
    seen[: number // 2] = True
    given = {"class_embeddings": tf.constant(classes), "seen_mask": tf.constant(seen)}
    answers = saved.signatures["score_classes"](**named(inputs), **given)
    scores = np.asarray(model.score_classes(tf.nest.map_structure(tf.constant, inputs), tf.constant(classes)))
    close(answers["scores"], scores)
    # None of these classes is one of training: calibrated stacking decides, whatever the model's own rule.
    np.testing.assert_array_equal(answers["label"], np.argmax(scores + GAMMA * ~seen, axis=1))


def test_embeddings_and_attention_are_the_models(loaded):
    model, saved, benchmark = loaded
    inputs = taken(benchmark, 3)
    tensors = tf.nest.map_structure(tf.constant, inputs)
    for name in ("embed", "attention"):
        assert (name in saved.signatures) == hasattr(model, name)
        if hasattr(model, name):
            answers = saved.signatures[name](**named(inputs))
            for key, value in getattr(model, name)(tensors).items():
                close(answers[key], value)


@pytest.mark.parametrize("name", ["prototypes", *test_conditioning.BESIDE])
def test_a_shift_moves_the_prototype_of_a_class_and_no_other(name):
    benchmark = tiny(MODELS[name].eats)
    model = test_conditioning.made(name, benchmark)
    if name == "prototypes":
        list(model.closed_form.fit([test_conditioning.SETTING], benchmark, benchmark.take))
    functions, inputs = export.endpoints(model, GAMMA), tuple(named(taken(benchmark, 7)).values())
    inputs = inputs if len(inputs) > 1 else inputs[0]
    given = {"class_embeddings": tf.constant(benchmark.class_embeddings), "seen_mask": tf.constant(benchmark.seen_mask)}
    parts = functions["closed_form"](inputs, given["class_embeddings"])
    features, prototypes = parts["features"].numpy(), parts["prototypes"].numpy()
    plain = functions["score_classes"](inputs, **given)["scores"].numpy()
    close(plain, parts["factor"].numpy() * features @ prototypes.T)  # untrained, the closed form is all there is
    moved = prototypes.copy()
    moved[3] = features[0]
    shifts = parts["factor"] * (moved - prototypes)
    answers = functions["score_shifted"](inputs, **given, shifts=shifts)
    close(answers["scores"], parts["factor"].numpy() * features @ moved.T)
    close(answers["scores"][0, 3], parts["factor"])  # its own image has cosine 1
    np.testing.assert_array_equal(np.delete(answers["scores"], 3, axis=1), np.delete(plain, 3, axis=1))
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        functions["score_shifted"](inputs, **given, shifts=shifts[:2])
    width = shifts.shape[1]
    assert export.sentence(caught.value) == f"shifts: got shape [2 {width}]; wanted [12 {width}]"


def test_the_rule_of_a_model_holds_among_the_classes_it_was_trained_on_in_any_company():
    """DRMN looks again with a branch that knows the seen classes of training; stacking decides among any others."""
    model, benchmark = live("drmn"), test_contract.benchmark_for("drmn")
    model.head.kernel.assign(50 * tf.random.stateless_normal(model.head.kernel.shape, [0, 1]))
    scored = export.endpoints(model, 0.0)["score_classes"]
    inputs = tuple(tf.constant(one, tf.float32) for one in taken(benchmark, 64))
    further = np.random.default_rng(0).random((3, 6)).astype(np.float32)
    classes = np.concatenate([further, benchmark.class_embeddings])
    seen = np.concatenate([[False] * 3, benchmark.seen_mask])
    answers = scored(inputs, tf.constant(classes), tf.constant(seen))
    own = model.decide(answers["scores"], inputs, seen, 0.0)
    stacked = ZeroShotModel.seen_answers(model, answers["scores"], inputs, seen)
    assert (np.asarray(own) != np.asarray(stacked)).any()
    np.testing.assert_array_equal(answers["label"], own)
    classes[5] += 0.5  # not as it was trained
    answers = scored(inputs, tf.constant(classes), tf.constant(seen))
    np.testing.assert_array_equal(answers["label"], np.argmax(answers["scores"], axis=1))


BAD = {
    "wrong width": (np.ones((2, 15)), None, None, "inputs: got shape [2 15]; wanted [B, 16]"),
    "no rows": (np.ones((0, 16)), None, None, "inputs: got shape [0 16]"),
    "NaN": (np.full((2, 16), np.nan), None, None, "inputs: got NaN or infinity"),
    "one wide, which would be broadcast": (np.ones((2, 1)), None, None, "inputs: got shape [2 1]"),
    "no classes": (np.ones((2, 16)), np.ones((0, 6)), [], "class_embeddings: got shape [0 6]"),
    "narrow classes": (np.ones((2, 16)), np.ones((3, 5)), [True] * 3, "class_embeddings: got shape [3 5]"),
    "endless class": (np.ones((2, 16)), np.full((1, 6), np.inf), [True], "class_embeddings: got NaN or infinity"),
    "short mask": (np.ones((2, 16)), np.ones((3, 6)), [True], "seen_mask: got 1 entries; wanted one per class, 3"),
}


def test_wrong_requests_get_a_sentence_and_right_ones_still_an_answer(tmp_path):
    export.save(tmp_path, export.endpoints(live("eszsl"), GAMMA))
    endpoint = tf.saved_model.load(str(tmp_path)).signatures["score_classes"]
    good = np.ones((3, 6)), [True, False, False]
    for inputs, classes, seen, sentence in BAD.values():
        classes, seen = good if classes is None else (classes, seen)
        arrays = tf.constant(inputs, tf.float32), tf.constant(classes, tf.float32), tf.constant(seen, tf.bool)
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            endpoint(inputs=arrays[0], class_embeddings=arrays[1], seen_mask=arrays[2])
        assert sentence in caught.value.message
    answer = endpoint(inputs=tf.ones([2, 16]), class_embeddings=tf.ones([3, 6]), seen_mask=tf.constant(good[1]))
    assert answer["scores"].shape == (2, 3)


def test_only_what_scores_is_exported(loaded):
    """No critic, no second encoder, no optimizer."""
    model, saved, _ = loaded
    sizes = [int(np.prod(one.shape)) for one in saved.weights]
    assert 0 < sum(sizes) <= model.count_params()
    names = " ".join(one.name for one in saved.weights)
    assert not any(part in names for part in ("critic", "momentum_encoder", "learning_rate"))


# The folder.


def test_the_export_says_what_its_numbers_mean(exported):
    metadata = json.loads((exported.saved_model / "metadata.json").read_text())
    benchmark = exported.experiment.load("final")
    assert metadata["classes"] == list(benchmark.class_names)
    assert metadata["seen"] == benchmark.seen_mask.tolist()
    assert metadata["gamma"] == exported.finished.choice.gamma
    assert metadata["attributes"]["names"] == list(shapes.ATTRIBUTES)
    assert metadata["attributes"]["unit_length"] is True
    assert metadata["preprocessing"] == {"filters": "features", "size": 64, "crop": False}
    assert metadata["dataset_digest"] == benchmark.digest
    assert metadata["config"]["scalings"] == ["standard"]
    assert set(metadata["endpoints"]) == {"serve", "czsl", "score_classes", "embed"}
    assert metadata["versions"]["tensorflow"] == tf.__version__
    embeddings = files.read_matrix(exported.saved_model / "class_embeddings.npy")
    np.testing.assert_array_equal(embeddings, benchmark.class_embeddings)
    assert str(exported.saved_model) in exported.line and "MB" in exported.line


def test_bytes_of_pictures_score_as_their_features(exported):
    benchmark = exported.experiment.load("final")
    saved = tf.saved_model.load(str(exported.saved_model))
    paths = sorted(exported.pictures.glob("*/*.png"))[:: len(benchmark.labels) // 9]
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    features = filters.pooled(pixels)
    np.testing.assert_allclose(filters.answers(tf.constant(pixels), "features"), features, rtol=0, atol=1e-5)
    model = protocol.rebuilt(exported.experiment, exported.finished, benchmark)
    answers = saved.signatures["serving_default"](inputs=tf.constant([path.read_bytes() for path in paths]))
    close(answers["scores"], model(tf.constant(features)))


def test_a_finished_run_is_found_again(exported):
    experiment, (again,) = runs.reopened(exported.run)
    assert (experiment.model, experiment.config) == ("eszsl", exported.experiment.config)
    assert again.choice.gamma == exported.finished.choice.gamma
    for one, other in zip(again.weights, exported.finished.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_that_is_not_whole_or_not_of_this_data_is_refused(exported, tmp_path):
    with pytest.raises(InputError, match="no result.json"):
        runs.reopened(tmp_path)
    shutil.copytree(exported.run, tmp_path / "run", ignore=shutil.ignore_patterns("saved_model"))
    result = json.loads((tmp_path / "run/result.json").read_text())
    (tmp_path / "run/result.json").write_text(json.dumps(result | {"dataset_digest": "0" * 16}))
    with pytest.raises(InputError, match="wanted the same data"):
        runs.reopened(tmp_path / "run")
    (tmp_path / "run/checkpoint/seed0-final.npz").unlink()
    with pytest.raises(InputError, match=r"no .*seed0-final.npz"):
        runs.reopened(tmp_path / "run")


def test_the_commands_leave_an_export_behind(tiny_root, tmp_path, monkeypatch):
    """`run --export` with the process that reloads; `export --run` without it, on what the first one left."""
    monkeypatch.setattr(of_run, "write_plots", lambda *_: None)
    compare, compared = export._compare, []
    monkeypatch.setattr(export, "_compare", lambda what, *args: (compared.append(what), compare(what, *args)))
    args = "--model", "eszsl", "--dataset", "flo", "--out", "out"
    ran = call(run_command, tmp_path, tiny_root, tmp_path / "cache", *args, "--export")
    assert ran.code == 0 and "exported: out/saved_model" in ran.out, ran.err
    assert compared == ["saved_model", "saved_model in graph mode"]
    before = json.loads((tmp_path / "out/saved_model/metadata.json").read_text())
    assert before["inputs"] == {"kind": "features", "shape": [16]} and before["preprocessing"] is None
    shutil.rmtree(tmp_path / "out/saved_model")
    monkeypatch.setattr(export, "_reloaded", answers_here)
    again = call(export_command, tmp_path, tiny_root, tmp_path / "cache", "--run", "out")
    assert again.code == 0 and "exported: out/saved_model" in again.out, again.err
    assert json.loads((tmp_path / "out/saved_model/metadata.json").read_text()) == before
    with pytest.raises(InputError, match="formats: got onnx for endpoints on maps"):
        export.write(tmp_path / "maps", live("msdn"), {}, None, GAMMA, formats=["onnx"])
    refused = call(export_command, tmp_path, tiny_root, tmp_path / "cache", "--run", "out", "--with_backbone")
    assert refused.code == 2 and "tells how res101 was made" in refused.err
    assert call(export_command, tmp_path, tiny_root, tmp_path / "cache", "--run", "nowhere").code == 2


def answers_here(path, model, rows, front):
    """`export._reloaded` without its process."""
    saved, asked = tf.saved_model.load(str(path)), export._asked(model, rows, front)
    answers = {}
    for name, endpoint in saved.signatures.items():
        wanted = endpoint.structured_input_signature[1]
        given = {key: tf.constant(rows if front else asked[key]) if key == "inputs" else asked[key] for key in wanted}
        given = {key: tf.constant(value) for key, value in given.items()}
        answers |= {f"{name}/{key}": value.numpy() for key, value in endpoint(**given).items()}
    return {"": answers}


def written(path, **changes):
    model, benchmark = live("eszsl"), tiny()
    return export.write(path, model, {"note": "new"}, benchmark.take(benchmark.train[:5]), GAMMA, **changes)


def test_what_does_not_answer_as_the_live_model_leaves_the_old_export_in_place(tmp_path, monkeypatch):
    """The process that reloads is left out here; the shared export went through it."""
    path = tmp_path / "saved_model"
    answers = {}
    monkeypatch.setattr(export, "_reloaded", lambda *_: {"": answers})
    with pytest.raises(export.ExportFailed, match="serve/scores"):
        written(path)
    assert list(tmp_path.iterdir()) == []
    rows = tiny().take(tiny().train[:5])
    answers = export._answers(live("eszsl"), GAMMA, rows, None)
    (tmp_path / ".saved_model.1234").mkdir()  # of one that was killed
    written(path)
    before = {one.name: one.read_bytes() for one in path.iterdir() if one.is_file()}
    for name, wrong in {
        "serve/scores": answers["serve/scores"] + 1e-3 * np.abs(answers["serve/scores"]).max(),
        "score_classes/label": (answers["score_classes/label"] + 1) % 12,
        "czsl/scores": np.full_like(answers["czsl/scores"], np.nan),
    }.items():
        told = {"": answers, " in graph mode": answers | {name: wrong}}
        monkeypatch.setattr(export, "_reloaded", lambda *_, told=told: told)
        with pytest.raises(export.ExportFailed, match=f"saved_model in graph mode: {name} is off"):
            written(path)
    assert {one.name: one.read_bytes() for one in path.iterdir() if one.is_file()} == before
    assert [one.name for one in tmp_path.iterdir()] == ["saved_model"]


def test_at_every_moment_one_export_stands(tmp_path, monkeypatch):
    path, swap, rename = tmp_path / "saved_model", atomic.exchange, pathlib.Path.rename

    def replace(content):
        with export.replacing(path) as draft:
            (draft / "content").write_text(content)

    def found():
        assert len(list(tmp_path.iterdir())) == 1
        return (path / "content").read_text()

    def watched(*names):
        assert (path / "content").read_text() == "old"
        return swap(*names)

    replace("old")
    monkeypatch.setattr(atomic, "exchange", watched)
    replace("new")
    assert found() == "new"

    def failing(one, other):
        if other == path and (one / "content").read_text() == "none":
            raise OSError("full")
        return rename(one, other)

    monkeypatch.setattr(atomic, "exchange", lambda *_: False)  # a system that cannot
    replace("newer")
    monkeypatch.setattr(pathlib.Path, "rename", failing)
    with pytest.raises(OSError, match="full"):
        replace("none")
    assert found() == "newer"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "saved_model.pb; No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(InputError, match="one: .*No space left on device; wanted a folder that can be written"):
        written(tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_labels_have_to_agree_where_scores_are_exact():
    """In bfloat16 the two best classes are often as good as one another."""
    wanted, got = {"serve/label": np.array([1, 2])}, {"serve/label": np.array([1, 3])}
    export._compare("saved_model", got, wanted, export._COARSE_TOLERANCE)
    with pytest.raises(export.ExportFailed, match="serve/label is off by 1"):
        export._compare("saved_model", got, wanted, export.TOLERANCE)


def test_the_process_that_reloads_is_alone_and_its_failure_is_told(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback ...\nOSError: no model there\n")
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command) or failed)
    with pytest.raises(export.ExportFailed, match="the reloaded model failed: OSError: no model there"):
        export._reloaded(tmp_path, live("eszsl"), tiny().take(tiny().train[:2]), None)
    assert commands[0][1] == "-I"  # neither this folder nor PYTHONPATH
    source = (ROOT / "zslkeras/serving/selfcheck.py").read_text()
    assert "import zslkeras" not in source and "from zslkeras" not in source


@pytest.mark.parametrize("kind", names.FORMATS)
def test_other_formats_answer_as_the_live_model(tmp_path, monkeypatch, kind):
    if kind == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    answers = export._answers(live("eszsl"), GAMMA, tiny().take(tiny().train[:5]), None)
    monkeypatch.setattr(export, "_reloaded", lambda *_: {"": answers})
    written(tmp_path / "one", formats=[kind])
    assert list((tmp_path / "one").glob(f"*.{kind}"))
    compare = export._compare
    monkeypatch.setattr(
        export,
        "_compare",
        lambda what, got, *rest: compare(what, {k: v + (what == kind) for k, v in got.items()}, *rest),
    )
    with pytest.raises(export.ExportFailed, match=f"{kind}: "):
        written(tmp_path / "two", formats=[kind])


@pytest.mark.parametrize("pooling", [{}, {"pooling": ("gem", "max"), "pool_layers": ("stage4", "stage3")}], ids=str)
def test_a_backbone_is_bundled_if_it_is_the_one_of_the_features(exported, tmp_path, monkeypatch, pooling):
    """Features by a backbone with random weights, as zslkeras prepare leaves them."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in sorted(exported.pictures.iterdir())[:12]:  # the table and some classes; the others have no pictures
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, pictures / path.name)
    extractor = extract.Extractor(extract.backbones.SMALL, None, 32, ["pooled"], **pooling)
    weights = tmp_path / "small.weights.h5"
    extractor._model.save_weights(weights)
    listed = benchmarks.pictures(f"{pictures}/")
    extract.extract(extractor, listed, "random", say=lambda _: None)
    options = exported.experiment.data.options | {"features": "random"}
    experiment = protocol.Experiment(
        "eszsl",
        exported.experiment.config,
        protocol.Data(f"{pictures}/", None, options),
        exported.experiment.machine,
        tmp_path / "run",
        logs=False,
    )
    finished = protocol.finish(experiment, protocol.select(experiment, 0))
    keras.utils.set_random_seed(1)
    with pytest.raises(InputError, match="wanted the weights that the features were made with"):
        other = tmp_path / "other.weights.h5"
        extract.backbones.backbone(extract.backbones.SMALL, None, 32).save_weights(other)
        bundle.write(experiment, finished, with_backbone=True, weights=str(other))
    monkeypatch.setattr(export, "_reloaded", answers_here)
    assert "takes images" in bundle.write(experiment, finished, with_backbone=True, weights=str(weights))
    metadata = json.loads((tmp_path / "run/saved_model/metadata.json").read_text())
    assert metadata["preprocessing"]["backbone"] == "small" and metadata["inputs"]["kind"] == "bytes"
    assert {key: tuple(metadata["preprocessing"].get(key, ())) for key in pooling} == pooling
    benchmark = protocol.published(experiment)
    front = bundle._front_end(benchmark, None, str(weights))
    for path, row in zip(listed.paths, benchmark.inputs, strict=True):
        with open(path, "rb") as file:
            np.testing.assert_allclose(front(tf.constant([file.read()]))[0], row, rtol=1e-4, atol=1e-6)
    for path in pictures.glob("*/*.png"):  # others in their place
        Image.new("RGB", (64, 64)).save(path)
    with pytest.raises(InputError, match="wanted the images that these were made from"):
        bundle.write(experiment, finished, with_backbone=True, weights=str(weights))
