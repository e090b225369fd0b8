"""python -m experiments.benchmark: how fast the parts are on this machine, as JSON; nothing is asserted.

Every figure stands beside the machine's own rate of the same kind, measured in the same run: these numbers mean little
from one machine to the next, and ratios a lot. Medians of several repeats.
"""

import json
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import app, flags

from zslkeras import batches, evaluation, strategies, training
from zslkeras.benchmarks import Benchmark
from zslkeras.models.aspn import ASPN

FLAGS = flags.FLAGS
flags.DEFINE_list("only", None, "names of the measurements to make, all if not given")
flags.DEFINE_integer("repeats", 5, "of each timing", lower_bound=1)
flags.DEFINE_string("json", None, "also write the figures to this file")


def matmul():
    """The reference: a float32 product of 2048 x 2048 matrices."""
    size = 2048
    matrix = tf.constant(np.random.default_rng(0).random((size, size), np.float32))
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    seconds = _median(lambda: product().numpy())
    return {"gflop_per_second": 2 * size**3 / seconds / 1e9}


def score_matrix():
    """Evaluation of 100,000 rows against 717 classes, SUN's number."""
    rows, classes = 100_000, 717
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((rows, classes), np.float32)
    labels = generator.integers(0, classes, rows)
    seconds = _median(lambda: evaluation.evaluate(scores, labels, np.arange(645), np.arange(645, classes)))
    return {"seconds": seconds, "rows_per_second": rows / seconds}


def loader():
    """Shuffled batches of 50 maps [7, 7, 2048] float16 out of a memory-mapped file, warm."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "maps.npy"
        benchmark = _maps(path, rows=2000)
        steps = batches.steps_per_epoch(benchmark, 50)
        read = lambda: [None for _ in batches.training(benchmark, _default(), 50, 0, "plain", 0, steps)]  # noqa: E731
        seconds = _median(read)
        size = steps * 50 * benchmark.inputs[0].nbytes
        return {"gigabytes_per_second": size / seconds / 1e9, "memcpy": _memcpy(size)}


def open_large():
    """A file of 14,340 maps of 14 x 14 x 2048 (sparse): opening it, and the memory that 20 batches of 50 take."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "maps.npy"
        start = time.perf_counter()
        before = _anonymous_bytes()
        benchmark = _maps(path, rows=14_340, side=14, sparse=True)
        opened = time.perf_counter() - start
        for _ in batches.training(benchmark, _default(), 50, 0, "plain", 0, 20):
            pass
        return {
            "file_gigabytes": path.stat().st_size / 1e9,
            "open_seconds": opened,
            "anonymous_megabytes": (_anonymous_bytes() - before) / 1e6,
        }


def loop():
    """What the training loop adds to a step, over the same compiled step called bare on one batch."""
    model, benchmark = _aspn(width=64, semantics=16, hidden=32)
    steps = 400
    batch = next(iter(batches.training(benchmark, _default(), 64, 0, "plain", 0, 1)))
    step = tf.function(lambda batch: _default().run(model.train_step, args=(batch,)))
    step(batch)

    def bare():
        for _ in range(steps):
            step(batch)

    def looped(epochs):
        run = training.Run(
            benchmark, _default(), lambda *_: training.Verdict({}, 0.0, {}), 0, epochs=epochs, title="loop"
        )
        run.epochs(model)

    # A run traces its step once; the difference of a long and a short one is the loop alone.
    epoch = (_median(lambda: looped(11)) - _median(lambda: looped(1))) / 10
    overhead = epoch / batches.steps_per_epoch(benchmark, 64) - _median(bare) / steps
    return {"overhead_milliseconds_per_step": 1e3 * overhead}


