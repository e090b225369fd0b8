"""python -m experiments.run --model NAME --dataset NAME|PATH: trains, chooses on validation classes, prints the table.

Everything is chosen in stage tune, inside the training rows; the published test classes are looked at once, at the
end. The table shows beside it what choosing on the test set would have given, as the papers report.
"""

import errno
import json
import os
import pathlib
import sys

from absl import app, flags

import zslkeras
from experiments import recipe, report
from experiments.configs import config_for, settings_text
from zslkeras import strategies
from zslkeras.errors import InputError
from zslkeras.models import MODELS
from zslkeras.training import Diverged

FLAGS = flags.FLAGS

flags.DEFINE_string("model", None, f"one of {', '.join(MODELS)}")
flags.DEFINE_string("dataset", None, "shapes, cub, sun, awa1, awa2, apy, flo, or the path of your own folder of pictures")
flags.DEFINE_string("features", None, "name of the feature file; res101 if it is there, else the only one there")
flags.DEFINE_string("splits", None, "att_splits or sent_splits")
flags.DEFINE_string("data_root", None, "where the data lies; $ZSLKERAS_DATA, then ./data")
flags.DEFINE_string("images", None, "where the pictures lie")
flags.DEFINE_string("classes", None, "own folder: table of class attributes (CSV, TSV), or .npy of text embeddings")
flags.DEFINE_string("unseen", None, "own folder: unseen classes, a comma-separated list or a fraction")
flags.DEFINE_string("attribute_vectors", None, ".npy [A, V], a vector for each attribute")
flags.DEFINE_string("normalize", None, "false leaves class embeddings at the length they are stored with")
flags.DEFINE_string("negatives", None, "keep or zero: what to do with negative attributes")
flags.DEFINE_integer("draw", None, "shapes: which draw of pictures, classes and split")
flags.DEFINE_enum("strategy", "default", strategies.STRATEGIES, "one device, one machine, or the cluster in TF_CONFIG")
flags.DEFINE_integer("replicas", None, "mirrored: how many; one a GPU if not given")
flags.DEFINE_integer("seeds", None, "how many seeds the result is the mean of", lower_bound=1)
flags.DEFINE_integer("epochs", None, "at most this many", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "rows of a global batch", lower_bound=1)
flags.DEFINE_enum("precision", "float32", ["float32", "mixed_bfloat16"], "what layers compute in")
flags.DEFINE_bool("jit", False, "compile the training step with XLA (one device)")
flags.DEFINE_bool("deterministic", True, "the same weights from the same seed, bit for bit; costs speed on GPUs")
flags.DEFINE_enum("select", "val", ["val", "fixed"], "choose on validation classes, or train --epochs and choose nothing")
flags.DEFINE_string("ablation", None, "a row of the paper's ablation table, or all")
flags.DEFINE_string("config", None, "JSON file of settings")
flags.DEFINE_bool("resume", False, "go on with a run that was killed")
flags.DEFINE_multi_string("set", [], "key=value of the model's config; repeat for more")
flags.DEFINE_string("out", None, "where results go; runs/MODEL-DATASET if not given")

_DATA_FLAGS = ("features", "splits", "images", "classes", "unseen", "attribute_vectors", "negatives", "draw")


def main(argv):
    if len(argv) > 1:
        raise InputError(f"got {argv[1]!r}; every argument is a flag, as in --model eszsl")
    for name in ("model", "dataset"):
        if not FLAGS[name].value:
            raise InputError(f"--{name} is missing; {FLAGS[name].help}")
    if FLAGS.model not in MODELS:
        raise InputError(f"model: got {FLAGS.model!r}; wanted one of {', '.join(MODELS)}")
    model, data = MODELS[FLAGS.model], _data()
    names = list(model.ablations) if FLAGS.ablation == "all" else [FLAGS.ablation]
    if not names:
        raise InputError(f"ablation: got all; {FLAGS.model} has none")
    configs = {name: _config(model, name) for name in names}
    if FLAGS.select == "fixed" and not hasattr(configs[names[0]], "epochs"):
        raise InputError(f"--select fixed: {FLAGS.model} has no epochs to fix; it needs --select val")
    if FLAGS.precision != "float32":
        import keras

        keras.config.set_dtype_policy(FLAGS.precision)
    strategy = strategies.get_strategy(FLAGS.strategy, FLAGS.replicas)
    benchmark = data.load("tune", model.eats)  # wrong data is found before anything is written
    say = print if strategies.is_chief(strategy) else (lambda *_: None)
    say(report.heading(FLAGS.model, benchmark))
    out = _out(strategy, {"model": FLAGS.model, "data": recipe.dataclasses.asdict(data), "digest": benchmark.digest})
    trained = {}
    for name in names:
        here = out / name if len(names) > 1 else out
        experiment = recipe.Experiment(FLAGS.model, configs[name], data, strategy, here, FLAGS.jit, FLAGS.deterministic)
        say(f"{name or FLAGS.model}: {settings_text(configs[name])}")
        seconds = recipe.timer()
        finished = []
        for seed in range(FLAGS.seeds or model.default_seeds):
            choice = recipe.fixed(experiment, seed) if FLAGS.select == "fixed" else recipe.select(experiment, seed)
            finished.append(recipe.finish(experiment, choice))
        trained[name] = experiment, finished, seconds()
    strategies.finish(strategy)
    if strategies.is_chief(strategy):
        yardstick = recipe.baseline(*trained[names[0]][:2])
        for name, (experiment, finished, spent) in trained.items():
            result = recipe.result(experiment, finished, yardstick, spent)
            recipe.write_result(experiment.out, result, finished)
            print(report.table(result, name))
        print(f"written: {out}")


