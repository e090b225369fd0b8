"""JSON of another structure is one sentence that names the place."""

import re

import pytest

from zslkeras.errors import InputError
from zslkeras.structure import Each, OrNull, require

KIND = {"model": str, "seeds": [int], "data": {"root": OrNull(str)}, "rate?": float, "times?": Each([float])}
GOOD = {"model": "aspn", "seeds": [0, 1], "data": {"root": None}, "rate": 1, "times": {"a": [1, 0.5]}, "more": "x"}


def test_what_is_of_its_kind_comes_back():
    assert require(GOOD, KIND, "a.json") is GOOD
    assert require({"model": "", "seeds": [], "data": {"root": "a"}}, KIND, "a.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": [1]}, "a.json: model is [1]; wanted text"),
        ({"seeds": 1.5}, "a.json: seeds is 1.5; wanted a list"),
        ({"seeds": [0, True]}, "a.json: seeds[1] is True; wanted a whole number"),
        ({"seeds": [0.0]}, "a.json: seeds[0] is 0.0; wanted a whole number"),
        ({"data": {}}, "a.json: has no data.root; wanted it there, as it was written"),
        ({"data": None}, "a.json: data is None; wanted an object"),
        ({"data": {"root": 3}}, "a.json: data.root is 3; wanted text or null"),
        ({"rate": None}, "a.json: rate is None; wanted a number"),
        ({"rate": True}, "a.json: rate is True; wanted a number"),
        ({"times": {"a": 1}}, "a.json: times.a is 1; wanted a list"),
        ({"times": {"a": ["1"]}}, "a.json: times.a[0] is '1'; wanted a number"),
        ({"model": {"x": "y" * 10**6}}, "a.json: model is {'x': '" + "y" * 193 + "...; wanted text"),
    ],
    ids=str,
)
def test_what_is_not_is_named(change, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        require(GOOD | change, KIND, "a.json")
    with pytest.raises(InputError, match="it is .*; wanted an object"):
        require([], KIND, "a.json")
