"""The version, in the one place that all others read."""

__version__ = "0.2.0"


def versions():
    """Of what numbers depend on."""
    import keras  # here, as `--version` and setup.cfg do not need them
    import tensorflow as tf

    return {"zslkeras": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
