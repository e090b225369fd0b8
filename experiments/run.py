"""python -m experiments.run --model NAME --dataset NAME|PATH: trains, chooses on validation classes, prints the table.

Everything is chosen in stage tune, inside the training rows; the published test classes are looked at once, at the
end. The table shows beside it what choosing on the test set would have given, as the papers report.
"""

import contextlib
import dataclasses
import errno
import glob
import json
import os
import pathlib
import re
import shutil
import sys
import textwrap

import keras
from absl import app, flags

import zslkeras
from experiments import bundle, figures, recipe, report
from experiments.configs import config_for, settings_text
from experiments.describe import describe
from zslkeras import export, strategies
from zslkeras.benchmarks import files
from zslkeras.errors import InputError
from zslkeras.models import MODELS
from zslkeras.training import Diverged

FLAGS = flags.FLAGS

flags.DEFINE_string("model", None, f"one of {', '.join(MODELS)}")
flags.DEFINE_string(
    "dataset", None, "shapes, cub, sun, awa1, awa2, apy, flo, or the path of your own folder of pictures"
)
flags.DEFINE_string("features", None, "name of the feature file; res101 if it is there, else the only one there")
flags.DEFINE_string("splits", None, "att_splits or sent_splits")
flags.DEFINE_string("data_root", None, "where the data lies; $ZSLKERAS_DATA, then ./data")
flags.DEFINE_string("images", None, "where the pictures lie")
flags.DEFINE_string("classes", None, "own folder: table of class attributes (CSV, TSV), or .npy of text embeddings")
flags.DEFINE_string("unseen", None, "own folder: unseen classes, a comma-separated list or a fraction")
flags.DEFINE_string("attribute_vectors", None, ".npy [A, V], a vector for each attribute")
flags.DEFINE_enum("normalize", None, ["true", "false"], "false leaves class embeddings as long as they are stored")
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
flags.DEFINE_enum(
    "select", "val", ["val", "fixed"], "choose on validation classes, or train --epochs and choose nothing"
)
flags.DEFINE_string("ablation", None, "a row of the paper's ablation table, or all")
flags.DEFINE_string("config", None, "JSON file of settings, such as the result.json of a former run")
flags.DEFINE_bool("resume", False, "go on with a run that was killed")
flags.DEFINE_multi_string("set", [], "key=value of the model's config; repeat for more")
flags.DEFINE_bool("describe", False, "print the parts of --model and what they cost at the field's sizes, and end")
flags.DEFINE_integer("plot_attention", None, "draw attention over this many test pictures", lower_bound=1)
flags.DEFINE_bool("plot_tsne", False, "draw t-SNE of what the model makes of test pictures")
flags.DEFINE_integer("plot_views", None, "draw what training sees of this many pictures", lower_bound=1)
flags.DEFINE_bool("export", False, "write a SavedModel that recognises any classes; see experiments.export")
flags.DEFINE_bool("with_backbone", False, "of an export: its endpoints take the bytes of pictures")
flags.DEFINE_string(
    "backbone_weights", "imagenet", "of --with_backbone: the weights that experiments.prepare made the features with"
)
flags.DEFINE_multi_enum("formats", [], export.FORMATS, "of an export: other formats besides, of models on features")
flags.DEFINE_string("out", None, "where results go; runs/MODEL-DATASET if not given")

_PLOTS = {"plot_attention": "attention", "plot_tsne": "embed", "plot_views": "prepare"}  # what a model needs for each
_DATA_FLAGS = ("features", "splits", "images", "classes", "unseen", "attribute_vectors", "negatives", "draw")


