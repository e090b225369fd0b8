"""DRMN against its paper's equations in loops, and what its parts must not do.

`python -m tests.models.test_drmn OUT` trains REPLICATED on two replicas, for `test_two_replicas_train_as_one`.
"""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.reference import drmn as reference
from tests.support import harness
from tests.support.commands import arrays_of
from tests.support.harness import assert_finite, assert_losses, step
from zslkeras.errors import InputError
from zslkeras.evaluation import metrics
from zslkeras.models import drmn
from zslkeras.models.drmn import DRMN, DRMNConfig

Config = harness.v1("drmn")

EPSILON = 1e-5
SHAPES = (4, 6, 5), (2, 3, 8), (1, 3, 7)  # of three levels: what confuses height and width does not fit
SMALL = {"lambda_sc": 0.7, "lambda_gc": 0.4, "heads": 2, "dropout": 0.0, "scale": 3.0, "reduction": 3}
# What the comparisons with the reference run through: every choice at least once.
CONFIGS = {
    **{name: overrides for name, overrides in DRMN.ablations.items() if name != "global_branch"},  # it only decides
    "across pictures": {"interaction_across": "pictures", "feedforward": 5},
    "printed": {"calibration": "printed", "indicator": 2.0, "heads": 3, "embedding_scaling": "centred_l2"},
    "convolution": {"downscaling": "convolution", "interaction": False, "lambda_sc": 0.0},
    "finest level": {"fused_level": 0, "single_level": 1, "region_scaling": "standard", "embedding_scaling": "minmax"},
    "a single level": {"fusion": False, "single_level": 1, "region_scaling": "l2", "heads": 1},
}
LOGITS = 6.0 * np.random.default_rng(11).standard_normal((4, 5))  # sharp
SEEN = np.array([True, True, False, True, False])


def small():
    benchmark, generator = harness.small(), np.random.default_rng(1)
    levels = (generator.standard_normal((len(benchmark.labels), *shape)) for shape in SHAPES)
    return dataclasses.replace(benchmark, kind="levels", inputs=tuple(level.astype(np.float16) for level in levels))


def fresh(benchmark=None, seed=0, **overrides):
    """A model where it starts."""
    return DRMN.for_benchmark(benchmark or small(), Config(**SMALL | overrides), seed)


def made(benchmark=None, rate=1.0, seed=0, **overrides):
    """A model away from where it starts, with SGD."""

    def value(name, draws):
        if name.endswith(("scale", "variance")):
            return np.exp(0.3 * draws)
        if name == "prototypes" or draws.ndim == 1:
            return 0.5 * draws
        return draws * np.sqrt(1.5 / np.prod(draws.shape[:-1]))

    model = fresh(benchmark, seed, **overrides)
    return harness.with_weights(model, variables_of(model), value, rate)


def variables_of(model, trained=False):
    """By the reference's names: all that training changes, or what the optimizer does."""
    config = model.config
    found = {name: getattr(model, name) for name in ("prototypes", "w1", "w4")}
    moments = {}
    if config.channel_attention:
        found |= {"w2": model.w2, "w3": model.w3}
    if config.fusion:
        for i, part in enumerate(model.projections):
            found |= {f"level{i}": part.project.kernel, f"level{i} scale": part.norm.gamma}
            found |= {f"level{i} shift": part.norm.beta}
            moments |= {f"level{i} mean": part.norm.moving_mean, f"level{i} variance": part.norm.moving_variance}
    if config.interaction:
        found |= {"sit_in": model.sit_in.kernel}
        for name in ("sit_out", "sit_hidden", "sit_mlp"):
            layer = getattr(model, name)
            found |= {name: layer.kernel, f"{name} bias": layer.bias}
        for i, norm in enumerate(model.sit_norms):
            found |= {f"sit{i} scale": norm.gamma, f"sit{i} shift": norm.beta}
    if config.lambda_gc:
        found |= {"head": model.head.kernel, "head bias": model.head.bias}
    assert {id(v) for v in found.values()} == {id(v) for v in model.trainable_variables}
    return found if trained else found | moments


def weights_of(model, trained=False):
    return harness.in_float64(variables_of(model, trained))


def scaled_levels(config, levels, train):
    """I_1 to I_L, finest first."""
    return [harness.scaled_regions(config.region_scaling, *pair) for pair in zip(levels, train, strict=True)]


batch_for = functools.partial(harness.batch_for, as_reference=scaled_levels, count=5)


def ready(benchmark=None, **overrides):
    """A model away from where it starts, and a batch for it."""
    benchmark = benchmark or small()
    model = made(benchmark, **overrides)
    return model, batch_for(model, benchmark)


def level_of(config):
    return (config.fused_level if config.fusion else config.single_level) % len(SHAPES)


