"""The commands. TensorFlow is imported here first, without the notes its C++ parts print at start-up: they would bury
the one sentence that matters. Set TF_CPP_MIN_LOG_LEVEL to see them."""

import contextlib
import os


@contextlib.contextmanager
def _quiet():
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _quiet():
    import absl.logging
    import tensorflow as tf

    tf.config.list_physical_devices("GPU")  # looks for a driver, and says so where there is none
    absl.logging.set_verbosity(absl.logging.ERROR)
