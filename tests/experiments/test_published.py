"""The published and tuned settings: that they fit the models, and what they win over."""

import dataclasses
import importlib
import json
import pathlib
import pkgutil
import types

import pytest

from experiments import published
from zslkeras.cli import flags
from zslkeras.errors import InputError
from zslkeras.models import MODELS, config

PLACES = [
    (name, place)
    for _, name, _ in pkgutil.iter_modules(published.__path__)
    for place in getattr(importlib.import_module(f"{published.__name__}.{name}"), "SETTINGS", {})
]


@dataclasses.dataclass(frozen=True)
class Some(config.Config):
    count: int = 1
    rate: float = 0.5
    epochs: int = 10
    width: int | None = None


class Model:
    Config = Some
    ablations = {"slow": {"rate": 0.1}}


@pytest.fixture
def recipe(monkeypatch):
    """The config by `published` of a model that has settings for a dataset, and more for one kind of features."""
    monkeypatch.setitem(MODELS, "model", Model)
    table = {
        "flo": {"count": 2, "rate": 0.2, "epochs": 20, "width": 5},
        ("flo", "mobile"): {"rate": 0.3, "epochs": 30, "width": 6},
    }
    monkeypatch.setattr(published, "_of", lambda model: types.SimpleNamespace(SETTINGS=table))

    def made(dataset="flo", features=None, row=None, **overrides):
        benchmark = types.SimpleNamespace(name=dataset, features=features)
        return published.config("model", benchmark, flags.Overrides(**overrides), row)

    return made


def test_the_later_source_wins(recipe, tmp_path):
    """Defaults, the dataset, its features, the file, the row of the ablation table, the command line."""
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"rate": 0.4, "epochs": 40, "width": None}))
    file = {"config": str(path)}
    steps = [
        ({"dataset": "cub"}, (1, 0.5, 10, None)),
        ({}, (2, 0.2, 20, 5)),
        ({"features": "res101"}, (2, 0.2, 20, 5)),
        ({"features": "mobile"}, (2, 0.3, 30, 6)),
        ({"features": "mobile", **file}, (2, 0.4, 40, None)),
        ({**file, "row": "slow"}, (2, 0.1, 40, None)),
        ({**file, "row": "slow", "set": ("rate=1",)}, (2, 1.0, 40, None)),
    ]
    for given, expected in steps:
        got = recipe(**given)
        assert (got.count, got.rate, got.epochs, got.width) == expected, given


def test_an_unknown_row_is_a_sentence(recipe):
    with pytest.raises(InputError, match="^ablation: got 'loud'; model has slow$"):
        recipe(row="loud")


def test_settings_are_those_of_models():
    assert {name for name, _ in PLACES} <= set(MODELS)
    folder = pathlib.Path(published.__file__).parent
    assert {path.stem for path in folder.glob("[!_]*.py")} <= set(MODELS)


@pytest.mark.parametrize("name, place", PLACES, ids=str)
def test_settings_fit_their_model(name, place):
    dataset, features = (place, None) if isinstance(place, str) else place
    settings = published.settings(name, dataset, features)
    made = config.build(MODELS[name], name, settings)
    assert settings and {key: getattr(made, key) for key in settings} == settings


def test_a_model_without_settings_has_its_defaults():
    assert published.settings("eszsl", "cub") == {} and published.numbers("eszsl", "cub") is None
