"""KerasTuner's search, for long trials and processes that get killed.

It does what KerasTuner's own oracle and tuner do not: a trial whose worker is gone goes to another worker. The chief
continues from its files after a kill -9 in the middle of a write, and its workers wait for it. The error of a failed
trial is printed.
"""

import collections
import contextlib
import json
import os
import pathlib
import sys
import threading
import time
import traceback

import grpc
import keras_tuner
import threadpoolctl  # comes with scikit-learn

from tuning import spaces
from zslkeras import atomic
from zslkeras.errors import InputError, brief
from zslkeras.training.strategies import WorkerLost

BEAT_SECONDS = 5  # between two signs of life of a worker that trains
LOST_SECONDS = 60  # without any sign: a busy machine is slow to answer, and a trial run twice costs more than a minute
IDLE_SECONDS = 0.5
FOLDER = "oracle"  # of KerasTuner's own files


def record_of(out, trial_id):
    """The record that the process of a trial wrote; {} while the trial runs."""
    return atomic.read_json(out / "trials" / trial_id / "trial.json")


class _Watched:
    """Mixed into an oracle: it notes signs of life of its tuners, and takes back the trials of lost ones."""

    def __init__(self, **kwargs):
        # Failed trials are printed, not counted: KerasTuner would raise while it holds a lock, and hang for ever.
        super().__init__(max_consecutive_failed_trials=None, **kwargs)
        self.verbose = 0
        self._heard = collections.defaultdict(time.monotonic)  # by tuner
        self._owners, self._over = {}, False

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
        self._heard[tuner_id] = time.monotonic()
        self._take_back()
        trial = super().create_trial(tuner_id)
        if trial.status == "STOPPED" and self.ongoing_trials:
            trial.status = "IDLE"  # any ongoing trial may have to be run again
            self.tuner_ids.add(tuner_id)
        self._over |= trial.status == "STOPPED"
        return trial

    def get_trial(self, trial_id):
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self._heard[tuner_id] = time.monotonic()
        return super().get_trial(trial_id)

    @keras_tuner.synchronized
    def end_trial(self, trial):
        if trial.trial_id not in self.end_order:  # otherwise it was reported twice, or run twice
            super().end_trial(trial)
            print(self._told(self.trials[trial.trial_id]), flush=True)
        self._retry_queue = [waiting for waiting in self._retry_queue if waiting != trial.trial_id]
        self.ongoing_trials = {who: one for who, one in self.ongoing_trials.items() if one.trial_id != trial.trial_id}
        self.save()  # what KerasTuner saved still has the trial as ongoing

    @keras_tuner.synchronized
    def finished(self):
        """Whether every trial is done, and every tuner has heard so or is gone."""
        self._take_back()
        return self._over and not self.tuner_ids and not self.ongoing_trials

    def save(self):
        with atomic.replacing(pathlib.Path(self._get_oracle_fname())) as draft:
            draft.write_text(json.dumps(self.get_state()))

    def set_state(self, state):
        super().set_state(state)
        self._owners = dict(self.ongoing_trials)

    def reload(self):
        try:
            super().reload()
        except Exception as error:  # KerasTuner checks nothing of what it reads
            wanted = "wanted it as the search left it; delete the folder to search anew"
            raise InputError(f"{self._project_dir}: cannot be read ({brief(error)}); {wanted}") from None
        # KerasTuner would run all of these again, but their workers may be alive. Lost workers' trials are taken back.
        ended = set(self.end_order)
        self.ongoing_trials = {who: trial for who, trial in self._owners.items() if trial.trial_id not in ended}
        known = {trial.trial_id for trial in self.ongoing_trials.values()} | ended
        self._retry_queue = sorted(set(self.trials) - known, reverse=True)

    def _save_trial(self, trial):
        with atomic.replacing(pathlib.Path(self._get_trial_dir(trial.trial_id)) / "trial.json") as draft:
            trial.save(str(draft))

    def _take_back(self):
        for tuner_id in self.tuner_ids | set(self.ongoing_trials):
            if time.monotonic() - self._heard[tuner_id] > LOST_SECONDS:
                self.tuner_ids.discard(tuner_id)
                if trial := self.ongoing_trials.pop(tuner_id, None):
                    self._retry_queue.append(trial.trial_id)
                    print(f"trial {trial.trial_id}: {tuner_id} is lost; it will be run again", flush=True)

    def _told(self, trial):
        metric, best = self.objective.name, self.get_best_trials(1)[0]
        if trial.status != "COMPLETED":
            return failure(trial.trial_id, record_of(pathlib.Path(self._project_dir).parent, trial.trial_id))
        best = f"best {100 * best.score:.1f} (trial {best.trial_id})"
        return f"trial {trial.trial_id}: {metric} {100 * trial.score:.1f}; {best}"


