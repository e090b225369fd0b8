"""The command line: what it prints and writes, and that wrong input ends as one sentence with nothing left behind."""

import csv
import dataclasses
import errno
import os
import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from experiments import run as run_command
from tests.support.commands import FewSettings, Ran, assert_refused, call, result_of
from tests.support.example import Example
from tests.support.tiny import write_colours, write_tiny
from zslkeras import automatic, protocol
from zslkeras.evaluation.metrics import METRICS
from zslkeras.figures import of_run
from zslkeras.models import MODELS
from zslkeras.training import loop

KEYS = {
    *("model", "dataset", "features", "seeds", "selected_on_validation", "selected", "best_on_test", "yardsticks"),
    *(
        "calibration",
        "start",
        "without_yardsticks",
        "chance",
        "paper",
        "paper_rule",
        "gamma",
        "found",
        "state",
        "unseen_embeddings_in_training",
    ),
    *("classes", "config", "data", "versions", "commit", "dataset_digest", "wall_seconds", "per_class", "command"),
}
RUN = ("--model", "example", "--dataset", "flo", "--seeds", "1", "--epochs", "2")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(tiny_root, tmp_path, cache, monkeypatch):
    """Calls the command in `tmp_path`, without the pictures, which cost as much time as the training."""
    monkeypatch.setattr(of_run, "write_plots", lambda *_: None)
    return lambda *args: call(run_command, tmp_path, tiny_root, cache, *args)


def rows_of(folder):
    with open(folder / "history.csv", newline="") as stream:
        return list(csv.DictReader(stream))


# All models in one run.


@pytest.fixture
def few(monkeypatch):
    known = {"eszsl": MODELS["eszsl"], "prototypes": MODELS["prototypes"], "example": Example, "jlaf": MODELS["jlaf"]}
    monkeypatch.setattr(automatic, "MODELS", known)


def test_auto_compares_all_models_and_finishes_the_best(few, run, tmp_path):
    ran = run("--model", "auto", "--dataset", "flo", "--seeds", "2")
    assert ran.code == 0, ran.err
    out = tmp_path / "runs/auto-flo"
    (path,) = out.glob("*/result.json")
    best = path.parent.name
    assert result_of(path.parent)["model"] == best and result_of(path.parent)["seeds"] == [0, 1]
    assert f"{best} is the best on validation classes." in ran.out
    assert "left out: jlaf: " in ran.out and f"\n{best} on flo" in ran.out
    again = run("--model", "auto", "--dataset", "flo", "--seeds", "2", "--out", out, "--resume")
    assert again.code == 0 and f"{best} is the best on validation classes." in again.out
    assert not list(tmp_path.glob("runs/auto-flo-2"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--epochs", "3"], ["--epochs", "with --model auto"]),
        (["--ablation", "all"], ["--ablation", "with --model auto"]),
        (["--strategy", "multiworker"], ["--strategy: got multiworker", "default or mirrored"]),
    ],
)
def test_auto_takes_every_model_as_it_is(args, words, run, tmp_path):
    assert_refused(run("--model", "auto", "--dataset", "flo", *args), *words)
    assert not list(tmp_path.iterdir())


def test_auto_without_data_leaves_nothing(run, tmp_path):
    assert_refused(run("--model", "auto", "--dataset", "cub"), "CUB")
    assert not list(tmp_path.iterdir())


def test_a_limit_ends_the_training_and_is_no_other_run(run, tmp_path):
    args = "--model", "example", "--dataset", "flo", "--seeds", "1", "--batch_size", "16", "--out", "out"
    limited = run(*args, "--minutes", "0.5")
    assert limited.code == 0, limited.err
    assert limited.out.count("\nat most about ") == 1
    epochs = [row["epoch"] for row in rows_of(tmp_path / "out") if row["stage"] == "final"]
    assert epochs == [row["epoch"] for row in rows_of(tmp_path / "out") if row["stage"] == "tune"]
    assert_refused(run(*args, "--resume"), "was started with minutes=0.5, got minutes=None")


# What a run writes and prints.


