"""Bootstrap intervals and paired comparisons against loops over their definitions."""

import dataclasses
import time

import numpy as np
import pytest

from tests.evaluation.test_metrics import HAND_LABELS, HAND_SCORES, random_case, two_classes
from zslkeras.evaluation import metrics, uncertainty
from zslkeras.evaluation.metrics import METRICS, Outcomes


def with_accuracies(accuracies, rows=10, num_seen=2):
    """`Outcomes` whose classes are right as often as given, at every finite gamma; the first `num_seen` are seen."""
    labels = np.repeat(np.arange(len(accuracies)), rows)
    right = np.concatenate([np.arange(rows) < round(a * rows) for a in accuracies])
    seen, unseen = np.arange(num_seen), np.arange(num_seen, len(accuracies))
    home, size = np.where(labels < num_seen, 0, num_seen), np.where(labels < num_seen, num_seen, len(unseen))
    best = np.where(right, labels, home + (labels - home + 1) % size)  # a wrong row goes to its group's next class
    is_seen = labels < num_seen
    return Outcomes(
        labels=labels,
        best_seen=np.where(is_seen, best, 0),
        best_unseen=np.where(is_seen, num_seen, best),
        flip=np.where(is_seen, 100.0, -100.0),
        seen=seen,
        unseen=unseen,
    )


def test_row_intervals_equal_the_binomial():
    outcomes = with_accuracies([0.9, 0.5, 0.7, 0.2, 0.4], rows=200)
    result = uncertainty.intervals(outcomes, 0.0, resamples=4000)["rows"]
    for name, group in {"S": np.array([0.9, 0.5]), "T": np.array([0.7, 0.2, 0.4])}.items():
        spread = 1.96 * np.sqrt(np.sum(group * (1 - group) / 200)) / len(group)
        np.testing.assert_allclose(result[name], group.mean() + np.array([-spread, spread]), atol=0.1 * spread)


def test_row_intervals_cover_the_truth():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        accuracies = rng.binomial(40, [0.8, 0.6, 0.7, 0.3, 0.5]) / 40
        low, high = uncertainty.intervals(with_accuracies(accuracies, rows=40), 0.0, 300, seed=trial)["rows"]["T"]
        covered += low <= 0.5 <= high
    assert 180 <= covered <= 198  # 95 % of 200, two standard errors and a little for the percentile method


def noisy_outcomes(seed, num_rows=300, num_classes=10, num_unseen=4):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, num_rows - num_classes)])
    scores = rng.normal(size=(num_rows, num_classes))
    scores[np.arange(num_rows), labels] += np.linspace(0.5, 3, num_classes)[rng.permutation(num_classes)][labels]
    return metrics.outcomes(scores, labels, np.arange(num_unseen, num_classes), np.arange(num_unseen))


def test_row_intervals_equal_a_bootstrap_with_loops():
    outcomes, rng = noisy_outcomes(1), np.random.default_rng(1)
    drawn = {name: [] for name in METRICS}
    for _ in range(1500):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(outcomes.labels == c), sum(outcomes.labels == c)) for c in range(10)]
        )
        fields = {name: getattr(outcomes, name)[rows] for name in ("labels", "best_seen", "best_unseen", "flip")}
        for name, value in metrics.numbers(dataclasses.replace(outcomes, **fields), 0.3).items():
            drawn[name].append(value)
    result = uncertainty.intervals(outcomes, 0.3, resamples=3000)["rows"]
    for name in METRICS:
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        np.testing.assert_allclose(result[name], [low, high], atol=0.1 * (high - low))


def test_class_intervals_equal_a_bootstrap_of_per_class_tables():
    outcomes, rng = noisy_outcomes(2), np.random.default_rng(2)
    table = metrics.per_class(outcomes, 0.3)
    area = np.zeros((4, 6))  # by unseen and seen class: the share of row pairs, right in their groups, in flip order
    for u in range(4):
        for s in range(4, 10):
            rows_u, rows_s = np.flatnonzero(outcomes.labels == u), np.flatnonzero(outcomes.labels == s)
            right = [
                (i, j) for i in rows_u for j in rows_s if outcomes.best_unseen[i] == u and outcomes.best_seen[j] == s
            ]
            area[u, s - 4] = sum(outcomes.flip[i] < outcomes.flip[j] for i, j in right) / (len(rows_u) * len(rows_s))
    assert area.mean() == pytest.approx(metrics.numbers(outcomes, 0.3)["AUSUC"])
    drawn = {name: [] for name in ("T", "U", "S", "H", "AUSUC")}
    for _ in range(4000):
        u, s = rng.integers(0, 4, 4), rng.integers(0, 6, 6)
        U, S = table["U"][u].mean(), table["S"][s].mean()
        values = (table["T"][u].mean(), U, S, 2 * U * S / (U + S), area[np.ix_(u, s)].mean())
        for name, value in zip(drawn, values, strict=True):
            drawn[name].append(value)
    result = uncertainty.intervals(outcomes, 0.3, resamples=4000)["classes"]
    for name, values in drawn.items():
        low, high = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose(result[name], [low, high], atol=0.1 * (high - low))


