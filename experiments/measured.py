"""The work of `experiments.campaign`: one file for each measurement, which is made once.

A file has the settings as they were asked for, what follows from the data, and for each seed the numbers, their
intervals over classes, and how many images of each class were right, from which `pages` pairs models class by class.
"""

import dataclasses
import datetime
import hashlib
import json
import pathlib
import re
import shlex
import time

import numpy as np

from experiments import cases, pages, published
from zslkeras import atomic, protocol, runs
from zslkeras.cli import flags
from zslkeras.errors import Failed, InputError
from zslkeras.evaluation import metrics, tables, uncertainty
from zslkeras.models import MODELS
from zslkeras.names import YARDSTICKS
from zslkeras.training.loop import Diverged
from zslkeras.version import versions

_SHOWN = ("T", "H", "AUSUC")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class _Row:
    """A model with the settings of one row of its table."""

    model: str
    name: str
    overrides: flags.Overrides
    seeds: int

    @property
    def ablation(self):
        return None if self.name == pages.WHOLE else self.name

    def asked(self, dataset):
        return published.asked(self.model, dataset, self.overrides, self.ablation)

    def changed(self, dataset):
        """{setting: value} of what the command line sets otherwise than the row, with its preset, has it.

        A file of weights is not among them: offline it stands for the ones that would be downloaded.
        """
        plain = published.asked(self.model, dataset, flags.Overrides(preset=self.overrides.preset), self.ablation)
        usual, now = _json(plain), _json(self.asked(dataset))
        return {key: value for key, value in now.items() if value != usual[key] and key != "weights"}


def measure(settings):
    """The work of `experiments.campaign`; see there."""
    commit = runs.commit()  # of the code that is imported: the checkout may move on while this runs
    folds = range(1) if settings.open_test_classes else range(settings.first_fold, settings.first_fold + settings.folds)
    draws = cases.read(settings.benchmarks, folds)
    for name in dict.fromkeys(case.benchmark for case in draws):
        if not _NAME.fullmatch(name):
            raise InputError(f"benchmarks: got the name {name!r}; wanted letters, digits, dots, dashes and underlines")
    if settings.open_test_classes:
        for case in draws:
            _table_of_looks(_looks(settings), case)
    wanted, failed = _rows(settings), []
    for case in draws:
        # Yardsticks come first: whatever ends the campaign, what is measured can be compared.
        for name in YARDSTICKS:
            row = _Row(name, pages.WHOLE, flags.Overrides(), 1)
            try:
                cases.source(case.data).load("tune", MODELS[name].eats, case.fold)
            except InputError as error:
                print(f"not compared with {tables.label(name)} on {case.key}: {error}", flush=True)
            else:
                _measure(row, case, settings, commit)
        for row in wanted:
            try:
                _measure(row, case, settings, commit)
            except Diverged as error:
                failed.append(f"{row.model} {row.name} on {case.key}: {error}")
                print(f"not measured: {failed[-1]}", flush=True)
    if failed:
        raise Failed(f"{len(failed)} not measured: {'; '.join(failed)}")


def _rows(settings):
    """Every row asked for. A row of the table that changes nothing is the whole method, whatever the table calls it."""
    rows = {}
    for name in settings.models:
        table = MODELS[name].ablations
        for row in [*table] if settings.rows == ("all",) else settings.rows:
            if row != pages.WHOLE and row not in table:
                raise InputError(f"rows: got {row!r}; {name} has {', '.join([pages.WHOLE, *table])}")
            row = row if table.get(row) else pages.WHOLE
            seeds = settings.seeds or MODELS[name].default_seeds
            rows[name, row] = _Row(name, row, settings.overrides, seeds if MODELS[name].default_seeds > 1 else 1)
    if not rows:
        raise InputError(f"rows: got all; {', '.join(settings.models)} has none")
    return list(rows.values())


