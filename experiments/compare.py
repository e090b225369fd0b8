"""python -m experiments.compare --rows a,b,eszsl: tests claims on validation classes.

Each row (an ablation of the model, or a yardstick: eszsl or prototypes) is trained and chosen on several draws of
validation classes inside the training rows, with several seeds. A name that is both is the ablation. The first row is
compared with each of the others, paired class by class, with all folds pooled. The published test classes are not
opened. What is finished in --out is not trained again.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """The claim"""

    model: str | None = flags.model()
    rows: tuple[str, ...] = flags.flag(
        (), "ablations of --model, eszsl and prototypes; the first is compared with each of the others"
    )
    out: str | None = flags.flag(None, "where checkpoints and compare.json go")
    folds: int = flags.flag(3, "draws of validation classes", least=1)
    first_fold: int = flags.flag(1, "number of the first draw; 0 is the published validation classes", least=0)
    seeds: int | None = flags.flag(None, "how many seeds per fold; the model's default if not given", least=1)
    data: flags.Data = flags.group(flags.Data)
    overrides: flags.Overrides = flags.group(flags.Overrides)
    machine: flags.Machine = flags.group(flags.Machine)


def main(settings):
    from experiments import claims  # needs TensorFlow, so only after the flags are checked

    claims.compare(settings)


def _check(settings, given, arguments):
    del given, arguments
    if len(settings.rows) < 2:
        raise flags.InputError(f"--rows: got {','.join(settings.rows)}; wanted two or more")
    if len(set(settings.rows)) < len(settings.rows):
        raise flags.InputError(f"--rows: got {','.join(settings.rows)}; wanted each row once")


COMMAND = flags.Command(
    "python -m experiments.compare",
    __doc__,
    Settings,
    example="python -m experiments.compare --model aspn --dataset shapes --rows aspn,baseline,eszsl --out runs/claim",
    needed=("model", "dataset", "rows", "out"),
    check=_check,
)

if __name__ == "__main__":
    COMMAND(main)
