"""Where a setting comes from, which one wins, and how a text becomes a value of the type its field has."""

import dataclasses

import pytest

from experiments import configs
from experiments.configs import CONFIGS, config_for, settings_text
from zslkeras.errors import InputError
from zslkeras.models import MODELS


@dataclasses.dataclass(frozen=True)
class Config:
    count: int = 1
    rate: float = 0.5
    on: bool = True
    kind: str = "plain"
    sizes: tuple[int, ...] = (1, 2)
    weights: tuple[float, ...] = ()
    names: tuple[str, ...] = ("a",)
    width: int | None = None
    share: float | None = 0.1
    steps: tuple[int, ...] | None = None
    epochs: int = 10
    batch_size: int = 64

    def __post_init__(self):
        if self.kind not in ("plain", "fancy", "none"):
            raise ValueError(f"kind: got {self.kind!r}; wanted plain, fancy or none")


class Model:
    Config = Config
    ablations = {"slow": {"rate": 0.1}, "fancy": {"kind": "fancy", "sizes": (9,)}}


def config(**overrides):
    return config_for(Model, "model", "flo", overrides=overrides)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("count", "3", 3),
        ("count", "-3", -3),
        ("count", 3.0, 3),  # as JSON may have it
        ("rate", "1e-3", 0.001),
        ("rate", "2", 2.0),
        ("rate", 2, 2.0),
        ("on", "false", False),
        ("on", "False", False),
        ("on", "0", False),
        ("on", "true", True),
        ("on", "1", True),
        ("on", False, False),
        ("kind", "fancy", "fancy"),
        ("kind", "none", "none"),
        ("sizes", "3", (3,)),
        ("sizes", "3,4", (3, 4)),
        ("sizes", [3, 4], (3, 4)),
        ("sizes", "", ()),
        ("weights", "1,0.5", (1.0, 0.5)),
        ("names", "b,c", ("b", "c")),
        ("width", "7", 7),
        ("width", "none", None),
        ("width", "None", None),
        ("width", "", None),
        ("width", None, None),
        ("share", "none", None),
        ("share", "1", 1.0),
        ("steps", "1,2", (1, 2)),
        ("steps", "none", None),
    ],
)
def test_texts_and_json_become_values(key, text, value):
    got = getattr(config(**{key: text}), key)
    assert got == value
    assert type(got) is type(value)
    if isinstance(value, tuple):
        assert [type(item) for item in got] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("count", "3.5", "int"),
        ("count", 3.5, "int"),
        ("count", "many", "int"),
        ("count", "", "int"),
        ("count", True, "int"),
        ("count", None, "int"),
        ("count", float("inf"), "int"),
        ("rate", "fast", "float"),
        ("rate", "nan", "float"),
        ("rate", "inf", "float"),
        ("rate", [1], "float"),
        ("on", "yes", "true or false"),
        ("on", 2, "true or false"),
        ("on", None, "true or false"),
        ("kind", 3, "text"),
        ("sizes", "1,b", "int,int,..."),
        ("sizes", 3, "int,int,..."),
        ("names", [3], "text,text,..."),
        ("width", "wide", "int or none"),
        ("steps", "x", "int,int,... or none"),
    ],
)
def test_other_values_are_refused_with_what_was_wanted(key, text, wanted):
    with pytest.raises(InputError) as caught:
        config(**{key: text})
    assert str(caught.value) == f"{key}: got {text!r}; wanted {wanted}"


def test_an_unknown_setting_lists_the_known_ones():
    with pytest.raises(InputError) as caught:
        config(rates="1")
    message = str(caught.value)
    assert message.startswith("rates: model has no such setting; did you mean rate? wanted one of batch_size, count, ")
    assert all(field.name in message for field in dataclasses.fields(Config))
    with pytest.raises(InputError, match="zzz: model has no such setting; wanted one of"):
        config(zzz="1")


@pytest.mark.parametrize("key", ["epochs", "batch_size"])
def test_nothing_trains_on_nothing(key):
    with pytest.raises(InputError, match=f"{key}: got 0; wanted at least 1"):
        config(**{key: "0"})


def test_what_a_config_refuses_is_wrong_input():
    with pytest.raises(InputError, match="config of model: kind: got 'x'; wanted plain, fancy or none"):
        config(kind="x")


def test_the_later_source_wins(monkeypatch):
    """Defaults, CONFIGS of the dataset, of its features, the file, the ablation, the command line."""
    monkeypatch.setitem(CONFIGS, ("model", "flo"), {"count": 2, "rate": 0.2, "epochs": 20, "width": 5})
    monkeypatch.setitem(CONFIGS, ("model", "flo", "mobile"), {"rate": 0.3, "epochs": 30, "width": 6})
    steps = [
        ({"dataset": "cub"}, (1, 0.5, 10, None)),
        ({"dataset": "flo"}, (2, 0.2, 20, 5)),
        ({"dataset": "flo", "features": "res101"}, (2, 0.2, 20, 5)),
        ({"dataset": "flo", "features": "mobile"}, (2, 0.3, 30, 6)),
        ({"dataset": "flo", "features": "mobile", "base": {"rate": 0.4, "width": None}}, (2, 0.4, 30, None)),
        ({"dataset": "flo", "base": {"rate": 0.4}, "ablation": "slow"}, (2, 0.1, 20, 5)),
        ({"dataset": "flo", "base": {"epochs": 40}, "ablation": "slow", "overrides": {"rate": "1"}}, (2, 1.0, 40, 5)),
    ]
    for given, expected in steps:
        got = config_for(Model, "model", **given)
        assert (got.count, got.rate, got.epochs, got.width) == expected, given


def test_ablations():
    assert config_for(Model, "model", "flo", ablation="fancy") == Config(kind="fancy", sizes=(9,))
    with pytest.raises(InputError, match="--ablation: got 'loud'; model has slow, fancy"):
        config_for(Model, "model", "flo", ablation="loud")


def test_a_config_survives_json():
    given = config(sizes="4,5", width="3", share="none", steps="1", on="0")
    assert config_for(Model, "model", "flo", base=dataclasses.asdict(given)) == given


def test_what_is_written_here_fits_the_models():
    for name, dataset, *features in CONFIGS:
        assert dataclasses.is_dataclass(config_for(MODELS[name], name, dataset, *features))


@pytest.mark.parametrize("name", MODELS)
def test_every_ablation_of_every_model_is_a_config(name):
    for ablation in MODELS[name].ablations:
        assert isinstance(config_for(MODELS[name], name, "flo", ablation=ablation), MODELS[name].Config)
    types = configs.typing.get_type_hints(MODELS[name].Config)
    assert all(configs._named(kind) for kind in types.values())  # every kind of field has a name for messages


def test_a_config_on_one_line():
    assert settings_text(Config()).startswith("count=1, rate=0.5, on=True, kind=plain, sizes=(1, 2), ")