def main(argv):
    if len(argv) > 1:
        raise InputError(f"got {argv[1]!r}; every argument is a flag, as in --model eszsl")
    for name in ("model",) if FLAGS.describe else ("model", "dataset"):
        if not FLAGS[name].value:
            raise InputError(f"--{name} is missing; {FLAGS[name].help}")
    if FLAGS.model not in MODELS:
        raise InputError(f"--model: got {FLAGS.model!r}; wanted one of {', '.join(MODELS)}")
    if FLAGS.describe:
        print(describe(MODELS[FLAGS.model], FLAGS.model))
        return
    model, data = MODELS[FLAGS.model], data_from_flags()
    for flag, method in _PLOTS.items():
        if FLAGS[flag].value and not getattr(model, method, None):
            able = ", ".join(name for name, one in MODELS.items() if getattr(one, method, None)) or "none"
            raise InputError(f"--{flag}: {FLAGS.model} has nothing to draw there; wanted one of {able}")
    for flag in ("with_backbone", "formats"):
        if FLAGS[flag].value and not FLAGS.export:
            raise InputError(f"--{flag}: got it without --export, of which it is a part; wanted both")
    if FLAGS.formats and model.eats != "features":
        raise InputError(f"--formats: {FLAGS.model} eats {model.eats}; wanted a model on features")
    names = list(model.ablations) if FLAGS.ablation == "all" else [FLAGS.ablation]
    if not names:
        raise InputError(f"--ablation: got all; {FLAGS.model} has none")
    keras.config.set_dtype_policy(FLAGS.precision)
    strategy = strategies.get_strategy(FLAGS.strategy, FLAGS.replicas)
    benchmark = data.load("tune", model.eats)  # wrong data is found before anything is written
    configs = {name: config_from_flags(model, benchmark, name) for name in names}
    benchmark = recipe.as_read(benchmark, configs[names[0]])
    if FLAGS.select == "fixed" and not hasattr(configs[names[0]], "epochs"):
        raise InputError(f"--select: got fixed; {FLAGS.model} has no epochs to fix and needs val")
    chief = strategies.is_chief(strategy)
    say = print if chief else (lambda *_: None)
    say(report.heading(FLAGS.model, benchmark))
    out = pathlib.Path(FLAGS.out) if FLAGS.out else _next_out(benchmark.name)
    trained = {}
    with opened(out, identity(benchmark, strategy, configs)) if chief else contextlib.nullcontext():
        for name in names:
            here = out / name if len(names) > 1 else out
            options = strategy, here, FLAGS.jit, FLAGS.deterministic
            experiment = recipe.Experiment(FLAGS.model, configs[name], data, *options)
            say(textwrap.fill(f"{name or FLAGS.model}: {settings_text(configs[name])}", 118, subsequent_indent="  "))
            seconds, finished = recipe.timer(), []
            for seed in range(FLAGS.seeds or model.default_seeds):
                choice = recipe.fixed(experiment, seed) if FLAGS.select == "fixed" else recipe.select(experiment, seed)
                finished.append(recipe.finish(experiment, choice))
            trained[name] = experiment, finished, seconds()
    strategies.finish(strategy)
    if chief:
        _conclude(out, trained)


def _conclude(out, trained):
    """Writes and prints the result of each row of `trained`."""
    experiment, finished, _ = next(iter(trained.values()))
    yardstick, results = recipe.baseline(experiment, finished), {}
    for name, (experiment, finished, seconds) in trained.items():
        results[name] = recipe.result(experiment, finished, yardstick, seconds)
        results[name] |= figures.pointing(experiment, finished)
        recipe.write_result(experiment.out, results[name], finished)
        figures.write_plots(experiment, finished, yardstick)
        if FLAGS.plot_attention:
            figures.write_channels(experiment, finished[0], FLAGS.plot_attention)
        if FLAGS.plot_tsne:
            figures.write_tsne(experiment, finished[0])
        if FLAGS.plot_views:
            figures.write_views(experiment, finished[0], FLAGS.plot_views)
        print(report.table(results[name], name))
        if FLAGS.export:
            print(bundle.write(experiment, finished[0], FLAGS.with_backbone, FLAGS.backbone_weights, FLAGS.formats))
    runs = {name: (experiment, finished[0]) for name, (experiment, finished, _) in trained.items()}
    if len(runs) > 1 and figures.has_unseen(finished[0]):
        figures.write_confusion(out, experiment, {name: one for name, (_, one) in runs.items()})
    if FLAGS.plot_attention and (lack := figures.write_attention(out, runs, FLAGS.plot_attention)):
        print(f"note: {lack}")
    print(report.summary(results) if len(results) > 1 else "", report.LEGEND, f"written: {out}", sep="\n")


def data_from_flags():
    """The data that the flags name."""
    options = {name: FLAGS[name].value for name in _DATA_FLAGS if FLAGS[name].value is not None}
    if FLAGS.normalize:
        options["normalize"] = FLAGS.normalize == "true"
    return recipe.Data(FLAGS.dataset, FLAGS.data_root, options)


