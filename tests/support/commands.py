"""The commands, as a user calls them in a process of its own, and as tests call them in theirs."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.support.example import Example
from zslkeras.models import MODELS, conditioning
from zslkeras.models.eszsl import ESZSLConfig
from zslkeras.models.prototypes import PrototypesConfig

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class FewSettings(ESZSLConfig):
    """ESZSL's grid, small enough for tests."""

    gammas: tuple[float, ...] = (1.0, 10.0)
    lambdas: tuple[float, ...] = (1.0,)


@dataclasses.dataclass(frozen=True)
class FewPrototypes(PrototypesConfig):
    """The grid of prototypes, small enough for tests."""

    scalings: tuple[str, ...] = ("l2",)
    whitenings: tuple[float, ...] = (0.0,)
    embedding_scalings: tuple[str, ...] = ("l2",)
    lambdas: tuple[float, ...] = (0.01, 0.1)


# Of the hundreds of settings among which a closed form is chosen: their number costs seconds for each training.
FEW_PROBED = conditioning.PROBED[::36]


@dataclasses.dataclass
class Ran:
    code: int
    out: str
    err: str


def call(module, folder, root, cache, *args):
    """A command in `folder`, in this process and with the example model at hand: COMMAND and main of its module."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setitem(MODELS, "example", Example)
        patch.setattr(MODELS["eszsl"], "Config", FewSettings)
        patch.setattr(MODELS["prototypes"], "Config", FewPrototypes)
        patch.setenv("ZSLKERAS_DATA", str(root))
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.chdir(folder)
        try:
            module.COMMAND(module.main, [str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code or 0
    return Ran(code, out.getvalue(), err.getvalue())


def assert_refused(ran, *words):
    """Exit code 2, and one sentence on the screen that has all of `words` in it."""
    assert ran.code == 2, ran.err
    assert ran.err.startswith("error: ") and ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err, (word, ran.err)


def result_of(folder):
    """The result.json of a run."""
    return json.loads((folder / "result.json").read_text())


def start(module, *args, cwd=None, **env):
    """Starts `python -m MODULE ARGS` and returns it, with `wait_for(seconds)` that also collects what it printed.

    `env` is added to the environment, and takes away what is None there.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd or ROOT / ".cache"), **env}
    environment = {name: value for name, value in environment.items() if value is not None}
    return _Process(
        [sys.executable, "-m", module, *map(str, args)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def arrays_of(module, folder, seconds=120):
    """The arrays that `python -m MODULE FILE` leaves in its file."""
    path = folder / "arrays.npz"
    done = start(module, path, cwd=folder).wait_for(seconds)
    assert done.returncode == 0, done.err
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


class _Process(subprocess.Popen):
    def wait_for(self, seconds):
        try:
            self.out, self.err = self.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self.out, self.err = self.communicate()
            raise AssertionError(f"still running after {seconds} s:\n{self.out}\n{self.err}") from None
        return self
