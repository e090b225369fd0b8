"""How long a stage will take, and where a limit ends it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.support.tiny import tiny
from tests.training.test_loop import TINY, judge, made
from zslkeras.models import MODELS
from zslkeras.models.conditioning import Setting
from zslkeras.training import clock
from zslkeras.training.clock import Clock
from zslkeras.training.loop import Run, Verdict


class Time:
    """Stands for the module time: passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    made = Time()
    monkeypatch.setattr(clock, "time", made)
    return made


def step(time, clock, seconds, steps=10, epochs=5):
    time.now += seconds
    return clock.stepped(steps, epochs)


def test_what_is_expected_is_steps_and_judging_without_the_first_step_which_compiles(time):
    one = Clock()
    one.judged(4.0)
    told = [step(time, one, seconds) for seconds in (30.0, 1.0, 2.0, 3.0, 50.0)]
    assert told == [False, False, False, True, False]
    assert one.expected == pytest.approx(36.0 + 5 * (10 * 2.0 + 4.0))
    assert not one.over


@pytest.mark.parametrize(("limit", "over"), [(56.0, False), (55.9, True)])
def test_an_epoch_that_ends_at_the_limit_still_fits(limit, over, time):
    one = Clock(limit, spent=30.0)
    for seconds in (3.0, 1.0, 1.0, 1.0):
        step(time, one, seconds, steps=20)
    assert one.over is over  # 36 s are spent, and an epoch takes 20


def test_the_longest_epoch_counts(time):
    one = Clock(100.0)
    for seconds in (20.0, 40.0, 10.0):
        one.ended(seconds)
    time.now += 60.0
    assert not one.over
    time.now += 0.1
    assert one.over


def run_with(limit, path=None, epochs=4, expect=None, **config):
    model = made(**config)
    run = Run(TINY, tf.distribute.get_strategy(), judge, 0, path, epochs, limit=limit, expect=expect)
    model.learn(run)
    return run


def test_without_time_there_is_one_epoch_all_the_same():
    assert len(run_with(1e-6).history) == 1


def test_with_time_nothing_changes_and_what_is_expected_is_told_once():
    told = []
    assert run_with(1e6, expect=told.append).history == run_with(None).history
    assert len(told) == 1 and told[0] > 0


def test_the_time_before_a_kill_counts(tmp_path):
    run_with(1e6, tmp_path / "run.npz", epochs=2)
    with np.load(tmp_path / "run.npz") as file:
        assert b'"seconds": ' in file["state"].tobytes()
    assert len(run_with(1e-3, tmp_path / "run.npz").history) == 2  # more was spent before


def test_what_expect_raises_ends_the_training():
    def refuse(seconds):
        raise RuntimeError(f"{seconds > 0}")

    with pytest.raises(RuntimeError, match="True"):
        run_with(None, expect=refuse)


def test_a_closed_form_is_kept_where_no_epoch_fits():
    benchmark = tiny("maps")
    model = MODELS["jlaf"].for_benchmark(benchmark, _small_jlaf())
    model.compile()
    states = []

    def remember(model, state):
        states.append(model.score_classes(tf.constant(benchmark.take(benchmark.train[:4])), model.class_embeddings))
        return Verdict({}, 0.0, {"scores": states[-1].numpy()})

    run = Run(benchmark, tf.distribute.get_strategy(), remember, 0, limit=1e-6)
    model.learn(run)
    assert len(run.history) == 1 and run.best == 0
    np.testing.assert_array_equal(run.start["scores"], states[0])


def _small_jlaf():
    known = dataclasses.asdict(Setting("l2", 1.0, "l2", 0.0, 0.1))
    settings = {f"closed_form_{name}": value for name, value in known.items()}
    return MODELS["jlaf"].Config(**settings, region_scaling="none", embedding_scaling="none", batch_size=16)