def config_from_flags(model, benchmark, ablation):
    """The config of `model` for a benchmark, with what --config, --epochs, --batch_size and --set say."""
    overrides = {name: FLAGS[name].value for name in ("epochs", "batch_size") if FLAGS[name].value is not None}
    for setting in FLAGS.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set: got {setting!r}; wanted key=value")
        overrides[key] = value
    base = _config_file(FLAGS.config) if FLAGS.config else {}
    return config_for(model, FLAGS.model, benchmark.name, benchmark.features, ablation, overrides, base)


def _config_file(path):
    """The settings in a JSON file: {"config": {...}} as result.json has it, or the bare settings."""
    if not os.path.isfile(path):
        raise InputError(f"--config: no file {path}; wanted JSON, such as the result.json of a former run")
    content = files.read_json(pathlib.Path(path))
    settings = content.get("config", content)
    if not isinstance(settings, dict):
        raise InputError(f"--config: {path} has {settings!r} as its config; wanted an object of settings")
    return settings


def identity(benchmark, strategy, configs):
    """What may not differ on --resume. Where the data lies may: its digest tells whether it is the same."""
    options = ("model", "strategy", "precision", "jit", "deterministic", "select")
    identity = {name: FLAGS[name].value for name in options}
    identity |= {"replicas": strategy.num_replicas_in_sync, "data": benchmark.digest, "version": zslkeras.__version__}
    for name, config in configs.items():
        prefix = f"{name}: " if len(configs) > 1 else ""
        identity |= {f"{prefix}{key}": value for key, value in dataclasses.asdict(config).items()}
    return json.loads(json.dumps(identity))


@contextlib.contextmanager
def opened(out, identity):
    """The folder of a run, made and checked; taken away again where wrong input keeps training from starting."""
    path, made = out / "run.json", [folder for folder in (out, *out.parents) if not os.path.exists(folder)]
    before = files.read_json(path) if os.path.isfile(path) else {}
    if before and not FLAGS.resume:
        raise InputError(f"--out: {out} holds a run already; wanted --resume to go on with it, or another folder")
    if FLAGS.resume and not before:
        raise InputError(f"--resume: no run in {out}; wanted the folder of one that was killed")
    for key in before | identity if before else ():
        was, now = (f"{key}={one.get(key)}" for one in (before, identity))
        if was != now:
            raise InputError(f"--resume: {out} was started with {was}, got {now}; wanted the same")
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not before:
                path.write_text(json.dumps(identity, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"--out: {out}: {error.strerror}; wanted a folder that can be written") from None
        yield
    except InputError:
        if not before and not glob.glob("**/*.npz", root_dir=out, recursive=True):
            _take_back(path, made)
        raise


def _take_back(path, made):
    with contextlib.suppress(OSError):
        path.unlink()
    if path.parent in made:
        shutil.rmtree(path.parent, ignore_errors=True)
    for folder in made[1:]:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _next_out(dataset):
    parts = [FLAGS.model, dataset, FLAGS.features, FLAGS.ablation]
    stem = pathlib.Path("runs") / "-".join(str(part).lower() for part in parts if part)
    taken = [stem, *(stem.with_name(f"{stem.name}-{number}") for number in range(2, 10_000))]
    free = next(number for number, path in enumerate(taken) if not path.exists())
    return taken[max(0, free - 1)] if FLAGS.resume else taken[free]


def guarded(main):
    """`main` with the exits that the project promises: 2 for wrong input, 1 for a training that failed."""
    try:
        app.run(main, flags_parser=_parse)
    except InputError as error:
        _exit(error, 2)
    except (Diverged, export.ExportFailed, strategies.WorkerLost) as error:
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
        return FLAGS(args)
    except flags.Error as error:
        raise InputError(re.sub("invalid literal for int.*", "wanted a whole number", str(error))) from None


def _exit(error, code):
    sentence = str(error).replace("\n", " ")
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    if FLAGS.is_parsed() and FLAGS.strategy == "multiworker":
        os._exit(code)  # TensorFlow's own exit would wait for the workers that are gone
    sys.exit(code)


def run():
    guarded(main)


if __name__ == "__main__":
    run()
