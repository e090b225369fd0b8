"""Pages of small files that were made by hand; and the pages of this checkout, which are those of its files."""

import json

import pytest

from experiments import markdown, pages, published, report
from tests.support import commands
from zslkeras.evaluation.metrics import METRICS


def judged(T, U, S, gamma=0.5):
    """Of two unseen and two seen classes with ten images each, how many were right; the rest follows or is plain."""
    unseen, seen = sum(U) / 20, sum(S) / 20
    H = 2 * unseen * seen / (unseen + seen)
    numbers = {"T": sum(T) / 20, "U": unseen, "S": seen, "H": H, "U0": 0.1, "S0": 0.9, "H0": 0.18, "AUSUC": 0.4}
    intervals = {metric: [numbers[metric] - 0.1, numbers[metric] + 0.1] for metric in METRICS}
    right = {"T": T, "U": U, "S": S, "U0": [2, 0], "S0": [9, 9]}
    return {"gamma": gamma, "numbers": numbers, "intervals": intervals, "right": right}


def seed(number, *right, start=None, best=None, date="2026-01-02 03:04", **more):
    entry = {"seed": number, "state": 1, "states": 2, "found": {}, **judged(*right), "start": start}
    entry |= {"best_on_test": dict.fromkeys(METRICS, best)} if best else {}
    return entry | {"seconds": 30.0, "whole_time": True, "commit": "0123456789abcdef", "date": date} | more


def put(folder, model, *seeds, row="defaults", fold=0, stage="validation", settings=None, name=None, **more):
    """Writes a file as a campaign leaves it."""
    content = {
        "format": pages.FORMAT,
        "benchmark": "birds",
        "model": model,
        "row": row,
        "place": None,
        "preset": None,
        "changed": {},
        "stage": stage,
        "settings": {} if settings is None else settings,
        "known": {},
        "case": {"dataset": "cub", "fold": fold},
        "images": {"seen": [10, 10], "unseen": [10, 10]},
        "seeds": list(seeds),
        "command": "python",
    } | more
    path = folder / "measured" / content["benchmark"] / model / f"{name or f'{row}-{stage}{fold}'}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def tables_of(text):
    """Every table of a page: a list of {column: cell}, by the heading that it stands under."""
    found, title = {}, None
    for line in text.splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
        elif line.startswith("|") and not line.startswith("| ---"):
            found.setdefault(title, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return {title: [dict(zip(rows[0], row, strict=False)) for row in rows[1:]] for title, rows in found.items()}


def line(rows, column, value):
    (only,) = [row for row in rows if row[column] == value]
    return only


def test_a_number_is_the_mean_over_seeds_with_their_deviation_and_the_mean_of_their_intervals(tmp_path):
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 2], [9, 7]), seed(1, [9, 5], [7, 3], [9, 7]))
    (row,) = tables_of(pages.render(tmp_path)["birds.md"])["Validation classes"]
    # 60 and 70: their mean, their standard deviation with ddof 1, and the ends of 50 to 70 and 60 to 80.
    assert row["T"] == "65.0 ± 7.1 [55.0, 75.0]"
    assert row["S"] == "80.0 ± 0.0 [70.0, 90.0]"
    assert (row["seeds"], row["folds"], row["U0 / S0 / H0"]) == ("2", "0", "10.0 / 90.0 / 18.0")
    assert (row["time"], row["commit"]) == ("30 s", "0123456")
    assert row["T over ESZSL"] == row["T over its own start"] == ""


def test_folds_are_pooled_and_seeds_are_the_means_over_folds(tmp_path):
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 2], [9, 7]), seed(1, [9, 5], [7, 3], [9, 7]))
    put(tmp_path, "msdn", seed(0, [4, 4], [6, 2], [9, 7]), seed(1, [5, 5], [7, 3], [9, 7]), fold=1)
    (row,) = tables_of(pages.render(tmp_path)["birds.md"])["Validation classes"]
    assert row["folds"] == "0, 1" and row["T"] == "55.0 ± 7.1 [45.0, 65.0]"  # (60 + 40) / 2, (70 + 50) / 2


