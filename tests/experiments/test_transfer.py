"""Candidates on disk, and what leaving a benchmark out says."""

import json

import pytest

from experiments import candidates, transfer
from tests.support import commands
from tests.support.tiny import write_tiny

METRICS = ("T", "H", "AUSUC")


def scored(area):
    return {"T": area, "U": 0.1, "S": 0.1, "H": area / 2, "AUSUC": area}


def entry(settings, **benchmarks):
    """A candidate with {benchmark: AUSUC of each of its cases}."""
    scores = {
        name: {f"dataset={name} fold={fold}": {"0": scored(area)} for fold, area in enumerate(areas)}
        for name, areas in benchmarks.items()
    }
    return {"settings": settings, "scores": scores}


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "msdn.json"
    content = {
        "first": entry({"epochs": 1}, birds=[0.5], flowers=[0.1, 0.3], shapes=[0.6]),
        "second": entry({"epochs": 2}, birds=[0.4], flowers=[0.5, 0.3], shapes=[0.3]),
        "third": entry({"epochs": 3}, birds=[0.9]),
    }
    path.write_text(json.dumps(content))
    (tmp_path / "eszsl.json").write_text(json.dumps({"it": entry({}, birds=[0.2], flowers=[0.2], shapes=[0.2])}))
    return path


def test_what_is_best_on_the_others_is_judged_on_the_one_left_out(book):
    text = candidates.table("msdn", book)
    head, birds, flowers, shapes = (" ".join(line.split()) for line in text.splitlines()[-4:])
    assert head == "left out chosen on the others chosen on it ESZSL prototypes"
    # Without birds, the first has (0.2 + 0.6) / 2 and the second (0.4 + 0.3) / 2. The third has no other benchmark.
    assert birds == "birds 1: 50.0 / 25.0 / 50.0 1: 50.0 / 25.0 / 50.0 20.0 / 10.0 / 20.0"
    assert flowers.startswith("flowers 1: 20.0 / 10.0 / 20.0 2: 40.0 / 20.0 / 40.0 ")
    # Without shapes, (0.5 + 0.2) / 2 and (0.4 + 0.4) / 2.
    assert shapes.startswith("shapes 2: 30.0 / 15.0 / 30.0 1: 60.0 / 30.0 / 60.0 ")


def test_candidates_are_named_by_what_differs_from_the_defaults(book):
    text = candidates.table("msdn", book)
    assert "\n2: epochs=2" in text
    assert text.splitlines()[1].split() == ["birds", "flowers", "shapes"]


def test_one_candidate_leaves_nothing_to_choose(book):
    content = json.loads(book.read_text())
    book.write_text(json.dumps({"first": content["first"]}))
    assert candidates.table("msdn", book).endswith("takes two benchmarks and two candidates that have them all.")


def call(folder, *args):
    return commands.call(transfer, folder, folder, folder / "cache", *args)


def test_a_candidate_is_measured_once_and_the_next_one_joins_it(tmp_path):
    write_tiny(tmp_path / "FLO")
    write_tiny(tmp_path / "SUN", seed=1)
    benchmarks = tmp_path / "benchmarks.json"
    benchmarks.write_text(json.dumps({"flowers": [{"dataset": "flo"}], "scenes": [{"dataset": "sun"}]}))
    args = "--model", "example", "--benchmarks", benchmarks, "--candidates", tmp_path / "all" / "example.json"
    args += ("--epochs", "1", "--out", tmp_path / "out")
    first = call(tmp_path, *args)
    assert first.code == 0, first.err
    assert first.out.count("example on dataset=flo fold=0, seed 0: T ") == 1
    kept = json.loads((tmp_path / "all" / "example.json").read_text())
    (only,) = kept.values()
    assert only["settings"]["epochs"] == 1 and set(only["scores"]) == {"flowers", "scenes"}
    (numbers,) = only["scores"]["flowers"]["dataset=flo fold=0"].values()
    assert {*METRICS, "seconds", "data", "commit"} <= set(numbers)
    again = call(tmp_path, *args)
    assert " on dataset=" not in again.out and again.out.endswith(first.out[first.out.index("candidates of") :])
    second = call(tmp_path, *args, "--set", "hidden=8")
    assert second.out.count(" on dataset=") == 2 and "left out" in second.out
    table = call(tmp_path, "--model", "example", "--table", "--candidates", tmp_path / "all" / "example.json")
    assert second.out.endswith(table.out)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--benchmarks", "missing.json"], ["--benchmarks", "no file missing.json"]),
        (["--table", "--seeds", "2"], ["--seeds", "beside --table"]),
        (["--table"], ["--candidates", "no results/candidates/example.json"]),
    ],
)
def test_wrong_wishes_are_refused(args, words, tmp_path):
    commands.assert_refused(call(tmp_path, "--model", "example", *args), *words)
    assert not list(tmp_path.glob("*"))


def test_a_wrong_benchmark_is_refused(tmp_path):
    (tmp_path / "benchmarks.json").write_text('{"flowers": [{"draws": 3}]}')
    ran = call(tmp_path, "--model", "example", "--benchmarks", tmp_path / "benchmarks.json")
    commands.assert_refused(ran, "--benchmarks", "flowers has {'draws': 3}", "wanted dataset")
