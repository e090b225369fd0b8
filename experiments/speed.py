"""python -m experiments.speed: measures how fast the parts are on this machine; nothing is asserted.

Every figure stands beside the machine's own rate of the same kind, measured in the same run: between machines, ratios
can be compared, but the figures cannot. Each figure is the median of several repeats. The table says which goals are
met. With --against a file of --json, it shows those figures too; with --against another checkout, both are measured in
turns, each time by a process of its own, and compared turn by turn, so that a slower commit is seen.
"""

import dataclasses

from zslkeras.cli import flags

NAMES = (
    *("machine", "matmul", "score_matrix", "loader", "open_large", "views", "loop", "aspn", "jlaf", "msdn"),
    *("msdn_memory", "drmn", "sit", "dcen", "dcen_large", "prepare", "exported", "serving", "determinism"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured"""

    only: tuple[str, ...] = flags.flag((), "names of the measurements to make; all if not given", choices=NAMES)
    repeats: int = flags.flag(5, "how often to repeat each timing; with another checkout, how many turns", least=1)
    json: str | None = flags.flag(None, "also write the figures to this file, such as results/speed.json")
    against: str | None = flags.flag(None, "a file that --json wrote, or the folder of another checkout")


def main(settings):
    from experiments import timings  # needs TensorFlow, so only after the flags are checked

    timings.measure(settings.only or NAMES, settings.repeats, settings.json, settings.against)


COMMAND = flags.Command(
    "python -m experiments.speed", __doc__, Settings, example="python -m experiments.speed --only matmul,msdn"
)

if __name__ == "__main__":
    COMMAND(main)