def test_gains_are_paired_by_class_over_both_yardsticks_and_the_start(tmp_path):
    # Each class of both groups gains the same, so that its interval is a single point.
    start = judged([5, 1], [3, 1], [9, 7])
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 4], [9, 7], start=start))
    put(tmp_path, "eszsl", seed(0, [7, 3], [6, 4], [9, 7]))
    put(tmp_path, "prototypes", seed(0, [9, 5], [6, 4], [9, 7]))
    rows = tables_of(pages.render(tmp_path)["birds.md"])["Validation classes"]
    assert [row["model"] for row in rows] == ["eszsl", "prototypes", "msdn"]
    row = rows[-1]
    assert row["T over ESZSL"] == "+10.0 [+10.0, +10.0]" and row["H over ESZSL"] == "+0.0 [+0.0, +0.0]"
    assert row["T over prototypes"] == "-10.0 [-10.0, -10.0]"
    assert row["T over its own start"] == "+30.0 [+30.0, +30.0]"
    # H of U 50 and S 80 is 61.5; that of U 20 is 32.
    assert row["H over its own start"].startswith("+29.5 [")
    assert rows[0]["T over ESZSL"] == "" and rows[0]["T over prototypes"] == "-20.0 [-20.0, -20.0]"


def test_gains_are_over_the_folds_that_both_have(tmp_path):
    for fold, right in enumerate(([8, 4], [6, 2])):
        put(tmp_path, "msdn", seed(0, right, [6, 4], [9, 7]), fold=fold)
    put(tmp_path, "eszsl", seed(0, [7, 3], [6, 4], [9, 7]), fold=1)
    # Other validation classes: nothing pairs them.
    put(tmp_path, "prototypes", seed(0, [7, 3], [6, 4], [9, 7]), images={"seen": [10, 10], "unseen": [9, 11]})
    row = line(tables_of(pages.render(tmp_path)["birds.md"])["Validation classes"], "model", "msdn")
    assert row["T over ESZSL"] == "-10.0 [-10.0, -10.0] on 1" and row["T over prototypes"] == ""


def test_test_classes_have_a_table_of_their_own_with_what_is_best_on_them(tmp_path):
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 2], [9, 7], best=0.75), stage="test")
    put(tmp_path, "msdn", seed(0, [2, 4], [6, 2], [9, 7]))
    text = pages.render(tmp_path)["birds.md"]
    both = tables_of(text)
    assert list(both) == ["Published test classes", "Validation classes"]
    (row,) = both["Published test classes"]
    assert row["best on test, T / H"] == "75.0 / 75.0" and row["T"].startswith("60.0") and "folds" not in row
    assert "Data: dataset cub; 2 seen and 2 unseen classes. By chance T is 50.0." in text


def test_all_benchmarks_together_pool_the_classes_of_test_rows(tmp_path):
    for place, benchmark in enumerate(("birds", "flowers")):
        more = {"stage": "test", "benchmark": benchmark, "case": {"dataset": benchmark, "fold": 0}}
        start = judged([4, 4], [4, 4], [8, 8])
        put(tmp_path, "eszsl", seed(0, [2, 4], [2, 4], [8, 8], best=0.5), **more)
        put(tmp_path, "msdn", seed(0, [6 + 2 * place, 6], [6, 6], [8, 8], start=start, best=0.5), **more)
    put(tmp_path, "aspn", seed(0, [9, 9], [9, 9], [9, 9], start=judged([1, 1], [1, 1], [1, 1])))  # validation classes
    (line,) = tables_of(pages.render(tmp_path)[pages.TOGETHER])["All benchmarks together"]
    assert (line["model"], line["benchmarks"]) == ("msdn", "birds, flowers")
    assert line["T over ESZSL"].startswith("+35.0 [")  # the mean of 40, 20, 60 and 20 of ten images each
    assert line["T over its own start"].startswith("+25.0 [") and line["T over prototypes"] == ""
    more = {"stage": "test", "benchmark": "shapes", "case": {"dataset": "shapes", "fold": 0}}
    put(tmp_path, "eszsl", seed(0, [0, 0], [0, 0], [8, 8], best=0.5), **more)  # where msdn was not measured
    assert tables_of(pages.render(tmp_path)[pages.TOGETHER])["All benchmarks together"] == [line]
    for path in (tmp_path / "measured/flowers").rglob("*.json"):
        path.unlink()
    assert pages.TOGETHER not in pages.render(tmp_path)


