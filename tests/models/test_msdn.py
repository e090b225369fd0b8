"""MSDN against its paper's equations and its released code's arithmetic in loops, and what its parts must not do.

`python -m tests.models.test_msdn OUT` trains REPLICATED on two replicas, for `test_two_replicas_train_as_one`.
"""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.reference import msdn as reference
from tests.support import harness
from tests.support.commands import arrays_of
from tests.support.harness import assert_finite, assert_losses, step
from tests.support.tiny import tiny
from zslkeras.evaluation import metrics
from zslkeras.models import msdn, presets
from zslkeras.models.msdn import MSDN, MSDNConfig
from zslkeras.training import batches

Config = harness.v1("msdn")

SMALL = {"alpha1": 0.6, "alpha2": 0.3, "lambda_cal": 0.7, "lambda_distill": 0.4}
PAPER = {"variant": "paper"}
# What the comparisons with the reference run through: every choice at least once.
CONFIGS = {
    **{f"code {name}": overrides for name, overrides in MSDN.ablations.items()},
    **{f"paper {name}": PAPER | overrides for name, overrides in MSDN.ablations.items()},
    "unit vectors": {"normalize_vectors": True, "temperature": 2.0, "embedding_scaling": "l2"},
    "not normalized": {"normalize": False, "region_scaling": "standard", "lambda_cal": 0.0},
    "paper, scaled": {**PAPER, "temperature": 0.5, "region_scaling": "minmax", "lambda_distill": 0.0},
}
# These differ from the full model in nothing that has a slope.
SLOPED = [name for name in CONFIGS if not name.endswith("_distilled")]
BRANCHES = ("attribute_to_visual", "visual_to_attribute")
LOGITS = 3.0 * np.random.default_rng(11).standard_normal((2, 4, 5))  # of two branches, [4, 5], sharp
SEEN = np.array([True, True, False, True, False])

small = functools.partial(harness.small, "maps")


def fresh(benchmark=None, **overrides):
    """A model where it starts."""
    return MSDN.for_benchmark(benchmark or small(), Config(**SMALL | overrides))


def made(benchmark=None, rate=1.0, spread=1.0, **overrides):
    """A model away from where it starts, with SGD."""
    model = fresh(benchmark, **overrides)
    return harness.with_weights(
        model,
        variables_of(model),
        lambda name, draws: draws if name == "attribute_vectors" else spread * draws,
        rate,
    )


def variables_of(model):
    return {variable.name: variable for variable in model.trainable_variables}


def weights_of(model):
    return harness.in_float64(variables_of(model))


def regions(config, maps, train):
    """x [B, R, F] of Eq. (1)."""
    x = harness.scaled_regions(config.region_scaling, maps, train)
    return (reference.unit(x) if config.normalize else x).reshape(-1, 6, 7)


batch_for = functools.partial(harness.batch_for, as_reference=regions)


def ready(benchmark=None, **overrides):
    """A model away from where it starts, and a batch for it."""
    benchmark = benchmark or small()
    model = made(benchmark, **overrides)
    return model, batch_for(model, benchmark)


def expected_branches(weights, config, x):
    """Branch name -> scores of attributes and attention, in the order of BRANCHES."""
    v = reference.unit(weights["attribute_vectors"]) if config.normalize_vectors else weights["attribute_vectors"]
    w1, w2, w3, w4 = (weights.get(name) for name in ("w1", "w2", "w3", "w4"))
    if config.branches == "baseline":
        return {"baseline": (reference.pooled(x, v, w1), None)}
    found = {}
    if config.branches != "visual_to_attribute":
        if config.variant == "code":
            found[BRANCHES[0]] = reference.code_branch(x, v, w2, w1, reference.over_regions)
        else:
            found[BRANCHES[0]] = reference.paper_first_branch(x, v, W1=w2, W2=w1)
    if config.branches != "attribute_to_visual":
        if config.variant == "code":
            found[BRANCHES[1]] = reference.code_branch(x, v, w4, w3.T, reference.over_attributes)
        else:
            found[BRANCHES[1]] = reference.paper_second_branch(x, v, W3=w4.T, W4=w3, W_att=weights["w_att"])
    return found


def expected_scores(weights, batch, classes):
    """Eq. (11) without its indicator."""
    scores = [one for one, _ in expected_branches(weights, batch.config, batch.x).values()]
    shares = (batch.config.alpha1, batch.config.alpha2) if len(scores) == 2 else (1.0,)
    return batch.config.temperature * sum(
        share * reference.logits(psi, classes) for share, psi in zip(shares, scores, strict=True)
    )


