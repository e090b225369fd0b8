"""python -m experiments.speed: measures how fast the parts are on this machine, as JSON; nothing is asserted.

Every figure stands beside the machine's own rate of the same kind, measured in the same run: between machines, ratios
can be compared, but the figures cannot. Each figure is the median of several repeats.
"""

import dataclasses
import json
import pathlib

from zslkeras.cli import flags

NAMES = (
    *("machine", "matmul", "score_matrix", "loader", "open_large", "views", "loop", "aspn", "jlaf", "msdn"),
    *("msdn_memory", "drmn", "sit", "dcen", "dcen_large", "prepare", "exported", "serving", "determinism"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured"""

    only: tuple[str, ...] = flags.flag((), "names of the measurements to make; all if not given", choices=NAMES)
    repeats: int = flags.flag(5, "how often to repeat each timing", least=1)
    json: str | None = flags.flag(None, "also write the figures to this file")


def main(settings):
    from experiments import measurements  # needs TensorFlow, so only after the flags are checked

    figures = {}
    for name in settings.only or NAMES:
        figures[name] = getattr(measurements, name)(settings.repeats)
        print(name, json.dumps(figures[name]), flush=True)
    if settings.json:
        pathlib.Path(settings.json).write_text(json.dumps(figures, indent=2) + "\n")


COMMAND = flags.Command(
    "python -m experiments.speed", __doc__, Settings, example="python -m experiments.speed --only matmul,msdn"
)

if __name__ == "__main__":
    COMMAND(main)