def test_ablations_are_paired_with_the_whole_method_and_say_what_differs(tmp_path):
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 4], [9, 7]), settings={"branches": "both", "closed_form": 2.0})
    settings = {"branches": "baseline", "closed_form": 2.0}
    put(tmp_path, "msdn", seed(0, [7, 3], [6, 4], [9, 7]), row="baseline", settings=settings, place=0)
    text = pages.render(tmp_path)["msdn-ablations.md"]
    rows = tables_of(text)["birds, validation classes: the defaults"]
    assert [row["row"] for row in rows[:2]] == ["baseline", "defaults"]
    assert rows[0]["differs in"] == "branches=baseline" and rows[0]["T: defaults over it"] == "+10.0 [+10.0, +10.0]"
    assert rows[1]["differs in"] == rows[1]["T: defaults over it"] == ""
    assert "A closed form stands beside the method (closed_form=2.0)" in " ".join(text.split())


def test_rows_of_other_settings_are_compared_among_themselves(tmp_path):
    for alone, right in ((False, 0), (True, 1)):
        more = {"preset": "paper", "changed": {"closed_form": 0.0}} if alone else {}
        settings = {"closed_form": 0.0 if alone else 2.0}
        whole, part = [8 - right, 4 - right], [8 - 3 * right, 4 - 3 * right]
        put(tmp_path, "msdn", seed(0, whole, [6, 4], [9, 7]), settings=settings, name=f"all{right}", **more)
        put(tmp_path, "msdn", seed(0, part, [6, 4], [9, 7]), row="l2", settings=settings, name=f"l2{right}", **more)
    text = pages.render(tmp_path)["msdn-ablations.md"]
    both = tables_of(text)
    beside, alone = (
        line(both[f"birds, validation classes: {title}"], "row", "l2")
        for title in ("the defaults", "preset paper, closed_form=0.0")
    )
    assert beside["T: defaults over it"] == "+0.0 [+0.0, +0.0]" and alone["T: defaults over it"].startswith("+20.0")
    assert "The method stands alone, as in its paper (closed_form=0)." in " ".join(text.split())
    named = [row["model"] for row in tables_of(pages.render(tmp_path)["birds.md"])["Validation classes"]]
    assert named == ["msdn", "msdn, preset paper, closed_form=0.0"]


def test_other_settings_of_the_whole_method_are_paired_with_its_defaults(tmp_path):
    given, drawn = ({"vectors": one, "closed_form": 2.0} for one in ("given", "drawn"))
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 4], [9, 7]), settings=given)
    changed = {"changed": {"vectors": "drawn"}, "name": "drawn"}
    put(tmp_path, "msdn", seed(0, [6, 2], [6, 4], [9, 7]), settings=drawn, **changed)
    (other, whole) = tables_of(pages.render(tmp_path)["msdn-ablations.md"])["birds, validation classes: other settings"]
    assert (other["row"], other["differs in"]) == ("defaults, vectors=drawn", "vectors=drawn")
    assert other["T: defaults over it"] == "+20.0 [+20.0, +20.0]" and whole["T: defaults over it"] == ""


def test_claims_of_a_paper_hold_or_not_or_cannot_be_told(tmp_path, monkeypatch):
    claims = [published.Claim(*one) for one in (("a", "b", "more"), ("b", "a", "less"), ("a", "c", "none", "T"))]
    monkeypatch.setattr(published, "claims", lambda model: claims)
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 4], [9, 7]), row="a")
    put(tmp_path, "msdn", seed(0, [7, 3], [6, 4], [9, 7]), row="b")
    text = pages.render(tmp_path)["msdn-ablations.md"]
    told = [
        tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines() if " over " in line
    ]
    assert told[-2:] == [
        ("more", "a over b", "+10.0 [+10.0, +10.0] holds", "", "", "+0.0 [+0.0, +0.0] cannot be told"),
        ("less", "b over a", "-10.0 [-10.0, -10.0] does not hold", "", "", "+0.0 [+0.0, +0.0] cannot be told"),
    ]


