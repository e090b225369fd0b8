"""The models by name. A model's module is imported when it is asked for: the names alone cost nothing.

Other packages bring models as entry points of the group "zslkeras.models", NAME = "module:Class".
"""

import collections.abc
import functools
import importlib
import importlib.metadata

from zslkeras import names
from zslkeras.errors import InputError

GROUP = "zslkeras.models"


class _Models(collections.abc.MutableMapping):
    """{name: class}. A class of your own can be put in; it then runs under every command by its name."""

    def __init__(self, places):
        self._places, self._classes = places, {}

    def __getitem__(self, name):
        if name not in self._classes:
            self._classes[name] = self._imported(name)
        return self._classes[name]

    def __setitem__(self, name, model):
        self._classes[name] = model

    def __delitem__(self, name):
        del self._classes[name]

    def __contains__(self, name):
        return name in self._classes or name in self._places or name in entry_points()

    def __iter__(self):
        return iter(sorted({*self._classes, *self._places, *entry_points()}))

    def __len__(self):
        return len(list(iter(self)))

    def _imported(self, name):
        brought = entry_points().get(name, [])
        owners = ["zslkeras"] * (name in self._places or name == names.AUTO) + [_package(entry) for entry in brought]
        if len(owners) > 1:
            wanted = f"one of them without this entry point of the group {GROUP}"
            raise InputError(f"model: {name!r} is brought by {' and by '.join(owners)}; wanted {wanted}")
        if brought:
            return _loaded(*brought)
        module, attribute = self._places[name]
        return getattr(importlib.import_module(module), attribute)


@functools.cache
def entry_points():
    """{name: its entry points} of the models that installed packages bring; none of these packages is imported."""
    found = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _loaded(entry):
    from zslkeras.models.base import ZeroShotModel

    brought = f"model: {entry.name!r} of the package {_package(entry)} is {entry.value}"
    try:
        model = entry.load()
    except Exception as error:  # whatever somebody else's module raises
        said = (str(error).splitlines() or [""])[0]
        raise InputError(f"{brought}, which cannot be imported: {type(error).__name__}: {said}") from error
    if not (isinstance(model, type) and issubclass(model, ZeroShotModel) and model.Config):
        raise InputError(f"{brought}; wanted a subclass of zslkeras.models.base.ZeroShotModel with a Config")
    return model


def _package(entry):
    return entry.dist.name if entry.dist else "unknown"


MODELS = _Models(names.MODELS)
