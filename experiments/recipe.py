"""The only glue between data, model, training and numbers.

`select` works in stage tune and makes a Choice: the state to stop at (an epoch, or a setting of a closed form) and
gamma. `finish` trains in stage final as the Choice says and looks at the published test rows. Nothing else opens that
stage, so nothing that is chosen can have seen it.
"""

import dataclasses
import hashlib
import json
import pathlib
import subprocess
import time
import typing

import keras
import numpy as np
import tensorflow as tf

import zslkeras
from experiments.papers import PAPERS
from zslkeras import atomic, batches, benchmarks, cache, evaluation, strategies, training, uncertainty
from zslkeras.models import MODELS

BASELINE = "eszsl"


@dataclasses.dataclass(frozen=True)
class Data:
    """What `benchmarks.load` is given, whatever the stage and the kind of inputs."""

    name: str
    root: str | None = None
    options: dict = dataclasses.field(default_factory=dict)

    def load(self, stage, inputs, fold=0):
        return benchmarks.load(self.name, self.root, stage, inputs, fold, **self.options)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One model with one config on one benchmark; `out` is where it keeps its files, None for nowhere."""

    model: str
    config: typing.Any
    data: Data
    strategy: typing.Any
    out: pathlib.Path | None = None
    jit: bool = False
    deterministic: bool = True
    logs: bool = True  # for TensorBoard

    def load(self, stage, fold=0):
        """A stage as the model reads it."""
        return as_read(self.data.load(stage, MODELS[self.model].eats, fold), self.config)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What stage tune decided for one seed.

    Attributes:
        seed: of the draws in both stages.
        state: which state to take: the epoch, or the setting of a closed form; counted from 0.
        states: how many stage final goes through: as many as stage tune did.
        gamma: of calibrated stacking.
        history: the numbers of each state on the validation classes; empty if nothing was selected.
    """

    seed: int
    state: int
    states: int
    gamma: float
    history: list


@dataclasses.dataclass(frozen=True)
class Finished:
    """One seed in stage final."""

    choice: Choice
    outcomes: evaluation.Outcomes
    history: list
    weights: list  # of the chosen state; `rebuilt` makes the model of them


def select(experiment, seed, fold=0):
    """Trains in stage tune; takes the state with the highest AUSUC there, and the gamma with the highest H of it.

    AUSUC sums up all gammas, so the state is not chosen by the very maximum that gamma is chosen by. In nested
    validation inside FLO's training classes (5 draws) both ways of choosing ended equal within 0.3 points of H.
    """
    run = _train(experiment, "tune", seed, fold)
    best = run.history[run.best]
    return Choice(seed, run.best, len(run.history), best["gamma"], run.history)


def fixed(experiment, seed):
    """The Choice that chooses nothing: the config's last epoch, gamma 0."""
    epochs = experiment.config.epochs
    return Choice(seed, epochs - 1, epochs, 0.0, [])


def finish(experiment, choice):
    """Trains in stage final as `choice` says, and judges every state on the published test rows."""
    run = _train(experiment, "final", choice.seed, choice=choice)
    return Finished(choice, _unpack(run.arrays), run.history, run.weights)


def as_read(benchmark, config):
    """A benchmark as a model with this config reads it: pictures in files are decoded for its `image_size`."""
    return benchmarks.decoded(benchmark, config.image_size) if benchmark.kind == "images" else benchmark


def published(experiment):
    """Stage "final" for what looks at a finished run (figures); nothing that chooses may hold it."""
    return experiment.load("final")


def published_pictures(data):
    """The pictures of stage "final", or their paths; for figures alone, too."""
    return data.load("final", "images")


def rebuilt(experiment, finished, benchmark, trained=True):
    """The model of `finished`, of this process alone wherever it was trained: as it was chosen, or as it started."""
    keras.utils.set_random_seed(finished.choice.seed)
    model = MODELS[experiment.model].for_benchmark(benchmark, experiment.config, finished.choice.seed)
    model.compile()
    if trained:
        for variable, value in zip(model.variables, finished.weights, strict=True):
            variable.assign(value)
    return model


def validated(experiment, seed, fold=0):
    """The Outcomes on the validation classes at the chosen state, and the Choice: for claims made on validation."""
    run = _train(experiment, "tune", seed, fold)
    return _unpack(run.arrays), run.history[run.best]["gamma"]


