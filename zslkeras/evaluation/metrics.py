"""The metrics of a matrix of scores: per-class accuracy, and calibration. See `uncertainty` for how far to trust them.

All accuracies are fractions: means over classes of the top-1 accuracy per class. Classes without rows are left out.
T      unseen rows, unseen candidates only.
U, S   unseen and seen rows, all candidates, where gamma is added to the score of every unseen class
       (calibrated stacking, Chao et al., ECCV 2016); H = 2US / (U + S). U0, S0, H0 are the same at gamma 0.
AUSUC  area under the curve of (S, U) as gamma runs over all reals, exact: no grid of gammas.

The metrics need only two facts about a row's scores: the best class of each group, and the gamma at which the row
switches from one to the other. `Outcomes` keeps these facts, so scores can be summarised batch by batch and thrown
away. Below that gamma a model may answer with a class other than the seen one with the highest score (`seen_answers`);
the gamma at which the row switches stays the same. A metric without any rows is NaN.
"""

import dataclasses

import numpy as np

METRICS = ("T", "U", "S", "H", "U0", "S0", "H0", "AUSUC")

_BLOCK_ROWS = 8192  # score rows handled at a time, so that the copy of one group's columns stays small


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
    """All that the metrics need to know about a score matrix.

    Args:
        labels: [N] each row's class.
        best_seen: [N] the seen class with the highest score, or what the model answers in its place, which may be an
            unseen class; -1 if there are no seen classes.
        best_unseen: [N] the same among unseen classes.
        flip: [N] float64, best seen score - best unseen score: above this gamma the row goes to `best_unseen`.
        seen: ids of the seen classes, ascending.
        unseen: ids of the unseen classes, ascending.
    """

    labels: np.ndarray
    best_seen: np.ndarray
    best_unseen: np.ndarray
    flip: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    @property
    def in_unseen(self):
        """[N] bool: the row's class is unseen."""
        return np.isin(self.labels, self.unseen)

    def decisions(self, gamma):
        """[N] the class predicted for each row among all classes; the same answer as `decide`."""
        return np.where(gamma > self.flip, self.best_unseen, self.best_seen)


def decide(scores, unseen_mask, gamma=0.0):
    """argmax(scores + gamma * unseen_mask), [B, C] -> [B].

    A tie between a seen and an unseen class goes to the seen one; a tie within a group goes to the lower id. Gamma is
    compared with the float64 difference of the two groups' best scores, not added to the scores: a float32 sum would
    create ties that the scores do not have, and `Outcomes` could then disagree at a break point.
    """
    scores, unseen_mask = np.asarray(scores), np.asarray(unseen_mask, bool)
    if unseen_mask.shape != scores.shape[1:]:
        raise ValueError(f"unseen_mask has shape {unseen_mask.shape}, expected {scores.shape[1:]}: one per class")
    best_seen, best_unseen, flip = _contest(scores, np.flatnonzero(~unseen_mask), np.flatnonzero(unseen_mask))
    return np.where(gamma > flip, best_unseen, best_seen)


def outcomes(scores, labels, seen, unseen, seen_answers=None):
    """Scores [N, C] and labels [N] -> `Outcomes`.

    Args:
        scores: [N, C].
        labels: [N].
        seen, unseen: class ids, columns of `scores`.
        seen_answers: [N] the class that the model answers if gamma leaves the row to the seen classes; None for the
            seen one with the highest score.
    """
    scores = np.asarray(scores)
    labels, seen, unseen = _checked_labels(labels, seen, unseen)
    if scores.ndim != 2 or len(scores) != len(labels):
        raise ValueError(f"scores have shape {scores.shape}, expected ({len(labels)}, classes): a row per label")
    ids = np.concatenate([seen, unseen])
    if ids.min() < 0 or ids.max() >= scores.shape[1]:
        raise ValueError(f"class ids run from {ids.min()} to {ids.max()}, but scores have {scores.shape[1]} columns")
    best_seen, best_unseen, flip = _contest(scores, seen, unseen)
    if seen_answers is not None:
        best_seen = _checked_answers(seen_answers, labels, ids)
    return Outcomes(labels, best_seen, best_unseen, flip, seen, unseen)


