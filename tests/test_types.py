"""What a type checker says about a program that uses the door."""

import ast

from mypy import api

import zslkeras
from tests.support.commands import ROOT

RIGHT = """
import zslkeras

data = zslkeras.load_benchmark("shapes", inputs="maps")
model = zslkeras.fit(data, model="msdn", seed=[0, 1], minutes=5, settings={"epochs": 3})
names = [name for name, trained in zip(model.class_names, model.trained) if trained]
values, columns = model.score("a.png", classes={"okapi": {"striped": 1}})
mean: float = values.mean() + model.evaluate()["H"] + model.gamma
zslkeras.load(model.save("here"), weights="imagenet").predict(["a.png"], top=3)
made = zslkeras.from_arrays([[0.1], [0.2]], ["gnu", "okapi"], {"gnu": [0, 1], "okapi": [1, 1]}, unseen=["okapi"])
config = zslkeras.MSDN.Config(epochs=3)
"""
WRONG = {
    'zslkeras.fit(".", seed="zero")': 'Argument "seed"',
    "zslkeras.fit(3)": "Argument 1",
    "zslkeras.load()": "Missing positional argument",
    'zslkeras.load(".").predict("a.png", top="5")': 'Argument "top"',
    'zslkeras.load(".").pedict("a.png")': 'has no attribute "pedict"',
    "zslkeras.MSDN.Config(epoch=3)": 'Unexpected keyword argument "epoch"',
    "zslkeras.nothing": 'has no attribute "nothing"',
}


def test_a_right_program_passes_and_every_mistake_is_found(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(RIGHT + "\n".join(WRONG) + "\n")
    flags = [
        "--follow-imports=silent",
        "--ignore-missing-imports",
        "--config-file=",
        f"--cache-dir={tmp_path / 'kept'}",
    ]
    said, errors, _ = api.run([*flags, str(program)])
    found = [line.partition("error: ")[2] for line in said.splitlines() if "error: " in line]
    assert not errors and len(found) == len(WRONG), said
    for wanted, line in zip(WRONG.values(), found, strict=True):
        assert wanted in line


def test_the_stub_has_every_public_name():
    tree = ast.parse((ROOT / "zslkeras/__init__.pyi").read_text())
    imported = {one.asname or one.name for node in tree.body if isinstance(node, ast.ImportFrom) for one in node.names}
    (listed,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert imported == set(listed) == set(zslkeras.__all__)
