"""The folder of a run: what must stay the same when it resumes, its result, and reopening it when it is finished."""

import contextlib
import dataclasses
import glob
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np

from zslkeras import atomic, protocol
from zslkeras.errors import InputError
from zslkeras.evaluation import metrics, uncertainty
from zslkeras.models import MODELS, conditioning, config
from zslkeras.structure import OrNull
from zslkeras.training import strategies
from zslkeras.training.machine import Machine
from zslkeras.version import __version__, versions

FORMAT = 1  # of the folder; a new layout gets a new number, which older code refuses
_IDENTITY = {"format": int, "precision?": str, "best_on_test?": bool}  # of what `reopened` needs; all of it is compared
_RESULT = {
    "config": dict,
    "data": {"name": str, "root": OrNull(str), "options": dict},
    "dataset_digest": str,
    "features": OrNull(str),
    "model": str,
    "seeds": [int],
    "selected_on_validation": bool,
}


def identity(model, machine, benchmark, configs, published=None, **more):
    """What must stay the same when a folder with checkpoints is resumed.

    The place of the data may change: its digest shows whether it is the same data.

    Args:
        model: its name.
        machine: what it is trained on.
        benchmark: the stage that is trained first.
        configs: {name of a row, or None: config}.
        published: the digest of stage "final", where the folder keeps something of it too.
        **more: whatever else the numbers depend on.
    """
    identity = {"format": FORMAT, "model": model, **dataclasses.asdict(machine), **more}
    # The actual number: `None` stands for all the GPUs of a machine, and it may have more or fewer next time.
    identity["replicas"] = strategies.get_strategy(machine.strategy, machine.replicas).num_replicas_in_sync
    identity |= {"data": benchmark.digest, "version": __version__}
    identity |= {"published data": published} if published else {}
    for name, one in configs.items():
        prefix = f"{name}: " if len(configs) > 1 else ""
        identity |= {f"{prefix}{key}": value for key, value in dataclasses.asdict(one).items()}
    return json.loads(json.dumps(identity))


@contextlib.contextmanager
def opened(out, identity, resume, wait=False):
    """Makes and checks the folder of a run, and keeps other processes out of it until the end.

    Removes it again if wrong input keeps training from starting.

    Args:
        out: the folder.
        identity: from `identity`.
        resume: True to go on with what is there, False to refuse it, None to go on if anything is there.
        wait: whether to wait for another process that works there, or to refuse.
    """
    path, made = out / "run.json", [folder for folder in (out, *out.parents) if not os.path.exists(folder)]
    before = require_same(out, identity, resume)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(out, error) from None
    with atomic.locked(out, wait):
        try:
            if not before:
                try:
                    with atomic.replacing(path) as draft:
                        draft.write_text(json.dumps(identity, indent=2) + "\n")
                except OSError as error:
                    raise _not_written(out, error) from None
            yield
        except InputError:
            if not before and not glob.glob("**/*.npz", root_dir=out, recursive=True):
                _take_back(path, made)
            raise


def require_same(out, identity, resume):
    """The identity in a folder, or {} for a new one; refuses to go on with another. Arguments as of `opened`."""
    path = out / "run.json"
    before = atomic.read_json(path, _IDENTITY) if os.path.isfile(path) else {}
    if before and resume is False:
        raise InputError(f"out: {out} holds a run already; wanted --resume to go on with it, or another folder")
    if resume and not before:
        raise InputError(f"resume: no run in {out}; wanted the folder of one that was killed")
    if before:
        _require_format(path, before)
    for key in before | identity if before else ():
        was, now = (f"{key}={one.get(key)}" for one in (before, identity))
        if was != now:
            argument = "out" if resume is None else "resume"
            raise InputError(f"{argument}: {out} was started with {was}, got {now}; wanted the same, or another folder")
    return before


def next_folder(stem, resume):
    """The first of `stem`, stem-2, stem-3, ... that is free; to resume, the last one before it."""
    taken = [stem, *(stem.with_name(f"{stem.name}-{number}") for number in range(2, 10_000))]
    free = next(number for number, path in enumerate(taken) if not path.exists())
    return taken[max(0, free - 1)] if resume else taken[free]


