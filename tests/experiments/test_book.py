"""Docstrings as Markdown and imports as a picture; and the pages of this checkout, which are those of its code."""

import inspect
import re

import zslkeras
from experiments import book, made_of_code, markdown
from tests.support import commands

DOCS = commands.ROOT / "docs"


def test_the_pages_of_this_checkout_are_those_of_its_code():
    page = (DOCS / "architecture.md").read_text()
    assert (DOCS / "api.md").read_text() == made_of_code.reference(), "run python -m experiments.book"
    assert page == made_of_code.with_picture(page), "run python -m experiments.book"


def test_the_reference_has_every_public_name_and_every_argument():
    text = made_of_code.reference()
    for name in zslkeras.__all__:
        assert f"`{name}`" in text, name
    for function in (zslkeras.fit, zslkeras.load, zslkeras.from_arrays, zslkeras.ZeroShotClassifier.predict):
        section = text.split(f"## `{function.__name__}`")[1].split("## `")[0]
        listed = " ".join(line.partition(":")[0] for line in section.splitlines() if line.startswith("* `"))
        for name in set(inspect.signature(function).parameters) - {"self", "options"}:
            assert re.search(rf"\b{name}\b", listed), name


def test_the_picture_shows_who_uses_whom_without_what_follows():
    lines = made_of_code.picture().splitlines()
    arrows = {tuple(line.split(" --> ")) for line in map(str.strip, lines[1:])}
    assert lines[0] == "graph TD" and ("classifier", "serving") in arrows and ("protocol", "models") in arrows
    assert ("classifier", "models") not in arrows  # it follows from others
    assert not {"models", "evaluation"} & {one for one, two in arrows if two in ("protocol", "experiments")}


def test_the_command_writes_both_and_refuses_a_folder_without_the_page(tmp_path):
    ran = commands.call(book, tmp_path, tmp_path, tmp_path, "--docs", "docs")
    commands.assert_refused(ran, "--docs", "no docs/architecture.md; wanted the folder that has it")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "architecture.md").write_text("\n".join(["Before.", *markdown.marks("book"), "After."]))
    ran = commands.call(book, tmp_path, tmp_path, tmp_path, "--docs", "docs")
    assert ran.code == 0 and (tmp_path / "docs" / "api.md").read_text().startswith("# API")
    assert "graph TD" in (tmp_path / "docs" / "architecture.md").read_text()
