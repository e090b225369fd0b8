"""python -m experiments.campaign --models a,b --benchmarks FILE: measures what is not measured yet, once.

Every model, with its defaults or a row of its paper's ablation table, is trained on draws of validation classes of
every benchmark, or with --open_test_classes chosen on the first draw and judged on the published test classes. Each of
these leaves one file under --results as it ends, and what has a file is not measured again. The yardsticks are measured
too. `python -m experiments.report` makes docs/results of the files.

A file is found again by what its numbers depend on: the settings, the data and the draw. Another default of a model
makes another file, and the pages then show the newer one. To measure again, delete the file and its folder in --out.
"""

import dataclasses

from zslkeras.cli import flags
from zslkeras.models import MODELS


@dataclasses.dataclass(frozen=True)
class Settings:
    """The measurements"""

    models: tuple[str, ...] = flags.flag((), f"some of {', '.join(MODELS)}", choices=MODELS)
    benchmarks: str | None = flags.flag(
        None,
        'JSON file {name: [{"dataset": ..., and other flags of data}, ...]}; the cases of a name count as one. '
        "shapes alone if not given",
    )
    rows: tuple[str, ...] = flags.flag(
        ("defaults",), "defaults, or rows of the ablation table of each model, or all for the whole table"
    )
    folds: int = flags.flag(1, "draws of validation classes for each case", least=1)
    first_fold: int = flags.flag(0, "number of the first draw; 0 is the published validation classes", least=0)
    open_test_classes: bool = flags.flag(
        False, "judge on the published test classes, and add each look to looks.md in --results"
    )
    seeds: int | None = flags.flag(None, "how many seeds; the model's default if not given", least=1)
    results: str = flags.flag("results", "the folder that gets measured/BENCHMARK/MODEL/*.json")
    out: str = flags.flag("runs/campaign", "where checkpoints go")
    overrides: flags.Overrides = flags.group(flags.Overrides)
    machine: flags.Machine = flags.group(flags.Machine)


def main(settings):
    from experiments import measured  # needs TensorFlow, so only after the flags are checked

    measured.measure(settings)


def _check(settings, given, arguments):
    del arguments
    if settings.open_test_classes and (other := sorted(given & {"folds", "first_fold"})):
        raise flags.InputError(
            f"--{other[0]}: got it beside --open_test_classes, which chooses on draw 0; wanted one of them"
        )
    if len(settings.rows) > 1 and "all" in settings.rows:
        raise flags.InputError(f"--rows: got {','.join(settings.rows)}; wanted all alone, which has every row")


COMMAND = flags.Command(
    "python -m experiments.campaign",
    __doc__,
    Settings,
    example="python -m experiments.campaign --models msdn,jlaf --rows defaults --seeds 1",
    needed=("models",),
    check=_check,
)

if __name__ == "__main__":
    COMMAND(main)
