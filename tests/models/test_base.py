"""What all models inherit: noise, decisions, averaged gradients, the names of losses."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support.example import Example, ExampleConfig
from tests.support.tiny import tiny
from zslkeras import protocol
from zslkeras.evaluation import metrics


def example(seed=0, **config):
    model = Example.for_benchmark(tiny(), ExampleConfig(**config), seed)
    model.compile()
    return model


@pytest.mark.parametrize("draw", ["noise", "uniform"])
def test_noise_follows_the_seed_and_the_number_of_the_draw(draw):
    one, same, other = (getattr(example(seed), draw) for seed in (3, 3, 4))
    first, second = one([5, 2]), one([5, 2])
    np.testing.assert_array_equal(same([5, 2]), first)
    np.testing.assert_array_equal(same([5, 2]), second)
    for different in (second, other([5, 2])):
        assert (np.abs(first - different) > 1e-6).all()


def test_noise_goes_on_from_the_draw_that_is_saved():
    one, resumed = example(), example()
    one.noise([5])
    resumed.set_weights(one.get_weights())
    np.testing.assert_array_equal(resumed.noise([5]), one.noise([5]))


def test_noise_is_standard_normal_and_uniform_lies_between_0_and_1():
    normal, uniform = example().noise([20_000]).numpy(), example().uniform([20_000]).numpy()
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03
    assert abs(np.mean(np.abs(normal) < 1) - 0.683) < 0.02
    assert 0 <= uniform.min() < 0.001 and 0.999 < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01


def test_units_are_kept_with_the_chance_of_their_rate_by_one_draw():
    one, same = example(seed=3), example(seed=3)
    kept = one.kept([20_000], 0.3)
    np.testing.assert_array_equal(kept, same.uniform([20_000]) >= 0.3)
    assert kept.dtype == bool and abs(np.mean(kept) - 0.7) < 0.01 and one.draws == same.draws == 1


@pytest.mark.parametrize("gamma", [-0.25, 0.0, 0.25, 0.5])
def test_decide_is_the_rule_of_the_evaluation(gamma):
    """On a coarse grid of scores, where ties abound."""
    scores = np.random.default_rng(0).integers(-4, 5, (200, 12)).astype(np.float32) / 4
    benchmark = tiny()
    got = example().decide(tf.constant(scores), None, benchmark.seen_mask, gamma)
    expected = metrics.decide(scores, ~benchmark.seen_mask, gamma)
    np.testing.assert_array_equal(got, expected)
    assert 0.02 < np.mean(expected >= 8) < 0.98


def test_decide_among_classes_of_one_kind():
    """Only unseen candidates, and only seen ones."""
    scores = tf.constant([[1.0, 3.0, 2.0]])
    assert example().decide(scores, None, [False] * 3, 0.0).numpy() == [1]
    assert example().decide(scores, None, [True] * 3, 5.0).numpy() == [1]


def test_a_models_own_answers_among_the_seen_count_and_change_no_unseen_decision():
    """In `decide` and in what the recipe judges by."""
    benchmark = tiny()

    class Stubborn(Example):
        def seen_answers(self, scores, inputs, seen_mask):
            return tf.fill([tf.shape(scores)[0]], np.int64(5))

    plain, stubborn = (model.for_benchmark(benchmark, ExampleConfig()) for model in (Example, Stubborn))
    scores = tf.constant(np.random.default_rng(0).standard_normal((50, 12)), tf.float32)
    without, got = (model.decide(scores, None, benchmark.seen_mask, 0.2).numpy() for model in (plain, stubborn))
    np.testing.assert_array_equal(got, np.where(without < 8, 5, without))
    assert 5 < np.sum(without < 8) < 45
    stubborn.set_weights(plain.get_weights())
    before, after = (protocol._judge(benchmark, None, ())(model, 0) for model in (plain, stubborn))
    np.testing.assert_array_equal(after.arrays["flip"], before.arrays["flip"])
    assert set(after.arrays["best_seen"]) == {5} != set(before.arrays["best_seen"])


def test_reported_losses_are_means_and_start_anew():
    model = example()
    model.report(loss=tf.constant(1.0))
    assert float(model.report(loss=tf.constant(4.0))["loss"]) == 2.5
    model.reset_metrics()
    assert float(model.report(loss=tf.constant(4.0))["loss"]) == 4.0
    with pytest.raises(tf.errors.InvalidArgumentError, match="entropy : Tensor had NaN"):
        model.report(entropy=tf.constant(float("nan")))
