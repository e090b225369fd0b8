"""zslkeras prepare --dataset NAME|PATH --backbone NAME --name NAME: makes features, maps and levels from images.

Writes <name>.mat (pooled features), <name>_maps.npy and, with --layers, <name>_<layer>.npy beside the dataset's other
files, where --features <name> finds them. After a kill, the same command continues where it stopped.
"""

import dataclasses

from zslkeras import names
from zslkeras.cli import flags

_BATCH_PIXELS = 32 * 224**2  # of a batch by default


@dataclasses.dataclass(frozen=True)
class Images:
    """Images"""

    dataset: str | None = flags.field_of(flags.Data, "dataset")
    data_root: str | None = flags.field_of(flags.Data, "data_root")
    images: str | None = flags.field_of(flags.Data, "images")
    splits: str | None = flags.field_of(flags.Data, "splits")
    classes: str | None = flags.field_of(flags.Data, "classes")
    download: bool = flags.flag(False, "first fetch and unpack the published archives of --dataset into --data_root")


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The backbone"""

    backbone: str = flags.flag("resnet101", "a network of keras.applications, or small")
    weights: str = flags.flag("imagenet", "imagenet, or a .weights.h5, .h5 or .keras file of weights")
    size: int = flags.flag(
        224, "side of the images: the shorter side is scaled to it, then the middle is cut out", least=1
    )
    preprocessing: str = flags.flag(
        "own",
        "own suits the ImageNet weights of keras.applications, torch suits weights converted from torchvision",
        choices=names.PREPROCESSINGS,
    )
    batch_size: int | None = flags.flag(None, "images at a time; chosen by --size if not given", least=1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is written"""

    name: str | None = flags.flag(None, "name of the results; the backbone's if not given")
    what: tuple[str, ...] = flags.flag(
        (), "what to keep (pooled,maps, or pooled,levels with --layers, if not given)", choices=names.WHAT
    )
    layers: tuple[str, ...] = flags.flag((), "layers of the levels, fine to coarse; the usual backbones have defaults")
    pooling: tuple[str, ...] = flags.flag(
        names.POOLINGS[:1],
        "how pooled features are made of a map; several stand side by side, each of unit length. gem is the "
        "generalised mean with p = 3",
        choices=names.POOLINGS,
    )
    pool_layers: tuple[str, ...] = flags.flag(
        (), "layers that pooled features are made of, side by side in the same way; the last one if not given"
    )
    dtype: str = flags.flag("float16", "type of maps and levels", choices=names.DTYPES)
    overwrite: bool = flags.flag(False, "replace results of that name, and start over if another command began them")
    skip_bad: bool = flags.flag(False, "leave out images that do not decode, and list them in <name>_skipped.txt")
    pictures: Images = flags.group(Images)
    made_by: Backbone = flags.group(Backbone)

    @property
    def kinds(self):
        return self.what or ("pooled", "levels" if self.layers else "maps")


def main(settings):
    # What needs TensorFlow is imported here, after the flags are checked.
    import tensorflow as tf

    from zslkeras import benchmarks
    from zslkeras.benchmarks import download, files, folder
    from zslkeras.images import backbones, extract

    tf.config.experimental.enable_op_determinism()  # the same bytes from the same command, on GPUs too
    source, by = settings.pictures, settings.made_by
    name = files.plain_name("name", settings.name or backbones.known(by.backbone))
    if name == folder.FILTERS:
        raise flags.InputError(f"name: got {name}, which means the built-in filter bank; wanted another")
    if source.download:
        download.fetch(source.dataset, source.data_root or benchmarks.default_root())
    options = {option: getattr(source, option) for option in ("splits", "images", "classes")}
    pictures = benchmarks.pictures(source.dataset, source.data_root, **options)
    for note in pictures.notes:
        print(note)
    extract.require_free(pictures, name, ["maps", *settings.layers], settings.overwrite)
    print(f"{source.dataset}: {len(pictures.files)} images, {by.backbone} at {by.size}", flush=True)
    extractor = extract.Extractor(
        by.backbone,
        by.weights,
        by.size,
        settings.kinds,
        settings.layers,
        by.preprocessing,
        settings.dtype,
        settings.pooling,
        settings.pool_layers,
    )
    extract.extract(
        extractor,
        pictures,
        name,
        batch_size=by.batch_size or max(1, _BATCH_PIXELS // by.size**2),
        overwrite=settings.overwrite,
        skip_bad=settings.skip_bad,
        say=lambda line: print(line, flush=True),
    )
    print(f"read them with --dataset {source.dataset} --features {name}")


def _check(settings, given, arguments):
    del arguments
    for name, kind in (("layers", "levels"), ("pooling", "pooled"), ("pool_layers", "pooled")):
        if name in given and getattr(settings, name) and kind not in settings.kinds:
            got = f"{','.join(getattr(settings, name))} with --what {','.join(settings.kinds)}"
            raise flags.InputError(f"--{name}: got {got}; wanted {kind} among it")
    if "dtype" in given and not {"maps", "levels"} & set(settings.kinds):
        got = f"{settings.dtype} with --what {','.join(settings.kinds)}"
        raise flags.InputError(f"--dtype: got {got}; wanted maps or levels among it, as pooled features are float32")


COMMAND = flags.Command(
    "zslkeras prepare",
    __doc__,
    Settings,
    example="zslkeras prepare --dataset flo --backbone mobilenetv2 --what pooled,maps",
    needed=("dataset",),
    check=_check,
)
