"""The config that a command line asks for, and the numbers that a paper prints."""

import dataclasses
import importlib

from zslkeras.models import MODELS, presets
from zslkeras.models import config as configs


def config(model, benchmark, overrides, row=None):
    """The config of a model for a benchmark: its defaults, a preset, what the command line takes from a file, a row of
    the ablation table, and what the command line sets; the last one wins.

    Args:
        model: its name.
        benchmark: any stage of it.
        overrides: a `flags.Overrides`.
        row: of the paper's ablation table, or None.
    """
    preset = presets.settings(overrides.preset, model, benchmark.name) if overrides.preset else {}
    of_row = configs.ablation(MODELS[model], model, row)
    made = configs.build(MODELS[model], model, preset, overrides.base(), of_row, overrides.last())
    return dataclasses.replace(made, **made.known(benchmark))


def numbers(model, dataset):
    """What the paper prints for a dataset, percent; None where it prints nothing."""
    return getattr(_of(model), "NUMBERS", {}).get(dataset)


def _of(model):
    try:
        return importlib.import_module(f"{__name__}.{model}")
    except ModuleNotFoundError:  # a closed form, or somebody else's model
        return None
