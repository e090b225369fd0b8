"""The table on the screen, letter by letter, for a result made by hand."""

import copy

import numpy as np
import pytest

from experiments import report
from tests.support.tiny import tiny
from zslkeras.benchmarks import tune_stage
from zslkeras.evaluation.metrics import METRICS


def columns(first, std=0.0, seeds=1, intervals=True):
    """Columns of a result whose metrics are first, first + 0.1, ... 0.7 above."""
    made = {}
    for place, metric in enumerate(METRICS):
        mean = first + 0.1 * place
        made[metric] = {"mean": mean, "std": std, "values": [mean] * seeds}
        if intervals:
            made[metric] |= {
                "interval_rows": [mean - 0.01, mean + 0.012],
                "interval_classes": [mean - 0.02, mean + 0.034],
            }
    return made


RESULT = {
    "model": "aspn",
    "dataset": "flo",
    "features": "mobilenetv2",
    "seeds": [0, 1, 2],
    "selected_on_validation": True,
    "selected": columns(0.1234, std=0.0156, seeds=3),
    "best_on_test": columns(0.2, seeds=3, intervals=False),
    "baseline": columns(0.1),
    "versus_baseline": {
        "T": {"difference": 0.0234, "interval": [-0.01, 0.056], "classes_won": 12, "classes_lost": 7, "classes": 20},
        "U": {"difference": -0.5, "interval": [-1.0, 0.0], "classes_won": 0, "classes_lost": 20, "classes": 20},
    },
    "paper": {"U": 67.3, "S": 87.4, "H": 76.0, "T": 78.1},
}
TABLE = """
aspn on flo, mobilenetv2: 3 seeds, percent
                                           T         U         S         H        U0        S0        H0     AUSUC
selected on validation                  12.3      22.3      32.3      42.3      52.3      62.3      72.3      82.3
  std over seeds                         1.6       1.6       1.6       1.6       1.6       1.6       1.6       1.6
  95 % over images                 11.3-13.5 21.3-23.5 31.3-33.5 41.3-43.5 51.3-53.5 61.3-63.5 71.3-73.5 81.3-83.5
  95 % over classes                10.3-15.7 20.3-25.7 30.3-35.7 40.3-45.7 50.3-55.7 60.3-65.7 70.3-75.7 80.3-85.7
best on test, as papers report          20.0      30.0      40.0      50.0      60.0      70.0      80.0      90.0
ESZSL, selected on validation           10.0      20.0      30.0      40.0      50.0      60.0      70.0      80.0
the paper (its features, on test)       78.1      67.3      87.4      76.0

against ESZSL, paired by class
  T    +2.3  [  -1.0,   +5.6]  classes won 12, lost 7 of 20
  U   -50.0  [-100.0,   +0.0]  classes won 0, lost 20 of 20
"""


def made(**changes):
    return copy.deepcopy(RESULT) | changes


def line(text, start):
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return found


def test_the_whole_table():
    assert report.table(RESULT) + "\n" == TABLE


def test_one_seed_has_no_spread_and_fixed_is_named():
    text = report.table(made(seeds=[0], selected_on_validation=False, features=None))
    assert "aspn on flo: 1 seed, percent" in text
    assert "std over seeds" not in text
    assert line(text, "not selected").split()[2] == "12.3"
    assert "selected on validation" not in text.replace("ESZSL, selected on validation", "")


def test_an_ablation_is_named():
    assert "\naspn (no attention) on flo, mobilenetv2: " in report.table(RESULT, "no attention")


def test_no_paper_and_no_baseline():
    text = report.table(made(paper=None, baseline={"reason": "there are no features"}, versus_baseline=None))
    assert "the paper" not in text
    assert "against" not in text
    assert "\nno ESZSL baseline: there are no features" in text
    assert "\nESZSL, " not in text


def test_a_paper_without_a_number_leaves_its_place_empty():
    text = report.table(made(paper={"U": 1.25, "S": 2.0, "H": 3.0}))
    paper, header = line(text, "the paper"), text.splitlines()[2]
    assert paper[34:44].strip() == ""
    assert paper[: header.index("U") + 1].endswith("1.2")


@pytest.mark.parametrize("nothing", [None, float("nan")])  # out of JSON, and before it is written
def test_what_no_row_speaks_for_is_a_dash(nothing):
    result = made()
    for metric in ("T", "U", "H", "U0", "H0", "AUSUC"):
        for column in ("selected", "best_on_test", "baseline"):
            result[column][metric] = {"mean": nothing, "std": nothing, "values": [nothing] * 3} | {
                f"interval_{kind}": [nothing, nothing] for kind in ("rows", "classes")
            }
    result["versus_baseline"]["T"] |= {"difference": nothing, "interval": [nothing, nothing]}
    text = report.table(result)
    assert line(text, "selected on validation").split()[3:] == ["-", "-", "32.3", "-", "-", "62.3", "-", "-"]
    assert line(text, "  std over").split()[3:] == ["-", "-", "1.6", "-", "-", "1.6", "-", "-"]
    assert line(text, "  95 % over classes").split()[4:] == ["-", "-", "30.3-35.7", "-", "-", "60.3-65.7", "-", "-"]
    assert line(text, "  T ").split()[:4] == ["T", "-", "[", "-,"], text
    assert "No unseen class has a test image" in text
    assert "nan" not in text.lower() and "None" not in text


def test_the_yardstick_is_not_compared_with_itself_but_its_ablations_are():
    assert "ESZSL," in report.table(made(model="eszsl"))
    text = report.table(made(model="eszsl", baseline=copy.deepcopy(RESULT["selected"])))
    assert "ESZSL," not in text and "against" not in text


def test_lines_fit_a_terminal():
    result = made()
    for entry in result["selected"].values():
        entry |= {"mean": 1.0, "interval_rows": [0.999, 0.999], "interval_classes": [1.0, 1.0]}
    assert max(map(len, report.table(result, "a name of some length").splitlines())) <= 120
    assert max(map(len, report.LEGEND.splitlines())) <= 120
    row = line(report.table(result), "  95 % over classes")
    assert row.split()[4:] == ["100-100"] * 8
    row = line(report.table(result), "  95 % over images")
    assert row.split()[4:] == ["99.9-99.9"] * 8  # even the widest cells stay apart


def test_the_legend_explains_every_column():
    assert all(f"{metric}:" in report.LEGEND or f"{metric}," in report.LEGEND for metric in METRICS)


def test_the_summary_has_a_line_a_row():
    text = report.summary({"full": RESULT, "a name that is longer than the column for it": made(selected=columns(0.0))})
    title, header, *rows = text.strip().splitlines()
    assert [row.split()[-8:][0] for row in rows] == ["12.3", "0.0"]
    assert len({len(header), *map(len, rows)}) == 1
    assert header.split() == list(METRICS)


@pytest.mark.parametrize(
    ("kind", "shape"), [("features", "16"), ("maps", "4x4x16"), ("levels", "8x8x8 + 4x4x16"), ("images", "32x32x3")]
)
def test_the_heading(kind, shape):
    benchmark = tune_stage(tiny(kind))
    first, *notes = report.heading("aspn", benchmark).splitlines()
    seen, unseen = len(benchmark.seen_classes), len(benchmark.unseen_classes)
    assert first == (
        f"aspn on tiny: chosen on {len(benchmark.train)} training rows of {kind} {shape}, {seen} seen and {unseen} "
        "validation classes, embeddings of width 6"
    )
    assert seen + unseen == 8 and len(benchmark.train) < np.sum(benchmark.labels >= 0)
    assert notes == [f"note: {benchmark.notes[0]}"]
