"""MSDN against its paper's equations and its released code's arithmetic in loops, and what its parts must not do.

`python -m tests.models.test_msdn OUT` trains REPLICATED on two replicas, for `test_two_replicas_train_as_one`.
"""

import dataclasses
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from experiments import published

from tests.reference import msdn as reference
from tests.reference.eszsl import scaled
from tests.support.commands import arrays_of
from tests.support.slopes import assert_slopes
from tests.support.tiny import tiny
from zslkeras.cli import quiet
from zslkeras.evaluation import metrics
from zslkeras.models import msdn
from zslkeras.models.msdn import MSDN, MSDNConfig
from zslkeras.training import batches, strategies

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


def small(**options):
    """Pictures of 2 x 3 regions: what confuses height and width, or regions and attributes, does not fit."""
    benchmark = tiny("maps", **{"classes": 5, "unseen": 2, "rows": 5, "attributes": 4, "width": 7, **options})
    return dataclasses.replace(benchmark, inputs=benchmark.inputs[:, :2, :3])


def fresh(benchmark=None, **overrides):
    """A model where it starts."""
    return MSDN.for_benchmark(benchmark or small(), MSDNConfig(**SMALL | overrides))


def made(benchmark=None, rate=1.0, spread=1.0, **overrides):
    """A model away from where it starts, with SGD."""
    model = fresh(benchmark, **overrides)
    model.compile(keras.optimizers.SGD(rate))
    generator = np.random.default_rng(7)
    for name, variable in weights_of(model, values=False).items():
        variable.assign((1.0 if name == "attribute_vectors" else spread) * generator.standard_normal(variable.shape))
    return model


def weights_of(model, values=True):
    """The trained variables by name, or their values in float64."""
    variables = {variable.name: variable for variable in model.trainable_variables}
    return {name: v.numpy().astype(np.float64) for name, v in variables.items()} if values else variables


@dataclasses.dataclass
class Batch:
    """One batch and the classes of the stage, as given and as the reference takes them: scaled, in float64."""

    config: MSDNConfig
    inputs: np.ndarray
    labels: np.ndarray
    x: np.ndarray
    z: np.ndarray
    seen: np.ndarray

    @property
    def pair(self):
        return tf.constant(self.inputs), tf.constant(self.labels)


def batch_for(model, benchmark, count=6):
    rows = np.random.default_rng(3).choice(benchmark.train, count, replace=False)
    inputs, config = benchmark.inputs[rows], model.config
    regions = scaled(config.region_scaling, inputs.reshape(-1, 7), benchmark.inputs[benchmark.train].reshape(-1, 7))
    regions = reference.unit(regions) if config.normalize else regions
    embeddings = benchmark.class_embeddings
    classes = scaled(config.embedding_scaling, embeddings, embeddings[benchmark.seen_classes])
    return Batch(config, inputs, benchmark.labels[rows], regions.reshape(count, 6, 7), classes, benchmark.seen_mask)


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


def expected_scores(weights, batch, z):
    """Eq. (11) without its indicator."""
    scores = [one for one, _ in expected_branches(weights, batch.config, batch.x).values()]
    shares = (batch.config.alpha1, batch.config.alpha2) if len(scores) == 2 else (1.0,)
    return batch.config.temperature * sum(
        share * reference.logits(psi, z) for share, psi in zip(shares, scores, strict=True)
    )


def expected_losses(weights, batch):
    """The three losses that are reported, a part that the config leaves out being 0, and Eq. (10)."""
    config, seen = batch.config, batch.seen
    branches = expected_branches(weights, config, batch.x).values()
    logits = [config.temperature * reference.logits(psi, batch.z) for psi, _ in branches]
    as_code = config.variant == "code"
    classes = None if as_code else np.flatnonzero(seen)
    entropies = [reference.cross_entropy(one, batch.labels, classes) for one in logits]
    calibrations, distilled = [0.0], 0.0
    if config.lambda_cal:
        form = reference.calibration if as_code else reference.printed_calibration
        calibrations = [form(one, seen) for one in logits]
    if config.lambda_distill and len(logits) == 2:
        if as_code:
            divergence, distance = reference.jensen_shannon(*logits, seen), reference.weighted_l2(*logits)
        else:
            divergence = reference.symmetrised_divergence(*logits, np.flatnonzero(seen))
            distance = reference.plain_l2(*logits)
        distilled = config.divergence_weight * divergence + config.distance_weight * distance
    losses = {
        "class_loss": sum(entropies),
        "calibration_loss": sum(calibrations),
        "distillation_loss": distilled,
    }
    return losses, reference.total(entropies, calibrations, distilled, config.lambda_cal, config.lambda_distill)


