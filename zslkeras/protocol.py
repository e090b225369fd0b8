"""The only module that joins data, model, training and metrics.

`select` works in stage tune and makes a Choice: the state to stop at (an epoch, or a setting of a closed form) and
gamma. `finish` trains in stage final as the Choice says, and looks at the published test rows. Nothing else trains in
that stage, so no choice can have seen those rows.
"""

import dataclasses
import pathlib
import typing

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from zslkeras import atomic, benchmarks, cache, graphs
from zslkeras.errors import InputError
from zslkeras.evaluation import calibration, confidence, metrics
from zslkeras.evaluation.confidence import Confidence
from zslkeras.models import MODELS, conditioning
from zslkeras.names import YARDSTICKS
from zslkeras.precision import computing_in
from zslkeras.structure import Each
from zslkeras.training import batches, loop, strategies
from zslkeras.training.machine import Machine

_KEPT = "scores"  # of the rows that `confidence.kept` names, among the arrays of a verdict
GAMMA_FOLDS = 3  # on which the closed form says how much gamma depends on the validation classes


@dataclasses.dataclass(frozen=True)
class Data:
    """The arguments of `benchmarks.load` that are the same for every stage and kind of inputs."""

    name: str
    root: str | None = None
    options: dict = dataclasses.field(default_factory=dict)

    def load(self, stage, inputs, fold=0):
        return benchmarks.load(self.name, self.root, stage, inputs, fold, **self.options)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One model with one config on one benchmark, on one machine.

    Attributes:
        model: its name in MODELS.
        config: an instance of the model's Config.
        data: where stages are read from.
        machine: what it is trained on.
        out: the folder for its files; None to keep none.
        logs: whether to write logs for TensorBoard.
        minutes: for both stages of a seed; training ends before it would take longer, but for its first epoch where
            that alone takes longer. None for no limit.
        best_on_test: whether stage final goes on after the chosen state, to find what is best on the test classes.
        watch: what else the logs show of stage tune: (data, benchmark, fold, folder) -> a Keras callback.
    """

    model: str
    config: typing.Any
    data: Data
    machine: Machine = Machine()
    out: pathlib.Path | None = None
    logs: bool = True
    minutes: float | None = None
    best_on_test: bool = True
    watch: typing.Callable | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def strategy(self):
        return strategies.get_strategy(self.machine.strategy, self.machine.replicas)

    def load(self, stage, fold=0):
        """A stage as the model reads it."""
        return as_read(self.data.load(stage, MODELS[self.model].eats, fold), self.config)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What stage tune decided for one seed.

    Attributes:
        seed: of the draws in both stages.
        state: the state to take, counted from 0: an epoch, or a setting of a closed form.
        states: how many states stage final goes through at most; as many as stage tune did.
        gamma: of calibrated stacking.
        found: {setting: value} of those that the config leaves to stage tune; see conditioning.resolved.
        history: the numbers of each state on the validation classes; empty if nothing was selected.
        outcomes: of the state on the validation classes; None if nothing was selected.
        start_gamma: gamma of the untrained state, where that is worth comparing.
        confidence: what the scores of validation rows say, at this gamma; None where no selection kept them.
    """

    seed: int
    state: int
    states: int
    gamma: float
    found: dict
    history: list
    outcomes: metrics.Outcomes | None = dataclasses.field(default=None, compare=False, repr=False)
    start_gamma: float = 0.0
    confidence: Confidence | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def area(self):
        """AUSUC of the state on the validation classes, by which states, seeds and models are chosen."""
        return self.history[self.state]["val_AUSUC"]


@dataclasses.dataclass(frozen=True)
class Finished:
    """One seed in stage final."""

    choice: Choice
    outcomes: metrics.Outcomes
    history: list
    weights: list  # of the chosen state; `rebuilt` makes the model from them
    start: metrics.Outcomes | None = None  # of the untrained state, where a closed form makes that worth comparing
    confidence: Confidence | None = None  # of test rows; None in a run of an earlier version


