"""The work of `experiments.rejection`: thresholds of half of the validation classes, judged on the other half."""

import numpy as np
from sklearn.metrics import roc_auc_score

from experiments import rows
from zslkeras import protocol
from zslkeras.evaluation import confidence, tables
from zslkeras.evaluation.confidence import Confidence

LISTS = ("all", "new", "short")
COLUMNS = ("lost", "told", "AUROC", "error before", "error after")


def measure(settings):
    """The work of `experiments.rejection`; see there."""
    _, experiments = rows.asked(settings.model, settings.data, settings.overrides, settings.machine)
    (experiment,) = experiments.values()
    found = {name: [] for name in LISTS}
    for fold in range(settings.folds):
        known = protocol.select(experiment, 0, fold).confidence
        generator = np.random.default_rng(fold)
        for _ in range(settings.draws):
            for name, numbers in drawn(known, settings.rate, settings.short, generator).items():
                found[name].append(numbers)
    print(table(settings.model, settings.rate, settings.short, found))


def drawn(known, rate, short, generator):
    """{list: numbers by COLUMNS}, for one draw of halves.

    Args:
        known: the Confidence on the test rows of stage tune.
        rate: that is asked for.
        short: how many classes the short list has.
        generator: of the halves and the short list.
    """
    halves = [np.array_split(generator.permutation(np.flatnonzero(group)), 2) for group in (known.seen, ~known.seen)]
    (first_seen, other_seen), (first, other) = halves
    columns = np.sort(np.concatenate([np.flatnonzero(known.seen), first]))
    chosen_on = np.isin(known.labels, np.concatenate([first_seen, first]))
    labels = np.searchsorted(columns, known.labels[chosen_on])
    chosen = Confidence(known.scores[chosen_on][:, columns], labels, known.seen[columns], known.gamma)
    away = np.isin(known.labels, first)  # images of classes that are on no list
    lists = {"all": np.concatenate([np.flatnonzero(known.seen), other]), "new": other, "short": other[:short]}
    numbers = {}
    for name, listed in lists.items():
        seen = np.count_nonzero(known.seen[listed])
        threshold = chosen.threshold(rate, seen, len(listed) - seen)
        asked = np.isin(known.labels, listed) & np.isin(known.labels, np.concatenate([other_seen, other]))
        reference = confidence.reference(known.scores[:, known.seen], chosen.warmth)
        evidence = known.calibrated[:, listed].max(axis=1) - reference
        below = evidence < threshold
        groups = [np.unique(known.labels[asked & (known.seen[known.labels] == kind)]) for kind in (True, False)]
        means = [[below[asked & (known.labels == one)].mean() for one in group] for group in groups]
        shares = [(len(part), size) for part, size in zip(means, (seen, len(listed) - seen), strict=True)]
        lost = np.average(np.concatenate(means), weights=np.concatenate([[size / n] * n for n, size in shares if n]))
        both = np.concatenate([evidence[asked], evidence[away]])
        right = np.argmax(known.labels[asked][:, None] == listed, axis=1)
        errors = (
            confidence.calibration_error(confidence.probabilities(known.calibrated[asked][:, listed], one), right)
            for one in (1.0, chosen.temperature)
        )
        auroc = roc_auc_score(np.repeat([1, 0], [asked.sum(), away.sum()]), both)
        numbers[name] = dict(zip(COLUMNS, (lost, below[away].mean(), auroc, *errors), strict=True))
    return numbers


def table(model, rate, short, found):
    """The means over draws, and how far `lost` goes, as text."""
    names = {
        "all": "trained classes, half of validation",
        "new": "half of the validation classes",
        "short": f"{short} of them",
    }
    lines = []
    for name, numbers in found.items():
        cells = [tables.percent(np.mean([one[column] for one in numbers])) for column in COLUMNS]
        low, high = np.quantile([one["lost"] for one in numbers], [0.1, 0.9])
        lines.append((names[name], [*cells, tables.span((low, high))]))
    title = f"{model}: none of these, {tables.percent(rate)} asked for, percent"
    return tables.grid(title, [*COLUMNS, "lost, 80 % of draws"], lines)
