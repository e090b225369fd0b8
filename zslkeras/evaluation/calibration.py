"""Chooses gamma, the number that calibrated stacking adds to the scores of unseen classes."""

import numpy as np

from zslkeras.evaluation import metrics


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