def expected_losses(weights, batch):
    """The three losses that are reported, a part that the config leaves out being 0, and Eq. (10)."""
    config, seen = batch.config, batch.seen
    branches = expected_branches(weights, config, batch.x).values()
    logits = [config.temperature * reference.logits(psi, batch.classes) for psi, _ in branches]
    as_code = config.variant == "code"
    classes = None if as_code else batch.seen_ids
    entropies = [reference.cross_entropy(one, batch.labels, classes) for one in logits]
    calibrations, distilled = [0.0], 0.0
    if config.lambda_cal:
        form = reference.calibration if as_code else reference.printed_calibration
        calibrations = [form(one, seen) for one in logits]
    if config.lambda_distill and len(logits) == 2:
        if as_code:
            divergence, distance = reference.jensen_shannon(*logits, seen), reference.weighted_l2(*logits)
        else:
            divergence = reference.symmetrised_divergence(*logits, batch.seen_ids)
            distance = reference.plain_l2(*logits)
        distilled = config.divergence_weight * divergence + config.distance_weight * distance
    losses = {
        "class_loss": sum(entropies),
        "calibration_loss": sum(calibrations),
        "distillation_loss": distilled,
    }
    return losses, reference.total(entropies, calibrations, distilled, config.lambda_cal, config.lambda_distill)


# The equations.


