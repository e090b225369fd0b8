"""A wheel brings zslkeras alone and its command, which works beside folders of the same names."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from tests.support.commands import ROOT


def run(*command, cwd, **env):
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the checkout: setuptools leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("zslkeras", "experiments", "tuning"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    run(sys.executable, *build, folder / "source", cwd=folder, **os.environ)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The bin folder of an environment that has the wheel, and of the checkout's environment the other packages."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env/bin/python"
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder, **os.environ)
    (site,) = (folder / "env/lib").glob("python*/site-packages")
    # A path file adds a folder as it is: an editable install in it does not count.
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env/bin"


@pytest.fixture
def elsewhere(tmp_path):
    """An empty folder, whose parent has folders with the names of our packages."""
    for name in ("zslkeras", "experiments", "here"):
        (tmp_path / name).mkdir()
    return tmp_path / "here"


def test_it_brings_one_package_and_one_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "zslkeras = zslkeras.cli.main:main" in archive.read(entry).decode()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"zslkeras"}
    assert {"zslkeras/py.typed", "zslkeras/__init__.pyi"} <= set(names)
    packed = {name for name in names if name.endswith(".py")}
    assert packed == {str(path.relative_to(ROOT)) for path in (ROOT / "zslkeras").rglob("*.py")}
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "zslkeras/serving/page").iterdir() if path.is_file()}
    assert "zslkeras/serving/page/index.html" in page and page <= set(names)


@pytest.mark.slow
def test_the_command_works_from_any_folder(installed, elsewhere, exported):
    assert "prepare" in run(installed / "zslkeras", "--help", cwd=elsewhere)
    assert "usage:   zslkeras prepare" in run(installed / "zslkeras", "prepare", "--help", cwd=elsewhere)
    (picture, *_) = sorted(exported.pictures.rglob("*.png"))
    shown = run(installed / "zslkeras", "predict", "--model", exported.run, "--top", 1, picture, cwd=elsewhere)
    assert shown.startswith(f"{picture}: ")
    found = "find_spec('experiments'), find_spec('tuning')"
    code = f"import zslkeras; from importlib.util import find_spec; print(zslkeras.__file__, {found})"
    where = run(installed / "python", "-c", code, cwd=elsewhere)
    assert where.startswith(str(installed.parent)) and where.endswith("None None\n")


NEWCOMER = """
import sys, zslkeras
data = zslkeras.load_benchmark(sys.argv[1], features="filters")
model = zslkeras.fit(data, "eszsl", settings={"scalings": ("standard",), "gammas": (10.0,), "lambdas": (1.0,)})
name = model.predict(sys.argv[2])
print(model.evaluate(data))
model.save("birds")
again = zslkeras.load("birds")
assert again.predict([sys.argv[2]]) == [name] and again.evaluate(data) == model.evaluate(data)
print(again.predict(sys.argv[2], classes={"red star": {"red": 1, "star": 1}, "ring": {"ring": 1}}, top=2))
"""


@pytest.mark.long
def test_a_newcomers_script_works_in_an_empty_folder(installed, elsewhere, exported):
    (picture, *_) = sorted(exported.pictures.rglob("*.png"))
    shown = run(installed / "python", "-c", NEWCOMER, f"{exported.pictures}/", picture, cwd=elsewhere)
    assert "95 % over classes" in shown and "red star" in shown
    assert [path.name for path in elsewhere.iterdir()] == ["birds"]
