"""zslkeras predict --model DIR IMAGES: what an exported model recognises in images.

DIR is a `saved_model` that was exported --with_backbone, or the folder of its run. With --classes a table says which
classes there are besides, a line a class, attributes in any order. A class whose name the model knows is replaced: its
attributes are those of the table, and it stays seen or unseen. Any other is added as one that was never trained.
--only_new leaves all others out; --write_table writes one to go by.
"""

import dataclasses
import json
import pathlib

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is recognised"""

    model: str | None = flags.flag(
        None, "folder of an export, or of a run that has one, as in --model runs/msdn-shapes"
    )
    classes: str | None = flags.flag(None, "classes by their attributes: CSV, TSV, or .npy with names in a .txt")
    only_new: bool = flags.flag(False, "recognise the classes of --classes alone")
    top: int = flags.flag(5, "classes shown per image", least=1)
    json: bool = flags.flag(False, "print JSON")
    attention: str | None = flags.flag(None, "also draw where the model looks into this folder")
    write_table: str | None = flags.flag(None, "write the model's own classes as a CSV to go by, and end")


def main(settings, images):
    from zslkeras.serving import recognise  # needs TensorFlow: once the flags are known to be right

    exported = recognise.Exported(settings.model)
    if settings.write_table:
        exported.write_table(pathlib.Path(settings.write_table))
        return
    found = exported.recognise(images, settings.classes, settings.only_new, settings.top, settings.attention)
    print(json.dumps(found, indent=1) if settings.json else recognise.as_text(found))


def _check(settings, given, images):
    if settings.only_new and not settings.classes:
        raise flags.InputError("--only_new: got no --classes; wanted a table of the new ones")
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
