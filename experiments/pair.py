"""python -m experiments.pair --runs DIR,DIR,... --against DIR,DIR,...: compares finished runs class by class.

The first run of one list is paired with the first of the other, and so on: one pair per draw of `shapes`, say, or per
benchmark. All pairs are pooled, and the seeds of a run are averaged. `--against eszsl` or `--against prototypes` pairs
each run with this yardstick on its data. No run is trained again, and no test class is read that the runs had not read
before.
"""

import dataclasses

from zslkeras.cli import flags
from zslkeras.names import YARDSTICKS


@dataclasses.dataclass(frozen=True)
class Settings:
    """The runs"""

    runs: tuple[str, ...] = flags.flag((), "folders of finished runs, as in --runs runs/msdn-shapes")
    against: tuple[str, ...] = flags.flag(
        ("eszsl",), f"as many other runs, paired with --runs in order; or {' or '.join(YARDSTICKS)}"
    )
    data_root: str | None = flags.flag(None, "where the data lies now, if it was moved")

    @property
    def with_yardstick(self):
        return len(self.against) == 1 and self.against[0] in YARDSTICKS


def main(settings):
    from experiments import claims  # needs TensorFlow, so only after the flags are checked

    claims.pair(settings)


def _check(settings, given, arguments):
    del given, arguments
    if not settings.with_yardstick and len(settings.against) != len(settings.runs):
        wanted = f"one for each of the {len(settings.runs)} runs, or {' or '.join(YARDSTICKS)}"
        raise flags.InputError(f"--against: got {len(settings.against)} folders; wanted {wanted}")


COMMAND = flags.Command(
    "python -m experiments.pair",
    __doc__,
    Settings,
    example="python -m experiments.pair --runs runs/msdn-shapes --against runs/jlaf-shapes",
    needed=("runs",),
    check=_check,
)

if __name__ == "__main__":
    COMMAND(main)
