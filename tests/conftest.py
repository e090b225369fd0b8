"""What several tests use: a tiny benchmark in the field's own files, and the commands as subprocesses."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.io
import tensorflow as tf

# As experiments.run does: without it the threads of a convolution add up in an order of their own.
tf.config.experimental.enable_op_determinism()

ROOT = pathlib.Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption("--gpu", action="store_true", help="run the tests marked gpu; without a GPU they fail")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--gpu"):
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs --gpu"))


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """A data root with a FLO of 20 classes (5 unseen) whose features follow the attributes, in res101.mat."""
    root = tmp_path_factory.mktemp("data")
    write_tiny(root / "FLO")
    return root


def write_tiny(folder, classes=20, unseen=5, rows=24, width=16, attributes=8, seed=0):
    """Writes res101.mat and att_splits.mat of a benchmark that a linear map nearly solves."""
    generator = np.random.default_rng(seed)
    embeddings = generator.random((classes, attributes))
    mixing = generator.standard_normal((attributes, width))
    labels = np.repeat(np.arange(classes), rows)
    features = embeddings[labels] @ mixing + 0.5 * generator.standard_normal((classes * rows, width))
    place = np.arange(classes * rows)
    is_unseen, held_out = labels >= classes - unseen, place % rows < rows // 5
    folder.mkdir(parents=True)
    scipy.io.savemat(
        folder / "res101.mat",
        {
            "features": np.maximum(features, 0).T,
            "labels": labels[:, None] + 1,
            "image_files": np.array([f"{i:05d}.jpg" for i in place], object)[:, None],
        },
    )
    scipy.io.savemat(
        folder / "att_splits.mat",
        {
            "att": embeddings.T,
            "allclasses_names": np.array([f"class{c}" for c in range(classes)], object)[:, None],
            "trainval_loc": place[~is_unseen & ~held_out][:, None] + 1,
            "test_seen_loc": place[~is_unseen & held_out][:, None] + 1,
            "test_unseen_loc": place[is_unseen][:, None] + 1,
        },
    )


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A finished run on a folder of drawn pictures, exported with the filter bank: see `exported.Exported`."""
    from tests.exported import export_drawn

    return export_drawn(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def command(tmp_path):
    """Runs `python -m MODULE ARGS` from another folder, as a user would; returns the finished process."""

    def run(module, *args, timeout=300, **env):
        return start(module, *args, cwd=tmp_path, **env).wait_for(timeout)

    return run


def start(module, *args, cwd=None, **env):
    """Starts `python -m MODULE ARGS` and returns it, with `wait_for(seconds)` that also collects what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd or ROOT / ".cache"), **env}
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
