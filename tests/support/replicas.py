"""`python -m tests.replicas MODEL OUT`: a few steps on two replicas, for `tests.test_contract`.

OUT gets the weights after three steps, and what each replica lost on the same rows under noise. A process has one
MirroredStrategy and one division of its CPU, so each model has a process of its own.
"""

import sys

import numpy as np
import tensorflow as tf

from tests.models import test_contract
from zslkeras.cli import quiet
from zslkeras.training import strategies

if __name__ == "__main__":
    quiet.tensorflow()
    name, out = sys.argv[1:]
    tiny = test_contract.TINY[name]
    strategy = strategies.get_strategy("mirrored", 2)
    model, _ = test_contract.three_steps(name, strategy=strategy, still=True)
    losses = []
    if tiny.noisy is not None:
        benchmark = test_contract.benchmark_for(name)
        rows = benchmark.train[:: len(benchmark.train) // 8]
        batch = tf.nest.map_structure(tf.constant, (benchmark.take(rows), benchmark.labels[rows]))
        with strategy.scope():
            noisy = test_contract.made(name, sgd=True, **tiny.noisy)
        lost = tf.function(lambda: strategy.run(noisy.train_step, (batch,)))()
        losses = [strategy.experimental_local_results(value) for value in lost.values()]
    np.savez(out, *[variable.numpy() for variable in model.variables], losses=losses)
