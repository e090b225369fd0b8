"""Pictures in, names out; a table of classes that nobody trained; and one sentence for whatever is wrong with it."""

import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import zslkeras
from tests.support.commands import start
from tests.support.exported import CLASSES, UNSEEN, write_table
from zslkeras.benchmarks import shapes
from zslkeras.cli import predict
from zslkeras.serving import export

NEW = 30, 45  # classes of shapes that the run has never heard of: magenta-plain-triangle, yellow-dotted-star
NAMES = shapes.class_table()[1]
LOADED = functools.cache(tf.saved_model.load)


@pytest.fixture(scope="module")
def pictures(exported):
    """One picture each of a seen and of an unseen class."""
    folders = sorted(path for path in exported.pictures.iterdir() if path.is_dir())
    return [folders[-1] / "0.png", folders[0] / "0.png"]


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """The process that a test starts loads for itself."""
    monkeypatch.setattr(tf.saved_model, "load", LOADED)


@pytest.fixture
def call(capsys):
    """Calls the command in this process: (exit code, what it printed, its errors)."""

    def run(*args):
        code = 0
        try:
            predict.COMMAND(predict.main, [str(arg) for arg in args])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def found(call, exported, pictures):
    """What --json says about the two pictures."""

    def run(*args):
        code, out, err = call("--model", exported.run, *pictures, "--json", *args)
        assert code == 0, err
        return json.loads(out)

    return run


def test_a_table_marks_classes_that_were_never_trained(call, exported, pictures):
    code, out, err = call("--model", exported.run, "--top", CLASSES, *pictures)
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) == 2 * (1 + CLASSES)
    assert lines[0].startswith(f"{pictures[0]}: ") and lines[1 + CLASSES].startswith(f"{pictures[1]}: ")
    unseen = sorted(NAMES[:CLASSES])[:UNSEEN]
    for line in lines[1 : 1 + CLASSES]:
        assert ("never trained" in line) == (line.split()[1] in unseen)


def test_scores_are_those_of_the_endpoint_with_gamma_on_the_unseen(found, exported, pictures):
    saved = tf.saved_model.load(str(exported.saved_model))
    answers = saved.signatures["serve"](inputs=tf.constant([path.read_bytes() for path in pictures]))
    metadata = json.loads((exported.saved_model / "metadata.json").read_text())
    calibrated = answers["scores"].numpy() + metadata["gamma"] * ~np.array(metadata["seen"])
    for row, one in enumerate(found("--top", "30")):
        assert one["picture"] == str(pictures[row])
        assert one["class"] == metadata["classes"][int(answers["label"][row])] == one["top"][0]["class"]
        got = {entry["class"]: entry["score"] for entry in one["top"]}
        np.testing.assert_allclose([got[name] for name in metadata["classes"]], calibrated[row], rtol=1e-6)


def test_classes_of_a_table_are_added_and_replaced(found, tmp_path):
    before = found("--top", "30")
    table = write_table(tmp_path / "new.csv", [*NEW, 0], shapes.ATTRIBUTES[::-1])
    after = found("--top", "30", "--classes", table)
    for one, other in zip(before, after, strict=True):
        old, new = ({entry["class"]: entry for entry in each["top"]} for each in (one, other))
        assert set(new) - set(old) == {NAMES[c] for c in NEW}
        assert not any(new[NAMES[c]]["trained"] for c in NEW)
        for name, entry in old.items():  # class 0 was replaced by its own attributes, in another order of columns
            assert new[name]["trained"] == entry["trained"]
            assert new[name]["score"] == pytest.approx(entry["score"], rel=1e-5, abs=1e-6)


def test_a_picture_of_a_class_that_nobody_trained_is_recognised(call, exported, tmp_path):
    """Ten pictures of each of two new classes, among these two: chance is half."""
    from PIL import Image

    table, paths = write_table(tmp_path / "new.csv", NEW), []
    for label in NEW:
        drawn, _ = shapes.draw_class(shapes.class_table()[0][label], 10, np.random.default_rng(label))
        for number, picture in enumerate(drawn):
            paths.append(tmp_path / f"{label}-{number}.png")
            Image.fromarray(picture).save(paths[-1])
    code, out, err = call("--model", exported.run, "--classes", table, "--only_new", "--json", *paths)
    assert code == 0, err
    right = [one["class"] == NAMES[int(one["picture"].split("/")[-1].split("-")[0])] for one in json.loads(out)]
    assert len(right) == 20 and sum(right) >= 15


