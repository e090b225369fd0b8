"""Who may import whom, as layers; who may see the published split; and what every module has to be."""

import ast
import fnmatch
import subprocess
import sys

import pytest

from tests.support.commands import ROOT

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("zslkeras", "experiments", "tuning")
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py" and name.count(".") == 1}

# From the ground up. A module imports what stands above its own line here, and modules of its own package.
LAYERS = (
    (
        "zslkeras",
        *(
            f"zslkeras.{one}"
            for one in (
                "errors",
                "structure",
                "graphs",
                "ahead",
                "atomic",
                "progress",
                "cache",
                "names",
                "precision",
                "version",
            )
        ),
    ),
    ("zslkeras.images*", "zslkeras.evaluation*", "zslkeras.training*", "zslkeras.text*"),
    ("zslkeras.models*", "zslkeras.benchmarks*"),
    ("zslkeras.protocol",),
    ("zslkeras.runs", "zslkeras.automatic", "zslkeras.weighing", "zslkeras.figures*"),
    ("zslkeras.serving*",),
    ("zslkeras.classifier",),
    ("zslkeras.cli*",),
    ("zslkeras.__main__",),
    ("experiments*",),
    ("tuning*",),
)
# What a layer would allow, and still is not to be.
NEVER = (("zslkeras.models*", "zslkeras.training*"), ("zslkeras.benchmarks*", "zslkeras.training*"))
# Of a model's package: the parts that methods share. One method never imports another.
SHARED = ("base", "conditioning", "config", "layers", "losses", "optimizers", "own_backbone")
SHARED += ("epochs", "rows", "solved")
RESEARCH = ("run", "compare", "pair", "rejection", "speed", "transfer", "campaign", "report", "words", "gpu", "book")
COMMANDS = (
    *(f"zslkeras.cli.{name}" for name in ("prepare", "train", "predict", "export", "serve")),
    *(f"experiments.{name}" for name in RESEARCH),
    "tuning.run",
)
NUMPY_ONLY = tuple(f"zslkeras.evaluation.{name}" for name in ("metrics", "calibration", "confidence", "uncertainty"))
PUBLISHED = ("published", "published_pictures")  # functions of the protocol


def layer_of(name):
    (layer,) = [n for n, layer in enumerate(LAYERS) if any(fnmatch.fnmatch(name, one) for one in layer)]
    return layer


def package_of(name):
    """zslkeras.models of zslkeras.models.aspn; experiments of experiments.run; zslkeras of zslkeras.protocol."""
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] == "zslkeras" and (len(parts) > 2 or name in PACKAGES) else 1])


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
def test_imports_go_down(name):
    for other in imported(name):
        assert other.split(".")[0] != "tests", f"{name} imports {other}"
        if other.split(".")[0] not in ("zslkeras", "experiments", "tuning"):
            continue
        same = package_of(name) == package_of(other) != "zslkeras"
        assert same or layer_of(other) < layer_of(name) or layer_of(name) == 0, f"{name} imports {other}: not below it"
        for lower, higher in NEVER:
            assert not (fnmatch.fnmatch(name, lower) and fnmatch.fnmatch(other, higher)), f"{name} imports {other}"
        assert other not in COMMANDS, f"{name} imports {other}, which is a command"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("zslkeras.models.")])
def test_no_method_imports_another(name):
    own = {other.removeprefix("zslkeras.models.") for other in imported(name) if other.startswith("zslkeras.models.")}
    assert own <= set(SHARED), own


@pytest.mark.parametrize("name", [*COMMANDS, "zslkeras.cli.main", "zslkeras", "zslkeras.models"])
def test_the_flags_of_a_command_are_known_without_tensorflow(name):
    code = f"import sys, {name}; sys.exit(', '.join(sys.modules.keys() & {{'tensorflow', 'keras', 'scipy', 'numpy'}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() in ("", "numpy"), done.stderr


@pytest.mark.parametrize("name", NUMPY_ONLY)
def test_numbers_need_numpy_alone(name):
    libraries = {other.split(".")[0] for other in imported(name)} - {"zslkeras"}
    assert libraries <= {"dataclasses", "functools", "numpy"}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_pickled(name):
    """A file from elsewhere must not be able to run code."""
    assert {other.split(".")[0] for other in imported(name)}.isdisjoint({"pickle", "cloudpickle", "dill", "joblib"})
    for keyword in nodes(name, ast.keyword):
        unsafe = {"allow_pickle": True, "safe_mode": False}.get(keyword.arg)
        assert unsafe is None or getattr(keyword.value, "value", unsafe) != unsafe, f"{name}: {keyword.arg}"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "zslkeras.graphs"])
def test_graphs_are_made_in_one_way(name):
    """Without AutoGraph; see there."""
    assert "tf.function" not in {ast.unparse(node) for node in nodes(name, ast.Attribute)}


