"""The work of `experiments.book`: docstrings as Markdown, and imports as a picture."""

import ast
import inspect
import pathlib
import re
import textwrap

import zslkeras
from experiments import markdown
from zslkeras import atomic
from zslkeras.errors import InputError

ROOT = pathlib.Path(__file__).parent.parent
_HEAD = (
    "Made by `python -m experiments.book` of the docstrings of what `import zslkeras` gives. [python.md](python.md) "
    "teaches it with examples, and [models.md](models.md) tells of the models."
)
_DOOR = ("fit", "load", "load_benchmark", "from_arrays")
_SECTION = re.compile(r"^(Args|Attributes|Returns):$", re.MULTILINE)
_ITEM = re.compile(r"^ {4}(\S[^:\n]*): ", re.MULTILINE)
# The house from the roof down; what is not here is the ground floor, which everything stands on.
_PARTS = ("tuning", "experiments", "cli", "classifier", "serving", "runs", "automatic", "weighing", "figures")
_PARTS += ("protocol", "benchmarks", "models", "training", "evaluation", "images", "text")


def write(docs):
    """Writes api.md, and the picture between the marks of architecture.md; returns what it did, as text."""
    docs = pathlib.Path(docs)
    page = docs / "architecture.md"
    if not page.is_file():
        raise InputError(f"docs: no {page}; wanted the folder that has it")
    atomic.write_text(docs / "api.md", reference())
    atomic.write_text(page, with_picture(page.read_text(encoding="utf-8")))
    return f"written: {docs / 'api.md'}, {page}"


def with_picture(text):
    """A text with the picture of the house between its marks."""
    return markdown.between("book", text, f"```mermaid\n{picture()}```\n")


# Docstrings.


def reference():
    """The page of all public names."""
    lines = ["# API", "", markdown.filled(_HEAD)]
    for name in _DOOR:
        lines += ["", f"## `{name}`", "", *_function(getattr(zslkeras, name), f"zslkeras.{name}")]
    lines += ["", "## `ZeroShotClassifier`", "", *_documented(zslkeras.ZeroShotClassifier)]
    for name, method in vars(zslkeras.ZeroShotClassifier).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            lines += ["", f"### `{name}`", "", *_function(method, f"model.{name}")]
    lines += ["", "## The rest", ""]
    rest = {
        "MODELS": "a dictionary of the models by name",
        "InputError": _first(zslkeras.InputError),
        "__version__": "the version, a text",
    }
    rest |= {model.__name__: _first(model) for model in zslkeras.MODELS.values()}
    lines.append(markdown.table(["name", "what it is"], [(f"`{name}`", said) for name, said in rest.items()]))
    return "\n".join(lines) + "\n"


def _function(function, name):
    """The call of a function, and what its docstring says."""
    signature = inspect.signature(function)
    shown = [one for key, one in signature.parameters.items() if key != "self"]
    plain = signature.replace(
        parameters=[one.replace(annotation=inspect.Parameter.empty) for one in shown],
        return_annotation=inspect.Signature.empty,
    )
    call = f"{name}{plain}".replace("<built-in function print>", "print").replace("'", '"')
    return [
        "```text",
        *textwrap.wrap(call, markdown.WIDTH, subsequent_indent="    "),
        "```",
        "",
        *_documented(function),
    ]


def _documented(thing):
    """A docstring as Markdown: its text, and a list for each section."""
    text, *sections = _SECTION.split(inspect.getdoc(thing))
    lines = _paragraphs(text)
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        lines += ["", f"{title}:" if title != "Args" else "Arguments:", ""]
        if title == "Returns":
            lines.append(markdown.filled(body))
            continue
        names = _ITEM.split(body.strip("\n"))[1:]
        for name, said in zip(names[::2], names[1::2], strict=True):
            lines.append(markdown.filled(f"* `{name}`: {said}", "  "))
    return lines


def _paragraphs(text):
    return "\n\n".join(markdown.filled(one) for one in text.strip().split("\n\n")).splitlines()


def _first(thing):
    """The first paragraph of a docstring."""
    return inspect.getdoc(thing).split("\n\n")[0].replace("\n", " ")


# Imports.


def picture():
    """The parts of the house and who uses whom, as a Mermaid graph. What follows from other arrows has none."""
    uses = {part: set() for part in _PARTS}
    for package in ("zslkeras", "experiments", "tuning"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for other in _imported(ast.parse(path.read_text(encoding="utf-8"))):
                one, two = _part(name), _part(other)
                if one and two and one != two:
                    uses[one].add(two)
    lines = ["graph TD"]
    for part in _PARTS:
        beyond = {far for near in uses[part] for far in _reached(uses, near)}
        lines += [f"  {part} --> {other}" for other in _PARTS if other in uses[part] - beyond]
    return "\n".join(lines) + "\n"


def _imported(tree):
    """The dotted names of what a module imports, at whatever depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{one.name}" for one in node.names)


def _part(name):
    """The part that a module belongs to; None for the ground floor and for other packages."""
    package, _, rest = name.partition(".")
    part = rest.partition(".")[0] if package == "zslkeras" else package
    return part if part in _PARTS else None


def _reached(uses, start):
    """All parts that one uses, directly or not."""
    found, wanted = set(), [start]
    while wanted:
        for other in uses[wanted.pop()] - found:
            found.add(other)
            wanted.append(other)
    return found
