"""python -m tuning.run --model NAME --dataset NAME|PATH: searches the weights of losses, on validation classes.

A trial is `recipe.select` in stage tune, averaged over --seeds and --folds: its epoch and its gamma are chosen inside
it, and nothing here can reach the published test classes. The winner becomes recipe.json, and one run of
`experiments.run --config recipe.json` looks at the test classes; --nofinal_run leaves that look out.
With --sweep SYMBOL=VALUE,VALUE,... nothing is searched: one symbol varies, and its curve is drawn.
"""

import dataclasses
import os
import pathlib
import sys
import time
import uuid

import keras
import numpy as np
from absl import flags

from experiments import configs, recipe, report, run
from tuning import search, spaces
from zslkeras import plots, strategies
from zslkeras.benchmarks import files
from zslkeras.errors import InputError
from zslkeras.evaluation import METRICS
from zslkeras.models import MODELS
from zslkeras.training import Diverged

FLAGS = flags.FLAGS
flags.DEFINE_enum("tuner", "bayesian", search.TUNERS, "KerasTuner's oracle")
flags.DEFINE_integer(
    "trials", None, "how many; 20 if not given. hyperband counts its own and ends early here", lower_bound=1
)
flags.DEFINE_enum("objective", "H", ["H", "AUSUC", "T"], "what the best trial has most of, on validation classes")
flags.DEFINE_integer("folds", 1, "draws of validation classes that a trial is the mean over", lower_bound=1)
flags.DEFINE_integer("first_fold", 0, "number of the first draw; 0 is the published validation classes", lower_bound=0)
flags.DEFINE_integer("search_seed", 1, "of the oracle's draws", lower_bound=1)
flags.DEFINE_bool("final_run", True, "train the winner in stage final and look at the test classes once")
flags.DEFINE_multi_string("sweep", [], "SYMBOL=VALUE,VALUE,...: draw the curve of one symbol instead; repeat for more")
flags.DEFINE_enum("role", None, ["chief", "worker"], "one of several processes; or set KerasTuner's own variables")
flags.DEFINE_string("chief", "127.0.0.1:8000", "host:port of the chief, where KerasTuner's own variables are not set")

_SHOWN = ("T", "U", "S", "H", "AUSUC")
_TOP = 10  # trials in the table


def main(argv):
    model, data, role = _checked(argv), run.data_from_flags(), _role()
    keras.config.set_dtype_policy(FLAGS.precision)
    strategy = strategies.get_strategy(FLAGS.strategy, FLAGS.replicas)
    benchmark = data.load("tune", model.eats)  # wrong data is found before anything is written
    config = run.config_from_flags(model, benchmark, FLAGS.ablation)
    benchmark = recipe.as_read(benchmark, config)
    out = pathlib.Path(FLAGS.out or f"runs/{FLAGS.model}-{benchmark.name}-{'sweep' if FLAGS.sweep else 'search'}")
    base = recipe.Experiment(FLAGS.model, config, data, strategy, out, FLAGS.jit, FLAGS.deterministic, logs=False)

    def varied(values, folder):
        fields = spaces.settings(FLAGS.model, values)
        named = benchmark.name, benchmark.features, None
        other = configs.config_for(model, FLAGS.model, *named, fields, dataclasses.asdict(config))
        return dataclasses.replace(base, config=other, out=folder)

    sweeps = [_sweep(out, text, varied) for text in FLAGS.sweep]  # wrong values are found before anything is written
    identity = run.identity(benchmark, strategy, {None: config}) | _identity()
    if role != "worker":
        print(report.heading(FLAGS.model, benchmark), f"written to {out}", sep="\n", flush=True)
        with run.opened(out, identity):
            for symbol, experiments in sweeps:
                _draw_sweep(out, symbol, experiments)
            if not sweeps:
                _search(out, varied, role, config)
        return
    tuner = _tuner(out, varied, config)
    print(f"waiting for the chief at {_where()}", flush=True)
    tuner.oracle.get_space()
    if not (out / "run.json").exists():
        raise InputError(
            f"--out: {out} is not the chief's; wanted the folder that it writes to, on a disk shared with it"
        )
    FLAGS.resume = True  # what the chief has opened
    with run.opened(out, identity):
        tuner.search()