def reopened(path, data_root=None, images=None, seeds=None, argument="run"):
    """The Experiment of a finished run, and the Finished of each of its seeds; trains nothing.

    Args:
        path: its folder; for a row of `--ablation all`, the folder of the row.
        data_root, images: where data and images lie now, if they were moved.
        seeds: how many of its seeds; None for all.
        argument: the one that `path` came from, for error sentences.
    """
    path = pathlib.Path(path)
    result = atomic.read_json(path / "result.json", _RESULT)
    if not result:
        raise InputError(f"{argument}: no result.json in {path}; wanted the folder of a finished run")
    name = result["model"]
    if name not in MODELS:
        raise InputError(f"{argument}: {path} is of model {name!r}; wanted one of {', '.join(MODELS)}")
    seeds, stages = result["seeds"][:seeds], ["tune", "final"] if result["selected_on_validation"] else ["final"]
    for checkpoint in (path / "checkpoint" / f"seed{seed}-{stage}.npz" for seed in seeds for stage in stages):
        if not checkpoint.is_file():
            raise InputError(f"{argument}: no {checkpoint}; wanted the folder of a finished run, with its checkpoints")
    data = result["data"]
    options = data["options"] | ({"images": str(images)} if images else {})
    data = protocol.Data(data["name"], data_root or data["root"], options)
    # A row of --ablation all lies in the folder of the run.
    places = [place for place in (path / "run.json", path.parent / "run.json") if place.is_file()]
    identity = atomic.read_json(places[0], _IDENTITY) if places else {}
    if places:
        _require_format(places[0], identity)
    settings = config.build(MODELS[name], name, result["config"])
    machine = Machine(precision=identity.get("precision", Machine.precision))
    whole = identity.get("best_on_test", True)
    experiment = protocol.Experiment(name, settings, data, machine, path, logs=False, best_on_test=whole)
    digest = protocol.published(experiment).digest
    if digest != result["dataset_digest"]:
        was = result["dataset_digest"]
        raise InputError(f"{argument}: {path} was made from data {was}, {data.name} is {digest}; wanted the same data")
    choose = protocol.select if len(stages) == 2 else protocol.fixed
    return experiment, [protocol.finish(experiment, choose(experiment, seed)) for seed in seeds]


def result(experiment, finished, yardsticks, seconds, paper=None):
    """All that result.json holds; fractions in 0..1.

    Args:
        experiment: what was run.
        finished: a Finished per seed.
        yardsticks: the result of `protocol.yardsticks`.
        seconds: of wall time.
        paper: what the model's paper prints for this dataset, percent; None where it prints nothing.
    """
    benchmark = protocol.published(experiment)
    others, reason = yardsticks
    ours = [protocol.scored(one) for one in finished]
    unseen = len(benchmark.unseen_classes) if len(benchmark.test_unseen) else 0
    return {
        "model": experiment.model,
        "dataset": experiment.data.name,
        "features": benchmark.features,
        "seeds": [one.choice.seed for one in finished],
        "selected_on_validation": bool(finished[0].choice.history),
        "selected": _selected(finished),
        "best_on_test": best_on_test(finished) if experiment.best_on_test else None,
        "start": _start(finished),
        "yardsticks": {
            name: _selected([other])
            | {"best_on_test": best_on_test([other]), "versus": uncertainty.versus([(ours, [protocol.scored(other)])])}
            for name, other in others.items()
        },
        "without_yardsticks": reason,
        "per_class": _per_class(finished, benchmark.class_names),
        "chance": {"T": 1 / unseen if unseen else None},
        "paper": paper,
        "paper_rule": _paper_rule(experiment, finished),
        "gamma": [one.choice.gamma for one in finished],
        "calibration": [_calibration(one) for one in finished],
        "found": [one.choice.found for one in finished],
        "state": [one.history[one.choice.state] for one in finished],
        "unseen_embeddings_in_training": MODELS[experiment.model].reads_unseen_embeddings(experiment.config),
        "classes": {"seen": len(benchmark.seen_classes), "unseen": len(benchmark.unseen_classes)},
        "config": dataclasses.asdict(experiment.config),
        "data": dataclasses.asdict(experiment.data),
        "versions": versions(),
        "commit": commit(),
        "dataset_digest": benchmark.digest,
        "wall_seconds": round(seconds, 1),
    }


def _selected(finished):
    """Each metric at the chosen state and gamma, over seeds, with the mean of the seeds' bootstrap intervals."""
    numbers = [metrics.numbers(*protocol.scored(one)) for one in finished]
    spreads = [uncertainty.intervals(*protocol.scored(one)) for one in finished]
    columns = metrics.summaries(numbers)
    for metric, column in columns.items():
        for kind in ("rows", "classes"):
            column[f"interval_{kind}"] = np.mean([spread[kind][metric] for spread in spreads], axis=0).tolist()
    return columns


