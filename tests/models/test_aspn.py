"""ASPN against the paper's equations in loops, and what each of its parts must not do.

`python -m tests.models.test_aspn OUT` trains REPLICATED on two replicas, for `test_two_replicas_train_as_one`.
"""

import dataclasses
import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.reference import aspn as reference
from tests.reference.eszsl import scaled
from tests.support import harness
from tests.support.commands import arrays_of
from tests.support.harness import assert_finite, run_of, same
from tests.support.slopes import assert_slopes
from tests.support.tiny import tiny
from zslkeras import benchmarks
from zslkeras.models import aspn
from zslkeras.models.aspn import ASPN, ASPNConfig
from zslkeras.training.loop import Diverged

Config = harness.v1("aspn")

SMALL = {
    "hidden": 8,
    "attention_dim": 3,
    "critic_hidden": 5,
    "noise_dim": 2,
    "alpha": 0.6,
    "beta": 0.7,
    "theta": 1.3,
    "scaling": "none",
}
# What the comparisons with the reference run through: every choice at least once.
CONFIGS = {
    "default": {},
    "column": {"attention_axis": "column"},
    "candidates": {"context": "candidates", "classes_in_loss": "seen", "similarity": "euclidean", "temperature": 0.3},
    "spn": {**ASPN.ablations["spn"], "classes_in_loss": "seen", "visual_activation": "linear"},
    "baseline": ASPN.ablations["baseline"],
    "weighted": {
        "visual_weight": 0.5,
        "semantic_weight": 2.0,
        "cycle_weight": 0.7,
        "critic_weight": 1.7,
        "penalty": "norm",
        "reduction": "sum",
        "similarity": "cosine",
        "temperature": 5.0,
        "semantic_activation": "relu",
    },
    "inferred": {"semantic_theta": 0.8, "semantic_decision": 0.6, "temperature": 2.0},
    "inferred seen": {"semantic_theta": 0.8, "classes_in_loss": "seen", "attention": False},
    "scaled": {"scaling": "standard", "embedding_scaling": "minmax", "visual_activation": "linear"},
}
NETWORKS = {
    "encoder": ("hidden", "out"),
    "attention": ("f", "g"),
    "decoder": ("decoder_hidden", "decoder_semantics", "decoder_noise"),
    "critic": ("critic_hidden", "critic_out"),
}


small = functools.partial(harness.small, attributes=3)


def made(benchmark=None, rates=(1.0, 1.0), spread=0.5, **overrides):
    """A model away from its initialization, with SGD for E and D and for the critic at `rates`."""

    def value(name, draws):
        lift = 0.5 if draws.ndim == 1 else 0.0  # of biases, or most units of a ReLU this small are dead
        return spread * draws + lift

    model = ASPN.for_benchmark(benchmark or small(), Config(**SMALL | overrides))
    variables = {name: layer.weights for name, layer in layers_of(model).items()}
    return harness.with_weights(model, variables, value, *rates)


def layers_of(model):
    critic = dict(zip(NETWORKS["critic"], model.critic.layers, strict=True))
    names = (name for network, names in NETWORKS.items() if network != "critic" for name in names)
    return {name: getattr(model, name) for name in names} | critic


def variables_of(model, *networks):
    """Kernels and biases of some networks, or of all, by the name of their layer; alpha is part of the attention."""
    networks = networks or tuple(NETWORKS)
    layers = layers_of(model)
    variables = {name: layers[name].weights for network in networks for name in NETWORKS[network]}
    return variables | ({"alpha_logit": [model.alpha_logit]} if "attention" in networks else {})


def weights_of(model, *networks):
    return harness.in_float64(variables_of(model, *networks))


def set_weights(model, **kernels):
    """Kernel and bias of some layers; a missing bias is zero."""
    for name, values in kernels.items():
        kernel, bias = values if isinstance(values, tuple) else (values, np.zeros(np.shape(values)[1]))
        layers_of(model)[name].set_weights([kernel, bias] if layers_of(model)[name].use_bias else [kernel])


@dataclasses.dataclass(kw_only=True)
class Batch(harness.Batch):
    """A batch with the noise of its step."""

    critic_noise: np.ndarray
    noise: np.ndarray
    places: np.ndarray

    @property
    def s(self):
        return self.classes[self.labels]


def batch_for(model, benchmark):
    batch = harness.batch_for(model, benchmark, lambda config, x, train: scaled(config.scaling, x, train))
    generator = np.random.default_rng(4)
    critic_noise, noise = generator.standard_normal((2, 6, model.noise_dim))
    return Batch(**vars(batch), critic_noise=critic_noise, noise=noise, places=generator.random((6, 1)))


def ready(benchmark=None, **overrides):
    """A model away from its initialization, and a batch for it."""
    benchmark = benchmark or small()
    model = made(benchmark, **overrides)
    return model, batch_for(model, benchmark)


