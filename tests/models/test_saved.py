"""Models as Keras saves them: loaded they are compiled, go on with training as if nothing had happened, and say which
format they have. `python -m tests.models.test_saved` writes the stored model anew, for a new format."""

import json
import pathlib
import tempfile
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models.test_contract import (
    ALL,
    GRADIENT,
    benchmark_for,
    eagerly,
    first_rows,
    heavy_ones_long,
    made,
    small_config,
    trained,
)
from zslkeras.errors import InputError
from zslkeras.models.base import FORMAT
from zslkeras.training import batches

STORED = pathlib.Path(__file__).parent / "saved" / f"jlaf-format{FORMAT}.keras"
SCORES = STORED.with_suffix(".json")


def loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def optimizers(model):
    return model.get_compile_config()


def train_on(name, model):
    """Three more steps, by Keras' own loop."""
    strategy, size = tf.distribute.get_strategy(), model.config.batch_size
    data = batches.training(benchmark_for(name), strategy, size, 0, "plain", 0, 3, model.prepare)
    with eagerly():
        model.fit(data, steps_per_epoch=3, shuffle=False, verbose=0)


def assert_same(one, other):
    for a, b in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    assert optimizers(one).keys() == optimizers(other).keys()
    for key, optimizer in optimizers(one).items():
        for a, b in zip(optimizer.variables, optimizers(other)[key].variables, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{key}: {a.path}")


@pytest.mark.parametrize("name", heavy_ones_long(GRADIENT))
def test_a_loaded_model_trains_on_as_the_saved_one(name, tmp_path):
    model = made(name)
    train_on(name, model)
    again = loaded(model, tmp_path)
    assert again.compiled and all(int(one.iterations) == 3 for one in optimizers(again).values())
    assert_same(model, again)
    before = [variable.numpy() for variable in model.trainable_variables]
    for one in (model, again):
        train_on(name, one)
    assert_same(model, again)
    assert any((a != b).any() for a, b in zip(before, model.trainable_variables, strict=True))


@pytest.mark.parametrize("name", ["aspn", "example"])
def test_an_optimizer_that_was_handed_to_compile_comes_back(name, tmp_path):
    model = made(name, sgd=True)
    model.optimizer.learning_rate.assign(0.125)
    again = loaded(model, tmp_path)
    assert {type(one) for one in optimizers(again).values()} == {keras.optimizers.SGD}
    assert float(again.optimizer.learning_rate) == 0.125
    for one in (model, again):
        train_on(name, one)
    assert_same(model, again)


def test_a_model_that_was_not_compiled_is_not_when_loaded(tmp_path):
    model = ALL["jlaf"].for_benchmark(benchmark_for("jlaf"), ALL["jlaf"].Config(**small_config("jlaf")))
    assert not loaded(model, tmp_path).compiled


def test_a_closed_form_comes_back(tmp_path):
    model = trained("eszsl")
    assert_same(model, loaded(model, tmp_path))


def test_the_stored_model_still_scores_as_it_did():
    expected = json.loads(SCORES.read_text())
    model = keras.saving.load_model(STORED)
    scores = model.score_classes(tf.constant(expected["inputs"]), tf.constant(expected["class_embeddings"]))
    np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=1e-6)
    assert model.compiled and int(model.optimizer.iterations) == 3


@pytest.mark.parametrize("number", [None, 0, FORMAT + 1, str(FORMAT)])
def test_another_format_is_refused(number, tmp_path):
    def change(config):
        del config["config"]["format"]
        config["config"] |= {} if number is None else {"format": number}

    path = tmp_path / "changed.keras"
    repack(STORED, path, change)
    with pytest.raises(InputError) as caught:
        keras.saving.load_model(path)
    assert str(caught.value) == f"format: got {number!r}; wanted {FORMAT}, which this version reads"


def repack(source, target, change=lambda config: None):
    """Copies a `.keras` file, which is a zip file, compressed and with a changed `config.json`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config)
            new.writestr(name, content)


def store():
    """Writes the model and the scores that the tests above read."""
    model = made("jlaf")
    train_on("jlaf", model)
    inputs, classes = first_rows("jlaf", 2), np.random.default_rng(1).random((3, 6)).astype(np.float32)
    scores = model.score_classes(inputs, classes)
    STORED.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        repack(f"{folder}/model.keras", STORED)
    arrays = {"inputs": inputs, "class_embeddings": classes, "scores": scores}
    SCORES.write_text(json.dumps({name: np.asarray(array).tolist() for name, array in arrays.items()}) + "\n")


if __name__ == "__main__":
    store()