def test_a_claim_about_calibration_compares_a_row_with_itself_at_gamma_0(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "claims", lambda model: [published.Claim("a", published.AT_ZERO, "it helps", "US")])
    put(tmp_path, "jlaf", seed(0, [8, 4], [6, 4], [7, 7]), row="a")
    text = pages.render(tmp_path)["jlaf-ablations.md"]
    (told,) = [line for line in text.splitlines() if "it helps" in line]
    # U: 6 and 4 of ten images against 2 and 0; S: 7 and 7 against 9 and 9.
    assert "| a over gamma 0 |  | +40.0 [+40.0, +40.0] holds | -20.0 [-20.0, -20.0] does not hold |" in told


def test_newer_files_of_a_row_replace_older_ones_which_are_named(tmp_path):
    later = "2026-02-02 03:04"
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 4], [9, 7]), name="old", settings={"tau": 1})
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 4], [9, 7]), name="oldfold", fold=1, settings={"tau": 1})
    put(tmp_path, "msdn", seed(0, [2, 4], [6, 4], [9, 7], date=later), name="new", settings={"tau": 2})
    text = pages.render(tmp_path)["birds.md"]
    (row,) = tables_of(text)["Validation classes"]
    assert row["T"].startswith("30.0") and row["folds"] == "0"  # fold 1 is of other settings
    assert "`old.json`, `oldfold.json`." in text


def test_a_setting_that_a_model_got_later_parts_no_folds(tmp_path):
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 4], [9, 7]), settings={"tau": 1})
    put(tmp_path, "msdn", seed(0, [2, 4], [6, 4], [9, 7]), fold=1, settings={"tau": 1, "new": True})
    text = pages.render(tmp_path)["birds.md"]
    (row,) = tables_of(text)["Validation classes"]
    assert row["folds"] == "0, 1" and "Not shown" not in text


def test_what_no_image_speaks_for_is_a_dash(tmp_path):
    entry = seed(0, [0, 0], [0, 0], [9, 7])
    entry["numbers"] |= dict.fromkeys("TUH", None)
    entry["intervals"] |= dict.fromkeys("TUH", [None, None])
    for model in ("msdn", "eszsl"):
        put(tmp_path, model, entry, images={"seen": [10, 10], "unseen": [0, 0]})
    row = line(tables_of(pages.render(tmp_path)["birds.md"])["Validation classes"], "model", "msdn")
    assert row["T"] == row["T over ESZSL"] == "-" and row["S"] == "80.0 [70.0, 90.0]"


def test_time_that_an_ended_process_took_is_missing(tmp_path):
    put(tmp_path, "msdn", seed(0, [8, 4], [6, 4], [9, 7], whole_time=False, seconds=600.0, commit="0123456789-dirty"))
    (row,) = tables_of(pages.render(tmp_path)["birds.md"])["Validation classes"]
    assert (row["time"], row["commit"]) == ("more than 10 min", "0123456-dirty")


def test_nothing_measured_makes_no_page_and_pages_without_files_go(tmp_path):
    assert pages.render(tmp_path) == {}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "gone.md").write_text("old")
    put(tmp_path / "results", "msdn", seed(0, [8, 4], [6, 4], [9, 7]))
    ran = commands.call(report, tmp_path, tmp_path, tmp_path, "--docs", "docs")
    assert (ran.code, ran.out) == (0, "1 pages in docs\n")
    assert {path.name: path.read_text() for path in (tmp_path / "docs").iterdir()} == pages.render(tmp_path / "results")


