"""What was published or tuned for a model on a dataset: settings other than its defaults, and the paper's numbers."""

import importlib

from zslkeras.models import MODELS, presets
from zslkeras.models import config as configs


def settings(model, dataset, features=None):
    """The settings for a dataset, updated with those for the dataset with these features; {} if there are none."""
    table = getattr(_of(model), "SETTINGS", {})
    return {**table.get(dataset, {}), **table.get((dataset, features), {})}


def config(model, benchmark, overrides, row=None):
    """The config of a model for a benchmark: its defaults, a preset or what was tuned for the benchmark, what the
    command line takes from a file, a row of the ablation table, and what the command line sets; the last one wins.

    Args:
        model: its name.
        benchmark: any stage of it.
        overrides: a `flags.Overrides`.
        row: of the paper's ablation table, or None.
    """
    if overrides.preset:
        known = presets.settings(overrides.preset, model, benchmark.name)
    else:
        known = settings(model, benchmark.name, benchmark.features)
    of_row = configs.ablation(MODELS[model], model, row)
    return configs.build(MODELS[model], model, known, overrides.base(), of_row, overrides.last())


def numbers(model, dataset):
    """What the paper prints for a dataset, percent; None where it prints nothing."""
    return getattr(_of(model), "NUMBERS", {}).get(dataset)


def _of(model):
    try:
        return importlib.import_module(f"{__name__}.{model}")
    except ModuleNotFoundError:  # a closed form, or somebody else's model
        return None
