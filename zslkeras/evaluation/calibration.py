"""Chooses gamma, the number that calibrated stacking adds to the scores of unseen classes."""

import numpy as np

from zslkeras.evaluation import metrics


def carried(gamma, own, others):
    """The gamma for stage final, of one that was chosen on the validation classes of one fold.

    Which classes a fold holds out moves the best gamma more than anything else. A closed form shows by how much,
    because it can be fitted on many folds in seconds: where its own gamma is higher on this fold than on average, so is
    that of a model with the same closed form in its scores, and it is lowered by the same factor. docs/notes/gamma.md
    has the H that is lost with and without.

    Args:
        gamma: of the model on the fold.
        own: gamma of the closed form on the same fold.
        others: its gammas on further folds.
    """
    factor = np.mean([own, *others]) / own if own > 0 else 1.0
    return float(gamma * factor) if factor > 0 else gamma


def best_gamma(outcomes):
    """The gamma with the highest H, and that H. Gamma is the middle of the best interval between two break points.

    Of equally good intervals, the one whose middle is nearest to 0 wins. If no gamma gives H > 0, gamma is 0.
    """
    unseen, seen = metrics.group_of(outcomes, 0.0, True), metrics.group_of(outcomes, 0.0, False)
    # Rows that are right or wrong on both sides of their flip change nothing.
    moving = [group.step != 0 for group in (unseen, seen)]
    breaks, where = np.unique(
        np.concatenate([group.flip[rows] for group, rows in zip((unseen, seen), moving, strict=True)]),
        return_inverse=True,
    )
    where = np.split(where, [np.count_nonzero(moving[0])])
    steps = [
        np.bincount(places, (group.share * group.step)[rows], len(breaks))
        for places, group, rows in zip(where, (unseen, seen), moving, strict=True)
    ]
    # Entry 0 holds up to breaks[0], where U = 0 unless a model answers unseen classes itself, and entry k for
    # breaks[k - 1] < gamma <= breaks[k]. Above all breaks S = 0, so H = 0.
    U = unseen.share @ unseen.before + np.concatenate([[0.0], np.cumsum(steps[0])])[:-1]
    S = -np.cumsum(steps[1][::-1])[::-1]
    H = metrics.harmonic(U, S)
    gamma = 0.0
    if H.size and H.max() > 0:
        best = np.isclose(H, H.max(), rtol=0, atol=1e-12)  # sums in another order differ by rounding
        low, high = np.concatenate([breaks[:1], breaks[:-1]])[best], breaks[best]
        middle = low + (high - low) / 2
        # Neighbouring floats, and entry 0, have no middle; high is inside.
        middle = np.where(middle > low, middle, high)
        gamma = float(middle[np.abs(middle).argmin()])
    table = metrics.per_class(outcomes, gamma)
    return gamma, float(metrics.harmonic(metrics.mean_over_classes(table["U"]), metrics.mean_over_classes(table["S"])))
