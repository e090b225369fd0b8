"""zslkeras: zero-shot recognition in Keras 3, five published systems under one honest protocol."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start-up notes bury ours
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from zslkeras.benchmarks import load  # noqa: E402
from zslkeras.errors import InputError  # noqa: E402
from zslkeras.models import ESZSL, MODELS  # noqa: E402
from zslkeras.version import __version__  # noqa: E402

__all__ = ["ESZSL", "MODELS", "InputError", "__version__", "load"]
