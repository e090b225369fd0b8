"""What several tests use: op determinism, a seed for each test, a tiny benchmark in files, and an export."""

import gc

import keras
import pytest
import tensorflow as tf

from tests.support.commands import FEW_PROBED
from tests.support.forked import start
from tests.support.tiny import write_tiny
from zslkeras.models import conditioning

# As experiments.run does: without it the threads of a convolution add up in an order of their own.
tf.config.experimental.enable_op_determinism()

# The million objects that imports leave are not looked through again and again: a tenth of the time.
gc.freeze()
gc.set_threshold(20_000, 20, 20)


def pytest_addoption(parser):
    said = "run the tests marked gpu, which fail without one; cpu rehearses them on the CPU"
    parser.addoption("--gpu", nargs="?", const="gpu", choices=("gpu", "cpu"), help=said)


def pytest_collection_modifyitems(config, items):
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)  # long files first, so that no core is idle at the end
    if not config.getoption("--gpu"):
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs --gpu"))


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="session")
def few_probed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditioning, "PROBED", FEW_PROBED)
        yield


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """A data root with a FLO of 20 classes (5 unseen) whose features follow the attributes, in res101.mat."""
    root = tmp_path_factory.mktemp("data")
    write_tiny(root / "FLO")
    return root


@pytest.fixture(scope="module")
def few_shapes(tmp_path_factory):
    """A data root whose `shapes` has three or four images a class, as long as the module's tests run."""
    from zslkeras.benchmarks import shapes

    root = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "PICTURES", (3, 4))
        shapes.read("shapes", root, "features")
        yield root


@pytest.fixture
def unchecked_exports(monkeypatch):
    """Exports are not checked by a process of their own: a test loads them and compares, or another one does."""
    from zslkeras.serving import export

    monkeypatch.setattr(export, "_compare", lambda *_: None)
    monkeypatch.setattr(export, "_reloaded", lambda *_: {})


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A finished run on a folder of drawn pictures, exported with the filter bank: see `exported.Exported`."""
    from tests.support.exported import export_drawn

    return export_drawn(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def command(tmp_path):
    """Runs `python -m MODULE ARGS` from another folder, as a user would; returns the finished process."""

    def run(module, *args, timeout=300, **env):
        return start(module, *args, cwd=tmp_path, **env).wait_for(timeout)

    return run