def _checked(argv):
    """The model class, where the flags make sense together."""
    if len(argv) > 1:
        raise InputError(f"got {argv[1]!r}; every argument is a flag, as in --model aspn")
    for name in ("model", "dataset"):
        if not FLAGS[name].value:
            raise InputError(f"--{name} is missing; {FLAGS[name].help}")
    if FLAGS.model not in spaces.SPACES:
        raise InputError(f"--model: got {FLAGS.model!r}; wanted one of {', '.join(spaces.SPACES)}")
    if FLAGS.strategy == "multiworker":
        raise InputError("--strategy: got multiworker; wanted default or mirrored, and --role for several machines")
    if FLAGS.select == "fixed":
        raise InputError("--select: got fixed; wanted val: each trial chooses its epoch on validation classes")
    if FLAGS.sweep and FLAGS.role:
        raise InputError(f"--role: got {FLAGS.role} with --sweep; a sweep is one process")
    return MODELS[FLAGS.model]


def _role():
    """ "chief", "worker" or None, which KerasTuner reads from its environment variables."""
    if FLAGS.role:
        host, colon, port = FLAGS.chief.rpartition(":")
        if not colon or not port.isdigit():
            raise InputError(f"--chief: got {FLAGS.chief!r}; wanted host:port")
        # A worker that starts anew has another name; its old trial is taken back when it has been silent for long.
        own = "chief" if FLAGS.role == "chief" else f"worker-{uuid.uuid4().hex[:8]}"
        os.environ |= {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port, "KERASTUNER_TUNER_ID": own}
    named = [os.environ.get(f"KERASTUNER_{name}") for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")]
    if named[1] and not all(named):
        raise InputError("KERASTUNER_ORACLE_IP is set; wanted KERASTUNER_ORACLE_PORT and KERASTUNER_TUNER_ID with it")
    return None if not named[1] else "chief" if "chief" in named[0] else "worker"


def _where():
    return ":".join(os.environ[f"KERASTUNER_ORACLE_{part}"] for part in ("IP", "PORT"))


def _identity():
    """What else may not differ on --resume; more --trials may, and other sweeps."""
    names = ("folds", "first_fold", "seeds") + (() if FLAGS.sweep else ("tuner", "objective", "search_seed"))
    return {"kind": "sweep" if FLAGS.sweep else "search"} | {name: FLAGS[name].value for name in names}


def _validated(experiment):
    """The numbers on validation classes at the states and gammas chosen there, over seeds and folds."""
    rows = []
    for fold in range(FLAGS.first_fold, FLAGS.first_fold + FLAGS.folds):
        for seed in range(FLAGS.seeds or 1):
            choice = recipe.select(experiment, seed, fold)
            rows.append(choice.history[choice.state])
    numbers = {}
    for metric in METRICS:
        values = [row[f"val_{metric}"] for row in rows]
        numbers[metric] = {"mean": float(np.mean(values)), "std": float(np.std(values)), "values": values}
    if not np.isfinite(numbers[FLAGS.objective]["mean"]):
        raise InputError(f"--objective: {FLAGS.objective} is not a number here; wanted rows of all validation classes")
    return numbers


# The search.


def _tuner(out, varied, config):
    def score(values, folder):
        experiment = varied(values, folder)
        return {"numbers": _validated(experiment), "config": dataclasses.asdict(experiment.config)}

    space = spaces.space(FLAGS.model)
    named = FLAGS.tuner, space, FLAGS.objective, FLAGS.trials, config.epochs, FLAGS.search_seed
    return search.Search(search.oracle(*named), out, score)


def _search(out, varied, role, config):
    tuner, began = _tuner(out, varied, config), time.monotonic()
    if role == "chief":
        print(f"chief at {_where()}; start workers with the same flags, --role worker and this --out", flush=True)
        tuner.serve()
    else:
        tuner.search()
    seconds = time.monotonic() - began
    records = [search.record_of(out, trial_id) for trial_id in sorted(tuner.oracle.trials)]
    scored = sorted((one for one in records if "numbers" in one), key=_score, reverse=True)
    summary = {"objective": FLAGS.objective, "seconds": round(seconds, 1), "trials": records}
    print(_table(scored, [one for one in records if "error" in one]))
    if tuner.ran:  # in this process; those of workers overlap
        summary["overhead_seconds"] = round((seconds - sum(tuner.ran)) / len(tuner.ran), 3)
        print(
            f"{len(tuner.ran)} trials in {seconds:.0f} s; {summary['overhead_seconds']:.2f} s a trial outside training"
        )
    recipe.write_json(out / "search.json", summary)
    if not scored:
        sys.exit(f"error: none of {len(records)} trials scored; see their errors above and in {out / 'search.json'}")
    _draw_search(out, records, scored)
    best = scored[0]
    kept = {"model": FLAGS.model, "dataset": FLAGS.dataset, "config": best["config"], "trial": best["trial"]}
    chosen_on = {"objective": FLAGS.objective, "trials": len(records), "validation": best["numbers"]}
    recipe.write_json(out / "recipe.json", kept | chosen_on | _identity())
    print(f"written: {out / 'recipe.json'}, which experiments.run takes as --config", flush=True)
    if FLAGS.final_run:
        print(_side_by_side(best["numbers"], _final(out, best["trial"])))


def _final(out, winner):
    """The one look at the test classes: `experiments.run` with the winner, as anybody would call it."""
    final = out / "final" / winner  # more trials later may have another winner
    FLAGS.config, FLAGS.out, FLAGS.resume = str(out / "recipe.json"), str(final), (final / "run.json").exists()
    FLAGS.set, FLAGS.epochs, FLAGS.batch_size, FLAGS.ablation = [], None, None, None  # all in the recipe
    run.main(["run"])
    return files.read_json(final / "result.json")["selected"]


def _score(record):
    return record["numbers"][FLAGS.objective]["mean"]


def _table(scored, failed):
    symbols = list(spaces.SPACES[FLAGS.model])
    widths = [max(10, len(symbol) + 2) for symbol in symbols]
    lines = ["", f"{'trial':<8}" + "".join(f"{metric:>7}" for metric in _SHOWN)]
    lines[-1] += (
        "".join(f"{symbol:>{width}}" for symbol, width in zip(symbols, widths, strict=True)) + f"{'seconds':>9}"
    )
    for one in scored[:_TOP]:
        line = f"{one['trial']:<8}" + "".join(f"{100 * one['numbers'][metric]['mean']:>7.1f}" for metric in _SHOWN)
        values = [f"{one['values'][symbol]:.4g}" for symbol in symbols]
        line += "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
        lines.append(line + f"{one['seconds']:>9.1f}")
    return "\n".join([*lines, *(search.failure(one["trial"], one) for one in failed)])


def _side_by_side(validation, test):
    def row(label, numbers):
        means = [numbers[metric]["mean"] for metric in _SHOWN]
        return f"{label:<34}" + "".join(f"{np.nan if mean is None else 100 * mean:>7.1f}" for mean in means)

    heading = f"\n{'the winner, percent':<34}" + "".join(f"{metric:>7}" for metric in _SHOWN)
    return "\n".join([heading, row("validation classes, searched on", validation), row("test classes, one look", test)])


def _draw_search(out, records, scored):
    scores = [_score(one) if "numbers" in one else np.nan for one in records]
    plots.best_so_far(out / "best_so_far.png", FLAGS.objective, scores)
    axes = {}
    for parameter in spaces.space(FLAGS.model).space:
        heights = [parameter.value_to_prob(one["values"][parameter.name]) for one in scored]
        ticks = [(height, f"{parameter.prob_to_value(height):.3g}") for height in (0.0, 0.5, 1.0)]
        axes[parameter.name] = heights, ticks
    plots.parallel_coordinates(out / "trials.png", axes, FLAGS.objective, [_score(one) for one in scored])


# The sweep of one symbol.


def _sweep(out, text, varied):
    """The symbol, and the experiment of each of its values."""
    symbol, equals, values = text.partition("=")
    values = [value for value in values.split(",") if value]
    if not equals or not values:
        raise InputError(f"--sweep: got {text!r}; wanted SYMBOL=VALUE,VALUE,...")
    folder = out / f"sweep-{symbol}"
    return symbol, {value: varied({symbol: value}, folder / value.replace(os.sep, "_")) for value in values}


def _draw_sweep(out, symbol, experiments):
    rows = {}
    for value, experiment in experiments.items():
        try:
            rows[value] = _validated(experiment)
        except Diverged as error:
            rows[value] = {metric: {"mean": np.nan, "std": np.nan, "values": []} for metric in METRICS}
            print(f"{symbol}={value} failed: {error}", file=sys.stderr, flush=True)
    print("", f"{symbol:<16}" + "".join(f"{metric:>15}" for metric in _SHOWN), sep="\n")
    for value, numbers in rows.items():
        cells = (f"{100 * numbers[m]['mean']:.1f} +- {100 * numbers[m]['std']:.1f}" for m in _SHOWN)
        print(f"{value:<16}" + "".join(f"{cell:>15}" for cell in cells))
    curves = {m: ([row[m]["mean"] for row in rows.values()], [row[m]["std"] for row in rows.values()]) for m in _SHOWN}
    del curves["AUSUC"]  # an area, not a share of pictures
    plots.sensitivity(out / f"sweep-{symbol}.png", symbol, list(rows), curves)
    recipe.write_json(out / f"sweep-{symbol}.json", {"symbol": symbol, "values": rows} | _identity())
    print(f"written: {out / f'sweep-{symbol}.png'}", flush=True)


if __name__ == "__main__":
    run.guarded(main)
