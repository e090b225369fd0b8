"""zslkeras train FOLDER: trains a classifier on a folder of images, ready for predict and serve.

FOLDER has a sub-folder of images for each class, and a table of what describes the classes: classes.csv, or --classes.
All classes with images are learned; classes of the table without images can be recognised too. Everything is chosen on
validation classes, which are held out of a first training; the second one has all classes and images. Features are made
of the images if the folder has none. A table class,description needs a --text_encoder that reads it.
After a kill, the same command goes on where it stopped.
"""

import dataclasses
import pathlib
import shlex

from zslkeras.cli import flags
from zslkeras.names import AUTO

_OPTIONS = ("classes", "features", "text_encoder", "embedding", "text_weight")  # of `benchmarks.load`


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is trained"""

    model: str = flags.flag(
        AUTO,
        "auto compares several on validation classes and takes the best; or one",
        choices=flags.MODELS_AND_AUTO,
    )
    classes: str | None = flags.field_of(flags.Data, "classes")
    text_encoder: str | None = flags.field_of(flags.Data, "text_encoder")
    embedding: str | None = flags.field_of(flags.Data, "embedding")
    text_weight: float | None = flags.field_of(flags.Data, "text_weight")
    features: str | None = flags.flag(
        None, "feature files in the folder, or filters for the built-in filter bank, which is quick and weak"
    )
    seeds: int = flags.flag(1, "train this often, and keep the one that is best on validation classes", least=1)
    minutes: float | None = flags.flag(
        None, "end the training before it takes longer; 10 with --model auto, if not given", least=0.1
    )
    out: str | None = flags.flag(None, "where results go; runs/MODEL-FOLDER if not given")
    set: tuple[str, ...] = flags.field_of(flags.Overrides, "set")
    epochs: int | None = flags.field_of(flags.Overrides, "epochs")
    backbone: str = flags.flag("mobilenetv2", "makes the features of a folder that has none")
    weights: str | None = flags.flag(
        None, "of the backbone: a .weights.h5, .h5 or .keras file, or imagenet, which it is if not given"
    )


def main(settings, folders):
    from zslkeras import classifier  # needs TensorFlow, so only after the flags are checked

    (folder,) = folders
    options = {name: getattr(settings, name) for name in _OPTIONS}
    source = classifier.source_of(folder, options)
    if classifier.is_folder(source):
        # Nothing is judged after the last training, so that it has every image.
        source = dataclasses.replace(source, options=source.options | {"unseen": "none", "tests": False})
    named = pathlib.Path(folder).resolve().name.lower()
    out = pathlib.Path(settings.out or pathlib.Path("runs") / f"{settings.model}-{named}")
    if pathlib.Path(folder).resolve() in (out.resolve(), *out.resolve().parents):
        raise flags.InputError(f"out: got {out}, which is among the images; wanted another folder")
    overrides = flags.Overrides(set=settings.set, epochs=settings.epochs)
    made = classifier.fit(
        source,
        settings.model,
        list(range(settings.seeds)),
        settings=overrides.last(),
        minutes=settings.minutes,
        out=out,
        backbone=settings.backbone,
        weights=settings.weights,
        say=lambda line: print(line, flush=True),
    )
    made.save(out / "saved_model")
    print(_reached(made, out))


def _reached(made, out):
    """What was reached on validation classes, and what to run next."""
    reached, trained = made.validation, int(made.trained.sum())
    among = f"{reached['classes']} validation classes"
    sure = made.calibration
    lines = [
        f"{made.method}: {trained} classes learned, {len(made.class_names) - trained} more known by their attributes",
        f"on {among}, as long as they were not trained: {reached['T']:.1%} of their images right among them "
        f"({reached['chance']:.1%} by chance)",
        f"among all classes: {reached['U']:.1%} of their images right, {reached['S']:.1%} of those of trained classes",
        f"written: {out / 'saved_model'}",
        "next:",
        f"  zslkeras predict --model {shlex.quote(str(out))} IMAGES",
        f"  zslkeras predict --model {shlex.quote(str(out))} --write_table classes.csv",
        f"  zslkeras serve --model {shlex.quote(str(out))}",
        f'  python: model = zslkeras.load("{out}"); model.predict(["a.jpg"])',
    ]
    if sure:
        error = f"{sure['after']:.1%} off the share of right answers, by expected calibration error on these classes"
        lines.insert(3, f"probabilities: {error}")
    return "\n".join(lines)


def _check(settings, given, folders):
    if len(folders) != 1:
        got = f"{len(folders)} folders" if folders else "no folder"
        raise flags.InputError(f"{got}; wanted the folder of the images, as in zslkeras train ./birds")
    if settings.features and "backbone" in given:
        raise flags.InputError(f"--backbone: got it beside --features {settings.features}; wanted one of the two")
    if settings.model == AUTO:
        for name in ("set", "epochs"):
            if name in given:
                raise flags.InputError(f"--{name}: got it for --model auto; wanted the name of a model beside it")


COMMAND = flags.Command(
    "zslkeras train",
    __doc__,
    Settings,
    example="zslkeras train ./birds --model eszsl --out runs/birds",
    arguments="FOLDER",
    check=_check,
)