def test_the_readme_is_written_only_where_the_pages_are_the_usual_ones(tmp_path):
    marked = "\n".join(["Before.", *markdown.marks("report"), "After."])
    (tmp_path / "README.md").write_text(marked)
    (tmp_path / "other.md").write_text(marked)
    put(tmp_path / "results", "eszsl", seed(0, [8, 4], [6, 4], [9, 7]))
    ran = commands.call(report, tmp_path, tmp_path, tmp_path, "--docs", "docs")
    assert ran.code == 0 and (tmp_path / "README.md").read_text() == marked
    ran = commands.call(report, tmp_path, tmp_path, tmp_path, "--docs", "docs", "--readme", "other.md")
    assert ran.code == 0 and "| birds | eszsl |" in (tmp_path / "other.md").read_text()
    ran = commands.call(report, tmp_path, tmp_path, tmp_path)
    assert ran.code == 0 and "| birds | eszsl |" in (tmp_path / "README.md").read_text()
    ran = commands.call(report, tmp_path, tmp_path, tmp_path, "--readme", "none.md")
    commands.assert_refused(ran, "--readme", "no file none.md; wanted one that has the two marks")


def test_a_file_of_another_format_is_refused(tmp_path):
    path = put(tmp_path / "results", "msdn", seed(0, [8, 4], [6, 4], [9, 7]), format=99)
    ran = commands.call(report, tmp_path, tmp_path, tmp_path)
    commands.assert_refused(ran, path.name, "has format 99; wanted 1")


def test_the_summary_has_a_table_for_each_stage_and_counts_who_is_ahead(tmp_path):
    right, better = ([5, 5], [5, 5], [5, 5]), ([9, 9], [9, 9], [9, 9])
    put(tmp_path, "eszsl", seed(0, *right, best=0.5), stage="test")
    put(tmp_path, "msdn", seed(0, *better, best=0.9, start=judged(*right)), stage="test")
    put(tmp_path, "jlaf", seed(0, *right, best=0.5, start=judged(*right), state=0), stage="test")
    put(tmp_path, "msdn", seed(0, *right))  # of a benchmark whose test classes are opened
    put(tmp_path, "msdn", seed(0, *right), settings={"epochs": 1}, row="baseline")  # a row of its table
    put(tmp_path, "eszsl", seed(0, *better), benchmark="flowers")
    put(tmp_path, "eszsl", seed(0, *better, best=0.9), benchmark="flowers", stage="test")
    put(tmp_path, "msdn", seed(0, *right), benchmark="flowers")
    text = pages.with_summary("\n".join(["# Results", *markdown.marks("report"), "After."]), tmp_path)
    test, validation = text.split("Validation classes:")
    rows = tables_of(test)["Results"]
    assert [(row["data"], row["model"], row["T"], row["H"]) for row in rows] == [
        ("birds", "eszsl", "50.0", "50.0"),
        ("birds", "jlaf", "50.0", "50.0"),
        ("birds", "msdn", "90.0", "90.0"),
    ]
    ahead = "ahead: +40.0 [+40.0, +40.0]"
    assert [row["H against ESZSL"] for row in rows] == ["", "level: +0.0 [+0.0, +0.0]", ahead]
    assert [row["H against its own start"] for row in rows] == ["", "kept", ahead]
    assert "in H, against ESZSL 1 / 1 / 0, prototypes 0 / 0 / 0, its own start 1 / 1 / 0." in test
    (yardstick, method) = tables_of(f"# Results\n{validation}")["Results"]
    assert (yardstick["data"], yardstick["H"], method["H against ESZSL"]) == (
        "flowers",
        "90.0",
        "behind: -40.0 [-40.0, -40.0]",
    )
    assert text.startswith("# Results") and text.endswith("After.")
    assert pages.with_summary("no marks", tmp_path) == "no marks"


def test_the_pages_of_this_checkout_are_those_of_its_files():
    docs = commands.ROOT / "docs" / "results"
    kept = {path.name: path.read_text() for path in docs.glob("*.md")}
    assert kept == pages.render(commands.ROOT / "results"), "run python -m experiments.report"


@pytest.mark.parametrize("model", ["aspn", "dcen", "drmn", "drmn_pictures", "jlaf", "msdn"])
def test_claims_are_about_rows_that_the_model_has(model):
    from zslkeras.models import MODELS

    rows = {*MODELS[model].ablations, pages.WHOLE, published.AT_ZERO}
    claims = published.claims(model)
    assert claims and all({one.ahead, one.behind} <= rows and set(one.metrics) <= set("TUSH") for one in claims)