def aspn():
    """A whole step (critic with its penalty, E and D) at 2048-d features, 1024-d embeddings, batch 64, 102 classes."""
    model, benchmark = _aspn(width=2048, semantics=1024, hidden=1800)
    batch = next(iter(batches.training(benchmark, _default(), 64, 0, "plain", 0, 1)))
    step = tf.function(lambda batch: _default().run(model.train_step, args=(batch,)))
    step(batch)
    seconds = _median(lambda: step(batch))
    operations = _flops(step, batch)
    rate = matmul()["gflop_per_second"]
    return {
        "milliseconds": 1e3 * seconds,
        "gflop": operations / 1e9,
        "share_of_matmul_rate": operations / seconds / 1e9 / rate,
    }


def determinism():
    """The same step with op determinism, which experiments.run turns on; it cannot be turned off again: comes last."""
    before = aspn()["milliseconds"]
    tf.config.experimental.enable_op_determinism()
    after = aspn()["milliseconds"]
    return {"milliseconds": before, "deterministic_milliseconds": after, "cost": after / before - 1}


MEASUREMENTS = {
    measure.__name__: measure for measure in (matmul, score_matrix, loader, open_large, loop, aspn, determinism)
}


def main(argv):
    del argv
    names = FLAGS.only or list(MEASUREMENTS)
    if unknown := sorted(set(names) - set(MEASUREMENTS)):
        sys.exit(f"error: --only: got {unknown[0]!r}; wanted some of {', '.join(MEASUREMENTS)}")
    figures = {}
    for name in names:
        figures[name] = MEASUREMENTS[name]()
        print(name, json.dumps(figures[name]), flush=True)
    if FLAGS.json:
        pathlib.Path(FLAGS.json).write_text(json.dumps(figures, indent=2) + "\n")


def _median(call):
    call()
    seconds = []
    for _ in range(FLAGS.repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _memcpy(size):
    source = np.ones(size, np.uint8)
    return {"gigabytes_per_second": size / _median(source.copy) / 1e9}


def _default():
    return strategies.get_strategy()


def _aspn(width, semantics, hidden):
    benchmark = _benchmark(np.random.default_rng(0).random((64 * 60, width), np.float32), semantics)
    model = ASPN.for_benchmark(benchmark, ASPN.Config(hidden=hidden))
    model.compile()
    return model, benchmark


def _maps(path, rows, side=7, sparse=False):
    """A benchmark over a map file made for the purpose; sparse files have a size but no content."""
    shape = (rows, side, side, 2048)
    if sparse:
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + 2 * int(np.prod(shape)))
    else:
        np.save(path, np.random.default_rng(0).random(shape, np.float32).astype(np.float16))
    return _benchmark(np.load(path, mmap_mode="r"), 85)


def _benchmark(inputs, semantics, classes=102):
    generator = np.random.default_rng(1)
    rows, seen = len(inputs), classes - 20
    labels = np.arange(rows, dtype=np.int32) % seen
    return Benchmark(
        name="made up",
        source="made up",
        kind="maps" if inputs.ndim == 4 else "features",
        inputs=inputs,
        labels=labels,
        class_embeddings=generator.random((classes, semantics), np.float32),
        class_names=tuple(f"class {c}" for c in range(classes)),
        seen_classes=np.arange(seen),
        unseen_classes=np.arange(seen, classes),
        train=np.arange(rows),
        test_seen=np.arange(0),
        test_unseen=np.arange(0),
        finite=True,
    )


def _flops(step, *args):
    """Floating-point operations of the matrix products in a compiled step, loops aside."""
    graph = step.get_concrete_function(*args).graph
    graphs = [graph, *(definition.graph for definition in graph._functions.values() if hasattr(definition, "graph"))]
    total = 0
    for operation in (operation for one in graphs for operation in one.get_operations()):
        if operation.type == "MatMul":
            first, second = (tensor.shape for tensor in operation.inputs)
            inner = first[0] if operation.get_attr("transpose_a") else first[1]
            rows, columns = operation.outputs[0].shape
            total += 2 * inner * rows * columns
    return total


def _anonymous_bytes():
    """Memory that is this process's own; pages of mapped files do not count."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


if __name__ == "__main__":
    app.run(main)