def concatenate(batches):
    """Joins the `Outcomes` of several batches of rows over the same classes."""
    first = batches[0]
    if not all(np.array_equal(b.seen, first.seen) and np.array_equal(b.unseen, first.unseen) for b in batches):
        raise ValueError("the batches have different seen or unseen classes")
    rows = ("labels", "best_seen", "best_unseen", "flip")
    return dataclasses.replace(first, **{name: np.concatenate([getattr(b, name) for b in batches]) for name in rows})


def evaluate(scores, labels, seen, unseen, gamma=0.0):
    """Scores [N, C] and labels [N] -> every metric of `METRICS`."""
    return numbers(outcomes(scores, labels, seen, unseen), gamma)


def numbers(outcomes, gamma):
    """Every metric of `METRICS`, as a dict of floats."""
    calibrated, plain = per_class(outcomes, gamma), per_class(outcomes, 0.0)
    unseen, seen = group_of(outcomes, gamma, True), group_of(outcomes, gamma, False)
    area = ausuc(flip_order(unseen, seen), unseen.share[None], seen.share[None])[0]
    means = [mean_over_classes(table[name]) for table, names in ((calibrated, "TUS"), (plain, "US")) for name in names]
    return {name: float(value) for name, value in named(*means, area).items()}


def summary(values):
    """The mean, std (ddof 1; 0 for a single value) and values of several seeds, folds or runs."""
    values = [float(value) for value in values]
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std, "values": values}


def summaries(rows):
    """{metric: summary} of a list of results of `numbers`."""
    return {metric: summary(row[metric] for row in rows) for metric in METRICS}


def per_class(outcomes, gamma):
    """Accuracy of each class, {"T": [unseen], "U": [unseen], "S": [seen]} by ascending id; NaN without rows."""
    right = outcomes.decisions(gamma) == outcomes.labels
    return {
        "T": _class_means(outcomes.best_unseen == outcomes.labels, outcomes.labels, outcomes.unseen),
        "U": _class_means(right, outcomes.labels, outcomes.unseen),
        "S": _class_means(right, outcomes.labels, outcomes.seen),
    }


def accuracy_of_labels(predicted, labels, seen, unseen):
    """U, S and H of labels that another rule predicted."""
    labels, seen, unseen = _checked_labels(labels, seen, unseen)
    predicted = np.asarray(predicted)
    if predicted.shape != labels.shape:
        raise ValueError(f"predicted labels have shape {predicted.shape}, expected {labels.shape}")
    U, S = (mean_over_classes(_class_means(predicted == labels, labels, ids)) for ids in (unseen, seen))
    return {"U": U, "S": S, "H": float(harmonic(U, S))}


def confusion(outcomes):
    """[unseen, unseen] counts of unseen rows: true class by best unseen class."""
    num, rows = len(outcomes.unseen), outcomes.in_unseen
    true, given = (np.searchsorted(outcomes.unseen, ids[rows]) for ids in (outcomes.labels, outcomes.best_unseen))
    return np.bincount(true * num + given, minlength=num * num).reshape(num, num)


