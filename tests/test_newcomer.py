"""What a newcomer writes, for every model: trained, asked, judged, saved and opened again, row by row the same."""

import pytest
import tensorflow as tf

import zslkeras
from tests.models import test_contract
from tests.test_classifier import STRIPED, close
from zslkeras.evaluation import metrics
from zslkeras.images import decode
from zslkeras.models import MODELS

SHORT = {"epochs": 1, "batch_size": 32}


def settings(name):
    """Of a model that trains in seconds, and to no end."""
    known = MODELS[name].Config.__dataclass_fields__
    return test_contract.small_config(name) | {key: one for key, one in SHORT.items() if key in known}


@pytest.mark.slow
@pytest.mark.parametrize("name", test_contract.heavy_ones_long(MODELS))
def test_what_a_newcomer_writes_works_for_every_model(name, few_shapes, unchecked_exports, tmp_path):
    data = zslkeras.load_benchmark("shapes", few_shapes)
    images = zslkeras.load_benchmark("shapes", few_shapes, inputs="images").inputs[::40]
    new = {"okapi": STRIPED, "gnu": {"dotted": 1, "circle": 1}}
    with test_contract.eagerly():  # a few steps take less time than tracing them
        model = zslkeras.fit(data, model=name, seed=0, settings=settings(name), say=lambda _: None)
        names = model.predict(images)
        with pytest.warns(UserWarning, match="filled in"):
            ranked = model.predict(images, classes=new, top=5)
        values, columns = model.score(images)
        result = model.evaluate(data)
    assert isinstance(model, zslkeras.ZeroShotClassifier) and isinstance(model.keras_model, MODELS[name])
    assert len(names) == len(images) and set(names) <= set(model.class_names)
    assert [{one.name for one in row} for row in ranked] == [set(new)] * len(images)
    assert values.shape == (len(images), 50) and columns == model.class_names
    for metric, value in metrics.numbers(model._inside.finished.outcomes, model.gamma).items():
        assert result[metric] == pytest.approx(value, abs=1e-9)
    assert result.intervals["classes"]["H"][0] <= result["H"] <= result.intervals["classes"]["H"][1]

    model.save(tmp_path / "birds")
    again = zslkeras.load(tmp_path / "birds")
    assert again.gamma == model.gamma and again.class_names == model.class_names
    assert again.validation == pytest.approx(model.validation)
    assert again.predict(images) == names
    close(again.score(images).values, values)
    # Rows of what the model takes, in place of images; and the SavedModel itself.
    benchmark = model._inside.benchmark
    rows = benchmark.take(benchmark.test_unseen[:4])
    with test_contract.eagerly():
        close(again.score(rows).values, model.score(rows).values)
        assert again.evaluate(data) == pytest.approx(result)
    contents = tf.constant([decode.png(one) for one in images])
    answers = again._inside.exported.model.signatures["serve"](inputs=contents)
    close(answers["scores"].numpy() + model.gamma * ~model.trained, values)
    assert [model.class_names[label] for label in answers["label"]] == names