def _data():
    options = {name: FLAGS[name].value for name in _DATA_FLAGS}
    if FLAGS.normalize is not None:
        if FLAGS.normalize not in ("true", "false"):
            raise InputError(f"--normalize: got {FLAGS.normalize!r}; wanted true or false")
        options["normalize"] = FLAGS.normalize == "true"
    options = {name: value for name, value in options.items() if value is not None}
    return recipe.Data(FLAGS.dataset, FLAGS.data_root, options)


def _config(model, ablation):
    overrides = {}
    if FLAGS.config:
        overrides |= _config_file(FLAGS.config)
    for name in ("epochs", "batch_size"):
        if FLAGS[name].value is not None:
            overrides[name] = FLAGS[name].value
    for setting in FLAGS.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set: got {setting!r}; wanted key=value")
        overrides[key] = value
    return config_for(model, FLAGS.model, FLAGS.dataset.lower(), FLAGS.features, ablation, overrides)


def _config_file(path):
    """The settings in a JSON file: {"config": {...}} as result.json has it, or the bare settings."""
    try:
        content = json.loads(pathlib.Path(path).read_text())
        return dict(content.get("config", content))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"--config {path}: {error}; wanted a JSON file of settings") from None


def _out(strategy, run):
    """The folder of this run, made and checked; what may not differ on --resume is written into it."""
    out = pathlib.Path(FLAGS.out) if FLAGS.out else _next_out()
    if not strategies.is_chief(strategy):
        return out
    identity = out / "run.json"
    if identity.exists() and not FLAGS.resume:
        raise InputError(f"--out {out} holds a run already; add --resume to go on with it, or name another folder")
    command = [arg for arg in sys.argv[1:] if arg.lstrip("-") not in ("resume", "resume=true")]
    run = json.loads(json.dumps(run | {"command": command, "version": zslkeras.__version__}))
    if identity.exists():
        before = json.loads(identity.read_text())
        for key in run:
            if before.get(key) != run[key]:
                raise InputError(f"--resume: {key} was {before.get(key)}, now it is {run[key]}; wanted the same")
    else:
        try:
            out.mkdir(parents=True, exist_ok=True)
            identity.write_text(json.dumps(run, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"--out {out}: {error.strerror}; wanted a folder that can be written") from None
    return out


def _next_out():
    parts = [FLAGS.model, pathlib.Path(FLAGS.dataset).name, FLAGS.features, FLAGS.ablation]
    stem = pathlib.Path("runs") / "-".join(str(part).lower() for part in parts if part)
    taken = [stem, *(stem.with_name(f"{stem.name}-{number}") for number in range(2, 10_000))]
    free = next(number for number, path in enumerate(taken) if not path.exists())
    return taken[max(0, free - 1)] if FLAGS.resume else taken[free]


def run():
    """`main` with the exits that the project promises: 2 for wrong input, 1 for a training that failed."""
    try:
        app.run(main, flags_parser=lambda args: _parse(args))
    except InputError as error:
        _exit(error, 2)
    except (Diverged, strategies.WorkerLost) as error:
        _exit(error, 1)
    except strategies.LOST:
        if FLAGS.strategy != "multiworker":
            raise
        _exit("a worker was lost; start all workers again with --resume to go on from the last checkpoint", 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _exit(f"{error.filename or FLAGS.out or 'runs'}: {error.strerror}", 2)


def _parse(args):
    try:
        return FLAGS(args, known_only=False)
    except flags.Error as error:
        raise InputError(str(error)) from None


def _exit(error, code):
    print(f"error: {error}", file=sys.stderr, flush=True)
    if FLAGS.strategy == "multiworker":
        os._exit(code)  # TensorFlow's own exit would wait for the workers that are gone
    sys.exit(code)


if __name__ == "__main__":
    run()
