"""The numbers against hand-worked tables and slow references: loops over the definitions, in exact fractions."""

import dataclasses
import itertools
import time
from fractions import Fraction

import numpy as np
import pytest

from zslkeras.evaluation import calibration, metrics
from zslkeras.evaluation.metrics import METRICS, Outcomes


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
    result = metrics.evaluate(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4])
    assert list(result) == list(METRICS)
    assert result["T"] == (3 / 4 + 1) / 2  # 4 of 5 rows would be 0.8
    assert result["U"] == result["U0"] == (2 / 4 + 1) / 2
    assert result["S"] == result["S0"] == (8 / 8 + 1 / 2) / 2  # 9 of 10 rows would be 0.9
    assert result["H"] == result["H0"] == 0.75
    result = metrics.evaluate(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4], gamma=1.5)
    assert (result["U"], result["U0"], result["S"]) == (0.875, 0.75, 0.75)
    assert result["H"] == pytest.approx(2 * 0.875 * 0.75 / 1.625)
    table = metrics.per_class(metrics.outcomes(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4]), 0.0)
    np.testing.assert_array_equal(table["T"], [0.75, 1, np.nan])
    np.testing.assert_array_equal(table["U"], [0.5, 1, np.nan])
    np.testing.assert_array_equal(table["S"], [1, 0.5])


def test_a_models_own_answers_among_the_seen_by_hand():
    """Gamma alone decides who is unseen; the answers decide which seen class the others get."""
    answers = np.array([0] * 8 + [1] * 2 + [0, 0, 0, 1, 0])  # the scores give row 9, of class 1, to class 0
    outcomes = metrics.outcomes(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4], answers)
    result, plain = metrics.numbers(outcomes, 0.0), metrics.evaluate(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4])
    assert (result["T"], result["U"]) == (plain["T"], plain["U"]) == (0.875, 0.75)
    assert (result["S"], result["S0"], plain["S"]) == (1, 1, 0.75)
    np.testing.assert_array_equal(outcomes.decisions(0.0), [*answers[:10], 2, 2, 0, 3, 3])
    np.testing.assert_array_equal(outcomes.decisions(-np.inf), answers)


@pytest.mark.parametrize("seed", range(10))
def test_own_answers_are_as_good_as_scores_that_say_so(seed):
    """The same numbers come from scores in which the highest seen score has changed places with the answer's."""
    generator = np.random.default_rng(seed)
    seen, unseen, labels = np.array([1, 2, 4]), np.array([0, 3]), generator.integers(0, 5, 40)
    scores = generator.normal(size=(40, 5))
    answers = generator.choice(seen, 40)
    changed, rows = scores.copy(), np.arange(40)
    best = seen[scores[:, seen].argmax(axis=1)]
    changed[rows, best], changed[rows, answers] = scores[rows, answers], scores[rows, best]
    got = metrics.outcomes(scores, labels, seen, unseen, answers)
    expected = metrics.outcomes(changed, labels, seen, unseen)
    for field in dataclasses.fields(Outcomes):
        np.testing.assert_array_equal(getattr(got, field.name), getattr(expected, field.name))
    assert (got.best_seen != best).sum() > 10
    assert metrics.numbers(got, 0.3) == metrics.numbers(expected, 0.3)
    assert metrics.numbers(got, 0.3)["U"] == metrics.evaluate(scores, labels, seen, unseen, 0.3)["U"]


def test_answers_that_are_no_candidates_are_named():
    scores, labels = np.zeros((3, 4)), np.array([0, 1, 2])
    with pytest.raises(ValueError, match="1 seen_answers are no candidates, first 7 in row 1"):
        metrics.outcomes(scores, labels, [0, 1], [2, 3], [0, 7, 1])
    with pytest.raises(ValueError, match=r"seen_answers have shape \(2,\), expected \(3,\): one per row"):
        metrics.outcomes(scores, labels, [0, 1], [2, 3], [0, 1])


def test_confusion_counts_unseen_decisions():
    outcomes = metrics.outcomes(HAND_SCORES, HAND_LABELS, [0, 1], [2, 3, 4])
    np.testing.assert_array_equal(metrics.confusion(outcomes), [[3, 1, 0], [0, 1, 0], [0, 0, 0]])


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
    assert metrics.decide(scores, [False, False, True, True], gamma) == [expected]
    assert metrics.outcomes(scores, [0], [1, 0], [3, 2]).decisions(gamma) == [expected]