def test_a_changed_class_scores_otherwise(found, tmp_path):
    table = write_table(tmp_path / "new.csv", [0], values=lambda row: 1 - row)
    before, after = (
        {entry["class"]: entry["score"] for entry in found("--top", "30", *args)[0]["top"]}
        for args in ((), ("--classes", table))
    )
    assert abs(after[NAMES[0]] - before[NAMES[0]]) > 1e-3
    assert after[NAMES[1]] == pytest.approx(before[NAMES[1]], rel=1e-5, abs=1e-6)


def test_the_table_of_a_model_changes_nothing(call, found, exported, tmp_path):
    assert call("--model", exported.run, "--write_table", tmp_path / "own.csv") == (0, "", "")
    assert call("--model", exported.run, "--write_table", tmp_path / "own.csv")[0] == 2  # it is there
    before, after = found(), found("--classes", tmp_path / "own.csv")
    for one, other in zip(before, after, strict=True):
        assert [entry["class"] for entry in one["top"]] == [entry["class"] for entry in other["top"]]
        scores = ([entry["score"] for entry in each["top"]] for each in (one, other))
        np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-6)


OTHERS = shapes.ATTRIBUTES[1:]
TABLES = {
    "unknown": ({"attributes": ("cirle", *OTHERS)}, "knows no attribute 'cirle'; did you mean circle?"),
    "missing": ({"attributes": OTHERS}, f"attribute circle of class {NAMES[NEW[0]]} missing; wanted all 33"),
    "two missing": ({"attributes": OTHERS[1:]}, f"attribute circle and 1 more of class {NAMES[NEW[0]]} missing"),
    "all zero": ({"values": lambda row: 0 * row}, "are 0; wanted at least one other value"),
    "negative": ({"values": lambda row: row - 1}, "wanted none below 0"),
    "no float32": ({"values": lambda row: ["1e39", *row[1:]]}, "got '1e39'; wanted a finite number"),
    "endless": ({"values": lambda row: ["1e30", *row[1:]]}, "have length inf; wanted a finite one"),
    "no number": ({"values": lambda row: ["much", *row[1:]]}, "got 'much'; wanted a finite number"),
    "twice": ({"rename": lambda name: "same"}, "class same is there 2 times"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_wrong_table_is_one_sentence(case, call, exported, pictures, tmp_path):
    changes, sentence = TABLES[case]
    if case == "unknown":
        table = write_table(tmp_path / "new.csv", NEW, OTHERS)
        lines = table.read_text().splitlines()
        lines = [line.replace("class,", "class,cirle,") if not row else f"{line},0" for row, line in enumerate(lines)]
        table.write_text("\n".join(lines))
    else:
        table = write_table(tmp_path / "new.csv", NEW, **changes)
    code, out, err = call("--model", exported.run, *pictures, "--classes", table, "--missing", "refuse")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and err.startswith("error: ") and sentence in err


def test_missing_attributes_are_filled_in_and_said(call, exported, pictures, tmp_path):
    table = write_table(tmp_path / "new.csv", NEW, OTHERS)
    code, out, err = call("--model", exported.run, pictures[0], "--classes", table, "--only_new", "--json")
    assert code == 0 and {entry["class"] for entry in json.loads(out)[0]["top"]} == {NAMES[c] for c in NEW}
    assert err.startswith(f"note: {table}: filled in 1 of 33 attributes of 2 classes") and err.count("\n") == 1


def test_images_of_no_listed_class_are_none_of_these(call, exported, pictures, tmp_path):
    """As the classifier in Python says, among all classes and among new ones, in words and as JSON."""
    model, every = zslkeras.load(exported.run), sorted(exported.pictures.glob("*/0.png"))
    table = write_table(tmp_path / "new.csv", NEW)
    asked = ("--model", exported.run, "--reject", "0.4", *every)
    for more, given in (((), {}), (("--classes", table, "--only_new"), {"classes": table})):
        told = [name is None for name in model.predict(every, reject=0.4, **given)]
        assert any(told) and not all(told)
        code, out, err = call(*asked, *more, "--json")
        assert code == 0, err
        found = json.loads(out)
        assert [one["class"] for one in found] == model.predict(every, reject=0.4, **given)
        assert [one["score"] is None for one in found] == [one["trained"] is None for one in found] == told
        ranked = model.predict(every, top=2, **given)
        assert [[e["class"] for e in one["top"][:2]] for one in found] == [[e.name for e in row] for row in ranked]
        code, out, err = call(*asked, *more, "--top", "2")
        heads = [line for line in out.splitlines() if not line.startswith("  ")]
        assert [line == f"{path}: none of these" for line, path in zip(heads, every, strict=True)] == told


def test_an_export_of_an_earlier_version_knows_no_threshold(call, exported, pictures, tmp_path):
    old = shutil.copytree(exported.saved_model, tmp_path / "old")
    (old / export.VALIDATION).unlink()
    assert call("--model", old, pictures[0])[0] == 0
    code, out, err = call("--model", old, pictures[0], "--reject", "0.05")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("error: --reject: got 0.05, and this classifier has no scores of validation classes")


WRONG = {
    "no model": (["--model", "nowhere", "a.png"], "no metadata.json in nowhere"),
    "no images": (["--model", "RUN"], "no images"),
    "no share": (["--model", "RUN", "PICTURE", "--reject", "2"], "--reject: got 2.0; wanted a share of images"),
    "no number": (["--model", "RUN", "PICTURE", "--reject", "few"], "--reject: got 'few'; wanted a number"),
    "no such picture": (["--model", "RUN", "nowhere.png"], "nowhere.png"),
    "no table": (["--model", "RUN", "PICTURE", "--only_new"], "--only_new: got no --classes"),
    "table away": (["--model", "RUN", "PICTURE", "--classes", "nowhere.csv"], "nowhere.csv: cannot be read"),
    "no attention": (["--model", "RUN", "PICTURE", "--attention", "maps"], "--attention: eszsl has none"),
    "flag": (["--model", "RUN", "PICTURE", "--topp", "3"], "topp"),
    "top": (["--model", "RUN", "PICTURE", "--top", "0"], "top"),
    "missing": (["--model", "RUN", "PICTURE", "--missing", "zero"], "--missing: got 'zero'"),
    "damaged": (["--model", "RUN", "CUT"], "does not decode"),
    "table to write, and one to read": (
        ["--model", "RUN", "--write_table", "own.csv", "--classes", "x.csv"],
        "--classes: got it beside --write_table",
    ),
    "table to write, and new ones": (
        ["--model", "RUN", "--write_table", "a.csv", "--only_new"],
        "--only_new: got it beside",
    ),
    "table to write, and images": (["--model", "RUN", "--write_table", "own.csv", "a.png"], "a.png: got it beside"),
    "file of answers": (
        ["--model", "RUN", "PICTURE", "--out", "a.txt"],
        "--out: got a.txt; wanted one of .csv, .jsonl",
    ),
    "answers beside": (["--model", "RUN", "PICTURE", "--out", "a.csv", "--json"], "--json: got it beside --out"),
    "bad ones shown": (["--model", "RUN", "PICTURE", "--skip_bad"], "--skip_bad: got no --out"),
    "no place for answers": (["--model", "RUN", "PICTURE", "--out", "no/a.csv"], "--out: no/a.csv: No such file"),
    "answers there": (["--model", "RUN", "PICTURE", "--out", "THERE"], "there.csv exists already; wanted another name"),
    "no list": (["--model", "RUN", "--listed", "nowhere.txt"], "nowhere.txt: cannot be read"),
    "host": (["--model", "RUN", "PICTURE", "--host", "127.0.0.1"], "--host: no flag of zslkeras predict"),
    "name": (["--model", "RUN", "PICTURE", "--name", "birds"], "--name: no flag of zslkeras predict"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(case, call, exported, pictures, tmp_path):
    args, sentence = WRONG[case]
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:2000])
    (tmp_path / "there.csv").write_text("mine")
    cut, there = tmp_path / "cut.png", tmp_path / "there.csv"
    places = {"RUN": exported.run, "PICTURE": pictures[0], "CUT": cut, "THERE": there}
    code, out, err = call(*(places.get(arg, arg) for arg in args))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and err.startswith("error: ") and sentence in err


def test_folders_and_lists_are_answered_in_a_file(call, found, exported, pictures, tmp_path):
    folders = [path.parent for path in pictures]
    (tmp_path / "listed.txt").write_text(f"{folders[1]}\n\n{pictures[0]}\n")
    args = "--model", exported.run, "--out", tmp_path / "all.jsonl", "--listed", tmp_path / "listed.txt", "--top", "2"
    code, out, err = call(*args, folders[0])
    assert (code, out) == (0, "") and err.endswith(f"{tmp_path / 'all.jsonl'}: 17 images\n"), err
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    wanted = [*sorted(folders[0].iterdir()), *sorted(folders[1].iterdir()), pictures[0]]
    assert [line["picture"] for line in lines] == list(map(str, wanted))
    assert lines[-1]["class"] == found()[0]["class"]


def test_the_command_itself(exported, pictures, tmp_path):
    ran = start("zslkeras", "predict", "--model", exported.run, pictures[0], "--top", "1", cwd=tmp_path)
    ran.wait_for(300)
    assert ran.returncode == 0, ran.err
    assert len(ran.out.splitlines()) == 2 and "Traceback" not in ran.err
