"""The numbers against hand-worked tables and slow references: loops over the definitions, in exact fractions."""

import dataclasses
import time
from fractions import Fraction

import numpy as np
import pytest

from zslkeras import evaluation
from zslkeras.evaluation import METRICS, Outcomes


def slow_decide(row, seen, unseen, gamma):
    best, best_score = None, None
    for group, bonus in ((sorted(seen), 0), (sorted(unseen), gamma)):  # seen first: a tie stays with the earlier one
        for c in group:
            score = Fraction(float(row[c])) + bonus
            if best is None or score > best_score:
                best, best_score = c, score
    return best


def slow_accuracy(predicted, labels, classes):
    """Mean over the classes that have rows, as a fraction; None without any."""
    accuracies = []
    for c in classes:
        hits = [p == c for p, label in zip(predicted, labels, strict=True) if label == c]
        if hits:
            accuracies.append(Fraction(sum(hits), len(hits)))
    return sum(accuracies) / len(accuracies) if accuracies else None


def slow_point(scores, labels, seen, unseen, gamma):
    predicted = [slow_decide(row, seen, unseen, gamma) for row in scores]
    return slow_accuracy(predicted, labels, seen), slow_accuracy(predicted, labels, unseen)


def slow_harmonic(U, S):
    return 2 * U * S / (U + S) if U + S else Fraction(0)


def slow_curve(scores, labels, seen, unseen):
    """[(low, high, S, U)] for every interval between neighbouring differences of any seen and any unseen score."""
    breaks = {Fraction(float(row[s])) - Fraction(float(row[u])) for row in scores for s in seen for u in unseen}
    edges = [min(breaks) - 2, *sorted(breaks), max(breaks) + 2]
    return [
        (low, high, *slow_point(scores, labels, seen, unseen, (low + high) / 2))
        for low, high in zip(edges, edges[1:], strict=False)
    ]


def slow_ausuc(curve):
    area = Fraction(0)
    for (_, _, S, U), (_, _, next_S, next_U) in zip(curve, curve[1:], strict=False):
        area += (S - next_S) * (U + next_U) / 2
    return area


def slow_best_gamma(curve):
    merged = []  # neighbouring intervals with the same S and U are one interval
    for low, high, S, U in curve:
        if merged and merged[-1][2:] == (S, U):
            low = merged.pop()[0]
        merged.append((low, high, S, U))
    best = max(slow_harmonic(U, S) for _, _, S, U in merged)
    if best == 0:
        return 0, best
    middles = [(low + high) / 2 for low, high, S, U in merged if slow_harmonic(U, S) == best]
    return min(middles, key=abs), best