def test_a_tie_goes_to_the_seen_class_whatever_the_ids():
    assert metrics.decide(np.ones((1, 3), np.float32), [True, False, True]) == [1]


@pytest.mark.parametrize("seed", range(40))
def test_random_cases_equal_the_slow_reference(seed):
    scores, labels, seen, unseen = random_case(seed)
    outcomes = metrics.outcomes(scores, labels, seen, unseen)
    curve = slow_curve(scores, labels, seen, unseen)
    for gamma in (-0.75, 0.0, 0.3, 1.25):
        result = metrics.numbers(outcomes, gamma)
        S, U = slow_point(scores, labels, seen, unseen, Fraction(gamma))
        T = slow_accuracy([slow_decide(row, [], unseen, 0) for row in scores], labels, unseen)
        S0, U0 = slow_point(scores, labels, seen, unseen, Fraction(0))
        expected = [T, U, S, slow_harmonic(U, S), U0, S0, slow_harmonic(U0, S0), slow_ausuc(curve)]
        np.testing.assert_allclose([result[name] for name in METRICS], np.array(expected, float), atol=1e-12)
    gamma, harmonic = calibration.best_gamma(outcomes)
    expected_gamma, expected_harmonic = slow_best_gamma(curve)
    assert harmonic == pytest.approx(float(expected_harmonic), abs=1e-12)
    assert abs(gamma) == pytest.approx(abs(float(expected_gamma)), abs=1e-12)  # -g and g may tie
    assert harmonic == metrics.numbers(outcomes, gamma)["H"]


@pytest.mark.parametrize("seed", range(20))
def test_a_model_may_answer_unseen_classes_itself(seed):
    """U may then be above 0 at the lowest gamma, and fall as gamma rises; the area is that under the curve all the
    same."""
    generator = np.random.default_rng(seed)
    seen, unseen, labels = np.array([1, 2, 4]), np.array([0, 3]), generator.integers(0, 5, 30)
    scores = generator.integers(0, 9, (30, 5)) / 4
    answers = np.where(generator.random(30) < 0.4, labels, generator.integers(0, 5, 30))
    outcomes = metrics.outcomes(scores, labels, seen, unseen, answers)
    best_unseen, flip = unseen[scores[:, unseen].argmax(1)], scores[:, seen].max(1) - scores[:, unseen].max(1)

    def point(gamma):
        right = np.where(gamma > flip, best_unseen, answers) == labels
        return [np.mean([right[labels == c].mean() for c in ids]) for ids in (seen, unseen)]

    edges = np.unique(flip)
    gammas = [edges[0] - 1, *(edges[:-1] + np.diff(edges) / 2), edges[-1] + 1]
    points = [point(gamma) for gamma in gammas]
    area = sum((S - next_S) * (U + next_U) / 2 for (S, U), (next_S, next_U) in itertools.pairwise(points))
    got = metrics.numbers(outcomes, 0.3)
    assert got["AUSUC"] == pytest.approx(area)
    assert [got["S"], got["U"]] == pytest.approx(point(0.3))
    U, S = metrics.curve(outcomes)
    np.testing.assert_allclose([*dict.fromkeys(zip(S.round(9), U.round(9), strict=True))], merged(points), atol=1e-9)
    gamma, H = calibration.best_gamma(outcomes)
    assert pytest.approx(H) == max(metrics.harmonic(U, S) for S, U in points)
    assert metrics.numbers(outcomes, gamma)["H"] == H
    assert U[0] > 0


def merged(points):
    """Neighbouring points that are the same are one."""
    return [*dict.fromkeys((round(S, 9), round(U, 9)) for S, U in points)]


