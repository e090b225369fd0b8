"""Graphs of TensorFlow without AutoGraph, which rewrites Python's `if` and `for` over tensors. Code here has none of
them, rewriting takes as long as the rest of tracing, and a killed process leaves the rewritten files behind."""

import tensorflow as tf

# Of a function that a dataset maps, where there is no option for it.
plain = tf.autograph.experimental.do_not_convert


def function(body=None, input_signature=None, **options):
    """`tf.function`, also as a decorator."""
    return tf.function(body, input_signature, autograph=False, **options)
