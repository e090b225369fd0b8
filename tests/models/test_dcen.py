"""DCEN against its paper's equations in loops, and what its parts must not do.

`python -m tests.models.test_dcen OUT` trains on two replicas, for `test_two_replicas_train_as_one`.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.reference import dcen as reference
from tests.support import harness
from tests.support.commands import start
from tests.support.harness import assert_function, assert_losses, step
from tests.support.slopes import slope
from zslkeras.images import backbones
from zslkeras.models import dcen
from zslkeras.models.dcen import DCEN, DCENConfig
from zslkeras.training import batches
from zslkeras.training.loop import Verdict

RNG = np.random.default_rng(11)
FEATURES, CLASSES = RNG.standard_normal((5, 7)), RNG.standard_normal((4, 7))
DISTANCES = RNG.random((5, 4))
LABELS = np.array([2, 0, 3, 3, 1])


# The equations.


def test_distance():
    np.testing.assert_allclose(dcen.distance(FEATURES, CLASSES), reference.distance(FEATURES, CLASSES), rtol=1e-12)
    assert_function(
        lambda f, h: tf.reduce_sum(dcen.distance(f, h) * DISTANCES),
        lambda f, h: np.sum(reference.distance(f, h) * DISTANCES),
        [FEATURES, CLASSES],
        rtol=1e-6,
    )


def test_distance_of_vectors_without_a_direction():
    """What a ReLU leaves may be nothing at all."""
    features, classes = FEATURES.copy(), CLASSES.copy()
    features[1], classes[2] = 0.0, 0.0
    tensors = tf.constant(features), tf.constant(classes)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        distances = dcen.distance(*tensors)
    np.testing.assert_allclose(distances, reference.distance(features, classes), rtol=1e-12)
    assert all(np.isfinite(each).all() for each in tape.gradient(distances, tensors))
    near = dcen.distance(1e-8 * FEATURES, 1e8 * CLASSES)  # but length alone does not matter
    np.testing.assert_allclose(near, reference.distance(FEATURES, CLASSES), rtol=1e-7)


@pytest.mark.parametrize("name", ["triplet", "semantic"])
def test_alignment(name):
    loss, wanted = getattr(dcen, f"{name}_loss"), getattr(reference, name)
    assert_function(lambda d: loss(d, LABELS), lambda d: wanted(d, LABELS), [DISTANCES], rtol=1e-6)


def test_the_hardest_negative_is_not_the_class_itself():
    """f = h(a_y) and all other classes orthogonal: 0 - 1."""
    classes = np.eye(4, 6)
    labels = np.array([2, 0, 3])
    distances = dcen.distance(classes[labels], classes)
    np.testing.assert_allclose(dcen.triplet_loss(distances, labels), -1.0, rtol=1e-12)
    np.testing.assert_allclose(dcen.semantic_loss(distances, labels), 0.0, atol=1e-12)
    far = np.array([[2.0, 1.5, 1.9]])  # no margin, no hinge: it stays above 0 and below it goes on
    np.testing.assert_allclose(dcen.triplet_loss(tf.constant(far), np.array([0])), 0.5, rtol=1e-12)
    np.testing.assert_allclose(dcen.triplet_loss(tf.constant(far), np.array([1])), -0.4, rtol=1e-12)


@pytest.mark.parametrize("norm", ["squared", "printed"])
def test_prediction(norm):
    predicted, attributes = RNG.standard_normal((2, 5, 6))
    assert_function(
        lambda p: dcen.prediction_loss(p, attributes, norm),
        lambda p: reference.prediction(p, attributes, norm),
        [predicted],
        rtol=1e-6,
    )


@pytest.mark.parametrize("norm", ["squared", "printed"])
def test_a_perfect_prediction_has_a_finite_slope(norm):
    attributes = RNG.random((3, 4))
    predicted = tf.Variable(attributes)
    with tf.GradientTape() as tape:
        value = dcen.prediction_loss(predicted, attributes, norm)
    assert abs(float(value)) < 1e-5 and np.isfinite(tape.gradient(value, predicted)).all()


def test_a_relative_prediction_error_does_not_know_how_long_embeddings_are():
    generator = np.random.default_rng(0)
    predicted, attributes = generator.standard_normal((2, 5, 7))
    unit = np.mean(np.sum(attributes**2, axis=1))
    wanted = dcen.prediction_loss(predicted, attributes, "relative", unit)
    assert float(wanted) == pytest.approx(np.mean(np.sum((predicted - attributes) ** 2, axis=1)) / unit)
    longer = dcen.prediction_loss(9 * predicted, 9 * attributes, "relative", 81 * unit)
    assert float(longer) == pytest.approx(float(wanted))


@pytest.mark.parametrize("size", [9, 1])
def test_info_nce(size):
    queries, keys, queue = RNG.standard_normal((5, 6)), RNG.standard_normal((5, 6)), RNG.standard_normal((size, 6))
    for tau in (0.07, 1.0):
        assert_function(
            lambda q, tau=tau: dcen.info_nce(q, keys, queue, tau),
            lambda q, tau=tau: reference.info_nce(q, keys, queue, tau),
            [queries],
            value_rtol=1e-10,
            rtol=1e-5,
            atol=1e-8,
        )


def test_info_nce_where_it_is_known():
    queries = RNG.standard_normal((4, 6))
    nobody = np.zeros((0, 6))
    np.testing.assert_allclose(dcen.info_nce(queries, queries, nobody, 0.07), 0.0, atol=1e-10)
    # Identical views and N keys at right angles: log(1 + N e^0 / e^(1/tau)).
    axes = np.eye(6)
    got = dcen.info_nce(2 * axes[:2], 3 * axes[:2], axes[2:], 0.5)
    np.testing.assert_allclose(got, np.log(1 + 4 * np.exp(-2)), rtol=1e-10)
    # The pictures of one batch are no negatives of each other: the loss of all is the mean of each alone.
    keys, queue = RNG.standard_normal((4, 6)), RNG.standard_normal((7, 6))
    alone = [dcen.info_nce(queries[i : i + 1], keys[i : i + 1], queue, 0.2) for i in range(4)]
    np.testing.assert_allclose(dcen.info_nce(queries, keys, queue, 0.2), np.mean(alone), rtol=1e-10)


# Masking.


def test_mask():
    attributes = RNG.random((6, 8)) + 0.1
    of_class, of_element = RNG.random(6), RNG.random((6, 8))
    for probability, sigma in ((0.5, 0.3), (1.0, 0.6), (0.5, 1.0)):
        wanted = reference.mask(attributes, of_class, of_element, probability, sigma)
        got = dcen.mask_attributes(attributes, of_class, of_element, probability, sigma)
        np.testing.assert_array_equal(got, wanted)
        assert (wanted == 0).any()


def test_mask_at_its_ends():
    attributes = RNG.random((6, 8)) + 0.1
    draws = RNG.random(6), RNG.random((6, 8))
    np.testing.assert_array_equal(dcen.mask_attributes(attributes, *draws, 0.0, 1.0), attributes)
    np.testing.assert_array_equal(dcen.mask_attributes(attributes, *draws, 1.0, 0.0), attributes)
    np.testing.assert_array_equal(dcen.mask_attributes(attributes, *draws, 1.0, 1.0), np.zeros((6, 8)))


def test_how_often_is_masked():
    generator = np.random.default_rng(0)
    ones = np.ones((10_000, 10), np.float32)
    got = dcen.mask_attributes(ones, *(generator.random(shape) for shape in (10_000, (10_000, 10))), 0.5, 0.3).numpy()
    chosen = (got == 0).any(axis=1)
    assert abs(chosen.mean() - 0.5 * (1 - 0.7**10)) < 0.02
    assert abs((got[chosen] == 0).mean() - 0.3 / (1 - 0.7**10)) < 0.01


# The queue and the moving average.


@pytest.mark.parametrize("counts", [(3, 3, 3), (5, 1, 4), (7,), (7, 7), (9, 2), (2, 16, 3)], ids=str)
def test_queue(counts):
    """First in, first out, whether the batch divides the queue, fills it, or is larger than all of it."""
    queue, position = RNG.standard_normal((7, 2)), 0
    got, place = tf.constant(queue), tf.constant(0)
    for count in counts:
        keys = RNG.standard_normal((count, 2))
        queue, position = reference.enqueue(queue, position, keys)
        got, place = dcen.enqueue(got, place, keys)
        np.testing.assert_array_equal(got, queue)
        assert int(place) == position


def test_queue_in_a_graph():
    """The position is not known while the graph is made."""
    traced = tf.function(dcen.enqueue)
    queue, position = RNG.standard_normal((5, 3)), 0
    got, place = tf.constant(queue), tf.constant(0)
    for _ in range(4):
        keys = RNG.standard_normal((3, 3))
        queue, position = reference.enqueue(queue, position, keys)
        got, place = traced(got, place, tf.constant(keys))
        np.testing.assert_array_equal(got, queue)


def test_moving_average():
    old, new = RNG.standard_normal((2, 3, 4))
    np.testing.assert_allclose(dcen.ema(old, new, 0.9), reference.ema(old, new, 0.9), rtol=1e-12)
    np.testing.assert_array_equal(dcen.ema(old, new, 1.0), old)
    np.testing.assert_array_equal(dcen.ema(old, new, 0.0), new)


# The model.

SIZE = 32
SMALL = {
    "backbone": "small",
    "image_size": SIZE,
    "feature_dim": 6,
    "hidden": 5,
    "norm_momentum": 0.7,
    "lambda1": 0.3,
    "lambda2": 0.7,
    "sigma": 0.4,
    "mask_probability": 0.7,
    "tau": 0.5,
    "momentum": 0.8,
    "queue_size": 7,
    "frozen_epochs": 0,
    "freeze_batch_norm": False,
    "batch_size": 4,
}


BESIDE = {  # a closed form
    "closed_form": 2.0,
    "closed_form_scaling": "standard",
    "closed_form_whitening": 1.0,
    "closed_form_embedding_scaling": "l2",
    "closed_form_kernel": 0.0,
    "closed_form_ridge": 0.1,
}


def small(rows=5):
    """Images, with seen classes that are not the first ones."""
    benchmark = harness.small("images", classes=6, width=16, rows=rows)
    return harness.renumbered(benchmark, np.array([1, 2, 3, 5, 0, 4]))


def fresh(benchmark=None, **overrides):
    """A model where it starts; always the same one."""
    keras.utils.set_random_seed(0)
    return DCEN.for_benchmark(benchmark or small(), harness.v1("dcen")(**SMALL | overrides))


def made(benchmark=None, rate=0.0, **overrides):
    """A model away from where it starts, g away from f, with SGD."""
    model = fresh(benchmark, **overrides)
    model.compile(keras.optimizers.SGD(rate))
    generator = np.random.default_rng(7)
    for part in ("encoder", "momentum_encoder", "semantic", "predictor"):
        for variable in getattr(getattr(model, part, None), "variables", ()):
            spread = 0.3 * np.std(variable) * generator.standard_normal(variable.shape)
            if variable.name.startswith(("gamma", "beta", "bias", "moving")):
                spread = 0.2 * generator.random(variable.shape)
            variable.assign(variable + spread)
    return model


def batch_for(benchmark, count=4, seed=3):
    """Two views of `count` images each, which differ by more than a little."""
    generator = np.random.default_rng(seed)
    rows = generator.choice(benchmark.train, count, replace=False)
    images = benchmark.inputs[rows].astype(np.float32)
    one = np.clip(images[:, :, ::-1] + 10 * generator.standard_normal(images.shape), 0, 255)
    two = np.clip(images[:, ::-1] + 10 * generator.standard_normal(images.shape), 0, 255)
    return harness.Batch(
        inputs=(one.astype(np.float32), two.astype(np.float32)),
        labels=benchmark.labels[rows],
        classes=benchmark.class_embeddings,
        seen=benchmark.seen_mask,
    )


def ready(**overrides):
    """A model away from where it starts, and a batch for it."""
    benchmark = small()
    return made(benchmark, **overrides), batch_for(benchmark)


def as_layer(dense, norm=None):
    """A fully connected (or 1x1) layer and its normalisation, as the reference takes them."""
    kernel, *bias = (weight.numpy().astype(np.float64) for weight in dense.weights)
    found = dict.fromkeys(("gamma", "beta", "mean", "variance", "epsilon"))
    found |= {"kernel": kernel.reshape(-1, kernel.shape[-1]), "bias": bias[0] if bias else None}
    if norm is not None:
        weights = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        values = [weight.numpy().astype(np.float64) for weight in weights]
        found |= dict(zip(("gamma", "beta", "mean", "variance"), values, strict=True), epsilon=norm.epsilon)
    return found


def layers_of(blocks):
    """Of a network of blocks."""
    dense = [layer for layer in blocks.layers if isinstance(layer, keras.layers.Dense)]
    norms = [layer for layer in blocks.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [as_layer(*pair) for pair in zip(dense, norms, strict=True)]


def predictor_of(model):
    """The blocks of f and of h, and the decoder."""
    network = model.predictor
    parts = (network.from_picture, network.from_class, network.decoder)
    return [layer for part in parts for layer in layers_of(part)] + [as_layer(network.out)]


def head_of(encoder):
    return as_layer(encoder.projection, encoder.norm)


def maps_of(encoder, pictures, training):
    """The last maps of the backbone, leaving no trace in running statistics."""
    return without_a_trace(encoder, lambda: encoder.backbone(pictures / 127.5 - 1, training=training))


def encoded(encoder, pictures, training):
    """f or g of pictures 0 to 255, leaving no trace in running statistics."""
    return without_a_trace(encoder, lambda: encoder(pictures, training=training))


def without_a_trace(network, look):
    before = network.get_weights()
    seen = look().numpy().astype(np.float64)
    network.set_weights(before)
    return seen


class Draws:
    """Stands in for `model.uniform`: the same draws for the same shape, and what was asked for."""

    def __init__(self, model):
        self.shapes = []
        model.uniform = self

    def __call__(self, shape):
        self.shapes.append(tuple(int(size) for size in shape))
        return tf.constant(self.of(self.shapes[-1]))

    @staticmethod
    def of(shape):
        return np.random.default_rng(len(shape)).random(shape).astype(np.float32)


def masked(batch, config):
    """a of the seen classes, and their a_hat by the draws of `Draws`."""
    attributes = batch.classes[batch.seen_ids]
    draws = (Draws.of(shape) for shape in (attributes.shape[:1], attributes.shape))
    return attributes, reference.mask(attributes, *draws, config.mask_probability, config.sigma)


def expected(model, batch):
    """The losses of one step and Eq. (7) by the reference, f and g of the images being the networks' own."""
    one, two = batch.inputs
    features, keys = encoded(model.encoder, one, training=True), encoded(model.momentum_encoder, two, training=False)
    return from_features(model, batch, features, keys)


