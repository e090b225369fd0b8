"""The work of `experiments.transfer`: candidates on disk, their numbers on validation classes, and the table."""

import dataclasses
import hashlib
import json
import pathlib
import time

import numpy as np

from experiments import cases, published
from zslkeras import atomic, protocol, runs
from zslkeras.cli import flags
from zslkeras.errors import InputError
from zslkeras.evaluation import metrics, tables
from zslkeras.models import MODELS
from zslkeras.names import YARDSTICKS

_SHOWN = ("T", "H", "AUSUC")


def transfer(settings):
    """The work of `experiments.transfer`; see there."""
    path = pathlib.Path(settings.candidates or f"results/candidates/{settings.model}.json")
    if not settings.table:
        draws = cases.read(settings.benchmarks, range(settings.folds))
        for name in (settings.model, *YARDSTICKS):
            book = path if name == settings.model else path.with_name(f"{name}.json")
            _measure(name, settings, draws, book)
    print(table(settings.model, path))


def table(model, path):
    """The candidates of a model on every benchmark, and what leaving each benchmark out says, as text."""
    book = atomic.read_json(path)
    if not book:
        raise InputError(f"candidates: no {path}; wanted the file of an earlier measurement")
    known = {name: _by_benchmark(entry["scores"]) for name, entry in book.items()}
    benchmarks = list(dict.fromkeys(one for scores in known.values() for one in scores))
    has = {name: _measured(entry["scores"]) for name, entry in book.items()}
    whole = {name: scores for name, scores in known.items() if has[name] == set().union(*has.values())}
    names = {name: f"{number}" for number, name in enumerate(known, 1)}
    lines = [f"candidates of {model}: T / H / AUSUC on validation classes, percent"]
    rows = [(names[name], [_cell(scores.get(one)) for one in benchmarks]) for name, scores in known.items()]
    yardsticks = {}
    for name in YARDSTICKS:
        for entry in atomic.read_json(path.with_name(f"{name}.json")).values():
            yardsticks[name] = _by_benchmark(entry["scores"])
            rows.append((tables.label(name), [_cell(yardsticks[name].get(one)) for one in benchmarks]))
    lines += [tables.grid("", benchmarks, rows), ""]
    lines += [f"{names[name]}: {_told(model, entry['settings'])}" for name, entry in book.items()]
    if len(benchmarks) < 2 or len(whole) < 2:
        return "\n".join([*lines, "", "To leave one out takes two benchmarks and two candidates that have them all."])
    rows = []
    for left_out in benchmarks:
        others = [one for one in benchmarks if one != left_out]
        chosen = max(whole, key=lambda name: np.mean([whole[name][one]["AUSUC"] for one in others]))
        alone = max(whole, key=lambda name: whole[name][left_out]["AUSUC"])
        cells = [f"{names[one]}: {_cell(whole[one][left_out])}" for one in (chosen, alone)]
        cells += [_cell(yardsticks.get(name, {}).get(left_out)) for name in YARDSTICKS]
        rows.append((left_out, cells))
    columns = ["chosen on the others", "chosen on it", *map(tables.label, YARDSTICKS)]
    return "\n".join([*lines, "", tables.grid("left out", columns, rows)])


def _measure(name, settings, draws, path):
    """Adds the numbers of a model, or of a yardstick, to its file, case by case."""
    overrides = settings.overrides if name == settings.model else flags.Overrides()
    for case in draws:
        data = cases.source(case.data)
        benchmark = data.load("tune", MODELS[name].eats, case.fold)
        asked = published.asked(name, benchmark.name, overrides)
        config, key = dataclasses.replace(asked, **asked.known(benchmark)), _key(asked)
        seeds = settings.seeds if MODELS[name].default_seeds > 1 else 1
        out = pathlib.Path(settings.out) / name / key / _key(case.key)
        experiment = protocol.Experiment(name, config, data, settings.machine.machine(), out, logs=False)
        for seed in range(seeds):
            book = atomic.read_json(path)
            entry = book.setdefault(key, {"settings": dataclasses.asdict(asked), "scores": {}})
            scores = entry["scores"].setdefault(case.benchmark, {}).setdefault(case.key, {})
            if str(seed) in scores:
                continue
            identity = runs.identity(name, experiment.machine, experiment.load("tune", case.fold), {name: config})
            began = time.monotonic()
            with runs.opened(out, identity, resume=None):
                numbers = metrics.numbers(*protocol.validated(experiment, seed, case.fold))
            scores[str(seed)] = numbers | {
                "seconds": round(time.monotonic() - began, 1),
                "data": identity["data"],
                "commit": runs.commit(),
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_json(path, book)
            shown = ", ".join(f"{metric} {tables.percent(numbers[metric])}" for metric in _SHOWN)
            print(f"{name} on {case.key}, seed {seed}: {shown}", flush=True)


def _measured(scores):
    """{(benchmark, case, seed)}: a candidate that was killed lacks some, and its means are of others."""
    return {(name, case, seed) for name, by in scores.items() for case, seeds in by.items() for seed in seeds}


def _by_benchmark(scores):
    """{benchmark: {metric: mean over its cases, draws and seeds}}."""
    means = {}
    for benchmark, by_case in scores.items():
        every = [numbers for seeds in by_case.values() for numbers in seeds.values()]
        means[benchmark] = {metric: float(np.mean([one[metric] for one in every])) for metric in _SHOWN}
    return means


def _cell(numbers):
    return " / ".join(tables.percent(numbers[metric]) for metric in _SHOWN) if numbers else ""


def _told(model, settings):
    """What differs from the defaults of today."""
    defaults = json.loads(json.dumps(dataclasses.asdict(MODELS[model].Config())))
    changed = [f"{key}={value}" for key, value in settings.items() if value != defaults.get(key)]
    return ", ".join(changed) or "the defaults"


def _key(content):
    """A short name for settings or a case: the same for the same content."""
    content = dataclasses.asdict(content) if dataclasses.is_dataclass(content) else content
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
