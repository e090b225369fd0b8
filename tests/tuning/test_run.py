"""Searches: what a trial may see, what it writes, how it fails, and what a killed process costs."""

import dataclasses
import json
import math
import re
import shlex
import signal
import socket
import sys
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from experiments import published, rows
from tests.support.commands import ROOT, call
from tests.support.example import Example
from tests.support.forked import start
from tests.support.tiny import tiny
from tests.support.tune import SPACE
from tuning import run as tuning_run
from tuning import search, spaces, trials
from zslkeras import benchmarks, protocol, runs
from zslkeras.cli import flags
from zslkeras.evaluation.metrics import METRICS
from zslkeras.figures import of_run, plots
from zslkeras.models import MODELS
from zslkeras.training.loop import Diverged

FLO = ("--model", "example", "--dataset", "flo")
BESIDE_SWEEP = ("--trials", 2), ("--tuner", "random"), ("--objective", "T"), ("--search_seed", 2), ("--export",)


@pytest.fixture
def tune(tiny_root, tmp_path, monkeypatch):
    """Calls `python -m tuning.run ARGS` in `tmp_path`, in this process and with the example model at hand."""
    monkeypatch.setitem(spaces.SPACES, "example", SPACE)
    monkeypatch.setattr(of_run, "write_plots", lambda *_: None)
    return lambda *args: call(tuning_run, tmp_path, tiny_root, tmp_path / "cache", *args)


def optimum(config, seed=0, fold=0):
    """A score with its best at noise_weight 0.15 and learning_rate 1e-2."""
    away = (config.noise_weight / 0.2 - 0.75) ** 2 + (math.log10(config.learning_rate) + 2) ** 2
    return 0.8 - 0.3 * away + 0.01 * seed + 0.02 * fold


@pytest.fixture
def selected(monkeypatch):
    """Trials without training: every `protocol.select` asked for, as (experiment, seed, fold)."""
    asked = []

    def select(experiment, seed, fold=0):
        asked.append((experiment, seed, fold))
        numbers = {f"val_{metric}": optimum(experiment.config, seed, fold) for metric in METRICS}
        wrong = dict.fromkeys(numbers, 0.01)
        return protocol.Choice(seed, 1, 3, 0.5, {}, [wrong, numbers, wrong])

    monkeypatch.setattr(protocol, "select", select)
    return asked


def read(path):
    return json.loads(path.read_text())


# The spaces.


@pytest.mark.parametrize("name", spaces.SPACES)
def test_every_symbol_sets_a_field_and_both_its_ends_make_a_config(name):
    fields = {field.name for field in dataclasses.fields(MODELS[name].Config)}
    for parameter in search.space(name).space:
        for height in (0.0, 0.5, 1.0):
            settings = spaces.settings(name, {parameter.name: parameter.prob_to_value(height)})
            assert set(settings) <= fields
            MODELS[name].Config(**settings)


def test_every_model_that_has_a_learning_rate_has_a_space():
    assert set(spaces.SPACES) == {name for name, model in MODELS.items() if hasattr(model.Config, "learning_rate")}


@pytest.mark.parametrize("name", spaces.SPACES)
def test_the_defaults_lie_inside(name):
    config = MODELS[name].Config()
    for symbol in spaces.SPACES[name].values():
        default = getattr(config, symbol.field)
        assert default in symbol.values or symbol.low <= default <= symbol.high


def test_symbols_are_the_papers():
    assert {"lambda_SC", "lambda_GC", "beta", "gamma"} < set(spaces.SPACES["drmn"])
    assert spaces.settings("drmn", {"gamma": 4.0, "lambda_SC": 0.2}) == {"scale": 4.0, "lambda_sc": 0.2}
    assert spaces.settings("dcen", {"K": 3, "m": 0.99}) == {"blocks": 3, "momentum": 0.99}
    assert spaces.settings("msdn", {"alpha1": 0.9}) == {"alpha1": 0.9, "alpha2": 0.1}
    hyperband = {"alpha": 0.5, "tuner/epochs": 4, "tuner/initial_epoch": 2, "tuner/bracket": 1}
    assert spaces.settings("aspn", hyperband) == {"alpha": 0.5, "epochs": 4}


# What a trial may see.


