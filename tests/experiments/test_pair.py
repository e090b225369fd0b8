"""Finished runs, compared by the command."""

import json

import numpy as np
import pytest

from experiments import pair as pair_command
from experiments import run as run_command
from tests.support.commands import call
from tests.support.tiny import write_tiny
from zslkeras import protocol
from zslkeras import runs as finished
from zslkeras.evaluation import metrics
from zslkeras.figures import of_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with three finished runs: two of one benchmark, one of them of two seeds, and one of another."""
    root = tmp_path_factory.mktemp("runs")
    write_tiny(root / "data/FLO")
    write_tiny(root / "fewer/FLO", classes=18)
    made = ("none", "data", "none", 2), ("l2", "data", "l2", 1), ("other", "fewer", "l2", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_run, "write_plots", lambda *_: None)
        for out, data, row, seeds in made:
            args = "--model", "eszsl", "--dataset", "flo", "--ablation", row, "--seeds", seeds, "--out", out
            done = call(run_command, root, root, root / "cache", *args, "--data_root", root / data)
            assert done.code == 0, done.err
    return root


@pytest.fixture
def paired(runs):
    return lambda *args: call(pair_command, runs, runs, runs / "cache", *args)


def test_runs_are_paired_in_turn_and_pooled(paired, runs):
    done = paired("--runs", "none,l2", "--against", "l2,l2")
    assert done.code == 0, done.err
    tables = {}
    for name, number in (("none", 2), ("l2", 1)):
        _, seeds = finished.reopened(runs / name)
        assert len(seeds) == number
        tables[name] = np.mean([metrics.per_class(one.outcomes, one.choice.gamma)["T"] for one in seeds], axis=0)
    expected = 100 * np.mean(tables["none"] - tables["l2"]) / 2  # the other pair is a run with itself
    line = next(line for line in done.out.splitlines() if line.startswith("  T "))
    assert expected != 0 and float(line.split()[1]) == pytest.approx(expected, abs=0.051)
    assert line.endswith(f"of {2 * len(tables['none'])}") and "paired by class, 2 pooled" in done.out


@pytest.mark.parametrize(
    ("args", "name"),
    [((), "eszsl"), (("--against", "eszsl"), "eszsl"), (("--against", "prototypes"), "prototypes")],
    ids=["by default", "eszsl", "prototypes"],
)
def test_each_run_is_paired_with_its_yardstick(args, name, paired, runs):
    done = paired("--runs", "none,other", *args)
    assert done.code == 0, done.err
    versus = [
        json.loads((runs / run / "result.json").read_text())["yardsticks"][name]["versus"] for run in ("none", "other")
    ]
    difference = np.mean([one["H"]["difference"] for one in versus])
    assert f"  H  {100 * difference:>+6.1f}  [" in done.out
    assert [line.split()[0] for line in done.out.splitlines()[1:5]] == ["none", name, "other", name]


def test_its_yardsticks_are_those_of_the_protocol():
    assert pair_command.YARDSTICKS == protocol.YARDSTICKS


def test_a_run_without_pooled_features_has_no_yardstick(paired, monkeypatch):
    monkeypatch.setattr(protocol, "yardsticks", lambda *_: ({}, "missing res101.mat"))
    done = paired("--runs", "l2", "--against", "prototypes")
    assert done.code == 2
    assert done.err == "error: --against: got prototypes, but no pooled features for it beside l2: missing res101.mat\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "--runs is missing"),
        (("--runs", "nowhere"), "--runs: no result.json in nowhere"),
        (("--runs", "other", "--against", "nowhere"), "--against: no result.json in nowhere"),
        (("--runs", "other", "--against", "l2,l2"), "--against: got 2 folders; wanted one for each of the 1"),
        (("--runs", "l2", "--against", "eszsl,prototypes"), "--against: got 2 folders; wanted one for each of the 1"),
        (("--runs", "l2", "--against", "other"), "--against: the runs to compare differ in labels"),
    ],
)
def test_what_cannot_be_paired_is_one_sentence(paired, args, words):
    done = paired(*args)
    assert done.code == 2 and done.err.startswith(f"error: {words}") and done.err.count("\n") == 1
