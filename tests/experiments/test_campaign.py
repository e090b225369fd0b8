"""Measurements are made once, one file each, and the published test classes are opened only where that is asked for."""

import dataclasses
import json
import threading

import numpy as np
import pytest

from experiments import campaign, cases, measured
from tests.support import commands
from tests.support.example import Example, ExampleConfig
from tests.support.tiny import write_tiny
from zslkeras import protocol
from zslkeras.evaluation import metrics

LOOKS = """# Looks

| date | recipe | data | command | commit | T | H | H at gamma 0 |
|---|---|---|---|---|---|---|---|
| 2026-01-01 | eszsl | flo | `x` | abc | 1.0 | 2.0 | 3.0 |

Drawn:

| date | recipe | draws | command | commit | T | H |
|---|---|---|---|---|---|---|
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a benchmark of two cases that lie at a place of their own, and a log of looks."""
    write_tiny(tmp_path / "data" / "FLO")
    write_tiny(tmp_path / "data" / "SUN", seed=1)
    cases = [{"dataset": name, "data_root": str(tmp_path / "data")} for name in ("flo", "sun")]
    (tmp_path / "both.json").write_text(json.dumps({"both": cases}))
    (tmp_path / "one.json").write_text(json.dumps({"flowers": cases[:1]}))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "looks.md").write_text(LOOKS)
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """(model, fold, seed) of what is trained in stage tune, where scores are drawn and nothing is learned."""
    calls = []

    def drawn(experiment, seed, fold=0):
        calls.append((experiment.model, fold, seed))
        generator = np.random.default_rng(seed)
        labels = np.repeat(np.arange(6), 4)
        outcomes = metrics.outcomes(generator.random((len(labels), 6)), labels, np.arange(4), np.arange(4, 6))
        return protocol.Validated(outcomes, 0.1, 0, [{}], {})

    monkeypatch.setattr(protocol, "on_validation", drawn)
    return calls


def run(folder, *args):
    return commands.call(campaign, folder, folder / "nothing", folder / "cache", *args)


def files(folder):
    """{the path of a file of the campaign: its content}."""
    found = sorted((folder / "results" / "measured").rglob("*.json"))
    return {str(path.relative_to(folder / "results" / "measured")): json.loads(path.read_text()) for path in found}


def of(folder, model, **wanted):
    (only,) = [
        one
        for one in files(folder).values()
        if one["model"] == model and wanted.items() <= {**one, **one["case"]}.items()
    ]
    return only


EXAMPLE = ("--models", "example", "--epochs", "1", "--seeds", "2")


def test_each_row_and_draw_has_a_file_and_what_has_one_is_not_measured_again(folder, trained):
    args = *EXAMPLE, "--benchmarks", "one.json", "--rows", "defaults,noisy", "--folds", "2"
    ran = run(folder, *args)
    assert ran.code == 0, ran.err
    made = files(folder)
    assert [(one["model"], one["row"], one["case"]["fold"], len(one["seeds"])) for one in made.values()] == [
        *(("eszsl", "defaults", fold, 1) for fold in (0, 1)),
        *(("example", "defaults", fold, 2) for fold in (0, 1)),
        *(("example", "noisy", fold, 2) for fold in (0, 1)),
        *(("prototypes", "defaults", fold, 1) for fold in (0, 1)),
    ]
    assert {one["stage"] for one in made.values()} == {"validation"}
    assert len(trained) == 2 * 2 * 2 + 2 * 2  # rows, draws and seeds, and the yardsticks with one seed each
    trained.clear()
    again = run(folder, *args)
    assert (again.code, again.out, trained, files(folder)) == (0, "", [], made)
    # A further seed joins those that are there, which are not touched.
    more = run(folder, *EXAMPLE[:4], "--seeds", "3", "--benchmarks", "one.json")
    assert more.code == 0 and trained == [("example", 0, 2)]
    before = next(one for one in made.values() if one["model"] == "example")
    after = of(folder, "example", row="defaults", fold=0)
    assert after["seeds"][:2] == before["seeds"] and [one["seed"] for one in after["seeds"]] == [0, 1, 2]