def opens_final(node):
    """Whether a call is given "final" for an argument."""
    values = [*node.args, *(keyword.value for keyword in node.keywords)] if isinstance(node, ast.Call) else []
    return any(isinstance(value, ast.Constant) and value.value == "final" for value in values)


def test_the_published_split_is_opened_in_the_recipe_alone_and_trained_on_in_finish():
    """What chooses (an epoch, gamma, a search) never holds it; what names classes or digests it reads no row of it."""
    assert [name for name in MODULES if any(map(opens_final, ast.walk(TREES[name])))] == ["zslkeras.protocol"]
    functions = {node.name: node for node in TREES["zslkeras.protocol"].body if isinstance(node, ast.FunctionDef)}
    openers = {name: [n for n in ast.walk(node) if opens_final(n)] for name, node in functions.items()}
    openers = {name: {ast.unparse(call.func) for call in calls} for name, calls in openers.items() if calls}
    assert openers.pop("finish") == {"_train"}
    assert openers.keys().isdisjoint({"select", "fixed", "validated"})
    for name, opened in openers.items():
        assert all(call.endswith(".load") for call in opened), f"{name}: {opened}"
        read = {node.attr for node in ast.walk(functions[name]) if isinstance(node, ast.Attribute)}
        assert read.isdisjoint({"take", "inputs", "labels", "train", "test_seen", "test_unseen"}), name


def asked_of(name, module):
    """What a module takes of another one, such as protocol.select."""
    attributes = {node.attr for node in nodes(name, ast.Attribute) if ast.unparse(node.value) == module}
    return attributes | {
        alias.name
        for node in nodes(name, ast.ImportFrom)
        for alias in node.names
        if node.module == f"zslkeras.{module}"
    }


def test_a_search_asks_the_protocol_to_select_and_for_nothing_else_that_trains():
    assert asked_of("tuning.trials", "protocol") == {"select"}
    functions = [node for node in TREES["tuning.trials"].body if isinstance(node, ast.FunctionDef)]
    finals = [function.name for function in functions if "rows.train" in ast.unparse(function)]
    assert finals == ["_final"]  # when the search is over


def test_claims_are_made_on_validation_classes_alone():
    claim = next(node for node in TREES["experiments.claims"].body if getattr(node, "name", "") == "_validated")
    assert "protocol.validated" in ast.unparse(claim)
    assert asked_of("experiments.claims", "protocol").isdisjoint({"finish", "select", "fixed", *PUBLISHED})
    assert asked_of("experiments.candidates", "protocol") == {"Experiment", "validated"}
    assert asked_of("experiments.cases", "protocol") == {"Data"}
    assert asked_of("zslkeras.automatic", "protocol") == {"Choice", "Experiment", "select"}
    assert asked_of("zslkeras.weighing", "protocol") == {"Experiment", "select"}


def test_a_campaign_opens_test_classes_in_one_function_which_a_flag_chooses():
    functions = [node for node in TREES["experiments.measured"].body if isinstance(node, ast.FunctionDef)]
    openers = ("protocol.finish", "protocol.select", "protocol.published")
    assert [one.name for one in functions if any(name in ast.unparse(one) for name in openers)] == ["_tested"]
    users = [one for one in functions if "_tested" in ast.unparse(one.body[1:]) and one.name != "_tested"]
    assert [one.name for one in users] == ["_trained"]
    (chosen,) = [node for node in ast.walk(users[0]) if isinstance(node, ast.IfExp)]
    assert ast.unparse(chosen) == "_tested if settings.open_test_classes else _validated"


def test_the_published_split_of_a_finished_run_is_looked_at_by_few():
    lookers = {name for name in MODULES if asked_of(name, "protocol") & set(PUBLISHED)}
    serving = {"zslkeras.serving.bundle", "zslkeras.serving.recognisers"}
    library = {*serving, "zslkeras.figures.of_run", "zslkeras.runs", "zslkeras.classifier"}
    assert lookers == library | {"experiments.measured"}
    users = {name for name in MODULES if lookers & set(imported(name))}
    # They come to it when everything is chosen; of `runs`, claims and searches take the guarded folder alone.
    assert users >= {"zslkeras.cli.export", "experiments.rows", "experiments.claims", "tuning.trials"}
    assert asked_of("tuning.trials", "runs") == {"identity", "opened", "require_same"}
    assert asked_of("experiments.candidates", "runs") == {"identity", "opened", "commit"}


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_are_and_are_named_for_it(name):
    assert len(ast.get_docstring(TREES[name]) or "") > 10, f"{MODULES[name]} has no docstring"
    assert MODULES[name].stem not in ("utils", "util", "common", "core", "helpers", "engine", "misc")
