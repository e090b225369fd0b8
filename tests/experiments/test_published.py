"""The config of a command line: what wins over what."""

import dataclasses
import json
import pathlib
import types

import pytest

from experiments import published
from zslkeras.cli import flags
from zslkeras.errors import InputError
from zslkeras.models import MODELS, config, presets


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
def asked(monkeypatch):
    """The config by `published` of a model whose paper has settings for all data, and more for one dataset."""
    monkeypatch.setitem(MODELS, "model", Model)
    monkeypatch.setitem(presets._V1, "model", {"count": 2, "rate": 0.2, "epochs": 20, "width": 5})
    monkeypatch.setitem(presets._PAPER, "model", {"flo": {"rate": 0.3, "epochs": 30, "width": 6}})

    def made(dataset="flo", row=None, **overrides):
        benchmark = types.SimpleNamespace(name=dataset)
        return published.config("model", benchmark, flags.Overrides(**overrides), row)

    return made


def test_the_later_source_wins(asked, tmp_path):
    """Defaults, the preset and its part for the dataset, the file, the row of the ablation table, the command line."""
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"rate": 0.4, "epochs": 40, "width": None}))
    file = {"config": str(path)}
    steps = [
        ({}, (1, 0.5, 10, None)),
        ({"preset": "v1"}, (2, 0.2, 20, 5)),
        ({"preset": "paper", "dataset": "cub"}, (2, 0.2, 20, 5)),
        ({"preset": "paper"}, (2, 0.3, 30, 6)),
        ({"preset": "paper", **file}, (2, 0.4, 40, None)),
        ({**file, "row": "slow"}, (1, 0.1, 40, None)),
        ({**file, "row": "slow", "set": ("rate=1",)}, (1, 1.0, 40, None)),
    ]
    for given, expected in steps:
        got = asked(**given)
        assert (got.count, got.rate, got.epochs, got.width) == expected, given


def test_an_unknown_row_is_a_sentence(asked):
    with pytest.raises(InputError, match="^ablation: got 'loud'; model has slow$"):
        asked(row="loud")


def test_numbers_are_those_of_models():
    folder = pathlib.Path(published.__file__).parent
    assert {path.stem for path in folder.glob("[!_]*.py")} <= set(MODELS)
    assert published.numbers("eszsl", "cub") is None


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dataset", ["cub", "awa2", "apy", "sun", "flo"])
def test_presets_fit_their_model(name, dataset):
    for preset in ("paper", "v1"):
        settings = presets.settings(preset, name, dataset)
        made = config.build(MODELS[name], name, settings)
        assert {key: getattr(made, key) for key in settings} == settings
