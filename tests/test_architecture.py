"""Who may import whom, read from the imports; no pickle; one place that trains on the published split."""

import ast
import fnmatch
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PATHS = [path for package in ("zslkeras", "experiments", "tuning") for path in sorted((ROOT / package).rglob("*.py"))]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in PATHS}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}

EVERYBODY_MAY = ("zslkeras.errors", "zslkeras.version", "zslkeras.progress", "zslkeras.atomic")
# What a module may import of this project besides. A module that is not named here goes by "its.package.*".
MAY_IMPORT = {
    "zslkeras": ("zslkeras.benchmarks", "zslkeras.models"),
    "zslkeras.cache": (),
    "zslkeras.errors": (),
    "zslkeras.version": (),
    "zslkeras.progress": (),
    "zslkeras.atomic": (),
    "zslkeras.benchmarks": ("zslkeras.benchmarks.*", "zslkeras.images.store"),
    "zslkeras.benchmarks.*": ("zslkeras.benchmarks.*",),
    "zslkeras.benchmarks.folder": ("zslkeras.benchmarks.*", "zslkeras.images.decode"),
    "zslkeras.images": ("zslkeras.images.*",),
    "zslkeras.images.*": ("zslkeras.cache", "zslkeras.images.*"),
    "zslkeras.evaluation": (),
    "zslkeras.uncertainty": ("zslkeras.evaluation",),
    "zslkeras.layers": (),
    "zslkeras.losses": (),
    "zslkeras.strategies": (),
    "zslkeras.plots": ("zslkeras.evaluation",),
    "zslkeras.batches": (),
    "zslkeras.training": ("zslkeras.batches", "zslkeras.strategies"),
    "zslkeras.export": ("zslkeras.images.decode", "zslkeras.models.base"),
    "zslkeras.reload": (),
    "zslkeras.models": ("zslkeras.models.*",),
    "zslkeras.models.base": (),
    "zslkeras.models.*": (
        "zslkeras.models.base",
        "zslkeras.layers",
        "zslkeras.losses",
        "zslkeras.images.augment",
        "zslkeras.images.backbones",
    ),
    "experiments": (),
    "experiments.configs": (),
    "experiments.papers": (),
    "experiments.describe": ("experiments.configs", "zslkeras.benchmarks"),
    "experiments.report": ("zslkeras.evaluation",),
    "experiments.recipe": (
        "experiments.papers",
        "zslkeras",
        "zslkeras.batches",
        "zslkeras.benchmarks",
        "zslkeras.cache",
        "zslkeras.evaluation",
        "zslkeras.export",
        "zslkeras.models",
        "zslkeras.strategies",
        "zslkeras.training",
        "zslkeras.uncertainty",
    ),
    "experiments.figures": (
        "experiments.recipe",
        "zslkeras.batches",
        "zslkeras.benchmarks",
        "zslkeras.benchmarks.folder",  # which pictures are seen to their edges
        "zslkeras.benchmarks.shapes",  # where its objects are
        "zslkeras.evaluation",
        "zslkeras.images.decode",
        "zslkeras.models",
        "zslkeras.plots",
    ),
    "experiments.run": (
        "experiments.bundle",
        "experiments.configs",
        "experiments.describe",
        "experiments.figures",
        "experiments.recipe",
        "experiments.report",
        "zslkeras",
        "zslkeras.benchmarks.files",  # how JSON is read
        "zslkeras.export",
        "zslkeras.models",
        "zslkeras.strategies",
        "zslkeras.training",
    ),
    "experiments.benchmark": ("experiments.describe", "experiments.serve", "zslkeras.*"),  # times the parts one by one
    "experiments.compare": (
        "experiments.recipe",
        "experiments.report",
        "experiments.run",
        "zslkeras.evaluation",
        "zslkeras.models",
        "zslkeras.strategies",
        "zslkeras.uncertainty",
    ),
    "experiments.archives": (),
    "experiments.unpack": (),
    "experiments.download": (
        "experiments.archives",
        "experiments.unpack",
        "zslkeras.benchmarks.files",  # how JSON is read
    ),
    "experiments.prepare": ("experiments.download", "experiments.run", "zslkeras.benchmarks*", "zslkeras.images*"),
    "experiments.finished": (
        "experiments.configs",
        "experiments.recipe",
        "zslkeras.benchmarks.files",  # how JSON is read
        "zslkeras.models",
        "zslkeras.strategies",
    ),
    "experiments.pair": (
        "experiments.finished",
        "experiments.recipe",
        "experiments.report",
        "experiments.run",
        "zslkeras.evaluation",
        "zslkeras.uncertainty",
    ),
    "experiments.bundle": (
        "experiments.recipe",
        "zslkeras.benchmarks.*",  # what made the features: its record, or the filter bank
        "zslkeras.export",
        "zslkeras.images.*",
    ),
    "experiments.export": ("experiments.bundle", "experiments.finished", "experiments.run"),
    "experiments.predict": (
        "experiments.serve",
        "zslkeras.benchmarks.files",  # how JSON is read
        "zslkeras.benchmarks.folder",  # how a table of classes is read
        "zslkeras.images.decode",
        "zslkeras.plots",
    ),
    "experiments.serve": (),
    "tuning": ("experiments",),
    "tuning.run": (
        "experiments.configs",
        "experiments.recipe",
        "experiments.report",
        "experiments.run",
        "tuning.search",
        "tuning.spaces",
        "zslkeras.benchmarks.files",  # how JSON is read
        "zslkeras.evaluation",
        "zslkeras.models",
        "zslkeras.plots",
        "zslkeras.strategies",
        "zslkeras.training",
    ),
    "tuning.search": ("zslkeras.strategies",),
    "tuning.spaces": (),
}
PUBLISHED = ("published", "published_pictures")  # functions of the recipe
NUMPY_ONLY = ("zslkeras.evaluation", "zslkeras.uncertainty")


