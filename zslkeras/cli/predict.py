"""zslkeras predict --model DIR IMAGES: recognises images with an export, among any classes.

DIR is a `saved_model` that was exported --with_backbone, or the folder of its run. --classes adds the classes of a
table, with one line per class and the attributes in any order. If the model knows a class of that name, the table's
attributes replace its own, and the class stays seen or unseen. Any other class is added as one that was never trained.
Columns and cells may be missing: they are filled in by what goes together in the known classes.
--reject 0.05 answers "none of these" for images of other classes, at the cost of about 5 % of the images of these.
--only_new leaves out all classes that are not in the table. --write_table writes a table to start from.
"""

import dataclasses
import json
import pathlib
import sys

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is recognised"""

    model: str | None = flags.flag(
        None, "folder of an export, or of a run that has one, as in --model runs/msdn-shapes"
    )
    classes: str | None = flags.flag(None, "classes by their attributes: CSV, TSV, or .npy with names in a .txt")
    only_new: bool = flags.flag(False, "recognise only the classes of --classes")
    missing: str = flags.flag(
        "fill", "attributes that --classes lacks are filled in, or refused", choices=("fill", "refuse")
    )
    top: int = flags.flag(5, "classes shown per image", least=1)
    reject: float | None = flags.flag(
        None, "share of the images of listed classes to lose, such as 0.05, so that others are none of these"
    )
    json: bool = flags.flag(False, "print JSON")
    attention: str | None = flags.flag(None, "folder for figures of where the model looks")
    write_table: str | None = flags.flag(None, "write the model's own classes as a CSV to start from, and end")


def main(settings, images):
    from zslkeras.serving import recognise  # needs TensorFlow, so only after the flags are checked

    exported = recognise.Exported(settings.model)
    if settings.write_table:
        exported.write_table(pathlib.Path(settings.write_table))
        return
    found = exported.recognise(
        images,
        settings.classes,
        settings.only_new,
        settings.top,
        settings.attention,
        settings.missing,
        say=lambda line: print(line, file=sys.stderr),
        reject=settings.reject,
    )
    print(json.dumps(found, indent=1) if settings.json else recognise.as_text(found))


def _check(settings, given, images):
    if settings.only_new and not settings.classes:
        raise flags.InputError("--only_new: got no --classes; wanted a table of the new ones")
    if settings.reject is not None and not 0 < settings.reject < 1:
        raise flags.InputError(f"--reject: got {settings.reject}; wanted a share of images, above 0 and below 1")
    if not images:
        raise flags.InputError("no images; wanted their files, as in --model DIR a.jpg b.png")


COMMAND = flags.Command(
    "zslkeras predict",
    __doc__,
    Settings,
    example="zslkeras predict --model runs/msdn-shapes --top 3 a.jpg b.png",
    needed=("model",),
    acts_alone={"write_table": ("model",)},
    arguments="IMAGES",
    check=_check,
)
