"""python -m experiments.transfer --model NAME: settings chosen on some benchmarks, judged on another one.

Measures a candidate, the model's defaults with what --set, --config or --preset changes, on the validation classes of
every benchmark in --benchmarks, and adds it to --candidates. The table then leaves out each benchmark in turn: the
candidate with the highest mean AUSUC on the others is judged on it, beside the one that is best on it alone and the
yardsticks. What is measured already is not measured again. The published test classes are not opened.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """The candidate"""

    model: str | None = flags.model()
    benchmarks: str | None = flags.flag(
        None,
        'JSON file {name: [{"dataset": ..., and other flags of data}, ...]}; the cases of a name count as one. '
        "shapes alone if not given",
    )
    candidates: str | None = flags.flag(None, "JSON file of all candidates; results/candidates/MODEL.json if not given")
    out: str = flags.flag("runs/transfer", "where checkpoints of unfinished trainings go")
    folds: int = flags.flag(1, "draws of validation classes for each case", least=1)
    seeds: int = flags.flag(1, "how many seeds for each draw", least=1)
    table: bool = flags.flag(False, "measure nothing; print the table of what is measured")
    overrides: flags.Overrides = flags.group(flags.Overrides)
    machine: flags.Machine = flags.group(flags.Machine)


def main(settings):
    from experiments import candidates  # needs TensorFlow, so only after the flags are checked

    candidates.transfer(settings)


def _check(settings, given, arguments):
    del settings, arguments
    if "table" in given and (other := sorted(given - {"table", "model", "candidates"})):
        raise flags.InputError(f"--{other[0]}: got it beside --table, which measures nothing; wanted one of them")


COMMAND = flags.Command(
    "python -m experiments.transfer",
    __doc__,
    Settings,
    example="python -m experiments.transfer --model msdn --set closed_form=1",
    needed=("model",),
    check=_check,
)

if __name__ == "__main__":
    COMMAND(main)