def test_a_file_has_what_its_numbers_are_and_what_they_depend_on(folder):
    args = "--models", "aspn", "--epochs", "1", "--seeds", "1", "--benchmarks", "one.json", "--set", "hidden=8"
    ran = run(folder, *args)
    assert ran.code == 0, ran.err
    one = of(folder, "aspn")
    assert one["changed"] == {"epochs": 1, "hidden": 8} and one["settings"]["scaling"] == "auto"
    assert one["case"] == {"dataset": "flo", "fold": 0} and one["features"] == "res101"
    assert str(folder) not in json.dumps(one)
    assert one["command"] == (
        "python -m experiments.campaign --models aspn --rows defaults --seeds 1 --benchmarks one.json --first_fold 0 "
        "--set hidden=8 --epochs 1"
    )
    (seed,) = one["seeds"]
    assert seed["found"]["scaling"] != "auto" and seed["seconds"] > 0 and seed["whole_time"]
    # Accuracies per class are counts, of which the numbers are the means: here all classes have images.
    for judged in (seed, seed["start"]):
        groups = {"T": "unseen", "U": "unseen", "S": "seen", "U0": "unseen", "S0": "seen"}
        for metric, group in groups.items():
            rates = np.array(judged["right"][metric]) / np.array(one["images"][group])
            assert judged["numbers"][metric] == pytest.approx(rates.mean())
            low, high = judged["intervals"][metric]
            assert low <= judged["numbers"][metric] <= high
    # The numbers are those of the protocol's own claim, and their start is the closed form without training.
    yardstick = of(folder, "prototypes")["seeds"][0]
    assert yardstick["start"] is None and set(yardstick["numbers"]) == set(metrics.METRICS)
    assert "best_on_test" not in seed and (folder / "results" / "looks.md").read_text() == LOOKS


def test_other_settings_make_another_file(folder, trained):
    args = *EXAMPLE[:4], "--seeds", "1", "--benchmarks", "one.json"
    run(folder, *args)
    run(folder, *args, "--set", "hidden=8")
    names = [name.rpartition("-")[0] for name in files(folder) if "example" in name]
    assert set(names) == {f"flowers/example/defaults+{one}-fold0" for one in ("hidden=8+epochs=1", "epochs=1")}


def test_a_changed_default_is_measured_anew(folder, trained, monkeypatch):
    args = *EXAMPLE[:4], "--seeds", "1", "--benchmarks", "one.json"
    run(folder, *args)

    @dataclasses.dataclass(frozen=True)
    class Later(ExampleConfig):
        hidden: int = 16

    monkeypatch.setattr(Example, "Config", Later)
    run(folder, *args)
    both = [one for one in files(folder).values() if one["model"] == "example"]
    assert sorted(one["settings"]["hidden"] for one in both) == [16, 32]
    assert {(one["row"], str(one["changed"])) for one in both} == {("defaults", "{'epochs': 1}")}


@pytest.mark.parametrize(("more", "new"), [((), 0), (("--set", "extra=2"), 1)])
def test_a_new_setting_of_a_model_makes_no_new_measurement_of_its_defaults(folder, trained, monkeypatch, more, new):
    args = *EXAMPLE[:4], "--seeds", "1", "--benchmarks", "one.json"
    run(folder, *args)
    before = files(folder)

    @dataclasses.dataclass(frozen=True)
    class Later(ExampleConfig):
        extra: int = 1

    monkeypatch.setattr(Example, "Config", Later)
    assert run(folder, *args, *more).code == 0
    assert len(files(folder)) == len(before) + new and before.items() <= files(folder).items()


def test_a_row_that_changes_nothing_is_the_whole_method_and_all_is_the_whole_table(folder, trained):
    ran = run(folder, *EXAMPLE[:4], "--seeds", "1", "--benchmarks", "one.json", "--rows", "all")
    assert ran.code == 0, ran.err
    assert {one["row"] for one in files(folder).values() if one["model"] == "example"} == {"defaults", "noisy"}
    # "full" of the table, whose settings are the defaults', is there already.
    assert run(folder, *EXAMPLE[:4], "--seeds", "1", "--benchmarks", "one.json", "--rows", "full").out == ""


def test_a_campaign_that_was_ended_goes_on_where_it_was(folder, trained, monkeypatch):
    args = *EXAMPLE, "--benchmarks", "both.json"
    drawn = protocol.on_validation

    def ended(experiment, seed, fold=0):
        if (experiment.model, experiment.data.name, seed) == ("example", "sun", 1):
            raise KeyboardInterrupt
        return drawn(experiment, seed, fold)

    monkeypatch.setattr(protocol, "on_validation", ended)
    with pytest.raises(KeyboardInterrupt):
        run(folder, *args)
    before = files(folder)
    assert [one["model"] for one in before.values()].count("example") == 1
    monkeypatch.setattr(protocol, "on_validation", drawn)
    trained.clear()
    assert run(folder, *args).code == 0
    # The protocol answers for the first seed out of its checkpoint.
    assert trained == [("example", 0, 0), ("example", 0, 1)]
    assert len(files(folder)) == 6 and before.items() <= files(folder).items()
    first, second = of(folder, "example", dataset="sun")["seeds"]
    # The first seed had ended before: its time is kept. Of the second, what the ended process took is not known.
    assert first["whole_time"] and not second["whole_time"]


