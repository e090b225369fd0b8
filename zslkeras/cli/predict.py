"""zslkeras predict --model DIR IMAGES: recognises images with an export, among any classes.

DIR is a `saved_model` that was exported --with_backbone, or the folder of its run. --classes adds the classes of a
table, with one line per class and the attributes in any order. If the model knows a class of that name, the table's
attributes replace its own, and the class stays seen or unseen. Any other class is added as one that was never trained.
Columns and cells may be missing: they are filled in by what goes together in the known classes.
--describe "NAME: TEXT" adds a class in words, and so does a column `description` of the table; the encoder of the
training reads them, or --text_encoder where a model of attributes was trained without one.
--reject 0.05 answers "none of these" for images of other classes, at the cost of about 5 % of the images of these.
--only_new leaves out all classes but these. --write_table writes a table to start from.
IMAGES may be folders too; --listed takes a file of paths. --out writes a line for each image as it goes, however many
there are.
"""

import dataclasses
import functools
import json
import pathlib
import sys

from zslkeras.cli import flags
from zslkeras.errors import did_you_mean
from zslkeras.names import ANSWER_FILES


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is recognised"""

    model: str | None = flags.flag(
        None, "folder of an export, or of a run that has one, as in --model runs/msdn-shapes"
    )
    classes: str | None = flags.flag(
        None, "classes by their attributes or in words: CSV, TSV, JSON, or .npy with names in a .txt"
    )
    describe: tuple[str, ...] = flags.flag(
        (), 'a class in words, as in "okapi: a brown animal with striped legs"; repeat for more', repeat=True
    )
    text_encoder: str | None = flags.flag(
        None, "the folder of a sentence encoder, or hf://NAME; that of the training if not given"
    )
    only_new: bool = flags.flag(False, "recognise only the classes of --classes or --describe")
    missing: str = flags.flag(
        "fill", "attributes that --classes lacks are filled in, or refused", choices=("fill", "refuse")
    )
    top: int = flags.flag(5, "classes shown per image", least=1)
    reject: float | None = flags.flag(
        None, "share of the images of listed classes to lose, such as 0.05, so that others are none of these"
    )
    json: bool = flags.flag(False, "print JSON")
    out: str | None = flags.flag(
        None, "a file with a line for each image, .csv or .jsonl, written as it goes; the same command goes on with it"
    )
    listed: str | None = flags.flag(None, "a file with the path of an image, or of a folder of them, a line")
    skip_bad: bool = flags.flag(False, "with --out: what does not decode is said in its line, and the rest goes on")
    attention: str | None = flags.flag(None, "folder for figures of where the model looks")
    write_table: str | None = flags.flag(None, "write the model's own classes as a CSV to start from, and end")


def main(settings, images):
    from zslkeras.serving import answer_file, recognise  # they need TensorFlow, so only after the flags are checked

    exported = recognise.Exported(settings.model)
    if settings.write_table:
        exported.write_table(pathlib.Path(settings.write_table))
        return
    images = answer_file.images_in([*images, *_lines(settings.listed)])
    say = functools.partial(print, file=sys.stderr)
    asking = exported.asking(
        _given(settings), settings.only_new, settings.missing, settings.reject, settings.text_encoder, say
    )
    how = asking, settings.top, settings.attention
    if settings.out:
        answer_file.write(exported, images, pathlib.Path(settings.out), *how, settings.skip_bad, say)
        return
    found = [one for batch in exported.answers(images, *how) for one in batch]
    print(json.dumps(found, indent=1) if settings.json else recognise.as_text(found))


def _given(settings):
    """The classes that are given, as `candidates.among` takes them; None where there are none."""
    if settings.describe:
        return dict(map(_named, settings.describe))
    return settings.classes and pathlib.Path(settings.classes)


def _lines(path):
    """What stands in a file of names, one a line; nothing for no file."""
    if path is None:
        return []
    from zslkeras.benchmarks import files

    return [line for _, line in files.read_lines(pathlib.Path(path), "the path of an image on each line")]


def _named(text):
    """("NAME", "TEXT") of "NAME: TEXT"."""
    name, _, said = map(str.strip, text.partition(":"))
    if not name or not said:
        raise flags.InputError(f"--describe: got {text!r:.60}; wanted a name and a text, as in NAME: TEXT")
    return name, said


def _check(settings, given, images):
    if settings.only_new and not (settings.classes or settings.describe):
        raise flags.InputError("--only_new: got no --classes; wanted a table of the new ones, or --describe")
    if settings.classes and settings.describe:
        raise flags.InputError("--describe: got it beside --classes; wanted the description in the table, or no table")
    if "missing" in given and not (settings.classes or settings.describe):
        raise flags.InputError(
            "--missing: got it without --classes or --describe; wanted new classes that may lack some"
        )
    if settings.text_encoder and not (settings.classes or settings.describe):
        raise flags.InputError(
            "--text_encoder: got it without --describe or --classes; wanted something for it to read"
        )
    names = [_named(text)[0] for text in settings.describe]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise flags.InputError(f"--describe: class {twice} is there {names.count(twice)} times; wanted it once")
    if settings.reject is not None and not 0 < settings.reject < 1:
        raise flags.InputError(f"--reject: got {settings.reject}; wanted a share of images, above 0 and below 1")
    if not images and not settings.listed:
        raise flags.InputError("no images; wanted their files, as in --model DIR a.jpg b.png")
    if settings.out and (suffix := pathlib.Path(settings.out).suffix) not in ANSWER_FILES:
        raise flags.InputError(f"--out: got {settings.out}; {did_you_mean(suffix, ANSWER_FILES)} at its end")
    if settings.out and settings.json:
        raise flags.InputError("--json: got it beside --out; wanted a file that ends with .jsonl, or no file")
    if settings.skip_bad and not settings.out:
        raise flags.InputError("--skip_bad: got no --out; wanted a file that can say what does not decode")


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
