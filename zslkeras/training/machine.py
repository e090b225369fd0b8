"""What a training runs on and how it is computed: the same for all models. Known without TensorFlow."""

import dataclasses

from zslkeras import names


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices and precision.

    Attributes:
        strategy: "default" (one device), "mirrored" (all GPUs of this machine) or "multiworker" (see TF_CONFIG).
        replicas: of "mirrored"; None for one a GPU.
        precision: what layers compute in.
        jit: whether the training step is compiled with XLA; on one device only.
        deterministic: whether the same seed gives the same weights bit for bit; costs speed on GPUs.
    """

    strategy: str = names.STRATEGIES[0]
    replicas: int | None = None
    precision: str = names.PRECISIONS[0]
    jit: bool = False
    deterministic: bool = True
