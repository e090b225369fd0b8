"""Flags as values: read, bounded, refused where they mean nothing, and answered before TensorFlow is there."""

import ast
import dataclasses
import importlib
import subprocess
import sys
import time

import pytest

from tests.support.commands import ROOT
from zslkeras.cli import flags
from zslkeras.errors import Failed, InputError

COMMANDS = {
    **{f"zslkeras {name}": f"zslkeras.cli.{name}" for name in ("prepare", "train", "predict", "export", "serve")},
    **{
        f"python -m experiments.{name}": f"experiments.{name}"
        for name in (
            *("run", "compare", "pair", "rejection", "speed", "transfer", "campaign", "report", "words", "gpu", "book"),
        )
    },
    "python -m tuning.run": "tuning.run",
}


def command(name):
    return importlib.import_module(COMMANDS[name]).COMMAND


@dataclasses.dataclass(frozen=True)
class Colours:
    """Colours"""

    hue: str = flags.flag("red", "the main one", choices=("red", "green"))
    shades: tuple[str, ...] = flags.flag((), "several", choices=("light", "dark"))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Shapes"""

    sides: int | None = flags.flag(None, "how many", least=3, most=8)
    size: float = flags.flag(1.5, "in inches", formerly="width")
    filled: bool = flags.flag(True, "or not")
    note: tuple[str, ...] = flags.flag((), "said", repeat=True)
    table: str | None = flags.flag(None, "write a table and end")
    colours: Colours = flags.group(Colours)


def drawn(**options):
    return flags.Command("draw", "draw: draws.", Settings, example="draw --sides 3", **options)


def test_what_is_not_given_is_the_default_and_what_is_given_has_its_type():
    assert drawn().read([]) == (Settings(), [])
    got, rest = drawn(arguments="FILES").read(
        [
            "--sides",
            "5",
            "--size=2",
            "--nofilled",
            "--note",
            "a,b",
            "--note",
            "c",
            "--hue",
            "green",
            "--shades",
            "dark,light",
            "x",
        ]
    )
    colours = Colours(hue="green", shades=("dark", "light"))
    assert got == Settings(sides=5, size=2.0, filled=False, note=("a,b", "c"), colours=colours)
    assert isinstance(got.size, float) and rest == ["x"]


def test_a_former_name_still_works_and_counts_as_given():
    seen = []
    settings, _ = drawn(check=lambda settings, given, rest: seen.append(given)).read(["--width", "3"])
    assert settings.size == 3.0 and seen == [{"size"}]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--notes", "3"], "--notes: no flag of draw; did you mean note?"),
        (["--sides", "three"], "--sides: got 'three'; wanted a whole number"),
        (["--sides", "2"], "--sides: got 2; wanted at least 3"),
        (["--sides", "9"], "--sides: got 9; wanted at most 8"),
        (["--size", "big"], "--size: got 'big'; wanted a number"),
        (["--hue", "gren"], "--hue: got 'gren'; did you mean green? wanted one of red, green"),
        (["--shades", "dark,blue"], "--shades: got 'blue'; wanted one of light, dark"),
        (["--filled=maybe"], "filled"),
        (["--sides"], "sides"),
        (["file"], "got 'file'; every argument of draw is a flag, as in draw --sides 3"),
    ],
)
def test_a_wrong_flag_is_one_sentence(given, sentence):
    with pytest.raises(InputError) as caught:
        drawn().read(given)
    assert sentence in str(caught.value)


def test_needed_flags_and_those_that_act_alone():
    draw = drawn(needed=("sides",), acts_alone={"table": ("size",)}, arguments="FILES")
    with pytest.raises(InputError, match="--sides is missing; wanted how many"):
        draw.read(["--hue", "red"])
    assert draw.read(["--table", "t", "--size", "2"])[0] == Settings(table="t", size=2.0)
    with pytest.raises(InputError, match="--hue: got it beside --table; wanted --table with --size alone"):
        draw.read(["--table", "t", "--size", "2", "--hue", "red"])  # though red is the default
    with pytest.raises(InputError, match="file: got it beside --table"):
        draw.read(["--table", "t", "--size", "2", "file"])
    with pytest.raises(InputError, match="--size is missing"):
        draw.read(["--table", "t"])


def test_a_part_wants_its_whole():
    flags.part_of("export", {"export", "formats"}, "formats")
    with pytest.raises(InputError, match="--formats: got it without --export"):
        flags.part_of("export", {"formats"}, "formats")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (InputError("sides: got 4; wanted 5"), 2, "error: --sides: got 4; wanted 5\n"),
        (InputError("triangle: got 4\nsides"), 2, "error: triangle: got 4\\nsides\n"),
        (InputError("no pen; pass sides=3 or pass pen=NAME"), 2, "error: no pen; pass --sides 3 or pass pen=NAME\n"),
        (Failed("the pen broke"), 1, "error: the pen broke\n"),
        (OSError(28, "No space left on device"), 2, "error: runs: No space left on device\n"),
    ],
)
def test_what_goes_wrong_has_an_exit_code_and_a_sentence(capsys, raised, code, said):
    def work(settings):
        raise raised

    with pytest.raises(SystemExit) as caught:
        drawn()(work, [])
    assert (caught.value.code, capsys.readouterr().err) == (code, said)


def test_help_has_topics_defaults_and_the_example(capsys):
    drawn()(None, ["--sides", "3", "--help"])
    shown = capsys.readouterr().out
    assert shown.index("example: draw --sides 3") < shown.index("\nShapes:\n") < shown.index("\nColours:\n")
    assert "the main one: red, green (default: red)" in shown and "in inches (default: 1.5)" in shown


# The commands there are.


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_one_that_it_takes(name):
    parsed = command(name)
    assert parsed.name == name and parsed.example.startswith(name)
    parsed.read(parsed.example.removeprefix(name).split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_command_is_read_by_what_the_command_calls(name):
    """A flag that nothing acts on lies: each is a field, and some module that the command reaches reads that field."""
    reached, waiting = set(), [COMMANDS[name]]
    while waiting:
        module = waiting.pop()
        path = ROOT / (module.replace(".", "/") + ".py")
        if module in reached or not path.is_file():
            continue
        reached.add(module)
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    read = set()
    for module in reached - {"zslkeras.cli.flags"}:
        for node in ast.walk(ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    fields = set(command(name).fields)
    # A group turns its fields into values of the library as a whole: these are read there.
    if {"arguments", "machine", "last"} & read:
        fields -= {*flags.names_of(flags.Data), *flags.names_of(flags.Machine), *flags.names_of(flags.Overrides)}
    copied = {"splits", "images", "classes"} if name == "zslkeras prepare" else set()  # by getattr, see there
    assert fields - copied <= read, fields - read


def test_the_groups_hand_on_all_of_their_fields():
    data = flags.Data(
        **{name: f"some {name}" for name in flags.names_of(flags.Data)} | {"normalize": "false", "draw": 3}
    )
    given = data.arguments()
    assert (given["name"], given["root"]) == ("some dataset", "some data_root")
    wanted = set(flags.names_of(flags.Data)) - {"dataset", "data_root"}
    assert set(given["options"]) == wanted and given["options"]["normalize"] is False
    machine = flags.Machine("mirrored", 2, "mixed_bfloat16", True, False).machine()
    assert dataclasses.astuple(machine) == ("mirrored", 2, "mixed_bfloat16", True, False)
    overrides = flags.Overrides(set=("tau=2", "epochs=9"), epochs=3, batch_size=4, weights="w.h5")
    assert overrides.last() == {"epochs": "9", "batch_size": 4, "weights": "w.h5", "tau": "2"}


REFUSED = {
    "python -m experiments.compare": (
        *(["--ablation", "full"], ["--select", "val"], ["--export"], ["--resume"], ["--plot_tsne"], ["--describe"]),
        *(["--formats", "onnx"], ["word"]),
    ),
    "python -m experiments.pair": (["--model", "aspn"], ["--set", "a=1"], ["--seeds", "1"], ["--out", "x"]),
    "zslkeras export": (["--model", "aspn"], ["--seeds", "1"], ["--precision", "float32"], ["--out", "x"]),
    "python -m tuning.run": (["--describe"], ["--select", "val"], ["--plot_tsne"], ["--formats", "onnx"]),
    "zslkeras predict": (["--host", "x"], ["--name", "x"], ["--serve", "1"]),
    "python -m experiments.campaign": (["--dataset", "flo"], ["--resume"], ["--select", "val"], ["--export"]),
    "python -m experiments.report": (["--model", "aspn"], ["--benchmarks", "x"]),
    "python -m experiments.run": (["--rows", "a"], ["--folds", "1"], ["--trials", "2"]),
}


@pytest.mark.parametrize(("name", "given"), [(name, one) for name, those in REFUSED.items() for one in those])
def test_a_command_refuses_flags_that_it_does_not_act_on(name, given):
    parsed = command(name)
    whole = parsed.example.removeprefix(name).split()
    with pytest.raises(InputError, match=f"{given[0]}: no flag of {name}|got 'word'"):
        parsed.read([*whole[:-2], *given] if name == "zslkeras predict" else [*whole, *given])


@pytest.mark.parametrize("weights", [["--weights", "w.h5"], ["--backbone_weights", "w.h5"]])
def test_weights_of_an_export_are_those_of_its_backbone(weights):
    export = command("zslkeras export")
    with pytest.raises(InputError, match="--weights: got it without --with_backbone"):
        export.read(["--run", "runs/x", *weights])
    assert export.read(["--run", "runs/x", "--with_backbone", *weights])[0].weights == "w.h5"


BESIDE = {
    "missing": ("zslkeras predict", ["--model", "m", "--missing", "refuse", "a.png"], "got it without --classes or"),
    "dtype": (
        "zslkeras prepare",
        ["--dataset", "flo", "--what", "pooled", "--dtype", "float32"],
        "got float32 with --what",
    ),
    "backbone": (
        "zslkeras train",
        ["./x", "--features", "filters", "--backbone", "resnet50"],
        "got it beside --features",
    ),
}


@pytest.mark.parametrize("flag", BESIDE)
def test_a_flag_without_what_it_acts_on_is_refused(flag):
    name, given, sentence = BESIDE[flag]
    with pytest.raises(InputError, match=f"--{flag}: {sentence}"):
        command(name).read(given)
    at = given.index(f"--{flag}")
    command(name).read([*given[:at], *given[at + 2 :]])


def test_describe_stands_alone():
    run = command("python -m experiments.run")
    assert run.read(["--model", "aspn", "--describe"])[0].describe
    with pytest.raises(InputError, match="--seeds: got it beside --describe; wanted --describe with --model alone"):
        run.read(["--model", "aspn", "--describe", "--seeds", "2"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-m", "zslkeras", "--help"], 0, "usage: zslkeras COMMAND"),
        (["-m", "zslkeras", "prepare", "--help"], 0, "example: zslkeras prepare --dataset flo"),
        (["-m", "experiments.run", "--help"], 0, "Settings of the model:"),
        (["-m", "tuning.run", "--help"], 0, "The search:"),
        *(
            (["-m", "zslkeras", name, "--help"], 0, f"example: zslkeras {name}")
            for name in ("train", "predict", "serve")
        ),
        (["-m", "zslkeras", "prepair"], 2, "did you mean prepare"),
        (["-m", "experiments.run", "--model", "aspm"], 2, "--model: got 'aspm'; did you mean aspn?"),
        (["-m", "experiments.compare", "--dataste", "flo"], 2, "--dataste: no flag of"),
    ],
)
def test_help_and_wrong_flags_are_answered_at_once(arguments, code, said):
    began = time.monotonic()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    seconds = time.monotonic() - began
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert seconds < 2.5, "about 0.2 s on a quiet machine; TensorFlow alone takes three"
