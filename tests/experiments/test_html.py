"""The report of runs as one HTML file: what is in it, that it needs nothing else, and what it refuses."""

import html.parser
import json
import re

import matplotlib.pyplot as plt
import pytest

from experiments import report
from experiments.html import _MOST
from tests.support import commands
from zslkeras.evaluation.metrics import METRICS

HOSTILE = "<img src=x onerror=alert(1)>"


def numbers(value):
    entry = {"mean": value, "std": 0.01, "values": [value], "interval_classes": [value - 0.1, value + 0.1]}
    return dict.fromkeys(METRICS, entry)


def versus(low, high):
    entry = {"difference": (low + high) / 2, "interval": [low, high]}
    return dict.fromkeys("TUSH", entry)


def result(**changes):
    whole = {
        "model": "msdn",
        "dataset": "shapes",
        "seeds": [0],
        "selected_on_validation": True,
        "selected": numbers(0.6),
        "best_on_test": numbers(0.65),
        "yardsticks": {"eszsl": numbers(0.5) | {"versus": versus(0.05, 0.15)}},
        "start": None,
        "classes": {"seen": 3, "unseen": 2},
        "chance": {"T": 0.5},
        "config": {"hidden": 3},
        "versions": {"keras": "3"},
        "per_class": {"T": {HOSTILE: 0.25, "zebra": 1.0}, "S": {"horse": 0.5}},
        "gamma": [0.5],
        "commit": "abc",
        "command": "python -m experiments.run",
    }
    return whole | changes


@pytest.fixture
def run(tmp_path):
    """Writes the folder of a run."""

    def write(name="run", pictures=(), **changes):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(result(**changes)))
        for picture in pictures:
            figure = plt.figure(figsize=(1, 1))
            figure.savefig(folder / picture)
            plt.close(figure)
        return folder

    return write


def call(folder, *args):
    return commands.call(report, folder, folder, folder, *args)


class _Page(html.parser.HTMLParser):
    """What is in a page: its tags, its texts, and what it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.fetched = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href") and value[:5] != "data:"]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data)


def test_one_file_has_numbers_differences_pictures_and_settings(run, tmp_path):
    folder = run(pictures=("curve.png", "attention-7.png"))
    ran = call(tmp_path, "--html", folder)
    assert ran.code == 0 and "run/report.html, 0.0 MB" in ran.out, ran.err
    text = (folder / "report.html").read_text()
    page = _Page(text)
    assert page.fetched == [] and "script" not in page.tags and not re.search(r"https?://", text)
    assert page.tags.count("img") == 2 and page.tags.count("svg") == 1
    assert HOSTILE in page.texts  # as text
    for words in ("msdn is ahead of ESZSL in T by 10.0 points [5.0, 15.0].", "60.0", "50.0-70.0", "hidden", "25.0"):
        assert words in page.texts, words


def test_several_runs_have_a_table_of_all(run, tmp_path):
    first, second = run("a"), run("b", model="jlaf", selected=numbers(0.7))
    ran = call(tmp_path, "--html", first, second, "--out", "both.html")
    assert ran.code == 0, ran.err
    texts = _Page((tmp_path / "both.html").read_text()).texts
    assert "All runs, selected on validation." in texts and "msdn on shapes and jlaf on shapes" in texts
    assert texts.count(f"jlaf: {second}") == 1 and not (first / "report.html").exists()


def test_a_run_that_kept_its_start_and_knows_no_unseen_image_says_so(run, tmp_path):
    start = numbers(0.6) | {"versus": versus(0, 0), "kept": 2}
    unknown = {metric: entry | {"mean": None, "std": None} for metric, entry in numbers(0.5).items()}
    folder = run(start=start, selected=unknown, yardsticks={}, per_class={}, seeds=[0, 1], commit=None)
    assert call(tmp_path, "--html", folder).code == 0
    page = _Page((folder / "report.html").read_text())
    assert "Closed form kept: no epoch was better on validation, in 2 of 2 seeds." in page.texts
    assert "None" not in page.texts and "commit" not in page.texts
    assert "svg" not in page.tags and "-" in page.texts


def test_pictures_that_would_not_fit_are_left_out(run, tmp_path):
    folder = run(pictures=("curve.png", "history.png"))
    (folder / "history.png").write_bytes(bytes(_MOST))
    assert call(tmp_path, "--html", folder).code == 0
    page = _Page((folder / "report.html").read_text())
    assert page.tags.count("img") == 1 and any("history.png and what follows it is left out" in t for t in page.texts)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--html",), ("--html: got no folder",)),
        (("run",), ("got 'run'", "wanted --html")),
        (("--html", "none"), ("--html: no result in none",)),
        (("--html", "rows"), ("wanted one of its rows, such as rows/full",)),
        (("--html", "run", "--out", "none/x.html"), ("--out: no folder none",)),
        (("--html", "run", "--docs", "x"), ("--docs: got it with --html",)),
        (("--out", "x.html"), ("--out: got it without --html",)),
        (("--html", "bad"), ("bad/result.json: has no model",)),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(args, words, run, tmp_path):
    run()
    run("rows").joinpath("full").mkdir()
    (tmp_path / "rows/result.json").rename(tmp_path / "rows/full/result.json")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/result.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    commands.assert_refused(call(tmp_path, *args), *words)
    assert sorted(tmp_path.rglob("*")) == before
