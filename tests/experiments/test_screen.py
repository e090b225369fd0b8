"""The table on the screen, letter by letter, for a result made by hand."""

import copy

import numpy as np
import pytest

from experiments import screen
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


def versus(**metrics):
    """A paired comparison of {metric: (difference, low, high)}."""
    return {
        metric: {"difference": difference, "interval": ends, "classes_won": 12, "classes_lost": 7, "classes": 20}
        for metric, (difference, *ends) in metrics.items()
    }


RESULT = {
    "model": "aspn",
    "dataset": "flo",
    "features": "mobilenetv2",
    "seeds": [0, 1, 2],
    "selected_on_validation": True,
    "selected": columns(0.1234, std=0.0156, seeds=3),
    "best_on_test": columns(0.2, seeds=3, intervals=False),
    "start": None,
    "yardsticks": {
        "eszsl": columns(0.1) | {"versus": versus(T=(0.0234, -0.01, 0.056), U=(-0.5, -1.0, 0.0), H=(0.05, 0.021, 0.1))},
        "prototypes": columns(0.15) | {"versus": versus(T=(-0.003, -0.021, 0.015), H=(-0.031, -0.059, -0.004))},
    },
    "without_yardsticks": None,
    "chance": {"T": 1 / 20},
    "classes": {"seen": 82, "unseen": 20},
    "paper": {"U": 67.3, "S": 87.4, "H": 76.0, "T": 78.1},
}
TABLE = """
aspn on flo, mobilenetv2: 3 seeds, 82 seen and 20 unseen classes, percent
                                            T         U         S         H        U0        S0        H0     AUSUC
selected on validation                   12.3      22.3      32.3      42.3      52.3      62.3      72.3      82.3
  std over seeds                          1.6       1.6       1.6       1.6       1.6       1.6       1.6       1.6
  95 % over images                  11.3-13.5 21.3-23.5 31.3-33.5 41.3-43.5 51.3-53.5 61.3-63.5 71.3-73.5 81.3-83.5
  95 % over classes                 10.3-15.7 20.3-25.7 30.3-35.7 40.3-45.7 50.3-55.7 60.3-65.7 70.3-75.7 80.3-85.7
best on test, as papers report           20.0      30.0      40.0      50.0      60.0      70.0      80.0      90.0
ESZSL, selected on validation            10.0      20.0      30.0      40.0      50.0      60.0      70.0      80.0
prototypes, selected on validation       15.0      25.0      35.0      45.0      55.0      65.0      75.0      85.0
chance                                    5.0
the paper (its features, on test)        78.1      67.3      87.4      76.0

against ESZSL, paired by class
  T    +2.3  [  -1.0,   +5.6]  classes won 12, lost 7 of 20
  U   -50.0  [-100.0,   +0.0]  classes won 12, lost 7 of 20
  H    +5.0  [  +2.1,  +10.0]  classes won 12, lost 7 of 20
aspn is level with ESZSL in T (+2.3 [-1.0, 5.6]).
aspn is ahead of ESZSL in H by 5.0 points [2.1, 10.0].

against prototypes, paired by class
  T    -0.3  [  -2.1,   +1.5]  classes won 12, lost 7 of 20
  H    -3.1  [  -5.9,   -0.4]  classes won 12, lost 7 of 20
aspn is level with prototypes in T (-0.3 [-2.1, 1.5]).
aspn is behind prototypes in H by 3.1 points [0.4, 5.9].
"""


def made(**changes):
    return copy.deepcopy(RESULT) | changes


def line(text, start):
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return found


def test_the_whole_table():
    assert screen.table(RESULT) + "\n" == TABLE


def test_one_seed_has_no_spread_and_fixed_is_named():
    text = screen.table(made(seeds=[0], selected_on_validation=False, features=None))
    assert "aspn on flo: 1 seed, 82 seen and 20 unseen classes, percent" in text
    assert "std over seeds" not in text
    assert line(text, "not selected").split()[2] == "12.3"
    assert "\nselected on validation" not in text


def test_the_gain_over_the_untrained_start_and_seeds_that_kept_it():
    start = columns(0.05) | {"versus": versus(T=(0.01, -0.01, 0.03), H=(0.05, 0.02, 0.1)), "kept": 0}
    text = screen.table(made(start=start))
    assert line(text, "its start, the closed form").split()[5:7] == ["5.0", "15.0"]
    assert "\nagainst its own start, paired by class\n  T    +1.0  [" in text
    assert "\naspn is ahead of its own start in H by 5.0 points [2.0, 10.0].\n" in text
    assert "kept" not in text
    text = screen.table(made(start=start | {"kept": 2}))
    assert "\nClosed form kept: no epoch was better on validation, in 2 of 3 seeds.\n" in text
    text = screen.table(made(start=start | {"kept": 3}))
    assert "in 3 of 3 seeds." in text and "its own start" not in text


def test_an_ablation_is_named():
    text = screen.table(RESULT, "no attention")
    assert "\naspn (no attention) on flo, mobilenetv2: " in text
    assert "\naspn (no attention) is behind prototypes in H by 3.1 points [0.4, 5.9]." in text


def test_no_paper_and_no_yardstick():
    text = screen.table(made(paper=None, yardsticks={}, without_yardsticks="there are no features"))
    assert "the paper" not in text
    assert "against" not in text and "aspn is " not in text
    assert "\nnot compared with ESZSL and prototypes: there are no features" in text
    assert "\nESZSL, " not in text and "\nprototypes, " not in text


