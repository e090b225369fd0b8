"""zslkeras: zero-shot recognition in Keras 3, five published systems under one honest protocol.

Names are imported when they are asked for: `import zslkeras` alone does not wait for TensorFlow.
"""

import importlib

from zslkeras import names
from zslkeras.errors import InputError
from zslkeras.version import __version__

_PLACES = {
    "MODELS": ("zslkeras.models", "MODELS"),
    "ZeroShotClassifier": ("zslkeras.classifier", "ZeroShotClassifier"),
    "fit": ("zslkeras.classifier", "fit"),
    "from_arrays": ("zslkeras.benchmarks", "from_arrays"),
    "load": ("zslkeras.classifier", "load"),
    "load_benchmark": ("zslkeras.benchmarks", "load"),
    **{model: (module, model) for module, model in names.MODELS.values()},
}

__all__ = ["InputError", "__version__", *sorted(_PLACES)]


def __getattr__(name):
    if name not in _PLACES:
        raise AttributeError(f"module 'zslkeras' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__():
    return sorted({*globals(), *_PLACES})
