"""How a text or a JSON value becomes a setting, which source wins, and what a Config refuses."""

import ast
import dataclasses
import inspect
import math
import types
import typing

import numpy as np
import pytest

from zslkeras.errors import InputError
from zslkeras.models import MODELS, config
from zslkeras.models.config import Config, setting


@dataclasses.dataclass(frozen=True)
class Some(Config):
    count: int = setting(1, least=-3)
    rate: float = setting(0.5, above=0, most=2)
    share: float | None = setting(0.1, least=0, below=2)
    on: bool = True
    kind: str = setting("plain", choices=("plain", "fancy", "none"))
    sizes: tuple[int, ...] = setting((1, 2), least=0)
    weights: tuple[float, ...] = ()
    names: tuple[str, ...] = setting(("a",), choices=("a", "b", "c"))
    width: int | None = setting(None, least=1)
    steps: tuple[int, ...] | None = None
    epochs: int = setting(10, least=1)


class Model:
    Config = Some
    ablations = {"slow": {"rate": 0.1}, "fancy": {"kind": "fancy", "sizes": (9,)}}


def built(*layers, **overrides):
    return config.build(Model, "model", *layers, overrides)


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
        ("weights", "", ()),
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
    got = getattr(built(**{key: text}), key)
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
        ("count", math.inf, "int"),
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
def test_other_texts_are_refused_with_what_was_wanted(key, text, wanted):
    with pytest.raises(InputError) as caught:
        built(**{key: text})
    assert str(caught.value) == f"{key}: got {text!r}; wanted {wanted}"


def test_an_unknown_setting_lists_the_known_ones():
    with pytest.raises(InputError) as caught:
        built(rates="1")
    assert str(caught.value) == "rates: model has no such setting; did you mean rate or steps or names?"
    with pytest.raises(InputError) as caught:
        built(zzz="1")
    message = str(caught.value)
    assert message.startswith("zzz: model has no such setting; wanted one of count, ")
    assert all(field.name in message for field in dataclasses.fields(Some))


def test_what_a_config_refuses_is_wrong_input():
    with pytest.raises(InputError, match="^config of model: kind: got 'x'; wanted one of plain, fancy, none$"):
        built(kind="x")


def test_the_later_source_wins():
    first, second, row = {"count": 2, "rate": 0.2, "width": 5}, {"rate": 0.3, "width": None}, {"rate": 0.4}
    assert built() == Some()
    assert built(first) == Some(count=2, rate=0.2, width=5)
    assert built(first, second) == Some(count=2, rate=0.3)
    assert built(first, second, row, epochs="3") == Some(count=2, rate=0.4, epochs=3)
    assert built(first, second, row, rate="1") == Some(count=2, rate=1.0)


def test_ablations():
    assert config.ablation(Model, "model", "fancy") == {"kind": "fancy", "sizes": (9,)}
    assert config.ablation(Model, "model", None) == {}
    with pytest.raises(InputError, match="^ablation: got 'loud'; model has slow, fancy$"):
        config.ablation(Model, "model", "loud")


def test_a_config_survives_json():
    given = built(sizes="4,5", width="3", share="none", steps="1", on="0")
    assert built(dataclasses.asdict(given)) == given


def test_a_config_on_one_line():
    assert config.settings_text(Some()).startswith("count=1, rate=0.5, share=0.1, on=True, kind=plain, sizes=(1, 2), ")


# What is constructed directly.


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("count", -4, "at least -3"),
        ("count", 1.0, "int"),
        ("count", True, "int"),
        ("count", None, "int"),
        ("rate", 0.0, "more than 0 and at most 2"),
        ("rate", 2.5, "more than 0 and at most 2"),
        ("rate", math.nan, "a finite float"),
        ("rate", math.inf, "a finite float"),
        ("rate", 10**400, "a finite float"),
        ("rate", "1", "float"),
        ("rate", False, "float"),
        ("share", 2.0, "at least 0 and less than 2 or none"),
        ("share", math.nan, "a finite float or none"),
        ("on", 1, "true or false"),
        ("kind", "x", "one of plain, fancy, none"),
        ("kind", 1, "text"),
        ("sizes", (1, -1), "each at least 0"),
        ("sizes", (), "at least one"),
        ("sizes", [1], "int,int,..."),  # it would have no hash
        ("sizes", (1.5,), "int,int,..."),
        ("weights", (1.0, math.nan), "float,float,..."),
        ("names", ("a", "d"), "each one of a, b, c"),
        ("width", 0, "at least 1 or none"),
        ("width", "7", "int or none"),
        ("steps", (1, None), "int,int,... or none"),
    ],
)
def test_a_value_outside_its_type_or_bounds_is_a_sentence(key, value, wanted):
    with pytest.raises(InputError) as caught:
        Some(**{key: value})
    assert str(caught.value) == f"{key}: got {value!r}; wanted {wanted}"


