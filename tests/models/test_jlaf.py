"""JLAF against the paper's equations in loops, and what its parts must not do."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.reference import jlaf as reference
from tests.support import harness
from tests.support.harness import assert_finite, assert_losses, step
from tests.support.slopes import slope
from zslkeras.evaluation import metrics
from zslkeras.models import jlaf
from zslkeras.models.jlaf import JLAF, JLAFConfig

Config = harness.v1("jlaf")

SMALL = {"alpha": 0.6, "eta": 0.7, "sharpness": 4.0, "tau": 5.0}
PRINTED = JLAF.ablations["printed"]
# What the comparisons with the reference run through: every choice at least once.
CONFIGS = {
    **JLAF.ablations,
    "hidden": {"hidden": 5},
    "tanh": {"encoder_activation": "tanh", "region_power": 0.5},
    "linear": {"encoder_activation": "linear", "region_power": 1.5, "hidden": 3},
    "raw means": {"gram": "raw", "learn_sharpness": False},
    "sums of cosines": {"reduction": "sum", "normalize": False, "sharpness": 1.0, "reconstructed": "seen"},
    "scaled": {"region_scaling": "standard", "embedding_scaling": "standard", "region_power": 0.5},
    "scaled, not normalized": {
        "region_scaling": "minmax",
        "normalize": False,
        "sharpness": 12.0,
        "embedding_scaling": "l2",
    },
    "uncoupled, printed": {**PRINTED, "coupled": False, "hidden": 5},
    "uncoupled, without_sr": {"coupled": False, "eta": 0.0},
}
SEEN = [0, 1, 3]  # a seen class's id is not its place among the seen ones


def small(**options):
    """Seen classes are 0, 1 and 3, and regions are six times as long, so that attention is sharp."""
    benchmark = harness.small("maps", **options)
    benchmark = dataclasses.replace(benchmark, inputs=(6 * benchmark.inputs).astype(np.float16))
    return harness.renumbered(benchmark, np.array([0, 3, 1, 2, *range(4, len(benchmark.class_names))]))


def fresh(benchmark=None, **overrides):
    """A model where it starts."""
    return JLAF.for_benchmark(benchmark or small(), Config(**SMALL | overrides))


def made(benchmark=None, rate=1.0, **overrides):
    """A model away from where it starts, with SGD."""
    model = fresh(benchmark, **overrides)
    variables = {name: layer.weights for name, layer in layers_of(model).items()}
    harness.with_weights(model, variables, lambda name, draws: 1.5 * draws, rate)
    if model.config.learn_sharpness:
        model.log_sharpening.assign(0.4)
    return model


def layers_of(model):
    """By name; "mapping" is there only where it is not the decoder."""
    layers = {layer.name: layer for layer in (*model.encoder, model.decoder)}
    return layers | ({} if model.mapping is model.decoder else {"mapping": model.mapping})


def weights_of(model):
    """Kernels and biases by the name of their layer, and the logarithm that sharpens, all in float64."""
    values = harness.in_float64({name: layer.weights for name, layer in layers_of(model).items()})
    return values | {"log_sharpening": [np.array(float(model.log_sharpening))]}


def parts_of(weights, config):
    """What the reference's scores take after regions and classes: h_e, g and the sharpness."""
    if config.hidden is None:
        encoder = [(*weights["encoder"], config.encoder_activation)]
    else:
        encoder = [(*weights["encoder_hidden"], config.encoder_activation), (*weights["encoder"], "linear")]
    mapping = weights["decoder" if config.coupled else "mapping"]
    return encoder, mapping, config.sharpness * np.exp(weights["log_sharpening"][0])


def regions(config, maps, train):
    """x [B, R, F] of Eq. (3)."""
    powered = (reference.powered(each, config.region_power) for each in (maps, train))
    x = harness.scaled_regions(config.region_scaling, *powered)
    return (reference.unit(x) if config.normalize else x).reshape(-1, 6, 7)


batch_for = functools.partial(harness.batch_for, as_reference=regions)


def ready(benchmark=None, **overrides):
    """A model away from where it starts, and a batch for it."""
    benchmark = benchmark or small()
    model = made(benchmark, **overrides)
    return model, batch_for(model, benchmark)


def expected_scores(weights, batch, classes):
    return reference.scores(batch.x, classes, *parts_of(weights, batch.config))


