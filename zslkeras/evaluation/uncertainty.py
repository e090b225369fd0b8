"""How far to trust the metrics: bootstrap intervals, and a paired comparison of two models.

A bootstrap redraws the images, or the classes, many times. A row counts as often as it was drawn, and the metrics of
many draws are computed from these weights at once.
"""

import numpy as np

from zslkeras.evaluation import metrics
from zslkeras.evaluation.metrics import METRICS

_BLOCK_WEIGHTS = 2**21  # resampled weights held at a time: 16 MB per array


def intervals(outcomes, gamma, resamples=1000, seed=0, level=0.95):
    """Bootstrap percentile intervals, {"rows": {metric: [low, high]}, "classes": {metric: [low, high]}}.

    "rows" redraws the images within each class: the spread over other images of the same classes. "classes" redraws
    the seen and the unseen classes, each with its rows: the spread over other classes, which is usually much wider.
    With a single class, the interval over classes is one point and means nothing.
    """
    unseen, seen = metrics.group_of(outcomes, gamma, True), metrics.group_of(outcomes, gamma, False)
    order = metrics.flip_order(unseen, seen)
    size = max(1, _BLOCK_WEIGHTS // max(1, len(outcomes.labels)))
    result = {}
    for kind in ("rows", "classes"):
        rng, blocks = np.random.default_rng(seed), []
        for start in range(0, resamples, size):
            draws = [_draws_of(kind, rng, group, min(size, resamples - start)) for group in (unseen, seen)]
            blocks.append(_resampled(unseen, seen, order, *draws))
        result[kind] = {name: _interval(np.concatenate([block[name] for block in blocks]), level) for name in METRICS}
    return result


def versus(folds, resamples=2000, seed=0, level=0.95):
    """Paired per-class comparison of a model with a baseline; see `paired` for what it returns.

    Args:
        folds: list of (model runs, baseline runs), one pair per benchmark or fold. A run is (Outcomes, gamma), one per
            seed; all runs of a fold are over the same rows.
    """
    for model_runs, baseline_runs in folds:
        first, *others = [run for run, _ in [*model_runs, *baseline_runs]]
        for name in ("labels", "seen", "unseen"):
            if not all(np.array_equal(getattr(first, name), getattr(other, name)) for other in others):
                raise ValueError(f"the runs to compare differ in {name}: a paired comparison needs the same rows")
    model_tables, baseline_tables = ([_mean_table(runs) for runs in side] for side in zip(*folds, strict=True))
    return paired(model_tables, baseline_tables, resamples, seed, level)


def paired(model_tables, baseline_tables, resamples=2000, seed=0, level=0.95):
    """Compares tables from `metrics.per_class`, one per fold, class by class.

    For T, U and S, the difference is the mean of the per-class differences over the classes of all folds. For H, it is
    the mean over folds of the difference in H, where H comes from the fold's mean U and S; classes won and lost are
    counted over all classes, by U or S. Intervals redraw the classes of each fold, with the same draw for both sides.
    Folds count as independent: if they share seen classes, the intervals of S and H are too narrow.

    Returns:
        {metric: {"difference", "interval", "classes_won", "classes_lost", "classes"}} for T, U, S and H.
    """
    rng = np.random.default_rng(seed)
    differences = {name: [] for name in "TUSH"}  # per fold: [classes]
    drawn = {name: [] for name in "TUSH"}  # per fold: [1 + resamples], the sum over the drawn classes (for H its value)
    for model, baseline in zip(model_tables, baseline_tables, strict=True):
        means = {}
        for names in ("TU", "S"):
            present = ~np.isnan(model[names[0]])
            num = np.count_nonzero(present)
            draws = np.concatenate([np.ones((1, num)), _draws(rng, [num], resamples)])  # draw 0 is the observed data
            for name in names:
                sides = np.stack([model[name][present], baseline[name][present]])
                differences[name].append(sides[0] - sides[1])
                drawn[name].append(draws @ differences[name][-1])
                means[name] = metrics.ratio(draws @ sides.T, num)  # [1 + resamples, 2]
        H = metrics.harmonic(means["U"], means["S"])
        differences["H"] += [differences["U"][-1], differences["S"][-1]]
        drawn["H"].append(H[:, 0] - H[:, 1])
    result = {}
    for name in "TUSH":
        difference = np.concatenate(differences[name])
        values = metrics.ratio(np.sum(drawn[name], axis=0), len(model_tables) if name == "H" else len(difference))
        result[name] = {
            "difference": float(values[0]),
            "interval": _interval(values[1:], level),
            "classes_won": int(np.sum(difference > 1e-9)),  # means over seeds are rounded
            "classes_lost": int(np.sum(difference < -1e-9)),
            "classes": len(difference),
        }
    return result


def _resampled(unseen, seen, order, unseen_draws, seen_draws):
    """The metrics when each row counts as often as drawn: draws [R, rows of the group] -> {metric: [R]}."""
    unseen_weights, seen_weights = unseen_draws * unseen.share, seen_draws * seen.share
    T, U, U0 = _totals(unseen, unseen_weights)
    _, S, S0 = _totals(seen, seen_weights)
    return metrics.named(T, U, S, U0, S0, metrics.ausuc(order, unseen_weights, seen_weights))


def _totals(group, weights):
    return (weights @ group.right).T if len(group.right) else np.full((3, len(weights)), np.nan)


def _draws_of(kind, rng, group, resamples):
    """[resamples, rows] how often each row, or the class that it belongs to, is drawn."""
    if kind == "rows":
        return _draws(rng, group.counts, resamples)
    return np.repeat(_draws(rng, [len(group.counts)], resamples), group.counts, axis=1)


def _draws(rng, sizes, resamples):
    """Bootstrap counts [resamples, sum(sizes)] of items in consecutive sets; a set of n items is drawn from n times."""
    first, size = (np.repeat(v, sizes) for v in (np.cumsum(sizes) - sizes, sizes))
    picks = first + (rng.random((resamples, len(size))) * size).astype(np.int64)
    picks += len(size) * np.arange(resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape)


def _mean_table(runs):
    tables = [metrics.per_class(run, gamma) for run, gamma in runs]
    return {name: np.mean([table[name] for table in tables], axis=0) for name in "TUS"}


def _interval(values, level):
    return [float(v) for v in np.quantile(values, [(1 - level) / 2, (1 + level) / 2])]
