"""The commands and the Python of README and docs are run, page by page, in their order and with short trainings; those
that are marked as needing more are parsed."""

import ast
import importlib
import re
import shlex

import pytest

import zslkeras
from experiments import pages
from tests.support.commands import ROOT, call
from zslkeras.benchmarks import shapes
from zslkeras.cli import main
from zslkeras.images import decode

SHORT = {
    "experiments.run": {"epochs": 1, "seeds": 1},
    "experiments.compare": {"epochs": 1, "seeds": 1, "folds": 1},
    "tuning.run": {"epochs": 1, "seeds": 1, "trials": 1},
}
NEEDS = "data|images|an encoder|minutes|several machines|docker|a GPU|an export"
MARK = re.compile(f"<!-- needs ({NEEDS}) -->")
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def blocks(page):
    """(line, language, text, marked) of each fenced block."""
    lines, found, start = (ROOT / page).read_text().splitlines(), [], None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
        else:
            text = "\n".join(lines[start + 1 : number])
            found.append((start + 1, lines[start][3:], text, bool(MARK.fullmatch(lines[start - 1]))))
            start = None
    return found


def commands(text):
    """The commands of ours in a block: (module, arguments)."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        words = [word for word in words if not word.startswith("TF_CONFIG=")]
        if words[:2] == ["python", "-m"]:
            yield words[2], words[3:]
        elif words[:1] == ["zslkeras"] and words[1] in main.COMMANDS:
            yield f"zslkeras.cli.{words[1]}", words[2:]


BLOCKS = {page: blocks(page) for page in PAGES}
FENCED = [
    (f"{page}:{line}", module, args, marked or text.startswith("$ "))  # what stands behind a $ shows its output
    for page, several in BLOCKS.items()
    for line, language, text, marked in several
    if not language
    for module, args in commands(text)
]
# tests/experiments/test_describe.py runs --describe.
RUN = [one for one in FENCED if not one[-1] and "--describe" not in one[2]]


def test_there_are_blocks_of_each_kind():
    assert len(RUN) >= 8 and len(FENCED) > len(RUN)
    assert {module for _, module, _, _ in FENCED} >= {*SHORT, *(f"zslkeras.cli.{name}" for name in main.COMMANDS)}


@pytest.mark.parametrize(("place", "module", "args"), [one[:3] for one in FENCED], ids=lambda one: str(one)[:40])
def test_every_command_parses(place, module, args):
    importlib.import_module(module).COMMAND.read(args)


def test_every_other_block_is_output_python_or_known_by_its_first_words():
    for page, several in BLOCKS.items():
        for line, language, text, marked in several:
            if language == "python":
                ast.parse(text)
                continue
            first = text.split()[0]
            known = text.startswith("$ ") or first in ("make", "pip", "python3") or marked or any(commands(text))
            known = known or language in ("mermaid", "text", "toml") or first in (".venv/bin/python", "SEARCH=")
            assert known or re.match(r"(data|animals)/", first), f"{page}:{line}: mark it, or make it a command"


def test_make_targets_are_there():
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M)
    for _, _, text, _ in (block for several in BLOCKS.values() for block in several):
        for name in re.findall(r"^(?:\$ )?make ([\w-]+)", text, re.M):
            assert name in targets


def test_no_link_is_dead():
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        for link in LINK.findall(CODE.sub("", path.read_text())):
            assert (path.parent / link).exists(), f"{path.relative_to(ROOT)}: {link}"


def test_the_index_names_every_page():
    index = (ROOT / "docs/README.md").read_text()
    assert {f"({page.removeprefix('docs/')})" for page in PAGES[1:]} - {"(README.md)"} <= set(
        re.findall(r"\([\w./-]+\)", index)
    )


def test_the_sentences_of_troubleshooting_are_those_of_the_code():
    code = "".join(path.read_text() for name in ("zslkeras", "experiments") for path in (ROOT / name).rglob("*.py"))
    code = re.sub(r'"\s*f?"', "", code)  # texts in several parts
    lines = [line for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines() if line.startswith("| `")]
    assert len(lines) > 20
    for line in lines:
        for sentence in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
            assert sentence in code, sentence


def test_the_pages_of_models_name_what_is_in_the_code():
    pages_of_models = sorted((ROOT / "docs/models").glob("*.md"))
    assert pages_of_models
    for path in pages_of_models:
        code = (ROOT / f"zslkeras/models/{path.stem}.py").read_text().split('"""', 2)[2]  # without its head
        (table,) = re.findall(r"^## From the paper to the code$(.*?)^## ", path.read_text(), re.DOTALL | re.MULTILINE)
        rows = [line.split(" | ") for line in table.splitlines() if line.startswith("|")][2:]
        names = [name for row in rows for name in re.findall(r"`([^`]+)`", row[1])]
        assert len(names) > 5, path.name
        for name in names:
            assert re.search(rf"\b{re.escape(name)}\b", code), f"{path.name}: {name}"


def test_the_readme_is_short_and_its_results_are_those_of_the_files():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    assert text == pages.with_summary(text, ROOT / "results"), "run python -m experiments.report"
    assert "| birds | eszsl |" in text and "Published test classes:" in text


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(place.startswith(f"{page}:") for place, *_ in RUN)])
def test_the_commands_of_a_page_run_in_their_order(page, tmp_path, monkeypatch):
    """A flag given later wins, and classes have few images, so that all is short; the rest is as it stands."""
    monkeypatch.setattr(shapes, "PICTURES", (10, 12))
    for place, name, args, _ in RUN:
        if place.startswith(f"{page}:"):
            module = importlib.import_module(name)
            short = {} if "eszsl" in args else SHORT.get(name, {})
            more = [word for flag, value in short.items() for word in (f"--{flag}", str(value))]
            if "--sweep" in args:
                more = more[:-2]  # a sweep has no trials
            ran = call(module, tmp_path, tmp_path / "data", tmp_path / "cache", *args, *more)
            assert ran.code == 0, f"{place}: {ran.err}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(language == "python" and not mark for _, language, _, mark in BLOCKS[page])]
)
def test_the_python_of_a_page_runs(page, tmp_path, few_shapes, unchecked_exports, monkeypatch):
    monkeypatch.setenv("ZSLKERAS_DATA", str(few_shapes))
    monkeypatch.chdir(tmp_path)
    names = {}
    images = zslkeras.load_benchmark("shapes", inputs="images").inputs
    for name, image in zip("ab", images[:2], strict=True):
        (tmp_path / f"{name}.png").write_bytes(decode.png(image))
    for line, language, text, marked in BLOCKS[page]:
        if language == "python" and not marked:
            exec(compile(text, f"{page}:{line}", "exec"), names)