def expected_losses(weights, batch):
    """The three losses that are reported, whatever their weight, and Eq. (7)."""
    config, (encoder, *_) = batch.config, parts_of(weights, batch.config)
    seen, known = batch.classes[SEEN], batch.classes if config.reconstructed == "all" else batch.classes[SEEN]
    scores = expected_scores(weights, batch, batch.classes)
    losses = {
        "class_loss": reference.class_loss(scores, batch.labels, SEEN, config.tau),
        "manifold_loss": reference.manifold_loss(reference.encode(encoder, seen), seen, config.gram, config.reduction),
        "reconstruction_loss": reference.reconstruction_loss(
            known, reference.encode(encoder, known), weights["decoder"], config.reduction
        ),
    }
    return losses, reference.total(*losses.values(), config.alpha, config.eta)


# The equations.


@pytest.mark.parametrize("name", CONFIGS)
def test_attention_of_equation_3(name):
    model, batch = ready(**CONFIGS[name])
    encoder, _, sharpness = parts_of(weights_of(model), model.config)
    h = reference.encode(encoder, batch.classes)
    np.testing.assert_allclose(model.encode(tf.constant(batch.classes, tf.float32)), h, rtol=1e-5, atol=1e-6)
    attention = model.attention(batch.inputs)
    assert list(attention) == ["class"]
    wanted = reference.attention(batch.x, h, sharpness)
    np.testing.assert_allclose(attention["class"], wanted.reshape(6, 5, 2, 3), rtol=5e-5, atol=1e-7)
    assert np.median(wanted.max(axis=2)) > 0.35  # sharp, so that it matters where it sums to one
    assert np.abs(np.diff(wanted, axis=1)).max() > 0.1  # and classes look at different places


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_of_equation_8_of_classes_built_in_new_and_alone(name):
    benchmark = small()
    model, batch = ready(benchmark, **CONFIGS[name])
    new = np.random.default_rng(5).random((3, 4)).astype(np.float32)
    got = harness.scores_in_any_company(model, batch.inputs, new, [1], rtol=1e-5, atol=1e-6)
    classes = harness.scaled_classes(model.config, benchmark, np.concatenate([new, benchmark.class_embeddings]))
    np.testing.assert_allclose(got, expected_scores(weights_of(model), batch, classes), rtol=1e-5, atol=1e-5)
    assert np.ptp(got) > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_reports_the_losses_and_follows_the_slope_of_equation_7(name):
    """Each ablation leaves out its part and nothing else; what is not trained has no slope, or none that is taken."""
    model, batch = ready(**CONFIGS[name])
    before = weights_of(model)
    wanted, _ = expected_losses(before, batch)
    got = step(model, batch)
    after = weights_of(model)
    np.testing.assert_allclose(got.pop("sharpness"), parts_of(after, model.config)[2], rtol=1e-6)
    assert_losses(got, wanted, rtol=1e-5)

    def loss():
        return expected_losses(before, batch)[1]

    trained = set(before)
    if not model.config.learn_sharpness:
        trained.remove("log_sharpening")
    if name == "uncoupled, without_sr":
        trained.remove("decoder")
        assert all(slope(loss, array, 1.0) == 0 for array in before["decoder"])
    assert all(harness.same(before[part], after[part]) for part in set(before) - trained)
    moved = ({part: weights[part] for part in trained} for weights in (before, after))
    harness.assert_step_follows(loss, *moved, rtol=1e-4, atol=2e-5)


# 4 rows of 5 seen classes with 6 regions, 3 attributes, 7 channels; sharp, and far from zero.
_DRAWN = np.random.default_rng(11).standard_normal
PLACES = np.array([0, 4, 2, 2])
PURE = {  # the arrays, the model's function of them, and the reference's
    "class loss": (
        [_DRAWN((4, 5))],
        lambda scores: jlaf.class_loss(scores, PLACES, 8.0),
        lambda scores: reference.class_loss(scores, PLACES, range(5), 8.0),
    ),
    **{
        f"manifold loss, {gram} {reduction}": (
            [_DRAWN((5, 7)), _DRAWN((5, 3))],
            lambda h, k, options=(gram, reduction): jlaf.manifold_loss(h, k, *options),
            lambda h, k, options=(gram, reduction): reference.manifold_loss(h, k, *options),
        )
        for gram in ("raw", "cosine")
        for reduction in ("sum", "mean")
    },
    **{
        f"reconstruction loss, {reduction}": (
            [_DRAWN((5, 3)), _DRAWN((5, 3))],
            lambda k, k_hat, reduction=reduction: jlaf.reconstruction_loss(k, k_hat, reduction),
            lambda k, k_hat, reduction=reduction: reference.reconstruction_loss(
                k, k_hat, (np.eye(3), np.zeros(3)), reduction
            ),
        )
        for reduction in ("sum", "mean")
    },
    "attended cosines": (
        [4 * _DRAWN((4, 6, 7)), _DRAWN((5, 7)), _DRAWN((7, 3)), _DRAWN(3), _DRAWN((5, 3))],
        lambda x, h, kernel, bias, k: tf.reduce_sum(
            WEIGHTS * jlaf.attended_cosines(tf.nn.softmax(tf.einsum("brf,cf->bcr", x, h)), x @ kernel + bias, k)
        ),
        lambda x, h, kernel, bias, k: sum(
            WEIGHTS[b, c] * reference.cosine(k_hat, k[c])
            for b, row in enumerate(reference.predicted(x, h, (kernel, bias)))
            for c, k_hat in enumerate(row)
        ),
    ),
}
WEIGHTS = _DRAWN((4, 5))


