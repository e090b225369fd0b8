"""The examples run, and say what they are to say."""

import runpy
import socket

import pytest

import zslkeras
from tests.support.commands import ROOT


def main_of(name):
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_an_example_is_one_screen():
    scripts = sorted((ROOT / "examples").glob("*.py"))
    assert len(scripts) == 4
    for path in scripts:
        assert path.read_text().count("\n") < 80, path.name


def test_quickstart(few_shapes, unchecked_exports, tmp_path, capsys):
    main_of("quickstart")(few_shapes, "prototypes", tmp_path / "classifier")
    shown = capsys.readouterr().out
    assert "95 % over classes" in shown and "red star" in shown
    assert shown.splitlines()[-1].startswith("saved: <ZeroShot")


@pytest.mark.slow
def test_own_images_are_trained_on_and_served(few_shapes, unchecked_exports, tmp_path, capsys):
    main_of("own_images")(few_shapes, tmp_path, free_port())
    lines = capsys.readouterr().out.splitlines()
    asked, served = lines[-2], lines[-1]
    assert " has no images; " in asked and served == f"the server says {asked.rpartition(' taken for ')[2]}"


@pytest.mark.slow
def test_an_ablation_is_compared_class_by_class(few_shapes, capsys):
    main_of("ablation")(few_shapes, epochs=1, batch_size=20)
    shown = capsys.readouterr().out
    assert "classes won" in shown and "MSDN is " in shown.splitlines()[-1]


@pytest.mark.slow
def test_a_model_of_ones_own_is_one_like_any_other(few_shapes, unchecked_exports, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(zslkeras.MODELS, "linear", raising=False)
    try:
        main_of("own_model")(few_shapes, tmp_path / "model")
    finally:
        zslkeras.MODELS.pop("linear", None)
    shown = capsys.readouterr().out
    assert "linear on shapes" in shown and "green ring" in shown
