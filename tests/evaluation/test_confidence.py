"""Probabilities and "none of these" against numbers by hand, loops, and lists that are all gone through."""

import itertools

import numpy as np
import pytest

from zslkeras.evaluation import confidence, metrics
from zslkeras.evaluation.confidence import Confidence

SEEN = np.array([True, True, True, True, False, False, False])


def drawn(rows=6, seen=SEEN, gamma=0.3, seed=0, right=1.5):
    """A Confidence on rows whose own class has somewhat higher scores."""
    labels = np.repeat(np.arange(len(seen)), rows)
    scores = np.random.default_rng(seed).standard_normal((len(labels), len(seen))).astype(np.float32)
    scores[np.arange(len(labels)), labels] += right
    return Confidence(scores, labels, seen, gamma)


def negative_log(calibrated, labels, temperature):
    total = 0.0
    for row, label in zip(calibrated / temperature, labels, strict=True):
        total += np.log(np.sum(np.exp(row))) - row[label]
    return total / len(labels)


def test_the_calibration_error_by_hand():
    highest, right = [0.91, 0.92, 0.61, 0.75], [True, False, False, True]
    probabilities = np.array([[one, 1 - one] for one in highest])
    labels = np.where(right, 0, 1)
    # One bin has 0.91 and 0.92 with half of them right, and each of the others has a bin of its own.
    wanted = 2 / 4 * abs(0.915 - 0.5) + 1 / 4 * 0.61 + 1 / 4 * 0.25
    assert confidence.calibration_error(probabilities, labels) == pytest.approx(wanted) == pytest.approx(0.4225)
    assert confidence.calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0
    assert confidence.calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == 1


def test_the_temperature_by_hand():
    """With a lead of 1 that is right in three of four rows, the best probability is 3/4, so exp(1 / t) is 3."""
    calibrated, labels = np.tile([[2.0, 1.0]], (4, 1)), np.array([0, 0, 0, 1])
    best = confidence.best_temperature(calibrated, labels)
    assert best == pytest.approx(1 / np.log(3))
    np.testing.assert_allclose(confidence.probabilities(calibrated, best)[0], [0.75, 0.25])


def test_the_temperature_lowers_the_negative_log_likelihood_most():
    known = drawn()
    reached = negative_log(known.calibrated, known.labels, known.temperature)
    assert reached < negative_log(known.calibrated, known.labels, 1.0) - 0.001
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2):
        assert reached < negative_log(known.calibrated, known.labels, factor * known.temperature)


def test_scores_without_a_best_temperature_have_a_finite_one():
    assert confidence.best_temperature(np.ones((3, 4)), np.array([0, 1, 2])) == 1.0
    always, never = np.eye(3), np.array([1, 2, 0])
    assert 0 < confidence.best_temperature(always, np.arange(3)) < 1e-2  # all right: the colder, the better
    assert 1e2 < confidence.best_temperature(always, never) < np.inf