def baseline(experiment, finished):
    """The yardstick on the same data, kept by content between runs; (None, reason) where there are no features."""
    data, config = experiment.data, MODELS[BASELINE].Config()
    if (experiment.model, experiment.config) == (BASELINE, config) and finished[0].choice.history:
        return finished[0], None
    try:
        digest = data.load("final", "features").digest
    except zslkeras.InputError as error:
        return None, str(error)
    yardstick = Experiment(BASELINE, config, data, tf.distribute.get_strategy(), _cache(digest), logs=False)
    return finish(yardstick, select(yardstick, 0)), None


def result(experiment, finished, yardstick, seconds):
    """All that result.json holds; fractions in 0..1.

    Args:
        experiment: what was run.
        finished: a Finished a seed.
        yardstick: what `baseline` returned.
        seconds: of wall time.
    """
    benchmark = experiment.load("final")
    base, reason = yardstick
    dataset = experiment.data.name.lower()
    versus = uncertainty.versus([([scored(one) for one in finished], [scored(base)])]) if base else None
    return {
        "model": experiment.model,
        "dataset": experiment.data.name,
        "features": benchmark.features,
        "seeds": [one.choice.seed for one in finished],
        "selected_on_validation": bool(finished[0].choice.history),
        "selected": _selected(finished),
        "best_on_test": _best_on_test(finished),
        "baseline": _selected([base]) | {"best_on_test": _best_on_test([base])} if base else {"reason": reason},
        "versus_baseline": versus,
        "paper": PAPERS.get((experiment.model, dataset)),
        "paper_rule": _paper_rule(MODELS[experiment.model].paper_rule, finished),
        "gamma": [one.choice.gamma for one in finished],
        "state": [one.history[one.choice.state] for one in finished],
        "unseen_embeddings_in_training": MODELS[experiment.model].reads_unseen_embeddings(experiment.config),
        "classes": {"seen": len(benchmark.seen_classes), "unseen": len(benchmark.unseen_classes)},
        "config": dataclasses.asdict(experiment.config),
        "data": dataclasses.asdict(experiment.data),
        "versions": {"zslkeras": zslkeras.__version__, "tensorflow": tf.__version__, "keras": keras.__version__},
        "commit": _commit(),
        "dataset_digest": benchmark.digest,
        "wall_seconds": round(seconds, 1),
    }


def _train(experiment, stage, seed, fold=0, choice=None):
    """One seed in one stage, from the checkpoint where there is one."""
    model_class, strategy = MODELS[experiment.model], experiment.strategy
    benchmark = experiment.load(stage, fold)
    name = f"seed{seed}-{stage}" + (f"-fold{fold}" if fold else "")
    path = experiment.out and experiment.out / "checkpoint" / f"{name}.npz"
    keras.utils.set_random_seed(seed)
    if experiment.deterministic:
        tf.config.experimental.enable_op_determinism()
    run = training.Run(
        benchmark,
        strategy,
        _judge(benchmark, choice),
        seed,
        path,
        epochs=choice.states if choice else None,
        callbacks=_callbacks(experiment, name, selecting=choice is None),
        jit=experiment.jit,
        title=f"{experiment.model} {name}",
    )
    if run.finished:
        return run
    with strategy.scope():
        model = model_class.for_benchmark(benchmark, experiment.config, seed)
        model.compile()
    model.learn(run)
    run.finish(model, keep_weights=choice is not None)
    return run


def _judge(benchmark, choice):
    """Judges a model's state on the stage's test rows: by AUSUC in stage tune, by being the chosen one in final."""
    rows = np.concatenate([benchmark.test_seen, benchmark.test_unseen])
    score = None

    def judge(model, state):
        nonlocal score
        # One trace serves all states: the variables change, the function does not.
        score = score or tf.function(lambda inputs: _scores_and_answers(model, inputs), reduce_retracing=True)
        parts = []
        for inputs, labels in batches.scoring(benchmark, rows):
            scores, answers = (tensor.numpy() for tensor in score(tf.nest.map_structure(tf.constant, inputs)))
            groups = benchmark.seen_classes, benchmark.unseen_classes
            parts.append(evaluation.outcomes(scores, labels, *groups, seen_answers=answers))
        outcomes = evaluation.concatenate(parts)
        gamma, _ = evaluation.best_gamma(outcomes)
        best = evaluation.numbers(outcomes, gamma)
        if choice is None:
            logs = {f"val_{metric}": value for metric, value in best.items()} | {"gamma": gamma}
            return training.Verdict(logs, best["AUSUC"], _pack(outcomes))
        chosen = evaluation.numbers(outcomes, choice.gamma)
        logs = {f"test_{metric}": value for metric, value in chosen.items()} | {"gamma": choice.gamma}
        logs |= {f"best_{metric}": value for metric, value in best.items()} | {"best_gamma": gamma}
        return training.Verdict(logs, float(state == choice.state), _pack(outcomes))

    return judge