def step(model, batch):
    """A training step with the batch's noise in place of drawn noise; returns the losses as floats."""
    noises = iter([batch.critic_noise, batch.noise] if model.config.critic_weight else [batch.noise])
    model.noise = lambda shape: tf.constant(next(noises), tf.float32)
    model.uniform = lambda shape: tf.constant(batch.places, tf.float32)
    losses = harness.step(model, batch)
    assert next(noises, None) is None
    return losses


def expected_encode(weights, config, semantics, noise, context=None):
    alpha = 1 / (1 + np.exp(-weights["alpha_logit"][0])) if config.attention else None
    form, output = config.attention_axis, config.visual_activation
    without_bias = {name: [weights[name][0], np.zeros(weights[name][0].shape[1])] for name in NETWORKS["attention"]}
    weights = weights | without_bias
    return reference.encode(weights, semantics, noise, alpha=alpha, form=form, output=output, context=context)


def expected_prototypes(weights, config, classes, stage, noise=0.0):
    """With one `noise` for all of them; they attend to all classes of the stage, or to one another."""
    listed, width = stage if config.context == "fixed" else classes, weights["decoder_noise"][1].size
    context = (listed, np.zeros((len(listed), width)))
    return expected_encode(weights, config, classes, np.zeros((len(classes), width)) + noise, context)


def expected_critic_loss(weights, batch):
    """The loss of Eq. (4), and its penalty alone."""
    fake = expected_encode(weights, batch.config, batch.s, batch.critic_noise)
    losses = [
        reference.critic_loss(weights, batch.x, fake, batch.s, batch.places, beta, batch.config.penalty)
        for beta in (batch.config.beta, 0.0)
    ]
    return losses[0], (losses[0] - losses[1]) / batch.config.beta


def expected_losses(weights, batch):
    """L_V, L_S, L_pre, L_cls and E's side of L_D."""
    config, x, s = batch.config, batch.x, batch.s
    fake = expected_encode(weights, config, s, batch.noise)
    inferred, inferred_noise = reference.decode(weights, x, config.semantic_activation)
    s_cycle = reference.decode(weights, fake, config.semantic_activation)[0]
    x_cycle = expected_encode(weights, config, inferred, inferred_noise)
    considered = batch.seen_ids if config.classes_in_loss == "seen" else np.arange(len(batch.classes))
    prototypes = np.zeros((len(batch.classes), x.shape[1]))
    prototypes[considered] = expected_prototypes(weights, config, batch.classes[considered], batch.classes)
    return {
        "visual_loss": reference.visual_loss(x, fake, config.reduction),
        "semantic_loss": reference.semantic_loss(s, inferred, config.reduction),
        "cycle_loss": reference.preservation_loss(s, s_cycle, x, x_cycle, config.reduction),
        "class_loss": reference.class_loss(
            x, fake, prototypes, batch.labels, considered, config.similarity, config.temperature
        ),
        "inferred": reference.inferred_class_loss(
            inferred, batch.classes, batch.labels, considered, config.temperature
        ),
        "adversarial": reference.adversarial_loss(weights, fake, s),
    }


def expected_total(weights, batch):
    losses, config = expected_losses(weights, batch), batch.config
    return config.semantic_theta * losses["inferred"] + reference.total(
        config.visual_weight * losses["visual_loss"],
        config.semantic_weight * losses["semantic_loss"],
        config.cycle_weight * losses["cycle_loss"],
        losses["adversarial"],
        losses["class_loss"],
        config.theta,
        config.critic_weight,
    )


# The equations.