def _per_class(finished, names):
    """{metric: {class: accuracy}} of T, U and S at the chosen state and gamma, mean over seeds; classes with images."""
    tables = [metrics.per_class(*protocol.scored(one)) for one in finished]
    outcomes = finished[0].outcomes
    ids = {"T": outcomes.unseen, "U": outcomes.unseen, "S": outcomes.seen}
    means = {metric: np.mean([table[metric] for table in tables], axis=0) for metric in ids}
    return {
        metric: {names[c]: float(mean) for c, mean in zip(ids[metric], means[metric], strict=True) if mean == mean}
        for metric in ids
    }


def _start(finished):
    """What there was before training, how training stands to it, and how many seeds kept it; None without a start."""
    starts = [start for start in map(protocol.untrained, finished) if start]
    if not starts:
        return None
    ours, theirs = ([protocol.scored(one) for one in side] for side in (finished, starts))
    kept = sum(one.choice.state == 0 for one in finished)
    return _selected(starts) | {"versus": uncertainty.versus([(ours, theirs)]), "kept": kept}


def best_on_test(finished):
    """What the papers report: T, H with its U and S, H0 with its U0 and S0, and AUSUC; each at its best state."""
    numbers = []
    for one in finished:
        best = {metric: max(one.history, key=lambda row: row[f"best_{metric}"]) for metric in ("T", "H", "H0", "AUSUC")}
        where = {"T": "T", "U": "H", "S": "H", "H": "H", "U0": "H0", "S0": "H0", "H0": "H0", "AUSUC": "AUSUC"}
        known = {by for by, state in best.items() if state[f"best_{by}"] == state[f"best_{by}"]}  # no row: NaN, no best
        numbers.append({m: best[by][f"best_{m}"] if by in known else np.nan for m, by in where.items()})
    return metrics.summaries(numbers)


def _calibration(finished):
    """The temperature of probabilities, and the expected calibration error before and after it, 0..1.

    "validation" are rows of stage tune, where "after" has temperatures that other classes chose; "test" are test rows.
    None where nothing was chosen on validation classes.
    """
    known, tests = finished.choice.confidence, finished.confidence
    if known is None:
        return None
    errors = {"validation": known.errors}
    if tests is not None:
        errors["test"] = tests.error(1.0), tests.error(known.temperature)
    return {"temperature": known.temperature} | {
        rows: {"before": before, "after": after} for rows, (before, after) in errors.items()
    }


def _paper_rule(experiment, finished):
    """The rule of the model's paper, and U, S and H by it at each seed's chosen state.

    None where the paper has none, or where a closed form beside the model gives scores in another unit.
    """
    rule = MODELS[experiment.model].paper_rule
    if rule is None or conditioning.is_beside(experiment.config):
        return None
    columns = metrics.summaries([metrics.numbers(one.outcomes, rule["gamma"]) for one in finished])
    return rule | {metric: columns[metric] for metric in ("U", "S", "H")}


def commit():
    """The commit of the checkout that this runs from, "-dirty" if it was changed; None for an installed package."""
    here = pathlib.Path(__file__).parent
    try:
        ask = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_result(out, result, finished):
    """Writes result.json and history.csv, and renames each into place."""
    rows = []
    for one in finished:
        for stage, history in (("tune", one.choice.history), ("final", one.history)):
            rows += [{"seed": one.choice.seed, "stage": stage, **row} for row in history]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [",".join(columns), *(",".join(str(row.get(key, "")) for key in columns) for row in rows)]
    atomic.write_text(out / "history.csv", "\n".join(lines) + "\n")
    atomic.write_json(out / "result.json", result)


def _require_format(path, identity):
    if identity.get("format") != FORMAT:
        raise InputError(f"{path}: has format {identity.get('format')}; wanted {FORMAT}, which this version reads")


def _not_written(out, error):
    return InputError(f"out: {out}: {error.strerror}; wanted a folder that can be written")


def _take_back(path, made):
    with contextlib.suppress(OSError):
        path.unlink()
    if path.parent in made:
        shutil.rmtree(path.parent, ignore_errors=True)
    for folder in made[1:]:
        with contextlib.suppress(OSError):
            folder.rmdir()