@pytest.mark.parametrize("name", PURE)
def test_losses_and_cosines_in_float64(name):
    arrays, function, wanted = PURE[name]
    harness.assert_function(function, wanted, arrays, rtol=1e-6, atol=1e-8)


def test_the_printed_form():
    """Eq. (3-7) as they stand: raw regions, cosines without a factor, raw inner products, and sums."""
    config = Config(**PRINTED)
    assert (config.alpha, config.eta) == (0.5, 1.0)  # Sec. 4.1
    benchmark = small()
    model = made(benchmark, **PRINTED)
    rows = benchmark.train[:6]
    x = benchmark.inputs[rows].astype(np.float64).reshape(6, 6, 7)
    k = benchmark.class_embeddings.astype(np.float64)
    weights, encoder = weights_of(model), [(*weights_of(model)["encoder"], "sigmoid")]
    scores = reference.scores(x, k, encoder, weights["decoder"])
    np.testing.assert_allclose(model(benchmark.inputs[rows]), scores, rtol=1e-5, atol=1e-5)
    h = reference.encode(encoder, k)
    wanted = {
        "class_loss": reference.class_loss(scores, benchmark.labels[rows], SEEN),
        "manifold_loss": reference.manifold_loss(h[SEEN], k[SEEN]),
        "reconstruction_loss": reference.reconstruction_loss(k, h, weights["decoder"]),
        "sharpness": 1.0,
    }
    assert_losses(step(model, (benchmark.inputs[rows], benchmark.labels[rows])), wanted, rtol=1e-5)


def test_why_the_printed_form_is_not_the_default():
    """Sizes of CUB: its L_MA, some 512^2 a pair of classes, hides everything else, and one region takes all."""
    generator = np.random.default_rng(0)
    embeddings = reference.unit(generator.random((200, 312))).astype(np.float32)
    maps = np.maximum(generator.standard_normal((1, 7, 7, 2048)), 0).astype(np.float32)  # regions of length 32
    printed, model = (
        JLAF(Config(**overrides), (7, 7, 2048), embeddings, np.arange(200) < 150) for overrides in (PRINTED, {})
    )
    h, k = printed.encode(tf.constant(embeddings[:150])), tf.constant(embeddings[:150])
    np.testing.assert_allclose(jlaf.manifold_loss(h, k), 150**2 * 512**2, rtol=0.05)
    assert jlaf.manifold_loss(h, k, "cosine", "mean") < 1
    sharpest = [float(tf.reduce_max(one.attention(maps)["class"][0, 0])) for one in (printed, model)]
    assert sharpest[0] > 0.9 and sharpest[1] < 0.1


# Attention and the order of attending and decoding.


def large(**overrides):
    """49 regions of many channels, and what they are looked at for, away from where it starts."""
    generator = np.random.default_rng(5)
    embeddings = generator.random((12, 20)).astype(np.float32)
    model = JLAF(Config(sharpness=3.0, **overrides), (7, 7, 64), embeddings, np.arange(12) < 8)
    model.compile()
    for layer in layers_of(model).values():
        layer.kernel.assign(generator.standard_normal(layer.kernel.shape))
        layer.bias.assign(generator.standard_normal(layer.bias.shape))
    return model, generator.standard_normal((3, 7, 7, 64)).astype(np.float32)


@pytest.mark.parametrize("overrides", [{}, {"hidden": 9}, {"normalize": False}], ids=str)
def test_attention_sums_to_one_over_the_places_of_each_class(overrides):
    model, maps = large(**overrides)
    attention = model.attention(maps)["class"].numpy()
    assert attention.shape == (3, 12, 7, 7)
    np.testing.assert_allclose(attention.sum(axis=(2, 3)), 1.0, rtol=1e-5)
    assert np.abs(attention.sum(axis=1) - 1).max() > 0.1


