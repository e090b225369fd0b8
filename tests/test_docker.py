"""The images are not built by the tests (that needs a Docker engine); what their files name has to exist."""

import json
import pathlib
import re
import shlex

import packaging.requirements
import pytest

from experiments import run
from tests.support.commands import ROOT
from zslkeras.models import MODELS

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def instructions(path):
    """[(instruction, rest of the line)] of a Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", path.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_both_images_are_described():
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "gpu.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_exists(path):
    copied = [shlex.split(rest)[:-1] for name, rest in instructions(path) if name == "COPY"]
    sources = [source for line in copied for source in line]
    assert "zslkeras" in sources and "setup.cfg" in sources
    missing = [source for source in sources if not (ROOT / source).exists()]
    assert not missing
    assert not set(sources) & set((ROOT / ".dockerignore").read_text().split())


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_command_parses(path):
    parts = dict(instructions(path))
    command = json.loads(parts["ENTRYPOINT"]) + json.loads(parts["CMD"])
    comments = [line for line in path.read_text().splitlines() if line.startswith("# docker run")]
    assert command[:3] == ["python", "-m", "experiments.run"]
    for arguments in (command[3:], *(shlex.split(line.split("zslkeras:")[1])[1:] for line in comments)):
        settings, _ = run.COMMAND.read(arguments)
        assert settings.model in MODELS


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_extras_installed_are_declared(path):
    install = dict(instructions(path))["RUN"]
    extras = re.findall(r"\.\[(\w+)\]", install)
    declared = re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text().split("[options.extras_require]")[1], re.M)
    assert set(extras) <= set(declared)
    assert "--constraint docker/constraints.txt" in install


def test_the_constraints_satisfy_setup_cfg():
    pinned = {}
    for line in (ROOT / "docker/constraints.txt").read_text().splitlines():
        requirement = packaging.requirements.Requirement(line)
        (exact,) = requirement.specifier
        assert exact.operator == "==", line
        pinned[requirement.name.lower().replace("_", "-")] = exact.version
    section = (ROOT / "setup.cfg").read_text().split("install_requires =")[1].split("\n\n")[0]
    wanted = [packaging.requirements.Requirement(line.strip()) for line in section.strip().splitlines()]
    assert len(wanted) > 5
    for requirement in wanted:
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_ci_runs_what_the_readme_says():
    ci = pathlib.Path(ROOT / ".ci/run").read_text()
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for target in ("lint", "test", "demo"):
        assert f"make {target}" in ci and target in targets