class _Random(_Watched, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Bayesian(_Watched, keras_tuner.oracles.BayesianOptimizationOracle):
    def populate_space(self, trial_id):
        # Thousands of tiny matrices: on two busy cores, a trial of MSDN takes 0.6 s of CPU, and 2.9 s with two threads.
        with threadpoolctl.threadpool_limits(1):
            return super().populate_space(trial_id)


class _Hyperband(_Watched, keras_tuner.oracles.HyperbandOracle):
    pass


def space(model):
    """The HyperParameters of a model's space."""
    parameters = keras_tuner.HyperParameters()
    for name, symbol in spaces.SPACES[model].items():
        symbol.declare(parameters, name)
    return parameters


def oracle(tuner, space, metric, trials, epochs, seed):
    """The oracle of a search for the highest `metric`: at most `trials`, and with Hyperband at most one sweep."""
    common = {"objective": keras_tuner.Objective(metric, "max"), "hyperparameters": space, "seed": seed}
    if tuner == "random":
        return _Random(max_trials=trials or 20, **common)
    if tuner == "bayesian":
        # KerasTuner starts with three random points per dimension, which would use up all of 20 trials.
        return _Bayesian(max_trials=trials or 20, num_initial_points=len(space.space) + 1, **common)
    made = _Hyperband(max_epochs=epochs, **common)
    made.max_trials = trials
    return made


def failure(trial_id, record):
    return f"trial {trial_id} failed: {record.get('error', 'see the output of its worker')}"


class Search(keras_tuner.Tuner):
    """Runs the trials that its oracle names: an oracle in this process, or the chief's.

    Args:
        oracle: from `oracle`.
        out: the folder of the search, which the chief and its workers share.
        score: called with the values of a trial and its folder; returns a dict, whose "numbers" hold the metric's
            "mean".
    """

    def __init__(self, oracle, out, score):
        super().__init__(oracle=oracle, directory=str(out), project_name=FOLDER)
        self.out, self.score = out, score
        self.ran, self._asked = [], False  # seconds of each trial
        self.worker = self.oracle is not oracle
        if self.worker:
            self.oracle = _Patient(self.oracle)
        elif (out / FOLDER / "oracle.json").exists():
            oracle.reload()

    def serve(self):
        """Answers workers until the search is over; KerasTuner's own server notices that up to 20 s late."""
        troubles = []

        def search():
            try:
                self.search()
            except RuntimeError as error:
                troubles.append(error)

        thread = threading.Thread(target=search, daemon=True)
        thread.start()
        while not self.oracle.finished():
            if troubles:
                raise InputError(f"chief: {str(troubles[0]).splitlines()[0]}; wanted a free port")
            time.sleep(0.2)

    def pre_create_trial(self):
        if self._asked:  # and has got nothing yet
            time.sleep(IDLE_SECONDS)
        self._asked = True

    def on_trial_begin(self, trial):
        self._asked = False

    def run_trial(self, trial):
        values, folder = trial.hyperparameters.values, self.out / "trials" / trial.trial_id
        record, began = {"trial": trial.trial_id, "values": values}, time.monotonic()
        try:
            with self._beating(trial):
                record |= self.score(values, folder)
        except OSError:  # caused by the machine, not by the values
            raise
        except Exception as error:
            record["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            record["traceback"] = traceback.format_exc()
        record["seconds"] = round(time.monotonic() - began, 2)
        self.ran.append(record["seconds"])
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(folder / "trial.json", record)
        if "error" in record:
            if self.worker:
                print(failure(trial.trial_id, record), file=sys.stderr, flush=True)
            raise keras_tuner.errors.FailedTrialError(record["error"])
        metric = self.oracle.objective.name
        return {metric: record["numbers"][metric]["mean"]}

    def _try_run_and_update_trial(self, trial):
        """KerasTuner's own method swallows every error; this one only the failures that `run_trial` has recorded."""
        try:
            self._run_and_update_trial(trial)
            trial.status = "COMPLETED"
        except keras_tuner.errors.FailedTrialError:
            trial.status = "FAILED"

    def save(self):
        """The oracle saves itself; a tuner has nothing to add."""

    @contextlib.contextmanager
    def _beating(self, trial):
        """Tells the chief every BEAT_SECONDS that the trial still runs."""
        done = threading.Event()

        def beat():
            with contextlib.suppress(WorkerLost):
                while not done.wait(BEAT_SECONDS):
                    self.oracle.get_trial(trial.trial_id)

        if self.worker:
            threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            done.set()


class _Patient:
    """The chief as a worker sees it: asked again while it is gone, until KerasTuner's hour is over."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        asked = getattr(self._client, name)
        return self._again(asked) if callable(asked) else asked

    def _again(self, asked):
        def patient(*args, **kwargs):
            while True:
                try:
                    return asked(*args, **kwargs)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        where = os.environ["KERASTUNER_ORACLE_IP"], os.environ["KERASTUNER_ORACLE_PORT"]
                        raise WorkerLost(f"the chief at {':'.join(where)}: {error.details()}") from None
                    time.sleep(IDLE_SECONDS)

        return patient
