"""The models by name. A model's module is imported when it is asked for: the names alone cost nothing."""

import collections.abc
import importlib

from zslkeras import names


class _Models(collections.abc.MutableMapping):
    """{name: class}. A class of your own can be put in; it then runs under every command by its name."""

    def __init__(self, places):
        self._places, self._classes = places, {}

    def __getitem__(self, name):
        if name not in self._classes:
            module, attribute = self._places[name]
            self._classes[name] = getattr(importlib.import_module(module), attribute)
        return self._classes[name]

    def __setitem__(self, name, model):
        self._classes[name] = model

    def __delitem__(self, name):
        del self._classes[name]

    def __contains__(self, name):
        return name in self._places or name in self._classes

    def __iter__(self):
        return iter(sorted(self._places.keys() | self._classes.keys()))

    def __len__(self):
        return len(self._places.keys() | self._classes.keys())


MODELS = _Models(names.MODELS)