def _scores_and_answers(model, inputs):
    """What a model says of all classes of its stage, and which seen class it would answer."""
    scores = model.score_classes(inputs, model.class_embeddings.value)
    return scores, model.seen_answers(scores, inputs, model.seen_mask.value)


def _callbacks(experiment, name, selecting):
    callbacks = []
    patience = getattr(experiment.config, "patience", None)
    if selecting and patience:
        callbacks.append(keras.callbacks.EarlyStopping("val_AUSUC", patience=patience, mode="max"))
    if experiment.out and experiment.logs and strategies.is_chief(experiment.strategy):
        callbacks.append(keras.callbacks.TensorBoard(experiment.out / "tensorboard" / name, write_graph=False))
    return callbacks


def _pack(outcomes):
    return {field.name: getattr(outcomes, field.name) for field in dataclasses.fields(outcomes)}


def _unpack(arrays):
    return evaluation.Outcomes(**arrays)


def scored(finished):
    """What is compared: the Outcomes and the gamma of a Finished."""
    return finished.outcomes, finished.choice.gamma


def _selected(finished):
    """Each metric at the chosen state and gamma: over seeds, with the mean of the seeds' bootstrap intervals."""
    numbers = [evaluation.numbers(*scored(one)) for one in finished]
    spreads = [uncertainty.intervals(*scored(one)) for one in finished]
    columns = _over_seeds(numbers)
    for metric, column in columns.items():
        for kind in ("rows", "classes"):
            column[f"interval_{kind}"] = np.mean([spread[kind][metric] for spread in spreads], axis=0).tolist()
    return columns


def _best_on_test(finished):
    """What the papers report: T, H with its U and S, H0 with its, and AUSUC, each at its own best state on test."""
    numbers = []
    for one in finished:
        best = {metric: max(one.history, key=lambda row: row[f"best_{metric}"]) for metric in ("T", "H", "H0", "AUSUC")}
        where = {"T": "T", "U": "H", "S": "H", "H": "H", "U0": "H0", "S0": "H0", "H0": "H0", "AUSUC": "AUSUC"}
        known = {by for by, state in best.items() if state[f"best_{by}"] == state[f"best_{by}"]}  # no row: NaN, no best
        numbers.append({m: best[by][f"best_{m}"] if by in known else np.nan for m, by in where.items()})
    return _over_seeds(numbers)


def _paper_rule(rule, finished):
    """The rule of the model's paper, and U, S and H by it at each seed's chosen state; None where it has none."""
    if rule is None:
        return None
    columns = _over_seeds([evaluation.numbers(one.outcomes, rule["gamma"]) for one in finished])
    return rule | {metric: columns[metric] for metric in ("U", "S", "H")}


def _over_seeds(numbers):
    columns = {}
    for metric in evaluation.METRICS:
        values = [float(one[metric]) for one in numbers]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        columns[metric] = {"mean": float(np.mean(values)), "std": std, "values": values}
    return columns


def _cache(digest):
    """Where a baseline is kept, by the content of the data and of this code: a changed line makes a new one."""
    package = pathlib.Path(zslkeras.__file__).parent
    hasher = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), pathlib.Path(__file__)]):
        hasher.update(path.read_bytes())
    try:
        return cache.folder(f"baseline-{hasher.hexdigest()[:12]}", digest)
    except (OSError, RuntimeError):  # no home, or one that cannot be written: made anew each time
        return None


def _commit():
    """Of the checkout this runs from, "-dirty" if it was changed; None for an installed package."""
    here = pathlib.Path(__file__).parent
    try:
        ask = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_result(out, result, finished):
    """result.json and history.csv, each renamed into place."""
    rows = []
    for one in finished:
        for stage, history in (("tune", one.choice.history), ("final", one.history)):
            rows += [{"seed": one.choice.seed, "stage": stage, **row} for row in history]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [",".join(columns), *(",".join(str(row.get(key, "")) for key in columns) for row in rows)]
    replace_text(out / "history.csv", "\n".join(lines) + "\n")
    write_json(out / "result.json", result)


def _finite(value):
    """JSON has no NaN: a metric that no row speaks for is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_json(path, content):
    replace_text(path, json.dumps(_finite(content), indent=2) + "\n")


def replace_text(path, text):
    """Writes a file of text, whole or not at all."""
    with atomic.replacing(path) as draft:
        draft.write_text(text)


def timer():
    start = time.monotonic()
    return lambda: time.monotonic() - start
