"""zslkeras export --run DIR: writes the SavedModel of a finished run to DIR/saved_model.

It is what `experiments.run --export` writes. Nothing is trained, and no flag of the run has to be repeated.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is exported"""

    run: str | None = flags.flag(None, "the folder of a finished run, as in --run runs/eszsl-shapes")
    data_root: str | None = flags.flag(None, "where the data lies now, if it was moved")
    images: str | None = flags.flag(None, "where the images lie now, if they were moved")
    weights: str = flags.flag(
        "imagenet", "weights of the backbone, as given to zslkeras prepare", formerly="backbone_weights"
    )
    exported: flags.Export = flags.group(flags.Export)


def main(settings):
    from zslkeras import runs  # needs TensorFlow, so only after the flags are checked
    from zslkeras.serving import bundle

    experiment, (first,) = runs.reopened(settings.run, settings.data_root, settings.images, seeds=1)
    print(bundle.write(experiment, first, settings.exported.with_backbone, settings.weights, settings.exported.formats))


def _check(settings, given, arguments):
    del settings, arguments
    flags.part_of("with_backbone", given, "weights")


COMMAND = flags.Command(
    "zslkeras export",
    __doc__,
    Settings,
    example="zslkeras export --run runs/eszsl-shapes --with_backbone",
    needed=("run",),
    check=_check,
)