def test_of_two_campaigns_at_once_one_waits_for_the_other(folder, trained, monkeypatch):
    drawn, others = protocol.on_validation, []
    wanted = campaign.Settings(
        models=("prototypes",),
        benchmarks=str(folder / "one.json"),
        results=str(folder / "results"),
        out=str(folder / "runs"),
    )

    def slow(*args):
        if not others:
            others.append(threading.Thread(target=measured.measure, args=(wanted,)))
            others[0].start()
            others[0].join(1.0)
        return drawn(*args)

    monkeypatch.setattr(protocol, "on_validation", slow)
    measured.measure(wanted)
    others[0].join(60)
    assert not others[0].is_alive() and sorted(trained) == [("eszsl", 0, 0), ("prototypes", 0, 0)]


def test_test_classes_are_opened_where_that_is_asked_for_and_each_look_is_logged(folder):
    args = *EXAMPLE[:4], "--seeds", "1", "--benchmarks", "one.json"
    assert run(folder, *args).code == 0
    assert {one["stage"] for one in files(folder).values()} == {"validation"}
    ran = run(folder, *args, "--open_test_classes")
    assert ran.code == 0, ran.err
    one = of(folder, "example", stage="test")
    assert len(one["images"]["unseen"]) == 5 and one["test_data"] != one["data"]
    (seed,) = one["seeds"]
    assert seed["best_on_test"]["H"] >= seed["numbers"]["H"] and one["command"].endswith(
        "--open_test_classes --epochs 1"
    )
    # Stage tune was not trained again: the choice is made of the checkpoints of draw 0.
    assert sorted(path.name for path in (folder / "runs/campaign/example").rglob("*.npz")) == [
        "seed0-final.npz",
        "seed0-tune.npz",
    ]
    lines = (folder / "results/looks.md").read_text().splitlines()
    assert lines[:5] == LOOKS.splitlines()[:5] and lines[8:] == LOOKS.splitlines()[5:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[5:8]]
    assert [row[1] for row in cells] == [
        "eszsl, defaults, 1 seed",
        "prototypes, defaults, 1 seed",
        "example, defaults, epochs=1, 1 seed",
    ]
    numbers = seed["numbers"]
    assert cells[2][2] == "flo, res101" and cells[2][3] == f"`{one['command']}`"
    assert cells[2][5:] == [f"{100 * numbers[metric]:.1f}" for metric in ("T", "H", "H0")]
    again = run(folder, *args, "--open_test_classes")
    assert again.out == "" and (folder / "results/looks.md").read_text().splitlines() == lines


def test_looks_at_drawn_classes_have_a_table_of_their_own(folder):
    case = cases.Case("shapes", {"dataset": "shapes", "draw": 3}, 0)
    entry = {"date": "2026-02-03 04:05", "commit": "0123456789-dirty", "numbers": dict.fromkeys(metrics.METRICS, 0.5)}
    content = {"model": "msdn", "row": "jsd", "preset": "paper", "changed": {"tau": 1}, "features": None}
    content |= {"seeds": [entry, entry], "command": "python"}
    measured._log(folder / "results/looks.md", case, content)
    assert (folder / "results/looks.md").read_text() == LOOKS + (
        "| 2026-02-03 | msdn, jsd, preset paper, tau=1, 2 seeds | 3 | `python` | 0123456-dirty | 50.0 | 50.0 |\n"
    )


def test_a_row_that_diverges_does_not_end_the_campaign(folder):
    ran = run(folder, *EXAMPLE[:4], "--seeds", "1", "--benchmarks", "both.json", "--set", "explode_at=0")
    assert ran.code == 1 and "2 not measured: example defaults on dataset=flo fold=0: loss is not" in ran.err
    assert len(files(folder)) == 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--rows", "loud"], ["--rows: got 'loud'; example has defaults, full, noisy"]),
        (["--rows", "all,noisy"], ["--rows: got all,noisy", "wanted all alone"]),
        (["--open_test_classes", "--folds", "2"], ["--folds: got it beside --open_test_classes"]),
        (["--open_test_classes", "--results", "elsewhere"], ["--results: no elsewhere/looks.md"]),
        (["--benchmarks", "missing.json"], ["--benchmarks: no file missing.json"]),
        (["--benchmarks", "odd.json"], ["--benchmarks: got the name '../odd'"]),
    ],
)
def test_wrong_wishes_are_refused_before_anything_is_measured(folder, args, words):
    (folder / "odd.json").write_text('{"../odd": [{"dataset": "shapes"}]}')
    args = args if "--benchmarks" in args else ["--benchmarks", "one.json", *args]
    commands.assert_refused(run(folder, "--models", "example", *args), *words)
    assert not files(folder) and not (folder / "runs").exists()
