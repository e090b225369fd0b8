"""python -m experiments.run --model NAME --dataset NAME|PATH: trains, chooses on validation classes, prints the table.

Everything is chosen in stage tune, inside the training rows; the published test classes are looked at once, at the
end. The table also shows what choosing on the test set would have given, as the papers report.
"""

import dataclasses
import pathlib

from zslkeras.cli import flags
from zslkeras.models import MODELS
from zslkeras.names import AUTO


@dataclasses.dataclass(frozen=True)
class Settings:
    """The run"""

    model: str | None = flags.model(flags.MODELS_AND_AUTO)
    minutes: float | None = flags.flag(
        None, "end training in good order after this time, for all seeds; with --model auto, 10 if not given", least=0.1
    )
    seeds: int | None = flags.flag(None, "how many seeds to average over; the model's default if not given", least=1)
    select: str = flags.flag(
        "val", "choose on validation classes, or train --epochs and choose nothing", choices=("val", "fixed")
    )
    ablation: str | None = flags.flag(None, "a row of the paper's ablation table, or all")
    out: str | None = flags.flag(None, "where results go; runs/MODEL-DATASET if not given")
    resume: bool = flags.flag(False, "go on with a run that was killed")
    plot_attention: int | None = flags.flag(None, "draw attention over this many test images", least=1)
    watch_attention: int | None = flags.flag(
        None, "show attention over this many validation images in TensorBoard, after each epoch", least=1
    )
    plot_tsne: bool = flags.flag(False, "draw t-SNE of what the model makes of test images")
    plot_views: int | None = flags.flag(None, "draw what training sees of this many images", least=1)
    export: bool = flags.flag(False, "write a SavedModel that recognises any classes; see zslkeras export")
    describe: bool = flags.flag(False, "print the parts of --model and their cost on the usual benchmarks, and end")
    data: flags.Data = flags.group(flags.Data)
    overrides: flags.Overrides = flags.group(flags.Overrides)
    machine: flags.Machine = flags.group(flags.Machine)
    exported: flags.Export = flags.group(flags.Export)


def main(settings):
    # What needs TensorFlow is imported here, after the flags are checked.
    from experiments import describe, rows

    if settings.describe:
        print(describe.describe(MODELS[settings.model], settings.model))
        return
    extras = rows.Extras(
        attention=settings.plot_attention,
        watched=settings.watch_attention,
        tsne=settings.plot_tsne,
        views=settings.plot_views,
        export=settings.export,
        with_backbone=settings.exported.with_backbone,
        weights=settings.overrides.weights,
        formats=settings.exported.formats,
    )
    if settings.model == AUTO:
        asked = settings.data, settings.machine, settings.minutes, settings.overrides.weights
        rows.train_best(*asked, settings.out, settings.seeds, settings.resume, extras)
        return
    rows.require_able(settings.model, extras)
    overrides = settings.overrides
    if settings.exported.with_backbone and not hasattr(MODELS[settings.model].Config, "weights"):
        overrides = dataclasses.replace(overrides, weights=None)  # here they belong to the export's front end
    seeds = settings.seeds or MODELS[settings.model].default_seeds
    minutes = settings.minutes and settings.minutes / seeds
    asked = settings.model, settings.data, overrides, settings.machine, settings.ablation, minutes
    benchmark, experiments = rows.asked(*asked)
    parts = (settings.model, benchmark.name, settings.data.features, settings.ablation)
    stem = pathlib.Path("runs") / "-".join(str(part).lower() for part in parts if part)
    out = settings.out and pathlib.Path(settings.out)
    rows.train(benchmark, experiments, out, stem, seeds, settings.select, settings.resume, extras)


def _check(settings, given, arguments):
    del arguments
    flags.part_of("export", given, "with_backbone", "formats")
    if settings.watch_attention and settings.select == "fixed":
        raise flags.InputError(
            "--watch_attention: got it with --select fixed, which has no validation images; wanted val"
        )
    if settings.model == AUTO:
        acts = {"model", "minutes", "seeds", "out", "resume", "export", "with_backbone", "weights"}
        acts |= {*flags.names_of(flags.Data), *flags.names_of(flags.Machine)}
        if other := sorted(given - acts):
            raise flags.InputError(
                f"--{other[0]}: got it with --model {AUTO}, which takes every model as it is; wanted a model"
            )
        if settings.machine.strategy == "multiworker":
            raise flags.InputError(f"--strategy: got multiworker with --model {AUTO}; wanted default or mirrored")


COMMAND = flags.Command(
    "python -m experiments.run",
    __doc__,
    Settings,
    example="python -m experiments.run --model aspn --dataset shapes --seeds 1",
    needed=("model", "dataset"),
    acts_alone={"describe": ("model",)},
    check=_check,
)

if __name__ == "__main__":
    COMMAND(main)