def test_class_intervals_are_wider_when_classes_differ_and_points_when_they_do_not():
    result = uncertainty.intervals(with_accuracies([1, 0.1, 1, 0, 0.9, 0.2], rows=100), 0.0)
    for name in "TUSH":
        assert np.ptp(result["classes"][name]) > 3 * np.ptp(result["rows"][name])
    result = uncertainty.intervals(with_accuracies([0.5] * 6, rows=100), 0.0)
    assert np.ptp(result["classes"]["T"]) < 1e-12 < np.ptp(result["rows"]["T"])


def test_intervals_hold_the_point_estimate_and_follow_the_seed():
    outcomes = noisy_outcomes(4)
    first, again, other = (uncertainty.intervals(outcomes, 0.2, 200, seed=seed) for seed in (7, 7, 8))
    assert first == again != other
    point = metrics.numbers(outcomes, 0.2)
    for kind in ("rows", "classes"):
        assert list(first[kind]) == list(METRICS)
        assert all(low <= point[name] <= high for name, (low, high) in first[kind].items())
    narrow = uncertainty.intervals(outcomes, 0.2, 200, seed=7, level=0.5)
    assert np.ptp(narrow["rows"]["T"]) < np.ptp(first["rows"]["T"])


def test_intervals_do_not_depend_on_the_order_of_rows_beyond_chance():
    outcomes = noisy_outcomes(4)
    order = np.random.default_rng(0).permutation(len(outcomes.labels))
    fields = {name: getattr(outcomes, name)[order] for name in ("labels", "best_seen", "best_unseen", "flip")}
    shuffled = dataclasses.replace(outcomes, **fields)
    one, two = (uncertainty.intervals(o, 0.2, 300)["classes"] for o in (outcomes, shuffled))
    for name in METRICS:  # the same classes are drawn, so the same numbers
        np.testing.assert_allclose(one[name], two[name], atol=1e-12)


def test_one_class_a_group_does_not_crash():
    outcomes = metrics.outcomes(*two_classes([4, 5], [0, 4.5]))
    result = uncertainty.intervals(outcomes, 2.0, resamples=20)
    assert result["classes"]["U"] == [0.5, 0.5]
    compared = uncertainty.versus([([(outcomes, 2.0)], [(outcomes, 0.0)])], resamples=20)
    assert compared["U"] == {
        "difference": 0.5,
        "interval": [0.5, 0.5],
        "classes_won": 1,
        "classes_lost": 0,
        "classes": 1,
    }


def test_versus_by_hand():
    model = [(with_accuracies([1.0, 0.5, 0.8, 0.4, 0.6]), 0.0), (with_accuracies([0.8, 0.5, 0.6, 0.4, 0.8]), 0.0)]
    baseline = [(with_accuracies([0.8, 0.7, 0.5, 0.4, 0.9]), 0.0)]
    result = uncertainty.versus([(model, baseline)])
    # means over seeds: seen 0.9 0.5, unseen 0.7 0.4 0.7; differences: seen 0.1 -0.2, unseen 0.2 0 -0.2
    for name in "TU":
        assert result[name]["difference"] == pytest.approx(0.0)
        assert [result[name][key] for key in ("classes_won", "classes_lost", "classes")] == [1, 1, 3]
        np.testing.assert_allclose(result[name]["interval"], [-0.4 / 3, 0.4 / 3], atol=0.07)
    assert result["S"]["difference"] == pytest.approx(-0.05)
    np.testing.assert_allclose(result["S"]["interval"], [-0.2, 0.1])  # both draws of one class are a quarter each
    assert result["H"]["difference"] == pytest.approx(2 * 0.6 * 0.7 / 1.3 - 2 * 0.6 * 0.75 / 1.35)
    assert [result["H"][key] for key in ("classes_won", "classes_lost", "classes")] == [2, 2, 5]


def test_versus_takes_rounding_for_a_draw():
    model = [(with_accuracies([a] * 4), 0.0) for a in (0.1, 0.2, 0.3)]  # their float mean is above 0.2
    result = uncertainty.versus([(model, [(with_accuracies([0.2] * 4), 0.0)])])
    assert result["H"]["classes_won"] == result["H"]["classes_lost"] == 0


