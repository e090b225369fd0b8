"""python -I selfcheck.py MODEL ROWS OUT: writes the answers of an exported model, with TensorFlow alone.

The model is loaded twice: as Python does it, and into a session in graph mode, as TensorFlow Serving does. `export`
runs this file by its path in a process of its own, which imports nothing of this project. ROWS is an .npz with one
array per input; a batch of images is one uint8 array per image: "inputs/0", "inputs/1", ...
"""

import sys

import numpy as np
import tensorflow as tf


def main(model, rows, out):
    given = dict(np.load(rows, allow_pickle=False))
    pictures = [given[name].tobytes() for name in sorted(given) if name.startswith("inputs/")]
    if pictures:
        given["inputs"] = np.array(pictures, object)
    np.savez(out, **_named("loaded", by_python(model, given)), **_named("session", by_session(model, given)))
    strangers = {name.partition(".")[0] for name in sys.modules} & {"zslkeras", "experiments"}
    assert not strangers, f"not alone: {strangers}"


def by_python(model, given):
    """(endpoint, key, answer) of each endpoint."""
    for name, endpoint in tf.saved_model.load(model).signatures.items():
        wanted = endpoint.structured_input_signature[1]
        for key, answer in endpoint(**{key: tf.constant(given[key]) for key in wanted}).items():
            yield name, key, answer.numpy()


def by_session(model, given):
    """The same, of a graph that is loaded into a session."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        endpoints = tf.compat.v1.saved_model.load(session, ["serve"], model).signature_def
        for name, endpoint in endpoints.items():
            if name.startswith("__"):  # TensorFlow's own, to initialise variables
                continue
            feeds = {tensor.name: given[key] for key, tensor in endpoint.inputs.items()}
            fetches = {key: tensor.name for key, tensor in endpoint.outputs.items()}
            for key, answer in session.run(fetches, feeds).items():
                yield name, key, answer


def _named(loader, answers):
    return {f"{loader} {name}/{key}": answer for name, key, answer in answers}


if __name__ == "__main__":
    main(*sys.argv[1:])
