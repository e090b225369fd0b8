"""python -I selfcheck.py MODEL ROWS OUT: writes the answers of an exported model, with TensorFlow alone.

`export` runs this file by its path in a process of its own, which imports nothing of this project. ROWS is an .npz
with one array per input; a batch of images is one uint8 array per image: "inputs/0", "inputs/1", ...
"""

import sys

import numpy as np
import tensorflow as tf


def main(model, rows, out):
    loaded, given = tf.saved_model.load(model), dict(np.load(rows, allow_pickle=False))
    pictures = [given[name].tobytes() for name in sorted(given) if name.startswith("inputs/")]
    if pictures:
        given["inputs"] = pictures
    answers = {}
    for name, endpoint in loaded.signatures.items():
        wanted = endpoint.structured_input_signature[1]
        for key, answer in endpoint(**{key: tf.constant(given[key]) for key in wanted}).items():
            answers[f"{name}/{key}"] = answer.numpy()
    strangers = {name.partition(".")[0] for name in sys.modules} & {"zslkeras", "experiments"}
    assert not strangers, f"not alone: {strangers}"
    np.savez(out, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
