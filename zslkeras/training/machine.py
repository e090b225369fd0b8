"""The devices and the precision of a training, the same for all models. Imports no TensorFlow."""

import contextlib
import dataclasses

from zslkeras import names


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices and precision.

    Attributes:
        strategy: "default" (one device), "mirrored" (all GPUs of this machine) or "multiworker" (see TF_CONFIG).
        replicas: how many, for "mirrored"; None for one per GPU.
        precision: what layers compute in.
        jit: whether the training step is compiled with XLA; one device only.
        deterministic: whether the same seed gives the same weights bit for bit; costs speed on GPUs.
    """

    strategy: str = names.STRATEGIES[0]
    replicas: int | None = None
    precision: str = names.PRECISIONS[0]
    jit: bool = False
    deterministic: bool = True


@contextlib.contextmanager
def computing_in(precision):
    """Models that are made or loaded inside the `with` compute in `precision`, also afterwards."""
    import keras  # not above: flags read Machine, and have to be known without TensorFlow

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