def test_versus_is_zero_for_the_same_and_antisymmetric():
    one, two = (metrics.outcomes(*random_case(9, 60)), 0.0), (metrics.outcomes(*random_case(9, 60)), 0.5)
    same = uncertainty.versus([([one], [one])])
    assert all(v["difference"] == 0 and v["interval"] == [0, 0] and not v["classes_won"] for v in same.values())
    there, back = uncertainty.versus([([one], [two])]), uncertainty.versus([([two], [one])])
    assert there["U"]["difference"] != 0
    for name in "TUSH":
        np.testing.assert_allclose(there[name]["difference"], -back[name]["difference"], atol=1e-12)
        np.testing.assert_allclose(there[name]["interval"], -np.array(back[name]["interval"][::-1]), atol=1e-12)
        assert there[name]["classes_won"] == back[name]["classes_lost"]
        assert there[name]["classes"] == back[name]["classes"]


def test_versus_sees_a_steady_gain_through_differing_classes():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 91, 25) / 100  # from 0 to 90 %: unpaired intervals would overlap
    baseline, model = with_accuracies(base, 100, 5), with_accuracies(base + 0.1, 100, 5)
    result = uncertainty.versus([([(model, 0.0)], [(baseline, 0.0)])])
    for name in "TUS":
        np.testing.assert_allclose(result[name]["interval"], [0.1, 0.1])
        assert result[name]["classes_won"] == result[name]["classes"]
    assert result["H"]["interval"][0] > 0.05
    high = uncertainty.intervals(baseline, 0.0)["classes"]["T"][1]
    assert high > uncertainty.intervals(model, 0.0)["classes"]["T"][0]


def test_versus_pools_folds():
    first = (with_accuracies([0.5, 0.5, 0.6, 0.8]), with_accuracies([0.5, 0.5, 0.5, 0.5]))
    second = (with_accuracies([0.9, 0.7, 0.2, 0.4, 0.6]), with_accuracies([0.5, 0.5, 0.5, 0.4, 0.6]))
    folds = [([(model, 0.0)], [(baseline, 0.0)]) for model, baseline in (first, second)]
    result = uncertainty.versus(folds)
    assert result["T"]["difference"] == pytest.approx((0.1 + 0.3 - 0.3 + 0 + 0) / 5)  # over classes, not over folds
    assert result["S"]["difference"] == pytest.approx((0 + 0 + 0.4 + 0.2) / 4)
    alone = [uncertainty.versus([fold])["H"]["difference"] for fold in folds]
    assert result["H"]["difference"] == pytest.approx(np.mean(alone))
    assert [result["H"][key] for key in ("classes_won", "classes_lost", "classes")] == [4, 1, 9]
    one, three = uncertainty.versus(folds[1:]), uncertainty.versus(folds[1:] * 3)
    assert one["T"]["difference"] == pytest.approx(three["T"]["difference"])
    ratio = np.ptp(one["T"]["interval"]) / np.ptp(three["T"]["interval"])
    assert ratio == pytest.approx(np.sqrt(3), rel=0.15)


def test_versus_leaves_out_classes_without_rows():
    outcomes = metrics.outcomes(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4])
    result = uncertainty.versus([([(outcomes, 1.5)], [(outcomes, 0.0)])])
    assert [result[name]["classes"] for name in "TUSH"] == [2, 2, 2, 4]
    assert [result[name]["classes_won"] for name in "TUSH"] == [0, 1, 0, 1]
    differences = [0, 0.125, 0, 2 * 0.875 * 0.75 / 1.625 - 0.75]
    np.testing.assert_allclose([result[name]["difference"] for name in "TUSH"], differences, atol=1e-12)


def test_versus_wants_the_same_rows():
    outcomes = metrics.outcomes(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4])
    other = dataclasses.replace(outcomes, labels=outcomes.labels[::-1])
    with pytest.raises(ValueError, match="differ in labels"):
        uncertainty.versus([([(outcomes, 0.0)], [(other, 0.0)])])


def test_groups_without_rows_are_nan_without_warnings(recwarn):
    scores = np.random.default_rng(0).normal(size=(6, 4))
    for labels, alive in (([0, 1] * 3, {"S", "S0"}), ([2, 3] * 3, {"T", "U", "U0"})):
        outcomes = metrics.outcomes(scores, labels, [0, 1], [2, 3])
        for interval in uncertainty.intervals(outcomes, 0.1, resamples=50).values():
            assert {name for name, ends in interval.items() if not np.isnan(ends).any()} == alive
        compared = uncertainty.versus([([(outcomes, 0.1)], [(outcomes, 0.0)])])
        assert {name for name, value in compared.items() if not np.isnan(value["difference"])} == alive & set("TUS")
    assert not recwarn.list


def test_speed():
    """More rows than any benchmark has. The bound allows for a busy machine."""
    rng = np.random.default_rng(0)
    scores = rng.random((100_000, 40), np.float32)
    outcomes = metrics.outcomes(scores, rng.integers(0, 40, 100_000), np.arange(8, 40), np.arange(8))
    start = time.perf_counter()
    uncertainty.intervals(outcomes, 0.0, resamples=100)
    spent = time.perf_counter() - start
    print(f"100 resamples {spent:.2f} s")
    assert spent < 8