def from_features(model, batch, features, keys, **weights):
    """The same of any f(I), g(I); `weights` stand in for the layers of `semantic` or `predictor`."""
    config, labels = model.config, np.searchsorted(batch.seen_ids, batch.labels)
    attributes, a_hat = masked(batch, config)
    h = reference.embed(a_hat, weights.get("semantic") or layers_of(model.semantic), training=True)
    alignment = reference.triplet if config.triplet else reference.semantic
    aligned = alignment(reference.distance(features, h), labels)
    identity = predicted = 0.0
    if config.lambda1:
        identity = reference.info_nce(features, keys, model.queue.numpy(), config.tau)
    if config.lambda2:
        visual, semantic, *decoder = weights.get("predictor") or predictor_of(model)
        attribute = reference.predict(features, h[labels], visual, semantic, decoder, training=True)
        predicted = reference.prediction(attribute, attributes[labels], config.prediction_norm, attributes)
    losses = {"instance_loss": identity, "semantic_loss": aligned, "prediction_loss": predicted}
    return losses, reference.total(identity, aligned, predicted, config.lambda1, config.lambda2)


def values_of(network):
    return [variable.numpy() for variable in network.variables]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# What the losses are computed on: every choice at least once.
CONFIGS = {
    **{name: overrides for name, overrides in DCEN.ablations.items() if not name.startswith("views")},
    "printed norm": {"prediction_norm": "printed"},
    "relative norm": {"prediction_norm": "relative"},
    "three blocks": {"blocks": 3},
    "one block": {"blocks": 1},
    "no mask": {"sigma": 0.0},
    "frozen statistics": {"freeze_batch_norm": True},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_of_one_step(name):
    """Eq. (3), (4), (5): each ablation leaves out its part and nothing else."""
    model, batch = ready(**CONFIGS[name])
    Draws(model)
    wanted, _ = expected(model, batch)
    assert_losses(step(model, batch), wanted, rtol=1e-4, atol=1e-6)


def test_scores_are_cosines_of_the_running_statistics():
    benchmark = small()
    model = made(benchmark)
    features = encoded(model.encoder, benchmark.inputs[:5].astype(np.float32), training=False)
    new = np.random.default_rng(5).random((3, 4), np.float32)
    classes = np.concatenate([new, benchmark.class_embeddings])
    h = reference.embed(classes, layers_of(model.semantic), training=False)
    got = harness.scores_in_any_company(model, benchmark.inputs[:5], new, atol=1e-6)
    np.testing.assert_allclose(got, 1 - reference.distance(features, h), rtol=1e-5, atol=1e-6)
    assert np.ptp(got) > 0.05
    np.testing.assert_array_equal(np.argmax(got, axis=1), reference.decide(features, h))
    one_by_one = np.concatenate([model.score_classes(benchmark.inputs[i : i + 1], classes) for i in range(5)])
    np.testing.assert_allclose(one_by_one, got, atol=1e-6)


def test_nothing_is_masked_when_classes_are_scored():
    benchmark = small()
    masking, plain = (made(benchmark, mask_probability=p, sigma=1.0) for p in (1.0, 0.0))
    draws = Draws(masking)
    np.testing.assert_array_equal(masking(benchmark.inputs[:4]), plain(benchmark.inputs[:4]))
    assert not draws.shapes and not int(masking.draws)


def test_one_mask_a_class_and_step():
    """Positives and negatives of a step are the same vectors, or the triplet compares unlike ones."""
    model, batch = ready()
    draws = Draws(model)
    step(model, batch)
    assert sorted(draws.shapes, key=len) == [(4,), (4, 4)]  # the seen classes, and their attributes


def test_statistics_of_h_are_of_the_seen_classes():
    model, batch = ready()
    Draws(model)
    first = layers_of(model.semantic)[0]
    _, a_hat = masked(batch, model.config)
    inside = a_hat @ first["kernel"] + (0 if first["bias"] is None else first["bias"])
    norm = next(x for x in model.semantic._flatten_layers() if isinstance(x, keras.layers.BatchNormalization))
    step(model, batch)
    for name, wanted in (("mean", inside.mean(0)), ("variance", inside.var(0))):
        moved = norm.momentum * first[name] + (1 - norm.momentum) * wanted
        np.testing.assert_allclose(getattr(norm, f"moving_{name}"), moved, rtol=1e-5, atol=1e-7)


def pooled(maps, layer, training):
    """f of maps [B, H, W, F]: a block at every place, then their mean."""
    rows = reference.block(maps.reshape(-1, maps.shape[-1]), layer, training)
    return rows.reshape(len(maps), -1, rows.shape[-1]).mean(axis=1)


@pytest.mark.parametrize("training", [True, False])
def test_f_ends_in_a_block_over_places_and_their_mean(training):
    model, batch = ready()
    one, _ = batch.inputs
    features, maps = encoded(model.encoder, one, training), maps_of(model.encoder, one, training)
    np.testing.assert_allclose(features, pooled(maps, head_of(model.encoder), training), rtol=1e-4, atol=1e-5)


def trained_layers(model):
    layers = {"head": [head_of(model.encoder)], "semantic": layers_of(model.semantic)}
    return layers | ({"predictor": predictor_of(model)} if model.config.lambda2 else {})


@pytest.mark.parametrize("name", ["full", "basic_zsl", "printed norm"])
def test_a_step_follows_equation_7(name):
    """The weights of the head of f, of h and of the predictor go down the slope of the whole of it."""
    model, batch = ready(rate=1.0, **CONFIGS[name])
    Draws(model)
    one, two = batch.inputs
    maps, keys = maps_of(model.encoder, one, training=True), encoded(model.momentum_encoder, two, training=False)
    layers = trained_layers(model)
    names = ("kernel", "gamma", "beta", "bias")
    places = [(part, n, name) for part in layers for n, each in enumerate(layers[part]) for name in names]
    places = [(part, n, name) for part, n, name in places if layers[part][n][name] is not None]

    def loss():
        features = pooled(maps, layers["head"][0], training=True)
        weights = {part: layers.get(part) for part in ("semantic", "predictor")}
        return from_features(model, batch, features, keys, **weights)[1]

    directions = np.random.default_rng(0)
    wanted = {}
    for part, n, name in places:
        array = layers[part][n][name]
        direction = directions.standard_normal(array.shape)
        wanted[part, n, name] = direction, slope(loss, array, direction)
    step(model, batch)
    after = trained_layers(model)
    for (part, n, name), (direction, value) in wanted.items():
        moved = layers[part][n][name] - after[part][n][name]
        np.testing.assert_allclose(np.sum(moved * direction), value, rtol=2e-3, atol=2e-5, err_msg=f"{part} {n} {name}")
    assert sum(abs(value) > 1e-2 for _, value in wanted.values()) > len(wanted) / 2


# g and the queue.


def test_g_has_no_gradient():
    model = fresh()
    ours = {id(variable) for variable in model.momentum_encoder.variables}
    assert not any(id(variable) in ours for variable in model.trainable_variables)
    assert not model.momentum_encoder.trainable_variables
    for f, g in zip(model.encoder.variables, model.momentum_encoder.variables, strict=True):
        np.testing.assert_array_equal(f, g, err_msg=f.path)  # where it starts


def test_g_follows_f_with_its_running_statistics():
    """Eq. (6), from the same place as f or behind it."""
    benchmark = small()
    model = made(benchmark, rate=0.1)
    for n in range(2):
        g, f = values_of(model.momentum_encoder), values_of(model.encoder)
        step(model, batch_for(benchmark, seed=n))
        moved = values_of(model.encoder)
        got = values_of(model.momentum_encoder)
        for name, *each in zip([v.path for v in model.encoder.variables], g, f, moved, got, strict=True):
            old, before, after, now = each
            np.testing.assert_allclose(now, reference.ema(old, after, 0.8), rtol=1e-5, atol=1e-6, err_msg=name)
            assert np.abs(after - before).max() > 1e-5, name  # or it could not be told from the f before


def test_the_distance_of_g_shrinks_by_m_where_f_stands_still():
    benchmark = small()
    model = made(benchmark)

    def distances():
        pairs = zip(model.encoder.trainable_variables, trainable(model.momentum_encoder, model.encoder), strict=True)
        return np.array([np.linalg.norm(f.numpy() - g.numpy()) for f, g in pairs])

    before = distances()
    for n in range(2):
        step(model, batch_for(benchmark, seed=n))
    np.testing.assert_allclose(distances(), 0.8**2 * before, rtol=1e-4)
    assert before.min() > 1e-3


def trainable(network, like):
    """The variables of a network at the places where those of another one are trainable."""
    pairs = zip(network.variables, like.variables, strict=True)
    return [one for one, other in pairs if other.trainable]


def test_the_queue_starts_with_unit_vectors_of_its_own():
    rows = fresh(small(rows=30), queue_size=40, feature_dim=40).queue.numpy()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    cosines = rows @ rows.T - np.eye(40)
    assert np.abs(cosines).max() < 0.8 and abs(cosines.mean()) < 0.05  # of every direction


def test_a_queue_that_would_hold_a_picture_twice_is_cut():
    with pytest.warns(UserWarning, match="queue_size: 9 is more than half the 16 training rows"):
        model = fresh(queue_size=9)
    assert model.config.queue_size == model.queue.shape[0] == 8


@pytest.mark.parametrize("size", [7, 3])
def test_keys_are_enqueued_in_their_order(size):
    """Over two steps of four: around the end, and more than all of it."""
    benchmark = small()
    model = made(benchmark, queue_size=size)
    queue, position = model.queue.numpy(), 0
    for n in range(2):
        batch = batch_for(benchmark, seed=n)
        keys = encoded(model.momentum_encoder, batch.inputs[1], training=False)
        step(model, batch)
        queue, position = reference.enqueue(queue, position, unit(keys))
        assert int(model.position) == position
        np.testing.assert_allclose(model.queue, queue, rtol=1e-4, atol=1e-5)


# What is frozen.


def trained(path=None, epochs=2):
    """A model and its run after the last epoch, and the variables of f after each."""
    benchmark = small()
    model = fresh(benchmark, frozen_epochs=1, batch_size=6, drop_every=1, weight_decay=0.1, views="crop")
    model.compile()
    states = [values_of(model.encoder)]

    def judge(model, _):
        states.append(values_of(model.encoder))
        return Verdict({}, float(len(states)), {})

    run = harness.run_of(benchmark, path, epochs, judge=judge)
    model.learn(run)
    return model, run, states


@pytest.fixture(scope="module")
def unbroken():
    return trained()


def moved(model, before, after):
    """By variable of f, the largest change: those of the backbone, and those of the head."""
    paths = [variable.path for variable in model.encoder.variables]
    changes = {path: np.abs(a - b).max() for path, a, b in zip(paths, before, after, strict=True)}
    backbone = {path: change for path, change in changes.items() if "stage" in path}
    assert len(backbone) == 20 and len(changes) == 25
    return backbone, {path: change for path, change in changes.items() if path not in backbone}


def test_a_backbone_thaws_after_its_epochs(unbroken):
    """Before, neither gradient nor decay nor running statistics move it; after, its normalisation alone stays."""
    model, _, states = unbroken
    first, second = moved(model, *states[:2]), moved(model, *states[1:])
    assert not any(first[0].values()) and all(first[1].values()) and all(second[1].values())
    for path, change in second[0].items():
        assert (change > 0) == ("conv" in path), path


def one_step_of_adam(**overrides):
    """The changes of f: of its backbone, and of its head."""
    benchmark = small()
    model = fresh(benchmark, learning_rate=0.01, **overrides)
    model.compile()
    before = values_of(model.encoder)
    step(model, batch_for(benchmark))
    return moved(model, before, values_of(model.encoder))


def test_a_backbone_that_never_thaws():
    backbone, head = one_step_of_adam(freeze_backbone=True, weight_decay=0.1)
    assert not any(backbone.values()) and all(head.values())


def test_the_backbone_has_a_rate_of_its_own():
    """The first step of Adam is the rate, whatever the gradient."""
    for part, rate in zip(one_step_of_adam(backbone_rate=0.1, weight_decay=0.0), (0.001, 0.01), strict=True):
        kernels = [change for path, change in part.items() if "kernel" in path]
        np.testing.assert_allclose(kernels, rate, rtol=1e-2)


def test_frozen_statistics_of_the_backbone():
    """They move where they are not frozen: `test_g_follows_f_with_its_running_statistics`."""
    model, batch = ready(freeze_batch_norm=True)
    before = values_of(model.encoder)
    step(model, batch)
    backbone, head = moved(model, before, values_of(model.encoder))
    assert not any(change for path, change in backbone.items() if "moving" in path)
    assert all(change for path, change in head.items() if "moving" in path)


# Ablations.


def test_ablations_are_the_rows_of_table_3():
    """Each adds one part to all before it; what a row leaves out does not exist in it."""
    rows = {name: DCENConfig(**overrides) for name, overrides in DCEN.ablations.items() if "views" not in name}
    parts = {name: (c.lambda1 > 0, c.sigma > 0, c.triplet, c.lambda2 > 0) for name, c in rows.items()}
    assert list(parts) == ["basic_zsl", "vcm", "masking", "triplet", "full"]
    assert list(parts.values()) == [tuple(place < number for place in range(4)) for number in range(5)]
    assert rows["full"] == DCENConfig()


def test_basic_zsl_has_no_second_view_no_draw_and_no_other_class():
    model, batch = ready(rate=0.1, **DCEN.ablations["basic_zsl"])
    draws, queue, g = Draws(model), model.queue.numpy(), values_of(model.momentum_encoder)
    before = model.get_weights()
    step(model, batch)
    with_view, place = model.get_weights(), int(model.position)
    model.set_weights(before)
    one, two = batch.inputs
    step(model, ((one, np.zeros_like(two)), batch.labels))
    assert harness.same(with_view, model.get_weights())
    assert not draws.shapes and place == 0 and not hasattr(model, "predictor")
    np.testing.assert_array_equal(model.queue, queue)
    assert harness.same(g, values_of(model.momentum_encoder))


# Settings.


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam_with_a_group_that_starts_later(decay):
    rate = 2.0**-7

    def optimizer(variables):
        return dcen.CoupledAdam(rate, beta1=0.5, decay=decay, group=variables[1:], group_rate=0.25, start=2)

    steps = zip(harness.six_steps(optimizer), (rate, rate / 4), (0, 2), strict=True)
    for (before, gradients, after), own, skipped in steps:
        wanted = reference.adam(before, gradients[skipped:], own, 0.5, decay)
        np.testing.assert_allclose(after, wanted, rtol=1e-6)  # its powers of beta are of float32
        assert np.abs(wanted - before).max() > 1e-3


def test_a_model_is_trained_by_it():
    benchmark = small()
    model = fresh(benchmark, learning_rate=0.01, weight_decay=0.02, frozen_epochs=1, backbone_rate=0.5, batch_size=8)
    model.compile()
    optimizer = model.optimizer
    assert (float(optimizer.learning_rate), optimizer.beta1, optimizer.decay) == (np.float32(0.01), 0.5, 0.02)
    assert optimizer.group_rate == 0.5 and int(optimizer.start) == 2  # 16 rows, two steps an epoch


def test_the_rate_drops_and_starts_anew_with_the_thawed_backbone():
    rates = fresh(learning_rate=1.0, drop_every=2, frozen_epochs=3)
    np.testing.assert_allclose([rates.rate_in(epoch) for epoch in range(8)], [1, 1, 0.1, 1, 1, 0.1, 0.1, 0.01])


def test_running_statistics_start_at_those_of_training_pictures():
    benchmark = small()
    model, pictures = fresh(benchmark), benchmark.inputs[benchmark.train].astype(np.float32)
    for network in (model.encoder, model.momentum_encoder):
        as_trained, as_tested = (encoded(network, pictures, training) for training in (True, False))
        np.testing.assert_allclose(as_tested, as_trained, rtol=1e-3, atol=1e-5)


def test_weights_from_a_file_are_those_of_both_networks(tmp_path):
    keras.utils.set_random_seed(5)
    other = backbones.backbone("small", None, SIZE)
    other.save_weights(tmp_path / "small.weights.h5")
    model = fresh(weights=str(tmp_path / "small.weights.h5"))
    for network in (model.encoder, model.momentum_encoder):
        assert harness.same(network.backbone.get_weights(), other.get_weights())


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("prediction_norm", "none", "one of squared, printed, relative"),
        ("lambda1", -0.1, "at least 0"),
        ("frozen_epochs", -1, "at least 0"),
        ("sigma", 30, "at least 0 and at most 1"),
        ("mask_probability", 1.5, "at least 0 and at most 1"),
        ("momentum", 1.1, "at least 0 and at most 1"),
        ("tau", 0.0, "more than 0"),
        ("queue_size", 0, "at least 1"),
        ("blocks", 0, "at least 1"),
    ],
)
def test_a_value_that_does_not_exist_is_a_sentence(name, value, wanted):
    harness.assert_refuses(DCENConfig, name, value, wanted)


