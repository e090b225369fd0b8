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
    # Rows that are wrong within their own group are wrong at every gamma, so their flips change nothing.
    breaks, where = np.unique(np.concatenate([unseen.flip[unseen.own], seen.flip[seen.own]]), return_inverse=True)
    where = np.split(where, [np.count_nonzero(unseen.own)])
    gained, lost = (np.bincount(w, g.share[g.own], len(breaks)) for w, g in zip(where, (unseen, seen), strict=True))
    # Entry k holds for breaks[k] < gamma <= breaks[k + 1]. Below all breaks U = 0 and above them S = 0, so H = 0.
    H = metrics.harmonic(np.cumsum(gained)[:-1], np.cumsum(lost[::-1])[::-1][1:])
    gamma = 0.0
    if H.size and H.max() > 0:
        best = np.isclose(H, H.max(), rtol=0, atol=1e-12)  # sums in another order differ by rounding
        low, high = breaks[:-1][best], breaks[1:][best]
        middle = low + (high - low) / 2
        middle = np.where(middle > low, middle, high)  # neighbouring floats have no middle; high is inside
        gamma = float(middle[np.abs(middle).argmin()])
    table = metrics.per_class(outcomes, gamma)
    return gamma, float(metrics.harmonic(metrics.mean_over_classes(table["U"]), metrics.mean_over_classes(table["S"])))
