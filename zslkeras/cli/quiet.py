"""TensorFlow without the notes that its C++ parts print, which would bury the one sentence that matters."""

import contextlib
import os

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def tensorflow():
    """Imports TensorFlow quietly. Set TF_CPP_MIN_LOG_LEVEL to see its notes."""
    if _LEVEL in os.environ:
        import tensorflow as tf
    else:
        os.environ[_LEVEL] = "3"  # a damaged JPEG has lines of its own, beside the exception that says the same
        with _nowhere():
            import absl.logging
            import tensorflow as tf

            tf.config.list_physical_devices("GPU")  # looks for a driver, and says so where there is none
            absl.logging.set_verbosity(absl.logging.ERROR)
    return tf


@contextlib.contextmanager
def _nowhere():
    """Within, file descriptor 2 leads nowhere: some notes come before any level is read, past Python's sys.stderr."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
