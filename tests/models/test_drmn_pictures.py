"""DRMN with its backbone: the same network as DRMN on that backbone's levels, which it trains where it is told to."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import harness
from tests.support.harness import step
from tests.support.tiny import tiny
from zslkeras.images import backbones
from zslkeras.models.drmn import DRMN, AdamWithSlowPart, DRMNFromPictures

SIZE = 32  # of the pictures of `tiny`
SMALL = {"interaction": False, "reduction": 3, "region_scaling": "standard", "batch_size": 16}
ON_PICTURES = {"backbone": backbones.SMALL, "weights": None, "image_size": SIZE}


@pytest.fixture(scope="module")
def benchmark():
    return tiny("images", classes=5, unseen=2, rows=10, attributes=4)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "small.weights.h5"
    keras.utils.set_random_seed(5)
    backbones.backbone(backbones.SMALL, None, SIZE).save_weights(path)
    return path


def fresh(benchmark, **overrides):
    keras.utils.set_random_seed(0)
    config = harness.v1("drmn_pictures")
    model = DRMNFromPictures.for_benchmark(benchmark, config(**SMALL | ON_PICTURES | overrides), 0)
    model.compile()
    return model


def test_it_is_drmn_on_the_levels_of_its_backbone(benchmark, weights_file):
    model = fresh(benchmark, weights=str(weights_file))
    network = backbones.backbone(backbones.SMALL, weights_file, SIZE, backbones.LEVELS[backbones.SMALL])
    levels = network(backbones.preprocess(backbones.SMALL, benchmark.inputs), training=False)
    on_levels = dataclasses.replace(benchmark, kind="levels", inputs=tuple(level.numpy() for level in levels))
    twin = DRMN.for_benchmark(on_levels, harness.v1("drmn")(**SMALL), 0)
    own = [weight for weight in model.weights if all(weight is not other for other in model.backbone.weights)]
    assert len(own) == len(twin.weights)
    fitted = [weight for weight in own if "scaling" in weight.path and "embedding" not in weight.path]
    for weight, other in zip(own, twin.weights, strict=True):
        if any(weight is one for one in fitted):
            np.testing.assert_allclose(weight, other, rtol=1e-4, atol=1e-5, err_msg=weight.path)
        other.assign(weight.value)
    assert len(fitted) == 15  # shift, factor and three switches for each of three levels
    assert max(np.ptp(one) for one in fitted) > 0.01
    rows = benchmark.test_unseen[:6]
    on_pictures, wanted = tf.constant(benchmark.take(rows)), tuple(map(tf.constant, on_levels.take(rows)))
    np.testing.assert_allclose(model(on_pictures), twin(wanted), rtol=1e-4, atol=1e-4)
    maps = model.attention(on_pictures)["attribute"]
    np.testing.assert_allclose(maps, twin.attention(wanted)["attribute"], rtol=1e-4, atol=1e-6)
    assert maps.shape[1:] == (4, *network.output_shape[-2][1:3])


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_the_backbone_moves_only_if_it_has_a_rate_and_its_statistics_never(benchmark, rate):
    model = fresh(benchmark, backbone_rate=rate)
    before = [weight.numpy() for weight in model.backbone.weights]
    for start in range(0, 30, 10):
        rows = benchmark.train[start % len(benchmark.train) :][:10]
        step(model, (benchmark.take(rows), benchmark.labels[rows]))
    for weight, old in zip(model.backbone.weights, before, strict=True):
        moves = rate > 0 and "moving" not in weight.path
        assert (np.abs(weight - old).max() > 1e-4) == moves, weight.path


def test_the_slow_part_takes_its_share_of_each_step_and_does_not_decay():
    fast, slow = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    optimizer = AdamWithSlowPart(0.1, slow=[slow], share=0.25, weight_decay=0.5)
    optimizer.build([fast, slow])
    optimizer.apply([tf.constant([3.0, -1.0])] * 2, [fast, slow])
    change = 0.1 * np.array([1.0, -1.0])  # Adam's first step has the length of its rate
    np.testing.assert_allclose(slow, [1.0, 2.0] - 0.25 * change, rtol=1e-5)
    np.testing.assert_allclose(fast, np.array([1.0, 2.0]) * (1 - 0.1 * 0.5) - change, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"preprocessing": "grey"}, "preprocessing: got 'grey'; wanted one of own, caffe, torch, tf"),
        ({"image_size": 0}, "image_size: got 0; wanted at least 1"),
        ({"backbone_rate": -1.0}, "backbone_rate: got -1.0; wanted at least 0"),
        ({"beta": 2.0}, "beta: got 2.0; wanted at least 0 and at most 1"),
    ],
)
def test_wrong_settings_are_sentences(wrong, sentence):
    with pytest.raises(ValueError) as caught:
        DRMNFromPictures.Config(**ON_PICTURES | wrong)
    assert str(caught.value) == sentence
