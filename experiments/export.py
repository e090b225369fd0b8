"""python -m experiments.export --run DIR: the SavedModel of a finished run, in DIR/saved_model.

What `experiments.run --export` writes, of any run that has ended; nothing is trained and no flag has to be repeated.
"""

from absl import flags

from experiments import bundle, finished, run
from zslkeras.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run", None, "the folder of a finished run")
for shared in ("with_backbone", "backbone_weights", "formats", "data_root", "images"):
    flags.declare_key_flag(shared)


def main(argv):
    if len(argv) > 1:
        raise InputError(f"got {argv[1]!r}; every argument is a flag, as in --run runs/eszsl-shapes")
    if not FLAGS.run:
        raise InputError("--run is missing; wanted the folder of a finished run, as in --run runs/eszsl-shapes")
    experiment, (first,) = finished.run(FLAGS.run, FLAGS.data_root, FLAGS.images, seeds=1)
    print(bundle.write(experiment, first, FLAGS.with_backbone, FLAGS.backbone_weights, FLAGS.formats))


if __name__ == "__main__":
    run.guarded(main)