@pytest.mark.parametrize("name", CONFIGS)
def test_attribute_scores_and_attention(name):
    model, batch = ready(**CONFIGS[name])
    wanted = expected_branches(weights_of(model), model.config, batch.x)
    scores, attention = model.attribute_scores(batch.inputs), model.attention(batch.inputs)
    assert list(scores) == list(wanted)
    assert list(attention) == [branch for branch in wanted if branch != "baseline"]
    for branch, (psi, t) in wanted.items():
        np.testing.assert_allclose(scores[branch], psi, rtol=1e-5, atol=1e-5, err_msg=branch)
        if t is not None:
            np.testing.assert_allclose(attention[branch], t.reshape(6, 4, 2, 3), rtol=2e-5, atol=1e-7, err_msg=branch)
            assert np.ptp(t, axis=(1, 2)).min() > 0.15  # far from even, so that it matters where it sums to one


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_of_classes_built_in_new_and_alone(name):
    benchmark = small()
    model, batch = ready(benchmark, **CONFIGS[name])
    new = np.random.default_rng(5).random((3, 4)).astype(np.float32)
    got = harness.scores_in_any_company(model, batch.inputs, new, range(3), rtol=1e-5, atol=1e-5)
    classes = harness.scaled_classes(model.config, benchmark, np.concatenate([new, benchmark.class_embeddings]))
    wanted = expected_scores(weights_of(model), batch, classes)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(model(batch.inputs), wanted[:, 3:], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_reported_losses_of_one_step(name):
    """Each ablation leaves out its part of the loss and nothing else."""
    model, batch = ready(**CONFIGS[name])
    wanted, _ = expected_losses(weights_of(model), batch)
    assert_losses(step(model, batch), wanted, rtol=2e-5)


@pytest.mark.parametrize("name", SLOPED)
def test_a_step_follows_the_slope_of_equation_10(name):
    model, batch = ready(**CONFIGS[name])
    before = weights_of(model)
    step(model, batch)
    harness.assert_step_follows(
        lambda: expected_losses(before, batch)[1], before, weights_of(model), rtol=5e-5, atol=1e-5
    )


SEEN_IDS = np.flatnonzero(SEEN)
MASK = reference.mask(SEEN)
PURE = {  # the model's function of logits, and the reference's
    "calibration": (
        lambda one, _: msdn.self_calibration(one + MASK, tf.constant(SEEN, tf.float64)),
        lambda one, _: reference.calibration(one, SEEN),
    ),
    "printed calibration": (
        lambda one, _: msdn.self_calibration_as_printed(one + MASK, tf.constant(SEEN, tf.float64)),
        lambda one, _: reference.printed_calibration(one, SEEN),
    ),
    "weighted distance": (msdn.weighted_distance, reference.weighted_l2),
    "Jensen-Shannon": (
        lambda one, other: msdn.jensen_shannon(one + MASK, other + MASK),
        lambda one, other: reference.jensen_shannon(one, other, SEEN),
    ),
    "distillation": (
        lambda one, other: msdn.distillation(one + MASK, other + MASK, 0.3, 0.2),
        lambda one, other: 0.3 * reference.jensen_shannon(one, other, SEEN) + 0.2 * reference.weighted_l2(one, other),
    ),
    "printed distillation": (
        lambda one, other: msdn.distillation_as_printed(one, other, tf.constant(SEEN, tf.float64), 0.3, 0.2),
        lambda one, other: (
            0.3 * reference.symmetrised_divergence(one, other, SEEN_IDS) + 0.2 * reference.plain_l2(one, other)
        ),
    ),
}


@pytest.mark.parametrize("name", PURE)
def test_losses_of_sharp_logits_in_float64(name):
    function, wanted = PURE[name]
    harness.assert_function(
        lambda pair: function(*tf.unstack(pair)), lambda pair: wanted(*pair), [LOGITS], rtol=1e-7, atol=1e-8
    )


# Attention.


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_attention_sums_to_one_on_one_axis_alone(variant):
    benchmark = small()
    model = made(benchmark, variant=variant)
    attention = model.attention(benchmark.inputs[:4])
    over_places, over_attributes = BRANCHES if variant == "code" else BRANCHES[::-1]
    np.testing.assert_allclose(tf.reduce_sum(attention[over_places], [2, 3]), 1.0, rtol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(attention[over_attributes], 1), 1.0, rtol=1e-5)
    assert np.abs(tf.reduce_sum(attention[over_attributes], [2, 3]) - 1).max() > 0.1
    assert np.abs(tf.reduce_sum(attention[over_places], 1) - 1).max() > 0.1


def test_a_fresh_model_attends_evenly_and_its_second_branch_says_nothing():
    benchmark = small()
    model = fresh(benchmark)
    attention = model.attention(benchmark.inputs[:4])
    np.testing.assert_array_equal(attention["attribute_to_visual"], np.full((4, 4, 2, 3), np.float32(1 / 6)))
    np.testing.assert_array_equal(attention["visual_to_attribute"], np.full((4, 4, 2, 3), 0.25))
    scores = model.attribute_scores(benchmark.inputs[:4])
    assert np.ptp(scores["attribute_to_visual"]) > 0.1
    assert not scores["visual_to_attribute"].numpy().any()  # the logits of Eq. (7) are the indicator alone
    np.testing.assert_array_equal(msdn.indicator(benchmark.seen_mask.astype(np.float32)), [-1, -1, -1, 1, 1])


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_the_attention_of_the_second_branch_learns_one_step_later(variant):
    benchmark = small()
    model = fresh(benchmark, variant=variant)
    model.compile(keras.optimizers.SGD(0.1))
    batch, start = batch_for(model, benchmark), weights_of(model)
    for unmoved in ({"w4"} if variant == "code" else {"w4", "w_att"}, set()):
        step(model, batch)
        after = weights_of(model)
        assert {name for name in start if np.array_equal(start[name], after[name])} == unmoved
    assert not start["w4"].any()


def test_fused_projections_are_the_separate_ones():
    generator = np.random.default_rng(0)
    x, lookups = generator.standard_normal((3, 5, 7)), generator.standard_normal((4, 6, 7))
    for kind, tolerance in ((tf.float64, 1e-13), (tf.float32, 1e-5)):
        maps = msdn.project(tf.constant(x, kind), [tf.constant(one, kind) for one in lookups])
        assert len(maps) == 4
        for got, lookup in zip(maps, lookups, strict=True):
            np.testing.assert_allclose(got, np.einsum("brf,af->abr", x, lookup), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_a_branch_is_the_same_without_the_other(branch, variant):
    """As the model alone, and as alpha of one and zero."""
    benchmark = small()
    alphas = dict(zip(("alpha1", "alpha2"), (1.0, 0.0) if branch == BRANCHES[0] else (0.0, 1.0), strict=True))
    both, alone = made(benchmark, variant=variant, **alphas), made(benchmark, variant=variant, branches=branch)
    for name, variable in variables_of(alone).items():
        variable.assign(variables_of(both)[name])
    inputs = benchmark.inputs[:5]
    np.testing.assert_allclose(both(inputs), alone(inputs), rtol=1e-5, atol=1e-6)
    wanted = tf.matmul(both.attribute_scores(inputs)[branch], benchmark.class_embeddings, transpose_b=True)
    np.testing.assert_allclose(both(inputs), wanted, rtol=1e-5, atol=1e-6)
    assert list(alone.attribute_scores(inputs)) == [branch]
    assert np.abs(made(benchmark, variant=variant)(inputs) - both(inputs)).max() > 0.1


def test_embeddings_of_pictures():
    benchmark = small()
    model, batch = ready(benchmark)
    spaces = model.embed(batch.inputs)
    assert {name: tuple(rows.shape) for name, rows in spaces.items()} == {
        "baseline": (6, 7),
        "attribute_to_visual": (6, 4),
        "visual_to_attribute": (6, 4),
        "both": (6, 4),
    }
    np.testing.assert_allclose(spaces["baseline"], batch.x.mean(axis=1), rtol=1e-5, atol=1e-6)
    first, second = (psi for psi, _ in expected_branches(weights_of(model), model.config, batch.x).values())
    np.testing.assert_allclose(spaces["attribute_to_visual"], first, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spaces["both"], 0.6 * first + 0.3 * second, rtol=1e-5, atol=1e-5)
    alone = made(benchmark, branches="visual_to_attribute").embed(batch.inputs)
    assert set(alone) == {"baseline", "visual_to_attribute"}


# Parameters and sizes.


@pytest.mark.parametrize(
    "overrides, matrices",
    [({}, 4), (PAPER, 5), ({"branches": "attribute_to_visual"}, 2), ({"branches": "baseline"}, 1)],
    ids=["code", "paper", "one branch", "baseline"],
)
def test_the_sizes_of_cub(overrides, matrices):
    """Released W3 and W3' have no gradient; here they do not exist: that the others have one is tested above."""
    vectors = np.random.default_rng(0).standard_normal((312, 300))
    model = MSDN(Config(**overrides), (14, 14, 2048), np.ones((200, 312)), np.arange(200) < 150, vectors)
    assert sum(v.numpy().size for v in model.trainable_variables) == matrices * 300 * 2048 + 312 * 300
    np.testing.assert_allclose(model.attribute_vectors, reference.unit(vectors), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.std(model.w1), 1.0, rtol=0.01)


@pytest.mark.parametrize("trained", [True, False])
def test_attribute_vectors_are_trained_as_released_or_stay(trained):
    benchmark = small()
    model = made(benchmark, train_vectors=trained)
    before = model.attribute_vectors.numpy()
    rows = benchmark.train[:6]
    model.train_step((tf.constant(benchmark.take(rows)), tf.constant(benchmark.labels[rows])))
    assert (model.attribute_vectors.numpy() != before).any() == trained
    assert MSDNConfig().train_vectors


def test_the_baseline_is_uniform_attention():
    """Scores are linear in regions: the score of the mean region is the mean of the scores."""
    inputs = tf.constant(small().inputs[:4])
    branch, baseline = (fresh(branches=one) for one in ("attribute_to_visual", "baseline"))
    scores = [model.attribute_scores(inputs)["attribute_to_visual"] for model in (branch,)]
    scores += [next(iter(baseline.attribute_scores(inputs).values()))]
    assert not branch.w2.numpy().any() and np.abs(scores[0]).max() > 1e-3
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-6)


def test_without_attribute_vectors_they_start_at_random():
    benchmark = dataclasses.replace(small(), attribute_vectors=None)
    model, other = fresh(benchmark, vector_dim=9), fresh(benchmark, vector_dim=9)
    assert model.attribute_vectors.shape == (4, 9)
    np.testing.assert_allclose(np.linalg.norm(model.attribute_vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(model.attribute_vectors, other.attribute_vectors)
    again = MSDN.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(benchmark.inputs[:3]), model(benchmark.inputs[:3]))


def test_attribute_vectors_can_be_drawn_whatever_the_benchmark_has():
    given, drawn = small(), dataclasses.replace(small(), attribute_vectors=None)
    wanted = fresh(drawn, vector_dim=9)
    model = fresh(given, vector_dim=9, vectors="drawn")
    np.testing.assert_array_equal(model.attribute_vectors, wanted.attribute_vectors)
    assert MSDN.from_config(model.get_config()).attribute_vectors.shape == (4, 9)
    assert not np.allclose(fresh(given).attribute_vectors[:, :5], model.attribute_vectors[:, :5])


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("what", ["train_step", "score_classes"])
def test_attended_features_are_never_formed(what, variant):
    """Nothing in the graph is as large as [B, A, F] or [B, A, C]: features attended to, class by class."""
    B, A, F, R, C = 8, 12, 50, 4, 48
    embeddings = np.random.default_rng(0).random((C, A)).astype(np.float32)
    model = MSDN(Config(variant=variant), (2, 2, F), embeddings, np.arange(C) < 40, np.ones((A, 6), np.float32))
    model.compile()
    sizes = [size for _, size in harness.floats_made_by(model, what, B)]
    largest_needed = max(5 * A * B * R, B * R * F, 5 * A * F)
    assert max(A * F, A * C) < max(sizes) <= largest_needed < min(B * A * F, B * A * C)


# The losses' signs and edges.


def test_the_class_loss_does_not_see_the_indicator_and_the_calibration_does():
    benchmark = small()
    one, other = made(benchmark), made(harness.all_seen(benchmark))
    losses, without = (step(model, batch_for(one, benchmark)) for model in (one, other))
    assert losses["class_loss"] == without["class_loss"]
    assert losses["calibration_loss"] > 0.1 and without["calibration_loss"] == 0  # there is nothing to calibrate


def test_a_stage_without_unseen_classes_trains():
    benchmark = harness.all_seen(small())
    for variant in ("code", "paper"):
        model, batch = ready(benchmark, variant=variant)
        assert_finite(model, **step(model, batch))


@pytest.mark.parametrize("form", [msdn.self_calibration, msdn.self_calibration_as_printed])
def test_more_mass_on_unseen_classes_lowers_the_calibration(form):
    seen = tf.constant(SEEN, tf.float64)
    losses = [float(form(tf.constant(LOGITS[0] + shift * MASK), seen)) for shift in (0.0, 0.5, 1.0, 1.5)]
    assert (np.diff(losses) < -0.1).all()


def test_the_calibration_takes_the_mean_inside_the_log():
    """Rows whose unseen mass differs: the mean of their logs is another number."""
    alone = [reference.calibration(row[None], SEEN) for row in LOGITS[0]]
    got = msdn.self_calibration(tf.constant(LOGITS[0] + MASK), tf.constant(SEEN, tf.float64))
    assert got < np.mean(alone) - 0.1
    np.testing.assert_allclose(got, -np.log(np.mean(np.exp(-np.array(alone)))), rtol=1e-12)


@pytest.mark.parametrize(
    "form, wanted", [(msdn.self_calibration, -0.0844), (msdn.self_calibration_as_printed, -0.1687)]
)
def test_the_slope_of_the_calibration_of_even_logits(form, wanted):
    """3 seen and 2 unseen classes; the sign that is printed would give +0.1687."""
    logits, seen = tf.Variable(np.zeros((1, 5))), np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    with tf.GradientTape() as tape:
        loss = form(logits + msdn.indicator(seen), tf.constant(seen))
    slopes = tape.gradient(loss, logits)[0].numpy()
    np.testing.assert_allclose(slopes[3:], wanted, atol=5e-5)
    np.testing.assert_allclose(slopes.sum(), 0, atol=1e-12)
    assert (slopes[:3] > 0).all()


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_a_step_of_the_calibration_raises_what_unseen_classes_get(variant):
    model, batch = ready(rate=1e-10, variant=variant, lambda_cal=1e8, lambda_distill=0.0)  # next to nothing else

    def mass():
        scores = model.attribute_scores(batch.inputs).values()
        logits = [tf.matmul(psi, batch.classes.astype(np.float32).T) for psi in scores]
        return [
            np.mean([reference.softmax(row + reference.mask(batch.seen))[3:].sum() for row in one]) for one in logits
        ]

    before = mass()
    step(model, batch)
    after = mass()
    assert after[0] > before[0] and after[1] > before[1]


def test_distillation_of_two_logits():
    """|d|^3 / |d| of (3, 4) is 91 / 5; no more than log 2 can part two distributions."""
    pair = tf.constant([[3.0, 4.0]], tf.float64), tf.zeros([1, 2], tf.float64)
    np.testing.assert_allclose(msdn.weighted_distance(*pair), 91 / 5, rtol=1e-12)
    np.testing.assert_allclose(msdn.distillation(*pair), 18.2285353, rtol=1e-8)
    np.testing.assert_allclose(msdn.jensen_shannon(*pair), msdn.jensen_shannon(*pair[::-1]), rtol=1e-10)
    apart = tf.constant([[80.0, 0.0, 0.0]]), tf.constant([[0.0, 0.0, 80.0]])
    np.testing.assert_allclose(msdn.jensen_shannon(*apart), np.log(2), rtol=1e-6)
    rows = [tf.constant(values, tf.float64) for values in LOGITS]
    assert 0.05 < msdn.jensen_shannon(*rows) < np.log(2)


@pytest.mark.parametrize("kind", [tf.float32, tf.float64])
def test_branches_that_agree_have_nothing_to_distill(kind):
    one, other = (tf.Variable(LOGITS[0], dtype=kind) for _ in range(2))
    seen = tf.constant(SEEN, kind)
    for form in (msdn.distillation, lambda *pair: msdn.distillation_as_printed(*pair, seen)):
        with tf.GradientTape() as tape:
            loss = form(one, other)
        assert loss == 0
        for gradient in tape.gradient(loss, (one, other)):
            np.testing.assert_allclose(gradient, 0, atol=1e-6 if kind == tf.float32 else 1e-14)
    half = np.concatenate([LOGITS[0][:2], LOGITS[1][2:]])  # some rows agree and some do not
    with tf.GradientTape() as tape:
        loss = msdn.distillation(one, tf.constant(half, kind))
    wanted = reference.jensen_shannon(LOGITS[0], half, np.full(5, True)) + reference.weighted_l2(LOGITS[0], half)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    gradient = tape.gradient(loss, one).numpy()
    assert np.isfinite(gradient).all() and np.abs(gradient[2:]).max() > 0.1
    np.testing.assert_allclose(gradient[:2], 0, atol=1e-6)


def test_the_weight_of_the_distance_has_a_gradient():
    """|d_k| / |d| is not held still: then the slope at (3, 4) would be 2 d_k |d_k| / |d|."""
    d = tf.Variable([[3.0, 4.0]], dtype=tf.float64)
    with tf.GradientTape() as tape:
        loss = msdn.weighted_distance(d, tf.zeros_like(d))
    wanted = [3 * k**2 / 5 - 91 * k / 125 for k in (3, 4)]
    np.testing.assert_allclose(tape.gradient(loss, d)[0], wanted, rtol=1e-12)


# Inputs that are zero.


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("normalize_vectors", [True, False])
def test_regions_and_attribute_vectors_that_are_zero(variant, normalize_vectors):
    benchmark = small()
    benchmark.inputs[:, 0, 1] = 0
    benchmark.inputs[benchmark.train[0]] = 0
    benchmark.attribute_vectors[2] = 0  # a word that the vectors' vocabulary lacks
    model = fresh(benchmark, variant=variant, normalize_vectors=normalize_vectors)
    model.compile()
    assert not model.attribute_vectors[2].numpy().any()
    rows = benchmark.train[:6]
    for _ in range(5):
        assert_finite(model, **step(model, (benchmark.inputs[rows], benchmark.labels[rows])))
    assert np.isfinite(model(benchmark.inputs)).all()
    assert model.attribute_vectors[2].numpy().any() != normalize_vectors  # it learns, unless it has no direction
    np.testing.assert_allclose(model.embed(np.zeros((1, 2, 3, 7), np.float16))["baseline"], 0)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_branches_that_are_both_zero(variant):
    benchmark = small()
    model = fresh(benchmark, variant=variant, start=0.0)
    model.compile()
    losses = step(model, batch_for(model, benchmark))
    assert losses["distillation_loss"] == 0 and losses["class_loss"] > 1
    assert_finite(model)


def test_the_length_of_a_region_is_not_seen_however_small_or_large():
    benchmark = small()
    model = made(benchmark)
    inputs = benchmark.inputs[:4].astype(np.float32)
    np.testing.assert_allclose(model(1e-8 * inputs), model(inputs), rtol=1e-4, atol=1e-5)
    large = (300 * inputs).astype(np.float16)  # float16 has no numbers for their squares
    np.testing.assert_allclose(model(large), model(inputs), rtol=0, atol=0.02)
    assert np.abs(made(benchmark, normalize=False)(2 * inputs) - made(benchmark, normalize=False)(inputs)).max() > 0.1


# Attribute vectors, scaling.


def test_attribute_vectors_are_of_unit_length_where_the_config_says():
    benchmark = small()
    free, unit = (fresh(benchmark, normalize_vectors=normalize) for normalize in (False, True))
    batch = batch_for(free, benchmark)
    for model in (free, unit):
        np.testing.assert_allclose(np.linalg.norm(model.attribute_vectors, axis=1), 1.0, rtol=1e-5)
        model.compile(keras.optimizers.SGD(0.1))
        for _ in range(10):
            step(model, batch)
        assert np.abs(np.linalg.norm(model.attribute_vectors, axis=1) - 1).max() > 1e-3
        before = model(batch.inputs).numpy()
        model.attribute_vectors.assign(reference.unit(model.attribute_vectors.numpy()))
        moved = np.abs(model(batch.inputs) - before).max()
        assert moved > 1e-3 if model is free else moved < 1e-5


def test_regions_are_scaled_by_those_of_training_rows():
    """More regions than are read at a time, of rows that are not neighbours."""
    benchmark = small(rows=300)
    train = benchmark.train
    assert len(train) * 6 > 4096 and np.diff(train).max() > 1
    benchmark.inputs[np.setdiff1d(np.arange(1500), train)] += 50
    benchmark.inputs[train[700:]] -= 3
    model = made(benchmark, region_scaling="standard", normalize=False)
    batch = batch_for(model, benchmark)
    for branch, (psi, _) in expected_branches(weights_of(model), model.config, batch.x).items():
        np.testing.assert_allclose(model.attribute_scores(batch.inputs)[branch], psi, rtol=2e-4, atol=2e-4)


# The optimizer.


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("traced", [True, False])
def test_rmsprop_over_several_steps(momentum, traced):
    rate = 2.0**-7  # a number that float32 holds exactly
    steps = harness.six_steps(lambda _: msdn.CoupledRMSprop(rate, decay=0.3, momentum=momentum), traced)
    for start, gradients, end in steps:
        wanted = reference.rmsprop(start, gradients, rate, momentum, 0.3)
        np.testing.assert_allclose(end, wanted, rtol=1e-10)
        assert np.abs(wanted - start).min() > 1e-3


def test_a_model_is_trained_by_it():
    benchmark = small()
    model = fresh(benchmark, momentum=0.7, weight_decay=0.02, learning_rate=0.003)
    model.compile()
    config = model.optimizer.get_config()
    assert {name: config[name] for name in ("momentum", "decay", "rho", "epsilon")} == {
        "momentum": 0.7,
        "decay": 0.02,
        "rho": 0.99,
        "epsilon": 1e-8,
    }
    again = msdn.CoupledRMSprop.from_config(config)
    assert again.get_config() == config
    before = weights_of(model)
    step(model, batch_for(model, benchmark))
    moves = np.abs(weights_of(model)["w1"] - before["w1"])  # g / sqrt(g^2 / 100), whatever g is
    np.testing.assert_allclose(moves, 0.03, rtol=1e-2)
    fresh_adam = fresh(benchmark, optimizer="adam", weight_decay=0.02)
    fresh_adam.compile()
    assert isinstance(fresh_adam.optimizer, keras.optimizers.Adam) and fresh_adam.optimizer.weight_decay == 0.02


# Classes that training reads.


@pytest.mark.parametrize(
    "overrides, reads",
    [
        ({}, True),
        ({"lambda_cal": 0.0, "lambda_distill": 0.0}, True),  # the released cross entropy is over all classes
        (PAPER, True),
        ({**PAPER, "lambda_cal": 0.0}, True),
        ({**PAPER, "lambda_distill": 0.0}, True),
        ({**PAPER, "lambda_cal": 0.0, "lambda_distill": 0.0}, False),
        ({**PAPER, "lambda_cal": 0.0, "branches": "attribute_to_visual"}, False),
    ],
    ids=str,
)
def test_unseen_embeddings_are_read_or_not_and_results_say_so(overrides, reads):
    assert harness.depends_on_unseen_embeddings(small, ready, **overrides) == reads
    assert MSDN.reads_unseen_embeddings(Config(**SMALL | overrides)) == reads


# Decisions.


def test_the_indicator_of_equation_11_is_a_gamma_of_two():
    benchmark = small()
    model, batch = ready(benchmark, spread=3.0)
    psi, Psi = (one for one, _ in expected_branches(weights_of(model), model.config, batch.x).values())
    inputs, seen = tf.constant(benchmark.inputs), benchmark.seen_mask
    scores = model(inputs)
    wanted = reference.fused(psi, Psi, (0.6, 0.3), batch.classes, seen)
    np.testing.assert_allclose(model(batch.inputs) + reference.mask(seen), wanted, rtol=1e-5, atol=2e-5)
    got, without = (model.decide(scores, inputs, seen, gamma).numpy() for gamma in (model.paper_rule["gamma"], 0.0))
    np.testing.assert_array_equal(got, np.argmax(scores + reference.mask(seen), axis=1))
    assert (got != without).any()
    unseen = scores.numpy()[:, 3:]  # among unseen classes alone it is one number for all
    np.testing.assert_array_equal(np.argmax(unseen + 1, axis=1), np.argmax(unseen, axis=1))


def test_an_exported_model_scores_and_decides_as_before(tmp_path):
    benchmark = small()
    model = made(benchmark, spread=3.0)
    gamma = model.paper_rule["gamma"]

    def generalized(inputs):
        return model(inputs) + 0.5 * gamma * msdn.indicator(model.seen_mask.value)

    inputs = benchmark.inputs.astype(np.float32)
    loaded = harness.exported(model, tmp_path, inputs, generalized=generalized)
    biased = loaded.generalized(inputs).numpy()
    wanted = model(inputs) + reference.mask(benchmark.seen_mask)
    np.testing.assert_allclose(biased, wanted, rtol=1e-5, atol=1e-5)
    sets = benchmark.seen_classes, benchmark.unseen_classes
    with_mask = metrics.evaluate(biased, benchmark.labels, *sets)
    calibrated = metrics.evaluate(model(inputs).numpy(), benchmark.labels, *sets, gamma)
    plain = metrics.evaluate(model(inputs).numpy(), benchmark.labels, *sets)
    assert with_mask["H"] == calibrated["H"] != plain["H"]
    assert with_mask["T"] == plain["T"]


# Configs.


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("variant", "none", "one of code, paper"),
        ("optimizer", "none", "one of rmsprop, adam"),
        ("branches", "none", "one of both, attribute_to_visual, visual_to_attribute, baseline"),
        ("lambda_cal", -0.1, "at least 0"),
        ("lambda_distill", -1.0, "at least 0"),
        ("weight_decay", -1e-4, "at least 0"),
        ("momentum", -0.9, "at least 0 and less than 1"),
        ("vector_dim", 0, "at least 1"),
        ("epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
    ],
)
def test_a_value_that_does_not_exist_is_a_sentence(name, value, wanted):
    harness.assert_refuses(MSDNConfig, name, value, wanted)


@pytest.mark.parametrize("name", ["region_scaling", "embedding_scaling"])
def test_a_scaling_that_does_not_exist_is_a_sentence(name):
    with pytest.raises(ValueError, match=f"^{name}: got 'none of them'; wanted one of none, l2, "):
        Config(**{name: "none of them"})


# The released settings, the number of training rows, and how many steps were made of them.
FIELDS = ("optimizer", "learning_rate", "weight_decay", "momentum", "lambda_cal", "lambda_distill", "alpha1", "alpha2")
FIELDS += ("batch_size", "sampler", "normalize_vectors")
RELEASED = {
    "cub": (("rmsprop", 1e-4, 1e-4, 0.9, 0.1, 0.001, 0.9, 0.1, 50, "plain", False), 7057, 4234),
    "sun": (("rmsprop", 1e-4, 1e-4, 0.9, 1e-4, 0.01, 0.7, 0.3, 50, "balanced", False), 10320, 14448),
    "awa2": (("rmsprop", 1e-4, 1e-4, 0.0, 0.12, 1e-7, 1.0, 0.0, 40, "balanced", True), 23527, 23527),
}


@pytest.mark.parametrize("dataset", RELEASED)
def test_settings_are_those_released(dataset):
    config, (wanted, rows, steps) = MSDNConfig(**presets.settings("paper", "msdn", dataset)), RELEASED[dataset]
    assert {field: getattr(config, field) for field in FIELDS} == dict(zip(FIELDS, wanted, strict=True))
    assert config.variant == "code" and config.normalize and config.start == config.temperature == 1.0
    # Its epochs are of N / 50 steps whatever the batch holds; ours are of whole batches.
    assert abs(config.epochs * (rows // config.batch_size) / steps - 1) < 0.01


@pytest.mark.parametrize("dataset, classes, distinct", [("cub", 150, None), ("sun", 645, 50), ("awa2", 40, 40)])
def test_batches_are_drawn_as_released(dataset, classes, distinct):
    config = MSDNConfig(**presets.settings("paper", "msdn", dataset))
    benchmark = tiny(classes=classes + 2, unseen=2, rows=4, attributes=2, width=2)
    drawn = batches.epoch_rows(benchmark, config.batch_size, 0, 0, config.sampler)
    assert len(drawn) > 1
    for rows in drawn:
        assert len(set(rows)) == len(rows) == config.batch_size
        labels = set(benchmark.labels[rows])
        assert len(labels) == distinct if distinct else len(labels) < 50


# Replicas.

REPLICATED = {
    "code": {"lambda_cal": 3.0},
    "paper": {"variant": "paper"},
    "released optimizer": {"lambda_cal": 3.0, "momentum": 0.9, "learning_rate": 1e-3},
}


def several_steps(strategy, name):
    """A model after four steps, and the losses of the first."""
    benchmark = small()

    def make():
        model = made(benchmark, rate=0.05, spread=2.0, **REPLICATED[name])
        if name == "released optimizer":
            model.compile()
        return model

    return harness.trained_under(strategy, make, harness.batches_of(benchmark, 4))


@pytest.fixture(scope="module")
def on_two_replicas(tmp_path_factory):
    return arrays_of("tests.models.test_msdn", tmp_path_factory.mktemp("replicas"))


@pytest.mark.long
@pytest.mark.parametrize("name", REPLICATED)
def test_two_replicas_train_as_one(name, on_two_replicas):
    """The calibration among them: its mean stands inside the log, over the rows of all replicas."""
    (one, losses), before = several_steps(tf.distribute.get_strategy(), name), made(spread=2.0, **REPLICATED[name])
    two = harness.saved_under(name, on_two_replicas)
    assert_losses({loss: two[loss] for loss in losses}, losses, rtol=1e-5)
    harness.assert_trained_alike(two, variables_of(one), variables_of(before), atol=2e-5)


def test_the_calibration_of_a_part_of_the_rows_is_another():
    """Otherwise two replicas that forgot each other would pass the test above."""
    benchmark = small()
    model = made(benchmark, spread=2.0, **REPLICATED["code"])
    batch = batch_for(model, benchmark, count=8)
    whole = expected_losses(weights_of(model), batch)[0]["calibration_loss"]
    parts = []
    for half in (slice(0, 4), slice(4, 8)):
        part = dataclasses.replace(batch, x=batch.x[half], labels=batch.labels[half])
        parts.append(expected_losses(weights_of(model), part)[0]["calibration_loss"])
    assert abs(np.mean(parts) / whole - 1) > 1e-3


if __name__ == "__main__":
    harness.save_from_two_replicas(several_steps, REPLICATED, variables_of)