def test_an_int_is_kept_as_the_float_it_stands_for():
    made = Some(rate=1, share=0, weights=(1, 0.5))
    assert repr((made.rate, made.share, made.weights)) == "(1.0, 0.0, (1.0, 0.5))"
    assert made == Some(rate=1.0, share=0.0, weights=(1.0, 0.5))


def test_replace_checks_too_and_defaults_are_class_attributes():
    assert dataclasses.replace(Some(), rate=1).rate == 1.0 and Some.rate == 0.5
    with pytest.raises(InputError, match="^rate: got -1; wanted more than 0 and at most 2$"):
        dataclasses.replace(Some(), rate=-1)


# The configs of all models.


def fields():
    for name, model in MODELS.items():
        types = typing.get_type_hints(model.Config)
        for field in dataclasses.fields(model.Config):
            yield name, field, types[field.name]


FIELDS = [pytest.param(*one, id=f"{one[0]}-{one[1].name}") for one in fields()]
NUMBERS = [one for one in FIELDS if {int, float} & {one.values[2], *typing.get_args(one.values[2])}]
# Levels count from either end; augment.Views checks the other two.
UNBOUNDED = {"fused_level", "single_level", "crop_scale", "blur_sigma"}


def refused(name, field, value):
    """What the config of a model says of a wrong value."""
    with pytest.raises(InputError) as caught:
        MODELS[name].Config(**{field.name: value})
    message = str(caught.value)
    assert message.startswith(f"{field.name}: got {value!r}; wanted ")
    return message.partition("wanted ")[2]


def as_given(kind, value):
    """A value as its field takes it: in a tuple, or alone."""
    return (value,) if typing.get_origin(kind) is tuple else value


@pytest.mark.parametrize("name, field, kind", NUMBERS)
def test_every_number_has_bounds_and_refuses_what_is_just_outside(name, field, kind):
    assert bool(field.metadata) == (field.name not in UNBOUNDED)
    is_float = float in (kind, *typing.get_args(kind))
    step = 1e-6 if is_float else 1
    outside = {"least": -step, "above": 0, "most": step, "below": 0}
    for bound, limit in field.metadata.items():
        if bound == "auto":
            continue
        words = config._BOUNDS[bound][0]
        value = as_given(kind, limit + outside[bound] if not is_float else float(limit + outside[bound]))
        assert f"{words} {limit}" in refused(name, field, value)


@pytest.mark.parametrize("name, field, kind", NUMBERS)
def test_no_number_is_nan_or_a_text(name, field, kind):
    for value in (math.nan, math.inf, "1", True):
        refused(name, field, as_given(kind, value))


@pytest.mark.parametrize("name, field, kind", [one for one in FIELDS if "choices" in one.values[1].metadata])
def test_choices_are_listed(name, field, kind):
    assert f"one of {', '.join(field.metadata['choices'])}" in refused(name, field, as_given(kind, "none of them"))
    for choice in field.metadata["choices"]:
        MODELS[name].Config(**{field.name: as_given(kind, choice)})


@pytest.mark.parametrize("name, field, kind", FIELDS)
def test_a_wrong_type_is_refused(name, field, kind):
    refused(name, field, b"bytes")
    if type(None) not in typing.get_args(kind):
        refused(name, field, None)
    else:
        MODELS[name].Config(**{field.name: None})
    assert config._named(kind)


@pytest.mark.parametrize("name", MODELS)
def test_bounds_are_declared_and_not_listed_again(name):
    """A `__post_init__` calls what checks several fields together; it has no ladder of ifs."""
    for node in ast.walk(ast.parse(inspect.getsource(inspect.getmodule(MODELS[name])))):
        if isinstance(node, ast.FunctionDef) and node.name == "__post_init__":
            assert not [one for one in ast.walk(node) if isinstance(one, ast.For | ast.If | ast.Raise)]


@pytest.mark.parametrize("name", MODELS)
def test_every_ablation_of_every_model_is_a_config(name):
    model = MODELS[name]
    for row in model.ablations:
        assert isinstance(config.build(model, name, config.ablation(model, name, row)), model.Config)


@dataclasses.dataclass(frozen=True)
class Scheduled(Config):
    epochs: int = setting("auto", least=1, auto=True)
    patience: int | None = setting("auto", least=1, auto=True)


def test_few_or_small_rows_get_many_epochs_and_patience_is_a_quarter_of_them():
    def known(rows, numbers, asked=None):
        benchmark = types.SimpleNamespace(class_embeddings=np.zeros([5, 300]), train=range(rows))
        return config.scheduled(asked or Scheduled(), benchmark, numbers, 6, 90)

    assert known(2000, 60_000) == {"epochs": 6, "patience": 10}  # 5.6
    assert known(250, 60_000) == {"epochs": 44, "patience": 11}
    assert known(2000, 6_000) == {"epochs": 56, "patience": 14}
    assert known(10, 10) == {"epochs": 90, "patience": 22}
    assert known(10**6, 10**6) == {"epochs": 6, "patience": 10}
    assert known(250, 60_000, Scheduled(epochs=80)) == {"patience": 20}
    assert known(250, 60_000, Scheduled(patience=None)) == {"epochs": 44}
