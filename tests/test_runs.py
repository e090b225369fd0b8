"""The folder of a run: who may go on with it, what it is called, and that another format is refused."""

import json
import shutil
import types

import pytest

from experiments import run as run_command
from tests.support import damage
from tests.support.commands import call
from zslkeras import protocol, runs
from zslkeras.errors import InputError
from zslkeras.figures import of_run
from zslkeras.models import MODELS
from zslkeras.training.machine import Machine

IDENTITY = {"format": runs.FORMAT, "model": "aspn", "epochs": 3}


def opened(out, identity=IDENTITY, resume=False):
    with runs.opened(out, identity, resume):
        return json.loads((out / "run.json").read_text())


def test_a_folder_is_gone_on_with_only_by_the_same_run(tmp_path):
    assert opened(tmp_path / "out") == IDENTITY
    with pytest.raises(InputError, match="out: .* holds a run already; wanted --resume"):
        opened(tmp_path / "out")
    for resume, argument in ((True, "resume"), (None, "out")):
        assert opened(tmp_path / "out", resume=resume) == IDENTITY
        with pytest.raises(InputError, match=f"{argument}: .* was started with epochs=3, got epochs=4"):
            opened(tmp_path / "out", IDENTITY | {"epochs": 4}, resume)
        with pytest.raises(InputError, match=f"{argument}: .* was started with more=None, got more=1"):
            opened(tmp_path / "out", IDENTITY | {"more": 1}, resume)
    with pytest.raises(InputError, match="resume: no run in"):
        opened(tmp_path / "none", resume=True)
    assert opened(tmp_path / "new", resume=None) == IDENTITY


def test_a_folder_of_another_format_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(IDENTITY | {"format": 99}))
    with pytest.raises(InputError, match=r"run.json: has format 99; wanted 1, which this version reads"):
        opened(tmp_path, resume=None)


def test_wrong_input_before_anything_is_trained_takes_the_folder_away_again(tmp_path):
    with pytest.raises(InputError, match="too late"), runs.opened(tmp_path / "a/b", IDENTITY, False):
        raise InputError("too late")
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match="too late"), runs.opened(tmp_path / "a/b", IDENTITY, False):
        (tmp_path / "a/b/trained.npz").touch()
        raise InputError("too late")
    assert (tmp_path / "a/b/run.json").exists()


def test_the_next_folder_is_free_or_the_last_one_taken(tmp_path):
    stem = tmp_path / "aspn-flo"
    assert runs.next_folder(stem, False) == runs.next_folder(stem, True) == stem
    for name in ("aspn-flo", "aspn-flo-2"):
        (tmp_path / name).mkdir()
    assert runs.next_folder(stem, False).name == "aspn-flo-3" and runs.next_folder(stem, True).name == "aspn-flo-2"


def test_an_identity_tells_machines_data_and_settings_apart():
    benchmark = types.SimpleNamespace(digest="0123")
    config = MODELS["aspn"].Config()
    one = runs.identity("aspn", Machine(), benchmark, {None: config}, select="val")
    assert one["replicas"] == 1 and one["theta"] == config.theta and one["data"] == "0123" and one["select"] == "val"
    others = [
        runs.identity("aspn", Machine(precision="mixed_bfloat16"), benchmark, {None: config}, select="val"),
        runs.identity("aspn", Machine(), types.SimpleNamespace(digest="4567"), {None: config}, select="val"),
        runs.identity("aspn", Machine(), benchmark, {None: MODELS["aspn"].Config(theta=2.0)}, select="val"),
        runs.identity("aspn", Machine(), benchmark, {"baseline": config, "aspn": config}, select="val"),
        runs.identity("aspn", Machine(), benchmark, {None: config}, select="fixed"),
    ]
    assert all(other != one for other in others)


def test_checkpoints_and_finished_runs_of_another_format_are_refused(tiny_root, tmp_path, monkeypatch):
    monkeypatch.setattr(of_run, "write_plots", lambda *_: None)
    args = ("--model", "eszsl", "--dataset", "flo", "--out", "out")
    assert call(run_command, tmp_path, tiny_root, tmp_path / "cache", *args).code == 0
    monkeypatch.setenv("ZSLKERAS_DATA", str(tiny_root))
    _, (finished,) = runs.reopened(tmp_path / "out")
    assert finished.choice.seed == 0
    monkeypatch.setattr("zslkeras.training.loop.FORMAT", 2)
    with pytest.raises(InputError, match=r"seed0-tune.npz: has format 1; wanted 2"):
        runs.reopened(tmp_path / "out")
    monkeypatch.setattr(runs, "FORMAT", 2)
    with pytest.raises(InputError, match=r"run.json: has format 1; wanted 2"):
        runs.reopened(tmp_path / "out")


def test_a_folder_is_of_one_run_at_a_time(tmp_path):
    identity = {"format": runs.FORMAT, "model": "aspn"}
    with runs.opened(tmp_path / "out", identity, resume=None):
        with (
            pytest.raises(InputError, match=r"out: process \d+ works there; wanted one at a time"),
            runs.opened(tmp_path / "out", identity, resume=True),
        ):
            pass
        assert (tmp_path / "out/run.json").is_file()  # the refused one has taken nothing back
    with runs.opened(tmp_path / "out", identity, resume=True):
        pass


@pytest.mark.parametrize("name", ["result.json", "run.json"])
def test_a_damaged_record_of_a_run_is_one_sentence(exported, monkeypatch, tmp_path, name):
    out = shutil.copytree(exported.run, tmp_path / "run", ignore=shutil.ignore_patterns("saved_model"))
    (out / "run.json").write_text(json.dumps({"format": runs.FORMAT, "precision": "float32"}))
    digest = json.loads((out / "result.json").read_text())["dataset_digest"]
    for opening in ("select", "fixed", "finish"):  # what a record leads to takes long
        monkeypatch.setattr(protocol, opening, lambda *_: None)
    monkeypatch.setattr(protocol, "published", lambda _: types.SimpleNamespace(digest=digest))
    refused = damage.refusals_of_file(out / name, lambda: runs.reopened(out))
    wanted = {"result.json": ("model: [1]", "seeds: 1.5", "no config"), "run.json": ("no format", "precision: None")}
    assert set(wanted[name]) <= set(refused)
