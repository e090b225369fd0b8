"""The work of `experiments.run` on its rows: a model as it is, or each row of its paper's ablation table."""

import contextlib
import dataclasses
import functools
import pathlib
import shlex
import sys
import textwrap
import time

from experiments import cases, published, screen
from zslkeras import automatic, protocol, runs
from zslkeras.errors import InputError
from zslkeras.evaluation import tables
from zslkeras.figures import of_run
from zslkeras.models import MODELS
from zslkeras.models.config import settings_text
from zslkeras.names import AUTO
from zslkeras.serving import bundle, recognisers, words
from zslkeras.training import strategies

# {an extra: (its flag, the method that a model needs for it)}
_DRAWN_BY = {
    "attention": ("plot_attention", "attention"),
    "watched": ("watch_attention", "attention"),
    "tsne": ("plot_tsne", "embed"),
    "views": ("plot_views", "prepare"),
}


@dataclasses.dataclass(frozen=True)
class Extras:
    """What a finished run writes beside its numbers.

    Attributes:
        attention, views: how many images to draw, or None.
        watched: how many images TensorBoard shows attention over, or None.
        tsne: whether t-SNE is drawn.
        export: whether a SavedModel is written.
        with_backbone, weights, formats: of the export, see `bundle.write`.
    """

    attention: int | None = None
    watched: int | None = None
    tsne: bool = False
    views: int | None = None
    export: bool = False
    with_backbone: bool = False
    weights: str | None = None
    formats: tuple[str, ...] = ()


def asked(name, data, overrides, machine, ablation=None, minutes=None):
    """Stage tune as the model reads it, and the Experiment of each row that a command line asks for.

    Args:
        name: of the model.
        data, overrides, machine: groups of flags.
        ablation: a row of the paper's table, "all" of them, or None for the model as it is.
        minutes: for one seed of all rows, or None.
    """
    model, source = MODELS[name], cases.source(data)
    names = list(model.ablations) if ablation == "all" else [ablation]
    if not names:
        raise InputError(f"ablation: got all; {name} has none")
    benchmark = source.load("tune", model.eats)
    configs = {row: published.config(name, benchmark, overrides, row) for row in names}
    minutes = minutes and minutes / len(names)
    made = functools.partial(protocol.Experiment, name, data=source, machine=machine.machine(), minutes=minutes)
    experiments = {row: made(config) for row, config in configs.items()}
    return protocol.as_read(benchmark, configs[names[0]]), experiments


def train(benchmark, experiments, out, stem, seeds=None, select="val", resume=False, extras=Extras()):
    """Trains each row, writes its result, and prints it.

    Args:
        benchmark: stage tune, as `asked` returns it.
        experiments: {name of a row, or None: Experiment}.
        out: the folder of the run; None for a free one named after `stem`.
        stem: see `out`.
        seeds: how many; None for the model's default.
        select: "val", or "fixed" to train the config's epochs and choose nothing.
        resume: whether to go on with what is in the folder.
        extras: what else is written.
    """
    first = next(iter(experiments.values()))
    configs = {row: one.config for row, one in experiments.items()}
    if select == "fixed" and not hasattr(first.config, "epochs"):
        raise InputError(f"select: got fixed; {first.model} has no epochs to fix and needs val")
    chief = strategies.is_chief(first.strategy)
    say = print if chief else (lambda *_: None)
    count = seeds or MODELS[first.model].default_seeds

    def expect(tune, final):
        say(tables.expected(count, tune, final))

    say(screen.heading(first.model, benchmark))
    out, trained = out or runs.next_folder(stem, resume), {}
    # What time allowed is no part of the settings, but the numbers depend on it.
    limits = {"select": select} | ({"minutes": first.minutes} if first.minutes else {})
    final = protocol.published_digest(first.data, benchmark.kind)
    identity = runs.identity(first.model, first.machine, benchmark, configs, final, **limits)
    with (
        strategies.watched(first.machine.strategy),
        runs.opened(out, identity, resume) if chief else contextlib.nullcontext(),
    ):
        for row, experiment in experiments.items():
            watch = extras.watched and functools.partial(of_run.AttentionInTraining, extras.watched)
            where = out / row if len(experiments) > 1 else out
            experiment = dataclasses.replace(experiment, out=where, watch=watch)
            say(_told(row or first.model, experiment.config))
            began, finished = time.monotonic(), []
            for seed in range(count):
                if select == "fixed":
                    choice = protocol.fixed(experiment, seed)
                else:
                    choice = protocol.select(experiment, seed, expect=None if seed else expect)
                if choice.found and not seed:
                    say(_told("found in stage tune" if choice.history else "in place of auto", choice.found))
                finished.append(protocol.finish(experiment, choice))
            trained[row] = experiment, finished, time.monotonic() - began
        strategies.finish(first.strategy)
    if chief:
        _conclude(out, trained, benchmark, extras)
    return out