def pointing(maps, masks):
    """Whether the highest cell of a map lies on an object, and how likely a cell drawn at random is to do so.

    A cell of an [H, W] map stands for a rectangle of the image; it lies on the object if at least one pixel of its
    rectangle does. Cells that share the highest value count equally, so a flat map scores at chance.

    Args:
        maps: [M, H, W].
        masks: bool [M, h, w], of images at least as large as the maps.

    Returns:
        Hits [M] in 0..1, and chances [M]: the share of the cells that lie on the object.
    """
    maps, masks = np.asarray(maps), np.asarray(masks, bool)
    if len(maps) != len(masks) or any(m > p for m, p in zip(maps.shape[1:], masks.shape[1:], strict=True)):
        raise ValueError(f"maps {maps.shape} and masks {masks.shape}; expected a mask per map, none of them smaller")
    on_object = masks
    for axis in (1, 2):
        starts = np.arange(maps.shape[axis]) * masks.shape[axis] // maps.shape[axis]
        on_object = np.logical_or.reduceat(on_object, starts, axis=axis)
    peaks = maps == maps.max(axis=(1, 2), keepdims=True)
    hits = (peaks & on_object).sum(axis=(1, 2)) / peaks.sum(axis=(1, 2))
    return hits, on_object.mean(axis=(1, 2))


