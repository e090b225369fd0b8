"""python -m experiments.prepare --dataset NAME|PATH --backbone NAME --name NAME: features out of pictures.

Writes <name>.mat (pooled features), <name>_maps.npy and, with --layers, <name>_<layer>.npy beside the dataset's other
files, where --features <name> finds them. Run again after a kill, the same command goes on where it was.
"""

import difflib

import tensorflow as tf
from absl import flags

from experiments import download, run
from zslkeras import benchmarks
from zslkeras.benchmarks import files, folder
from zslkeras.errors import InputError
from zslkeras.images import backbones, extract

FLAGS = flags.FLAGS
for shared in ("dataset", "data_root", "images", "splits", "classes", "batch_size"):
    flags.declare_key_flag(shared)
flags.DEFINE_bool("download", False, "first fetch and unpack the published archives of --dataset into --data_root")
flags.DEFINE_string("backbone", "resnet101", "a network of keras.applications, or small")
flags.DEFINE_string("weights", "imagenet", "imagenet, or a .weights.h5, .h5 or .keras file of weights")
flags.DEFINE_string("name", None, "of the results; the backbone's if not given")
flags.DEFINE_integer(
    "size", 224, "side of the pictures: their shorter side is brought to it, then the middle cut out", lower_bound=1
)
flags.DEFINE_list(
    "what", None, f"some of {','.join(extract.WHAT)}; pooled,maps if not given, pooled,levels with --layers"
)
flags.DEFINE_list("layers", None, "of the levels, fine to coarse; known for the usual backbones")
flags.DEFINE_enum(
    "preprocessing",
    "own",
    backbones.PREPROCESSINGS,
    "own: what the ImageNet weights of keras.applications want; torch: weights brought over from torchvision",
)
flags.DEFINE_enum("dtype", "float16", extract.DTYPES, "of maps and levels")
flags.DEFINE_bool("overwrite", False, "replace results of that name, and start over what another command began")
flags.DEFINE_bool("skip_bad", False, "leave out pictures that do not decode, and list them in <name>_skipped.txt")

_BATCH_PIXELS = 32 * 224**2  # of a batch unless told otherwise


def main(argv):
    if len(argv) > 1:
        raise InputError(f"got {argv[1]!r}; every argument is a flag, as in --dataset flo")
    if not FLAGS.dataset:
        raise InputError(f"--dataset is missing; {FLAGS['dataset'].help}")
    tf.config.experimental.enable_op_determinism()  # the same bytes from the same command, on GPUs too
    what = _what()
    name = files.plain_name("--name", FLAGS.name or backbones.known(FLAGS.backbone))
    if name == folder.FILTERS:
        raise InputError(f"--name: got {name}, which means the built-in filter bank; wanted another")
    if FLAGS.download:
        download.fetch(FLAGS.dataset, FLAGS.data_root or benchmarks.default_root())
    options = {option: FLAGS[option].value for option in ("splits", "images", "classes")}
    pictures = benchmarks.pictures(FLAGS.dataset, FLAGS.data_root, **options)
    for note in pictures.notes:
        print(note)
    extract.require_free(pictures, name, ["maps", *(FLAGS.layers or [])], FLAGS.overwrite)
    print(f"{FLAGS.dataset}: {len(pictures.files)} pictures, {FLAGS.backbone} at {FLAGS.size}", flush=True)
    extractor = extract.Extractor(
        FLAGS.backbone, FLAGS.weights, FLAGS.size, what, FLAGS.layers, FLAGS.preprocessing, FLAGS.dtype
    )
    extract.extract(
        extractor,
        pictures,
        name,
        batch_size=FLAGS.batch_size or max(1, _BATCH_PIXELS // FLAGS.size**2),
        overwrite=FLAGS.overwrite,
        skip_bad=FLAGS.skip_bad,
        say=lambda line: print(line, flush=True),
    )
    print(f"read them with --dataset {FLAGS.dataset} --features {name}")


def _what():
    what = FLAGS.what or ["pooled", "levels" if FLAGS.layers else "maps"]
    for kind in what:
        if kind not in extract.WHAT:
            near = difflib.get_close_matches(kind, extract.WHAT, 1)
            hint = f"did you mean {near[0]}?" if near else f"wanted some of {', '.join(extract.WHAT)}"
            raise InputError(f"--what: got {kind!r}; {hint}")
    if FLAGS.layers and "levels" not in what:
        raise InputError(f"--layers: got {','.join(FLAGS.layers)} with --what {','.join(what)}; wanted levels among it")
    return what


if __name__ == "__main__":
    run.guarded(main)