@pytest.fixture(scope="module")
def two_seeds(tiny_root, cache, tmp_path_factory):
    """A finished run of two seeds: what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("two")
    args = ("--model", "example", "--dataset", "flo", "--seeds", "2", "--epochs", "3", "--set", "patience=2")
    ran = call(run_command, folder, tiny_root, cache, *args, "--set", "noise_weight=0.1")
    assert ran.code == 0, ran.err
    return ran, folder / "runs/example-flo"


def test_the_result_holds_what_it_promises(two_seeds):
    result = result_of(two_seeds[1])
    assert set(result) == KEYS
    assert (result["model"], result["dataset"], result["seeds"]) == ("example", "flo", [0, 1])
    assert result["selected_on_validation"] is True
    assert result["classes"] == {"seen": 15, "unseen": 5} and result["chance"] == {"T": 1 / 5}
    assert set(result["yardsticks"]) == {"eszsl", "prototypes"} and result["without_yardsticks"] is None
    assert result["config"] == dataclasses.asdict(Example.Config(epochs=3, patience=2, noise_weight=0.1))
    assert len(result["gamma"]) == len(result["state"]) == 2 and result["found"] == [{}, {}]
    assert result["state"][0]["epoch"] in (1, 2, 3)
    assert result["paper"] is None


@pytest.mark.parametrize("column", ["selected", "best_on_test", "eszsl", "prototypes"])
def test_every_metric_of_every_column(two_seeds, column):
    result = result_of(two_seeds[1])
    metrics = {**result, **result["yardsticks"]}[column]
    for metric in METRICS:
        entry = metrics[metric]
        assert len(entry["values"]) == (1 if column in result["yardsticks"] else 2)
        assert all(0 <= value <= 1 for value in entry["values"])
        assert entry["mean"] == pytest.approx(np.mean(entry["values"]))
        assert entry["std"] == pytest.approx(np.std(entry["values"], ddof=1) if len(entry["values"]) > 1 else 0)
        if column != "best_on_test":
            for kind in ("rows", "classes"):
                low, high = entry[f"interval_{kind}"]
                assert 0 <= low <= entry["mean"] <= high <= 1 + 1e-12  # sums of shares are rounded
    assert metrics["T"]["mean"] > 0.4  # of 5 classes


def test_the_seeds_differ_and_the_best_on_test_is_never_below(two_seeds):
    result = result_of(two_seeds[1])
    assert len(set(result["selected"]["AUSUC"]["values"])) == 2
    for metric in ("T", "H", "H0", "AUSUC"):
        pairs = zip(result["best_on_test"][metric]["values"], result["selected"][metric]["values"], strict=True)
        assert all(best >= selected for best, selected in pairs)


@pytest.mark.parametrize("name", ["eszsl", "prototypes"])
def test_the_comparison_is_the_difference_of_the_columns(two_seeds, name):
    result = result_of(two_seeds[1])
    yardstick = result["yardsticks"][name]
    assert set(yardstick) == {*METRICS, "best_on_test", "versus"}
    assert set(yardstick["best_on_test"]) == set(METRICS) and set(yardstick["versus"]) == set("TUSH")
    for metric, entry in yardstick["versus"].items():
        assert set(entry) == {"difference", "interval", "classes_won", "classes_lost", "classes"}
        assert entry["interval"][0] <= entry["difference"] <= entry["interval"][1]
        assert entry["classes"] == {"T": 5, "U": 5, "S": 15, "H": 20}[metric]
        if metric != "H":  # which is not linear in the classes' means
            difference = result["selected"][metric]["mean"] - yardstick[metric]["mean"]
            assert entry["difference"] == pytest.approx(difference)


def test_the_yardsticks_are_two_models(two_seeds):
    eszsl, prototypes = result_of(two_seeds[1])["yardsticks"].values()
    assert eszsl["AUSUC"]["values"] != prototypes["AUSUC"]["values"]


def test_the_history_has_a_row_a_state_a_stage_and_a_seed(two_seeds):
    result, rows = result_of(two_seeds[1]), rows_of(two_seeds[1])
    for seed in (0, 1):
        tune, final = (
            [row for row in rows if (row["seed"], row["stage"]) == (str(seed), stage)] for stage in ("tune", "final")
        )
        assert [row["epoch"] for row in tune] == [row["epoch"] for row in final] == ["1", "2", "3"][: len(tune)]
        chosen = max(tune, key=lambda row: float(row["val_AUSUC"]))
        assert float(chosen["gamma"]) == result["gamma"][seed]
        assert int(chosen["epoch"]) == result["state"][seed]["epoch"]
        assert float(final[int(chosen["epoch"]) - 1]["test_H"]) == result["selected"]["H"]["values"][seed]
        assert all(float(row["loss"]) < 100 for row in tune + final)
        assert not any(row["test_H"] or row["best_H"] for row in tune)


def test_logs_checkpoints_and_pictures_are_there(two_seeds):
    stages = [f"seed{seed}-{stage}" for seed in (0, 1) for stage in ("tune", "final")]
    for stage in stages:
        assert list((two_seeds[1] / "tensorboard" / stage).rglob("events.out.tfevents.*"))
        assert (two_seeds[1] / "checkpoint" / f"{stage}.npz").is_file()
    assert {path.name for path in two_seeds[1].glob("*.png")} == {"curve.png", "confusion.png", "history.png"}
    assert not list(two_seeds[1].rglob("*.tmp"))


def test_tensorboard_has_the_settings_of_each_training(two_seeds):
    events = EventAccumulator(str(two_seeds[1] / "tensorboard/seed1-final")).Reload()
    told = plugin_data_pb2.HParamsPluginData()
    told.ParseFromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    shown = {key: value.ListFields()[0][1] for key, value in told.session_start_info.hparams.items()}
    config = result_of(two_seeds[1])["config"]
    assert (shown["model"], shown["stage"]) == ("example", "final") and set(config) <= set(shown)
    assert shown["learning_rate"] == config["learning_rate"] and shown["batch_size"] == config["batch_size"]


def test_the_screen(two_seeds):
    out = two_seeds[0].out
    for words in (
        "example on flo: chosen on ",
        "example on flo, res101: 2 seeds, 15 seen and 5 unseen classes, percent",
        "\nselected on validation ",
        "best on test, as papers report",
        "ESZSL, selected on validation",
        "prototypes, selected on validation",
        "against ESZSL, paired by class",
        "against prototypes, paired by class",
        "written: runs/example-flo",
    ):
        assert out.count(words) == 1, words
    mean = f"{100 * result_of(two_seeds[1])['selected']['H']['mean']:.1f}"
    assert mean in next(line for line in out.splitlines() if line.startswith("selected on validation"))
    assert "example seed1-final: " in two_seeds[0].err  # the progress line


def test_its_config_makes_the_same_run_again(two_seeds, run, tmp_path):
    args = ("--model", "example", "--dataset", "flo", "--seeds", "1", "--config", two_seeds[1] / "result.json")
    assert run(*args, "--out", "again").code == 0
    once, again = result_of(two_seeds[1]), result_of(tmp_path / "again")
    assert again["config"] == once["config"]
    assert again["selected"]["AUSUC"]["values"] == once["selected"]["AUSUC"]["values"][:1]


def test_the_yardsticks_are_kept_each_in_a_folder_of_its_own(tiny_root, tmp_path):
    def stamps():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npz")}

    assert call(run_command, tmp_path, tiny_root, tmp_path / "cache", *RUN).code == 0
    first = stamps()
    kept = {(path.parts[-3], path.name) for path in first}
    assert kept == {(name, f"seed0-{stage}.npz") for name in ("eszsl", "prototypes") for stage in ("tune", "final")}
    assert call(run_command, tmp_path, tiny_root, tmp_path / "cache", *RUN).code == 0
    assert stamps() == first
    one, other = (result_of(tmp_path / "runs" / name)["yardsticks"] for name in ("example-flo", "example-flo-2"))
    assert one == other


def test_a_home_that_cannot_be_written_costs_the_cache_only(tiny_root, tmp_path):
    (tmp_path / "file").touch()
    assert call(run_command, tmp_path, tiny_root, tmp_path / "file/cache", *RUN).code == 0
    yardsticks = result_of(tmp_path / "runs/example-flo")["yardsticks"]
    assert all(yardsticks[name]["T"]["mean"] > 0.4 for name in ("eszsl", "prototypes"))


def test_fixed_chooses_nothing(run, tmp_path):
    ran = run(*RUN, "--select", "fixed")
    assert ran.code == 0, ran.err
    assert "\nnot selected " in ran.out and "\nselected on validation " not in ran.out
    result, rows = result_of(tmp_path / "runs/example-flo"), rows_of(tmp_path / "runs/example-flo")
    assert result["selected_on_validation"] is False
    assert result["gamma"] == [0.0]
    assert result["selected"]["H"] == result["selected"]["H0"]
    assert result["state"][0]["epoch"] == 2
    assert {row["stage"] for row in rows} == {"final"}


def test_every_ablation_has_a_folder_and_a_table(run, tmp_path):
    ran = run(*RUN, "--ablation", "all", "--set", "hidden=16")
    assert ran.code == 0, ran.err
    out = tmp_path / "runs/example-flo-all"
    assert {path.parent.name for path in out.rglob("result.json")} == set(Example.ablations)
    assert [result_of(out / name)["config"]["noise_weight"] for name in Example.ablations] == [0.0, 0.1]
    assert {result_of(out / name)["config"]["hidden"] for name in Example.ablations} == {16}
    for name in Example.ablations:
        assert ran.out.count(f"example ({name}) on flo, res101: 1 seed, 15 seen and 5 unseen classes, percent") == 1
    tail = ran.out.partition("all rows, percent")[2]
    assert "\nfull " in tail and "\nnoisy " in tail
    assert (out / "confusion.png").exists()  # the rows side by side


def test_one_ablation_has_a_name_of_its_own(run, tmp_path):
    assert run(*RUN, "--ablation", "noisy").code == 0
    assert result_of(tmp_path / "runs/example-flo-noisy")["config"]["noise_weight"] == 0.1


def test_settings_are_typed(run, tmp_path):
    settings = ("learning_rate=1e-3", "hidden=8", "patience=none", "scaling=l2")
    assert run(*RUN, *(f"--set={setting}" for setting in settings), "--batch_size", 32).code == 0
    config = result_of(tmp_path / "runs/example-flo")["config"]
    assert config == dataclasses.asdict(
        Example.Config(learning_rate=1e-3, hidden=8, scaling="l2", epochs=2, batch_size=32)
    )


@pytest.mark.parametrize(
    ("model", "label", "other", "settings"),
    [
        ("eszsl", "ESZSL", "prototypes", len(FewSettings.scalings) * 2),  # gammas
        ("prototypes", "prototypes", "ESZSL", 2),  # lambdas
    ],
)
def test_a_yardstick_is_compared_with_the_other_and_not_with_itself(model, label, other, settings, run, tmp_path):
    ran = run("--model", model, "--dataset", "flo")
    assert ran.code == 0, ran.err
    assert f"{label}, selected" not in ran.out and f"against {label}" not in ran.out
    assert f"{other}, selected" in ran.out and f"against {other}" in ran.out
    result = result_of(tmp_path / f"runs/{model}-flo")
    assert result["seeds"] == [0]
    assert result["yardsticks"][model]["T"] == result["selected"]["T"]
    assert len(rows_of(tmp_path / f"runs/{model}-flo")) == 2 * settings  # stages


@pytest.mark.parametrize(
    "extra",
    [("--precision", "mixed_bfloat16"), pytest.param(("--jit",), marks=pytest.mark.long), ("--deterministic=false",)],
)
def test_precision_and_compilation_run_through(extra, run, tmp_path):
    ran = run(*RUN, *extra)
    assert ran.code == 0, ran.err
    assert result_of(tmp_path / "runs/example-flo")["selected"]["T"]["mean"] > 0.4


def test_features_that_are_the_only_ones_there_are_named(run, tmp_path, tiny_root):
    shutil.copytree(tiny_root, tmp_path / "other")
    (tmp_path / "other/FLO/res101.mat").rename(tmp_path / "other/FLO/mine.mat")
    ran = run(*RUN, "--data_root", "other")
    assert ran.code == 0, ran.err
    assert "note: features by mine, the only ones in other/FLO" in ran.out


# Your own folder of pictures.


@pytest.fixture
def pets(tmp_path):
    """Ten classes of eight pictures whose colour is their attributes, and one class without pictures."""
    generator = np.random.default_rng(0)
    rows = [(f"pet{i}", *generator.random(3).round(3)) for i in range(11)]
    for name, *colour in rows[:-1]:
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(8):
            pixels = 40 * generator.random((16, 16, 3)) + 200 * np.array(colour)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pets" / name / f"{i}.png")
    write_colours(tmp_path / "pets", rows)
    return tmp_path / "pets"


PETS = ("--model", "eszsl", "--dataset", "./pets", "--features", "filters")


def test_a_folder_with_unseen_classes_by_name(run, pets, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "yardsticks", lambda *_: ({}, "not asked for"))  # to save time
    ran = run(*PETS, "--unseen", "pet1,pet2")
    assert ran.code == 0, ran.err
    assert "written: runs/eszsl-pets-filters" in ran.out
    result = result_of(tmp_path / "runs/eszsl-pets-filters")
    assert result["classes"] == {"seen": 8, "unseen": 3}
    assert result["selected"]["T"]["mean"] > 1 / 3  # chance among the three unseen classes


def test_unseen_classes_without_pictures_are_unknown_not_zero(tiny_root, cache, pets, tmp_path):
    ran = call(run_command, tmp_path, tiny_root, cache, *PETS)
    assert ran.code == 0, ran.err
    result = result_of(tmp_path / "runs/eszsl-pets-filters")
    for column in ("selected", "best_on_test"):
        for metric in ("T", "U", "H", "H0", "AUSUC"):
            assert result[column][metric]["mean"] is None
    assert result["selected"]["S"]["mean"] > 0
    line = next(line for line in ran.out.splitlines() if line.startswith("selected on validation"))
    assert line.split()[3:5] == ["-", "-"]
    assert "nan" not in ran.out
    assert "No unseen class has a test image" in ran.out
    assert result["chance"] == {"T": None}


@pytest.mark.long
def test_a_gradient_model_on_a_folder_without_unseen_pictures(run, pets, tmp_path):
    ran = run("--model", "example", *PETS[2:], "--seeds", 2, "--epochs", 2, "--batch_size", 16)
    assert ran.code == 0, ran.err
    assert "nan" not in ran.out
    assert "against ESZSL" in ran.out and "example is " not in ran.out  # in words: nothing is known of T and H
    result = result_of(tmp_path / "runs/example-pets-filters")
    assert result["selected"]["T"]["values"] == [None, None]
    for yardstick in result["yardsticks"].values():
        assert yardstick["versus"]["T"]["difference"] is None
        gap = result["selected"]["S"]["mean"] - yardstick["S"]["mean"]
        assert yardstick["versus"]["S"]["difference"] == pytest.approx(gap, abs=1e-9)


# Going on with a run.


def test_resume_asks_what_the_data_are_and_not_where(run, tmp_path, tiny_root, monkeypatch):
    shutil.copytree(tiny_root, tmp_path / "copy")
    assert run(*RUN, "--data_root", tiny_root).code == 0
    first = result_of(tmp_path / "runs/example-flo")
    monkeypatch.setattr(loop.Run, "epochs", None)  # nothing is trained again
    ran = run(*RUN, "--data_root", "copy", "--resume")
    assert ran.code == 0, ran.err
    assert result_of(tmp_path / "runs/example-flo")["selected"] == first["selected"]
    assert not (tmp_path / "runs/example-flo-2").exists()


def test_resume_may_add_seeds(run, tmp_path):
    assert run(*RUN).code == 0
    first = result_of(tmp_path / "runs/example-flo")
    assert run(*RUN, "--seeds", 2, "--resume").code == 0
    both = result_of(tmp_path / "runs/example-flo")
    assert both["seeds"] == [0, 1]
    assert both["selected"]["H"]["values"][0] == first["selected"]["H"]["values"][0]


def test_resume_refuses_other_test_rows(run, tmp_path, tiny_root):
    """Seeds on old and on new test rows would be averaged; a shorter list of them would not even fit."""
    shutil.copytree(tiny_root, tmp_path / "copy")
    path = tmp_path / "copy/FLO/att_splits.mat"
    splits = {key: value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")}
    assert run(*RUN, "--data_root", "copy").code == 0
    scipy.io.savemat(path, splits | {"test_unseen_loc": splits["test_unseen_loc"][:-3]})
    ran = run(*RUN, "--data_root", "copy", "--seeds", 2, "--resume")
    assert_refused(ran, "--resume: runs/example-flo was started with published data=", "got published data=")


def test_resume_refuses_another_run(run, tmp_path):
    write_tiny(tmp_path / "other/FLO", seed=1)
    assert run(*RUN).code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for extra, words in (
        (("--set", "hidden=8"), ("hidden=32", "got hidden=8")),
        (("--select", "fixed"), ("select=val", "got select=fixed")),
        (("--jit",), ("jit=False", "got jit=True")),
        (("--data_root", "other"), ("data=", "got data=")),
    ):
        ran = run(*RUN, "--resume", *extra)
        assert_refused(ran, *words, "--resume: runs/example-flo was started with")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_second_run_takes_another_folder(run, tmp_path):
    for name in ("example-flo", "example-flo-2"):
        assert f"written: runs/{name}\n" in run(*RUN).out
    assert_refused(run(*RUN, "--out", "runs/example-flo"), "--out: runs/example-flo holds a run already", "--resume")


# What it refuses.


@pytest.fixture
def refuse(run, tmp_path):
    """Calls the command and expects one sentence with `words` in it, and not a file more than before."""

    def refuse(args, *words):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert_refused(run(*args), *words)
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    return refuse


BAD_ARGUMENTS = {
    "no arguments": ((), "--model is missing", "eszsl"),
    "no dataset": (("--model", "eszsl"), "--dataset is missing", "flo"),
    "a word": (("eszsl",), "got 'eszsl'", "flag"),
    "unknown flag": (("--modle", "eszsl"), "modle", "did you mean model?"),
    "flag without a value": (("--model",), "--model"),
    "unknown model": (("--model", "ezsl", "--dataset", "flo"), "'ezsl'", "eszsl"),
    "unknown dataset": (("--model", "eszsl", "--dataset", "flowers"), "'flowers'", "flo", "./flowers"),
    "dataset up": (("--model", "eszsl", "--dataset", "../nowhere"), "../nowhere", "no folder"),
    "count of seeds": ((*RUN, "--seeds", "0"), "--seeds: got 0", "at least 1"),
    "no number": ((*RUN, "--seeds", "x"), "--seeds: got 'x'", "wanted a whole number"),
    "epochs": ((*RUN, "--epochs", "0"), "--epochs: got 0", "at least 1"),
    "epochs by set": ((*RUN, "--set", "epochs=0"), "epochs: got 0", "at least 1"),
    "batch size": ((*RUN, "--set", "batch_size=-1"), "batch_size: got -1", "at least 1"),
    "more than the rows": ((*RUN, "--batch_size", "9999"), "batch_size: got 9999", "training rows"),
    "epochs of a closed form": (("--model", "eszsl", *RUN[2:]), "epochs", "eszsl has no such setting", "lambdas"),
    "unknown setting": ((*RUN, "--set", "hiden=3"), "hiden: example has no such setting", "did you mean hidden?"),
    "wrong type": ((*RUN, "--set", "hidden=many"), "hidden", "'many'", "int"),
    "no value": ((*RUN, "--set", "hidden"), "--set", "'hidden'", "key=value"),
    "unknown sampler": ((*RUN, "--set", "sampler=best"), "sampler: got 'best'", "plain, balanced"),
    "unknown ablation": ((*RUN, "--ablation", "loud"), "--ablation", "'loud'", "full, noisy"),
    "unknown choice": ((*RUN, "--precision", "float8"), "--precision: got 'float8'", "mixed_bfloat16"),
    "normalize": ((*RUN, "--normalize", "maybe"), "--normalize: got 'maybe'", "true, false"),
    "fixed closed form": (
        ("--model", "eszsl", "--dataset", "flo", "--select", "fixed"),
        *("--select: got fixed", "no epochs"),
    ),
    "bytes without an export": ((*RUN, "--with_backbone"), "--with_backbone", "without --export"),
    "formats without an export": ((*RUN, "--formats", "onnx"), "--formats", "without --export"),
    "formats of maps": (
        ("--model", "msdn", *RUN[2:], "--export", "--formats", "onnx"),
        *("--formats: msdn takes maps", "on features"),
    ),
    "no replica": ((*RUN, "--strategy", "mirrored", "--replicas", "0"), "replicas: got 0", "at least 1"),
    "replicas of nothing": ((*RUN, "--replicas", "2"), "replicas: got 2", "strategy mirrored"),
    "features by path": ((*RUN, "--features", "../res101"), "features: got '../res101'", "path separator"),
    "splits by path": ((*RUN, "--splits", "a/b"), "splits: got 'a/b'", "path separator"),
    "features not there": ((*RUN, "--features", "vgg"), "vgg.mat", "pass --features res101"),
    "no data root": (
        (*RUN, "--data_root", "nowhere"),
        "att_splits.mat and res101.mat",
        "nowhere/FLO",
        "cvpr18xian.zip",
    ),
    "an option of another reader": ((*RUN, "--unseen", "a"), "--unseen: has no meaning for dataset flo", "splits"),
    "resume nothing": ((*RUN, "--resume"), "--resume: no run in runs/example-flo"),
    "resume nothing there": ((*RUN, "--resume", "--out", "none"), "--resume: no run in none"),
    "out below a file": ((*RUN, "--out", "{file}/out"), "--out: ", "wanted a folder"),
    "out is a file": ((*RUN, "--out", "{file}"), "--out: ", "wanted a folder"),
    "out in proc": ((*RUN, "--out", "/proc/none/out"), "--out: /proc/none/out", "wanted a folder"),
    "out too long": ((*RUN, "--out", "o" * 300), "--out: ooo", "wanted a folder"),
    "no config": ((*RUN, "--config", "none.json"), "--config: no file none.json"),
    "config no JSON": ((*RUN, "--config", "{file}"), "file: cannot be read", "wanted JSON"),
    "config a list": ((*RUN, "--config", "{list}"), "holds a list", "wanted a JSON object"),
    "config of another": ((*RUN, "--config", "{other}"), "gammas: example has no such setting"),
    "config of a wrong type": ((*RUN, "--config", "{wrong}"), "hidden: got [1]", "wanted int"),
    "config of nothing": ((*RUN, "--config", "{empty}"), "has 3 as its config", "wanted an object"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments(case, refuse, tmp_path):
    args, *words = BAD_ARGUMENTS[case]
    contents = {
        "file": "hidden: 3",
        "list": "[]",
        "other": '{"config": {"gammas": [1.0]}}',
        "wrong": '{"hidden": [1]}',
        "empty": '{"config": 3}',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    paths = {f"{{{name}}}": str(tmp_path / name) for name in contents}
    args = [next((arg.replace(mark, path) for mark, path in paths.items() if mark in arg), arg) for arg in args]
    refuse(args, *words)


def changed(name, **fields):
    """Breaks a .mat file: `fields` maps a variable to what makes it wrong."""

    def change(folder):
        content = scipy.io.loadmat(folder / name)
        content = {key: value for key, value in content.items() if key[0] != "_"}
        for field, function in fields.items():
            content[field] = function(content[field])
        scipy.io.savemat(folder / name, content)

    return change


def with_first(value):
    def change(array):
        array[0, 0] = value
        return array

    return change


def cut(folder):
    content = (folder / "att_splits.mat").read_bytes()
    (folder / "att_splits.mat").write_bytes(content[: len(content) // 2])


def first_twice(array):
    array[1] = array[0]
    return array


BAD_FILES = {
    "features missing": (lambda folder: (folder / "res101.mat").unlink(), "missing res101.mat in", "prepare"),
    "split missing": (
        lambda folder: (folder / "att_splits.mat").unlink(),
        "missing att_splits.mat in",
        "ZSLKERAS_DATA",
    ),
    "truncated": (cut, "att_splits.mat: truncated or damaged"),
    "no MATLAB file": (lambda folder: (folder / "res101.mat").write_text("<html>" * 50), "begins with b'<html>"),
    "wrong dimensions": (
        changed("res101.mat", features=lambda f: f[:, 1:]),
        "features has shape (16, 479)",
        "(D, 480)",
    ),
    "label too high": (changed("res101.mat", labels=with_first(99)), "labels is 99", "wanted 1..20"),
    "label zero": (changed("res101.mat", labels=with_first(0)), "labels is 0", "wanted 1..20"),
    "not a number": (
        changed("res101.mat", features=with_first(np.nan)),
        "features is nan at row 0, column 0",
        "finite",
    ),
    "row out of range": (
        changed("att_splits.mat", test_unseen_loc=with_first(481)),
        "test_unseen_loc is 481",
        "1..480",
    ),
    "overlap": (changed("att_splits.mat", test_seen_loc=with_first(5)), "trainval_loc and test_seen_loc share 1 rows"),
    "class twice": (
        changed("att_splits.mat", allclasses_names=first_twice),
        "class class0 is there 2 times",
        "wanted it once",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(case, refuse, tmp_path, tiny_root):
    spoil, *words = BAD_FILES[case]
    shutil.copytree(tiny_root, tmp_path / "data")
    spoil(tmp_path / "data/FLO")
    refuse((*RUN, "--data_root", tmp_path / "data", "--out", "out"), *words)


BAD_FOLDERS = {
    "no table": (lambda pets: (pets / "classes.csv").unlink(), "classes: no file pets/classes.csv"),
    "class twice": (lambda pets: write_colours(pets, [("pet0", 1, 2, 3)] * 2), "class pet0 is there 2 times"),
    "no number": (lambda pets: write_colours(pets, [("pet0", 1, "much", 3)]), "line 2, column green: got 'much'"),
    "class unknown": (lambda pets: (pets / "pet3").rename(pets / "cat"), "pets/cat: no row for it"),
    "empty folder": (lambda pets: [path.unlink() for path in (pets / "pet4").iterdir()], "pets/pet4: no image in it"),
    "no picture": (lambda pets: (pets / "pet5/3.png").write_bytes(b"GIF89a?"), "pets/pet5/3.png: cannot be read"),
    "half a picture": (
        lambda pets: (pets / "pet6/2.png").write_bytes((pets / "pet6/2.png").read_bytes()[:400]),
        "pets/pet6/2.png: does not decode",
    ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(case, refuse, pets):
    spoil, *words = BAD_FOLDERS[case]
    spoil(pets)
    refuse(PETS, *words)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--unseen", "pet1,cat"), "unseen: no class 'cat'"),
        (("--unseen", "1.5"), "unseen: got 1.5"),
        (("--splits", "att_splits"), "--splits: has no meaning for dataset ./pets"),
        (("--classes", "none.csv"), "classes: no file none.csv"),
        (("--attribute_vectors", "none.npy"), "none.npy: no such file"),
        (("--features", "vgg"), "missing vgg.mat"),
    ],
)
def test_bad_arguments_of_a_folder(args, words, refuse, pets):
    refuse((*PETS, *args), words)


def test_what_training_finds_out_first_leaves_nothing_either(run, tmp_path, monkeypatch):
    """An --out that was there stays, empty as it was; folders made for it go."""
    (tmp_path / "mine").mkdir()
    for out in ("mine", "a/b/c"):
        assert_refused(run(*RUN, "--batch_size", "9999", "--out", out), "batch_size: got 9999")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert not list((tmp_path / "mine").iterdir())


def test_wrong_input_later_on_keeps_what_was_trained(run, tmp_path, monkeypatch):
    monkeypatch.setitem(Example.ablations, "large", {"batch_size": 9999})
    ran = run(*RUN, "--ablation", "all", "--out", "out")
    assert ran.code == 2 and "error: --batch_size: got 9999" in ran.err
    assert len(list((tmp_path / "out").rglob("*-final.npz"))) == 2


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_a_sentence_and_the_run_goes_on_after_it(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", no_space)
        ran = run(*RUN, "--out", "out")
    assert ran.code == 2
    assert ran.err.splitlines()[-1] == "error: out: No space left on device"
    assert not list(tmp_path.rglob("*.npz")) and not list(tmp_path.rglob("result.json"))
    replace = os.replace

    def replace_all_but_results(source, target):
        (no_space if target.name == "result.json" else replace)(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_all_but_results)
        assert "No space left on device" in run(*RUN, "--out", "out", "--resume").err
    assert not (tmp_path / "out/result.json").exists()
    assert run(*RUN, "--out", "out", "--resume").code == 0
    assert result_of(tmp_path / "out")["selected"]["T"]["mean"] > 0.4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--batch_size", "63"), ("batch_size: got 63 for 2 replicas", "multiple of 2")),
        (("--jit",), ("jit: got 2 replicas", "wanted one")),
    ],
)
def test_what_replicas_cannot_do(args, words, command, tiny_root, tmp_path):
    mirrored = ("--strategy", "mirrored", "--replicas", "2", "--data_root", tiny_root)
    done = command("tests.support.drive", "--die", "never", *RUN, *mirrored, *args)
    assert_refused(Ran(done.returncode, done.out, done.err), *words)
    assert not (tmp_path / "runs").exists()


def test_the_command_of_a_stranger(command, tmp_path):
    """The module itself, unknown flags and all, in a process of its own."""
    done = command("experiments.run", "--model", "eszsl", "--datset", "flo")
    assert_refused(Ran(done.returncode, done.out, done.err), "datset", "did you mean dataset")
    assert not (tmp_path / "runs").exists()


def test_other_errors_keep_their_traceback(run, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Example, "adapt", broken)
    with pytest.raises(ZeroDivisionError):
        run(*RUN)
