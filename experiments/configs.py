"""What differs from a model's defaults for a dataset, each with its source or the command that chose it.

CONFIGS[(model, dataset)] holds for any features, CONFIGS[(model, dataset, features)] for those features alone and on
top of the former.
"""

import dataclasses
import difflib
import typing

from zslkeras.errors import InputError

CONFIGS = {}


def config_for(model, name, dataset, features=None, ablation=None, overrides=None):
    """The config of `model`: its defaults, then what is written here, then the ablation, then `overrides`.

    Args:
        model: the model class.
        name: its name in MODELS.
        dataset, features: as given to the run, lower case.
        ablation: a name among `model.ablations`, or None.
        overrides: dict of values, or of texts to be read by the field's type.
    """
    values = {**CONFIGS.get((name, dataset), {}), **CONFIGS.get((name, dataset, features), {})}
    if ablation is not None:
        if ablation not in model.ablations:
            known = ", ".join(model.ablations) or "none"
            raise InputError(f"ablation: got {ablation!r}; {name} has {known}")
        values |= model.ablations[ablation]
    for key, value in (overrides or {}).items():
        values[key] = _read(model.Config, name, key, value)
    try:
        return model.Config(**values)
    except ValueError as error:
        raise InputError(f"config of {name}: {error}") from None


def _read(config, model, key, value):
    types = typing.get_type_hints(config)
    if key not in types:
        close = difflib.get_close_matches(key, types, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"--set {key}: {model} has no such setting; {hint}It has {', '.join(sorted(types))}")
    try:
        return _typed(types[key], value)
    except (ValueError, TypeError):
        raise InputError(f"--set {key}: got {value!r}; wanted {_named(types[key])}") from None


def _typed(wanted, value):
    """`value`, a text or what JSON gave, as the type a config field is declared with."""
    if typing.get_origin(wanted) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_typed(typing.get_args(wanted)[0], item) for item in items if item != "")
    options = typing.get_args(wanted)  # of a union
    if type(None) in options:
        if value is None or value in ("none", "None", ""):
            return None
        wanted = next(option for option in options if option is not type(None))
    if wanted is bool:
        if str(value).lower() not in ("true", "false", "1", "0"):
            raise ValueError(value)
        return str(value).lower() in ("true", "1")
    if isinstance(value, bool) or (wanted is str and not isinstance(value, str)):
        raise ValueError(value)
    if wanted is int and isinstance(value, float) and value != int(value):
        raise ValueError(value)
    return wanted(value)


def _named(wanted):
    return getattr(wanted, "__name__", str(wanted)) if not typing.get_args(wanted) else str(wanted)


def settings_text(config):
    """A config as one line, for the screen."""
    return ", ".join(f"{key}={value}" for key, value in dataclasses.asdict(config).items())