@pytest.mark.parametrize("coupled", [True, False])
def test_regions_decoded_first_are_the_same_as_features_attended_first(coupled):
    """Also with a bias: it comes through once because attention sums to one."""
    model, maps = large(coupled=coupled)
    x = maps.reshape(3, 49, 64).astype(np.float64)
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    attention = model.attention(maps)["class"].numpy().astype(np.float64).reshape(3, 12, 49)
    k, kernel, bias = (np.float64(v) for v in (model.class_embeddings, model.mapping.kernel, model.mapping.bias))

    def naive(bias):
        decoded = np.einsum("bkr,brf->bkf", attention, x) @ kernel + bias
        return np.einsum("bka,ka->bk", decoded, k) / np.linalg.norm(decoded, axis=2) / np.linalg.norm(k, axis=1)

    np.testing.assert_allclose(model(maps), naive(bias), rtol=0, atol=1e-5)
    for wrong in (0 * bias, 49 * bias):
        assert np.abs(naive(wrong) - naive(bias)).max() > 0.05


@pytest.mark.parametrize(
    "what, overrides",
    [
        ("train_step", {"region_dropout": 0.2}),
        ("train_step", {"coupled": False, "normalize": False}),
        ("score_classes", {}),
        ("attention", {}),
        ("embed", {}),
    ],
    ids=str,
)
def test_attended_features_are_never_formed(what, overrides):
    """Nothing in the graph is as large as [B, C, F], and nothing has its channels beside its pictures and classes."""
    B, A, F, R, C = 8, 11, 250, 4, 48
    embeddings = np.random.default_rng(0).random((C, A)).astype(np.float32)
    model = JLAF(Config(**overrides), (2, 2, F), embeddings, np.arange(C) < 40)
    model.compile()
    found = harness.floats_made_by(model, what, B)
    largest = max(size for _, size in found)
    assert C * B * R < largest <= max(C * F, B * R * F, B * C * A) < 40 * B * F
    assert {kind for kind, _ in found} & {"MatMul", "BatchMatMulV2"}  # or nothing was looked at


# Which class decides which score.


def test_a_score_depends_on_no_other_class():
    benchmark = small()
    model = made(benchmark)
    inputs, classes = benchmark.inputs[:4], benchmark.class_embeddings.copy()
    before = model.score_classes(inputs, classes).numpy()
    classes[3] += [0.3, -0.2, 0.5, 0.1]
    after = model.score_classes(inputs, classes).numpy()
    others = [0, 1, 2, 4]
    np.testing.assert_allclose(after[:, others], before[:, others], rtol=1e-6, atol=1e-6)
    assert np.abs(after[:, 3] - before[:, 3]).min() > 1e-3


def test_a_class_enters_by_its_latent_and_its_direction_alone():
    """With a latent that is the same for all, a score is the cosine with one picture's embedding."""
    benchmark = small()
    model = made(benchmark)
    model.encoder[0].kernel.assign(tf.zeros_like(model.encoder[0].kernel))
    inputs, classes = benchmark.inputs[:4], benchmark.class_embeddings
    decoded = model.embed(inputs)["decoded"].numpy()
    scores = model.score_classes(inputs, np.concatenate([classes, 7 * classes, -classes])).numpy()
    wanted = [[reference.cosine(picture, k) for k in classes] for picture in decoded]
    np.testing.assert_allclose(scores[:, :5], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores[:, 5:10], scores[:, :5], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores[:, 10:], -scores[:, :5], rtol=1e-5, atol=1e-6)
    made_again = made(benchmark)  # and with latents of its own the length does matter
    longer = made_again.score_classes(inputs, 7 * classes) - made_again.score_classes(inputs, classes)
    assert np.abs(longer).max() > 0.1


