"""The ground that commands stand on: UTF-8, and TensorFlow without the notes of its C++ parts, which would bury the
one sentence that matters."""

import contextlib
import os
import sys

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def in_utf8():
    """Starts this process again in UTF-8 mode where the locale has another encoding: TensorFlow's names are UTF-8."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def tensorflow():
    """Imports TensorFlow quietly, to take memory of GPUs as it is needed. Set TF_CPP_MIN_LOG_LEVEL to see its notes."""
    with contextlib.nullcontext() if _LEVEL in os.environ else _hushed():
        import absl.logging
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):  # looks for a driver, and prints a note if there is none
            tf.config.experimental.set_memory_growth(gpu, True)  # now, as it cannot be once a GPU has computed
        absl.logging.set_verbosity(absl.logging.ERROR)


@contextlib.contextmanager
def _hushed():
    """Silences all but fatal errors, as a damaged JPEG prints lines that repeat its exception. File descriptor 2 is
    silenced too: some notes come before any level is read, and bypass Python's sys.stderr."""
    os.environ[_LEVEL] = "3"
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
        del os.environ[_LEVEL]  # read once; a process that this one starts decides for itself