@pytest.mark.parametrize("seed", range(20))
def test_decide_agrees_with_outcomes_at_and_between_break_points(seed):
    rng = np.random.default_rng(seed)
    scores = (rng.normal(size=(30, 6)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
    unseen_mask = np.array([True, False, False, True, False, True])
    outcomes = metrics.outcomes(
        scores, rng.integers(0, 6, 30), np.flatnonzero(~unseen_mask), np.flatnonzero(unseen_mask)
    )
    breaks = np.sort(outcomes.flip)
    for gamma in [*breaks, *np.nextafter(breaks, np.inf), *np.nextafter(breaks, -np.inf)]:
        np.testing.assert_array_equal(metrics.decide(scores, unseen_mask, gamma), outcomes.decisions(gamma))
    for gamma in [breaks[0] - 1, *(breaks[:-1] + breaks[1:]) / 2, breaks[-1] + 1]:
        naive = (scores.astype(np.float64) + gamma * unseen_mask).argmax(axis=1)
        np.testing.assert_array_equal(metrics.decide(scores, unseen_mask, gamma), naive)
    for row, gamma in enumerate(outcomes.flip):
        assert not unseen_mask[outcomes.decisions(gamma)[row]]
        assert unseen_mask[outcomes.decisions(np.nextafter(gamma, np.inf))[row]]


def test_gamma_limits():
    for seed in range(10):
        scores, labels, seen, unseen = random_case(seed)
        high = metrics.evaluate(scores, labels, seen, unseen, gamma=np.inf)
        assert high["S"] == 0 and high["U"] == high["T"]
        assert metrics.evaluate(scores, labels, seen, unseen, gamma=1e9)["U"] == high["T"]
        assert metrics.evaluate(scores, labels, seen, unseen, gamma=-np.inf)["U"] == 0
        assert metrics.evaluate(scores, labels, seen, unseen, gamma=-1e9)["H"] == 0


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
    assert metrics.evaluate(*two_classes(seen_flips, unseen_flips))["AUSUC"] == pytest.approx(area)


def test_ausuc_weighs_classes_and_not_rows():
    scores = [[1, 0, 0]] * 9 + [[-1, -2, 0]] * 9 + [[0, 2, 1]]  # class 1 (one row) beats 0, its flip is 1
    labels = [0] * 9 + [2] * 9 + [1]
    # Unseen rows flip at -1. Class 0's nine rows and class 1's only row are worth one half each.
    assert metrics.evaluate(scores, labels, [0, 1], [2])["AUSUC"] == pytest.approx(1.0)
    scores[-1] = [2, 1, 1]  # class 1 is now wrong among the seen: its half is lost, not a tenth
    assert metrics.evaluate(scores, labels, [0, 1], [2])["AUSUC"] == pytest.approx(0.5)


def test_best_gamma_by_hand():
    # H is 1 for 1 < gamma <= 4
    assert calibration.best_gamma(metrics.outcomes(*two_classes([4, 5], [0, 1]))) == (2.5, 1.0)
    # H is 2/3 for -1 < gamma <= 0 (S 1, U 1/2) and for 3 < gamma <= 5 (S 1/2, U 1): the middle nearest 0
    assert calibration.best_gamma(metrics.outcomes(*two_classes([0, 5], [-1, 3]))) == (-0.5, pytest.approx(2 / 3))
    # mirrored: the nearer interval is the second
    assert calibration.best_gamma(metrics.outcomes(*two_classes([-3, 1], [-5, 0]))) == (0.5, pytest.approx(2 / 3))
    # nothing helps
    assert calibration.best_gamma(metrics.outcomes(*two_classes([1, 2], [3]))) == (0.0, 0.0)


def test_best_gamma_is_not_swayed_by_rounding():
    # two intervals have the same H as fractions, but not as float sums of tenths or ninths
    cases = [
        ([-9, -4, 0, 2, 3, 3, 3, 5, 5, 7], [-9, -7, -7, -6, -4, -3, 2, 2, 5, 8]),
        ([-8, -5, -5, -5, -3, 0, 3, 5, 9], [-6, -5, -3, -1, 1, 2, 3, 5, 5]),
    ]
    for seen_flips, unseen_flips in cases:
        case = two_classes(seen_flips, unseen_flips)
        gamma, harmonic = slow_best_gamma(slow_curve(*case))
        assert calibration.best_gamma(metrics.outcomes(*case)) == (float(gamma), pytest.approx(float(harmonic)))


def test_best_gamma_between_neighbouring_floats_is_inside():
    low, high = 1.0, np.nextafter(1.0, 2)
    outcomes = metrics.outcomes(*two_classes([high], [low]))
    assert calibration.best_gamma(outcomes) == (high, 1.0)


def test_groups_without_rows_are_nan_without_warnings(recwarn):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 4))
    for labels, alive in (([0, 1] * 3, {"S", "S0"}), ([2, 3] * 3, {"T", "U", "U0"})):
        outcomes = metrics.outcomes(scores, labels, [0, 1], [2, 3])
        result = metrics.numbers(outcomes, 0.1)
        assert {name for name, value in result.items() if not np.isnan(value)} == alive
        gamma, H = calibration.best_gamma(outcomes)
        assert gamma == 0.0 and np.isnan(H)
    only_seen = metrics.evaluate(scores, [0, 1, 2, 3, 0, 1], range(4), [])
    assert only_seen["S"] >= 0 and np.isnan(only_seen["U"])
    assert all(np.isnan(v) for v in metrics.evaluate(scores[:0], labels[:0] or np.zeros(0, int), [0], [1]).values())
    assert not recwarn.list


