"""All models that the data allow are compared on validation classes, within a time."""

import dataclasses
import json
import re

import pytest

from tests.support.commands import FewPrototypes, FewSettings
from tests.support.example import Example, ExampleConfig
from tests.support.tiny import tiny
from zslkeras import automatic, protocol
from zslkeras.benchmarks import tune_stage
from zslkeras.errors import InputError
from zslkeras.models import MODELS
from zslkeras.training.machine import Machine

MACHINE = Machine(deterministic=False)


@dataclasses.dataclass(frozen=True)
class Few(ExampleConfig):
    epochs: int = 3
    batch_size: int = 16


class Quick(Example):
    Config = Few


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Stands for protocol.Data: features alone, and nothing but stage tune."""

    name: str = "tiny"

    def load(self, stage, inputs, fold=0):
        assert stage == "tune"
        if inputs != "features":
            raise InputError(f"inputs: no {inputs} of {self.name}; wanted features")
        return tune_stage(tiny(noise=1.0), fold)


@pytest.fixture(autouse=True, scope="module")
def few_models():
    names = {name: MODELS[name] for name in ("eszsl", "prototypes", "msdn")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names["eszsl"], "Config", FewSettings)
        patch.setattr(names["prototypes"], "Config", FewPrototypes)
        patch.setattr(automatic, "MODELS", names | {"quick": Quick})
        patch.setitem(MODELS, "quick", Quick)
        yield


@pytest.fixture(scope="module")
def compared(few_models, tmp_path_factory):
    said, out = [], tmp_path_factory.mktemp("compared") / "out"
    return automatic.compare(Shelf(), MACHINE, 10.0, out=out, say=said.append), said, out


def test_the_best_on_validation_classes_comes_first(compared):
    found, said, _ = compared
    assert set(found.candidates) == {"eszsl", "prototypes", "quick"}
    areas = [one.choice.history[one.choice.state]["val_AUSUC"] for one in found.candidates.values()]
    assert areas == sorted(areas, reverse=True)
    best = found.candidates[found.best.model]
    assert best.choice is found.choice and best.numbers["AUSUC"] == max(areas) > min(areas)
    assert [line.partition(":")[0] for line in said] == ["eszsl", "prototypes", "quick", "msdn is left out"]


def test_each_candidate_is_what_it_would_be_alone(compared, tmp_path):
    found, *_ = compared
    alone = protocol.select(protocol.Experiment("quick", Few(), Shelf(), MACHINE, tmp_path / "alone", False), 0)
    assert found.candidates["quick"].choice == alone


def test_the_table_and_the_verdict_name_all_of_them(compared):
    found, *_ = compared
    lines = found.table.splitlines()
    assert lines[0].split() == ["on", "validation", "classes,", "percent", "T", "U", "S", "H", "AUSUC", "time"]
    assert {line.split()[0] for line in lines[1:4]} == {"ESZSL", "prototypes", "quick"}
    assert lines[4] == "left out: msdn: inputs: no maps of tiny; wanted features"
    best = found.best.model
    assert found.verdict.startswith(f"{best} is the best on validation classes.\n")
    others = {"eszsl": "ESZSL", "prototypes": "prototypes"}
    for other in others.keys() - {best}:
        assert found.verdict.count(f" {others[other]} in ") == 2  # T and H


def test_what_takes_too_long_is_left_out_and_closed_forms_never_are():
    found = automatic.compare(Shelf(), MACHINE, 1e-6, say=lambda line: None)
    assert set(found.candidates) == {"eszsl", "prototypes"}
    assert re.fullmatch(r"about \d+ s with the final training; 0 s are left", found.left_out["quick"])


def test_a_comparison_that_goes_on_decides_as_before(compared, monkeypatch):
    first, _, out = compared
    book = json.loads((out / "auto.json").read_text())
    monkeypatch.setattr(Quick, "learn", None)  # nothing is trained again
    again = automatic.compare(Shelf(), MACHINE, 1e-6, out=out, say=lambda line: None)
    assert again.left_out == first.left_out and list(again.candidates) == list(first.candidates)
    assert again.table == first.table
    assert json.loads((out / "auto.json").read_text()) == book


def test_without_any_model_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(automatic, "MODELS", {"msdn": MODELS["msdn"]})
    with pytest.raises(InputError, match="^dataset: no model can be trained on tiny: inputs: no maps of tiny; "):
        automatic.compare(Shelf(), MACHINE, say=lambda line: None)
