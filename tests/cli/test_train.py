"""The engineer's command: a folder of images in, a folder for predict and serve out, also after a kill.

`python -m tests.cli.test_train --die WHERE:N ARGS` is the command with the example model, killed as `drive` says.
"""

import csv
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

import zslkeras
from tests.support import commands, drive
from tests.support.exported import draw
from tests.support.forked import start
from tests.support.words import Bag
from zslkeras import names
from zslkeras.cli import main, predict, quiet, train
from zslkeras.errors import InputError
from zslkeras.text import encoders

EXAMPLE = ("--model", "example", "--features", "filters", "--set", "hidden=4", "--epochs", 3, "--set", "batch_size=32")


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("pictures") / "birds")


@pytest.fixture
def call(tmp_path):
    def run(*args, module=train):
        return commands.call(module, tmp_path, tmp_path / "data", tmp_path / "cache", *args)

    return run


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.slow
def test_a_folder_of_images_becomes_a_classifier(call, birds, tmp_path, unchecked_exports):
    ran = call(birds, "--model", "eszsl", "--features", "filters")
    assert ran.code == 0, ran.err
    out = tmp_path / "runs/eszsl-birds"
    assert "eszsl: 20 classes learned, 0 more known by their attributes" in ran.out
    assert "on 4 validation classes, as long as they were not trained: " in ran.out and "(25.0% by chance)" in ran.out
    assert "zslkeras predict --model runs/eszsl-birds IMAGES" in ran.out
    model = zslkeras.load(out)
    assert model.trained.all() and f"{model.validation['T']:.1%} of their images right" in ran.out
    error = f"{model.calibration['after']:.1%} off the share of right answers"
    assert f"\nprobabilities: {error}, by expected calibration error on these classes\n" in ran.out
    picture = next(birds.glob("*/0.png"))
    shown = call("--model", "runs/eszsl-birds", "--json", picture, module=predict)
    assert json.loads(shown.out)[0]["class"] == model.predict(picture)
    again = call(birds, "--model", "eszsl", "--features", "filters")  # nothing is trained again
    assert again.code == 0 and again.out.splitlines()[-10:] == ran.out.splitlines()[-10:]
    other = call(birds, "--model", "eszsl", "--features", "filters", "--set", "lambdas=5")
    commands.assert_refused(other, "--out: runs/eszsl-birds was started with lambdas=")


@pytest.mark.slow
def test_features_are_made_on_the_way_and_a_table_may_lie_elsewhere(call, tmp_path, unchecked_exports, monkeypatch):
    """The table has a class without images; the folder has neither table nor features."""
    from zslkeras import classifier
    from zslkeras.images import backbones

    monkeypatch.setattr(classifier, "_SIZE", 32)
    backbones.backbone("small", size=32).save_weights(tmp_path / "small.weights.h5")
    birds = draw(tmp_path / "birds")
    table = (birds / "classes.csv").rename(tmp_path / "table.csv")
    table.write_text(table.read_text() + "okapi," + ",".join(["0.5"] * 33) + "\n")
    args = "birds", "--model", "eszsl", "--classes", table, "--backbone", "small", "--weights", "small.weights.h5"
    ran = call(*args, "--out", "out")
    assert ran.code == 0, ran.err
    assert "no features in birds: made now by small of 160 images" in ran.out and (birds / "small.mat").is_file()
    assert "20 classes learned, 1 more known by their attributes" in ran.out
    model = zslkeras.load(tmp_path / "out")
    assert "okapi" in model.class_names and np.count_nonzero(model.trained) == 20
    metadata = json.loads((tmp_path / "out/saved_model/metadata.json").read_text())
    assert metadata["preprocessing"]["backbone"] == "small" and metadata["validation"] == model.validation


@pytest.mark.long
def test_the_best_model_is_taken_if_none_is_named(call, birds, tmp_path, unchecked_exports, monkeypatch):
    from zslkeras import automatic
    from zslkeras.models import MODELS

    monkeypatch.setattr(automatic, "MODELS", {name: MODELS[name] for name in names.YARDSTICKS})
    ran = call(birds, "--features", "filters", "--seeds", 2)
    assert ran.code == 0, ran.err
    assert "is the best on validation classes" in ran.out and "written: runs/auto-birds/saved_model" in ran.out
    best = zslkeras.load(tmp_path / "runs/auto-birds")
    assert best.method in names.YARDSTICKS and best.validation["classes"] == 4
    picture = next(birds.glob("*/0.png"))
    name = best.predict(picture)
    (tmp_path / "runs/auto-birds/saved_model").rename(tmp_path / "elsewhere")
    again = zslkeras.load(tmp_path / "runs/auto-birds")  # by its checkpoints
    assert again.method == best.method and again.predict(picture) == name