def test_views_that_do_not_exist_are_a_sentence():
    with pytest.raises(ValueError, match="^views: got 'none of them'; wanted one of "):
        DCENConfig(views="none of them")


# Whole runs.


@pytest.mark.long
def test_a_resumed_run_ends_as_an_unbroken_one(unbroken, tmp_path):
    """Weights, g, running statistics, the queue and its position, the draws, and the rate."""
    trained(tmp_path / "run.npz", epochs=1)
    resumed, run, states = trained(tmp_path / "run.npz")
    model, whole, _ = unbroken
    assert run.history == whole.history and len(run.history) == 2 and len(states) == 2
    for variable, one, other in zip(model.variables, model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=variable.path)
    assert int(model.position) == 2 * 2 * 6 % 7 and int(model.draws) > 0


# Replicas.


def numbered(model):
    return {str(number): variable for number, variable in enumerate(model.variables)}


def two_steps(strategy, name="full"):
    """A model after two steps, with the closed form fitted on what they made of the backbone, and the first losses."""
    benchmark = small(rows=10)
    model, losses = harness.trained_under(
        strategy,
        lambda: made(benchmark, rate=0.05, queue_size=13, **BESIDE),  # the second step goes around its end
        [batch_for(benchmark, 8, seed).pair for seed in range(2)],
        traced=strategy.num_replicas_in_sync > 1,
    )
    model.settle(benchmark, functools.partial(batches.scoring, benchmark))
    return model, losses