def nodes(name, *kinds):
    return [node for node in ast.walk(TREES[name]) if isinstance(node, kinds)]


def imported(name):
    """The modules that `name` imports, anywhere in it; what is taken from a package counts as a module if it is one."""
    for node in nodes(name, ast.Import, ast.ImportFrom):
        for alias in node.names:
            if isinstance(node, ast.Import):
                yield alias.name
            else:
                assert not node.level, f"{name}: relative import of {alias.name}"
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


@pytest.mark.parametrize("name", MODULES)
def test_imports_keep_their_direction(name):
    rule = name if name in MAY_IMPORT else f"{name.rpartition('.')[0]}.*"
    assert rule in MAY_IMPORT, f"{name} is new: say in MAY_IMPORT what it may import"
    for other in imported(name):
        assert other.split(".")[0] != "tests", f"{name} imports {other}"
        if other.split(".")[0] in ("zslkeras", "experiments", "tuning"):
            allowed = (*EVERYBODY_MAY, *MAY_IMPORT[rule])
            assert any(fnmatch.fnmatch(other, pattern) for pattern in allowed), f"{name} may not import {other}"


@pytest.mark.parametrize("name", NUMPY_ONLY)
def test_numbers_need_numpy_alone(name):
    libraries = {other.split(".")[0] for other in imported(name)} - {"zslkeras"}
    assert libraries <= {"dataclasses", "numpy"}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_pickled(name):
    """A file from elsewhere must not be able to run code."""
    assert {other.split(".")[0] for other in imported(name)}.isdisjoint({"pickle", "cloudpickle", "dill", "joblib"})
    for keyword in nodes(name, ast.keyword):
        unsafe = {"allow_pickle": True, "safe_mode": False}.get(keyword.arg)
        assert unsafe is None or getattr(keyword.value, "value", unsafe) != unsafe, f"{name}: {keyword.arg}"


def opens_final(node):
    """Whether a call is given "final" for an argument."""
    values = [*node.args, *(keyword.value for keyword in node.keywords)] if isinstance(node, ast.Call) else []
    return any(isinstance(value, ast.Constant) and value.value == "final" for value in values)


def test_the_published_split_is_opened_in_the_recipe_alone_and_trained_on_in_finish():
    """What chooses (an epoch, gamma, a search) never holds it; what names classes or digests it reads no row of it."""
    assert [name for name in MODULES if any(map(opens_final, ast.walk(TREES[name])))] == ["experiments.recipe"]
    functions = {node.name: node for node in TREES["experiments.recipe"].body if isinstance(node, ast.FunctionDef)}
    openers = {name: [n for n in ast.walk(node) if opens_final(n)] for name, node in functions.items()}
    openers = {name: {ast.unparse(call.func) for call in calls} for name, calls in openers.items() if calls}
    assert openers.pop("finish") == {"_train"}
    assert openers.keys().isdisjoint({"select", "fixed", "validated"})
    for name, opened in openers.items():
        assert all(call.endswith(".load") for call in opened), f"{name}: {opened}"
        read = {node.attr for node in ast.walk(functions[name]) if isinstance(node, ast.Attribute)}
        assert read.isdisjoint({"take", "inputs", "labels", "train", "test_seen", "test_unseen"}), name


def test_a_search_asks_the_recipe_to_select_and_for_nothing_else_that_trains():
    asked = {node.attr for node in nodes("tuning.run", ast.Attribute) if ast.unparse(node.value) == "recipe"}
    assert "select" in asked and asked <= {"Experiment", "as_read", "select", "write_json"}
    functions = [node for node in TREES["tuning.run"].body if isinstance(node, ast.FunctionDef)]
    finals = [function.name for function in functions if "run.main" in ast.unparse(function)]
    assert finals == ["_final"]  # as anybody would call it, when the search is over


def test_the_published_split_of_a_finished_run_is_looked_at_by_few():
    asked = {name for name in MODULES for node in nodes(name, ast.Attribute) if node.attr in PUBLISHED}
    taken = {name for name in MODULES for node in nodes(name, ast.alias) if node.name in PUBLISHED}
    lookers = {"experiments.bundle", "experiments.figures", "experiments.finished"}
    assert asked | taken == lookers
    users = {name for name in MODULES if lookers & set(imported(name))}
    # They come to it when everything is chosen.
    assert users == {"experiments.export", "experiments.pair", "experiments.run"}


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_are_and_are_named_for_it(name):
    assert len(ast.get_docstring(TREES[name]) or "") > 10, f"{MODULES[name]} has no docstring"
    assert MODULES[name].stem not in ("utils", "util", "common", "core", "helpers", "engine", "misc")
