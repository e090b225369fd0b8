"""python -m tuning.run --model NAME --dataset NAME|PATH: searches loss weights on validation classes.

A trial is `protocol.select` in stage tune, averaged over --seeds and --folds. Its epoch and its gamma are chosen inside
it, and no trial can reach the published test classes. The winner is written to recipe.json. One final run with it, as
`experiments.run --config recipe.json` does it, looks at the test classes; --nofinal_run leaves out that run.
With --sweep SYMBOL=VALUE,VALUE,... nothing is searched: one symbol varies, and its curve is drawn.
"""

import dataclasses

from tuning import spaces
from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Trials:
    """A trial"""

    seeds: int = flags.flag(1, "how many seeds a trial averages over", least=1)
    folds: int = flags.flag(1, "how many draws of validation classes a trial averages over", least=1)
    first_fold: int = flags.flag(0, "number of the first draw; 0 is the published validation classes", least=0)
    ablation: str | None = flags.flag(None, "a row of the paper's ablation table, the same in all trials")


@dataclasses.dataclass(frozen=True)
class Search:
    """The search"""

    tuner: str = flags.flag("bayesian", "KerasTuner's oracle", choices=spaces.TUNERS)
    trials: int | None = flags.flag(
        None, "how many trials; 20 if not given. hyperband has its own number, and ends early at this one", least=1
    )
    objective: str = flags.flag("H", "the metric to maximise on validation classes", choices=("H", "AUSUC", "T"))
    search_seed: int = flags.flag(1, "seed of the oracle's draws", least=1)
    final_run: bool = flags.flag(True, "train the winner in stage final and look at the test classes once")
    export: bool = flags.flag(False, "write a SavedModel of that run; see zslkeras export")
    role: str | None = flags.flag(
        None, "role of this process, if KerasTuner's own variables are not set", choices=("chief", "worker")
    )
    chief: str = flags.flag("127.0.0.1:8000", "host:port of the chief, if KerasTuner's own variables are not set")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is searched"""

    model: str | None = flags.model(spaces.SPACES)
    out: str | None = flags.flag(None, "where trials go; runs/MODEL-DATASET-search if not given")
    resume: bool = flags.flag(False, "go on with a search that was killed, or add trials")
    sweep: tuple[str, ...] = flags.flag(
        (), "SYMBOL=VALUE,VALUE,...: draw the curve of one symbol instead; repeat for more", repeat=True
    )
    trial: Trials = flags.group(Trials)
    search: Search = flags.group(Search)
    data: flags.Data = flags.group(flags.Data)
    overrides: flags.Overrides = flags.group(flags.Overrides)
    machine: flags.Machine = flags.group(flags.Machine)


def main(settings):
    from tuning import trials  # needs TensorFlow, so only after the flags are checked

    trials.run(settings)


def _check(settings, given, arguments):
    del arguments
    if settings.trial.ablation == "all":
        raise flags.InputError("--ablation: got all; wanted a single row, which all trials have in common")
    if settings.machine.strategy == "multiworker":
        wanted = "default or mirrored, and --role for several machines"
        raise flags.InputError(f"--strategy: got multiworker; wanted {wanted}")
    if settings.sweep:
        for name in flags.names_of(Search):
            if name in given:
                raise flags.InputError(f"--{name}: got it beside --sweep, which searches nothing; wanted one of them")
    if settings.search.export and not settings.search.final_run:
        raise flags.InputError("--export: got it with --nofinal_run; wanted the final run, which is what is exported")
    host, colon, port = settings.search.chief.rpartition(":")
    if not host or not colon or not port.isdigit():
        raise flags.InputError(f"--chief: got {settings.search.chief!r}; wanted host:port")
    if settings.search.role is None and "chief" in given:
        raise flags.InputError("--chief: got it without --role; wanted both, one process each")


COMMAND = flags.Command(
    "python -m tuning.run",
    __doc__,
    Settings,
    example="python -m tuning.run --model msdn --dataset shapes --trials 20",
    needed=("model", "dataset"),
    check=_check,
)

if __name__ == "__main__":
    COMMAND(main)
