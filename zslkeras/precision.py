"""What layers compute in, while models are made or loaded."""

import contextlib


@contextlib.contextmanager
def computing_in(precision):
    """Models that are made or loaded inside the `with` compute in `precision`, also afterwards."""
    import keras  # not above: flags have to be known without TensorFlow

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