def step(model, batch):
    model.reset_metrics()
    return {name: float(loss) for name, loss in model.train_step(batch.pair).items()}


# The equations.


@pytest.mark.parametrize("name", CONFIGS)
def test_attribute_scores_and_attention(name):
    benchmark = small()
    model = made(benchmark, **CONFIGS[name])
    batch = batch_for(model, benchmark)
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
    model = made(benchmark, **CONFIGS[name])
    batch, weights = batch_for(model, benchmark), weights_of(model)
    np.testing.assert_allclose(model(batch.inputs), expected_scores(weights, batch, batch.z), rtol=1e-5, atol=2e-5)
    new = np.random.default_rng(5).random((3, 4)).astype(np.float32)
    embeddings = benchmark.class_embeddings
    z = scaled(model.config.embedding_scaling, new, embeddings[benchmark.seen_classes])
    got = model.score_classes(batch.inputs, new).numpy()
    np.testing.assert_allclose(got, expected_scores(weights, batch, z), rtol=1e-5, atol=2e-5)
    together = model.score_classes(batch.inputs, np.concatenate([new, embeddings])).numpy()
    np.testing.assert_allclose(together, np.concatenate([got, model(batch.inputs)], axis=1), rtol=1e-5, atol=1e-5)
    for c in range(3):
        np.testing.assert_allclose(
            model.score_classes(batch.inputs, new[c : c + 1])[:, 0], got[:, c], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_reported_losses_of_one_step(name):
    """Each ablation leaves out its part of the loss and nothing else."""
    benchmark = small()
    model = made(benchmark, **CONFIGS[name])
    batch = batch_for(model, benchmark)
    wanted, _ = expected_losses(weights_of(model), batch)
    got = step(model, batch)
    assert set(got) == set(wanted)
    for loss, value in wanted.items():
        np.testing.assert_allclose(got[loss], value, rtol=2e-5, err_msg=loss)


@pytest.mark.parametrize("name", SLOPED)
def test_a_step_follows_the_slope_of_equation_10(name):
    benchmark = small()
    model = made(benchmark, **CONFIGS[name])
    batch, before = batch_for(model, benchmark), weights_of(model)
    step(model, batch)
    after, weights = weights_of(model), weights_of(made(benchmark, **CONFIGS[name]))
    for variable, array in weights.items():
        assert_slopes(
            lambda: expected_losses(weights, batch)[1],
            array,
            before[variable] - after[variable],
            rtol=5e-5,
            atol=1e-5,
            err_msg=variable,
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
    arrays = LOGITS.copy()
    tensor = tf.constant(arrays)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = function(tensor[0], tensor[1])
    np.testing.assert_allclose(loss, wanted(*arrays), rtol=1e-12)
    got = tape.gradient(loss, tensor).numpy()
    assert_slopes(lambda: wanted(*arrays), arrays, got, rtol=1e-7, atol=1e-8)


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
    for name, variable in weights_of(alone, values=False).items():
        variable.assign(weights_of(both, values=False)[name])
    inputs = benchmark.inputs[:5]
    np.testing.assert_allclose(both(inputs), alone(inputs), rtol=1e-5, atol=1e-6)
    wanted = tf.matmul(both.attribute_scores(inputs)[branch], benchmark.class_embeddings, transpose_b=True)
    np.testing.assert_allclose(both(inputs), wanted, rtol=1e-5, atol=1e-6)
    assert list(alone.attribute_scores(inputs)) == [branch]
    assert np.abs(made(benchmark, variant=variant)(inputs) - both(inputs)).max() > 0.1


def test_embeddings_of_pictures():
    benchmark = small()
    model = made(benchmark)
    batch = batch_for(model, benchmark)
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
    model = MSDN(MSDNConfig(**overrides), (14, 14, 2048), np.ones((200, 312)), np.arange(200) < 150, vectors)
    assert sum(v.numpy().size for v in model.trainable_variables) == matrices * 300 * 2048 + 312 * 300
    np.testing.assert_allclose(model.attribute_vectors, reference.unit(vectors), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.std(model.w1), 1.0, rtol=0.01)


def test_without_attribute_vectors_they_start_at_random():
    benchmark = dataclasses.replace(small(), attribute_vectors=None)
    model, other = fresh(benchmark, vector_dim=9), fresh(benchmark, vector_dim=9)
    assert model.attribute_vectors.shape == (4, 9)
    np.testing.assert_allclose(np.linalg.norm(model.attribute_vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(model.attribute_vectors, other.attribute_vectors)
    again = MSDN.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(benchmark.inputs[:3]), model(benchmark.inputs[:3]))


def outputs_of(graph):
    """The shapes of all tensors of a graph and of the functions in it."""
    shapes = [output.shape for op in graph.get_operations() for output in op.outputs if output.dtype.is_floating]
    for op in graph.get_operations():
        for attribute in ("f", "body", "cond", "then_branch", "else_branch"):
            if attribute in op.node_def.attr:
                inner = graph._get_function(op.get_attr(attribute).name)
                shapes += outputs_of(inner.graph)
    return shapes


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("what", ["train_step", "score_classes"])
def test_attended_features_are_never_formed(what, variant):
    """Nothing in the graph is as large as [B, A, F] or [B, A, C]: features attended to, class by class."""
    B, A, F, R, C = 8, 12, 50, 4, 48
    embeddings = np.random.default_rng(0).random((C, A)).astype(np.float32)
    model = MSDN(MSDNConfig(variant=variant), (2, 2, F), embeddings, np.arange(C) < 40, np.ones((A, 6), np.float32))
    model.compile()
    maps = tf.TensorSpec([B, 2, 2, F], tf.float16)
    if what == "train_step":
        function = tf.function(lambda *batch: model.train_step(batch))
        graph = function.get_concrete_function(maps, tf.TensorSpec([B], tf.int32)).graph
    else:
        classes = tf.TensorSpec([C, A], tf.float32)
        graph = tf.function(model.score_classes).get_concrete_function(maps, classes).graph
    shapes = outputs_of(graph)
    assert all(shape.is_fully_defined() for shape in shapes)
    sizes = {shape.num_elements() for shape in shapes}
    largest_needed = max(5 * A * B * R, B * R * F, 5 * A * F)
    assert max(A * F, A * C) < max(sizes) <= largest_needed < min(B * A * F, B * A * C)


# The losses' signs and edges.


def test_the_class_loss_does_not_see_the_indicator_and_the_calibration_does():
    benchmark = small()
    swapped = dataclasses.replace(
        benchmark, seen_classes=np.arange(5), unseen_classes=np.array([], int), test_unseen=np.array([], int)
    )
    one, other = made(benchmark), made(swapped)
    losses, without = (step(model, batch_for(one, benchmark)) for model in (one, other))
    assert losses["class_loss"] == without["class_loss"]
    assert losses["calibration_loss"] > 0.1 and without["calibration_loss"] == 0  # there is nothing to calibrate


def test_a_stage_without_unseen_classes_trains():
    benchmark = small()
    benchmark = dataclasses.replace(
        benchmark, seen_classes=np.arange(5), unseen_classes=np.array([], int), test_unseen=np.array([], int)
    )
    for variant in ("code", "paper"):
        model = made(benchmark, variant=variant)
        assert np.isfinite(list(step(model, batch_for(model, benchmark)).values())).all()
        assert all(np.isfinite(weight).all() for weight in model.get_weights())


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
    benchmark = small()
    model = made(benchmark, rate=1e-10, variant=variant, lambda_cal=1e8, lambda_distill=0.0)  # next to nothing else
    batch = batch_for(model, benchmark)

    def mass():
        logits = [tf.matmul(psi, batch.z.astype(np.float32).T) for psi in model.attribute_scores(batch.inputs).values()]
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
        losses = model.train_step((tf.constant(benchmark.inputs[rows]), tf.constant(benchmark.labels[rows])))
    assert np.isfinite([float(loss) for loss in losses.values()]).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
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
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


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
    generator = np.random.default_rng(0)
    starts = [generator.standard_normal(shape) for shape in ((3, 2), (4,))]
    targets = [generator.standard_normal((6, *array.shape)) for array in starts]
    rate = 2.0**-7  # a number that float32 holds exactly
    variables = [keras.Variable(array, dtype="float64") for array in starts]
    optimizer = msdn.CoupledRMSprop(rate, decay=0.3, momentum=momentum)
    optimizer.build(variables)

    def apply(*gradients):
        optimizer.apply(gradients, variables)

    apply = tf.function(apply) if traced else apply
    for number in range(6):
        apply(*(tf.sin(v.value) + target[number] for v, target in zip(variables, targets, strict=True)))
    for variable, array, target in zip(variables, starts, targets, strict=True):
        gradients = [lambda w, shift=shift: np.sin(w) + shift for shift in target]
        wanted = reference.rmsprop(array, gradients, rate, momentum, 0.3)
        np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-10)
        assert np.abs(wanted - array).min() > 1e-3


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
    ends = []
    for shift in (0.0, 0.3):
        benchmark = small()
        benchmark.class_embeddings[benchmark.unseen_classes[0], 1] += shift
        model = made(benchmark, **overrides)
        step(model, batch_for(model, benchmark))
        ends.append([variable.numpy() for variable in model.trainable_variables])
    assert any((one != other).any() for one, other in zip(*ends, strict=True)) == reads
    assert MSDN.reads_unseen_embeddings(model.config) == reads


# Decisions.


def test_the_indicator_of_equation_11_is_a_gamma_of_two():
    benchmark = small()
    model = made(benchmark, spread=3.0)
    batch = batch_for(model, benchmark)
    psi, Psi = (one for one, _ in expected_branches(weights_of(model), model.config, batch.x).values())
    inputs, seen = tf.constant(benchmark.inputs), benchmark.seen_mask
    scores = model(inputs)
    wanted = reference.fused(psi, Psi, (0.6, 0.3), batch.z, seen)
    np.testing.assert_allclose(model(batch.inputs) + reference.mask(seen), wanted, rtol=1e-5, atol=2e-5)
    got, without = (model.decide(scores, inputs, seen, gamma).numpy() for gamma in (model.paper_rule["gamma"], 0.0))
    np.testing.assert_array_equal(got, np.argmax(scores + reference.mask(seen), axis=1))
    assert (got != without).any()
    unseen = scores.numpy()[:, 3:]  # among unseen classes alone it is one number for all
    np.testing.assert_array_equal(np.argmax(unseen + 1, axis=1), np.argmax(unseen, axis=1))


def test_an_exported_model_scores_and_decides_as_before(tmp_path):
    benchmark = small()
    model = made(benchmark, spread=3.0)
    archive = keras.export.ExportArchive()
    archive.track(model)
    maps = tf.TensorSpec([None, 2, 3, 7], tf.float32)
    gamma = model.paper_rule["gamma"]

    def generalized(inputs):
        return model(inputs) + 0.5 * gamma * msdn.indicator(model.seen_mask.value)

    archive.add_endpoint("score_classes", model.score_classes, [maps, tf.TensorSpec([None, 4], tf.float32)])
    archive.add_endpoint("generalized", generalized, [maps])
    archive.write_out(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    inputs = benchmark.inputs.astype(np.float32)
    new = np.random.default_rng(5).random((2, 4)).astype(np.float32)
    for rows in (slice(0, 1), slice(0, 7)):
        got, wanted = loaded.score_classes(inputs[rows], new), model.score_classes(inputs[rows], new)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
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
    with pytest.raises(ValueError) as caught:
        MSDNConfig(**{name: value})
    assert str(caught.value) == f"{name}: got {value!r}; wanted {wanted}"


@pytest.mark.parametrize("name", ["region_scaling", "embedding_scaling"])
def test_a_scaling_that_does_not_exist_is_a_sentence(name):
    with pytest.raises(ValueError, match=f"^{name}: got 'none of them'; wanted one of none, l2, "):
        MSDNConfig(**{name: "none of them"})


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
    config, (wanted, rows, steps) = MSDNConfig(**published.settings("msdn", dataset)), RELEASED[dataset]
    assert {field: getattr(config, field) for field in FIELDS} == dict(zip(FIELDS, wanted, strict=True))
    assert config.variant == "code" and config.normalize and config.start == config.temperature == 1.0
    # Its epochs are of N / 50 steps whatever the batch holds; ours are of whole batches.
    assert abs(config.epochs * (rows // config.batch_size) / steps - 1) < 0.01


@pytest.mark.parametrize("dataset, classes, distinct", [("cub", 150, None), ("sun", 645, 50), ("awa2", 40, 40)])
def test_batches_are_drawn_as_released(dataset, classes, distinct):
    config = MSDNConfig(**published.settings("msdn", dataset))
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
    """A model after four steps, and the losses of the first; each replica has its part of the rows."""
    generator, benchmark = np.random.default_rng(2), small()
    rows = np.array([generator.choice(benchmark.train, 8, replace=False) for _ in range(4)])
    with strategy.scope():
        model = made(benchmark, rate=0.05, spread=2.0, **REPLICATED[name])
        if name == "released optimizer":
            model.compile()

    def part(array):
        context = tf.distribute.get_replica_context()
        share = array.shape[0] // context.num_replicas_in_sync
        return array[context.replica_id_in_sync_group * share :][:share]

    @tf.function
    def train_step(inputs, labels):
        strategy.run(lambda: model.train_step((part(inputs), part(labels))))

    losses = None
    for batch in rows:
        train_step(tf.constant(benchmark.inputs[batch]), tf.constant(benchmark.labels[batch]))
        losses = losses or {key: float(tracker.result()) for key, tracker in model.trackers.items()}
    return model, losses


@pytest.fixture(scope="module")
def on_two_replicas(tmp_path_factory):
    return arrays_of("tests.models.test_msdn", tmp_path_factory.mktemp("replicas"))


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLICATED)
def test_two_replicas_train_as_one(name, on_two_replicas):
    """The calibration among them: its mean stands inside the log, over the rows of all replicas."""
    (one, losses), before = several_steps(tf.distribute.get_strategy(), name), made(spread=2.0, **REPLICATED[name])
    for loss, value in losses.items():
        np.testing.assert_allclose(on_two_replicas[f"{name}/{loss}"], value, rtol=1e-5, err_msg=loss)
    for number, variable in enumerate(one.trainable_variables):
        other = on_two_replicas[f"{name}/{number}"]
        np.testing.assert_allclose(other, variable, rtol=0, atol=2e-5, err_msg=variable.path)
        assert np.abs(variable - before.trainable_variables[number]).max() > 1e-3  # or the comparison could not fail


def test_the_calibration_of_a_part_of_the_rows_is_another():
    """Otherwise two replicas that forgot each other would pass the test above."""
    benchmark = small()
    model = made(benchmark, spread=2.0, **REPLICATED["code"])
    batch = batch_for(model, benchmark, 8)
    whole = expected_losses(weights_of(model), batch)[0]["calibration_loss"]
    parts = []
    for half in (slice(0, 4), slice(4, 8)):
        part = dataclasses.replace(batch, x=batch.x[half], labels=batch.labels[half])
        parts.append(expected_losses(weights_of(model), part)[0]["calibration_loss"])
    assert abs(np.mean(parts) / whole - 1) > 1e-3


if __name__ == "__main__":
    quiet.tensorflow()
    (out,) = sys.argv[1:]
    mirrored, arrays = strategies.get_strategy("mirrored", 2), {}
    for name in REPLICATED:
        model, losses = several_steps(mirrored, name)
        arrays |= {f"{name}/{loss}": value for loss, value in losses.items()}
        arrays |= {f"{name}/{number}": v.numpy() for number, v in enumerate(model.trainable_variables)}
    np.savez(out, **arrays)
