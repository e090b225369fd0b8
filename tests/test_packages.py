"""Models of others: a package brings one as an entry point, and it runs under commands and in Python by its name."""

import os
import shutil
import subprocess
import sys

import pytest

import zslkeras
from tests.support.commands import ROOT, result_of, start
from zslkeras import benchmarks, models, names
from zslkeras.errors import InputError

PACKAGE = ROOT / "examples/linear"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder for PYTHONPATH, into which the package is installed."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(PACKAGE, folder / "source")  # setuptools leaves folders behind
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target")
    command = [sys.executable, *install, str(folder / "site"), str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture
def installed(site, monkeypatch):
    """This process finds the package, and forgets it afterwards."""
    monkeypatch.syspath_prepend(site)
    yield from forgotten(monkeypatch)


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """A function that makes this process find an entry point: of a package, a model's name, its place."""

    def add(package, name, place):
        facts = tmp_path / f"{package}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[zslkeras.models]\n{name} = {place}\n")
        models.entry_points.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    for _ in forgotten(monkeypatch):
        yield add


def forgotten(monkeypatch):
    models.entry_points.cache_clear()
    monkeypatch.setattr(models.MODELS, "_classes", dict(models.MODELS._classes))
    yield
    models.entry_points.cache_clear()


def assert_refused(name, sentence):
    assert name in models.MODELS and name in list(models.MODELS)
    with pytest.raises(InputError) as caught:
        models.MODELS[name]
    assert str(caught.value) == sentence


def test_a_package_of_few_lines_brings_a_model():
    assert sum(len(path.read_text().splitlines()) for path in PACKAGE.iterdir() if path.is_file()) < 60


def test_the_model_of_a_package_runs_under_a_command(site, tiny_root, tmp_path):
    args = ["--model", "linear", "--dataset", "flo", "--data_root", tiny_root, "--seeds", "1", "--epochs", "2"]
    path = os.pathsep.join(map(str, (site, ROOT)))
    done = start("experiments.run", *args, "--out", "here", cwd=tmp_path, PYTHONPATH=path).wait_for(300)
    assert done.returncode == 0, done.err
    result = result_of(tmp_path / "here")
    assert result["model"] == "linear" and result["config"]["epochs"] == 2 and result["config"]["temperature"] == 20.0
    assert "linear" in done.out and "ESZSL" in done.out
    help_of = start("zslkeras", "train", "--help", cwd=tmp_path, PYTHONPATH=path).wait_for(60)
    assert "jlaf, linear, msdn" in " ".join(help_of.out.split())


@pytest.mark.long
def test_the_model_of_a_package_is_searched(site, tiny_root, tmp_path):
    args = ["--model", "linear", "--dataset", "flo", "--data_root", tiny_root, "--epochs", "1", "--out", "here"]
    path = os.pathsep.join(map(str, (site, ROOT)))
    args += ["--tuner", "random", "--trials", "1", "--nofinal_run"]
    done = start("tuning.run", *args, cwd=tmp_path, PYTHONPATH=path).wait_for(300)
    assert done.returncode == 0 and "learning_rate" in done.out, done.err


def test_the_model_of_a_package_is_fitted_saved_and_loaded_in_python(
    installed, few_shapes, unchecked_exports, tmp_path
):
    assert "linear" in zslkeras.MODELS and zslkeras.MODELS["linear"].__name__ == "Linear"
    data = benchmarks.load("shapes", few_shapes)
    model = zslkeras.fit(data, model="linear", settings={"epochs": 2}, say=lambda line: None)
    numbers = model.evaluate(data)
    model.save(tmp_path / "saved")
    again = zslkeras.load(tmp_path / "saved")
    assert again.method == "linear" and type(again.keras_model) is zslkeras.MODELS["linear"]
    assert again.evaluate(data)["AUSUC"] == pytest.approx(numbers["AUSUC"], abs=1e-6) and 0 < numbers["AUSUC"] < 1


def test_an_entry_point_that_cannot_be_imported_is_one_sentence(entry):
    entry("broken", "lost", "no_such_module:Model")
    place = "model: 'lost' of the package broken is no_such_module:Model"
    assert_refused("lost", f"{place}, which cannot be imported: ModuleNotFoundError: No module named 'no_such_module'")


def test_an_entry_point_that_is_no_model_is_one_sentence(entry):
    entry("other", "mean", "statistics:mean")
    wanted = "a subclass of zslkeras.models.base.ZeroShotModel with a Config"
    assert_refused("mean", f"model: 'mean' of the package other is statistics:mean; wanted {wanted}")


@pytest.mark.parametrize("name", ["eszsl", "mine"])
def test_two_models_of_one_name_are_one_sentence(name, entry):
    entry("one", name, "statistics:mean")
    if name == "mine":
        entry("two", name, "statistics:mean")
    models.MODELS._classes.pop(name, None)
    with pytest.raises(InputError) as caught:
        models.MODELS[name]
    wanted = "one of them without this entry point of the group zslkeras.models"
    owners = {"model: 'eszsl' is brought by zslkeras and by one"}
    owners |= {f"model: 'mine' is brought by {pair}" for pair in ("one and by two", "two and by one")}
    said, _, rest = str(caught.value).partition("; ")
    assert said in owners and rest == f"wanted {wanted}"
    assert len(models.MODELS) == len(names.MODELS) + (name == "mine")


def test_a_command_says_what_is_wrong_with_an_entry_point(tmp_path, entry):
    entry("broken", "lost", "no_such_module:Model")
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    args = ["--model", "lost", "--dataset", "shapes", "--data_root", tmp_path]
    done = start("experiments.run", *args, cwd=tmp_path, PYTHONPATH=path).wait_for(120)
    assert done.returncode == 2 and done.err.count("error: ") == 1, done.err
    assert "error: --model: 'lost' of the package broken is no_such_module:Model, which cannot be" in done.err