@pytest.mark.long
def test_a_killed_training_goes_on_with_the_same_command(birds, tmp_path):
    """Killed in the middle of stage tune, and half-way through writing a checkpoint of stage final."""
    args = birds, *EXAMPLE, "--out", "out"
    whole = start("tests.cli.test_train", "--die", "never", *args[:-1], "whole", cwd=tmp_path).wait_for(300)
    assert whole.returncode == 0, whole.err
    for die in ("step:5", "write:5", "never"):
        done = start("tests.cli.test_train", "--die", die, *args, cwd=tmp_path).wait_for(300)
        assert done.returncode == (0 if die == "never" else -9), done.err
        assert (tmp_path / "out/saved_model").exists() == (die == "never")
    ends = [
        {k: v for k, v in commands.result_of(tmp_path / out).items() if k != "wall_seconds"} for out in ("whole", "out")
    ]
    assert ends[0] == ends[1]
    with open(tmp_path / "out/history.csv", newline="") as stream:
        final = [row["epoch"] for row in csv.DictReader(stream) if row["stage"] == "final"]
    assert final[-1] == str(ends[0]["state"][0]["epoch"])  # later ones would be judged on test images alone
    assert done.out.splitlines()[-8:-4] == whole.out.replace("whole", "out").splitlines()[-8:-4]
    assert not [name for name in files(tmp_path / "out") if "/." in name]  # no draft is left


def test_classes_may_be_described_in_words(call, birds, tmp_path, unchecked_exports, monkeypatch):
    monkeypatch.setattr(encoders, "load", lambda name: Bag())
    classes = sorted(path.name for path in birds.iterdir() if path.is_dir())
    table = tmp_path / "words.csv"
    table.write_text("class,description\n" + "".join(f"{name},a {name.replace('-', ' ')}\n" for name in classes))
    args = birds, "--model", "eszsl", "--features", "filters", "--classes", table, "--text_encoder", "bag"
    ran = call(*args, "--out", "out")
    assert ran.code == 0, ran.err
    model = zslkeras.load(tmp_path / "out")
    assert model.class_embeddings.shape == (len(classes), Bag.dim)
    with pytest.raises(InputError, match="class okapi is not described in words; wanted that, as in training"):
        model.predict(birds / classes[0] / "0.png", {"okapi": {"red": 1}})
    commands.assert_refused(call(*args[:-2]), "--text_encoder: got none to read the descriptions of classes")


WRONG = {
    "no folder": ([], "no folder; wanted the folder of the images"),
    "two": (["a", "b"], "2 folders; wanted the folder of the images"),
    "away": (["./nowhere"], "no folder nowhere"),
    "no path": (["nowhere"], "dataset: got 'nowhere'; wanted shapes"),
    "no model": (["BIRDS", "--model", "eszls"], "--model: got 'eszls'; did you mean eszsl?"),
    "epochs of auto": (["BIRDS", "--epochs", "3"], "--epochs: got it for --model auto"),
    "setting": (["BIRDS", "--model", "eszsl", "--set", "gama=1"], "gama: eszsl has no such setting"),
    "no setting": (["BIRDS", "--model", "eszsl", "--set", "gammas"], "--set: got 'gammas'; wanted key=value"),
    "seeds": (["BIRDS", "--seeds", "0"], "--seeds: got 0; wanted at least 1"),
    "no features": (["BIRDS", "--model", "eszsl", "--features", "x"], "missing x.mat"),
    "no backbone": (["BIRDS", "--model", "eszsl", "--backbone", "smal"], "--backbone: no 'smal'; did you mean small?"),
    "no table": (["BIRDS", "--classes", "x.csv"], "--classes: no file x.csv"),
    "in it": (["BIRDS", "--model", "eszsl", "--out", "BIRDS/out"], "--out: got BIRDS/out, which is among the images"),
    "a file": (["BIRDS", "--model", "eszsl", "--features", "filters", "--out", "file"], "--out: file"),
    "few": (["FEW", "--model", "eszsl", "--features", "filters"], "seen_classes: 2; wanted at least 4"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_and_leaves_nothing(case, call, birds, tmp_path):
    args, sentence = WRONG[case]
    (tmp_path / "file").write_text("")
    for name in ("ant", "bee"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (64, 64)).save(tmp_path / "few" / name / f"{number}.png")
    (tmp_path / "few/classes.csv").write_text("class,legs,wings\nant,6,0\nbee,5,1\n")
    before = files(tmp_path)
    places = {"BIRDS": str(birds), "FEW": "./few"}
    filled = [next((arg.replace(key, place) for key, place in places.items() if key in arg), arg) for arg in args]
    ran = call(*filled)
    commands.assert_refused(ran, sentence.replace("BIRDS", str(birds)))
    left = [name for name in files(tmp_path) if not name.startswith("cache")]
    assert left == before and sorted(path.name for path in birds.iterdir() if path.is_file()) == ["classes.csv"]


def test_help_names_the_command(capsys):
    main.main(["--help"])
    assert "train " in capsys.readouterr().out
    main.main(["train", "--help"])
    assert "usage:   zslkeras train [flags] FOLDER" in capsys.readouterr().out


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    names.MODELS["example"] = drive.EXAMPLE
    sys.argv.pop(1)
    where, _, number = sys.argv.pop(1).partition(":")
    quiet.tensorflow()
    if number:
        drive.kill_at(where, int(number))
    train.COMMAND(train.main)