def random_case(seed, num_rows=14):
    """Scores on a coarse grid, so ties and equal flips abound; ids interleave; some classes have no rows."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(3, 8))
    order = rng.permutation(num_classes)
    split = int(rng.integers(1, num_classes))
    seen, unseen = order[:split], order[split:]
    labels = rng.integers(0, num_classes, num_rows)
    labels[:2] = seen[0], unseen[0]
    scores = rng.integers(-6, 7, (num_rows, num_classes)) / 4
    scores[np.arange(num_rows), labels] += rng.integers(0, 6, num_rows) / 4
    return scores.astype(np.float32), labels, seen, unseen


def two_classes(seen_flips, unseen_flips):
    """One seen class (0) and one unseen class (1), rows given by their flips."""
    flips = np.array([*seen_flips, *unseen_flips], float)
    labels = np.repeat([0, 1], [len(seen_flips), len(unseen_flips)])
    return np.stack([flips, np.zeros(len(flips))], axis=1), labels, [0], [1]


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


# Classes 0 and 1 are seen; 2, 3 and 4 unseen, and 4 has no rows.
HAND_LABELS = np.array([0] * 8 + [1] * 2 + [2] * 4 + [3])
HAND_SCORES = np.array(
    [[9, 0, 1, 2, 3]] * 8
    + [[0, 9, 1, 2, 3], [9, 8, 1, 2, 3]]  # class 1: right, taken by 0
    + [[0, 0, 5, 1, 1], [0, 0, 5, 1, 1], [6, 0, 5, 1, 1], [0, 0, 1, 5, 1]]  # class 2: right, right, seen wins by 1, 3
    + [[0, 0, 1, 5, 2]],
    float,
)


def test_hand_worked_table_with_imbalance_and_an_absent_class():
    result = evaluation.evaluate(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4])
    assert list(result) == list(METRICS)
    assert result["T"] == (3 / 4 + 1) / 2  # 4 of 5 rows would be 0.8
    assert result["U"] == result["U0"] == (2 / 4 + 1) / 2
    assert result["S"] == result["S0"] == (8 / 8 + 1 / 2) / 2  # 9 of 10 rows would be 0.9
    assert result["H"] == result["H0"] == 0.75
    result = evaluation.evaluate(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4], gamma=1.5)
    assert (result["U"], result["U0"], result["S"]) == (0.875, 0.75, 0.75)
    assert result["H"] == pytest.approx(2 * 0.875 * 0.75 / 1.625)
    table = evaluation.per_class(evaluation.outcomes(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4]), 0.0)
    np.testing.assert_array_equal(table["T"], [0.75, 1, np.nan])
    np.testing.assert_array_equal(table["U"], [0.5, 1, np.nan])
    np.testing.assert_array_equal(table["S"], [1, 0.5])


def test_confusion_counts_unseen_decisions():
    outcomes = evaluation.outcomes(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4])
    np.testing.assert_array_equal(evaluation.confusion(outcomes), [[3, 1, 0], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("row", "gamma", "expected"),
    [
        ([2, 2, 0, 0], 0.0, 0),  # seen with seen: the lower id
        ([0, 0, 2, 2], 0.0, 2),  # unseen with unseen: the lower id
        ([0, 2, 2, 0], 0.0, 1),  # seen with unseen: seen
        ([0, 3, 2, 0], 1.0, 1),  # a tie that gamma makes: seen
        ([0, 3, 2, 0], np.nextafter(1.0, 2), 2),
        ([0, 1, 2, 0], -1.0, 1),
        ([0, 1, 2, 0], np.nextafter(-1.0, 0), 2),
    ],
)
def test_ties(row, gamma, expected):
    scores = np.array([row], np.float32)
    assert evaluation.decide(scores, [False, False, True, True], gamma) == [expected]
    assert evaluation.outcomes(scores, [0], [1, 0], [3, 2]).decisions(gamma) == [expected]


def test_a_tie_goes_to_the_seen_class_whatever_the_ids():
    assert evaluation.decide(np.ones((1, 3), np.float32), [True, False, True]) == [1]


@pytest.mark.parametrize("seed", range(40))
def test_random_cases_equal_the_slow_reference(seed):
    scores, labels, seen, unseen = random_case(seed)
    outcomes = evaluation.outcomes(scores, labels, seen, unseen)
    curve = slow_curve(scores, labels, seen, unseen)
    for gamma in (-0.75, 0.0, 0.3, 1.25):
        result = evaluation.numbers(outcomes, gamma)
        S, U = slow_point(scores, labels, seen, unseen, Fraction(gamma))
        T = slow_accuracy([slow_decide(row, [], unseen, 0) for row in scores], labels, unseen)
        S0, U0 = slow_point(scores, labels, seen, unseen, Fraction(0))
        expected = [T, U, S, slow_harmonic(U, S), U0, S0, slow_harmonic(U0, S0), slow_ausuc(curve)]
        np.testing.assert_allclose([result[name] for name in METRICS], np.array(expected, float), atol=1e-12)
    gamma, harmonic = evaluation.best_gamma(outcomes)
    expected_gamma, expected_harmonic = slow_best_gamma(curve)
    assert harmonic == pytest.approx(float(expected_harmonic), abs=1e-12)
    assert abs(gamma) == pytest.approx(abs(float(expected_gamma)), abs=1e-12)  # -g and g may tie
    assert harmonic == evaluation.numbers(outcomes, gamma)["H"]


@pytest.mark.parametrize("seed", range(20))
def test_decide_agrees_with_outcomes_at_and_between_break_points(seed):
    rng = np.random.default_rng(seed)
    scores = (rng.normal(size=(30, 6)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
    unseen_mask = np.array([True, False, False, True, False, True])
    outcomes = evaluation.outcomes(
        scores, rng.integers(0, 6, 30), np.flatnonzero(~unseen_mask), np.flatnonzero(unseen_mask)
    )
    breaks = np.sort(outcomes.flip)
    for gamma in [*breaks, *np.nextafter(breaks, np.inf), *np.nextafter(breaks, -np.inf)]:
        np.testing.assert_array_equal(evaluation.decide(scores, unseen_mask, gamma), outcomes.decisions(gamma))
    for gamma in [breaks[0] - 1, *(breaks[:-1] + breaks[1:]) / 2, breaks[-1] + 1]:
        naive = (scores.astype(np.float64) + gamma * unseen_mask).argmax(axis=1)
        np.testing.assert_array_equal(evaluation.decide(scores, unseen_mask, gamma), naive)
    for row, gamma in enumerate(outcomes.flip):
        assert not unseen_mask[outcomes.decisions(gamma)[row]]
        assert unseen_mask[outcomes.decisions(np.nextafter(gamma, np.inf))[row]]


def test_gamma_limits():
    for seed in range(10):
        scores, labels, seen, unseen = random_case(seed)
        high = evaluation.evaluate(scores, labels, seen, unseen, gamma=np.inf)
        assert high["S"] == 0 and high["U"] == high["T"]
        assert evaluation.evaluate(scores, labels, seen, unseen, gamma=1e9)["U"] == high["T"]
        assert evaluation.evaluate(scores, labels, seen, unseen, gamma=-np.inf)["U"] == 0
        assert evaluation.evaluate(scores, labels, seen, unseen, gamma=-1e9)["H"] == 0


@pytest.mark.parametrize(
    ("seen_flips", "unseen_flips", "area"),
    [
        ([1, 3], [2, 3], 0.375),  # (1,0) (.5,0) (.5,.5) (0,1): the last step is diagonal
        ([2, 2], [1, 1], 1.0),  # every unseen row flips first
        ([1], [1], 0.5),
        ([1, 2], [3], 0.0),
    ],
)
def test_ausuc_by_hand(seen_flips, unseen_flips, area):
    assert evaluation.evaluate(*two_classes(seen_flips, unseen_flips))["AUSUC"] == pytest.approx(area)


def test_ausuc_weighs_classes_and_not_rows():
    scores = [[1, 0, 0]] * 9 + [[-1, -2, 0]] * 9 + [[0, 2, 1]]  # class 1 (one row) beats 0, its flip is 1
    labels = [0] * 9 + [2] * 9 + [1]
    # Unseen rows flip at -1. Class 0's nine rows and class 1's only row are worth one half each.
    assert evaluation.evaluate(scores, labels, [0, 1], [2])["AUSUC"] == pytest.approx(1.0)
    scores[-1] = [2, 1, 1]  # class 1 is now wrong among the seen: its half is lost, not a tenth
    assert evaluation.evaluate(scores, labels, [0, 1], [2])["AUSUC"] == pytest.approx(0.5)


def test_best_gamma_by_hand():
    # H is 1 for 1 < gamma <= 4
    assert evaluation.best_gamma(evaluation.outcomes(*two_classes([4, 5], [0, 1]))) == (2.5, 1.0)
    # H is 2/3 for -1 < gamma <= 0 (S 1, U 1/2) and for 3 < gamma <= 5 (S 1/2, U 1): the middle nearest 0
    assert evaluation.best_gamma(evaluation.outcomes(*two_classes([0, 5], [-1, 3]))) == (-0.5, pytest.approx(2 / 3))
    # mirrored: the nearer interval is the second
    assert evaluation.best_gamma(evaluation.outcomes(*two_classes([-3, 1], [-5, 0]))) == (0.5, pytest.approx(2 / 3))
    # nothing helps
    assert evaluation.best_gamma(evaluation.outcomes(*two_classes([1, 2], [3]))) == (0.0, 0.0)


def test_best_gamma_is_not_swayed_by_rounding():
    # two intervals have the same H as fractions, but not as float sums of tenths or ninths
    cases = [
        ([-9, -4, 0, 2, 3, 3, 3, 5, 5, 7], [-9, -7, -7, -6, -4, -3, 2, 2, 5, 8]),
        ([-8, -5, -5, -5, -3, 0, 3, 5, 9], [-6, -5, -3, -1, 1, 2, 3, 5, 5]),
    ]
    for seen_flips, unseen_flips in cases:
        case = two_classes(seen_flips, unseen_flips)
        gamma, harmonic = slow_best_gamma(slow_curve(*case))
        assert evaluation.best_gamma(evaluation.outcomes(*case)) == (float(gamma), pytest.approx(float(harmonic)))


def test_best_gamma_between_neighbouring_floats_is_inside():
    low, high = 1.0, np.nextafter(1.0, 2)
    outcomes = evaluation.outcomes(*two_classes([high], [low]))
    assert evaluation.best_gamma(outcomes) == (high, 1.0)


def test_groups_without_rows_are_nan_without_warnings(recwarn):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 4))
    for labels, alive in (([0, 1] * 3, {"S", "S0"}), ([2, 3] * 3, {"T", "U", "U0"})):
        outcomes = evaluation.outcomes(scores, labels, [0, 1], [2, 3])
        result = evaluation.numbers(outcomes, 0.1)
        assert {name for name, value in result.items() if not np.isnan(value)} == alive
        for interval in evaluation.intervals(outcomes, 0.1, resamples=50).values():
            assert {name for name, ends in interval.items() if not np.isnan(ends).any()} == alive
        gamma, H = evaluation.best_gamma(outcomes)
        assert gamma == 0.0 and np.isnan(H)
        compared = evaluation.versus([([(outcomes, 0.1)], [(outcomes, 0.0)])])
        assert {name for name, value in compared.items() if not np.isnan(value["difference"])} == alive & set("TUS")
    only_seen = evaluation.evaluate(scores, [0, 1, 2, 3, 0, 1], range(4), [])
    assert only_seen["S"] >= 0 and np.isnan(only_seen["U"])
    assert all(np.isnan(v) for v in evaluation.evaluate(scores[:0], labels[:0] or np.zeros(0, int), [0], [1]).values())
    assert not recwarn.list


def test_blocks_of_rows_do_not_matter(monkeypatch):
    scores, labels, seen, unseen = random_case(3, num_rows=50)
    whole = evaluation.outcomes(scores, labels, seen, unseen)
    monkeypatch.setattr(evaluation, "_BLOCK_ROWS", 7)
    for field in dataclasses.fields(Outcomes):
        blocks = evaluation.outcomes(scores, labels, seen, unseen)
        np.testing.assert_array_equal(getattr(blocks, field.name), getattr(whole, field.name))


def test_batches_joined_equal_the_whole():
    scores, labels, seen, unseen = random_case(3, num_rows=50)
    whole = evaluation.outcomes(scores, labels, seen, unseen)
    pieces = [slice(0, 1), slice(1, 20), slice(20, 20), slice(20, 50)]
    joined = evaluation.concatenate([evaluation.outcomes(scores[p], labels[p], seen, unseen) for p in pieces])
    for field in dataclasses.fields(Outcomes):
        np.testing.assert_array_equal(getattr(joined, field.name), getattr(whole, field.name))
    with pytest.raises(ValueError, match="different seen or unseen"):
        evaluation.concatenate([whole, evaluation.outcomes(scores, labels, unseen, seen)])


def test_accuracy_of_labels_is_the_same_rule():
    scores, labels, seen, unseen = random_case(5, num_rows=40)
    predicted = evaluation.decide(scores, np.isin(np.arange(scores.shape[1]), unseen), 0.5)
    expected = evaluation.evaluate(scores, labels, seen, unseen, 0.5)
    result = evaluation.accuracy_of_labels(predicted, labels, seen, unseen)
    assert result == {name: expected[name] for name in "USH"}
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(40,\)"):
        evaluation.accuracy_of_labels(predicted[:3], labels, seen, unseen)


def test_wrong_arguments_are_named():
    scores, labels = np.zeros((3, 4)), np.array([0, 1, 2])
    for value in (np.nan, np.inf, -np.inf):
        bad = scores.copy()
        bad[1, 2] = bad[2, 0] = value
        with pytest.raises(ValueError, match="2 scores are not finite, first in row 1, class 2"):
            evaluation.evaluate(bad, labels, [0, 1], [2, 3])
        with pytest.raises(ValueError, match="not finite"):
            evaluation.decide(bad, [False, False, True, True])
    for match, arguments in {
        "2 labels are neither .* first 1 in row 1": (scores, labels, [0], [3]),
        "1 classes are both seen and unseen, first 1": (scores, labels, [0, 1], [1, 2]),
        "from 0 to 4, but scores have 4 columns": (scores, labels, [0, 1], [2, 4]),
        r"\(3, 4\), expected \(2, classes\)": (scores, labels[:2], [0, 1], [2, 3]),
        r"\(3,\), expected \(3, classes\)": (scores[:, 0], labels, [0, 1], [2, 3]),
        "labels are float64": (scores, labels * 1.0, [0, 1], [2, 3]),
        "neither seen nor unseen classes$": (scores, labels, [], []),
    }.items():
        with pytest.raises(ValueError, match=match):
            evaluation.outcomes(*arguments)
    with pytest.raises(ValueError, match="unseen_mask has shape"):
        evaluation.decide(scores, [False, True])


def test_row_intervals_equal_the_binomial():
    outcomes = with_accuracies([0.9, 0.5, 0.7, 0.2, 0.4], rows=200)
    result = evaluation.intervals(outcomes, 0.0, resamples=4000)["rows"]
    for name, group in {"S": np.array([0.9, 0.5]), "T": np.array([0.7, 0.2, 0.4])}.items():
        spread = 1.96 * np.sqrt(np.sum(group * (1 - group) / 200)) / len(group)
        np.testing.assert_allclose(result[name], group.mean() + np.array([-spread, spread]), atol=0.1 * spread)


def test_row_intervals_cover_the_truth():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        accuracies = rng.binomial(40, [0.8, 0.6, 0.7, 0.3, 0.5]) / 40
        low, high = evaluation.intervals(with_accuracies(accuracies, rows=40), 0.0, 300, seed=trial)["rows"]["T"]
        covered += low <= 0.5 <= high
    assert 180 <= covered <= 198  # 95 % of 200, two standard errors and a little for the percentile method


def noisy_outcomes(seed, num_rows=300, num_classes=10, num_unseen=4):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, num_rows - num_classes)])
    scores = rng.normal(size=(num_rows, num_classes))
    scores[np.arange(num_rows), labels] += np.linspace(0.5, 3, num_classes)[rng.permutation(num_classes)][labels]
    return evaluation.outcomes(scores, labels, np.arange(num_unseen, num_classes), np.arange(num_unseen))


def test_row_intervals_equal_a_bootstrap_with_loops():
    outcomes, rng = noisy_outcomes(1), np.random.default_rng(1)
    drawn = {name: [] for name in METRICS}
    for _ in range(1500):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(outcomes.labels == c), sum(outcomes.labels == c)) for c in range(10)]
        )
        fields = {name: getattr(outcomes, name)[rows] for name in ("labels", "best_seen", "best_unseen", "flip")}
        for name, value in evaluation.numbers(dataclasses.replace(outcomes, **fields), 0.3).items():
            drawn[name].append(value)
    result = evaluation.intervals(outcomes, 0.3, resamples=3000)["rows"]
    for name in METRICS:
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        np.testing.assert_allclose(result[name], [low, high], atol=0.1 * (high - low))


def test_class_intervals_equal_a_bootstrap_of_per_class_tables():
    outcomes, rng = noisy_outcomes(2), np.random.default_rng(2)
    table = evaluation.per_class(outcomes, 0.3)
    area = np.zeros((4, 6))  # by unseen and seen class: the share of row pairs, right in their groups, in flip order
    for u in range(4):
        for s in range(4, 10):
            rows_u, rows_s = np.flatnonzero(outcomes.labels == u), np.flatnonzero(outcomes.labels == s)
            right = [
                (i, j) for i in rows_u for j in rows_s if outcomes.best_unseen[i] == u and outcomes.best_seen[j] == s
            ]
            area[u, s - 4] = sum(outcomes.flip[i] < outcomes.flip[j] for i, j in right) / (len(rows_u) * len(rows_s))
    assert area.mean() == pytest.approx(evaluation.numbers(outcomes, 0.3)["AUSUC"])
    drawn = {name: [] for name in ("T", "U", "S", "H", "AUSUC")}
    for _ in range(4000):
        u, s = rng.integers(0, 4, 4), rng.integers(0, 6, 6)
        U, S = table["U"][u].mean(), table["S"][s].mean()
        values = (table["T"][u].mean(), U, S, 2 * U * S / (U + S), area[np.ix_(u, s)].mean())
        for name, value in zip(drawn, values, strict=True):
            drawn[name].append(value)
    result = evaluation.intervals(outcomes, 0.3, resamples=4000)["classes"]
    for name, values in drawn.items():
        low, high = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose(result[name], [low, high], atol=0.1 * (high - low))


def test_class_intervals_are_wider_when_classes_differ_and_points_when_they_do_not():
    result = evaluation.intervals(with_accuracies([1, 0.1, 1, 0, 0.9, 0.2], rows=100), 0.0)
    for name in "TUSH":
        assert np.ptp(result["classes"][name]) > 3 * np.ptp(result["rows"][name])
    result = evaluation.intervals(with_accuracies([0.5] * 6, rows=100), 0.0)
    assert np.ptp(result["classes"]["T"]) < 1e-12 < np.ptp(result["rows"]["T"])


def test_intervals_hold_the_point_estimate_and_follow_the_seed():
    outcomes = noisy_outcomes(4)
    first, again, other = (evaluation.intervals(outcomes, 0.2, 200, seed=seed) for seed in (7, 7, 8))
    assert first == again != other
    point = evaluation.numbers(outcomes, 0.2)
    for kind in ("rows", "classes"):
        assert list(first[kind]) == list(METRICS)
        assert all(low <= point[name] <= high for name, (low, high) in first[kind].items())
    narrow = evaluation.intervals(outcomes, 0.2, 200, seed=7, level=0.5)
    assert np.ptp(narrow["rows"]["T"]) < np.ptp(first["rows"]["T"])


def test_intervals_do_not_depend_on_the_order_of_rows_beyond_chance():
    outcomes = noisy_outcomes(4)
    order = np.random.default_rng(0).permutation(len(outcomes.labels))
    fields = {name: getattr(outcomes, name)[order] for name in ("labels", "best_seen", "best_unseen", "flip")}
    shuffled = dataclasses.replace(outcomes, **fields)
    one, two = (evaluation.intervals(o, 0.2, 300)["classes"] for o in (outcomes, shuffled))
    for name in METRICS:  # the same classes are drawn, so the same numbers
        np.testing.assert_allclose(one[name], two[name], atol=1e-12)


def test_one_class_a_group_does_not_crash():
    outcomes = evaluation.outcomes(*two_classes([4, 5], [0, 4.5]))
    result = evaluation.intervals(outcomes, 2.0, resamples=20)
    assert result["classes"]["U"] == [0.5, 0.5]
    compared = evaluation.versus([([(outcomes, 2.0)], [(outcomes, 0.0)])], resamples=20)
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
    result = evaluation.versus([(model, baseline)])
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
    result = evaluation.versus([(model, [(with_accuracies([0.2] * 4), 0.0)])])
    assert result["H"]["classes_won"] == result["H"]["classes_lost"] == 0


def test_versus_is_zero_for_the_same_and_antisymmetric():
    one, two = (evaluation.outcomes(*random_case(9, 60)), 0.0), (evaluation.outcomes(*random_case(9, 60)), 0.5)
    same = evaluation.versus([([one], [one])])
    assert all(v["difference"] == 0 and v["interval"] == [0, 0] and not v["classes_won"] for v in same.values())
    there, back = evaluation.versus([([one], [two])]), evaluation.versus([([two], [one])])
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
    result = evaluation.versus([([(model, 0.0)], [(baseline, 0.0)])])
    for name in "TUS":
        np.testing.assert_allclose(result[name]["interval"], [0.1, 0.1])
        assert result[name]["classes_won"] == result[name]["classes"]
    assert result["H"]["interval"][0] > 0.05
    high = evaluation.intervals(baseline, 0.0)["classes"]["T"][1]
    assert high > evaluation.intervals(model, 0.0)["classes"]["T"][0]


def test_versus_pools_folds():
    first = (with_accuracies([0.5, 0.5, 0.6, 0.8]), with_accuracies([0.5, 0.5, 0.5, 0.5]))
    second = (with_accuracies([0.9, 0.7, 0.2, 0.4, 0.6]), with_accuracies([0.5, 0.5, 0.5, 0.4, 0.6]))
    folds = [([(model, 0.0)], [(baseline, 0.0)]) for model, baseline in (first, second)]
    result = evaluation.versus(folds)
    assert result["T"]["difference"] == pytest.approx((0.1 + 0.3 - 0.3 + 0 + 0) / 5)  # over classes, not over folds
    assert result["S"]["difference"] == pytest.approx((0 + 0 + 0.4 + 0.2) / 4)
    alone = [evaluation.versus([fold])["H"]["difference"] for fold in folds]
    assert result["H"]["difference"] == pytest.approx(np.mean(alone))
    assert [result["H"][key] for key in ("classes_won", "classes_lost", "classes")] == [4, 1, 9]
    one, three = evaluation.versus(folds[1:]), evaluation.versus(folds[1:] * 3)
    assert one["T"]["difference"] == pytest.approx(three["T"]["difference"])
    ratio = np.ptp(one["T"]["interval"]) / np.ptp(three["T"]["interval"])
    assert ratio == pytest.approx(np.sqrt(3), rel=0.15)


def test_versus_leaves_out_classes_without_rows():
    outcomes = evaluation.outcomes(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4])
    result = evaluation.versus([([(outcomes, 1.5)], [(outcomes, 0.0)])])
    assert [result[name]["classes"] for name in "TUSH"] == [2, 2, 2, 4]
    assert [result[name]["classes_won"] for name in "TUSH"] == [0, 1, 0, 1]
    differences = [0, 0.125, 0, 2 * 0.875 * 0.75 / 1.625 - 0.75]
    np.testing.assert_allclose([result[name]["difference"] for name in "TUSH"], differences, atol=1e-12)


def test_versus_wants_the_same_rows():
    outcomes = evaluation.outcomes(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4])
    other = dataclasses.replace(outcomes, labels=outcomes.labels[::-1])
    with pytest.raises(ValueError, match="differ in labels"):
        evaluation.versus([([(outcomes, 0.0)], [(other, 0.0)])])


def test_speed():
    """The size of SUN's class list and more rows than any benchmark has. The bounds allow for a busy machine."""
    rng = np.random.default_rng(0)
    scores = rng.random((100_000, 717), np.float32)
    labels = rng.integers(0, 717, 100_000)
    unseen = rng.choice(717, 72, replace=False)
    seen = np.setdiff1d(np.arange(717), unseen)
    start = time.perf_counter()
    evaluation.evaluate(scores, labels, seen, unseen)
    evaluated = time.perf_counter()
    outcomes = evaluation.outcomes(scores, labels, seen, unseen)
    evaluation.best_gamma(outcomes)
    started = time.perf_counter()
    evaluation.intervals(outcomes, 0.0, resamples=100)
    drawn = time.perf_counter()
    print(f"evaluate {evaluated - start:.2f} s, 100 resamples {drawn - started:.2f} s")
    assert evaluated - start < 4
    assert drawn - started < 8
