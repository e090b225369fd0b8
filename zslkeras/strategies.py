"""Where a model is trained: one device, all the GPUs of a machine, or several machines.

One strategy object a process: a second MirroredStrategy in one process shares collective keys with the first and
fails with a shape mismatch.
"""

import functools
import json
import os
import socket
import sys
import threading
import time

import tensorflow as tf

from zslkeras.errors import InputError

STRATEGIES = ("default", "mirrored", "multiworker")
START_SECONDS = 90  # within which every worker of TF_CONFIG has to answer
PROBE_SECONDS = 5
LOST_AFTER_PROBES = 3  # probes in a row without an answer


@functools.cache
def get_strategy(name="default", replicas=None):
    """The process's distribution strategy.

    Args:
        name: "default" (one device), "mirrored" (one machine) or "multiworker" (the cluster named by TF_CONFIG).
        replicas: how many, for "mirrored"; None for one a GPU. Without GPUs the CPU is split into that many logical
            devices, which is how replica arithmetic is tested and gains no speed.
    """
    if name not in STRATEGIES:
        raise InputError(f"strategy: got {name!r}; wanted one of {', '.join(STRATEGIES)}")
    if replicas is not None and (name != "mirrored" or replicas < 1):
        raise InputError(f"replicas: got {replicas} with strategy {name}; wanted at least 1, with strategy mirrored")
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_devices(gpus, replicas))
    if name == "multiworker":
        return _multiworker()
    return tf.distribute.get_strategy()


def is_chief(strategy):
    """True in the one process that writes files."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_type or (resolver.task_type, resolver.task_id) in _CHIEFS


_CHIEFS = (("chief", 0), ("worker", 0))


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
        peers = {f"worker {i} ({address})": _address(address) for i, address in enumerate(workers) if i != me}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"TF_CONFIG: got {os.environ.get('TF_CONFIG')!r} ({type(error).__name__}: {error}); wanted JSON such as "
            '{"cluster": {"worker": ["host1:5000", "host2:5000"]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    _watch(peers)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def _watch(peers):
    """Ends this process with one sentence once a peer is missing or lost; collectives alone would wait for ever."""
    started = time.monotonic()

    def probe():
        misses = dict.fromkeys(peers, 0)
        met = set()
        while True:
            for name, address in peers.items():
                try:
                    socket.create_connection(address, timeout=PROBE_SECONDS).close()
                    met.add(name)
                    misses[name] = 0
                except OSError:
                    misses[name] += 1
                if name in met and misses[name] >= LOST_AFTER_PROBES and not _finished.is_set():
                    _end(f"{name} was lost; start all workers again with --resume to go on from the last checkpoint")
                if name not in met and time.monotonic() - started > START_SECONDS and not _finished.is_set():
                    _end(f"{name} did not answer within {START_SECONDS} s; start every worker that TF_CONFIG names")
            if _finished.wait(PROBE_SECONDS):
                return

    threading.Thread(target=probe, daemon=True, name="peer watch").start()


_finished = threading.Event()


def finish():
    """Peers may leave from here on."""
    _finished.set()


def _end(sentence):
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread is inside a collective that will never return


def lost(strategy, error):
    """What to do with an error out of a collective: among workers a peer is gone, anywhere else it is a bug."""
    if strategy.cluster_resolver is None:
        raise error
    _end("a worker was lost; start all workers again with --resume to go on from the last checkpoint")


def from_chief(strategy, numbers):
    """The chief's `numbers` (a dict of floats) in every worker, so that all take the same decisions."""
    if strategy.cluster_resolver is None or not strategy.cluster_resolver.task_type:
        return numbers

    @tf.function
    def spread(values):
        def first_only(values):
            context = tf.distribute.get_replica_context()
            mine = tf.where(context.replica_id_in_sync_group == 0, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        return strategy.experimental_local_results(strategy.run(first_only, (values,)))[0]

    values = spread(tf.constant(list(numbers.values()), tf.float64)).numpy()
    return dict(zip(numbers, map(float, values), strict=True))
