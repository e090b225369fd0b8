"""How well "none of these" holds, where the answer is known, and by the command."""

import numpy as np
import pytest

from experiments import rejected
from experiments import rejection as command
from tests.support.commands import assert_refused, call
from zslkeras.evaluation.confidence import Confidence

SEEN = np.arange(12) < 8


def known(rows=200, right=8.0, seed=0):
    labels = np.repeat(np.arange(12), rows)
    scores = np.random.default_rng(seed).standard_normal((len(labels), 12))
    scores[np.arange(len(labels)), labels] += right
    return Confidence(scores, labels, SEEN, 0.0)


def test_classes_that_are_told_apart_lose_what_was_asked_for():
    found = [rejected.drawn(known(seed=seed), 0.1, 1, np.random.default_rng(99 - seed)) for seed in range(20)]
    for name in rejected.LISTS:
        mean = {column: np.mean([one[name][column] for one in found]) for column in rejected.COLUMNS}
        assert mean["lost"] == pytest.approx(0.1, abs=0.03), name
        assert mean["told"] > 0.99 and mean["AUROC"] > 0.99 and mean["error after"] < 0.02


def test_scores_that_say_nothing_tell_nothing():
    found = [
        rejected.drawn(known(right=0.0, seed=seed), 0.1, 1, np.random.default_rng(99 - seed)) for seed in range(20)
    ]
    for name in rejected.LISTS:
        mean = {column: np.mean([one[name][column] for one in found]) for column in rejected.COLUMNS}
        assert mean["lost"] == pytest.approx(0.1, abs=0.03) == pytest.approx(mean["told"], abs=0.03), name
        assert mean["AUROC"] == pytest.approx(0.5, abs=0.05)


def test_the_command_prints_a_row_for_each_list(tiny_root, tmp_path):
    asked = ("--dataset", "flo", "--data_root", tiny_root, "--folds", 1, "--draws", 2, "--short", 2)
    done = call(command, tmp_path, tmp_path, tmp_path / "cache", "--model", "eszsl", *asked)
    assert done.code == 0, done.err
    head, *rows = done.out.splitlines()[-4:]
    assert head.startswith("eszsl: none of these, 5.0 asked for, percent") and "AUROC" in head
    assert [row.split("  ")[0] for row in rows] == [
        "trained classes, half of validation",
        "half of the validation classes",
        "2 of them",
    ]
    assert_refused(call(command, tmp_path, tmp_path, tmp_path / "cache", "--model", "eszsl", "--rate", "2"), "--rate")