@pytest.mark.parametrize(
    ("ends", "stands"),
    [
        ((0.0, 0.1), "level with ESZSL in T (+5.0 [0.0, 10.0])"),
        ((1e-9, 0.1), "ahead of ESZSL in T by 5.0 points [0.0, 10.0]"),
        ((-0.1, 0.0), "level with ESZSL in T (-5.0 [-10.0, 0.0])"),
        ((-0.1, -1e-9), "behind ESZSL in T by 5.0 points [0.0, 10.0]"),
    ],
)
def test_ahead_and_behind_need_an_interval_without_0(ends, stands):
    yardsticks = {"eszsl": columns(0.1) | {"versus": versus(T=(np.mean(ends), *ends), H=(0.0, 0.0, 0.0))}}
    text = screen.table(made(yardsticks=yardsticks))
    assert f"\naspn is {stands}.\naspn is level with ESZSL in H (+0.0 [0.0, 0.0])." in text


def test_a_paper_without_a_number_leaves_its_place_empty():
    text = screen.table(made(paper={"U": 1.25, "S": 2.0, "H": 3.0}))
    paper, header = line(text, "the paper"), text.splitlines()[2]
    assert paper[35:45].strip() == ""
    assert paper[: header.index("U") + 1].endswith("1.2")


@pytest.mark.parametrize("nothing", [None, float("nan")])  # out of JSON, and before it is written
def test_what_no_row_speaks_for_is_a_dash(nothing):
    result = made()
    for metric in ("T", "U", "H", "U0", "H0", "AUSUC"):
        for column in (result["selected"], result["best_on_test"], *result["yardsticks"].values()):
            column[metric] = {"mean": nothing, "std": nothing, "values": [nothing] * 3} | {
                f"interval_{kind}": [nothing, nothing] for kind in ("rows", "classes")
            }
    for yardstick in result["yardsticks"].values():
        yardstick["versus"] |= versus(T=[nothing] * 3, H=[nothing] * 3)
    result["chance"]["T"] = None
    text = screen.table(result)
    assert line(text, "selected on validation").split()[3:] == ["-", "-", "32.3", "-", "-", "62.3", "-", "-"]
    assert line(text, "  std over").split()[3:] == ["-", "-", "1.6", "-", "-", "1.6", "-", "-"]
    assert line(text, "  95 % over classes").split()[4:] == ["-", "-", "30.3-35.7", "-", "-", "60.3-65.7", "-", "-"]
    assert text.count("\n  T       -  [     -,      -]  classes won") == 2
    assert line(text, "chance").split() == ["chance", "-"]
    assert "aspn is " not in text
    assert "No unseen class has a test image" in text
    assert "nan" not in text.lower() and "None" not in text


@pytest.mark.parametrize(
    ("model", "label", "other"), [("eszsl", "ESZSL", "prototypes"), ("prototypes", "prototypes", "ESZSL")]
)
def test_a_yardstick_is_not_compared_with_itself_but_its_other_settings_are(model, label, other):
    text = screen.table(made(model=model))
    assert f"\n{label}, selected" in text and f"\nagainst default {label}, paired" in text
    assert f"\n{model} is level with default {label} in T" in text
    result = made(model=model)
    result["yardsticks"][model] |= copy.deepcopy(RESULT["selected"])
    text = screen.table(result)
    assert f"{label}, selected" not in text and f"against default {label}" not in text
    assert f"\n{other}, selected" in text and f"\nagainst {other}, paired" in text


def test_lines_fit_a_terminal():
    result = made(model="prototypes")
    for entry in result["selected"].values():
        entry |= {"mean": 1.0, "interval_rows": [0.999, 0.999], "interval_classes": [1.0, 1.0]}
    result["yardsticks"]["prototypes"]["versus"] = versus(T=(-1.0, -1.0, -1.0), H=(-1.0, -1.0, -1.0))
    assert max(map(len, screen.table(result, "a name of some length").splitlines())) <= 120
    assert max(map(len, screen.LEGEND.splitlines())) <= 120
    row = line(screen.table(result), "  95 % over classes")
    assert row.split()[4:] == ["100-100"] * 8
    row = line(screen.table(result), "  95 % over images")
    assert row.split()[4:] == ["99.9-99.9"] * 8  # even the widest cells stay apart


def test_the_legend_explains_every_column():
    assert all(f"{metric}:" in screen.LEGEND or f"{metric}," in screen.LEGEND for metric in METRICS)


def test_the_summary_has_a_line_a_row():
    text = screen.summary({"full": RESULT, "a name that is longer than the column for it": made(selected=columns(0.0))})
    title, header, *rows = text.strip().splitlines()
    assert [row.split()[-8:][0] for row in rows] == ["12.3", "0.0"]
    assert len({len(header), *map(len, rows)}) == 1
    assert header.split() == list(METRICS)


@pytest.mark.parametrize(
    ("kind", "shape"), [("features", "16"), ("maps", "4x4x16"), ("levels", "8x8x8 + 4x4x16"), ("images", "32x32x3")]
)
def test_the_heading(kind, shape):
    benchmark = tune_stage(tiny(kind))
    first, *notes = screen.heading("aspn", benchmark).splitlines()
    seen, unseen = len(benchmark.seen_classes), len(benchmark.unseen_classes)
    assert first == (
        f"aspn on tiny: chosen on {len(benchmark.train)} training rows of {kind} {shape}, {seen} seen and {unseen} "
        "validation classes, embeddings of width 6"
    )
    assert seen + unseen == 8 and len(benchmark.train) < np.sum(benchmark.labels >= 0)
    assert notes == [f"note: {note}" for note in benchmark.notes] and notes
