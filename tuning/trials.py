"""The work of `tuning.run`: trials on validation classes, their tables and figures, and one final run of the winner."""

import dataclasses
import os
import pathlib
import sys
import time
import uuid

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from experiments import rows, screen
from tuning import search, spaces
from zslkeras import atomic, protocol, runs
from zslkeras.errors import Failed, InputError
from zslkeras.evaluation import metrics, tables
from zslkeras.figures import plots
from zslkeras.models import MODELS
from zslkeras.models import config as configs

_SHOWN = ("T", "U", "S", "H", "AUSUC")
_TOP = 10  # trials in the table


def run(settings):
    """A search, or sweeps, as the settings of `tuning.run` say."""
    role, kind = _role(settings.search), "sweep" if settings.sweep else "search"
    benchmark, experiments = rows.asked(
        settings.model, settings.data, settings.overrides, settings.machine, settings.trial.ablation
    )
    (base,) = experiments.values()
    out = pathlib.Path(settings.out or f"runs/{settings.model}-{benchmark.name}-{kind}")
    base = dataclasses.replace(base, out=out, logs=False)
    sweeps = [_sweep(base, text) for text in settings.sweep]  # wrong values are found before anything is written
    known = {name: getattr(settings.trial, name) for name in ("folds", "first_fold", "seeds")}
    if not sweeps:  # other sweeps may be added to a folder of sweeps, and more trials to one of a search
        known |= {name: getattr(settings.search, name) for name in ("tuner", "objective", "search_seed")}
    known["kind"] = kind
    identity = runs.identity(settings.model, base.machine, benchmark, {None: base.config}, **known)
    if role == "worker":
        _work(settings, base, identity)
        return
    print(screen.heading(settings.model, benchmark), f"written to {out}", sep="\n", flush=True)
    with runs.opened(out, identity, settings.resume):
        for symbol, values in sweeps:
            _draw_sweep(settings, out, symbol, values, known)
        if not sweeps:
            _search(settings, benchmark, base, role, known)