def test_probabilities_sum_to_one_also_of_large_scores():
    made = confidence.probabilities(np.array([[1e4, 0.0, -1e4], [1.0, 1.0, 1.0]]), 0.5)
    np.testing.assert_allclose(made, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_the_error_after_has_temperatures_that_other_classes_chose():
    known = drawn(seed=3)
    first = np.isin(known.labels, [0, 2, 4, 6])  # every other seen, and every other unseen class
    made = np.zeros_like(known.calibrated)
    for half in (first, ~first):
        chosen = confidence.best_temperature(known.calibrated[~half], known.labels[~half])
        assert chosen != pytest.approx(known.temperature)
        made[half] = confidence.probabilities(known.calibrated[half], chosen)
    before, after = known.errors
    assert after == pytest.approx(confidence.calibration_error(made, known.labels))
    assert before == pytest.approx(known.error(1.0)) != after


def test_the_reference_is_the_soft_mean_of_the_seen_scores():
    rows = np.array([[0.1, 0.5, -0.3], [5.0, 4.0, 3.0]])
    warmth = 0.8
    wanted = [warmth * np.log(sum(np.exp(score / warmth) for score in row) / 3) for row in rows]
    np.testing.assert_allclose(confidence.reference(rows, warmth), wanted)


def test_classes_that_are_all_told_apart_still_have_a_reference():
    """The temperature nears 0 there: a reference as cold would be the highest score, and nothing could be rejected."""
    known = drawn(rows=40, right=9.0)
    deviations = [np.sqrt(sum((one - row[SEEN].mean()) ** 2 for one in row[SEEN]) / 4) for row in known.scores]
    assert known.warmth == pytest.approx(1.5 * np.mean(deviations), rel=1e-5)
    nothing = np.random.default_rng(5).standard_normal((200, 7))
    parts = confidence.calibrated(nothing, SEEN, known.gamma), nothing[:, SEEN], known.warmth
    assert known.temperature < 0.3 and confidence.rejects(*parts, known.threshold(0.05, 4, 3)).mean() > 0.9
    assert Confidence(np.ones((3, 7)), np.arange(3), SEEN, 0.0).warmth == 1.0


def test_what_all_scores_of_a_row_share_rejects_nothing():
    known = drawn()
    listed, seen = known.calibrated[:, [1, 5]], known.scores[:, SEEN]
    shift = np.random.default_rng(1).standard_normal((len(listed), 1))
    plain = confidence.rejects(listed, seen, known.warmth, 0.4)
    assert plain.any() and not plain.all()
    np.testing.assert_array_equal(confidence.rejects(listed + shift, seen + shift, known.warmth, 0.4), plain)


def rejected(known, threshold, lists):
    """The share of the images of listed classes that are rejected: the mean over classes, then over lists."""
    shares = []
    for listed in lists:
        for label in listed:
            rows = known.labels == label
            told = confidence.rejects(
                known.calibrated[rows][:, list(listed)], known.scores[rows][:, known.seen], known.warmth, threshold
            )
            shares.append(np.mean(told))
    return np.mean(shares)


def evidence(known):
    return np.unique(known.calibrated - confidence.reference(known.scores[:, known.seen], known.warmth)[:, None])


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.3])
def test_the_threshold_loses_the_rate_that_was_asked_for_to_within_a_row(rate):
    known = drawn(rows=40)
    threshold, everything = known.threshold(rate, 4, 3), [range(7)]
    got = rejected(known, threshold, everything)
    assert got <= rate < got + 1 / len(known.labels) + 1e-9


@pytest.mark.parametrize("seen, unseen", [(2, 1), (0, 2), (1, 0), (4, 1), (3, 3)])
def test_the_threshold_is_that_of_all_lists_of_that_many_classes(seen, unseen):
    known, rate = drawn(), 0.1
    pairs = itertools.product(itertools.combinations(range(4), seen), itertools.combinations(range(4, 7), unseen))
    lists = [(*one, *other) for one, other in pairs]
    threshold = known.threshold(rate, seen, unseen)
    values = evidence(known)
    above = values[values > threshold + 1e-9]
    assert rejected(known, threshold, lists) <= rate < rejected(known, above[1], lists)


def test_a_longer_list_has_a_higher_threshold():
    known = drawn(rows=40)
    thresholds = [known.threshold(0.05, 0, unseen) for unseen in (1, 2, 3)]
    assert thresholds == sorted(thresholds) and thresholds[0] < thresholds[-1]
    assert known.threshold(0.05, 100, 100) == known.threshold(0.05, 4, 3)  # more than there were


def test_a_kind_of_classes_without_rows_has_the_threshold_of_the_others():
    """A list of two seen classes, and no row of a seen class: that of unseen rows beside two seen classes."""
    known, rate = drawn(), 0.2
    unseen = known.labels >= 4
    few = Confidence(known.scores[unseen], known.labels[unseen], SEEN, known.gamma)

    def got(threshold):
        shares = []
        for label, others in itertools.product(range(4, 7), itertools.combinations(range(4), 2)):
            rows = few.labels == label
            parts = few.calibrated[rows][:, [label, *others]], few.scores[rows][:, SEEN]
            shares.append(confidence.rejects(*parts, few.warmth, threshold).mean())
        return np.mean(shares)

    threshold, values = few.threshold(rate, 2, 0), evidence(few)
    assert got(threshold) <= rate < got(values[values > threshold + 1e-9][1])


def test_large_data_keep_evenly_spaced_rows():
    np.testing.assert_array_equal(confidence.kept(5, 4), np.arange(5))
    places = confidence.kept(100_000, 1000)
    assert len(places) * 1000 <= confidence.KEPT < (len(places) + 1) * 1000
    assert (places[0], places[-1]) == (0, 99_999) and np.ptp(np.diff(places)) <= 1
    assert len(confidence.kept(5, 2 * confidence.KEPT)) == 1


def test_kept_rows_have_their_labels():
    known = drawn(rows=3)
    outcomes = metrics.outcomes(known.scores, known.labels, np.flatnonzero(SEEN), np.flatnonzero(~SEEN))
    places = confidence.spaced(len(known.labels), 5)
    made = confidence.of(outcomes, known.scores[places], 0.3)
    np.testing.assert_array_equal(made.labels, known.labels[places])
    np.testing.assert_array_equal(made.seen, SEEN)
