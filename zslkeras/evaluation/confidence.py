"""What scores are worth: probabilities by a temperature, and "none of these" by a threshold.

    calibrated score   score + gamma, if the class is unseen
    probability        softmax of the calibrated scores of the listed classes / temperature
    evidence           calibrated score - w log(mean over seen classes of exp(score / w)), w = WARMTH * their spread
    none of these      the highest evidence of the listed classes is below a threshold

Temperature and threshold come from rows that took no part in training: the test rows of stage tune, whose unseen
classes are validation classes. The soft mean in the evidence is a reference that does not depend on the list: it takes
out what makes all scores of a row high or low, and lets a seen class speak that is not on the list.
docs/notes/rejection.md compares it with others.
"""

import dataclasses
import functools

import numpy as np

from zslkeras.evaluation import metrics

KEPT = 2**20  # scores that are kept: 4 MB
WARMTH = 1.5  # of the soft mean, in standard deviations of a row's scores over seen classes: docs/notes/rejection.md
BINS = 15  # of the calibration error, as Guo et al., On calibration of modern neural networks (ICML 2017)
_HALVINGS = 60
_FAR = 1e3  # the temperature is at most this many times smaller or larger than the spread of the scores


@dataclasses.dataclass(frozen=True, eq=False)
class Confidence:
    """What some rows say about the scores of a model.

    Args:
        scores: [N, C] without gamma.
        labels: [N] each row's class.
        seen: [C] bool.
        gamma: of calibrated stacking.
    """

    scores: np.ndarray
    labels: np.ndarray
    seen: np.ndarray
    gamma: float

    @functools.cached_property
    def calibrated(self):
        """[N, C] float64."""
        return calibrated(self.scores, self.seen, self.gamma)

    @functools.cached_property
    def temperature(self):
        return best_temperature(self.calibrated, self.labels)

    @functools.cached_property
    def warmth(self):
        """w of the soft mean. It does not follow the temperature, which nears 0 where nearly all answers are right."""
        return WARMTH * float(self.scores[:, self.seen].std(axis=1, dtype=np.float64).mean()) or 1.0

    @functools.cached_property
    def errors(self):
        """The calibration error at temperature 1, and after.

        The rows of each half of the classes have the temperature that the other half's rows have chosen: the error is
        that of classes which took no part.
        """
        place = np.empty(len(self.seen), int)
        place[np.concatenate([np.flatnonzero(self.seen), np.flatnonzero(~self.seen)])] = np.arange(len(self.seen))
        first = place[self.labels] % 2 == 0
        temperatures = np.full(len(self.labels), self.temperature)
        if first.any() and not first.all():
            for rows in (first, ~first):
                temperatures[rows] = best_temperature(self.calibrated[~rows], self.labels[~rows])
        return self.error(1.0), calibration_error(probabilities(self.calibrated, temperatures[:, None]), self.labels)

    def error(self, temperature):
        """The calibration error of the rows at a temperature."""
        return calibration_error(probabilities(self.calibrated, temperature), self.labels)

    def threshold(self, rate, seen, unseen):
        """The evidence below which a share `rate` of the images of listed classes lie; the largest such number.

        The list has `seen` seen and `unseen` unseen classes. The share is the mean over classes, and over all lists of
        that many classes which the rows' classes allow: the longer a list, the higher the best evidence in it.
        """
        groups = np.flatnonzero(self.seen), np.flatnonzero(~self.seen)
        sizes = [min(size, len(group)) for size, group in zip((seen, unseen), groups, strict=True)]
        in_group = self.seen[self.labels], ~self.seen[self.labels]
        above = self.calibrated - reference(self.scores[:, self.seen], self.warmth)[:, None]
        own = above[np.arange(len(above)), self.labels]
        share = sum(size * rows * _class_share(self.labels, rows) for size, rows in zip(sizes, in_group, strict=True))
        share = share if share.any() else _class_share(self.labels, np.ones(len(own), bool))

        def rejected(threshold):
            chance = (own < threshold) * share
            for group, size, rows in zip(groups, sizes, in_group, strict=True):
                below = np.count_nonzero(above[:, group] < threshold, axis=1)
                # A row's own class is on the list; the others are drawn.
                chance = chance * _all_among(below - rows, len(group) - rows, np.maximum(size - rows, 0))
            return chance.sum() / share.sum()

        low, high = above.min(), np.nextafter(above.max(), np.inf)
        for _ in range(_HALVINGS):
            middle = low + (high - low) / 2
            low, high = (low, middle) if rejected(middle) > rate else (middle, high)
        return float(low)