@dataclasses.dataclass(frozen=True)
class Validated:
    """One seed in stage tune, for claims made on validation classes.

    Attributes:
        outcomes: of the chosen state on the validation classes.
        gamma: with the highest H there; it is chosen on the very rows that it is judged on.
        state, history, found: as of a Choice.
        start, start_gamma: the same of the untrained state, where a closed form makes that worth comparing; else None.
    """

    outcomes: metrics.Outcomes
    gamma: float
    state: int
    history: list
    found: dict
    start: metrics.Outcomes | None = None
    start_gamma: float | None = None


def select(experiment, seed, fold=0, expect=None):
    """Trains in stage tune; chooses the state with the highest AUSUC, and its gamma with the highest H.

    AUSUC covers all gammas, so the state and its gamma are not chosen by the same maximum. docs/notes/eszsl.md
    compares this with choosing the state by H.

    Args:
        experiment: what is trained.
        seed: of the draws.
        fold: which draw of validation classes.
        expect: called once, after some steps, with the seconds that stage tune and stage final will take at most; what
            it raises ends the training.
    """
    experiment, found = _resolved(experiment, fold)
    run = _train(experiment, "tune", seed, fold, expect=expect)
    start, best = run.history[0], run.history[run.best]
    gamma = _carried(experiment, best, fold)
    start_gamma = _carried(experiment, start, fold) if run.start else 0.0
    if weight := _weight(best):
        start_gamma *= weight[conditioning.WEIGHT] / start[conditioning.WEIGHT]  # the start is the closed form alone
    outcomes, sure = _unpack(run.arrays, run), _confidence(run, gamma)
    return Choice(seed, run.best, len(run.history), gamma, found | weight, run.history, outcomes, start_gamma, sure)


def fixed(experiment, seed):
    """The Choice without any selection: the config's last epoch, gamma 0."""
    experiment, found = _resolved(experiment)
    if len(weights := conditioning.weights(experiment.config)) > 1:
        found = found | {conditioning.WEIGHT: weights[0]}
    states = experiment.config.epochs + conditioning.is_beside(experiment.config)  # the untrained one too
    return Choice(seed, states - 1, states, 0.0, found, [])


def finish(experiment, choice):
    """Trains in stage final as `choice` says, and judges its states on the published test rows."""
    run = _train(_with(experiment, choice.found), "final", choice.seed, choice=choice)
    start = _unpack(run.start, run) if run.start else None
    sure = _confidence(run, choice.gamma)
    return Finished(choice, _unpack(run.arrays, run), run.history, run.weights, start, sure)


def as_read(benchmark, config):
    """A benchmark as a model with this config reads it: image files are decoded for its `image_size`."""
    if benchmark.kind != "images":
        return benchmark
    benchmark = dataclasses.replace(benchmark, notes=(*benchmark.notes, *config.told(benchmark)))
    known = dataclasses.replace(config, **config.known(benchmark))
    return benchmarks.decoded(benchmark, known.image_size)


def untrained(finished):
    """A Finished as it would be without training; None where the untrained state has no closed form."""
    if finished.start is None:
        return None
    choice = dataclasses.replace(finished.choice, state=0, gamma=finished.choice.start_gamma, confidence=None)
    return dataclasses.replace(finished, choice=choice, outcomes=finished.start, confidence=None)


def published(experiment):
    """Stage "final", for code that looks at a finished run, such as figures. Code that chooses must not hold it."""
    return experiment.load("final")


def published_digest(data, kind):
    """Names the content of stage "final", for code that has to know it again and must not hold it.

    Args:
        data: a Data.
        kind: of its inputs.
    """
    return data.load("final", kind).digest


def published_pictures(data):
    """The images of stage "final", or their paths; for the same code as `published`."""
    return data.load("final", "images")


def rebuilt(experiment, finished, benchmark, trained=True):
    """The model of `finished` in this process alone, wherever it was trained: as it was chosen, or untrained."""
    keras.utils.set_random_seed(finished.choice.seed)
    model = _made(_with(experiment, finished.choice.found), benchmark, finished.choice.seed)
    if trained:
        loop.assign(model.variables, finished.weights, f"{experiment.out}: a checkpoint")
    return model


