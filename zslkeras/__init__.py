"""zslkeras: zero-shot recognition in Keras 3, five published systems under one honest protocol."""

from zslkeras.benchmarks import load
from zslkeras.errors import InputError
from zslkeras.models import ASPN, ESZSL, MODELS
from zslkeras.version import __version__

__all__ = ["ASPN", "ESZSL", "MODELS", "InputError", "__version__", "load"]