class Guarded(np.ndarray):
    """Inputs of which some rows must not be read."""

    forbidden = ()

    def take(self, rows, *args, **kwargs):
        assert not np.isin(rows, self.forbidden).any(), "a published test row was read"
        return super().take(rows, *args, **kwargs).view(np.ndarray)

    def __getitem__(self, rows):
        if isinstance(rows, np.ndarray):
            return self.take(rows, axis=0)
        assert not isinstance(rows, slice), "all rows were read"
        return super().__getitem__(rows)


@pytest.fixture
def planted(monkeypatch):
    """A benchmark whose published test rows raise when they are read, and are not numbers besides."""
    final = tiny()
    inputs = final.inputs.copy()
    forbidden = np.concatenate([final.test_seen, final.test_unseen])
    inputs[forbidden] = np.nan
    guarded = inputs.view(Guarded)
    monkeypatch.setattr(Guarded, "forbidden", forbidden)
    final = dataclasses.replace(final, name="flo", inputs=guarded)

    def load(name, root=None, stage="tune", inputs="features", fold=0, **options):
        return benchmarks.tune_stage(final, fold) if stage == "tune" else final

    monkeypatch.setattr(benchmarks, "load", load)
    return final


def test_a_whole_search_reads_no_published_test_row(tune, planted, tmp_path):
    with pytest.raises(AssertionError, match="published test row"):
        planted.take(planted.test_unseen[:1])
    ran = tune(*FLO, "--tuner", "random", "--trials", 2, "--epochs", 2, "--folds", 2, "--nofinal_run")
    assert ran.code == 0, ran.err
    out = tmp_path / "runs/example-flo-search"
    assert len(list(out.glob("trials/*/checkpoint/seed0-tune*.npz"))) == 4
    best = read(out / "recipe.json")
    assert 0.1 < best["validation"]["H"]["mean"] <= 1 and len(best["validation"]["H"]["values"]) == 2
    # The look at the test classes is the one thing that fails on this benchmark.
    with pytest.raises(AssertionError, match="published test row"):
        tune(*FLO, "--tuner", "random", "--trials", 2, "--epochs", 2, "--folds", 2, "--resume")


def test_the_score_is_the_mean_at_the_chosen_state_over_seeds_and_folds(tune, selected, tmp_path):
    args = ("--trials", 3, "--seeds", 2, "--folds", 2, "--first_fold", 3, "--nofinal_run", "--objective", "AUSUC")
    assert tune(*FLO, *args).code == 0
    assert [(seed, fold) for _, seed, fold in selected[:4]] == [(0, 3), (1, 3), (0, 4), (1, 4)]
    assert len(selected) == 3 * 4
    for trial in read(tmp_path / "runs/example-flo-search/search.json")["trials"]:
        config = Example.Config(**trial["config"])
        mean = np.mean([optimum(config, seed, fold) for seed in (0, 1) for fold in (3, 4)])
        assert trial["numbers"]["AUSUC"]["mean"] == pytest.approx(mean)
        assert config.noise_weight == trial["values"]["lambda_noise"]


# What a search finds and leaves.