def on_validation(experiment, seed, fold=0):
    """The Validated of a seed on a draw of validation classes."""
    experiment, found = _resolved(experiment, fold)
    run = _train(experiment, "tune", seed, fold)
    start = (_unpack(run.start, run), run.history[0]["gamma"]) if run.start else (None, None)
    best = run.history[run.best]
    return Validated(_unpack(run.arrays, run), best["gamma"], run.best, run.history, found | _weight(best), *start)


def validated(experiment, seed, fold=0):
    """The Outcomes on the validation classes at the chosen state, and its gamma."""
    one = on_validation(experiment, seed, fold)
    return one.outcomes, one.gamma


def yardsticks(experiment, finished):
    """({name: Finished}, None) of the yardsticks on the same data; ({}, reason) if it has no pooled features.

    They are cached between runs. A yardstick that is the experiment itself is not trained again.
    """
    try:
        digest = experiment.data.load("final", "features").digest
    except InputError as error:
        return {}, str(error)
    found = {}
    for name in YARDSTICKS:
        config = MODELS[name].Config()
        if (experiment.model, experiment.config) == (name, config) and finished[0].choice.history:
            found[name] = finished[0]
        else:
            kept = cache.of_this_code("yardsticks", digest, name)
            yardstick = Experiment(name, config, experiment.data, out=kept, logs=False)
            found[name] = finish(yardstick, select(yardstick, 0))
    return found, None


def _resolved(experiment, fold=0):
    """The experiment with all settings known, and {setting: value} of those that stage tune had to find.

    They are kept in the experiment's folder: a run that goes on must not find others.
    """
    wanted = conditioning.automatic(experiment.config)
    if not wanted:
        return experiment, {}
    path = experiment.out and experiment.out / (f"found-fold{fold}.json" if fold else "found.json")
    found = atomic.read_json(path) if path else {}
    if not found:
        found = conditioning.resolved(experiment.config, experiment.load("tune", fold))
        if path and strategies.is_chief(experiment.strategy):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_json(path, found)
    if set(found) != set(wanted):
        got = ", ".join(sorted(set(found) ^ set(wanted)))
        raise InputError(
            f"{path}: {got} is missing or too much; wanted {', '.join(wanted)}; delete it to find them anew"
        )
    return _with(experiment, found), found


def _weight(state):
    """{its setting: the weight of the closed form} that a state was judged at; {} where there was no choice."""
    return {conditioning.WEIGHT: state[conditioning.WEIGHT]} if conditioning.WEIGHT in state else {}


def _carried(experiment, state, fold):
    """The gamma of the chosen state, corrected by what the closed form in the model's score has on other folds."""
    setting = conditioning.setting_of(experiment.config, state)
    if setting is None:
        return state["gamma"]
    folds = [fold, *(other for other in range(GAMMA_FOLDS) if other != fold)][:GAMMA_FOLDS]
    path = experiment.out and experiment.out / "gammas.json"
    key, known = f"{dataclasses.astuple(setting)} {folds}", atomic.read_json(path, Each([float])) if path else {}
    if key not in known:
        stages = (conditioning.pooled_stage(experiment.config, experiment.load("tune", one)) for one in folds)
        known[key] = [calibration.best_gamma(conditioning.validated(setting, stage))[0] for stage in stages]
        if path and strategies.is_chief(experiment.strategy):
            atomic.write_json(path, known)
    if len(known[key]) != len(folds):
        raise InputError(f"{path}: {len(known[key])} numbers for a setting; wanted {len(folds)}; delete it")
    own, *others = known[key]
    return calibration.carried(state["gamma"], own, others)


def _with(experiment, found):
    return dataclasses.replace(experiment, config=dataclasses.replace(experiment.config, **found))


