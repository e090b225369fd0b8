"""Figures as a table, beside goals, a former file and another checkout."""

import json

import pytest

from experiments import measurements, speed, timings
from tests.support.commands import ROOT, assert_refused, call

FIGURES = {"aspn": {"milliseconds": 150.0, "share_of_matmul_rate": 0.6}, "machine": {"cuda": None, "cores": 2}}


def lines_of(text):
    """The lines of a table, each with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines()[1:]]


def test_a_figure_stands_beside_its_goal():
    assert lines_of(timings.table(FIGURES)) == [
        "aspn, milliseconds 150 at most 160: met",
        "aspn, share_of_matmul_rate 0.6 at least 0.7: missed",
        "machine, cores 2",
    ]


def test_every_goal_is_one_of_a_figure_that_is_measured():
    for name in timings.GOALS:
        assert name.split(", ")[0] in speed.NAMES and hasattr(measurements, name.split(", ")[0])


def test_figures_are_written_and_compared_with_a_former_file(tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "matmul", lambda repeats: {"gflop_per_second": 100.0 * repeats})
    args = ("--only", "matmul", "--json", tmp_path / "now.json")
    (tmp_path / "former.json").write_text(json.dumps({"matmul": {"gflop_per_second": 250.0}}))
    ran = call(speed, tmp_path, tmp_path, tmp_path, *args, "--repeats", 2, "--against", tmp_path / "former.json")
    assert ran.code == 0, ran.err
    assert "matmul, gflop_per_second 200 250 0.800" in lines_of(ran.out)
    assert json.loads((tmp_path / "now.json").read_text()) == {"matmul": {"gflop_per_second": 200.0}}
    wrong = call(speed, tmp_path, tmp_path, tmp_path, *args, "--against", tmp_path / "nowhere")
    assert_refused(wrong, "--against: no file or folder")
    assert_refused(
        call(speed, tmp_path, tmp_path, tmp_path, *args, "--against", tmp_path), "has no experiments/speed.py"
    )


def test_checkouts_are_measured_in_turns_and_compared_turn_by_turn(monkeypatch, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/speed.py").touch()
    order = []

    def measured_in(checkout, names):
        order.append("ours" if checkout == ROOT else "theirs")
        machine = (1, 10, 100)[(len(order) - 1) // 2]  # gets slower from turn to turn
        return {"loop": {"milliseconds": machine * (2.0 if order[-1] == "ours" else 4.0), "new": 1.0}}

    monkeypatch.setattr(timings, "_measured_in", measured_in)
    ours, theirs, ratios = timings._in_turns(["loop"], 3, tmp_path)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert (ours["loop, milliseconds"], theirs["loop, milliseconds"], ratios["loop, milliseconds"]) == (20, 40, 0.5)


@pytest.mark.slow
def test_a_checkout_measures_itself_in_a_process():
    found = timings._measured_in(ROOT, ["score_matrix"])
    assert found["score_matrix"]["rows_per_second"] > 0
