"""What is promised on a GPU: run by `pytest --gpu -m gpu`, or rehearsed on the CPU by `pytest --gpu=cpu -m gpu`.

Each training is a command in a process of its own, as a user starts it. A command is run once for all tests.
"""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from tests.support import commands
from zslkeras.models import MODELS
from zslkeras.names import PRECISIONS

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
TRAINED = [name for name, model in MODELS.items() if hasattr(model.Config, "epochs")]
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}
_SECONDS = 1800

# Scores of made-up rows, by the SavedModel alone.
_ANSWER = """
import json
import sys
import numpy as np
import tensorflow as tf

saved, out = sys.argv[1:]
tf.config.experimental.enable_tensor_float_32_execution(False)  # which rounds more than what is compared here
for gpu in tf.config.list_physical_devices("GPU"):
    tf.config.experimental.set_memory_growth(gpu, True)
serve, random = tf.saved_model.load(saved).signatures["serve"], np.random.default_rng(0)
with open(saved + "/metadata.json") as file:
    shape = json.load(file)["inputs"]["shape"]
shapes = shape if isinstance(shape[0], list) else [shape]
specs = sorted(serve.structured_input_signature[1].items())
rows = {
    name: tf.constant(random.integers(0, 256, [6, *one]), spec.dtype)
    for (name, spec), one in zip(specs, shapes, strict=True)
}
np.save(out, serve(**rows)["scores"])
"""


class Trainings:
    """Runs `experiments.run` for three epochs on shapes, each command once; gives the folder of the run."""

    def __init__(self, root, folder, env):
        self.root, self.folder, self.env, self.done = root, folder, env, {}

    def command(self, name, out):
        epochs = ("--epochs", "3") if name in TRAINED else ()
        data = ("--dataset", "shapes", "--data_root", self.root, "--seeds", "1")
        return "--model", name, *data, *epochs, "--out", out

    def __call__(self, name, *flags, time="first", **env):
        key = (name, *flags, time, *env)
        if key not in self.done:
            out = pathlib.Path(tempfile.mkdtemp(dir=self.folder)) / "run"
            env = self.env | env
            ran = commands.start("experiments.run", *self.command(name, out), *flags, cwd=self.folder, **env)
            assert ran.wait_for(_SECONDS).returncode == 0, ran.err[-2000:]
            self.done[key] = out
        return self.done[key]


@pytest.fixture(scope="module")
def trained(request, tmp_path_factory):
    on_gpu = request.config.getoption("--gpu") == "gpu"
    if on_gpu:
        assert tf.config.list_physical_devices("GPU"), "TensorFlow sees no GPU"
    return Trainings(tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs"), {} if on_gpu else NO_GPU)


def assert_same_bits(one, other):
    """Two runs had the same losses and numbers in each epoch, and ended with the same weights."""
    assert (one / "history.csv").read_text() == (other / "history.csv").read_text()
    one, other = (np.load(out / "checkpoint" / "seed0-final.npz") for out in (one, other))
    names = [name for name in one.files if name.startswith("best/")]
    assert names and one.files == other.files
    for name in names:
        np.testing.assert_array_equal(one[name], other[name], name)


def first_losses(out):
    """The losses of the first epoch that has any: in later ones, small differences have grown."""
    with open(out / "history.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            if losses := {name: float(value) for name, value in row.items() if name.endswith("loss") and value}:
                return losses
    return {}


def assert_alike(one, other, tolerance):
    """Nearly the same losses, and accuracies within five points."""
    wanted = first_losses(other)
    assert wanted or json.loads((other / "result.json").read_text())["model"] not in TRAINED
    assert first_losses(one) == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    got, wanted = (json.loads((out / "result.json").read_text())["selected"] for out in (one, other))
    for metric in ("T", "H"):
        assert abs(got[metric]["mean"] - wanted[metric]["mean"]) < 0.05, metric


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", TRAINED)
def test_the_same_command_gives_the_same_bits(name, precision, trained):
    assert_same_bits(*(trained(name, "--precision", precision, time=time) for time in ("first", "second")))


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_those_of_the_cpu(name, trained):
    assert_alike(trained(name), trained(name, **NO_GPU), 0.02)


@pytest.mark.parametrize("name", TRAINED)
def test_compiled_by_xla_it_trains_as_without(name, trained):
    assert_alike(trained(name, "--jit"), trained(name), 0.02)


@pytest.mark.parametrize("name", TRAINED)
def test_one_mirrored_device_trains_as_the_default_does(name, trained):
    assert_alike(trained(name, "--strategy", "mirrored", "--replicas", "1"), trained(name), 1e-3)


@pytest.mark.parametrize("name", TRAINED)
def test_killed_and_resumed_ends_with_the_same_bits(name, trained, tmp_path):
    for die, out, *resume in (("never", "whole"), ("rename:4", "killed"), ("never", "killed", "--resume")):
        args = "--die", die, *trained.command(name, tmp_path / out), *resume
        ran = commands.start("tests.support.drive", *args, cwd=tmp_path, **trained.env).wait_for(_SECONDS)
        assert ran.returncode == (0 if die == "never" else -signal.SIGKILL), ran.err[-2000:]
    assert_same_bits(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("name", MODELS)
def test_an_export_made_on_the_gpu_answers_on_the_cpu(name, trained, tmp_path):
    saved, scores = trained(name, "--export") / "saved_model", []
    for where in (trained.env, NO_GPU):
        out = tmp_path / f"{len(scores)}.npy"
        ran = subprocess.run(
            [sys.executable, "-c", _ANSWER, saved, out],
            env={**os.environ, **where},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        scores.append(np.load(out))
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-4 * np.abs(scores[1]).max())