@pytest.mark.parametrize("scores_at_once", [1, 2 * 4 * 6, 3 * 4 * 6])
def test_classes_in_parts_score_as_together(scores_at_once, monkeypatch):
    benchmark = small()
    model, inputs = made(benchmark), benchmark.inputs[:4]
    classes = np.random.default_rng(5).random((7, 4)).astype(np.float32)
    together = model.score_classes(inputs, classes).numpy()
    alone = [model.score_classes(inputs, classes[c : c + 1])[:, 0] for c in range(7)]
    np.testing.assert_allclose(together, np.transpose(alone), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(jlaf, "_NUMBERS_AT_ONCE", scores_at_once)
    parts, encode = [], model.encode
    model.encode = lambda part: parts.append(len(part)) or encode(part)
    for num in range(1, 8):
        parts.clear()
        got = model.score_classes(inputs, classes[:num])
        np.testing.assert_allclose(got, together[:, :num], rtol=1e-5, atol=1e-6)
        assert sum(parts) >= num and max(parts) <= max(1, scores_at_once // (4 * 6))
    del model.encode
    signature = [tf.TensorSpec([None, 2, 3, 7]), tf.TensorSpec([None, 4])]
    traced = tf.function(model.score_classes, input_signature=signature)
    for rows, num in ((4, 7), (1, 2)):
        got = traced(inputs[:rows].astype(np.float32), classes[:num])
        np.testing.assert_allclose(got, together[:rows, :num], rtol=1e-5, atol=1e-6)


def test_no_pictures_and_no_classes():
    benchmark = small()
    model = made(benchmark)
    assert model.score_classes(benchmark.inputs[:0], benchmark.class_embeddings).shape == (0, 5)
    assert model.score_classes(benchmark.inputs[:2], np.zeros((0, 4), np.float32)).shape == (2, 0)


# The regularisers.


def test_latents_that_are_a_turned_copy_of_the_classes_have_no_manifold_loss():
    generator = np.random.default_rng(0)
    k = generator.random((6, 4))
    turn = np.linalg.qr(generator.standard_normal((9, 4)))[0].T  # [4, 9], of orthonormal rows
    for factor in (1.0, 3.7, 0.02):
        h = tf.constant(factor * k @ turn)
        for reduction in ("sum", "mean"):
            np.testing.assert_allclose(jlaf.manifold_loss(h, tf.constant(k), "cosine", reduction), 0, atol=1e-20)
    np.testing.assert_allclose(jlaf.manifold_loss(tf.constant(k @ turn), tf.constant(k)), 0, atol=1e-20)
    assert jlaf.manifold_loss(h, tf.constant(k)) > 1  # as printed it sees the length
    stretched = k @ (turn * np.array([[1.0], [1.0], [1.0], [2.0]]))
    assert jlaf.manifold_loss(tf.constant(stretched), tf.constant(k), "cosine") > 0.1


def test_what_is_reconstructed_half_a_unit_off():
    k = tf.constant(np.random.default_rng(0).random((6, 4)))
    for reduction, wanted in (("sum", 6.0), ("mean", 0.25)):
        np.testing.assert_allclose(jlaf.reconstruction_loss(k, k + 0.5, reduction), wanted, rtol=1e-12)
        assert jlaf.reconstruction_loss(k, k, reduction) == 0


@pytest.mark.parametrize(
    "overrides, wanted",
    [
        ({}, "decoder encoder"),
        ({"eta": 0.0}, "decoder encoder"),
        ({"hidden": 3}, "decoder encoder encoder_hidden"),
        ({"coupled": False}, "decoder encoder mapping"),
        ({"coupled": False, "eta": 0.0}, "encoder mapping"),
    ],
    ids=str,
)
def test_trained_weights(overrides, wanted):
    for learned in (True, False):
        model = fresh(learn_sharpness=learned, **overrides)
        trained = {id(variable) for variable in model.trainable_variables}
        names = sorted(name for name, layer in layers_of(model).items() if {id(v) for v in layer.weights} <= trained)
        assert names == wanted.split()
        assert len(trained) == 2 * len(names) + learned


def test_one_decoder_serves_both_losses_and_uncoupled_there_are_two():
    """By what each of the two losses alone moves."""
    benchmark = small()
    for coupled in (True, False):
        moved = {}
        for loss, weights in (("class_loss", {"eta": 0.0}), ("reconstruction_loss", {"tau": 0.0})):
            model = made(benchmark, coupled=coupled, alpha=0.0, **weights)
            before = weights_of(model)
            step(model, batch_for(model, benchmark))
            after = weights_of(model)
            moved[loss] = {n for n in after if n != "encoder" and not np.array_equal(before[n][0], after[n][0])}
        moved["class_loss"].remove("log_sharpening")
        assert moved == {"class_loss": {"decoder" if coupled else "mapping"}, "reconstruction_loss": {"decoder"}}


@pytest.mark.parametrize(
    "overrides, reads",
    [
        ({}, True),
        ({"reconstructed": "seen"}, False),
        (PRINTED, True),
        (JLAF.ablations["without_sr"], False),
        (JLAF.ablations["without_ma"], True),
        (JLAF.ablations["uncoupled"], True),
        ({"coupled": False, "reconstructed": "seen"}, False),
        ({"embedding_scaling": "standard", "reconstructed": "seen"}, False),
    ],
    ids=str,
)
def test_unseen_embeddings_are_read_or_not_and_results_say_so(overrides, reads):
    assert harness.depends_on_unseen_embeddings(small, ready, **overrides) == reads
    assert JLAF.reads_unseen_embeddings(Config(**SMALL | overrides)) == reads


# Decisions.


def test_gamma_moves_rows_from_seen_classes_to_unseen_ones():
    benchmark = small(classes=12, unseen=5, rows=10)
    model = made(benchmark)
    inputs, labels, unseen = benchmark.inputs, benchmark.labels, ~benchmark.seen_mask.astype(bool)
    found = model(inputs)
    scores = found.numpy()
    assert np.abs(scores).max() <= 1 + 1e-5
    decided = {}
    for gamma in (-np.inf, -10.0, -0.05, 0.0, 0.1, 0.4, 10.0, np.inf):
        decided[gamma] = model.decide(found, inputs, benchmark.seen_mask, gamma).numpy()
        finite = np.clip(gamma, -10, 10)
        np.testing.assert_array_equal(decided[gamma], reference.decide(scores.astype(np.float64), unseen, finite))
    shares = [unseen[rows].mean() for rows in decided.values()]
    assert shares == sorted(shares) and len(set(shares)) >= 5 and shares[0] == 0 and shares[-1] == 1
    np.testing.assert_array_equal(decided[0.0], scores.argmax(axis=1))  # Eq. (8), "w/o C"
    sets = benchmark.seen_classes, benchmark.unseen_classes
    numbers = {gamma: metrics.evaluate(scores, labels, *sets, gamma) for gamma in decided}
    for gamma in (10.0, np.inf):
        assert numbers[gamma]["S"] == 0 and numbers[gamma]["U"] == numbers[gamma]["T"] > 0
    for gamma in (-10.0, -np.inf):
        assert numbers[gamma]["U"] == 0 and numbers[gamma]["S"] > 0
    for name, sign in (("U", 1), ("S", -1)):
        values = [one[name] for one in numbers.values()]
        assert values == sorted(values, reverse=sign < 0) and len(set(values)) > 2


# Ablations.


def test_ablations_change_what_they_name():
    default, fields = Config(), {field.name for field in dataclasses.fields(JLAFConfig)}
    changed = {}
    for name, overrides in JLAF.ablations.items():
        assert set(overrides) <= fields
        config = dataclasses.replace(default, **overrides)
        changed[name] = {field: getattr(config, field) for field in fields}
        changed[name] = {k: v for k, v in changed[name].items() if v != getattr(default, k)}
    assert changed == {
        "jlaf": {},
        "without_sr": {"eta": 0.0},
        "without_ma": {"alpha": 0.0},
        "uncoupled": {"coupled": False},
        "printed": {
            "normalize": False,
            "learn_sharpness": False,
            "tau": 1.0,
            "gram": "raw",
            "reduction": "sum",
        },
    }


def test_printed_leaves_nothing_that_is_not_in_the_paper():
    """Whatever a dataset's config sets besides how long to train which of the paper's networks."""
    free = {"coupled"} | {
        field.name for field in dataclasses.fields(JLAFConfig) if field.name.startswith("closed_form_")
    }
    free |= {"learning_rate", "weight_decay", "batch_size", "epochs", "sampler", "patience"}
    assert set(PRINTED) == {field.name for field in dataclasses.fields(JLAFConfig)} - free


@pytest.mark.parametrize("name, loss", [("without_sr", "reconstruction_loss"), ("without_ma", "manifold_loss")])
def test_a_term_without_weight_is_reported_and_not_learned(name, loss):
    benchmark = small()
    losses, ends = {}, {}
    for ablation in ("jlaf", name):
        model, batch = ready(benchmark, rate=0.05, **{"alpha": 20.0, "eta": 20.0} | JLAF.ablations[ablation])
        losses[ablation] = [step(model, batch)[loss] for _ in range(4)]
        ends[ablation] = weights_of(model)
    assert losses["jlaf"][0] == losses[name][0] > 0
    assert losses["jlaf"][-1] < losses[name][-1]
    assert np.abs(ends["jlaf"]["encoder"][0] - ends[name]["encoder"][0]).max() > 1e-3


# The factor of the cosines.


def test_a_class_of_150_cannot_have_more_than_a_twentieth_without_a_factor():
    best = -np.ones((1, 150))
    best[0, 7] = 1
    share = np.exp(-jlaf.class_loss(tf.constant(best), np.array([7]), 1.0))
    np.testing.assert_allclose(share, np.e / (np.e + 149 / np.e), rtol=1e-12)
    assert 0.047 < share < 0.0475
    assert np.exp(-jlaf.class_loss(tf.constant(best), np.array([7]), Config().tau)) > 0.999


def test_the_sharpness_is_learned_or_stays():
    benchmark = small()
    for learned in (True, False):
        model = fresh(benchmark, learn_sharpness=learned)
        model.compile(keras.optimizers.SGD(0.5))
        ends = [step(model, batch_for(model, benchmark))["sharpness"] for _ in range(3)]
        assert (np.abs(np.array(ends) - 4.0) > 1e-4).any() == learned
        assert min(ends) > 0


# Regions that are not looked at in training.


def expected_without(weights, batch, kept):
    """L_CLS where each picture has the regions that `kept` [B, R] has true, as if it had no others."""
    rows = [
        reference.scores(batch.x[b : b + 1, kept[b]], batch.classes, *parts_of(weights, batch.config))[0]
        for b in range(len(kept))
    ]
    return reference.class_loss(np.array(rows), batch.labels, SEEN, batch.config.tau)


def test_dropped_regions_are_not_looked_at():
    model, batch = ready(rate=0.0, region_dropout=0.4)
    drawn = np.random.default_rng(1).random((6, 1, 6)).astype(np.float32)
    kept = drawn[:, 0] >= 0.4
    assert kept.any(axis=1).all() and not kept.all(axis=1).any()
    model.uniform = lambda shape: tf.reshape(tf.constant(drawn), shape)
    weights = weights_of(model)
    got = step(model, batch)["class_loss"]
    np.testing.assert_allclose(got, expected_without(weights, batch, kept), rtol=1e-5)
    assert abs(got - expected_losses(weights, batch)[0]["class_loss"]) > 1e-3
    np.testing.assert_allclose(
        model(batch.inputs), expected_scores(weights, batch, batch.classes), rtol=1e-5, atol=1e-5
    )
    model.uniform = lambda shape: tf.zeros(shape)  # nothing is left of any picture
    got = step(model, batch)["class_loss"]
    weights["log_sharpening"][0] -= np.inf  # then it looks everywhere alike
    np.testing.assert_allclose(got, expected_losses(weights, batch)[0]["class_loss"], rtol=1e-5)
    assert_finite(model)


def test_regions_are_dropped_at_the_rate_of_the_config_and_only_in_training():
    benchmark = small(rows=20)
    model = fresh(benchmark, region_dropout=0.3, sharpness=0.0)
    model.compile(keras.optimizers.SGD(0.0))
    shapes, uniform = [], model.uniform
    model.uniform = lambda shape: shapes.append(uniform(shape).numpy()) or tf.constant(shapes[-1])
    batch = batch_for(model, benchmark, count=40)
    losses = {step(model, batch)["class_loss"] for _ in range(4)}
    assert len(losses) == 4  # new draws at each step
    assert {drawn.shape for drawn in shapes} == {(40, 1, 6)}  # a region is hidden from all classes
    assert abs(np.mean(np.array(shapes) < 0.3) - 0.3) < 0.05
    draws = int(model.draws)
    model(batch.inputs), model.attention(batch.inputs), model.embed(batch.inputs)
    plain = fresh(benchmark)
    plain.compile(keras.optimizers.SGD(0.0))
    step(plain, batch)
    assert int(model.draws) == draws and int(plain.draws) == 0


# What is drawn.


@pytest.mark.parametrize("name", ["jlaf", "uncoupled", "printed", "scaled"])
def test_embeddings_of_pictures(name):
    """Of the class with the highest score among all: its feature, and what is decoded from it."""
    model, batch = ready(**CONFIGS[name])
    encoder, mapping, sharpness = parts_of(weights_of(model), model.config)
    h = reference.encode(encoder, batch.classes)
    best = np.argmax(expected_scores(weights_of(model), batch, batch.classes), axis=1)
    assert len(set(best)) > 1
    attended = reference.attend(batch.x, reference.attention(batch.x, h, sharpness))[range(6), best]
    decoded = reference.predicted(batch.x, h, mapping, sharpness)[range(6), best]
    spaces = model.embed(batch.inputs)
    assert {space: tuple(rows.shape) for space, rows in spaces.items()} == {
        "baseline": (6, 7),
        "attended": (6, 7),
        "decoded": (6, 4),
    }
    np.testing.assert_allclose(spaces["baseline"], batch.inputs.astype(float).mean(axis=(1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spaces["attended"], attended, rtol=5e-5, atol=1e-5)
    np.testing.assert_allclose(spaces["decoded"], decoded, rtol=5e-5, atol=2e-5)


# Inputs that are zero, short, long, of half precision.


@pytest.mark.parametrize("overrides", [{}, PRINTED, {"coupled": False, "region_dropout": 0.5}], ids=str)
def test_regions_and_pictures_that_are_zero(overrides):
    benchmark = small()
    benchmark.inputs[:, 0, 1] = 0
    benchmark.inputs[benchmark.train[0]] = 0
    model = fresh(benchmark, **overrides)
    model.compile()
    rows = benchmark.train[:6]
    first = float(model.score_classes(benchmark.inputs[rows[:1]], benchmark.class_embeddings)[0, 0])
    assert first == 0  # a decoder without bias finds no direction there
    for _ in range(5):
        assert_finite(model, **step(model, (benchmark.inputs[rows], benchmark.labels[rows])))
    scores = model(benchmark.inputs).numpy()
    assert np.isfinite(scores).all()
    bias = model.mapping.bias.numpy()  # all that there is to see in nothing
    wanted = [reference.cosine(bias, k) for k in benchmark.class_embeddings]
    np.testing.assert_allclose(scores[benchmark.train[0]], wanted, rtol=1e-4, atol=1e-5)
    attention = model.attention(np.zeros((1, 2, 3, 7), np.float16))["class"]
    np.testing.assert_allclose(attention, 1 / 6, rtol=1e-6)
    for rows in model.embed(np.zeros((1, 2, 3, 7), np.float16)).values():
        assert np.isfinite(rows).all()


def test_float16_is_read_exactly():
    benchmark = small()
    model = made(benchmark)
    inputs = benchmark.inputs[:4]
    assert inputs.dtype == np.float16
    np.testing.assert_array_equal(model(inputs), model(inputs.astype(np.float32)))
    large = (1000 * inputs.astype(np.float32)).astype(np.float16)  # float16 has no numbers for their squares
    assert np.isfinite(large).all() and float(np.abs(large).max()) ** 2 > float(np.finfo(np.float16).max)
    np.testing.assert_allclose(model(large), model(inputs), rtol=0, atol=0.01)
    small_ones = 1e-8 * inputs.astype(np.float32)
    np.testing.assert_allclose(model(small_ones), model(inputs), rtol=1e-4, atol=1e-5)
    raw = made(benchmark, normalize=False, sharpness=1.0)
    assert np.abs(raw(2 * inputs) - raw(inputs)).max() > 0.05


def test_regions_are_scaled_by_those_of_training_rows():
    """More regions than are read at a time, of rows that are not neighbours."""
    benchmark = small(rows=300)
    assert len(benchmark.train) * 6 > 4096 and np.diff(benchmark.train).max() > 1
    benchmark.inputs[np.setdiff1d(np.arange(1500), benchmark.train)] += 50
    benchmark.inputs[benchmark.train[700:]] -= 3
    model = made(benchmark, region_scaling="standard", sharpness=2.0)
    batch = batch_for(model, benchmark)
    wanted = expected_scores(weights_of(model), batch, batch.classes)
    np.testing.assert_allclose(model(batch.inputs), wanted, rtol=2e-4, atol=2e-4)


# Sizes, optimizer, export.


@pytest.mark.parametrize(
    "overrides, wanted",
    [
        ({}, 312 * 2048 + 2048 + 2048 * 312 + 312 + 1),
        ({"coupled": False}, 312 * 2048 + 2048 + 2 * (2048 * 312 + 312) + 1),
        ({"hidden": 1024, "learn_sharpness": False}, 312 * 1024 + 1024 + 1024 * 2048 + 2048 + 2048 * 312 + 312),
    ],
    ids=str,
)
def test_the_sizes_of_cub(overrides, wanted):
    model = JLAF(Config(**overrides), (7, 7, 2048), np.ones((200, 312)), np.arange(200) < 150)
    assert sum(v.numpy().size for v in model.trainable_variables) == wanted


def test_the_optimizer_of_the_config():
    model = fresh(learning_rate=0.003, weight_decay=0.02)
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.Adam) and model.optimizer.weight_decay == 0.02
    np.testing.assert_allclose(model.optimizer.learning_rate, 0.003, rtol=1e-6)
    plain = fresh()
    plain.compile()
    assert plain.optimizer.weight_decay is None


def test_an_exported_model_scores_as_before(tmp_path):
    benchmark = small()
    model = made(benchmark)
    harness.exported(model, tmp_path, benchmark.inputs.astype(np.float32))


# Configs.


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("gram", "none", "one of cosine, raw"),
        ("encoder_activation", "none", "one of sigmoid, tanh, linear"),
        ("reduction", "none", "one of mean, sum"),
        ("reconstructed", "none", "one of all, seen"),
        ("alpha", -0.1, "at least 0"),
        ("eta", -1.0, "at least 0"),
        ("sharpness", -1.0, "at least 0"),
        ("tau", -20.0, "at least 0"),
        ("weight_decay", -1e-4, "at least 0"),
        ("region_power", 0.0, "more than 0"),
        ("region_dropout", -0.1, "at least 0 and less than 1"),
        ("region_dropout", 1.0, "at least 0 and less than 1"),
        ("hidden", 0, "at least 1 or none"),
        ("epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
    ],
)
def test_a_value_that_does_not_exist_is_a_sentence(name, value, wanted):
    harness.assert_refuses(JLAFConfig, name, value, wanted)


@pytest.mark.parametrize("name", ["region_scaling", "embedding_scaling"])
def test_a_scaling_that_does_not_exist_is_a_sentence(name):
    with pytest.raises(ValueError, match=f"^{name}: got 'none of them'; wanted one of none, l2, "):
        Config(**{name: "none of them"})