def _measure(row, case, settings, commit):
    """Measures the seeds of a row on a case that its file lacks, and writes the file when they have all ended."""
    data, machine = cases.source(case.data), settings.machine.machine()
    benchmark = data.load("tune", MODELS[row.model].eats, case.fold)
    asked = row.asked(benchmark.name)
    known = asked.known(benchmark)
    config = dataclasses.replace(asked, **known)
    identity = {
        "settings": _json(asked),
        "known": _json(known),
        "case": {**case.said, "fold": case.fold},
        "data": protocol.as_read(benchmark, config).digest,
        "precision": machine.precision,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    changed, stage = row.changed(benchmark.name), "test" if settings.open_test_classes else f"fold{case.fold}"
    folder = pathlib.Path(settings.results) / pages.FOLDER / case.benchmark / row.model
    path = _earlier(folder, row, changed, stage, identity) or folder / f"{_stem(row, changed)}-{stage}-{key}.json"
    if not _lacking(pages.read(path), row):
        return
    out = pathlib.Path(settings.out) / row.model / key
    experiment = protocol.Experiment(row.model, config, data, machine, out, logs=False)
    guard = runs.identity(row.model, machine, experiment.load("tune", case.fold), {row.name: config})
    with runs.opened(out, guard, resume=None, wait=True):  # another campaign may be at the same, such as a yardstick
        kept = pages.read(path)
        made = _trained(experiment, _lacking(kept, row), row, case, settings, commit)
        if not made:
            return
        if kept and kept.get("test_data") != (now := made[0][0].get("test_data")):
            raise InputError(f"{path}: is of test classes {kept['test_data']}, the data have {now}; wanted the same")
        content = {
            "format": pages.FORMAT,
            "benchmark": case.benchmark,
            "model": row.model,
            "row": row.name,
            "place": [*MODELS[row.model].ablations].index(row.name) if row.ablation else None,
            "preset": row.overrides.preset,
            "changed": changed,
            "stage": "test" if settings.open_test_classes else "validation",
            **identity,
            "features": benchmark.features,
            **made[0][0],
            "seeds": sorted([*kept.get("seeds", ()), *(one for _, one in made)], key=lambda one: one["seed"]),
            "command": _command(row, case, settings),
            "versions": versions(),
        }
        if settings.open_test_classes:  # first: a look that is written twice is better than one that is not
            _log(_looks(settings), case, content)
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_lines(path, content)
    means = metrics.summaries([one["numbers"] for one in content["seeds"]])
    shown = ", ".join(f"{metric} {tables.percent(means[metric]['mean'])}" for metric in _SHOWN)
    print(f"{row.model} {_stem(row, changed)} on {case.key}, {content['stage']}: {shown}; written: {path}", flush=True)


def _earlier(folder, row, changed, stage, identity):
    """The file of the same measurement, if there is one: also from before a model got a setting whose default changes
    nothing. None where there is no such file."""
    usual = _json(MODELS[row.model].Config())
    for path in sorted(folder.glob(f"*-{stage}-*.json")):
        kept = pages.read(path)
        new = identity["settings"].keys() - kept["settings"].keys()
        # The row's name, too: pages compare rows by their names.
        names = {"row": row.name, "preset": row.overrides.preset, "changed": changed}
        wanted = names | {name: identity[name] for name in ("case", "data", "precision")}
        same = all(kept[name] == one for name, one in wanted.items())
        same = same and all(pages.agree(kept[name], identity[name]) for name in ("settings", "known"))
        if same and all(identity["settings"][name] == usual[name] for name in new):
            return path
    return None


def _lacking(kept, row):
    """The seeds that the content of a file does not have."""
    return sorted({*range(row.seeds)} - {one["seed"] for one in kept.get("seeds", ())})


def _trained(experiment, seeds, row, case, settings, commit):
    """What `_validated` or `_tested` says of each seed."""
    judged = _tested if settings.open_test_classes else _validated
    return [judged(experiment, seed, case.fold, _Timed(experiment.out, commit)) for seed in seeds]


def _validated(experiment, seed, fold, timed):
    """What a file says of the classes of a draw, and of one seed on them. Opens stage tune alone."""
    one = timed(f"seed{seed}-tune", lambda: protocol.on_validation(experiment, seed, fold))
    entry = {
        "seed": seed,
        "state": one.state,
        "states": len(one.history),
        "found": _json(one.found),
        **_judged(one.outcomes, one.gamma),
        "start": one.start and _judged(one.start, one.start_gamma),
    }
    return _classes(one.outcomes), entry | timed.said()


def _tested(experiment, seed, fold, timed):
    """The same of the published test classes, where state and gamma are chosen on draw 0 of validation classes."""
    del fold
    choice = timed(f"seed{seed}-tune", lambda: protocol.select(experiment, seed))
    finished = timed(f"seed{seed}-final", lambda: protocol.finish(experiment, choice))
    start, best = protocol.untrained(finished), runs.best_on_test([finished])
    entry = {
        "seed": seed,
        "state": choice.state,
        "states": choice.states,
        "found": _json(choice.found),
        **_judged(*protocol.scored(finished)),
        "best_on_test": {metric: column["mean"] for metric, column in best.items()},
        "start": start and _judged(*protocol.scored(start)),
    }
    classes = _classes(finished.outcomes) | {"test_data": protocol.published(experiment).digest}
    return classes, entry | timed.said()


def _judged(outcomes, gamma):
    """The numbers of scores at gamma, their intervals over classes, and the images of each class that were right, also
    at gamma 0."""
    plain, counts = metrics.per_class(outcomes, 0.0), _counts(outcomes)
    rates = metrics.per_class(outcomes, gamma) | {f"{name}0": plain[name] for name in "US"}
    right = {
        name: np.rint(np.nan_to_num(one) * counts["seen" if name[0] == "S" else "unseen"]).astype(int).tolist()
        for name, one in rates.items()
    }
    intervals = uncertainty.intervals(outcomes, gamma)["classes"]
    return {"gamma": gamma, "numbers": metrics.numbers(outcomes, gamma), "intervals": intervals, "right": right}


def _classes(outcomes):
    """How many test images each class has, by ascending id."""
    return {"images": {group: counts.tolist() for group, counts in _counts(outcomes).items()}}


def _counts(outcomes):
    return {
        group: np.array([np.count_nonzero(outcomes.labels == one) for one in getattr(outcomes, group)], int)
        for group in ("seen", "unseen")
    }


class _Timed:
    """When the stages of one seed ended, by which code, and their seconds, kept beside the checkpoints: a stage that
    has ended is not timed again."""

    def __init__(self, out, commit):
        self.path, self.commit, self.stages = out / "stages.json", commit, []

    def __call__(self, stage, work):
        known, began = atomic.read_json(self.path), time.monotonic()
        whole = stage not in known  # what a killed process spent on a stage is not known
        if whole:
            atomic.write_json(self.path, known | {stage: {}})
        result = work()
        if whole or not known[stage]:
            known[stage] = {
                "seconds": round(time.monotonic() - began, 1),
                "whole": whole,
                "commit": self.commit,
                "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
            }
            atomic.write_json(self.path, known)
        self.stages.append(known[stage])
        return result

    def said(self):
        """What a file says of one seed."""
        return {
            "seconds": round(sum(one["seconds"] for one in self.stages), 1),
            "whole_time": all(one["whole"] for one in self.stages),
            "commit": self.stages[-1]["commit"],
            "date": self.stages[-1]["date"],
        }


def _stem(row, changed):
    """The name of a row with what the command line changes, for a file and the screen."""
    more = [row.overrides.preset] if row.overrides.preset else []
    text = "+".join([row.name, *more, *(f"{key}={value}" for key, value in changed.items())])
    return re.sub(r"[^A-Za-z0-9._=+-]", "_", text)[:80]


def _json(config):
    """Settings as JSON has them. Of files that they name, the name without the folder: where they lie says nothing."""
    settings = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config
    settings = {
        key: pathlib.Path(one).name if isinstance(one, str) and "/" in one else one for key, one in settings.items()
    }
    return json.loads(json.dumps(settings))


def _command(row, case, settings):
    """The command line that makes this file alone, where files lie in the folder it is called in."""
    parts = ["--models", row.model, "--rows", row.name, "--seeds", row.seeds]
    if settings.benchmarks:
        parts += ["--benchmarks", pathlib.Path(settings.benchmarks).name]
    parts += ["--open_test_classes"] if settings.open_test_classes else ["--first_fold", case.fold]
    for group in (row.overrides, settings.machine):
        for field in dataclasses.fields(group):
            value = getattr(group, field.name)
            if value != field.default:
                values = value if isinstance(value, tuple) else [value]
                parts += [part for one in values for part in _given(field, one)]
    return shlex.join(["python", "-m", "experiments.campaign", *map(str, parts)])


def _given(field, value):
    if isinstance(value, bool):
        return [f"--{field.name}" if value else f"--no{field.name}"]
    key, equals, path = str(value).rpartition("=")
    return [f"--{field.name}", key + equals + (pathlib.Path(path).name if "/" in path else path)]


def _looks(settings):
    return pathlib.Path(settings.results) / "looks.md"


def _table_of_looks(path, case):
    """The lines of the log, the columns of the table that a case belongs to, and where its next row goes."""
    if not path.is_file():
        raise InputError(f"results: no {path}; wanted the log of looks at test classes")
    lines = path.read_text(encoding="utf-8").splitlines()
    column = "| draws |" if case.said["dataset"] == "shapes" else "| data |"
    head = next((n for n, line in enumerate(lines) if line.startswith("| date |") and column in line), None)
    if head is None:
        raise InputError(f"results: {path} has no table with the column {column}; wanted one")
    names = [name.strip() for name in lines[head].strip("|").split("|")]
    return lines, names, next((n for n in range(head, len(lines)) if not lines[n].startswith("|")), len(lines))


def _log(path, case, content):
    """Adds a row to the log of looks."""
    means = metrics.summaries([one["numbers"] for one in content["seeds"]])
    count = len(content["seeds"])
    recipe = [content["model"], pages.row_of(content), f"{count} seed{'s' * (count > 1)}"]
    cells = {
        "date": content["seeds"][-1]["date"][:10],
        "recipe": ", ".join(recipe),
        "data": ", ".join([case.said["dataset"], *filter(None, [content["features"]])]),
        "draws": case.said.get("draw", "0"),
        "command": f"`{content['command']}`",
        "commit": pages.short(content["seeds"][-1]["commit"]),
        "T": tables.percent(means["T"]["mean"]),
        "H": tables.percent(means["H"]["mean"]),
        "H at gamma 0": tables.percent(means["H0"]["mean"]),
    }
    with atomic.locked(path.parent, wait=True):
        lines, names, place = _table_of_looks(path, case)
        lines.insert(place, f"| {' | '.join(cells[name] for name in names)} |")
        atomic.write_text(path, "\n".join(lines) + "\n")
