"""Compares rows on validation classes, and finished runs class by class."""

import pathlib

from experiments import cases, published, screen
from zslkeras import atomic, protocol, runs
from zslkeras.errors import InputError
from zslkeras.evaluation import metrics, tables, uncertainty
from zslkeras.models import MODELS
from zslkeras.training import strategies


def compare(settings):
    """The work of `experiments.compare`; see there."""
    out, rows = pathlib.Path(settings.out), settings.rows
    folds = range(settings.first_fold, settings.first_fold + settings.folds)
    experiments = _experiments(settings)
    with strategies.watched(settings.machine.strategy):
        outcomes = {row: _validated(row, experiments[row], settings, folds) for row in rows}
        strategies.finish(experiments[rows[0]].strategy)
    numbers = {
        row: [[metrics.numbers(*one) for one in by_fold[fold]] for fold in folds] for row, by_fold in outcomes.items()
    }
    flat = [(row, [one for seeds in by_fold for one in seeds]) for row, by_fold in numbers.items()]
    print(screen.means("mean over folds and seeds", flat))
    first, *others = rows
    comparisons = {}
    for other in others:
        comparisons[other] = uncertainty.versus([(outcomes[first][fold], outcomes[other][fold]) for fold in folds])
        print(f"\n{first} against {other}, paired by class, {len(folds)} folds pooled")
        print(tables.paired(comparisons[other]))
    result = {"folds": list(folds), "numbers": numbers, "first": first, "versus": comparisons}
    atomic.write_json(out / "compare.json", result)


def _experiments(settings):
    """The Experiment of each row, all with different settings."""
    model, data, experiments = MODELS[settings.model], cases.source(settings.data), {}
    known = dict.fromkeys([*model.ablations, *protocol.YARDSTICKS])
    for row in settings.rows:
        if row not in known:
            raise InputError(f"rows: got {row!r}; wanted some of {', '.join(known)}")
    benchmark = data.load("tune", model.eats)
    for row in settings.rows:
        if _is_yardstick(row, model):
            name, config = row, MODELS[row].Config()
        else:
            name, config = settings.model, published.config(settings.model, benchmark, settings.overrides, row)
        for other, same in experiments.items():
            if config == same.config:
                raise InputError(
                    f"rows: {other} and {row} have the same settings; wanted different ones. --set overrides what an "
                    "ablation sets: put such settings in a --config file, which ablations can change"
                )
        out = pathlib.Path(settings.out) / row
        experiments[row] = protocol.Experiment(name, config, data, settings.machine.machine(), out, logs=False)
    return experiments


def _is_yardstick(row, model):
    """Whether a row is a yardstick; an ablation of the same name comes first."""
    return row in protocol.YARDSTICKS and row not in model.ablations


def _validated(row, experiment, settings, folds):
    """{fold: [(Outcomes, gamma) per seed]} of one row; what is finished in its folder is not trained again."""
    model = MODELS[settings.model]
    seeds = 1 if _is_yardstick(row, model) else settings.seeds or model.default_seeds
    identity = runs.identity(experiment.model, experiment.machine, experiment.load("tune"), {row: experiment.config})
    with runs.opened(experiment.out, identity, resume=None):
        return {fold: [protocol.validated(experiment, seed, fold) for seed in range(seeds)] for fold in folds}


def pair(settings):
    """The work of `experiments.pair`; see there."""
    paths, others = settings.runs, settings.against
    ours = [runs.reopened(path, settings.data_root, argument="runs") for path in paths]
    if settings.with_yardstick:
        theirs = [_yardstick(others[0], one) for one in ours]
        others = others * len(paths)
    else:
        theirs = [runs.reopened(path, settings.data_root, argument="against") for path in others]
    folds = [[list(map(protocol.scored, seeds)) for _, seeds in pair] for pair in zip(ours, theirs, strict=True)]
    try:
        comparison = uncertainty.versus(folds)
    except ValueError as error:
        raise InputError(f"against: {error}") from None
    rows = []
    for path, other, (mine, its) in zip(paths, others, folds, strict=True):
        rows += [(path, _numbers(mine)), (other, _numbers(its))]
    print(screen.means("mean over seeds", rows))
    print(f"\nthe first of each pair against the second, paired by class, {len(paths)} pooled")
    print(tables.paired(comparison))


def _yardstick(name, run):
    experiment, seeds = run
    yardsticks, reason = protocol.yardsticks(experiment, seeds)
    if name not in yardsticks:
        raise InputError(f"against: got {name}, but no pooled features for it beside {experiment.out}: {reason}")
    return experiment, [yardsticks[name]]


def _numbers(scored):
    return [metrics.numbers(*one) for one in scored]