def test_blocks_of_rows_do_not_matter(monkeypatch):
    scores, labels, seen, unseen = random_case(3, num_rows=50)
    whole = metrics.outcomes(scores, labels, seen, unseen)
    monkeypatch.setattr(metrics, "_BLOCK_ROWS", 7)
    for field in dataclasses.fields(Outcomes):
        blocks = metrics.outcomes(scores, labels, seen, unseen)
        np.testing.assert_array_equal(getattr(blocks, field.name), getattr(whole, field.name))


def test_batches_joined_equal_the_whole():
    scores, labels, seen, unseen = random_case(3, num_rows=50)
    whole = metrics.outcomes(scores, labels, seen, unseen)
    pieces = [slice(0, 1), slice(1, 20), slice(20, 20), slice(20, 50)]
    joined = metrics.concatenate([metrics.outcomes(scores[p], labels[p], seen, unseen) for p in pieces])
    for field in dataclasses.fields(Outcomes):
        np.testing.assert_array_equal(getattr(joined, field.name), getattr(whole, field.name))
    with pytest.raises(ValueError, match="different seen or unseen"):
        metrics.concatenate([whole, metrics.outcomes(scores, labels, unseen, seen)])


def test_accuracy_of_labels_is_the_same_rule():
    scores, labels, seen, unseen = random_case(5, num_rows=40)
    predicted = metrics.decide(scores, np.isin(np.arange(scores.shape[1]), unseen), 0.5)
    expected = metrics.evaluate(scores, labels, seen, unseen, 0.5)
    result = metrics.accuracy_of_labels(predicted, labels, seen, unseen)
    assert result == {name: expected[name] for name in "USH"}
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(40,\)"):
        metrics.accuracy_of_labels(predicted[:3], labels, seen, unseen)


def test_wrong_arguments_are_named():
    scores, labels = np.zeros((3, 4)), np.array([0, 1, 2])
    for value in (np.nan, np.inf, -np.inf):
        bad = scores.copy()
        bad[1, 2] = bad[2, 0] = value
        with pytest.raises(ValueError, match="2 scores are not finite, first in row 1, class 2"):
            metrics.evaluate(bad, labels, [0, 1], [2, 3])
        with pytest.raises(ValueError, match="not finite"):
            metrics.decide(bad, [False, False, True, True])
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
            metrics.outcomes(*arguments)
    with pytest.raises(ValueError, match="unseen_mask has shape"):
        metrics.decide(scores, [False, True])


def test_speed():
    """The size of SUN's class list and more rows than any benchmark has. The bound allows for a busy machine."""
    rng = np.random.default_rng(0)
    scores = rng.random((100_000, 717), np.float32)
    labels = rng.integers(0, 717, 100_000)
    unseen = rng.choice(717, 72, replace=False)
    start = time.perf_counter()
    metrics.evaluate(scores, labels, np.setdiff1d(np.arange(717), unseen), unseen)
    spent = time.perf_counter() - start
    print(f"evaluate {spent:.2f} s")
    assert spent < 4
