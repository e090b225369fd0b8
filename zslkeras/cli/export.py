"""zslkeras export --run DIR: the SavedModel of a finished run, in DIR/saved_model.

What `experiments.run --export` writes, of any run that has ended; nothing is trained and no flag has to be repeated.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is exported"""

    run: str | None = flags.flag(None, "the folder of a finished run, as in --run runs/eszsl-shapes")
    data_root: str | None = flags.flag(None, "where the data lies now, if not where it lay")
    images: str | None = flags.flag(None, "where the images lie now, if not where they lay")
    weights: str = flags.flag(
        "imagenet", "of the backbone, as zslkeras prepare was given them", formerly="backbone_weights"
    )
    exported: flags.Export = flags.group(flags.Export)


def main(settings):
    from zslkeras import runs  # needs TensorFlow: once the flags are known to be right
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