def _role(settings):
    """ "chief", "worker" or None, which KerasTuner reads from its environment variables."""
    if settings.role:
        host, _, port = settings.chief.rpartition(":")
        # A restarted worker has a new name; the chief takes its old trial back after LOST_SECONDS of silence.
        own = "chief" if settings.role == "chief" else f"worker-{uuid.uuid4().hex[:8]}"
        os.environ |= {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port, "KERASTUNER_TUNER_ID": own}
    named = [os.environ.get(f"KERASTUNER_{name}") for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")]
    if named[1] and not all(named):
        raise InputError("KERASTUNER_ORACLE_IP is set; wanted KERASTUNER_ORACLE_PORT and KERASTUNER_TUNER_ID with it")
    return None if not named[1] else "chief" if "chief" in named[0] else "worker"


def _where():
    return ":".join(os.environ[f"KERASTUNER_ORACLE_{part}"] for part in ("IP", "PORT"))


def _work(settings, base, identity):
    """One of several processes: runs the trials that the chief names."""
    tuner = _tuner(settings, base)
    print(f"waiting for the chief at {_where()}", flush=True)
    tuner.oracle.get_space()
    if not (base.out / "run.json").exists():
        raise InputError(
            f"out: {base.out} is not the chief's; wanted the folder that it writes to, on a disk shared with it"
        )
    runs.require_same(base.out, identity, resume=True)  # the folder is the chief's, who keeps it
    tuner.search()


def _varied(base, values, folder):
    """The experiment with other values of some symbols, in a folder of its own."""
    fields = spaces.settings(base.model, values)
    config = configs.build(MODELS[base.model], base.model, dataclasses.asdict(base.config), fields)
    return dataclasses.replace(base, config=config, out=folder)


def _validated(settings, experiment):
    """{metric: summary} on validation classes at the states and gammas chosen there, over seeds and folds."""
    trial, chosen = settings.trial, []
    for fold in range(trial.first_fold, trial.first_fold + trial.folds):
        for seed in range(trial.seeds):
            choice = protocol.select(experiment, seed, fold)
            state = choice.history[choice.state]
            chosen.append({metric: state[f"val_{metric}"] for metric in metrics.METRICS})
    numbers = metrics.summaries(chosen)
    objective = settings.search.objective
    if not np.isfinite(numbers[objective]["mean"]):
        raise InputError(f"objective: {objective} is not a number here; wanted rows of all validation classes")
    return numbers


# The search.


def _tuner(settings, base):
    def score(values, folder):
        experiment = _varied(base, values, folder)
        numbers = _validated(settings, experiment)
        _show(base.out / "tensorboard" / folder.name, values, numbers)
        return {"numbers": numbers, "config": dataclasses.asdict(experiment.config)}

    options, space = settings.search, search.space(settings.model)
    named = options.tuner, space, options.objective, options.trials, base.config.epochs, options.search_seed
    return search.Search(search.oracle(*named), base.out, score)


def _show(logs, values, numbers):
    """Tells TensorBoard's HParams a trial: its values, and its metrics on validation classes."""
    with tf.summary.create_file_writer(str(logs)).as_default():
        hparams.hparams(values)
        for metric, column in numbers.items():
            tf.summary.scalar(f"val_{metric}", column["mean"], step=0)


def _search(settings, benchmark, base, role, known):
    tuner, began, out = _tuner(settings, base), time.monotonic(), base.out
    if role == "chief":
        print(f"chief at {_where()}; start workers with the same flags, --role worker and this --out", flush=True)
        tuner.serve()
    else:
        tuner.search()
    seconds = time.monotonic() - began
    objective, symbols = settings.search.objective, list(spaces.SPACES[settings.model])
    records = [search.record_of(out, trial_id) for trial_id in sorted(tuner.oracle.trials)]
    scored = sorted((one for one in records if "numbers" in one), key=lambda one: _score(one, objective), reverse=True)
    summary = {"objective": objective, "seconds": round(seconds, 1), "trials": records}
    print("", _table(scored[:_TOP], symbols), sep="\n")
    for one in records:
        if "error" in one:
            print(search.failure(one["trial"], one))
    if tuner.ran:  # in this process; trials of workers overlap
        summary["overhead_seconds"] = round((seconds - sum(tuner.ran)) / len(tuner.ran), 3)
        print(
            f"{len(tuner.ran)} trials in {seconds:.0f} s; {summary['overhead_seconds']:.2f} s a trial outside training"
        )
    atomic.write_json(out / "search.json", summary)
    if not scored:
        raise Failed(f"none of {len(records)} trials scored; see their errors above and in {out / 'search.json'}")
    _draw_search(out, settings.model, objective, records, scored)
    best = scored[0]
    kept = {"model": settings.model, "dataset": settings.data.dataset, "config": best["config"], "trial": best["trial"]}
    chosen_on = {"objective": objective, "trials": len(records), "validation": best["numbers"]}
    atomic.write_json(out / "recipe.json", kept | chosen_on | known)
    print(f"written: {out / 'recipe.json'}, which experiments.run takes as --config", flush=True)
    if settings.search.final_run:
        print("", _side_by_side(best["numbers"], _final(settings, benchmark, base, best)), sep="\n")


def _final(settings, benchmark, base, best):
    """The one look at the test classes: the winner, trained and judged as by `experiments.run`."""
    out = base.out / "final" / best["trial"]  # with more trials later, another one may win
    config = configs.build(MODELS[base.model], base.model, best["config"])
    winner = {None: dataclasses.replace(base, config=config, logs=True)}
    resume = (out / "run.json").exists()
    rows.train(
        benchmark,
        winner,
        out,
        None,
        settings.trial.seeds,
        resume=resume,
        extras=rows.Extras(export=settings.search.export),
    )
    return atomic.read_json(out / "result.json")["selected"]


def _score(record, objective):
    return record["numbers"][objective]["mean"]


def _table(scored, symbols):
    lines = [
        [
            *tables.percents(one["numbers"], _SHOWN),
            *(f"{one['values'][s]:.4g}" for s in symbols),
            f"{one['seconds']:.1f}",
        ]
        for one in scored
    ]
    return tables.grid(
        "trial", [*_SHOWN, *symbols, "seconds"], [(one["trial"], line) for one, line in zip(scored, lines, strict=True)]
    )


def _side_by_side(validation, test):
    lines = [("validation classes, searched on", validation), ("test classes, one look", test)]
    return tables.grid("the winner, percent", _SHOWN, [(name, tables.percents(one, _SHOWN)) for name, one in lines])


def _draw_search(out, model, objective, records, scored):
    scores = [_score(one, objective) if "numbers" in one else np.nan for one in records]
    plots.best_so_far(out / "best_so_far.png", objective, scores)
    axes = {}
    for parameter in search.space(model).space:
        heights = [parameter.value_to_prob(one["values"][parameter.name]) for one in scored]
        ticks = [(height, f"{parameter.prob_to_value(height):.3g}") for height in (0.0, 0.5, 1.0)]
        axes[parameter.name] = heights, ticks
    plots.parallel_coordinates(out / "trials.png", axes, objective, [_score(one, objective) for one in scored])


# The sweep of one symbol.


def _sweep(base, text):
    """The symbol, and the experiment of each of its values."""
    symbol, equals, values = text.partition("=")
    values = [value for value in values.split(",") if value]
    if not equals or not values:
        raise InputError(f"sweep: got {text!r}; wanted SYMBOL=VALUE,VALUE,...")
    folder = base.out / f"sweep-{symbol}"
    return symbol, {value: _varied(base, {symbol: value}, folder / value.replace(os.sep, "_")) for value in values}


def _draw_sweep(settings, out, symbol, experiments, known):
    table = {}
    for value, experiment in experiments.items():
        try:
            table[value] = _validated(settings, experiment)
        except Failed as error:
            table[value] = {metric: {"mean": np.nan, "std": np.nan, "values": []} for metric in metrics.METRICS}
            print(f"{symbol}={value} failed: {error}", file=sys.stderr, flush=True)
    lines = [(value, tables.percents(numbers, _SHOWN, std=True)) for value, numbers in table.items()]
    print("", tables.grid(symbol, _SHOWN, lines), sep="\n")
    curves = {
        m: ([row[m]["mean"] for row in table.values()], [row[m]["std"] for row in table.values()]) for m in _SHOWN
    }
    del curves["AUSUC"]  # an area, not a share of images
    plots.sensitivity(out / f"sweep-{symbol}.png", symbol, list(table), curves)
    atomic.write_json(out / f"sweep-{symbol}.json", {"symbol": symbol, "values": table} | known)
    print(f"written: {out / f'sweep-{symbol}.png'}", flush=True)
