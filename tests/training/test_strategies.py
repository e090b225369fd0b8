"""One replica, two and two worker processes train to the same weights; a worker that is gone ends the others."""

import contextlib
import json
import random
import signal
import socket
import time
import types
import warnings

import numpy as np
import pytest
import tensorflow as tf

from tests.support import commands
from tests.support.forked import start
from zslkeras.training.strategies import is_chief

RUN = ["--model", "example", "--dataset", "flo", "--seeds", "1", "--epochs", "3"]
RUN += ["--set", "optimizer=sgd", "--set", "averaging=0.5"]
TOLERANCE = 1e-5


def free_ports(count):
    """Free ports below those that a system gives to whoever asks for any: nobody takes them before the workers do."""
    ports = []
    for port in random.SystemRandom().sample(range(12_000, 32_000), 1000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError("no free ports")


def cluster(count):
    """A TF_CONFIG for each of `count` workers on this machine."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(count)]
    task = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(count)]
    return [json.dumps(config) for config in task]


def final_weights(out):
    with np.load(out / "checkpoint" / "seed0-final.npz") as file:
        return [file[name] for name in file.files if name.startswith("best/")]


def assert_close(weights, others):
    assert len(weights) == len(others) > 5
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def one_replica(tiny_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    done = start(
        "tests.support.drive", "--die", "never", *RUN, "--data_root", tiny_root, "--out", folder / "out", cwd=folder
    )
    assert done.wait_for(120).returncode == 0, done.err
    return final_weights(folder / "out")


def test_training_moves_weights_further_than_the_tolerance(one_replica, tiny_root, command, tmp_path):
    """Otherwise the comparisons below could not fail."""
    args = [*RUN, "--data_root", tiny_root, "--out", tmp_path / "out", "--epochs", "1"]
    assert command("tests.support.drive", "--die", "never", *args).returncode == 0
    gaps = [np.abs(a - b).max() for a, b in zip(one_replica, final_weights(tmp_path / "out"), strict=True)]
    assert max(gaps) > 1000 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.long)])
def test_replicas_equal_one(replicas, one_replica, tiny_root, command, tmp_path):
    args = ["--strategy", "mirrored", "--replicas", replicas, "--data_root", tiny_root, "--out", tmp_path / "out"]
    done = command("tests.support.drive", "--die", "never", *RUN, *args)
    assert done.returncode == 0, done.err
    assert_close(final_weights(tmp_path / "out"), one_replica)


@pytest.mark.slow
def test_two_workers_equal_one(one_replica, tiny_root, tmp_path):
    args = [*RUN, "--strategy", "multiworker", "--data_root", tiny_root, "--out", tmp_path / "out"]
    workers = [
        commands.start("tests.support.drive", "--die", "never", *args, cwd=tmp_path, TF_CONFIG=config)
        for config in cluster(2)
    ]
    for worker in workers:
        assert worker.wait_for(240).returncode == 0, worker.err
    assert_close(final_weights(tmp_path / "out"), one_replica)
    chief, other = workers
    assert "selected on validation" in chief.out
    assert "selected on validation" not in other.out


@pytest.mark.slow
@pytest.mark.parametrize("lost", [pytest.param(0, marks=pytest.mark.long), 1], ids=["chief", "worker"])
def test_a_lost_worker_ends_the_others_and_resume_goes_on(lost, one_replica, tiny_root, tmp_path):
    args = [*RUN, "--strategy", "multiworker", "--data_root", tiny_root, "--out", tmp_path / "out"]
    workers = [
        start(
            "tests.support.drive",
            "--die",
            "step:8" if index == lost else "never",
            *args,
            cwd=tmp_path,
            TF_CONFIG=config,
        )
        for index, config in enumerate(cluster(2))
    ]
    assert workers[lost].wait_for(120).returncode == -signal.SIGKILL
    since = time.monotonic()
    left = workers[1 - lost].wait_for(120)
    assert time.monotonic() - since < 120
    assert left.returncode == 1
    sentences = [line for line in left.err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and "lost" in sentences[0] and "--resume" in sentences[0]
    if lost:
        return  # the chief alone writes checkpoints: it is the one without whom going on is hard
    args.append("--resume")
    if not resumed(args, tmp_path):  # on a busy machine workers lose each other; then, as the sentence says, again
        assert resumed(args, tmp_path)
    assert_close(final_weights(tmp_path / "out"), one_replica)


def resumed(args, folder):
    """Whether two workers come to the end; if not, what each said is among the warnings of the tests."""
    workers = [start("tests.support.drive", "--die", "never", *args, cwd=folder, TF_CONFIG=c) for c in cluster(2)]
    codes = [worker.wait_for(240).returncode for worker in workers]
    if codes != [0, 0]:
        said = "\n".join(
            f"worker {place} ended with {worker.returncode}: {worker.err}" for place, worker in enumerate(workers)
        )
        assert "start all workers again with --resume" in said, said
        warnings.warn(said, stacklevel=2)
    return codes == [0, 0]


@pytest.mark.long
def test_a_worker_that_is_gone_once_all_are_done_is_no_loss(tiny_root, tmp_path):
    args = [*RUN, "--strategy", "multiworker", "--data_root", tiny_root, "--out", tmp_path / "out"]
    chief, other = (
        start("tests.support.drive", "--die", die, *args, cwd=tmp_path, TF_CONFIG=config)
        for die, config in zip(("never", "done:1"), cluster(2), strict=True)
    )
    assert other.wait_for(240).returncode == -signal.SIGKILL
    assert chief.wait_for(120).returncode == 0, chief.err
    assert "selected on validation" in chief.out


@pytest.mark.long
def test_a_missing_worker_is_named(tiny_root, tmp_path):
    args = [*RUN, "--strategy", "multiworker", "--data_root", tiny_root, "--out", tmp_path / "out"]
    config = cluster(2)[0]
    alone = start("tests.support.drive", "--die", "patience:10", *args, cwd=tmp_path, TF_CONFIG=config).wait_for(90)
    missing = json.loads(config)["cluster"]["worker"][1]
    assert alone.returncode == 1
    assert f"worker 1 ({missing}) did not answer within 10 s" in alone.err


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        '{"cluster": {}}',
        '{"cluster": {"worker": ["nohost"]}, "task": {"type": "worker"}}',
        '{"cluster": {"worker": ["127.0.0.1:5000"]}, "task": {"type": "worker", "index": 7}}',
    ],
)
def test_a_wrong_tf_config_is_one_sentence(config, tiny_root, command):
    args = [*RUN, "--strategy", "multiworker", "--data_root", tiny_root]
    wrong = command("tests.support.drive", "--die", "never", *args, TF_CONFIG=config)
    assert wrong.returncode == 2
    assert wrong.err.startswith("error: TF_CONFIG: got") and wrong.err.count("\n") == 1


@pytest.mark.parametrize(
    ("jobs", "task", "leads"),
    [
        (("worker",), ("worker", 0), True),
        (("worker",), ("worker", 1), False),
        (("chief", "worker"), ("chief", 0), True),
        (("chief", "worker"), ("worker", 0), False),
    ],
)
def test_one_process_alone_writes(jobs, task, leads):
    spec = tf.train.ClusterSpec({job: ["a:1", "b:2"] for job in jobs})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, task_type=task[0], task_id=task[1])
    assert is_chief(types.SimpleNamespace(cluster_resolver=resolver)) is leads