def train_best(data, machine, minutes, weights, out, seeds=None, resume=False, extras=Extras()):
    """Compares all models in stage tune, trains the best one in stage final, writes its result, and prints it.

    Args:
        data, machine: groups of flags.
        minutes: for the comparison and the final training of one seed; None for the usual time.
        weights: of backbones, or None.
        out, seeds, resume, extras: as of `train`.
    """
    source, machine, began = cases.source(data), machine.machine(), time.monotonic()
    minutes, benchmark = minutes or automatic.MINUTES, automatic.any_stage(source)
    stem = pathlib.Path("runs") / f"{AUTO}-{benchmark.name.lower()}"
    out = pathlib.Path(out) if out else runs.next_folder(stem, resume)
    print(screen.heading(AUTO, benchmark))
    final = protocol.published_digest(source, benchmark.kind)
    identity = runs.identity(AUTO, machine, benchmark, {}, final, minutes=minutes, weights=weights)
    with runs.opened(out, identity, resume):
        found = automatic.compare(source, machine, minutes, 0, out, print, weights)
        print("", found.table, "", found.verdict, sep="\n")
        experiment, choices = found.best, [found.choice]
        count = seeds or MODELS[experiment.model].default_seeds
        choices += [protocol.select(experiment, seed) for seed in range(1, count)]
        finished = [protocol.finish(experiment, choice) for choice in choices]
    _conclude(out, {None: (experiment, finished, time.monotonic() - began)}, benchmark, extras)
    return out


def _told(what, settings):
    return textwrap.fill(f"{what}: {settings_text(settings)}", 118, subsequent_indent="  ")


def require_able(name, extras):
    """Refuses the extras that a model cannot give."""
    model = MODELS[name]
    for extra, (flag, method) in _DRAWN_BY.items():
        if getattr(extras, extra) and not getattr(model, method, None):
            able = ", ".join(other for other, one in MODELS.items() if getattr(one, method, None)) or "none"
            raise InputError(f"{flag}: {name} has nothing to draw there; wanted one of {able}")
    if extras.formats and model.eats != "features":
        raise InputError(f"formats: {name} takes {model.eats}; wanted a model on features")


def _command():
    """The command line of this process, which starts the run anew: without the place of its Python, and --resume."""
    return shlex.join(["python", *(word for word in sys.orig_argv[1:] if word != "--resume")])


def _conclude(out, trained, benchmark, extras):
    """Writes and prints the result of each row of `trained`, on the benchmark with this stage tune."""
    experiment, finished, _ = next(iter(trained.values()))
    yardsticks, results = protocol.yardsticks(experiment, finished), {}
    paper = published.numbers(experiment.model, benchmark.name)
    for row, (experiment, finished, seconds) in trained.items():
        results[row] = runs.result(experiment, finished, yardsticks, seconds, paper)
        results[row] |= of_run.pointing(experiment, finished) | {"command": _command()}
        runs.write_result(experiment.out, results[row], finished)
        of_run.write_plots(experiment, finished, yardsticks[0])
        if extras.attention:
            of_run.write_channels(experiment, finished[0], extras.attention)
        if extras.tsne:
            of_run.write_tsne(experiment, finished[0])
        if extras.views:
            of_run.write_views(experiment, finished[0], extras.views)
        print(screen.table(results[row], row))
        told = bundle.attributes(benchmark, experiment.data.options)
        if doubt := words.doubt(told, recognisers.validation(finished[0].choice)):
            print(f"note: {doubt}")
        if extras.export:
            print(bundle.write(experiment, finished[0], extras.with_backbone, extras.weights, extras.formats))
    drawn = {row: (experiment, finished[0]) for row, (experiment, finished, _) in trained.items()}
    if len(drawn) > 1 and of_run.has_unseen(finished[0]):
        of_run.write_confusion(out, experiment, {row: one for row, (_, one) in drawn.items()})
    if extras.attention and (lack := of_run.write_attention(out, drawn, extras.attention)):
        print(f"note: {lack}")
    print(screen.summary(results) if len(results) > 1 else "", screen.LEGEND, f"written: {out}", sep="\n")
