"""The settings of a model: a frozen dataclass that checks itself, and how it is built from texts, JSON and values.

Whatever is wrong with a setting is one sentence that names the setting, what it got and what was wanted.
"""

import dataclasses
import math
import operator
import sys
import typing

from zslkeras.errors import InputError, did_you_mean
from zslkeras.names import AUTO

_PRODUCTS = 2e11  # that a training may cost, see `scheduled` and docs/notes/closed_form.md
_PATIENCE = 10  # epochs without a gain, at least
_BOUNDS = {
    "least": ("at least", operator.ge),
    "above": ("more than", operator.gt),
    "most": ("at most", operator.le),
    "below": ("less than", operator.lt),
}


def setting(default, *, choices=None, least=None, most=None, above=None, below=None, auto=False):
    """A field of a Config, with the values that it takes; of a tuple, each of its elements.

    Args:
        default: its value where none is given.
        choices: all allowed values.
        least, most: the lowest and the highest number allowed.
        above, below: numbers that the value stays above or below.
        auto: whether it may also be "auto", for a value that stage tune finds (`conditioning`) or that follows from the
            data (`Config.known`).
    """
    bounds = {"choices": choices, "least": least, "above": above, "most": most, "below": below, "auto": auto or None}
    return dataclasses.field(default=default, metadata={key: one for key, one in bounds.items() if one is not None})


def epochs_for(rows, images, least, most):
    """How many epochs show a model about so many images: of few rows many, within bounds."""
    return min(max(round(images / rows), least), most)


def scheduled(config, benchmark, numbers, least, most):
    """{setting: value} of `epochs` and `patience`, where these are "auto".

    An epoch costs as many products as it has rows, times attributes, times numbers in a row. A whole training may cost
    _PRODUCTS, so that few or small rows get many epochs. A quarter of the epochs without a gain ends it, but never
    fewer than ten.

    Args:
        config: of the model.
        benchmark: of stage tune.
        numbers: in a row of the input.
        least, most: bounds of the epochs.
    """
    epochs = config.epochs
    if epochs == AUTO:
        images = _PRODUCTS / (numbers * benchmark.class_embeddings.shape[1])
        epochs = epochs_for(len(benchmark.train), images, least, most)
    found = {"epochs": epochs, "patience": max(_PATIENCE, epochs // 4)}
    return {name: value for name, value in found.items() if getattr(config, name) == AUTO}


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of every model's config. Each field must fit its annotation and what `setting` declares for it."""

    def __post_init__(self):
        types = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            wanted, value = types[field.name], getattr(self, field.name)
            if value == AUTO and "auto" in field.metadata:
                continue
            if missed := _missed(wanted, field.metadata, value):
                raise InputError(f"{field.name}: got {value!r}; wanted {missed}")
            object.__setattr__(self, field.name, _as_declared(wanted, value))

    def known(self, benchmark):
        """{setting: value} of the settings that are "auto" and follow from the benchmark without any search."""
        del benchmark
        return {}

    def told(self, benchmark):
        """Sentences on what `known` is, for the screen."""
        del benchmark
        return ()


def build(model, name, *layers):
    """The config of a model: its defaults, then each of `layers` in turn; the last one wins.

    Args:
        model: the model class.
        name: its name in MODELS, for the sentence about a wrong setting.
        *layers: dicts {field: value, or a text to be read by the field's type}.
    """
    values = {}
    for settings in layers:
        values |= _read(model.Config, name, settings)
    try:
        return model.Config(**values)
    except ValueError as error:
        raise InputError(f"config of {name}: {error}") from None


def ablation(model, name, row):
    """The settings of a row of the paper's ablation table; none for None."""
    if row is None:
        return {}
    if row not in model.ablations:
        raise InputError(f"ablation: got {row!r}; {name} has {', '.join(model.ablations) or 'none'}")
    return model.ablations[row]


def _read(config, model, settings):
    types, values = typing.get_type_hints(config), {}
    automatic = {field.name for field in dataclasses.fields(config) if "auto" in field.metadata}
    for key, value in settings.items():
        if key not in types:
            raise InputError(f"{key}: {model} has no such setting; {did_you_mean(key, sorted(types), every=True)}")
        try:
            values[key] = AUTO if value == AUTO and key in automatic else _typed(types[key], value)
        except (ValueError, TypeError, KeyError, OverflowError):
            wanted = _named(types[key]) + (f", or {AUTO}" if key in automatic else "")
            raise InputError(f"{key}: got {value!r}; wanted {wanted}") from None
    return values


def _typed(wanted, value):
    """`value`, a text or what JSON gave, as the type a config field is declared with."""
    options = typing.get_args(wanted)
    if typing.get_origin(wanted) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_typed(options[0], item) for item in items if item != "")
    if type(None) in options:
        none = value is None or value in ("none", "None", "")
        return None if none else _typed(_but_none(options), value)
    if wanted is bool:
        return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
    if isinstance(value, bool) or (wanted is str and not isinstance(value, str)):
        raise ValueError(value)
    if wanted is int and isinstance(value, float) and value != int(value):
        raise ValueError(value)
    typed = wanted(value)
    if wanted is float and not math.isfinite(typed):
        raise ValueError(value)
    return typed


def _missed(wanted, bounds, value):
    """What was wanted in place of `value`, by its type and its bounds; None where it fits."""
    options = typing.get_args(wanted)
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, tuple) or any(_missed(options[0], {}, item) for item in value):
            return _named(wanted)
        if bounds and not value:
            return "at least one"
        missed = [_missed(options[0], bounds, item) for item in value]
        return next((f"each {one}" for one in missed if one), None)
    if type(None) in options:
        missed = None if value is None else _missed(_but_none(options), bounds, value)
        return missed and f"{missed} or none"
    if not _is(wanted, value):
        return _named(wanted)
    if wanted is float and not abs(value) <= sys.float_info.max:  # NaN neither
        return "a finite float"
    if value not in bounds.get("choices", [value]):
        return f"one of {', '.join(bounds['choices'])}"
    limits = [(*_BOUNDS[key], bounds[key]) for key in bounds if key in _BOUNDS]
    if all(holds(value, limit) for _, holds, limit in limits):
        return None
    return " and ".join(f"{words} {limit}" for words, _, limit in limits)


def _is(wanted, value):
    """Whether a value has the type; an int may stand for a float, and a bool for nothing else."""
    if wanted is bool or isinstance(value, bool):
        return wanted is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if wanted is float else wanted)


def _as_declared(wanted, value):
    """A value that fits, with ints as floats where floats are declared: equal settings print alike."""
    options = typing.get_args(wanted)
    if type(None) in options:
        return None if value is None else _as_declared(_but_none(options), value)
    if isinstance(value, tuple):
        return tuple(_as_declared(options[0], item) for item in value)
    return float(value) if wanted is float else value


def _named(wanted):
    options = typing.get_args(wanted)
    if typing.get_origin(wanted) is tuple:
        return f"{_named(options[0])},{_named(options[0])},..."
    if type(None) in options:
        return f"{_named(_but_none(options))} or none"
    return {bool: "true or false", str: "text"}.get(wanted, wanted.__name__)


def _but_none(options):
    return next(option for option in options if option is not type(None))


def settings_text(config):
    """A config, or {name: value}, as one line for the screen."""
    settings = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config
    return ", ".join(f"{key}={value}" for key, value in settings.items())
