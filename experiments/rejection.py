"""python -m experiments.rejection --model NAME --dataset NAME|PATH: how well "none of these" holds on your data.

Trains stage tune of some draws of validation classes. Temperature and thresholds are then chosen on half of the
validation classes and the held-out images of half of the trained ones, and judged on the other halves: how many images
of listed classes are lost, how many of validation classes off the list are told, and the expected calibration error.
The published test classes are not opened.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """The measurement"""

    model: str | None = flags.model()
    rate: float = flags.flag(0.05, "share of the images of listed classes that may be lost", least=0.001, most=0.999)
    short: int = flags.flag(5, "classes of the short list", least=1)
    folds: int = flags.flag(2, "draws of validation classes", least=1)
    draws: int = flags.flag(20, "draws of halves and lists in each fold", least=1)
    data: flags.Data = flags.group(flags.Data)
    overrides: flags.Overrides = flags.group(flags.Overrides)
    machine: flags.Machine = flags.group(flags.Machine)


def main(settings):
    from experiments import rejected  # needs TensorFlow, so only after the flags are checked

    rejected.measure(settings)


COMMAND = flags.Command(
    "python -m experiments.rejection",
    __doc__,
    Settings,
    example="python -m experiments.rejection --model prototypes --dataset shapes",
    needed=("model", "dataset"),
)

if __name__ == "__main__":
    COMMAND(main)
