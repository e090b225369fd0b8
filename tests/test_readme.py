"""The README's commands are run, in its order and with short trainings; those marked as needing more are parsed."""

import ast
import importlib
import re
import shlex

import pytest

from tests.support.commands import ROOT, call
from zslkeras.benchmarks import shapes
from zslkeras.cli import main

SHORT = {
    "experiments.run": {"epochs": 1, "seeds": 1},
    "experiments.compare": {"epochs": 1, "seeds": 1, "folds": 1},
    "tuning.run": {"epochs": 1, "seeds": 1, "trials": 1},
}
MARK = re.compile(r"<!-- needs (data|minutes|several machines|docker|an export) -->")


def blocks():
    """(line, language, text, marked) of each fenced block."""
    lines, found, start = (ROOT / "README.md").read_text().splitlines(), [], None
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


BLOCKS = blocks()
FENCED = [
    (line, module, args, marked or text.startswith("$ "))  # what stands behind a $ shows its output
    for line, _, text, marked in BLOCKS
    for module, args in commands(text)
]
# tests/experiments/test_describe.py runs --describe.
RUN = [one for one in FENCED if not one[-1] and "--describe" not in one[2]]


def test_it_has_blocks_of_each_kind():
    assert len(RUN) >= 8 and len(FENCED) > len(RUN)
    assert {module for _, module, _, _ in FENCED} >= {*SHORT, *(f"zslkeras.cli.{name}" for name in main.COMMANDS)}


@pytest.mark.parametrize(("line", "module", "args"), [one[:3] for one in FENCED], ids=lambda one: str(one)[:40])
def test_every_command_parses(line, module, args):
    importlib.import_module(module).COMMAND.read(args)


def test_every_other_block_is_output_python_or_known_by_its_first_words():
    for line, language, text, marked in BLOCKS:
        if language == "python":
            ast.parse(text)
            continue
        first = text.split()[0]
        known = text.startswith("$ ") or first in ("make", "pip", "SEARCH=") or marked or any(commands(text))
        assert known or re.match(r"(data|animals)/", first), f"README.md:{line}: mark it, or make it a command"


def test_make_targets_are_there():
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M)
    for _, _, text, _ in BLOCKS:
        for name in re.findall(r"^(?:\$ )?make ([\w-]+)", text, re.M):
            assert name in targets


@pytest.mark.slow
def test_the_commands_run_in_their_order(tmp_path, monkeypatch):
    """A flag given later wins, and classes have few pictures, so that all is short; the rest is as it stands."""
    monkeypatch.setattr(shapes, "PICTURES", (10, 12))
    for line, name, args, _ in RUN:
        module = importlib.import_module(name)
        short = {} if "eszsl" in args else SHORT.get(name, {})
        more = [word for flag, value in short.items() for word in (f"--{flag}", str(value))]
        if "--sweep" in args:
            more = more[:-2]  # a sweep has no trials
        ran = call(module, tmp_path, tmp_path / "data", tmp_path / "cache", *args, *more)
        assert ran.code == 0, f"README.md:{line}: {ran.err}"


def test_its_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZSLKERAS_DATA", str(tmp_path))
    code = next(text for _, language, text, _ in BLOCKS if language == "python" and "load_benchmark" in text)
    exec(compile(code, "README.md", "exec"), {})
    assert "aspn" in capsys.readouterr().out
