"""The config that a command line asks for, the numbers that a paper prints, and what it says of its ablations."""

import dataclasses
import importlib

from zslkeras.models import MODELS, presets
from zslkeras.models import config as configs


def config(model, benchmark, overrides, row=None):
    """The config of a model for a benchmark: `asked`, and what follows from the benchmark."""
    made = asked(model, benchmark.name, overrides, row)
    return dataclasses.replace(made, **made.known(benchmark))


def asked(model, dataset, overrides, row=None):
    """The config of a model: its defaults, a preset, what the command line takes from a file, a row of the ablation
    table, and what the command line sets; the last one wins.

    Args:
        model: its name.
        dataset: the name of a benchmark.
        overrides: a `flags.Overrides`.
        row: of the paper's ablation table, or None.
    """
    preset = presets.settings(overrides.preset, model, dataset) if overrides.preset else {}
    of_row = configs.ablation(MODELS[model], model, row)
    return configs.build(MODELS[model], model, preset, overrides.base(), of_row, overrides.last())


def numbers(model, dataset):
    """What the paper prints for a dataset, percent; None where it prints nothing."""
    return getattr(_of(model), "NUMBERS", {}).get(dataset)


AT_ZERO = "gamma 0"  # what a claim calls its own row without calibration


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a paper says of two rows of its ablation table, in words.

    Attributes:
        ahead, behind: names of the rows; "defaults" is the whole method. `behind` may be AT_ZERO.
        said: the claim.
        metrics: in which it is made.
    """

    ahead: str
    behind: str
    said: str
    metrics: str = "TH"


def claims(model):
    """The claims that a paper makes of its ablations, in its order."""
    return [Claim(*one) for one in getattr(_of(model), "CLAIMS", ())]


def _of(model):
    try:
        return importlib.import_module(f"{__name__}.{model}")
    except ModuleNotFoundError:  # a closed form, or somebody else's model
        return None