@pytest.mark.parametrize("tuner", spaces.TUNERS)
def test_each_tuner_finds_its_way_and_the_recipe_is_the_best_trial(tune, selected, tmp_path, tuner):
    trials = () if tuner == "hyperband" else ("--trials", 10)
    ran = tune(*FLO, "--tuner", tuner, *trials, "--nofinal_run", "--set", "hidden=8")
    assert ran.code == 0, ran.err
    out = tmp_path / "runs/example-flo-search"
    trials = read(out / "search.json")["trials"]
    scores = [trial["numbers"]["H"]["mean"] for trial in trials]
    recipe_ = read(out / "recipe.json")
    assert recipe_["validation"]["H"]["mean"] == max(scores)
    assert recipe_["config"]["hidden"] == 8
    assert len({json.dumps(trial["values"]) for trial in trials}) == len(trials)
    if tuner == "hyperband":
        assert {trial["config"]["epochs"] for trial in trials} == {2, 4}  # of the example's 4, thirds rounded up
    else:
        assert len(trials) == 10
    if tuner == "bayesian":  # after as many drawn points as dimensions and one, each is guided
        assert max(scores) > 0.79 and scores.index(max(scores)) > len(SPACE)
    for name in ("best_so_far.png", "trials.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "s a trial outside training" in ran.out


def test_the_winner_is_run_once_and_both_numbers_are_shown(tune, tmp_path):
    args = ("--tuner", "random", "--trials", 2, "--epochs", 2, "--seeds", 1, "--set", "hidden=16")
    ran = tune(*FLO, *args)
    assert ran.code == 0, ran.err
    out = tmp_path / "runs/example-flo-search"
    winner, final = read(out / "recipe.json"), read(out / "final" / read(out / "recipe.json")["trial"] / "result.json")
    assert final["config"] == winner["config"]
    lines = {line[:34].strip(): line[34:].split() for line in ran.out.splitlines()[-2:]}
    shown = {name: f"{100 * winner['validation'][name]['mean']:.1f}" for name in ("T", "U", "S", "H", "AUSUC")}
    assert lines["validation classes, searched on"] == list(shown.values())
    assert lines["test classes, one look"][3] == f"{100 * final['selected']['H']['mean']:.1f}"
    trial = winner["trial"]
    events = EventAccumulator(str(out / "tensorboard" / trial)).Reload()
    found = plugin_data_pb2.HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    told = {name: value.number_value for name, value in found.session_start_info.hparams.items()}
    (record,) = (one for one in read(out / "search.json")["trials"] if one["trial"] == trial)
    assert told == pytest.approx(record["values"])
    (shown,) = events.Tensors("val_H")
    assert tf.make_ndarray(shown.tensor_proto) == pytest.approx(winner["validation"]["H"]["mean"])
    # More trials later: those that are done are not trained again.
    kept = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/checkpoint/*.npz")}
    more = tune(*FLO, *args[:2], "--trials", 3, *args[4:], "--nofinal_run", "--resume")
    assert more.code == 0, more.err
    assert [trial["trial"] for trial in read(out / "search.json")["trials"]] == ["0", "1", "2"]
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_a_new_winner_after_more_trials_has_a_final_run_of_its_own(monkeypatch, tmp_path):
    def train(benchmark, experiments, out, *_, resume, **__):
        looked.append((resume, out.name, experiments[None].config))
        with runs.opened(out, {"format": runs.FORMAT}, resume):
            (out / "result.json").write_text(json.dumps({"selected": out.name}))

    looked, config = [], dataclasses.asdict(Example.Config(hidden=8))
    monkeypatch.setattr(rows, "train", train)
    monkeypatch.setitem(MODELS, "example", Example)
    base = protocol.Experiment("example", Example.Config(), None, out=tmp_path)
    settings = tuning_run.Settings(model="example")
    for winner in ("0", "0", "2"):  # the second is that of --resume
        best = {"trial": winner, "config": config}
        assert trials._final(settings, None, base, best) == winner
    assert [(resume, name) for resume, name, _ in looked] == [(False, "0"), (True, "0"), (False, "2")]
    assert {one.hidden for *_, one in looked} == {8}


def test_a_number_of_zero_is_shown_and_one_that_is_not_there_is_not():
    means = {"T": 0.5, "U": 0.0, "S": None, "H": 0.0, "AUSUC": 0.1}
    numbers = {metric: {"mean": mean} for metric, mean in means.items()}
    shown = trials._side_by_side(numbers, numbers).splitlines()[-1]
    assert shown.split()[-5:] == ["50.0", "0.0", "-", "0.0", "10.0"]


def test_the_recipe_is_a_config_that_the_command_takes(tune, selected, tmp_path, monkeypatch):
    assert tune(*FLO, "--trials", 2, "--nofinal_run").code == 0
    path = tmp_path / "runs/example-flo-search/recipe.json"
    monkeypatch.setitem(MODELS, "example", Example)
    named = types.SimpleNamespace(name="flo", features="res101")
    config = published.config("example", named, flags.Overrides(config=str(path)))
    assert dataclasses.asdict(config) == read(path)["config"]


# Failures.


def test_a_failed_trial_is_told_at_once_and_in_the_end(tune, selected, monkeypatch, tmp_path):
    whole = protocol.select

    def select(experiment, seed, fold=0):
        if len(selected) in (1, 2, 3, 4):  # more in a row than KerasTuner lets pass
            selected.append(None)
            raise Diverged("loss is not a finite number\nat step 3")
        return whole(experiment, seed, fold)

    monkeypatch.setattr(protocol, "select", select)
    ran = tune(*FLO, "--tuner", "random", "--trials", 6, "--nofinal_run")
    assert ran.code == 0, ran.err
    told = "trial 1 failed: Diverged: loss is not a finite number at step 3"
    assert ran.out.count(f"{told}\n") == 2 and ran.out.index(told) < ran.out.index("trial 5: H")
    assert read(tmp_path / "runs/example-flo-search/recipe.json")["trials"] == 6
    assert "raise Diverged" in read(tmp_path / "runs/example-flo-search/search.json")["trials"][1]["traceback"]


def test_a_search_in_which_no_trial_scored_exits_non_zero(tune, monkeypatch, tmp_path):
    def select(*_):
        raise ValueError("shapes do not fit")

    monkeypatch.setattr(protocol, "select", select)
    ran = tune(*FLO, "--trials", 2)
    assert ran.code == 1
    assert "error: none of 2 trials scored" in ran.err and ran.out.count("ValueError: shapes do not fit") == 4
    assert not (tmp_path / "runs/example-flo-search/recipe.json").exists()


def test_a_score_that_is_no_number_is_a_failure(tune, selected, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "optimum", lambda *_: float("nan"))
    ran = tune(*FLO, "--trials", 2)
    assert ran.code == 1 and "H is not a number" in ran.out


def test_a_full_disk_ends_the_search(tune, monkeypatch):
    def select(*_):
        raise OSError(28, "No space left on device", "runs")

    monkeypatch.setattr(protocol, "select", select)
    ran = tune(*FLO, "--trials", 2)
    assert (ran.code, ran.err) == (2, "error: runs: No space left on device\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--model", "eszsl", "--dataset", "flo"), ("--model: got 'eszsl'", "aspn")),
        (("--dataset", "flo"), ("--model is missing",)),
        ((*FLO, "extra"), ("got 'extra'",)),
        ((*FLO, "--select", "fixed"), ("--select: no flag of",)),
        ((*FLO, "--sweep", "lambda_noise"), ("--sweep: got 'lambda_noise'", "SYMBOL=VALUE")),
        ((*FLO, "--sweep", "lamda=1"), ("lamda: example has no such setting",)),
        ((*FLO, "--sweep", "lambda_noise=a"), ("noise_weight: got 'a'", "float")),
        ((*FLO, "--sweep", "hidden=4", "--role", "worker"), ("--role: got it beside --sweep",)),
        ((*FLO, "--role", "chief", "--chief", "here"), ("--chief: got 'here'", "host:port")),
        ((*FLO, "--chief", "here:80"), ("--chief: got it without --role",)),
        ((*FLO, "--trials", "0"), ("--trials: got 0", "at least 1")),
        ((*FLO, "--describe"), ("--describe: no flag of",)),
        ((*FLO, "--ablation", "all"), ("--ablation: got all", "a single row")),
        ((*FLO, "--export", "--nofinal_run"), ("--export: got it with --nofinal_run",)),
        ((*FLO, "--strategy", "multiworker"), ("--strategy: got multiworker", "--role")),
        *(((*FLO, "--sweep", "hidden=4", *more), (f"{more[0]}: got it beside --sweep",)) for more in BESIDE_SWEEP),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(tune, tmp_path, args, words):
    wrong = tune(*args)
    assert wrong.code == 2
    assert wrong.err.startswith("error: ") and wrong.err.count("\n") == 1
    assert all(word in wrong.err for word in words)
    assert not (tmp_path / "runs").exists()


def test_another_search_in_the_same_folder_is_refused(tune, selected):
    assert tune(*FLO, "--trials", 2, "--nofinal_run").code == 0
    assert "holds a run already" in tune(*FLO, "--trials", 2, "--nofinal_run").err
    other = tune(*FLO, "--trials", 2, "--nofinal_run", "--resume", "--objective", "T")
    assert other.code == 2 and "objective=H" in other.err


# Several processes.


def test_compose_starts_a_chief_and_workers_that_know_each_other():
    text = (ROOT / "docker/compose.yaml").read_text()
    commands = [json.loads(line) for line in re.findall(r"command: (\[.*\])", text)]
    assert len(commands) == 2
    roles = {}
    for (line,) in commands:
        line = re.sub(r"\$\{SEARCH:[^}]*\}", "--model msdn --dataset shapes", line).replace("${RESUME:-false}", "true")
        _, program, _, module, *args = shlex.split(line)
        assert (program, module) == ("python", "tuning.run")
        settings, _ = tuning_run.COMMAND.read(args)
        roles[settings.search.role] = settings.search.chief, settings.out, settings.resume
    assert roles["chief"][:2] == roles["worker"][:2]
    assert roles["chief"][0].split(":")[0] in re.findall(r"^  (\w+):$", text, re.M)  # the service is its host's name
    assert roles["chief"][2] and not roles["worker"][2]
    assert re.search(r"^# .* -f (docker/\w+\.Dockerfile)", text, re.M)


@pytest.mark.long
def test_killed_workers_and_a_killed_chief_cost_no_trial(tiny_root, tmp_path):
    """A worker dies at its third step, the chief between two files of its state; all trials are there in the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    args = [*FLO, "--data_root", tiny_root, "--epochs", 3, "--tuner", "random", "--trials", 5, "--nofinal_run"]
    args += ["--chief", address, "--out", tmp_path / "out"]

    def begin(die, role, *more):
        return start("tests.support.tune", "--die", die, *args, "--role", role, *more, cwd=tmp_path)

    chief = begin("rename:12", "chief")
    doomed, steady = begin("step:3", "worker"), begin("never", "worker")
    chief.wait_for(100)
    again = begin("never", "chief", "--resume").wait_for(100)
    doomed.wait_for(30)
    steady.wait_for(30)
    assert (doomed.returncode, chief.returncode) == (-signal.SIGKILL, -signal.SIGKILL), (doomed.err, chief.err)
    assert (again.returncode, steady.returncode) == (0, 0), (again.err, steady.err)
    trials = read(tmp_path / "out/search.json")["trials"]
    assert [trial["trial"] for trial in trials] == list("01234")
    assert all(0 < trial["numbers"]["H"]["mean"] < 1 for trial in trials)
    assert (chief.out + again.out).count("is lost; it will be run again") >= 1
    assert read(tmp_path / "out/recipe.json")["trials"] == 5


@pytest.fixture
def worker(tune, monkeypatch, tmp_path):
    """A worker in this process, whose chief has opened the folder "out" for trials of two folds; asks for no trial."""
    monkeypatch.setattr(search, "_Patient", lambda client: types.SimpleNamespace(get_space=lambda: None))
    monkeypatch.setattr(search.Search, "search", lambda self: print("searching"))
    for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"):
        monkeypatch.setenv(f"KERASTUNER_{name}", "")  # so that what --role sets goes with the test
        monkeypatch.delenv(f"KERASTUNER_{name}")
    monkeypatch.setattr(search.Search, "serve", lambda self: sys.exit(0))
    assert tune(*FLO, "--folds", 2, "--role", "chief", "--out", "out").code == 0
    return lambda *args: tune(*FLO, "--role", "worker", *args)


def test_a_worker_joins_the_search_of_its_chief(worker):
    joined = worker("--folds", 2, "--out", "out")
    assert joined.code == 0 and "searching" in joined.out


def test_a_worker_whose_numbers_would_not_belong_to_the_search_is_refused(worker, tmp_path):
    elsewhere = worker("--folds", 2, "--out", "other")
    assert elsewhere.code == 2 and "--out: other is not the chief's" in elsewhere.err
    different = worker("--folds", 3, "--out", "out")
    assert different.code == 2 and "folds=2" in different.err and "searching" not in different.out
    assert not (tmp_path / "other/run.json").exists() and (tmp_path / "out/run.json").exists()


def test_a_trial_of_a_lost_worker_goes_to_the_next_and_one_that_answers_is_left_alone(tmp_path, monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(search.time, "monotonic", lambda: now)
    oracle = search.oracle("random", search.space("msdn"), "H", 2, 4, 1)
    oracle._set_project_dir(str(tmp_path), search.FOLDER)
    first, second = oracle.create_trial("a"), oracle.create_trial("b")
    now = search.LOST_SECONDS
    oracle.get_trial(second.trial_id)  # b still answers
    now += 1
    again = oracle.create_trial("c")
    assert again.trial_id == first.trial_id and again.hyperparameters.values == first.hyperparameters.values
    assert "trial 0: a is lost" in capsys.readouterr().out
    for trial in (second, again):
        assert oracle.create_trial("d").status == "IDLE"  # it may be needed yet
        oracle.update_trial(trial.trial_id, {"H": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        oracle.end_trial(trial)  # told twice
    assert oracle.end_order == ["1", "0"]
    stopped = [oracle.create_trial(one).status for one in ("b", "c")]
    assert stopped == ["STOPPED", "STOPPED"] and not oracle.finished()  # d has not been told
    assert oracle.create_trial("d").status == "STOPPED" and oracle.finished()


# Pictures.


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Calls a function of `plots` and returns the figure that it wrote."""
    figures_ = []
    monkeypatch.setattr(plt, "close", figures_.append)

    def draw(function, *args):
        function(tmp_path / "figure.png", *args)
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
        return figures_[-1].axes[0]

    yield draw
    monkeypatch.undo()
    plt.close("all")


def test_a_sweep_varies_one_symbol_and_draws_it(tune, selected, monkeypatch, tmp_path):
    sensitivity, calls = plots.sensitivity, []
    monkeypatch.setattr(plots, "sensitivity", lambda *args: (calls.append(args), sensitivity(*args)))
    sweep = ("--sweep", "lambda_noise=0,0.15,0.2", "--sweep", "hidden=4", "--seeds", 2, "--set", "learning_rate=0.02")
    ran = tune(*FLO, *sweep)
    assert ran.code == 0, ran.err
    assert [experiment.config.noise_weight for experiment, *_ in selected] == [0, 0, 0.15, 0.15, 0.2, 0.2, 0, 0]
    assert {experiment.config.learning_rate for experiment, *_ in selected} == {0.02}
    assert len({experiment.out for experiment, *_ in selected}) == 4
    _, symbol, values, curves = calls[0]
    assert (symbol, values) == ("lambda_noise", ["0", "0.15", "0.2"])
    wanted = [optimum(Example.Config(noise_weight=value, learning_rate=0.02)) + 0.005 for value in (0, 0.15, 0.2)]
    np.testing.assert_allclose(curves["H"][0], wanted)
    np.testing.assert_allclose(curves["H"][1], 0.01 / np.sqrt(2))  # of a sample of two
    out = tmp_path / "runs/example-flo-sweep"
    assert (out / "sweep-lambda_noise.png").exists() and (out / "sweep-hidden.json").exists()


def test_a_sweep_over_files_stays_in_its_folder(tmp_path):
    base = protocol.Experiment("dcen", MODELS["dcen"].Config(), None, out=tmp_path)
    _, experiments = trials._sweep(base, "weights=/data/a.h5,b/../../c.h5")
    assert {experiment.out.parent for experiment in experiments.values()} == {tmp_path / "sweep-weights"}


def test_a_sweep_goes_on_where_a_value_diverges(tune, selected, monkeypatch, tmp_path):
    whole = protocol.select

    def select(experiment, seed, fold=0):
        if experiment.config.noise_weight == 9:
            raise Diverged("loss is not a finite number")
        return whole(experiment, seed, fold)

    monkeypatch.setattr(protocol, "select", select)
    ran = tune(*FLO, "--sweep", "lambda_noise=0,9,0.1")
    assert ran.code == 0 and "lambda_noise=9 failed: loss is not a finite number" in ran.err
    assert len(selected) == 2


def test_sensitivity_draws_each_metric_at_evenly_spaced_values(drawn):
    axes = drawn(plots.sensitivity, "lambda_cal", ["0", "0.1", "5"], {"U": ([0.1, 0.2, np.nan], [0, 0.1, 0])})
    (line,) = axes.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[0, 10], [1, 20], [2, np.nan]])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.1", "5"]
    assert axes.get_xlabel() == "lambda_cal"


def test_best_so_far_never_falls_and_failures_are_marked(drawn):
    axes = drawn(plots.best_so_far, "H", [np.nan, 0.3, 0.2, 0.5])
    best, trials, failed = axes.get_lines()
    np.testing.assert_allclose(best.get_ydata(), [np.nan, 30, 30, 50])
    np.testing.assert_allclose(trials.get_xydata(), [[2, 30], [3, 20], [4, 50]])
    np.testing.assert_allclose(failed.get_xdata(), [1])


def test_parallel_coordinates_end_at_the_score_and_the_best_is_on_top(drawn):
    heights = {"beta": ([0.0, 1.0, 0.5], [(0, "1"), (1, "9")]), "eta": ([0.2, 0.4, 0.6], [])}
    axes = drawn(plots.parallel_coordinates, heights, "H", [0.5, 0.1, 0.3])
    lines = [line.get_ydata() for line in axes.get_lines()[:3]]
    np.testing.assert_allclose(lines, [[1, 0.4, 0], [0.5, 0.6, 0.5], [0, 0.2, 1]])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["beta", "eta", "H, %"]