def expected_part(weights, config, i, level, training):
    """A level projected to the grid and width of the one it is added to."""
    target, kernel = SHAPES[level_of(config)], weights[f"level{i}"]
    factor = SHAPES[i][0] // target[0]
    if factor > 1 and config.downscaling == "convolution":
        projected = reference.strided(level, kernel)
    else:
        for _ in range(factor // 2):
            level = reference.halved(level)
        projected = reference.dense(level, kernel)
    moments = () if training else (weights[f"level{i} mean"], weights[f"level{i} variance"])
    scale, shift = weights[f"level{i} scale"], weights[f"level{i} shift"]
    projected = reference.batch_norm(projected, scale, shift, *moments, epsilon=EPSILON)
    return reference.stretched(projected, target[0] // projected.shape[1], target[1] // projected.shape[2])


def expected_regions(weights, config, levels, training=False):
    """v [B, R, C]."""
    out = levels[level_of(config)]
    if config.fusion:
        parts = [expected_part(weights, config, i, level, training) for i, level in enumerate(levels)]
        out = reference.fused(parts, out)
    return out.reshape(len(out), -1, out.shape[-1])


def expected_channels(weights, v):
    return reference.channel_attention(weights["prototypes"], v, weights["w2"].T, weights["w3"].T, EPSILON)


def expected_found(weights, config, v):
    """h."""
    k = reference.spatial_attention(weights["prototypes"], weights["w1"], v)[1]
    return k * expected_channels(weights, v) if config.channel_attention else k


def expected_interaction(weights, config, h, **options):
    width = max(1, h.shape[2] // config.heads) * config.heads
    parts = np.split(weights["sit_in"], [width, 2 * width], axis=1)
    layer = {name: (part,) for name, part in zip(("query", "key", "value"), parts, strict=True)}
    for ours, theirs in (("output", "sit_out"), ("first", "sit_hidden"), ("second", "sit_mlp")):
        layer[ours] = weights[theirs], weights[f"{theirs} bias"]
    for i in range(2):
        layer[f"norm{i + 1}"] = weights[f"sit{i} scale"], weights[f"sit{i} shift"]
    interact = reference.interact if config.interaction_across == "all" else reference.interact_by_attribute
    return interact(h, layer, config.heads, EPSILON, **options)


def expected_scores(weights, config, levels):
    """e of a model that is not in training."""
    h = expected_found(weights, config, expected_regions(weights, config, levels))
    return reference.attribute_scores(weights["prototypes"], weights["w4"], h)


def expected_global(weights, levels):
    return reference.dense(levels[-1].mean(axis=(1, 2)), weights["head"], weights["head bias"])


def expected_losses(weights, batch, drawn=range(4), **options):
    """The losses that are reported, a part that the config leaves out being 0, and Eq. (11).

    Args:
        drawn: the attributes that SIT sees; the others keep their scores.
    """
    config, seen = batch.config, batch.seen_ids
    h = expected_found(weights, config, expected_regions(weights, config, batch.x, training=True))
    both = [reference.attribute_scores(weights["prototypes"], weights["w4"], h)]
    if config.interaction:
        after, drawn = both[0].copy(), list(drawn)
        interacted = expected_interaction(weights, config, h[:, drawn], **options)
        after[:, drawn] = reference.attribute_scores(weights["prototypes"][drawn], weights["w4"], interacted)
        both.append(after)
    entropies, calibrations, classes = [], [], 0.0
    for e in both:
        o = reference.logits(e, batch.classes, config.scale)
        entropies.append(reference.cross_entropy(o, batch.labels, seen))
        if config.lambda_sc:
            form = {"mass": reference.pooled_calibration, "printed": reference.printed_calibration}[config.calibration]
            calibrations.append(form(o, batch.seen, config.indicator, 0.0))
    calibration = np.mean(calibrations) if calibrations else 0.0
    if config.lambda_gc:
        classes = reference.cross_entropy(expected_global(weights, batch.x), batch.labels, range(len(batch.classes)))
    losses = {"class_loss": np.mean(entropies), "calibration_loss": calibration, "global_loss": classes}
    attribute = reference.attribute_loss(losses["class_loss"], calibration, config.lambda_sc)
    return losses, reference.total(attribute, classes, config.lambda_gc)


# The equations.


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_model_finds_in_pictures(name):
    """The attention, the channels' weights, the attribute scores and the embeddings."""
    model, batch = ready(**CONFIGS[name])
    weights, config = weights_of(model), model.config
    v = expected_regions(weights, config, batch.x)
    height, width, C = SHAPES[level_of(config)]
    attention, e = model.attention(batch.inputs), model.attribute_scores(batch.inputs)
    assert list(attention) == list(e) == ["attribute"]
    shares = reference.spatial_attention(weights["prototypes"], weights["w1"], v)[0]
    wanted = shares.reshape(5, 4, height, width)
    np.testing.assert_allclose(attention["attribute"], wanted, rtol=5e-5, atol=1e-7)
    np.testing.assert_allclose(tf.reduce_sum(attention["attribute"], [2, 3]), 1.0, rtol=1e-5)
    assert np.ptp(shares, axis=2).mean() > 0.2  # far from even, so that it matters where it sums to one
    wanted = expected_scores(weights, config, batch.x)
    np.testing.assert_allclose(e["attribute"], wanted, rtol=2e-5, atol=2e-5)
    assert model.weighs_channels == config.channel_attention
    if config.channel_attention:
        eta = model.channel_weights(batch.inputs)
        np.testing.assert_allclose(eta, expected_channels(weights, v), rtol=1e-5, atol=1e-6)
        assert eta.shape == (5, 4, C) and np.ptp(eta, axis=1).mean() > 0.05 and np.ptp(eta, axis=0).mean() > 0.05
    spaces = model.embed(batch.inputs)
    assert list(spaces) == ["last", "fused", "attribute"]
    np.testing.assert_allclose(spaces["last"], batch.x[-1].mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(spaces["fused"], v.mean(axis=1), rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(spaces["attribute"], e["attribute"])


@pytest.mark.parametrize("name", ["ensemble", "baseline", "printed", "finest level"])
def test_scores_of_classes_built_in_new_and_alone(name):
    benchmark = small()
    model, batch = ready(benchmark, **CONFIGS[name])
    new = np.random.default_rng(5).random((3, 4)).astype(np.float32)
    got = harness.scores_in_any_company(model, batch.inputs, new, range(3), rtol=1e-5, atol=1e-5)
    classes = harness.scaled_classes(model.config, benchmark, np.concatenate([new, benchmark.class_embeddings]))
    e = expected_scores(weights_of(model), model.config, batch.x)
    wanted = reference.logits(e, classes, model.config.scale)
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=5e-5)
    np.testing.assert_allclose(model(batch.inputs), wanted[:, 3:], rtol=2e-5, atol=5e-5)


# The reference takes its time, so slopes are compared along one direction for each weight.
SLOPE_OF_A_STEP = {"count": 1, "scale": 1e-4, "rtol": 2e-4, "atol": 2e-5}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_reports_the_losses_and_follows_the_slope_of_equation_11(name):
    """Each ablation leaves out its part of the loss and nothing else."""
    model, batch = ready(**CONFIGS[name])
    before = weights_of(model, trained=True)
    wanted, _ = expected_losses(before, batch)
    assert_losses(step(model, batch), wanted, rtol=5e-5)
    after = weights_of(model, trained=True)
    harness.assert_step_follows(lambda: expected_losses(before, batch)[1], before, after, **SLOPE_OF_A_STEP)


@pytest.mark.parametrize("across", ["all", "pictures"])
def test_attributes_that_are_not_drawn_keep_their_scores(across):
    model, batch = ready(interaction_attributes=2, interaction_across=across)
    before, asked = weights_of(model, trained=True), []
    model.drawn = lambda *numbers: asked.append(numbers) or tf.constant([3, 1])
    wanted = expected_losses(before, batch, drawn=[3, 1])
    assert_losses(step(model, batch), wanted[0], rtol=5e-5)
    assert asked == [(2, 4)]
    assert abs(wanted[1] / expected_losses(before, batch)[1] - 1) > 1e-3
    names = ("prototypes", "w4", "sit_in", "sit_out", "sit_mlp")
    moved = ({name: weights[name] for name in names} for weights in (before, weights_of(model)))
    total = lambda: expected_losses(before, batch, drawn=[3, 1])[1]  # noqa: E731
    harness.assert_step_follows(total, *moved, **SLOPE_OF_A_STEP)


def test_other_attributes_are_drawn_in_each_step():
    model = made()
    draws = [tuple(model.drawn(10, 40).numpy()) for _ in range(50)]
    assert len(set(draws)) == 50 and all(len(set(one)) == 10 for one in draws)
    assert set(np.concatenate(draws)) == set(range(40))
    assert draws[0] == tuple(made().drawn(10, 40).numpy()) != tuple(made(seed=1).drawn(10, 40).numpy())


SEEN_IDS, MASK = np.flatnonzero(SEEN), SEEN.astype(np.float64)
LABELS = np.array([0, 3, 1, 1])
PURE = {  # the model's function of logits, and the reference's
    "class": (
        lambda o: drmn.class_loss(o, LABELS, MASK),
        lambda o: reference.cross_entropy(o, LABELS, SEEN_IDS),
    ),
    "calibration": (
        lambda o: drmn.self_calibration(o + (1 - MASK), MASK),
        lambda o: reference.pooled_calibration(o, SEEN, 1.0, 0.0),
    ),
    "the predecessor's calibration": (
        lambda o: drmn.self_calibration(o + 2 * (1 - MASK), MASK),
        lambda o: reference.pooled_calibration(o, SEEN),  # plus one and minus one
    ),
    "printed calibration": (
        lambda o: drmn.self_calibration_as_printed(o + (1 - MASK), MASK),
        lambda o: reference.printed_calibration(o, SEEN),
    ),
    "global": (
        lambda o: drmn.global_loss(o, LABELS),
        lambda o: reference.cross_entropy(o, LABELS, range(5)),
    ),
}


@pytest.mark.parametrize("name", PURE)
def test_losses_of_sharp_logits_in_float64(name):
    harness.assert_function(*PURE[name], [LOGITS], count=1, rtol=1e-7, atol=1e-8)


def test_both_calibrations_are_one_for_one_unseen_class_and_one_picture():
    one_unseen = np.array([True, True, False, True, True])
    for seen, rows, same in ((one_unseen, 1, True), (one_unseen, 2, False), (SEEN, 1, False)):
        arguments = tf.constant(LOGITS[:rows]), tf.constant(seen, tf.float64)
        both = [form(*arguments) for form in (drmn.self_calibration, drmn.self_calibration_as_printed)]
        assert np.allclose(*both, rtol=1e-9) == same


@pytest.mark.parametrize("form", ["mass", "printed"])
def test_the_calibration_moves_probability_to_unseen_classes(form):
    function = {"mass": drmn.self_calibration, "printed": drmn.self_calibration_as_printed}[form]
    o = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(o)
        loss = function(o, MASK)
    mass = [tf.reduce_sum(tf.nn.softmax(one)[:, 2::2], 1) for one in (o, o - 0.1 * tape.gradient(loss, o))]
    assert np.mean(mass[1] - mass[0]) > 1e-3


def test_logits_are_bounded_by_the_square_of_the_scale():
    generator = np.random.default_rng(0)
    e, z = (1e3 ** generator.standard_normal((6, 1)) * generator.standard_normal((6, 4)) for _ in range(2))
    for scale in (0.5, 5.0):
        logits = drmn.class_logits(tf.constant(e), tf.constant(z), scale).numpy()
        np.testing.assert_allclose(logits, reference.logits(e, z, scale), rtol=1e-10)
        assert np.abs(logits).max() <= scale**2 * (1 + 1e-12)
        itself = drmn.class_logits(tf.constant(e), tf.constant(7.0 * e), scale)
        np.testing.assert_allclose(np.diag(itself), scale**2, rtol=1e-10)


# Levels.


def test_statistics_of_levels_are_of_the_batch_and_move():
    model, batch = ready(norm_momentum=0.7)
    before = weights_of(model)
    step(model, batch)
    after = weights_of(model)
    halved = reference.halved(batch.x[0])
    for i, level in enumerate((halved, *batch.x[1:])):
        rows = reference.dense(level, before[f"level{i}"]).reshape(-1, 8)
        for moment, value in (("mean", rows.mean(0)), ("variance", rows.var(0))):
            wanted = 0.7 * before[f"level{i} {moment}"] + 0.3 * value
            np.testing.assert_allclose(after[f"level{i} {moment}"], wanted, rtol=1e-4, atol=1e-6)


def test_a_fused_feature_is_the_level_itself_where_projections_say_nothing():
    """The residual: not projected, not normalised."""
    benchmark = small()
    model = made(benchmark)
    for part in model.projections:
        part.norm.gamma.assign(tf.zeros(8))
        part.norm.beta.assign(tf.zeros(8))
    batch = batch_for(model, benchmark)
    levels = [tf.constant(level, tf.float32) for level in batch.inputs]
    for training in (True, False):
        np.testing.assert_array_equal(model.fuse(levels, training), batch.inputs[1].reshape(5, 6, 8))


@pytest.mark.parametrize("downscaling", ["pooling", "convolution"])
def test_a_level_may_be_finer_one_way_and_coarser_the_other(downscaling):
    """Where the number of pictures divides what a confusion of the two would make of them."""
    part = drmn.Projection((4, 1, 5), (2, 3, 8), downscaling, 0.9)
    maps = tf.constant(np.random.default_rng(0).standard_normal((3, 4, 1, 5)), tf.float32)
    out = part(maps).numpy()
    assert out.shape == (3, 2, 3, 8)
    np.testing.assert_array_equal(out, out[:, :, :1].repeat(3, axis=2))
    np.testing.assert_allclose(out[1], part(maps[1:2])[0], rtol=1e-5, atol=1e-6)


def test_a_level_that_does_not_exist_and_grids_that_do_not_fit_are_sentences():
    embeddings, seen = np.ones((3, 4), np.float32), np.arange(3) < 2
    with pytest.raises(InputError) as caught:
        DRMN(Config(), SHAPES[:1], embeddings, seen)
    assert str(caught.value) == "levels: got 1, which have no level -2; wanted more, or another level"
    with pytest.raises(InputError) as caught:
        DRMN(Config(), ((5, 5, 4), (4, 4, 8), (2, 2, 7)), embeddings, seen)
    assert str(caught.value) == "levels: a grid of [5, 5] is no whole multiple of [4, 4]; wanted one that is"


# Attention.


def test_the_mean_of_the_regions_is_found_where_prototypes_do_not_look():
    benchmark = small()
    model = made(benchmark, channel_attention=False)
    model.w1.assign(tf.zeros((8, 8)))
    batch, weights = batch_for(model, benchmark), weights_of(model)
    pooled = expected_regions(weights, model.config, batch.x).mean(axis=1)
    wanted = pooled @ (weights["prototypes"] @ weights["w4"]).T
    np.testing.assert_allclose(model.attribute_scores(batch.inputs)["attribute"], wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.attention(batch.inputs)["attribute"], np.full((5, 4, 2, 3), 1 / 6), rtol=1e-6)


def test_descriptors_are_normal_over_channels():
    rows = np.random.default_rng(0).standard_normal((3, 50)) * [[0.5], [3.0], [20.0]] + 5.0
    got = drmn.standardize(tf.constant(rows)).numpy()
    np.testing.assert_allclose(got.mean(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(got.var(axis=1), 1.0, rtol=1e-4)  # unit length would be 1 / 50
    np.testing.assert_allclose(got, [reference.standard(row, EPSILON) for row in rows], rtol=1e-10)


def test_split_channel_layer_is_the_joint_one():
    generator = np.random.default_rng(0)
    p, v = generator.standard_normal((5, 12)), generator.standard_normal((3, 4, 12)) + 0.5
    w2, w3 = 0.3 * generator.standard_normal((12, 7)), 0.3 * generator.standard_normal((7, 12))
    joint = reference.channel_attention(p, v, w2.T, w3.T, EPSILON)
    assert np.ptp(joint, axis=1).min() > 0.01 and np.ptp(joint, axis=0).min() > 0.01
    for kind, tolerance in ((tf.float64, 1e-12), (tf.float32, 1e-6)):
        arrays = [tf.constant(array, kind) for array in (p, v.mean(axis=1), w2, w3)]
        np.testing.assert_allclose(drmn.channel_attention(*arrays), joint, rtol=tolerance, atol=tolerance)


# Semantic interaction.


def plain_attention(queries, keys, values):
    return tf.matmul(tf.nn.softmax(tf.matmul(queries, keys, transpose_b=True)), values)


@pytest.mark.parametrize(
    "held, sizes, traced",
    [
        (1, (2, 24, 24), False),  # a query at a time
        (150, (2, 24, 24), False),  # six blocks of four
        (60, (1, 7, 11), False),  # of four, and the last of three
        (60, (2, 13, 13), True),
        (60, (3, 1, 5), False),
        (60, (1, 7, 11), True),
        (10**6, (2, 13, 13), False),
        (10**6, (2, 13, 13), True),
    ],
    ids=str,
)
def test_attention_in_blocks_is_plain_attention(held, sizes, traced, monkeypatch):
    """Whether or not the blocks divide the queries; with sizes known only at run time too."""
    monkeypatch.setattr(drmn, "_WEIGHTS_AT_ONCE", held)
    heads, num_queries, num_keys = sizes
    generator = np.random.default_rng(0)
    shapes = (heads, num_queries, 4), (heads, num_keys, 4), (heads, num_keys, 4), (heads, num_queries, 4)
    *arrays, upstream = (tf.constant(2.0 * generator.standard_normal(shape), tf.float32) for shape in shapes)

    def gradients(function, *arrays):
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            out = function(*arrays)
        return out, *tape.gradient(out, arrays, upstream)

    blocked = lambda *arrays: gradients(drmn.attend_in_blocks, *arrays)  # noqa: E731
    if traced:
        blocked = tf.function(blocked, input_signature=[tf.TensorSpec([heads, None, 4], tf.float32)] * 3)
    for got, wanted in zip(blocked(*arrays), gradients(plain_attention, *arrays), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    loops = [reference.attention(2.0 * q, k, v) for q, k, v in zip(*(a.numpy() for a in arrays), strict=True)]
    np.testing.assert_allclose(blocked(*arrays)[0], loops, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("across", ["all", "pictures"])
def test_interaction_in_blocks_is_the_encoder_layer(across, monkeypatch):
    benchmark = small()
    model = made(benchmark, interaction_across=across, feedforward=5)
    h = np.random.default_rng(0).standard_normal((5, 4, 8))
    wanted = expected_interaction(weights_of(model), model.config, h)
    for held in (1, 300, 10**6):
        monkeypatch.setattr(drmn, "_WEIGHTS_AT_ONCE", held)
        np.testing.assert_allclose(model.interact(tf.constant(h, tf.float32)), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("across", ["all", "pictures"])
def test_who_looks_at_whom(across):
    """What a token became depends on every token of the batch, or on those of its attribute in every picture."""
    model = made(interaction_across=across)
    h = tf.constant(np.random.default_rng(0).standard_normal((3, 4, 8)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(h)
        out = model.interact(h)[1, 2, 0]  # not a sum over channels, which the normalisation fixes
    reached = np.abs(tape.gradient(out, h)).max(axis=2) > 1e-7
    wanted = np.ones((3, 4), bool)
    if across == "pictures":
        wanted[:, [0, 1, 3]] = False
    np.testing.assert_array_equal(reached, wanted)


def test_the_cheap_interaction_is_that_of_each_attribute_alone():
    model, every = made(interaction_across="pictures"), made()
    h = tf.constant(np.random.default_rng(0).standard_normal((5, 4, 8)), tf.float32)
    alone = tf.concat([every.interact(h[:, a : a + 1]) for a in range(4)], axis=1)
    np.testing.assert_allclose(model.interact(h), alone, rtol=1e-5, atol=1e-5)
    assert np.abs(every.interact(h) - alone).max() > 0.1


def test_pictures_interact_in_training_and_nowhere_else():
    benchmark = small()
    model, without = made(benchmark, dropout=0.5), made(benchmark, interaction=False)
    theirs = variables_of(model)
    for name, variable in variables_of(without).items():
        variable.assign(theirs[name])
    inputs = benchmark.take(np.arange(9))
    np.testing.assert_array_equal(model(inputs), without(inputs))
    np.testing.assert_array_equal(model(inputs), model(inputs))
    one = model(tuple(level[4:5] for level in inputs))
    np.testing.assert_allclose(one, model(inputs)[4:5], rtol=1e-5, atol=1e-5)
    batch = batch_for(model, benchmark)
    assert step(model, batch)["class_loss"] != step(without, batch)["class_loss"]


def test_a_classifier_is_shared_before_and_after():
    """Neither pass alone: the loss is the mean of what both cost, by the same W4 and prototypes."""
    model, batch = ready()
    weights, seen = weights_of(model), batch.seen_ids
    h = expected_found(weights, model.config, expected_regions(weights, model.config, batch.x, training=True))
    costs = []
    for one in (h, expected_interaction(weights, model.config, h)):
        e = reference.attribute_scores(weights["prototypes"], weights["w4"], one)
        costs.append(reference.cross_entropy(reference.logits(e, batch.classes, 3.0), batch.labels, seen))
    assert abs(costs[0] / costs[1] - 1) > 0.05
    np.testing.assert_allclose(step(model, batch)["class_loss"], np.mean(costs), rtol=5e-5)


# Where training starts and how fast it goes.


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_prototypes_start_around_zero_with_a_length(length):
    shapes, embeddings = ((2, 2, 400), (1, 1, 5)), np.ones((3, 40), np.float32)
    config = Config(interaction=False, channel_attention=False, prototype_length=length)
    prototypes = DRMN(config, shapes, embeddings, np.arange(3) < 2).prototypes.numpy()
    np.testing.assert_allclose(np.linalg.norm(prototypes, axis=1), length, rtol=0.15)
    assert np.linalg.norm(prototypes.mean(axis=0)) < 0.25 * length  # 40 of them, in directions of their own


def test_the_rate_is_halved_every_ten_epochs():
    model = fresh(interaction=False, weight_decay=0.02)
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.Adam) and model.optimizer.weight_decay == 0.02
    (halving,) = model.schedules()
    halving.set_model(model)
    rates = []
    for epoch in range(25):
        halving.on_epoch_begin(epoch)
        rates.append(float(model.optimizer.learning_rate))
    np.testing.assert_allclose(rates, [1e-3] * 10 + [5e-4] * 10 + [2.5e-4] * 5, rtol=1e-6)


# Dropout.


def test_dropout_is_that_of_an_encoder_layer():
    model, batch = ready(dropout=0.25, feedforward=5)
    before, generator = weights_of(model, trained=True), np.random.default_rng(0)
    draws = [generator.random((5, 4, width)) for width in (8, 5, 8)]
    factors = [(one >= 0.25) / 0.75 for one in draws]
    feed = iter(draws)
    model.uniform = lambda shape: tf.constant(next(feed), tf.float32)
    got, (wanted, _) = step(model, batch), expected_losses(before, batch, factors=factors)
    assert next(feed, None) is None
    assert_losses(got, wanted, rtol=5e-5)
    assert abs(wanted["class_loss"] - expected_losses(before, batch)[0]["class_loss"]) > 1e-3
    names = ("prototypes", "sit_in", "sit_out", "sit_hidden", "sit_mlp", "sit_hidden bias")
    moved = ({name: weights[name] for name in names} for weights in (before, weights_of(model)))
    harness.assert_step_follows(lambda: expected_losses(before, batch, factors=factors)[1], *moved, **SLOPE_OF_A_STEP)


def test_dropout_drops_its_share_and_keeps_the_mean():
    dropped = made().dropped(tf.ones((50, 40, 10)), 0.3).numpy()
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.7], rtol=1e-6)
    assert abs((dropped == 0).mean() - 0.3) < 0.01


def test_draws_follow_the_seed_and_go_on_where_a_run_stopped():
    benchmark = small()

    def losses_of(model, steps):
        return [step(model, batch_for(model, benchmark))["class_loss"] for _ in range(steps)]

    whole = losses_of(made(benchmark, rate=0.0, dropout=0.5), 3)
    assert len(set(whole)) == 3  # the weights stand still: what differs is drawn
    assert losses_of(made(benchmark, rate=0.0, dropout=0.5, seed=1), 1)[0] not in whole
    model, resumed = (made(benchmark, rate=0.0, dropout=0.5) for _ in range(2))
    assert losses_of(model, 1) == whole[:1]
    resumed.set_weights(model.get_weights())
    assert losses_of(resumed, 2) == whole[1:]


# Sizes.


@pytest.mark.parametrize("what", ["train_step", "score_classes"])
def test_no_weights_of_all_pairs_of_tokens_and_no_products_by_region(what, monkeypatch):
    """Nothing in the graph is as large as [B, A, R, C], or as [B A, B A] where a block holds less."""
    monkeypatch.setattr(drmn, "_WEIGHTS_AT_ONCE", 2000)
    B, A, C, K = 8, 12, 16, 10
    embeddings = np.random.default_rng(0).random((K, A)).astype(np.float32)
    shapes = (8, 8, 12), (4, 4, C), (2, 2, 20)
    model = DRMN(Config(), shapes, embeddings, np.arange(K) < 7)
    model.compile()
    largest = max(size for _, size in harness.floats_made_by(model, what, B))
    assert B * A * C <= largest <= B * 8 * 8 * 12 < (B * A) ** 2 < B * A * 16 * C  # the finest level as it is read


def test_the_parameters_of_cub():
    shapes, embeddings = ((28, 28, 512), (14, 14, 1024), (7, 7, 2048)), np.ones((200, 312), np.float32)
    model = DRMN(Config(interaction=False), shapes, embeddings, np.arange(200) < 150)
    count = {name: variable.numpy().size for name, variable in variables_of(model, trained=True).items()}
    assert count["prototypes"] == 312 * 1024 and count["w1"] == count["w4"] == 1024**2
    assert model.w2.shape == (1024, 256) and model.w3.shape == (256, 1024)
    assert count["head"] == 2048 * 200


# Algorithm 1.


def decider(beta, classes=6, seen=(0, 2, 3, 5), **overrides):
    """A model whose global logits are its last level, as it is."""
    shapes = (2, 2, 3), (2, 2, 4), (1, 1, classes)
    seen_mask = np.isin(np.arange(classes), seen)
    embeddings = np.random.default_rng(0).random((classes, 4)).astype(np.float32)
    model = DRMN(Config(beta=beta, interaction=False, **overrides), shapes, embeddings, seen_mask)
    if model.config.lambda_gc:
        model.head.set_weights([np.eye(classes), np.zeros(classes)])
    return model, seen_mask


def pictures_of(g):
    """Inputs with these global logits."""
    generator = np.random.default_rng(1)
    finer = (generator.standard_normal((len(g), 2, 2, width)).astype(np.float32) for width in (3, 4))
    return *map(tf.constant, finer), tf.constant(g[:, None, None], tf.float32)


def rows_with_ties(rows=400, classes=6, seed=2):
    generator = np.random.default_rng(seed)
    sharp = 2.0 * generator.standard_normal((2, rows // 2, classes))
    tied = generator.integers(0, 3, (2, rows // 2, classes))
    o, g = np.concatenate([sharp, tied], axis=1).astype(np.float32)
    return o, g


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.8, 1.0])
def test_decisions_are_those_of_algorithm_1(beta):
    model, seen = decider(beta)
    o, g = rows_with_ties()
    wanted = [reference.ensemble(o_i, g_i, seen, beta) for o_i, g_i in zip(*map(np.float64, (o, g)), strict=True)]
    got = model.decide(tf.constant(o), pictures_of(g), seen, model.paper_rule["gamma"]).numpy()
    np.testing.assert_array_equal(got, wanted)
    gated = ~seen[got]
    assert 0.1 < gated.mean() < 0.9
    plain, _ = decider(1.0)
    without = plain.decide(tf.constant(o), pictures_of(g), seen, 1.0).numpy()
    np.testing.assert_array_equal(got[gated], without[gated])
    assert (got == without).all() == (beta == 1)


def test_the_gate_alone_decides_who_is_unseen():
    """Whatever the head says: it can change only which of the seen classes a picture of theirs is given."""
    model, seen = decider(0.3)
    o, g = rows_with_ties()
    other = np.random.default_rng(9).permutation(g) * 3.0
    other[:, ~seen] += 20.0  # sure of classes it was never shown
    one, two = (model.decide(tf.constant(o), pictures_of(head), seen, 1.0).numpy() for head in (g, other))
    np.testing.assert_array_equal(one[~seen[one]], two[~seen[one]])
    np.testing.assert_array_equal(seen[one], seen[two])
    assert (one != two)[seen[one]].any()
    rows = list(zip(*map(np.float64, (o, other)), strict=True))
    printed = np.array([reference.ensemble(*row, seen, 0.3, within_seen=False) for row in rows])
    assert (~seen[printed])[seen[two]].any()  # as printed it would send them to unseen classes


def test_the_printed_ensemble_is_the_same_where_the_head_gives_unseen_classes_nothing():
    model, seen = decider(0.3)
    o, g = rows_with_ties()
    g[:, ~seen] -= 20.0
    o[:, ~seen] -= 2.5
    rows = list(zip(*map(np.float64, (o, g)), strict=True))
    printed = np.array([reference.ensemble(*row, seen, 0.3, within_seen=False) for row in rows])
    got = model.decide(tf.constant(o), pictures_of(g), seen, 1.0).numpy()
    kept = seen[printed] | ~seen[got]
    np.testing.assert_array_equal(got[kept], printed[kept])
    assert kept.mean() > 0.9


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5])
def test_the_second_argmax_runs_over_all_classes_as_printed_where_the_config_says(beta):
    model, seen = decider(beta, second_argmax="all")
    o, g = rows_with_ties()
    rows = list(zip(*map(np.float64, (o, g)), strict=True))
    wanted = np.array([reference.ensemble(*row, seen, beta, within_seen=False) for row in rows])
    got = model.decide(tf.constant(o), pictures_of(g), seen, model.paper_rule["gamma"]).numpy()
    np.testing.assert_array_equal(got, wanted)
    within, _ = decider(beta)
    answers = within.decide(tf.constant(o), pictures_of(g), seen, 1.0).numpy()
    assert (~seen[got])[seen[answers]].any() and (seen[got] <= seen[answers]).all()
    # Evaluation takes the same decisions, and their numbers.
    labels = np.arange(len(o)) % 6
    printed = model.seen_answers(tf.constant(o), pictures_of(g), seen).numpy()
    outcomes = metrics.outcomes(o, labels, np.flatnonzero(seen), np.flatnonzero(~seen), seen_answers=printed)
    np.testing.assert_array_equal(outcomes.decisions(1.0), got)
    direct = metrics.accuracy_of_labels(got, labels, np.flatnonzero(seen), np.flatnonzero(~seen))
    assert {name: metrics.numbers(outcomes, 1.0)[name] for name in "USH"} == pytest.approx(direct)


def test_as_printed_the_head_gives_nothing_to_classes_that_it_was_not_trained_with():
    model, seen = decider(0.3, second_argmax="all")
    within, _ = decider(0.3)
    o, g = rows_with_ties()
    more, mask = np.concatenate([o, o[:, :1]], axis=1), np.append(seen, False)
    # Where o is higher for a seen class, and so at any gamma from 0, nothing else can win.
    rows = np.where(seen, o, -np.inf).max(1) > np.where(~mask, more, -np.inf).max(1)
    score = tf.function(lambda scores: model.seen_answers(scores, pictures_of(g), mask))
    want = within.seen_answers(tf.constant(more), pictures_of(g), mask)
    np.testing.assert_array_equal(score(tf.constant(more))[rows], want[rows])


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, -1.0])
def test_evaluation_decides_as_the_model(gamma):
    model, seen = decider(0.3)
    o, g = rows_with_ties()
    inputs = pictures_of(g)
    answers = model.seen_answers(tf.constant(o), inputs, seen).numpy()
    assert seen[answers].all()
    labels = np.arange(len(o)) % 6
    outcomes = metrics.outcomes(o, labels, np.flatnonzero(seen), np.flatnonzero(~seen), seen_answers=answers)
    got = model.decide(tf.constant(o), inputs, seen, gamma).numpy()
    np.testing.assert_array_equal(outcomes.decisions(gamma), got)
    plain = metrics.outcomes(o, labels, np.flatnonzero(seen), np.flatnonzero(~seen))
    with_head, without = (metrics.numbers(one, gamma) for one in (outcomes, plain))
    assert with_head["U"] == without["U"] and with_head["T"] == without["T"] and with_head["S"] != without["S"]
    direct = metrics.accuracy_of_labels(got, labels, np.flatnonzero(seen), np.flatnonzero(~seen))
    assert {name: with_head[name] for name in "USH"} == pytest.approx(direct)


def test_answers_among_candidates_of_another_order():
    """The head knows the classes of training by their order among the seen, wherever unseen ones stand between."""
    model, seen = decider(0.3)
    o, g = rows_with_ties()
    answers = np.searchsorted(np.flatnonzero(seen), model.seen_answers(tf.constant(o), pictures_of(g), seen))
    places = np.array([1, 2, 4, 5])  # two unseen candidates at other places, with the same scores
    moved, mask = np.empty_like(o), np.isin(np.arange(6), places)
    moved[:, places], moved[:, ~mask] = o[:, seen], o[:, ~seen]
    again = model.seen_answers(tf.constant(moved), pictures_of(g), mask)
    np.testing.assert_array_equal(np.searchsorted(places, again), answers)
    none = model.decide(tf.constant(o[:, ~seen]), pictures_of(g), np.zeros(2, bool), 0.0)
    np.testing.assert_array_equal(none, np.argmax(o[:, ~seen], axis=1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="wanted the 4 classes of training"):
        model.seen_answers(tf.constant(o), pictures_of(g), np.arange(6) < 3)


@pytest.mark.parametrize("overrides", [{"beta": 1.0}, {"beta": 0.3, "lambda_gc": 0.0}], ids=str)
def test_without_a_head_to_ask_answers_are_the_highest_scores(overrides):
    model, seen = decider(**overrides)
    o, g = rows_with_ties()
    wanted = np.argmax(np.where(seen, o, -np.inf), axis=1)
    np.testing.assert_array_equal(model.seen_answers(tf.constant(o), pictures_of(g), seen), wanted)


# Prototypes of attribute vectors.


@pytest.mark.parametrize("trained", [False, True])
def test_prototypes_can_be_a_trained_map_of_attribute_vectors(trained):
    benchmark = small()
    wanted = reference_unit(benchmark.attribute_vectors)
    model = fresh(benchmark, prototypes="vectors", train_vectors=trained)
    np.testing.assert_allclose(model.attribute_vectors, wanted, rtol=1e-5)
    np.testing.assert_allclose(model._prototypes(), wanted @ model.vector_map.numpy(), rtol=1e-4, atol=1e-7)
    before = [np.array(one) for one in (model.attribute_vectors, model.vector_map)]
    model.compile()
    rows = benchmark.train[:8]
    model.train_step((tuple(map(tf.constant, benchmark.take(rows))), tf.constant(benchmark.labels[rows])))
    assert (model.attribute_vectors.numpy() != before[0]).any() == trained
    assert (model.vector_map.numpy() != before[1]).any()
    again = DRMN.from_config(model.get_config())
    assert [tuple(one.shape) for one in again.weights] == [tuple(one.shape) for one in model.weights]


def reference_unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_prototypes_of_vectors_start_as_long_as_drawn_ones():
    drawn, mapped = (np.linalg.norm(fresh(prototypes=one)._prototypes(), axis=1).mean() for one in ("drawn", "vectors"))
    assert mapped == pytest.approx(drawn, rel=0.4)


def test_prototypes_of_vectors_need_vectors():
    benchmark = dataclasses.replace(small(), attribute_vectors=None)
    with pytest.raises(InputError, match="^prototypes: got vectors for data without attribute_vectors"):
        fresh(benchmark, prototypes="vectors")


# The global branch.


def test_the_head_learns_of_unseen_classes_through_the_denominator_alone():
    model, batch = ready()
    before = weights_of(model)
    shares = np.array([reference.softmax(row) for row in expected_global(before, batch.x)])
    step(model, batch)
    moved = before["head bias"] - weights_of(model)["head bias"]
    wanted = 0.4 * shares.mean(axis=0)
    np.testing.assert_allclose(moved[~batch.seen], wanted[~batch.seen], rtol=1e-4)
    counts = np.bincount(batch.labels, minlength=5) / len(batch.labels)
    np.testing.assert_allclose(moved, wanted - 0.4 * counts, rtol=1e-4, atol=1e-6)


# Ablations.


@pytest.mark.parametrize("name", DRMN.ablations)
def test_each_ablation_has_its_own_parts(name):
    model = made(**DRMN.ablations[name])
    tables = {  # Tables 2 and 3: fusion, channel attention, SIT, global branch, ensemble
        "baseline": "",
        "dab": "fc",
        "sit": "s",
        "dab_sit": "fcs",
        "global_branch": "fcsg",
        "ensemble": "fcsge",
        "mff": "f",
        "aca": "c",
    }
    names = set(variables_of(model, trained=True))
    marks = {"f": "level0", "c": "w2", "s": "sit_in", "g": "head"}
    found = "".join(letter for letter, variable in marks.items() if variable in names)
    assert found == tables[name].removesuffix("e")
    benchmark = small()
    inputs, seen = benchmark.take(np.arange(25)), benchmark.seen_mask
    scores = model(inputs)
    plain = np.argmax(np.where(seen, scores, -np.inf), axis=1)
    answers = model.seen_answers(scores, tuple(map(tf.constant, inputs)), seen).numpy()
    assert (answers != plain).any() == ("e" in tables[name])
    assert set(DRMN.ablations) == set(tables)


@pytest.mark.parametrize(
    "overrides, reads", [({}, True), ({"calibration": "printed"}, True), ({"lambda_sc": 0.0}, False)], ids=str
)
def test_unseen_embeddings_are_read_or_not_and_results_say_so(overrides, reads):
    assert harness.depends_on_unseen_embeddings(small, ready, **overrides) == reads
    assert DRMN.reads_unseen_embeddings(Config(**SMALL | overrides)) == reads


# Edges.


@pytest.mark.parametrize("name", ["ensemble", "printed", "a single level"])
def test_pictures_of_nothing_pass_without_a_nan(name):
    """Maps of zeros, as a rectified level may be: in a batch of others, and as all of it."""
    benchmark = small()
    for rows in (slice(0, 2), slice(None)):
        model = fresh(benchmark, **CONFIGS[name])
        model.compile(keras.optimizers.SGD(0.1))
        batch = batch_for(model, benchmark)
        for level in batch.inputs:
            level[rows] = 0
        for _ in range(2):
            assert_finite(model, **step(model, batch))
        assert np.isfinite(model(batch.inputs)).all()
        assert np.isfinite(model.attention(batch.inputs)["attribute"]).all()


def test_a_stage_without_unseen_classes_trains():
    model, batch = ready(harness.all_seen(small()))
    losses = step(model, batch)
    assert losses["calibration_loss"] == 0 and losses["class_loss"] > 0.1


def test_an_exported_model_scores_as_before(tmp_path):
    benchmark = small()
    harness.exported(made(benchmark), tmp_path, benchmark.inputs)


# Configs.


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("interaction_across", "none", "one of all, pictures"),
        ("calibration", "none", "one of mass, printed"),
        ("downscaling", "none", "one of pooling, convolution"),
        ("lambda_sc", -0.1, "at least 0"),
        ("lambda_gc", -1.0, "at least 0"),
        ("weight_decay", -1e-4, "at least 0"),
        ("scale", 0.0, "more than 0"),
        ("prototype_length", -1.0, "more than 0"),
        ("beta", 1.1, "at least 0 and at most 1"),
        ("beta", -0.1, "at least 0 and at most 1"),
        ("dropout", 1.0, "at least 0 and less than 1"),
        ("norm_momentum", -0.1, "at least 0 and less than 1"),
        ("reduction", 0, "at least 1"),
        ("halve_every", 0, "at least 1"),
        ("heads", 0, "at least 1"),
        ("feedforward", 0, "at least 1 or none"),
        ("epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
    ],
)
def test_a_value_that_does_not_exist_is_a_sentence(name, value, wanted):
    harness.assert_refuses(DRMNConfig, name, value, wanted)


@pytest.mark.parametrize("name", ["region_scaling", "embedding_scaling"])
def test_a_scaling_that_does_not_exist_is_a_sentence(name):
    with pytest.raises(ValueError, match=f"^{name}: got 'none of them'; wanted one of none, l2, "):
        Config(**{name: "none of them"})


@pytest.mark.parametrize("second_argmax", ["seen", "all"])
def test_answers_at_several_weights_are_those_at_each(second_argmax):
    model, batch = ready(second_argmax=second_argmax)
    every = tf.constant(np.random.default_rng(3).standard_normal((3, 5, len(batch.classes))), tf.float32)
    got = model.seen_answers(every, batch.inputs, model.seen_mask.value)
    alone = [model.seen_answers(scores, batch.inputs, model.seen_mask.value) for scores in every]
    np.testing.assert_array_equal(got, np.stack(alone))
    assert len(set(np.ravel(got))) > 1


# Replicas.

REPLICATED = {
    "all": {"lambda_sc": 3.0},
    "pictures": {"interaction_across": "pictures", "calibration": "printed", "downscaling": "convolution"},
    "drawn": {"interaction_across": "pictures", "interaction_attributes": 2},
}


def several_steps(strategy, name):
    """A model after three steps, and the losses of the first."""
    benchmark = small()
    make = functools.partial(made, benchmark, rate=0.05, **REPLICATED[name])
    return harness.trained_under(strategy, make, harness.batches_of(benchmark, 3))


@pytest.fixture(scope="module")
def on_two_replicas(tmp_path_factory):
    return arrays_of("tests.models.test_drmn", tmp_path_factory.mktemp("replicas"), 300)


@pytest.mark.long
@pytest.mark.parametrize("name", REPLICATED)
def test_two_replicas_train_as_one(name, on_two_replicas):
    """Tokens look at those of all replicas, statistics of levels and the mean inside the log are over all rows."""
    (one, losses), before = several_steps(tf.distribute.get_strategy(), name), made(**REPLICATED[name])
    two = harness.saved_under(name, on_two_replicas)
    assert_losses({loss: two[loss] for loss in losses}, losses, rtol=2e-5)
    harness.assert_trained_alike(two, variables_of(one), variables_of(before), atol=5e-5)


def test_a_part_of_the_rows_alone_is_another_loss():
    """Otherwise two replicas that forgot each other would pass the test above."""
    benchmark = small()
    for overrides in ({"interaction": False}, {"lambda_sc": 0.0}):
        model = made(benchmark, **overrides)
        batch, losses = batch_for(model, benchmark, count=8), []
        for rows in (slice(0, 8), slice(0, 4), slice(4, 8)):
            part = dataclasses.replace(batch, x=[level[rows] for level in batch.x], labels=batch.labels[rows])
            losses.append(expected_losses(weights_of(model), part)[1])
        assert abs(np.mean(losses[1:]) / losses[0] - 1) > 1e-3


if __name__ == "__main__":
    harness.save_from_two_replicas(several_steps, REPLICATED, variables_of)
