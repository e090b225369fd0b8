"""A run killed at any moment and resumed ends with the same bits as one that was left alone."""

import json
import signal

import numpy as np
import pytest

from experiments import run as run_command
from tests.support import commands
from tests.support.forked import start

RUN = ["--model", "example", "--dataset", "flo", "--epochs", "3"]
RUN += ["--set", "noise_weight=0.1", "--set", "averaging=0.5"]
# Two seeds, two stages of three epochs: a file after each epoch and one when the stage is finished.
DEATHS = {
    "in tune": "step:4",
    "inside a checkpoint write": "write:2",
    "before a rename": "rename:1",
    "in final": "step:13",
    "between seeds": "renamed:3",
    "writing the result": "rename:9",
}


@pytest.fixture(scope="module")
def args(tiny_root):
    return [*RUN, "--data_root", tiny_root, "--seeds", "2"]


@pytest.fixture(scope="module")
def whole(args, tmp_path_factory):
    """The folder of a run that was left alone."""
    folder = tmp_path_factory.mktemp("whole")
    ran = start("tests.support.drive", "--die", "never", *args, "--out", folder / "out", cwd=folder).wait_for(120)
    assert ran.returncode == 0, ran.err
    return folder / "out"


def assert_same_bits(whole, killed, names):
    for name in names:
        one, other = (np.load(out / "checkpoint" / f"{name}.npz") for out in (whole, killed))
        assert one.files == other.files
        for key in one.files:
            np.testing.assert_array_equal(one[key], other[key], f"{name} {key}")
    assert (whole / "history.csv").read_text() == (killed / "history.csv").read_text()
    one, other = (json.loads((out / "result.json").read_text()) for out in (whole, killed))
    assert one["selected"] == other["selected"]


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(whole, args, command, tmp_path):
    args = [*args, "--out", tmp_path / "killed"]
    for number, death in enumerate(DEATHS.values()):
        resume = ["--resume"] if number else []
        killed = command("tests.support.drive", "--die", death, *args, *resume)
        assert killed.returncode == -signal.SIGKILL, (death, killed.out, killed.err)
    # Once as a user does it: no process that was there before has a part in it.
    last = commands.start("tests.support.drive", "--die", "never", *args, "--resume", cwd=tmp_path).wait_for(120)
    assert last.returncode == 0, last.err
    assert_same_bits(whole, tmp_path / "killed", ["seed0-tune", "seed0-final", "seed1-tune", "seed1-final"])


@pytest.mark.long
def test_replicas_killed_and_resumed_are_bit_equal(args, command, tmp_path):
    """Where a file was half written does not depend on replicas; what a checkpoint holds does."""
    args = [*args, "--seeds", "1", "--select", "fixed", "--strategy", "mirrored", "--replicas", "2", "--out"]
    for death, out, *resume in (("never", "whole"), ("step:6", "killed"), ("never", "killed", "--resume")):
        ran = command("tests.support.drive", "--die", death, *args, tmp_path / out, *resume)
        assert ran.returncode == (0 if death == "never" else -signal.SIGKILL), (death, ran.out, ran.err)
    assert_same_bits(tmp_path / "whole", tmp_path / "killed", ["seed0-final"])


def test_finished_stages_are_not_trained_again(whole, args):
    # The first step would kill it. The folder is the one with the cached yardsticks.
    again = start("tests.support.drive", "--die", "step:1", *args, "--out", whole, "--resume", cwd=whole.parent)
    assert again.wait_for(60).returncode == 0, again.err
    assert "example on flo" in again.out


def test_resume_refuses_another_command(whole, args, tiny_root, tmp_path):
    more = "--out", whole, "--resume", "--set", "hidden=8"
    other = commands.call(run_command, tmp_path, tiny_root, tmp_path / "cache", *args, *more)
    commands.assert_refused(other, "hidden=8")