@pytest.mark.parametrize("axis", ["row", "column"])
@pytest.mark.parametrize("attention", [True, False])
def test_the_encoder_is_equations_5_and_6(axis, attention):
    model, batch = ready(attention=attention, attention_axis=axis)
    weights = weights_of(model)
    got = model.encode(*(tf.constant(array, tf.float32) for array in (batch.s, batch.noise)))
    np.testing.assert_allclose(got, expected_encode(weights, model.config, batch.s, batch.noise), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", ["row", "column"])
def test_the_weights_of_attention_sum_to_one(axis):
    """E with identities around the attention, on one-hot rows, and alpha at one: it returns the map of Eq. (5)."""
    model = made(small(classes=7, attributes=5, width=7), hidden=7, attention_axis=axis)
    set_weights(model, hidden=np.eye(7), out=np.eye(7))
    model.alpha_logit.assign(40.0)
    one_hot = np.eye(7, dtype=np.float32)
    got = model.encode(one_hot[:, :5], one_hot[:, 5:]).numpy()
    weights = weights_of(model)
    W = reference.attention_map(weights["f"][0], weights["g"][0], axis)
    np.testing.assert_allclose(W.sum(1 if axis == "row" else 0), 1.0)
    assert np.abs(W.sum(0 if axis == "row" else 1) - 1).max() > 0.1
    np.testing.assert_allclose(got, W if axis == "row" else W.T, rtol=1e-5)
    np.testing.assert_allclose(got.sum(1), 1.0, rtol=1e-5)  # Eq. (6) mixes: it never adds up


def test_the_decoder_splits_embedding_and_noise():
    benchmark = small()
    for activation in ("linear", "relu"):
        model = made(benchmark, semantic_activation=activation)
        features = benchmark.inputs[:6]
        wanted = reference.decode(weights_of(model), features.astype(np.float64), activation)
        for one, other in zip(model.decode(tf.constant(features)), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert (wanted[1] < 0).any()  # noise is never clipped


@pytest.mark.parametrize("decision", ["euclidean", "cosine", "dot"])
@pytest.mark.parametrize("name", CONFIGS)
def test_scores_under_each_decision(name, decision):
    benchmark = small()
    model, batch = ready(benchmark, decision=decision, **CONFIGS[name])
    weights = weights_of(model)
    built_in = expected_prototypes(weights, model.config, batch.classes, batch.classes)
    inferred = reference.decode(weights, batch.x, model.config.semantic_activation)[0]
    share = model.config.semantic_decision
    wanted = reference.scores(batch.x, built_in, decision) + share * reference.scores(inferred, batch.classes, "cosine")
    np.testing.assert_allclose(model(batch.inputs), wanted, rtol=1e-5, atol=1e-5)
    new = np.random.default_rng(5).random((3, 3)).astype(np.float32)
    embeddings = benchmark.class_embeddings[benchmark.seen_classes]
    listed = scaled(model.config.embedding_scaling, new, embeddings)
    wanted = reference.scores(batch.x, expected_prototypes(weights, model.config, listed, batch.classes), decision)
    wanted += share * reference.scores(inferred, listed, "cosine")
    np.testing.assert_allclose(model.score_classes(batch.inputs, new), wanted, rtol=1e-5, atol=1e-5)


def test_embeddings_are_the_spaces_that_the_decision_is_made_in():
    benchmark = small()
    inputs, train = benchmark.inputs[benchmark.test_unseen], benchmark.inputs[benchmark.train]
    plain = made(benchmark, scaling="standard").embed(inputs)
    assert set(plain) == {"baseline"}
    np.testing.assert_allclose(plain["baseline"], scaled("standard", inputs, train), rtol=1e-4, atol=1e-5)
    model = made(benchmark, scaling="standard", whitening=0.5, semantic_decision=0.6, decision="cosine")
    spaces, classes = model.embed(inputs), benchmark.class_embeddings
    np.testing.assert_array_equal(spaces["baseline"], plain["baseline"])
    wanted = reference.scores(spaces["whitened"].numpy(), model.prototypes(classes).numpy(), "cosine")
    wanted += 0.6 * reference.scores(spaces["inferred"].numpy(), classes, "cosine")
    np.testing.assert_allclose(model(inputs), wanted, rtol=1e-5, atol=1e-5)
    # A cosine does not see the lengths, t-SNE does.
    np.testing.assert_allclose(tf.norm(spaces["whitened"], axis=1), 1.0, rtol=1e-5)


def test_prototypes_may_be_means_of_fixed_draws():
    benchmark = small()
    model = made(benchmark, prototype_draws=3)
    weights, classes = weights_of(model), benchmark.class_embeddings
    draws = [z.numpy() for z in model._prototype_noise()]
    assert len(draws) == 3 and abs(np.std(draws) - 1) < 0.7
    wanted = np.mean([expected_prototypes(weights, model.config, classes, classes, z) for z in draws], axis=0)
    np.testing.assert_allclose(model.prototypes(classes), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.prototypes(classes), model.prototypes(classes))


def test_pure_losses():
    generator = np.random.default_rng(0)
    real, fake = generator.standard_normal((2, 6, 1))
    np.testing.assert_allclose(aspn.critic_loss(tf.constant(real), tf.constant(fake)), fake.mean() - real.mean())
    scores, labels = 4 * generator.standard_normal((6, 5)), generator.integers(0, 5, 6)
    np.testing.assert_allclose(
        aspn.prototype_loss(tf.constant(scores), labels), reference.cross_entropy(scores, labels), rtol=1e-10
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_reported_losses_of_one_step(name):
    model, batch = ready(**CONFIGS[name])
    weights, config = weights_of(model), model.config
    got, wanted = step(model, batch), expected_losses(weights, batch)
    if config.critic_weight:
        wanted["critic_loss"], wanted["penalty"] = expected_critic_loss(weights, batch)
    weight_of = {"semantic_loss": config.semantic_weight, "cycle_loss": config.cycle_weight}
    weight_of |= {"critic_loss": config.critic_weight, "penalty": config.critic_weight}
    for loss in set(model.losses_reported) - {"alpha"}:
        np.testing.assert_allclose(got[loss], wanted[loss] if weight_of.get(loss, 1) else 0, rtol=1e-5, err_msg=loss)
    np.testing.assert_allclose(got["alpha"], tf.sigmoid(model.alpha_logit), rtol=1e-6)


SLOPE_OF_A_STEP = {"scale": 1e-4, "rtol": 1e-5, "atol": 2e-6}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_of_encoder_and_decoder_follows_the_slope_of_equation_9(name):
    model, batch = ready(rates=(1.0, 0.1), **CONFIGS[name])
    before, config = weights_of(model), model.config
    step(model, batch)
    after = weights_of(model)
    # The slope is taken where E and D were, under the critic that has already made its step.
    there = before | {layer: after[layer] for layer in NETWORKS["critic"]}
    layers = ["hidden", "out"]
    layers += ["f", "g", "alpha_logit"] if config.attention else []
    layers += ["decoder_hidden", "decoder_semantics"] if config.semantic_weight else []
    layers += ["decoder_noise"] if config.cycle_weight else []
    moved = ({layer: weights[layer] for layer in layers} for weights in (before, after))
    harness.assert_step_follows(lambda: expected_total(there, batch), *moved, **SLOPE_OF_A_STEP)


@pytest.mark.parametrize("penalty", ["squared", "norm"])
def test_a_step_of_the_critic_follows_the_slope_of_equation_4(penalty):
    model, batch = ready(rates=(0.0, 1.0), penalty=penalty)
    before = weights_of(model)
    step(model, batch)
    after = weights_of(model)
    bias, moved_bias = (weights["critic_out"][1] for weights in (before, after))
    np.testing.assert_allclose(moved_bias, bias, rtol=0, atol=2e-6)  # Eq. (4) is a difference of scores
    moved = ({"hidden": weights["critic_hidden"], "out": weights["critic_out"][:1]} for weights in (before, after))
    harness.assert_step_follows(lambda: expected_critic_loss(before, batch)[0], *moved, **SLOPE_OF_A_STEP)


def test_critic_steps_repeat():
    benchmark = small()
    twice, once = (made(benchmark, rates=(0.0, 0.5), critic_steps=steps) for steps in (2, 1))
    batch = batch_for(once, benchmark)
    for model in (twice, once):
        model.noise = lambda shape: tf.constant(batch.noise, tf.float32)
        model.uniform = lambda shape: tf.constant(batch.places, tf.float32)
    for model in (twice, once, once):
        harness.step(model, batch)
    for layer, weights in weights_of(twice, "critic").items():
        for a, b in zip(weights, weights_of(once)[layer], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


# Attention.


def test_alpha_near_zero_turns_attention_off_and_frees_rows_of_each_other():
    benchmark = small()
    model, plain = made(benchmark), made(benchmark, attention=False)
    batch = batch_for(model, benchmark)
    s, z = (tf.constant(array, tf.float32) for array in (batch.s, batch.noise))
    together = model.encode(s, z).numpy()
    assert np.abs(model.encode(s[1:], z[1:]) - together[1:]).max() > 1e-3  # with attention, company matters
    model.alpha_logit.assign(-40.0)
    together = model.encode(s, z).numpy()
    np.testing.assert_allclose(together, plain.encode(s, z), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(model.encode(s[1:], z[1:]), together[1:], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(model.encode(s[::-1], z[::-1]), together[::-1], rtol=1e-6, atol=1e-7)


def test_alpha_starts_where_the_config_says():
    model = ASPN.for_benchmark(small(), Config(**SMALL | {"alpha": 0.9}))
    np.testing.assert_allclose(tf.sigmoid(model.alpha_logit), 0.9, rtol=1e-6)


@pytest.mark.parametrize("axis", ["row", "column"])
def test_in_context_of_the_candidates_a_prototype_depends_on_the_list(axis):
    """As Eq. (5) has it; documented, so that nobody repairs it in silence."""
    benchmark = small()
    model = made(benchmark, context="candidates", attention_axis=axis)
    classes = benchmark.class_embeddings
    whole = model.prototypes(classes).numpy()
    assert np.abs(model.prototypes(classes[:3]) - whole[:3]).max() > 1e-3
    np.testing.assert_allclose(model.prototypes(classes[::-1]), whole[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", ["row", "column"])
def test_in_fixed_context_a_class_scores_the_same_in_any_list(axis):
    benchmark = small()
    model = made(benchmark, attention_axis=axis)
    new = np.random.default_rng(5).random((2, 3)).astype(np.float32)
    scores = harness.scores_in_any_company(model, benchmark.inputs[:4], new, rtol=1e-5, atol=1e-5)
    assert np.ptp(scores, axis=1).min() > 1e-2


# Cycle, critic and penalty.


def toy_inverse(decoder):
    """E multiplies [s ; z] by a positive matrix, D by `decoder` of that matrix; all of it within ReLU's linear part."""
    benchmark = small(width=5)
    model = made(benchmark, rates=(0.0, 0.0), hidden=5, attention=False)
    generator = np.random.default_rng(1)
    matrix = np.eye(5) + 0.2 * generator.random((5, 5))
    inverse = decoder(matrix)
    set_weights(model, hidden=np.eye(5), out=matrix, decoder_hidden=np.eye(5))
    set_weights(model, decoder_semantics=inverse[:, :3], decoder_noise=inverse[:, 3:])
    batch = batch_for(model, benchmark)
    batch.inputs = (generator.random((6, 5)) @ matrix).astype(np.float32)
    batch.noise = generator.random((6, 2))
    return model, batch


def test_a_decoder_that_inverts_the_encoder_has_no_cycle_loss():
    model, batch = toy_inverse(np.linalg.inv)
    losses = step(model, batch)
    assert losses["cycle_loss"] < 1e-12
    assert losses["visual_loss"] > 1e-2 and losses["semantic_loss"] > 1e-2  # the pairs themselves do not fit
    model, batch = toy_inverse(lambda matrix: np.linalg.inv(matrix).T)
    assert step(model, batch)["cycle_loss"] > 1e-3


@pytest.mark.parametrize("form", ["squared", "norm"])
def test_the_penalty_of_a_linear_critic(form):
    generator = np.random.default_rng(0)
    between, embeddings = (tf.constant(generator.standard_normal((6, width))) for width in (4, 3))

    def penalty(w):
        return aspn.gradient_penalty(lambda pairs: tf.matmul(pairs, w), between, embeddings, form)

    def wanted(w):  # only the features' part of w: s is given
        norm = np.linalg.norm(w[:4])
        return (norm**2 - 1) ** 2 if form == "squared" else (norm - 1) ** 2

    arrays = [generator.standard_normal((7, 1))]
    (got,) = harness.assert_function(penalty, wanted, arrays, value_rtol=1e-10, count=7, rtol=1e-5, atol=1e-9)
    assert not np.any(got[4:]) and np.all(got[:4])


@pytest.mark.parametrize("form", ["squared", "norm"])
def test_the_penalty_of_two_layers(form):
    generator = np.random.default_rng(0)
    between, embeddings = generator.standard_normal((6, 4)), generator.standard_normal((6, 3))
    W, b, v, c = (generator.standard_normal(shape) for shape in [(7, 5), 5, (5, 1), 1])

    def penalty(W, v):
        def critic(pairs):
            return tf.matmul(tf.nn.relu(tf.matmul(pairs, W) + b), v) + c

        return aspn.gradient_penalty(critic, tf.constant(between), tf.constant(embeddings), form)

    def wanted(W, v):
        weights = {"critic_hidden": [W, b], "critic_out": [v, c]}
        return reference.gradient_penalty(reference.critic_input_gradient(weights, between, embeddings), form)

    harness.assert_function(penalty, wanted, [W, v], value_rtol=1e-10, count=12, rtol=1e-5, atol=1e-7)


def test_the_reference_has_the_gradient_of_its_own_critic():
    generator = np.random.default_rng(0)
    weights = weights_of(made())
    x, s = generator.standard_normal((1, 7)), generator.standard_normal((1, 3))
    got = reference.critic_input_gradient(weights, x, s)
    assert_slopes(lambda: reference.critic(weights, x, s)[0], x, got, count=7, atol=1e-8)


@pytest.mark.parametrize("form", ["squared", "norm"])
def test_features_that_are_all_zero_have_finite_gradients(form):
    model = made(penalty=form)
    set_weights(model, critic_hidden=model.critic.layers[0].get_weights()[0], out=np.zeros((8, 7)))
    batch = batch_for(model, small())
    batch.inputs = np.zeros_like(batch.inputs)
    with tf.GradientTape() as tape:
        zeros = tf.zeros([6, 7]), tf.zeros([6, 3])
        penalty = aspn.gradient_penalty(model.critic, *zeros, form)
    np.testing.assert_allclose(penalty, 1.0, rtol=1e-5)  # no hidden unit of the critic is awake
    for gradient in tape.gradient(penalty, model.critic.trainable_variables[::2]):
        assert np.isfinite(gradient).all()
    assert_finite(model, **step(model, batch))


@pytest.mark.parametrize("moving", ["critic", "encoder and decoder"])
def test_a_step_of_one_side_leaves_the_other_where_it_was(moving):
    model, batch = ready(rates=(0.0, 1.0) if moving == "critic" else (1.0, 0.0))
    others = weights_of(model, "encoder", "attention", "decoder")
    critic = weights_of(model, "critic")
    step(model, batch)
    assert same(others, weights_of(model, "encoder", "attention", "decoder")) == (moving == "critic")
    assert same(critic, weights_of(model, "critic")) == (moving != "critic")


def test_there_is_one_critic():
    """Two would score the same pair differently: here E returns the real features exactly."""
    model, batch = ready()
    batch.inputs = np.tile(np.arange(1, 8, dtype=np.float32), (6, 1))
    set_weights(model, out=(np.zeros((8, 7)), batch.inputs[0]))
    losses = step(model, batch)
    np.testing.assert_allclose(losses["critic_loss"], model.config.beta * losses["penalty"], rtol=1e-5)
    assert losses["penalty"] > 1e-2
    assert sum(variable.path.startswith("critic") for variable in model.trainable_variables) == 4
    assert not {v.path for v in model.generator_variables} & {v.path for v in model.critic.trainable_variables}


@pytest.mark.parametrize("penalty", ["squared", "norm"])
def test_200_steps_on_features_that_are_half_zeros(penalty):
    benchmark = tiny()
    inputs = np.maximum(benchmark.inputs, 0)
    assert 0.3 < np.mean(inputs == 0) < 0.7
    inputs[benchmark.train[:8]] = 0
    config = Config(hidden=24, attention_dim=4, critic_hidden=16, learning_rate=0.003, penalty=penalty)
    model = ASPN.for_benchmark(dataclasses.replace(benchmark, inputs=inputs), config)
    model.compile()
    train_step = tf.function(model.train_step)
    generator = np.random.default_rng(0)
    for _ in range(200):
        rows = generator.choice(benchmark.train, 16, replace=False)
        losses = train_step((tf.constant(inputs[rows]), tf.constant(benchmark.labels[rows])))
    for name, value in losses.items():  # means over all steps: one that is not finite makes them so
        assert np.isfinite(value), name
    assert np.isfinite(model(inputs[:5])).all()


# Classes in the loss.


@pytest.mark.parametrize("overrides", [{}, {"context": "candidates"}, {"attention": False}], ids=str)
@pytest.mark.parametrize("classes", ["all", "seen"])
def test_unseen_classes_are_in_the_loss_or_not_read_at_all(classes, overrides):
    """An unseen class's embedding changes what a step learns with "all", and nothing at all with "seen"."""
    ends, losses = [], []
    for shift in (0.0, 0.3):
        benchmark = small()
        benchmark.class_embeddings[benchmark.unseen_classes[0], 1] += shift
        model = made(benchmark, rates=(0.1, 0.1), classes_in_loss=classes, **overrides)
        losses.append(step(model, batch_for(model, benchmark))["class_loss"])
        ends.append(weights_of(model))
    assert (losses[0] == losses[1]) == (classes == "seen")
    assert same(*ends) == (classes == "seen")


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("classes", ["all", "seen"])
def test_the_slope_of_the_class_loss_in_the_embeddings(classes, attention):
    benchmark = small()
    model = made(benchmark, classes_in_loss=classes, attention=attention)
    model.report = lambda **losses: losses  # the tensors themselves
    embeddings, batch, weights = model.class_embeddings.value, batch_for(model, benchmark), weights_of(model)
    model.noise = lambda shape: tf.constant(batch.noise, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        losses = model.train_step((tf.constant(batch.inputs), tf.constant(batch.labels)))
    got = np.array(tf.convert_to_tensor(tape.gradient(losses["class_loss"], embeddings)))
    assert np.abs(got[benchmark.seen_classes]).max(axis=1).min() > 1e-3
    if classes == "seen":
        assert not got[benchmark.unseen_classes].any()
        return
    assert np.abs(got[benchmark.unseen_classes]).max(axis=1).min() > 1e-3
    loss, every_place = lambda: expected_losses(weights, batch)["class_loss"], batch.classes.size
    assert_slopes(loss, batch.classes, got, count=every_place, rtol=1e-5, atol=1e-6)


# Replicas.

REPLICATED = {
    "row": {},
    "column": {"attention_axis": "column"},
    "several": {"critic_steps": 2, "penalty": "norm", "reduction": "sum", "classes_in_loss": "seen"},
}


def several_steps(strategy, name):
    """A model after four steps, and the losses of the first; noise that belongs to a row goes where the row goes."""
    generator, benchmark = np.random.default_rng(3), small()
    noise = generator.standard_normal((8, 2)).astype(np.float32)
    places = generator.random((8, 1)).astype(np.float32)

    def make():
        model = made(benchmark, rates=(0.02, 0.02), **REPLICATED[name])
        model.noise = lambda shape: harness.part_of_replica(noise)
        model.uniform = lambda shape: harness.part_of_replica(places)
        return model

    return harness.trained_under(strategy, make, harness.batches_of(benchmark, 4))


def numbered(model):
    return {str(number): variable for number, variable in enumerate(model.trainable_variables)}


@pytest.fixture(scope="module")
def on_two_replicas(tmp_path_factory):
    return arrays_of("tests.models.test_aspn", tmp_path_factory.mktemp("replicas"))


@pytest.mark.long
@pytest.mark.parametrize("name", REPLICATED)
def test_two_replicas_train_as_one(name, on_two_replicas):
    (one, _), before = several_steps(tf.distribute.get_strategy(), name), made()
    two = harness.saved_under(name, on_two_replicas)
    for number, variable in numbered(one).items():
        np.testing.assert_allclose(two[number], variable, rtol=0, atol=1e-5, err_msg=variable.path)
    for network in NETWORKS:  # otherwise the comparison could not fail
        ends = (keras.tree.flatten(weights_of(model, network)) for model in (one, before))
        assert max(np.abs(a - b).max() for a, b in zip(*ends, strict=True)) > 1e-3, network


# Signed features.


def trained(benchmark, epochs, **overrides):
    keras.utils.set_random_seed(0)
    model = ASPN.for_benchmark(benchmark, Config(**overrides))
    model.compile()
    run = run_of(benchmark, epochs=epochs)
    model.learn(run)
    return model, run.history


def test_centred_features_need_a_linear_output():
    benchmark = tiny()
    scale = {"scaling": "centred_l2", "theta": 0.0, **ASPN.ablations["baseline"]}
    sizes = {"hidden": 32, "noise_dim": 2, "learning_rate": 0.01, "batch_size": 32}
    losses = {}
    for activation in ("relu", "linear"):
        model, history = trained(benchmark, 15, visual_activation=activation, **scale, **sizes)
        losses[activation] = history[-1]["visual_loss"]
    features = model.scaling(benchmark.inputs[benchmark.train]).numpy()
    labels = benchmark.labels[benchmark.train]
    means = np.array([features[labels == c].mean(0) for c in benchmark.seen_classes])[labels]
    best = {"relu": np.mean((features - np.maximum(means, 0)) ** 2), "linear": np.mean((features - means) ** 2)}
    assert best["linear"] < 0.5 * best["relu"]
    assert losses["relu"] > 0.98 * best["relu"]
    assert losses["linear"] < (best["linear"] + best["relu"]) / 2


def unseen_accuracy(model, benchmark):
    """T: mean over unseen classes of the share of their pictures that are told from the other unseen ones."""
    unseen, rows = benchmark.unseen_classes, benchmark.test_unseen
    scores = model.score_classes(benchmark.inputs[rows], benchmark.class_embeddings[unseen])
    right = unseen[np.argmax(scores, axis=1)] == benchmark.labels[rows]
    return np.mean([right[benchmark.labels[rows] == c].mean() for c in unseen])


@pytest.mark.long
def test_features_rotated_to_their_principal_axes_are_learned_as_well(tmp_path):
    benchmark = benchmarks.load("shapes", tmp_path, "tune", "features")
    inputs = np.asarray(benchmark.inputs, np.float64)
    mean = inputs[benchmark.train].mean(0)
    axes = np.linalg.svd(inputs[benchmark.train] - mean, full_matrices=False)[2]
    rotated = dataclasses.replace(benchmark, inputs=((inputs - mean) @ axes.T).astype(np.float32))
    assert 0.4 < np.mean(rotated.inputs < 0) < 0.6
    config = {"hidden": 256, "attention_dim": 16, "critic_hidden": 64, "alpha": 0.1, "learning_rate": 0.001}
    config |= {"scaling": "centred_l2", "visual_activation": "linear", "similarity": "cosine", "decision": "cosine"}
    models = [(trained(data, 12, temperature=20.0, **config)[0], data) for data in (benchmark, rotated)]
    plain, turned = (unseen_accuracy(*pair) for pair in models)
    assert plain > 2 / len(benchmark.unseen_classes)
    assert turned > 0.9 * plain


# Divergence.


@pytest.mark.parametrize("side", ["optimizer", "critic_optimizer"])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(side, tmp_path):
    benchmark, path = tiny(), tmp_path / "seed0-final.npz"
    sizes = {"hidden": 24, "attention_dim": 4, "critic_hidden": 8, "batch_size": 32}  # 4 steps an epoch

    def run(epochs, *callbacks):
        model = ASPN.for_benchmark(benchmark, Config(**sizes))
        model.compile()
        return model, run_of(benchmark, path, epochs, callbacks)

    def absurd(epoch, logs=None):
        if epoch == 2:
            getattr(model, side).learning_rate = 1e30

    model, diverging = run(4, keras.callbacks.LambdaCallback(on_epoch_begin=absurd))
    with pytest.raises(Diverged) as caught:
        model.learn(diverging)
    sentence = r"(\w+) is not a finite number at step (\d+); the last good checkpoint is (.*)"
    found = re.fullmatch(sentence, str(caught.value))
    assert found and found[1] in model.losses_reported and found[3] == str(path)
    assert found[2] in ("9", "10")  # epoch 3 begins at 9
    model, resumed = run(3)
    model.learn(resumed)
    assert [state["epoch"] for state in resumed.history] == [1, 2, 3]
    assert resumed.history[:2] == diverging.history
    assert_finite(model)


def test_weights_that_are_no_numbers_are_never_the_last_good_checkpoint(tmp_path):
    """One step an epoch: its losses are those before the step, and still good when it breaks the weights."""
    benchmark, path = tiny(), tmp_path / "seed0-final.npz"
    sizes = {"hidden": 24, "critic_hidden": 8, "batch_size": 128, "attention": False}
    model = ASPN.for_benchmark(benchmark, Config(**sizes))
    model.compile()

    def absurd(epoch, logs=None):
        if epoch == 2:
            model.optimizer.learning_rate = float("nan")

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=absurd)
    with pytest.raises(Diverged):
        model.learn(run_of(benchmark, path, 5, [callback]))
    with np.load(path) as file:
        broken = [name for name in file.files if name.startswith("model/") and np.isnan(file[name]).any()]
    assert not broken


def test_an_absurd_learning_rate_stops_at_once(tmp_path):
    benchmark = tiny()
    config = Config(hidden=24, attention_dim=4, critic_hidden=8, batch_size=32, learning_rate=1e30)
    model = ASPN.for_benchmark(benchmark, config)
    model.compile()
    with pytest.raises(Diverged, match=r"is not a finite number at step [12]; no checkpoint yet"):
        model.learn(run_of(benchmark, tmp_path / "seed0-final.npz"))
    assert not list(tmp_path.iterdir())


# Config, ablations, sizes.


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("attention_axis", "row, column"),
        ("context", "fixed, candidates"),
        ("penalty", "squared, norm"),
        ("reduction", "mean, sum"),
        ("similarity", "dot, cosine, euclidean"),
        ("decision", "dot, cosine, euclidean"),
        ("classes_in_loss", "all, seen"),
    ],
)
def test_a_choice_that_does_not_exist_is_a_sentence(name, wanted):
    harness.assert_refuses(ASPNConfig, name, "none", f"one of {wanted}")


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5])
def test_alpha_lies_between_zero_and_one(alpha):
    harness.assert_refuses(ASPNConfig, "alpha", alpha, "more than 0 and less than 1")


@pytest.mark.parametrize("name", ASPN.ablations)
def test_each_ablation_trains_its_own_parts(name):
    """That the baseline follows theta L_cls + L_V alone is among the slopes of Eq. (9) above."""
    model, batch = ready(rates=(0.1, 0.1), **ASPN.ablations[name])
    trained = {
        "baseline": ["encoder"],
        "spn": ["encoder", "decoder", "critic"],
        "aspn": ["encoder", "decoder", "critic", "attention"],
    }[name]
    before = {network: keras.tree.flatten(weights_of(model, network)) for network in NETWORKS}
    assert len(model.trainable_variables) == sum(len(before[network]) for network in trained)
    step(model, batch)
    for network, values in before.items():
        after = keras.tree.flatten(weights_of(model, network))
        moved = [not np.array_equal(a, b) for a, b in zip(values, after, strict=True)]
        if network in trained:
            assert sum(moved) >= len(moved) - (network == "critic"), network  # the critic's last bias cancels
        else:
            assert not any(moved), network


@pytest.mark.parametrize("name", ASPN.ablations)
def test_each_ablation_holds_on_top_of_any_config(name):
    """The inference of embeddings classifies too here: the baseline has none to do it with."""
    model, batch = ready(**{"semantic_theta": 0.5, "semantic_decision": 0.5, **ASPN.ablations[name]})
    assert np.isfinite(list(step(model, batch).values())).all()
    before = model(batch.inputs).numpy()
    set_weights(model, decoder_semantics=np.ones((8, 3)))
    assert np.array_equal(model(batch.inputs), before) == (name == "baseline")


def test_dropout_is_of_training_alone():
    model, batch = ready(dropout=0.25, attention=False)
    s, z = (tf.constant(array, tf.float32) for array in (batch.s, batch.noise))
    drawn = np.random.default_rng(0).random((6, 8))
    model.uniform = lambda shape: tf.constant(drawn, tf.float32)
    h = reference.hidden(weights_of(model), batch.s, batch.noise) * (drawn >= 0.25) / 0.75
    wanted = np.maximum(reference.dense(h, *weights_of(model)["out"]), 0)
    np.testing.assert_allclose(model.encode(s, z, training=True), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model.encode(s, z), expected_encode(weights_of(model), model.config, batch.s, batch.noise), rtol=1e-5, atol=1e-6
    )


def test_f_and_g_can_be_as_wide_as_the_hidden_layer_as_printed():
    model = ASPN.for_benchmark(small(), Config(hidden=24, attention_dim=None, critic_hidden=16, scaling="l2"))
    assert model.f.kernel.shape == model.g.kernel.shape == (24, 24)


def test_the_sizes_of_awa_have_the_parameters_of_table_2():
    model = ASPN(Config(), (2048,), np.zeros((50, 85), np.float32), np.arange(50) < 40)
    assert model.noise_dim == 85  # |z|: the paper is silent
    count = {
        network: sum(layers_of(model)[name].count_params() for name in names) for network, names in NETWORKS.items()
    }
    assert count == {"encoder": 3_996_248, "attention": 810_000, "decoder": 3_994_370, "critic": 2_562_001}
    assert sum(v.numpy().size for v in model.trainable_variables) == sum(count.values()) + 1  # and alpha
    # 13.9 M in the paper: the predecessor's code has a critic for real pairs and another for generated ones.
    assert round((sum(count.values()) + count["critic"]) / 1e6, 3) == 13.925


if __name__ == "__main__":
    harness.save_from_two_replicas(several_steps, REPLICATED, numbered)
