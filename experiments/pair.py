"""python -m experiments.pair --runs DIR,DIR,... --against DIR,DIR,...: finished runs, compared class by class.

The first of one list is paired with the first of the other, and so on: draws of `shapes`, say, or one benchmark each.
All pairs are pooled, the seeds of a run averaged. `--against eszsl` pairs with the baseline of each run. Nothing is
trained, and no test class is looked at that the runs had not.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """The runs"""

    runs: tuple[str, ...] = flags.flag((), "folders of finished runs, as in --runs runs/msdn-shapes")
    against: tuple[str, ...] = flags.flag(("eszsl",), "as many others, paired with these in turn; or eszsl")
    data_root: str | None = flags.flag(None, "where the data lies now, if not where it lay")


def main(settings):
    from experiments import claims  # needs TensorFlow: once the flags are known to be right

    claims.pair(settings)


def _check(settings, given, arguments):
    del given, arguments
    if settings.against != ("eszsl",) and len(settings.against) != len(settings.runs):
        got, wanted = len(settings.against), len(settings.runs)
        raise flags.InputError(f"--against: got {got} folders; wanted one for each of the {wanted} runs")


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