def _train(experiment, stage, seed, fold=0, choice=None, expect=None):
    """Trains one seed in one stage, from its checkpoint if there is one."""
    strategy, benchmark = experiment.strategy, experiment.load(stage, fold)
    name = f"seed{seed}-{stage}" + (f"-fold{fold}" if fold else "")
    path = experiment.out and experiment.out / "checkpoint" / f"{name}.npz"
    keras.utils.set_random_seed(seed)
    if experiment.machine.deterministic:
        tf.config.experimental.enable_op_determinism()
    run = loop.Run(
        benchmark,
        strategy,
        _judge(benchmark, choice, conditioning.weights(experiment.config)),
        seed,
        path,
        states=_states(experiment, benchmark, choice) if choice else None,
        callbacks=_callbacks(experiment, name, benchmark, fold, selecting=choice is None),
        jit=experiment.machine.jit,
        title=f"{experiment.model} {name}",
        limit=60 * experiment.minutes / (1 + _final(benchmark)) if experiment.minutes and stage == "tune" else None,
        expect=expect and (lambda seconds: expect(seconds, seconds * _final(benchmark))),
    )
    if run.finished:
        return run
    with strategy.scope():
        model = _made(experiment, benchmark, seed)
    model.learn(run)
    run.finish(model, keep_weights=choice is not None)
    return run


def _states(experiment, benchmark, choice):
    """How many states stage final goes through. Those after the chosen one are judged for the row "best on test" alone.
    They are left out where nobody asks for this row, and where no unseen class has a test image."""
    return choice.states if experiment.best_on_test and len(benchmark.test_unseen) else choice.state + 1


def _final(tune):
    """How long stage final takes, in units of stage tune: it trains on all rows that tune trains or tests on."""
    return 1 + (len(tune.test_seen) + len(tune.test_unseen)) / len(tune.train)


def _made(experiment, benchmark, seed):
    """A compiled model of an experiment, with the precision of its machine."""
    with computing_in(experiment.machine.precision):
        model = MODELS[experiment.model].for_benchmark(benchmark, experiment.config, seed)
        model.compile()
    return model


def _judge(benchmark, choice, weights):
    """The judge of states on the stage's test rows. Stage tune keeps the highest AUSUC, and final the chosen state.

    Where a closed form may have several weights beside the model, each state is judged at the best of them.
    """
    groups, score = (benchmark.seen_classes, benchmark.unseen_classes), None

    def outcomes_of(model):
        nonlocal score
        # One trace serves all states: the variables change, the function does not.
        score = score or graphs.function(lambda inputs: _scores_and_answers(model, inputs), reduce_retracing=True)
        return tested(score, benchmark, *groups)

    def judge(model, state, scores=None):
        if scores is None and not len(benchmark.tested):
            scores = np.zeros([0, len(benchmark.class_names)])
        if scores is None:
            found = outcomes_of(model)
        else:
            outcomes = metrics.outcomes(scores, benchmark.labels[benchmark.tested], *groups)
            found = [(outcomes, np.asarray(scores[confidence.kept(*scores.shape)], np.float32))]
        gammas = [calibration.best_gamma(outcomes)[0] for outcomes, _ in found]
        numbers = [metrics.numbers(outcomes, gamma) for (outcomes, _), gamma in zip(found, gammas, strict=True)]
        place = max(range(len(found)), key=lambda place: numbers[place]["AUSUC"])
        (outcomes, kept), gamma, best = found[place], gammas[place], numbers[place]
        if choice is None:
            logs = {f"val_{metric}": value for metric, value in best.items()} | {"gamma": gamma}
            logs |= {conditioning.WEIGHT: weights[place]} if len(weights) > 1 else {}
            return loop.Verdict(logs, best["AUSUC"], _pack(outcomes, kept))
        chosen = metrics.numbers(outcomes, choice.gamma)
        logs = {f"test_{metric}": value for metric, value in chosen.items()} | {"gamma": choice.gamma}
        logs |= {f"best_{metric}": value for metric, value in best.items()} | {"best_gamma": gamma}
        return loop.Verdict(logs, float(state == choice.state), _pack(outcomes, kept))

    return judge


