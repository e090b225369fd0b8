"""The devices and the precision of a training, the same for all models. Imports no TensorFlow."""

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