def curve(outcomes):
    """U [k] and S [k] between break points, for ascending gamma: from (0, S among seen classes only) to (T, 0)."""
    unseen, seen = group_of(outcomes, 0.0, True), group_of(outcomes, 0.0, False)
    breaks = np.unique(np.concatenate([group.flip[group.step != 0] for group in (unseen, seen)]))
    edges = np.concatenate([[-np.inf], breaks])  # a row flips at gammas above its flip
    sums = []
    for group in (unseen, seen):
        order = np.argsort(group.flip, kind="stable")
        steps = np.cumsum((group.share * group.step)[order])
        total = group.share @ group.before + np.concatenate([[0.0], steps])
        sums.append(total[np.searchsorted(group.flip[order], edges, side="right")])
    return sums[0], sums[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """The rows of the seen or of the unseen classes, sorted by class, as resampling needs them."""

    counts: np.ndarray  # [classes with rows] how many rows each has
    share: np.ndarray  # [N] what a row adds to an accuracy: 1 / (rows of its class * classes)
    flip: np.ndarray  # [N]
    before: np.ndarray  # [N] bool, right while gamma is below its flip
    step: np.ndarray  # [N] what its flip adds to that: 1, 0 or -1
    right: np.ndarray  # [N, 3] right among the candidates of its own group, among all at gamma, among all at gamma 0


def group_of(outcomes, gamma, unseen):
    """The `Group` of the unseen or of the seen classes."""
    rows = np.flatnonzero(outcomes.in_unseen == unseen)
    rows = rows[np.argsort(outcomes.labels[rows], kind="stable")]
    labels = outcomes.labels[rows]
    counts = np.unique(labels, return_counts=True)[1]
    share = 1.0 / (np.repeat(counts, counts) * len(counts))
    before, after = (ids[rows] == labels for ids in (outcomes.best_seen, outcomes.best_unseen))
    given = [ids[rows] == labels for ids in (outcomes.decisions(gamma), outcomes.decisions(0.0))]
    right = np.stack([after if unseen else before, *given], axis=1).astype(np.float64)
    return Group(counts, share, outcomes.flip[rows], before, after.astype(np.float64) - before, right)


def flip_order(unseen, seen):
    """What AUSUC needs of flips, in their order: the unseen rows that change U and by how much, which of them are right
    before, the seen rows where S falls, and the places of those among the others."""
    changing, falling = np.flatnonzero(unseen.step), np.flatnonzero(seen.step)
    changing = changing[np.argsort(unseen.flip[changing], kind="stable")]
    falling = falling[np.argsort(seen.flip[falling], kind="stable")]
    sides = (np.searchsorted(unseen.flip[changing], seen.flip[falling], side=side) for side in ("left", "right"))
    return changing, unseen.step[changing], unseen.before, falling, *sides


def ausuc(order, unseen_weights, seen_weights):
    """AUSUC when rows have weights [R, rows of the group], -> [R]; `order` is from `flip_order`.

    When gamma passes the flip of a seen row, S falls by that row's weight. U is then the weight of the unseen rows with
    a lower flip. So the trapezoids sum to a Mann-Whitney statistic: the weight of the pairs whose unseen row flips
    first, where equal flips count half (the curve runs diagonally there). A resample changes only the weights. Where a
    model answers unseen classes itself, some unseen rows are right before their flip, and U may fall at it.
    """
    if not unseen_weights.shape[1] or not seen_weights.shape[1]:
        return np.full(len(unseen_weights), np.nan)
    changing, steps, before, falling, below, up_to = order
    U = np.zeros((len(unseen_weights), len(changing) + 1))
    np.cumsum(unseen_weights[:, changing] * steps, axis=1, out=U[:, 1:])
    U += unseen_weights @ before[:, None]
    U = np.take(U, below, axis=1) + np.take(U, up_to, axis=1)
    return np.einsum("rn,rn->r", U, seen_weights[:, falling]) / 2


def named(T, U, S, U0, S0, area):
    """The metrics by name, with H and H0 computed."""
    values = (T, U, S, harmonic(U, S), U0, S0, harmonic(U0, S0), area)
    return dict(zip(METRICS, values, strict=True))


def harmonic(U, S):
    """2US / (U + S), and 0 where both are 0."""
    total = np.asarray(U + S)
    return np.divide(2 * U * S, total, out=np.zeros(total.shape), where=total != 0)


def ratio(total, count):
    """total / count, NaN where there is nothing to count."""
    with np.errstate(invalid="ignore"):  # 0 / 0: no rows or no classes, so NaN
        return np.asarray(total) / count


def _contest(scores, seen, unseen):
    """Best seen class, best unseen class and flip of each row, [N] each. Ids ascend, so argmax takes the lower one."""
    best = np.full((2, len(scores)), -1)
    top = np.full((2, len(scores)), -np.inf)
    for start in range(0, len(scores), _BLOCK_ROWS):
        block = scores[start : start + _BLOCK_ROWS]
        if not np.isfinite(block).all():
            bad = np.argwhere(~np.isfinite(scores))
            where = "row {}, class {}".format(*bad[0])
            raise ValueError(f"{len(bad)} scores are not finite, first in {where}: the model has diverged")
        rows = np.arange(len(block))
        for group, ids in enumerate((seen, unseen)):
            if len(ids):
                part = np.take(block, ids, axis=1)
                column = part.argmax(axis=1)
                best[group, start + rows] = ids[column]
                top[group, start + rows] = part[rows, column]
    return *best, top[0] - top[1]


def _checked_labels(labels, seen, unseen):
    labels = np.asarray(labels)
    seen, unseen = (np.unique(np.asarray(ids, np.int64)) for ids in (seen, unseen))
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}, expected integers of shape (rows,)")
    if not len(seen) + len(unseen):
        raise ValueError("there are neither seen nor unseen classes")
    if len(both := np.intersect1d(seen, unseen)):
        raise ValueError(f"{len(both)} classes are both seen and unseen, first {both[0]}")
    if len(strange := np.flatnonzero(~np.isin(labels, np.concatenate([seen, unseen])))):
        raise ValueError(
            f"{len(strange)} labels are neither seen nor unseen classes, first {labels[strange[0]]} in row {strange[0]}"
        )
    return labels, seen, unseen


def _checked_answers(answers, labels, candidates):
    answers = np.asarray(answers)
    if answers.shape != labels.shape:
        raise ValueError(f"seen_answers have shape {answers.shape}, expected {labels.shape}: one per row")
    if len(strange := np.flatnonzero(~np.isin(answers, candidates))):
        first = strange[0]
        raise ValueError(f"{len(strange)} seen_answers are no candidates, first {answers[first]} in row {first}")
    return answers


def _class_means(right, labels, ids):
    """[len(ids)] share of right rows in each class, NaN for a class without rows."""
    rows = np.isin(labels, ids)
    where = np.searchsorted(ids, labels[rows])
    return ratio(np.bincount(where, right[rows], len(ids)), np.bincount(where, minlength=len(ids)))


def mean_over_classes(accuracies):
    present = accuracies[~np.isnan(accuracies)]
    return float(present.mean()) if len(present) else float("nan")
