"""A run killed at any moment and resumed ends with the same bits as one that was left alone."""

import json
import signal

import numpy as np
import pytest

RUN = ["--model", "example", "--dataset", "flo", "--seeds", "2", "--epochs", "3"]
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


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [("default",), ("mirrored", "--replicas", "2")], ids=lambda s: s[0])
def test_killed_and_resumed_is_bit_equal(strategy, tiny_root, command, tmp_path):
    args = [*RUN, "--data_root", tiny_root, "--strategy", *strategy]
    whole = command("tests.support.drive", "--die", "never", *args, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.err
    for number, death in enumerate(DEATHS.values()):
        resume = ["--resume"] if number else []
        killed = command("tests.support.drive", "--die", death, *args, "--out", tmp_path / "killed", *resume)
        assert killed.returncode == -signal.SIGKILL, (death, killed.out, killed.err)
    last = command("tests.support.drive", "--die", "never", *args, "--out", tmp_path / "killed", "--resume")
    assert last.returncode == 0, last.err
    for name in ("seed0-tune", "seed0-final", "seed1-tune", "seed1-final"):
        one, other = (np.load(tmp_path / out / "checkpoint" / f"{name}.npz") for out in ("whole", "killed"))
        assert one.files == other.files
        for key in one.files:
            np.testing.assert_array_equal(one[key], other[key], f"{name} {key}")
    assert (tmp_path / "whole/history.csv").read_text() == (tmp_path / "killed/history.csv").read_text()
    one, other = (json.loads((tmp_path / out / "result.json").read_text()) for out in ("whole", "killed"))
    assert one["selected"] == other["selected"]
    assert not [path for path in (tmp_path / "killed").rglob(".*.tmp") if path.suffix == ".npz"]


def test_finished_stages_are_not_trained_again(tiny_root, command, tmp_path):
    args = [*RUN, "--seeds", "1", "--data_root", tiny_root, "--out", tmp_path / "out"]
    assert command("tests.support.drive", "--die", "never", *args).returncode == 0
    again = command("tests.support.drive", "--die", "step:1", *args, "--resume")  # the first step would kill it
    assert again.returncode == 0, again.err
    assert "example on flo" in again.out


def test_resume_refuses_another_command(tiny_root, command, tmp_path):
    args = [*RUN, "--seeds", "1", "--data_root", tiny_root, "--out", tmp_path / "out"]
    assert command("tests.support.drive", "--die", "step:3", *args).returncode == -signal.SIGKILL
    other = command("tests.support.drive", "--die", "never", *args, "--resume", "--set", "hidden=8")
    assert other.returncode == 2
    assert "hidden=8" in other.err and "Traceback" not in other.err
