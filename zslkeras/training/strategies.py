"""Where a model is trained: one device, all the GPUs of a machine, or several machines.

A process has one strategy object: a second MirroredStrategy in the same process would share collective keys with the
first and fail with a shape mismatch.
"""

import contextlib
import functools
import json
import os
import socket
import time

import tensorflow as tf

from zslkeras import graphs, names
from zslkeras.errors import Failed, InputError

START_SECONDS = 90  # every worker of TF_CONFIG has to answer within this time
PROBE_SECONDS = 5

# A collective raises one of these when a peer is gone; which one depends on what the others were doing.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
)


class WorkerLost(Failed):
    """A worker of the cluster is missing or gone."""


@functools.cache
def get_strategy(name="default", replicas=None):
    """The process's distribution strategy.

    Args:
        name: "default" (one device), "mirrored" (one machine) or "multiworker" (the cluster named by TF_CONFIG).
        replicas: how many, for "mirrored"; None for one per GPU. Without GPUs, the CPU is split into that many logical
            devices; this is for tests of replica arithmetic, and gains no speed.
    """
    if name not in names.STRATEGIES:
        raise InputError(f"strategy: got {name!r}; wanted one of {', '.join(names.STRATEGIES)}")
    if replicas is not None and (name != "mirrored" or replicas < 1):
        raise InputError(f"replicas: got {replicas} with strategy {name}; wanted at least 1, with strategy mirrored")
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # it has computed already; see quiet.tensorflow for commands
            tf.config.experimental.set_memory_growth(gpu, True)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_devices(gpus, replicas))
    if name == "multiworker":
        return _multiworker()
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def watched(name):
    """Inside the `with`, the error of a collective whose worker is gone becomes one sentence (under "multiworker")."""
    try:
        yield
    except LOST:
        if name != "multiworker":
            raise
        again = "start all workers again with --resume to go on from the last checkpoint"
        raise WorkerLost(f"a worker was lost; {again}") from None


def is_chief(strategy):
    """True in the one process that writes files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"  # without a chief, worker 0 leads
    return (resolver.task_type, resolver.task_id) == (first, 0)


def _devices(gpus, replicas):
    if gpus and (replicas or len(gpus)) > len(gpus):
        raise InputError(f"replicas: got {replicas}; this machine has {len(gpus)} GPUs")
    if not gpus and (replicas or 1) > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    kind, count = ("GPU", replicas or len(gpus)) if gpus else ("CPU", replicas or 1)
    return [f"{kind}:{index}" for index in range(count)]


def _multiworker():
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        workers = [*config["cluster"].get("chief", []), *config["cluster"]["worker"]]
        task = config["task"]
        me = task["index"] + (len(config["cluster"].get("chief", [])) if task["type"] == "worker" else 0)
        own = _address(workers[me])
        peers = {f"worker {i} ({address})": _address(address) for i, address in enumerate(workers) if i != me}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"TF_CONFIG: got {os.environ.get('TF_CONFIG')!r} ({type(error).__name__}: {error}); wanted JSON such as "
            '{"cluster": {"worker": ["host1:5000", "host2:5000"]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    _meet(own, peers)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def _meet(own, peers):
    """Waits until every peer answers; TensorFlow alone would wait an hour for a missing one.

    Each worker listens on its own port until it has met the others; then TensorFlow takes the port.
    """
    deadline = time.monotonic() + START_SECONDS
    try:
        listener = socket.create_server(("", own[1]), reuse_port=True)
    except OSError as error:
        raise InputError(f"TF_CONFIG: port {own[1]} of this worker: {error.strerror}; wanted a free port") from None
    with listener:
        missing = dict(peers)
        while missing:
            for name, address in list(missing.items()):
                try:
                    socket.create_connection(address, timeout=PROBE_SECONDS).close()
                    del missing[name]
                except OSError:
                    if time.monotonic() > deadline:
                        wanted = "start every worker that TF_CONFIG names"
                        raise WorkerLost(f"{name} did not answer within {START_SECONDS} s; {wanted}") from None
            time.sleep(0.2)


def finish(strategy):
    """Waits until all workers have reached this point; after it they may exit.

    Whoever has heard that all are done may exit before another has heard it. So each stays until all have heard, and by
    then a worker that is gone is no loss.
    """
    from_chief(strategy, {"done": 1.0})
    with contextlib.suppress(*LOST):
        from_chief(strategy, {"heard": 1.0})


def from_chief(strategy, numbers):
    """Gives every worker the chief's `numbers` (a dict of floats), so that all take the same decisions."""
    if strategy.cluster_resolver is None or not strategy.cluster_resolver.task_type:
        return numbers

    values = _spread(strategy)(tf.constant(list(numbers.values()), tf.float64)).numpy()
    return dict(zip(numbers, map(float, values), strict=True))


@functools.cache
def _spread(strategy):
    def first_only(values):
        context = tf.distribute.get_replica_context()
        mine = tf.where(context.replica_id_in_sync_group == 0, values, tf.zeros_like(values))
        return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

    def spread(values):
        return strategy.experimental_local_results(strategy.run(first_only, (values,)))[0]

    return graphs.function(spread, input_signature=[tf.TensorSpec([None], tf.float64)])
