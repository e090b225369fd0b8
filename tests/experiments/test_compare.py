"""Claims on validation classes, through the real command."""

import json

import numpy as np
import pytest

from experiments import compare as compare_command
from tests.support.commands import call
from tests.support.example import Example
from tests.support.tiny import write_tiny
from zslkeras.models import MODELS


@pytest.fixture
def compare(command, tiny_root, tmp_path):
    def run(*args):
        data = ["--dataset", "flo", "--data_root", tiny_root, "--out", tmp_path / "claim"]
        return command("experiments.compare", *data, *args)

    return run


def test_rows_are_compared_paired_on_several_folds(compare, tiny_root, tmp_path):
    args = ["--model", "eszsl", "--rows", "standard,none,eszsl", "--folds", "2", "--seeds", "1"]
    done = compare(*args)
    assert done.returncode == 0, done.err
    assert "standard against none, paired by class, 2 folds pooled" in done.out
    result = json.loads((tmp_path / "claim/compare.json").read_text())
    assert result["folds"] == [1, 2] and set(result["versus"]) == {"none", "eszsl"}
    means = {row: np.mean([one["T"] for fold in folds for one in fold]) for row, folds in result["numbers"].items()}
    # Every fold has as many validation classes as any other, so the pooled mean is the mean of the folds.
    difference = result["versus"]["none"]["T"]["difference"]
    assert difference == pytest.approx(means["standard"] - means["none"], abs=1e-9)
    assert result["versus"]["none"]["T"]["classes"] == 2 * 4
    # Nothing but stage tune was trained, and nothing is trained twice.
    trained = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "claim").rglob("*.npz")}
    assert set(trained) == {"seed0-tune-fold1.npz", "seed0-tune-fold2.npz"}
    again = compare(*args)
    assert again.out == done.out
    # Other settings, another benchmark or another machine would be answered by the old checkpoints.
    write_tiny(tmp_path / "other/FLO", seed=1)
    for more, words in (
        (("--set", "gammas=1"), "gammas=[0.001"),
        (("--data_root", tmp_path / "other"), "was started with data="),
        (("--precision", "mixed_bfloat16"), "was started with precision=float32, got precision=mixed_bfloat16"),
    ):
        data = ("--dataset", "flo", "--data_root", tiny_root, "--out", tmp_path / "claim")
        other = call(compare_command, tmp_path, tiny_root, tmp_path / "cache", *data, *args, *more)
        assert other.code == 2 and "--out: " in other.err and words in other.err, other.err
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "claim").rglob("*.npz")} == trained


def test_a_claim_is_computed_in_the_precision_asked_for(tiny_root, tmp_path, monkeypatch):
    seen = []

    class Watched(Example):
        def train_step(self, data):
            seen.append(self.compute_dtype)
            return super().train_step(data)

    monkeypatch.setitem(MODELS, "watched", Watched)
    args = ("--model", "watched", "--dataset", "flo", "--rows", "full,noisy", "--folds", 1, "--seeds", 1, "--epochs", 1)
    for precision, computed in (("float32", "float32"), ("mixed_bfloat16", "bfloat16")):
        seen.clear()
        more = ("--precision", precision, "--out", tmp_path / precision)
        ran = call(compare_command, tmp_path, tiny_root, tmp_path / "cache", *args, *more)
        assert ran.code == 0, ran.err
        assert set(seen) == {computed}


def test_yardsticks_are_rows_of_one_seed_and_an_ablation_of_their_name_comes_first(tiny_root, tmp_path, monkeypatch):
    monkeypatch.setitem(Example.ablations, "eszsl", {"noise_weight": 0.2})
    args = ("--model", "example", "--dataset", "flo", "--rows", "prototypes,eszsl", "--out", tmp_path / "claim")
    short = ("--folds", 1, "--seeds", 2, "--epochs", 1)
    ran = call(compare_command, tmp_path, tiny_root, tmp_path / "cache", *args, *short)
    assert ran.code == 0, ran.err
    models = {
        row: json.loads((tmp_path / "claim" / row / "run.json").read_text())["model"] for row in args[5].split(",")
    }
    assert models == {"prototypes": "prototypes", "eszsl": "example"}
    numbers = json.loads((tmp_path / "claim/compare.json").read_text())["numbers"]
    assert {row: len(seeds) for row, (seeds,) in numbers.items()} == {"prototypes": 1, "eszsl": 2}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--model", "eszsl", "--rows", "standard,nothing"), ("--rows: got 'nothing'", "minmax", "eszsl, prototypes")),
        (("--model", "eszsl", "--rows", "standard"), ("--rows: got standard; wanted two or more",)),
        (("--model", "eszsl", "--rows", "standard,none", "--set", "scalings=l2"), ("standard and none have the same",)),
        (("--model", "nothing", "--rows", "standard,none"), ("--model: got 'nothing'", "eszsl")),
    ],
)
def test_wrong_rows_are_one_sentence(compare, tmp_path, args, words):
    wrong = compare(*args)
    assert wrong.returncode == 2
    assert wrong.err.startswith("error: ") and wrong.err.count("\n") == 1
    assert all(word in wrong.err for word in words)
    assert not (tmp_path / "claim").exists()