@pytest.mark.long
def test_two_replicas_train_as_one(tmp_path):
    """With the keys of both in the queue of each, in the order of the rows, and one mask for both."""
    process = start("tests.models.test_dcen", tmp_path / "weights.npz", cwd=tmp_path)
    model, losses = two_steps(tf.distribute.get_strategy())
    before = made(small(rows=10), queue_size=13, **BESIDE)
    done = process.wait_for(120)
    assert done.returncode == 0, done.err
    with np.load(tmp_path / "weights.npz") as file:
        two = harness.saved_under("full", file)
    assert_losses({loss: two[loss] for loss in losses}, losses, rtol=1e-4, atol=1e-6)
    # A normalisation with next to no variance makes much of rounding: what counts is how far apart they end beside how
    # far they went.
    olds = numbered(before)
    for number, variable in numbered(model).items():
        apart, way = np.linalg.norm(two[number] - variable), np.linalg.norm(variable - olds[number])
        assert apart <= 0.01 * way + 1e-6, variable.path
    for one, old in zip(model.trainable_variables, before.trainable_variables, strict=True):
        assert np.abs(one - old).max() > 1e-4, one.path  # or the comparison could not fail
    assert int(model.position) == 16 % 13
    assert np.abs(model.queue - before.queue).max(axis=1).min() > 0.01  # every key of it has come from a picture


if __name__ == "__main__":
    harness.save_from_two_replicas(two_steps, ["full"], numbered)
