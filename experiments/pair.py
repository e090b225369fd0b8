"""python -m experiments.pair --runs DIR,DIR,... --against DIR,DIR,...: compares finished runs class by class.

The first run of one list is paired with the first of the other, and so on: one pair per draw of `shapes`, say, or per
benchmark. All pairs are pooled, and the seeds of a run are averaged. `--against eszsl` pairs each run with its
baseline. Nothing is trained, and no test class is read that the runs had not read before.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """The runs"""

    runs: tuple[str, ...] = flags.flag((), "folders of finished runs, as in --runs runs/msdn-shapes")
    against: tuple[str, ...] = flags.flag(("eszsl",), "as many other runs, paired with --runs in order; or eszsl")
    data_root: str | None = flags.flag(None, "where the data lies now, if it was moved")


def main(settings):
    from experiments import claims  # needs TensorFlow, so only after the flags are checked

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