def of(outcomes, scores, gamma):
    """The Confidence of `kept` rows.

    Args:
        outcomes: Outcomes of all rows.
        scores: [n, C] of the rows that were kept.
        gamma: of calibrated stacking.
    """
    labels = outcomes.labels[spaced(len(outcomes.labels), len(scores))]
    return Confidence(scores, labels, np.isin(np.arange(scores.shape[1]), outcomes.seen), gamma)


def spaced(rows, number):
    """[min(rows, number)] places among so many rows, evenly spaced."""
    return np.linspace(0, rows - 1, min(rows, number)).astype(int)


def kept(rows, classes):
    """The places of the rows whose scores are kept: all, or evenly spaced ones, at most KEPT scores."""
    return spaced(rows, max(1, KEPT // classes))


def calibrated(scores, seen, gamma):
    """Scores [N, C] with gamma for unseen classes, float64."""
    return np.asarray(scores, np.float64) + gamma * ~np.asarray(seen, bool)


def reference(seen_scores, warmth):
    """[N] the soft mean of the scores [N, S] of seen classes: near the mean, and drawn to the highest."""
    scores = np.asarray(seen_scores, np.float64) / warmth
    highest = scores.max(axis=1)
    return warmth * (highest + np.log(np.exp(scores - highest[:, None]).mean(axis=1)))


def probabilities(calibrated, temperature):
    """[N, K] of calibrated scores [N, K]: they sum to 1 over the K classes."""
    scores = np.asarray(calibrated, np.float64) / temperature
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def best_temperature(calibrated, labels):
    """The temperature with the lowest mean negative log probability of the rows' classes.

    In 1 / temperature that mean is convex: its slope, the expected minus the own score, has one change of sign.
    """
    own = calibrated[np.arange(len(labels)), labels]
    spread = calibrated.std(axis=1).mean()
    if not spread > 0:
        return 1.0
    low, high = np.log(spread / _FAR), np.log(spread * _FAR)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (probabilities(calibrated, np.exp(middle)) * calibrated).sum(axis=1)
        too_cold = (expected - own).mean() > 0
        low, high = (middle, high) if too_cold else (low, middle)
    return float(np.exp((low + high) / 2))


def calibration_error(probabilities, labels):
    """The expected calibration error, 0..1: how far the highest probability is from the share of right answers.

    Rows are sorted into BINS bins of equal width by their highest probability; the mean over rows of the distance
    between the two means of their bin.
    """
    highest, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((highest * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, highest - right)).sum() / len(labels))


def rejects(calibrated, seen_scores, warmth, threshold):
    """[N] bool: rows of none of the listed classes.

    Args:
        calibrated: [N, K] of the listed classes.
        seen_scores: [N, S] of all classes that the model was trained on, listed or not.
        warmth, threshold: see `Confidence`.
    """
    return calibrated.max(axis=1) - reference(seen_scores, warmth) < threshold


def _class_share(labels, rows):
    """[N] what each of some rows adds to a mean over their classes; 0 for other rows."""
    counts = np.bincount(labels[rows], minlength=labels.max() + 1)
    return metrics.ratio(rows, np.maximum(counts[labels], 1) * max(1, np.count_nonzero(counts)))


def _all_among(below, number, drawn):
    """The chance that `drawn` of `number` classes, without repetition, are all among the first `below`: [N] each."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, number.max() + 2)))])  # of factorials
    enough, below = below >= drawn, np.maximum(below, drawn)
    return enough * np.exp(logs[below] - logs[below - drawn] - logs[number] + logs[number - drawn])
