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
    comments = [
        line
        for line in path.read_text().replace("\\\n# ", "").splitlines()
        if line.startswith("#") and "docker run --rm" in line
    ]
    assert comments
    assert command[:3] == ["python", "-m", "experiments.run"]
    for arguments in (command[3:], *(shlex.split(line.split("zslkeras:")[1])[1:] for line in comments)):
        settings, _ = run.COMMAND.read(arguments)
        assert settings.model in MODELS


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_installed_is_pinned_with_hashes_and_the_package_brings_nothing_more(path):
    first, last = [rest for name, rest in instructions(path) if name == "RUN" and rest.startswith("pip install")]
    (file,) = re.findall(r"--require-hashes --requirement (\S+)$", first)
    assert last.split()[2:] == ["--no-cache-dir", "--no-deps", "--no-build-isolation", "."]
    entries = (ROOT / file).read_text().replace("\\\n", " ").splitlines()
    pinned = dict(entry.split()[0].split("==") for entry in entries)
    assert all(re.fullmatch(r"\S+==\S+( +--hash=sha256:[0-9a-f]{64})+", entry.strip()) for entry in entries)
    exact = constraints()
    for name, version in pinned.items():
        assert exact.get(name, version) == version, f"{name}: make requirements"
    assert {requirement.name.lower() for requirement in installed()} <= set(pinned)
    assert ("nvidia-cudnn-cu12" in pinned) == path.name.startswith("gpu")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_names_its_base_in_full_and_runs_as_a_user_without_rights(path):
    parts = dict(instructions(path))
    assert re.fullmatch(r"BASE=python:3\.\d+\.\d+-slim-\w+", parts["ARG"]) and parts["FROM"] == "${BASE}"
    assert parts["USER"] == "zslkeras" and f"useradd --uid 1000 {parts['USER']}" in parts["RUN"]


def constraints():
    """{name: version} of docker/constraints.txt."""
    pinned = {}
    for line in (ROOT / "docker/constraints.txt").read_text().splitlines():
        requirement = packaging.requirements.Requirement(line)
        (exact,) = requirement.specifier
        assert exact.operator == "==", line
        pinned[requirement.name.lower().replace("_", "-")] = exact.version
    return pinned


def installed():
    """What setup.cfg wants without any extra."""
    section = (ROOT / "setup.cfg").read_text().split("install_requires =")[1].split("\n\n")[0]
    return [packaging.requirements.Requirement(line.strip()) for line in section.strip().splitlines()]


def test_the_constraints_satisfy_setup_cfg():
    pinned = constraints()
    assert len(installed()) > 5
    for requirement in installed():
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_ci_runs_what_the_readme_says():
    ci = pathlib.Path(ROOT / ".ci/run").read_text()
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for target in ("lint", "test", "demo"):
        assert f"make {target}" in ci and target in targets