def tested(score, benchmark, seen_classes, unseen_classes):
    """The Outcomes on a stage's test rows and the scores [n, C] of those that `confidence.kept` names, for each weight.

    Args:
        score: the inputs of a batch -> scores [W, B, C], and the seen class that each row would answer [W, B], or None
            for the one with the highest score.
        benchmark: the stage.
        seen_classes, unseen_classes: its class ids, as the trained model knows them.
    """
    parts, start = [], 0
    places = confidence.kept(len(benchmark.tested), len(benchmark.class_names))
    for inputs, labels in batches.scoring(benchmark, benchmark.tested):
        scores, answers = score(tf.nest.map_structure(tf.constant, inputs))
        scores, answers = scores.numpy(), [None] * len(scores) if answers is None else answers.numpy()
        here = places[(places >= start) & (places < start + len(labels))] - start
        parts.append(
            [
                (
                    metrics.outcomes(one, labels, seen_classes, unseen_classes, seen_answers=of_one),
                    np.asarray(one[here], np.float32),
                )
                for one, of_one in zip(scores, answers, strict=True)
            ]
        )
        start += len(labels)
    return [
        (metrics.concatenate([outcomes for outcomes, _ in of_weight]), np.concatenate([kept for _, kept in of_weight]))
        for of_weight in zip(*parts, strict=True)
    ]


def _scores_and_answers(model, inputs):
    """A model's scores of all classes of its stage, and the seen class that it would answer, for each weight."""
    scores, seen = model.scores_by_weight(inputs, model.class_embeddings.value), model.seen_mask.value
    if scores.shape[0] == 1:
        return scores, model.seen_answers(scores[0], inputs, seen)[None]
    return scores, model.seen_answers(scores, inputs, seen)


def _callbacks(experiment, name, benchmark, fold, selecting):
    callbacks = []
    patience = getattr(experiment.config, "patience", None)
    if selecting and patience:
        callbacks.append(keras.callbacks.EarlyStopping("val_AUSUC", patience=patience, mode="max"))
    if experiment.out and experiment.logs and strategies.is_chief(experiment.strategy):
        logs = experiment.out / "tensorboard" / name
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
        stage = {"model": experiment.model, "data": experiment.data.name, "stage": name.rpartition("-")[2]}
        callbacks.append(_HParams(logs, stage | dataclasses.asdict(experiment.config)))
        if experiment.watch and selecting:
            callbacks.append(experiment.watch(experiment.data, benchmark, fold, logs / "attention"))
    return callbacks


class _HParams(keras.callbacks.Callback):
    """Tells TensorBoard's HParams the settings. TensorBoard's own callback would make its file where nothing trains."""

    def __init__(self, folder, settings):
        super().__init__()
        self._folder = folder
        self._settings = {
            key: one if isinstance(one, bool | int | float | str) else str(one) for key, one in settings.items()
        }

    def on_train_begin(self, logs=None):
        with tf.summary.create_file_writer(str(self._folder)).as_default():
            hparams.hparams(self._settings)


def _pack(outcomes, kept):
    return {field.name: getattr(outcomes, field.name) for field in dataclasses.fields(outcomes)} | {_KEPT: kept}


def _unpack(arrays, run):
    """The Outcomes in the arrays of a verdict of a Run."""
    names = [field.name for field in dataclasses.fields(metrics.Outcomes)]
    if lacking := sorted(set(names) - set(arrays)):
        raise InputError(f"{run.path}: damaged (no {lacking[0]}); delete it, and its stage is trained again")
    return metrics.Outcomes(**{name: arrays[name] for name in names})


def _confidence(run, gamma):
    """What the scores that a verdict kept say; None without test rows, and for a checkpoint of an earlier version."""
    arrays = run.arrays
    return confidence.of(_unpack(arrays, run), arrays[_KEPT], gamma) if len(arrays.get(_KEPT, ())) else None


def scored(finished):
    """The Outcomes and the gamma of a Finished, for comparisons."""
    return finished.outcomes, finished.choice.gamma
