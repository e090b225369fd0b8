"""The command from pictures to features: the published row orders, your own folder, and what a kill leaves behind.

`python -m tests.cli.test_prepare --die WHERE:N ARGS` is the command killed as by `kill -9`: WHERE is write (in the
middle of the N-th write of a batch), rename or renamed (before or after the N-th file takes its place).
"""

import json
import os
import signal
import sys

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests.support import commands, drive
from zslkeras import load_benchmark
from zslkeras.benchmarks import download
from zslkeras.cli import prepare
from zslkeras.errors import InputError
from zslkeras.images import backbones, extract

CLASSES, UNSEEN, EACH, SIZE = 6, 2, 7, 32
COUNT = CLASSES * EACH


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    backbones.backbone("small", size=SIZE).save_weights(path)
    return path


def colour(number):
    """That tells a picture from all others."""
    return (6 * number, 255 - 6 * number, 40 * (number % 7))


@pytest.fixture
def flo(tmp_path):
    """The flowers as they are published: pictures numbered class by class, and a split that counts another order."""
    folder = tmp_path / "data/FLO"
    (folder / "jpg").mkdir(parents=True)
    for number in range(COUNT):
        Image.new("RGB", (40, 50), colour(number)).save(folder / f"jpg/image_{number + 1:05d}.jpg", quality=95)
    numbers = np.arange(COUNT).reshape(CLASSES, EACH)
    parts = {"trnid": numbers[:, 1:3], "valid": numbers[:, 3:4], "tstid": numbers[:, [0, 4, 5, 6]]}
    scipy.io.savemat(folder / "setid.mat", {part: ids.reshape(1, -1) + 1.0 for part, ids in parts.items()})
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.repeat(np.arange(CLASSES), EACH)[None] + 1.0})
    order = np.concatenate([ids.ravel() for ids in parts.values()])
    labels, place = order // EACH, np.arange(COUNT) + 1
    unseen, held_out = labels >= CLASSES - UNSEEN, order % EACH == 6
    locs = {"trainval_loc": ~unseen & ~held_out, "test_seen_loc": ~unseen & held_out, "test_unseen_loc": unseen}
    split = {"att": np.random.default_rng(0).random((5, CLASSES)) + 0.1}
    scipy.io.savemat(folder / "att_splits.mat", split | {loc: place[rows, None] for loc, rows in locs.items()})
    return folder


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "fruit"
    for label, name in enumerate(["apple", "fig", "pear"]):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (30, 30), colour(5 * label + number)).save(folder / name / f"{number}.png")
    (folder / "classes.csv").write_text("class,red,soft\napple,1,0\nfig,0,1\npear,0,0.5\nkiwi,0,1\n")
    return folder


@pytest.fixture
def call(tmp_path, weights):
    """`zslkeras prepare ARGS` in this process: the exit code, and what it printed."""

    def called(*args, backbone="small"):
        given = ["--backbone", backbone, "--weights", weights, "--size", SIZE, "--name", "x", "--batch_size", "8"]
        ran = commands.call(prepare, tmp_path, tmp_path / "data", tmp_path / "cache", *given, *args)
        return ran.code, ran.out, ran.err

    return called


@pytest.fixture
def done(call):
    """The same, which has to end well; returns what it printed."""

    def called(*args, **options):
        code, out, err = call(*args, **options)
        assert code == 0, err
        return out

    return called


@pytest.fixture
def refused(call):
    """The same, which has to end as one sentence; returns it."""

    def called(*args, **options):
        code, _, err = call(*args, **options)
        assert code == 2
        sentence = err.splitlines()[-1]
        assert sentence.startswith("error: ")
        return sentence

    return called


def read(flo, kind, **options):
    return load_benchmark("flo", flo.parent, "final", kind, features="x", **options)


# The published order.


def test_the_three_kinds_are_read_back_as_they_are(flo, done):
    out = done("--dataset", "FLO", "--what", "pooled,maps,levels")
    assert f"{flo / 'x_maps.npy'}: [{COUNT}, 2, 2, 256] float16, 0.00 GB" in out
    assert out.splitlines()[-1] == "read them with --dataset FLO --features x"
    benchmarks = {kind: read(flo, kind) for kind in ("features", "maps", "levels", "images")}
    assert benchmarks["features"].input_shape == (256,)
    assert benchmarks["maps"].input_shape == (2, 2, 256)
    assert benchmarks["levels"].input_shape == ((8, 8, 64), (4, 4, 128), (2, 2, 256))
    assert all(benchmark.finite for benchmark in benchmarks.values())
    for benchmark in benchmarks.values():
        for field in ("labels", "train", "test_seen", "test_unseen"):
            np.testing.assert_array_equal(getattr(benchmark, field), getattr(benchmarks["images"], field))
    np.testing.assert_allclose(
        benchmarks["maps"].inputs.astype(float).mean((1, 2)), benchmarks["features"].inputs, rtol=1e-3, atol=1e-4
    )


def test_rows_stand_in_the_order_of_the_original_parts(flo, done, weights):
    done("--dataset", "flo", "--what", "pooled")
    benchmark = read(flo, "features")
    shown = np.array([os.path.basename(path) for path in read(flo, "images").inputs])
    assert shown[:3].tolist() == ["image_00002.jpg", "image_00003.jpg", "image_00009.jpg"]
    numbers = np.array([int(name[6:11]) - 1 for name in shown])
    np.testing.assert_array_equal(benchmark.labels, numbers // EACH)
    assert set(numbers[benchmark.test_unseen]) == set(range((CLASSES - UNSEEN) * EACH, COUNT))
    # The features of a row are those of the picture that its name says: made alone, they are the same.
    model = backbones.backbone("small", weights, SIZE)
    for row in (0, 17, COUNT - 1):
        with Image.open(flo / "jpg" / shown[row]) as image:
            pixels = np.asarray(image.resize((SIZE, SIZE)), np.float32)[None]  # of one colour, whatever the crop
        alone = model(pixels / 127.5 - 1).numpy().mean((1, 2))[0]
        np.testing.assert_allclose(benchmark.inputs[row], alone, rtol=1e-3, atol=1e-4)


def test_richer_pooling_is_read_back(flo, done):
    done("--dataset", "flo", "--what", "pooled,maps", "--pooling", "mean,max", "--pool_layers", "stage3,stage4")
    features, maps = (read(flo, kind) for kind in ("features", "maps"))
    assert features.input_shape == (2 * (128 + 256),) and maps.input_shape == (2, 2, 256)
    last = maps.inputs.astype(float).max((1, 2))  # the last part
    wanted = last / np.linalg.norm(last, axis=1, keepdims=True)
    np.testing.assert_allclose(features.inputs[:, -256:], wanted, rtol=1e-3, atol=1e-4)
    done("--dataset", "flo", "--what", "pooled", "--name", "plain", "--pooling", "mean")
    record = json.loads((flo / "plain.json").read_text())
    assert record.keys() == json.loads((flo / "x.json").read_text()).keys() - {"pooling", "pool_layers"}


def test_natural_order_is_refused(flo, refused):
    """It would make classes both seen and unseen."""
    labels = scipy.io.loadmat(flo / "imagelabels.mat")["labels"].T
    files = np.array([f"jpg/image_{number + 1:05d}.jpg" for number in range(COUNT)], object)[:, None]
    (flo / "setid.mat").unlink()
    scipy.io.savemat(flo / "labels.mat", {"labels": labels, "image_files": files})
    words = refused("--dataset", "flo")
    assert "classes are both seen and unseen" in words and "in another order than the split counts" in words
    assert not list(flo.glob("x*")) and not list(flo.glob(".*"))


def test_without_anything_that_tells_the_order(flo, refused):
    (flo / "imagelabels.mat").unlink()
    words = refused("--dataset", "flo")
    assert f"no file in {flo} says which image is which row" in words
    assert "or setid.mat and imagelabels.mat" in words


def test_parts_that_are_no_permutation(flo, refused):
    parts = scipy.io.loadmat(flo / "setid.mat")
    parts["valid"][0, 0] = parts["trnid"][0, 0]
    scipy.io.savemat(flo / "setid.mat", {part: parts[part] for part in ("trnid", "valid", "tstid")})
    assert f"hold {COUNT} numbers, {COUNT - 1} of them different; wanted each of the {COUNT}" in refused(
        "--dataset", "flo"
    )


def test_the_order_of_a_feature_file(flo, done, tmp_path):
    """Where setid.mat is not at hand; the pictures lie elsewhere."""
    done("--dataset", "flo", "--what", "pooled")
    first = read(flo, "features")
    (flo / "setid.mat").unlink()
    (flo / "jpg").rename(tmp_path / "flowers")
    done("--dataset", "flo", "--images", tmp_path / "flowers", "--what", "pooled", "--name", "y")
    second = load_benchmark("flo", flo.parent, "final", "features", features="y")
    np.testing.assert_array_equal(first.inputs, second.inputs)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_skipped_pictures_leave_the_benchmark_exact(flo, done, refused):
    done("--dataset", "flo", "--what", "pooled,maps")
    whole, shown = read(flo, "features"), read(flo, "images").inputs
    bad = [int(whole.train[0]), int(whole.test_seen[1]), int(whole.test_unseen[-1])]
    for row in bad:
        os.truncate(shown[row], os.path.getsize(shown[row]) - 40)
    assert "does not decode" in refused("--dataset", "flo", "--overwrite")
    out = done("--dataset", "flo", "--overwrite", "--skip_bad")
    assert f"{flo / 'x_skipped.txt'}: 3 images left out" in out
    number = np.full(COUNT, -1)  # of a former row among those that are left
    kept = np.setdiff1d(np.arange(COUNT), bad)
    number[kept] = np.arange(COUNT - 3)
    for kind in ("features", "maps"):
        benchmark = read(flo, kind)
        (note,) = benchmark.notes
        assert note == "x.mat leaves out 3 images: 1 of trainval_loc, 1 of test_seen_loc, 1 of test_unseen_loc"
        np.testing.assert_array_equal(benchmark.labels, whole.labels[kept])
        for part in ("train", "test_seen", "test_unseen"):
            wanted = [row for row in getattr(whole, part) if row not in bad]
            np.testing.assert_array_equal(getattr(benchmark, part), number[wanted])
    np.testing.assert_allclose(read(flo, "features").inputs, whole.inputs[kept], rtol=1e-3, atol=1e-4)
    # Full labels beside it are no contradiction, and other features are not made in the order that lacks rows.
    labels = np.array(whole.labels)[:, None] + 1
    files = np.array([os.path.relpath(path, flo) for path in shown], object)[:, None]
    scipy.io.savemat(flo / "labels.mat", {"labels": labels, "image_files": files})
    np.testing.assert_array_equal(read(flo, "features").labels, whole.labels[kept])
    scipy.io.savemat(flo / "labels.mat", {"labels": labels[::-1], "image_files": files})
    with pytest.raises(InputError, match=r"x.mat: its 39 labels are not the 42 of .*labels.mat"):
        read(flo, "features")
    for file in ("labels.mat", "setid.mat"):
        (flo / file).unlink()
    assert "says which image is which row" in refused("--dataset", "flo", "--name", "y")


# Your own folder.


def test_your_own_folder(own, done):
    done("--dataset", own, "--what", "pooled,levels", "--layers", "stage3,stage4")
    benchmark = load_benchmark(str(own), None, "final", "levels", features="x", unseen="pear")
    assert benchmark.input_shape == ((4, 4, 128), (2, 2, 256))
    assert benchmark.finite and len(benchmark.labels) == 15
    assert [benchmark.class_names[label] for label in benchmark.labels[::5]] == ["apple", "fig", "pear"]
    assert load_benchmark(str(own), None, "final", "features", unseen="pear").notes == (
        f"features by x, the only ones in {own}",
    )


def test_your_own_folder_without_the_bad_pictures(own, done):
    (own / "fig/2.png").write_bytes(b"no picture")
    done("--dataset", own, "--skip_bad")
    benchmark = load_benchmark(str(own), None, "final", "maps", features="x", unseen="pear")
    assert len(benchmark.labels) == 14
    assert "leaves out 1 images, first fig/2.png" in benchmark.notes[0]
    rows = np.concatenate([benchmark.train, benchmark.test_seen, benchmark.test_unseen])
    assert sorted(rows) == list(range(14))
    fields = scipy.io.loadmat(own / "x.mat")
    for row, cell in enumerate(fields["image_files"]):
        assert str(cell[0][0]).startswith(benchmark.class_names[benchmark.labels[row]])


# The command line.


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["extra"], "got 'extra'; every argument of"),
        (["--dataset", ""], "--dataset: got ''"),
        (["--dataset", "shapes"], "got shapes, which needs no preparation"),
        (["--dataset", "imagenet"], "dataset: got 'imagenet'; wanted shapes, cub"),
        (["--dataset", "cub"], "cub: missing att_splits.mat in "),
        (["--dataset", "flo", "--what", "pooled,map"], "--what: got 'map'; did you mean maps?"),
        (["--dataset", "flo", "--layers", "stage2", "--what", "maps"], "--layers: got stage2 with --what maps; wanted"),
        (["--dataset", "flo", "--layers", "stage7"], "layers: no 'stage7' in small; did you mean "),
        (["--dataset", "flo", "--pooling", "mean,gen"], "--pooling: got 'gen'; did you mean gem"),
        (["--dataset", "flo", "--pooling", "max,max"], "--pooling: got max twice; wanted each once"),
        (
            ["--dataset", "flo", "--pooling", "max", "--what", "maps"],
            "--pooling: got max with --what maps; wanted pooled",
        ),
        (["--dataset", "flo", "--pool_layers", "stage7"], "--pool_layers: no 'stage7' in small; did you mean "),
        (["--dataset", "flo", "--pool_layers", "stage2,stage2"], "--pool_layers: got stage2 twice; wanted each once"),
        (
            ["--dataset", "flo", "--pool_layers", "stage2", "--what", "levels"],
            "with --what levels; wanted pooled among",
        ),
        (["--dataset", "flo", "--name", "../x"], "--name: got '../x'; wanted a name, without a path separator"),
        (["--dataset", "flo", "--name", "filters"], "--name: got filters, which means the built-in"),
        (["--dataset", "flo", "--name", "att_splits", "--overwrite"], "att_splits.mat is no result of this command"),
        (["--dataset", "flo", "--images", "/nowhere"], "images: got /nowhere; wanted a folder of images"),
        (["--dataset", "flo", "--weights", "none.h5"], "weights: no file none.h5"),
        (["--dataset", "flo", "--preprocessing", "pil"], "preprocessing"),
        (["--dataset", "./nowhere", "--splits", "sent_splits"], "no folder nowhere"),
        (["--dataset", "flo", "--size", "0"], "size"),
    ],
)
def test_wrong_input_is_one_sentence(flo, refused, args, words):
    assert words in refused(*args)
    assert not list(flo.glob("x*")) and not list(flo.glob(".*"))


def test_an_unknown_backbone(flo, refused):
    assert "backbone: no 'mobilnetv2'; did you mean mobilenetv2" in refused("--dataset", "flo", backbone="mobilnetv2")


def test_results_that_are_there(flo, done, refused):
    done("--dataset", "flo", "--what", "pooled")
    assert "x.mat exists already; wanted another name, or overwrite" in refused("--dataset", "flo")
    done("--dataset", "flo", "--what", "maps", "--overwrite")
    assert read(flo, "maps").finite


def test_a_missing_map_says_which_command_makes_it(flo, done):
    done("--dataset", "flo", "--what", "pooled")
    words = "run `zslkeras prepare --dataset flo --name NAME --what pooled,"
    for kind in ("maps", "levels"):
        with pytest.raises(InputError, match=f"{words}{kind}`"):
            read(flo, kind)


def test_download_comes_first(flo, done, monkeypatch):
    """What it fetches is what the rest reads."""
    moved = flo.with_name("elsewhere")
    flo.rename(moved)
    asked = []

    def fetch(dataset, root):
        asked.append((dataset, str(root)))
        moved.rename(flo)

    monkeypatch.setattr(download, "fetch", fetch)
    done("--dataset", "flo", "--download", "--what", "pooled")
    assert asked == [("flo", str(flo.parent))]
    assert len(read(flo, "features").labels) == COUNT


# Killed.


def kill_at(where, number):
    now = drive.nth(number)
    write, replace = extract._Job._write, os.replace

    def dying_write(job, stores, pictures):
        if now():  # a row and a half of one store, nothing of the other
            stores["maps"].write(bytes(3 * job._row_bytes("maps") // 2))
            drive.die()
        write(job, stores, pictures)

    def dying_replace(source, target):
        last = now()
        if last and where == "rename":
            drive.die()
        replace(source, target)
        if last:
            drive.die()

    if where == "write":
        extract._Job._write = dying_write
    else:
        os.replace = dying_replace


# 42 pictures are six batches, each with a record, and one more at the end; then maps, mat and sidecar take their place.
DEATHS = {
    "in the third batch": ("write:3", 16),
    "between maps and mat": ("rename:7", COUNT),
    "after the sidecar": ("renamed:2", COUNT),
}


@pytest.mark.slow
def test_killed_and_run_again_is_byte_equal(flo, done, command, weights):
    done("--dataset", "flo", "--name", "whole")
    args = ["--dataset", "flo", "--backbone", "small", "--weights", weights, "--size", SIZE, "--name", "x"]
    args += ["--batch_size", 8, "--data_root", flo.parent]
    for moment, (death, recorded) in DEATHS.items():
        killed = command("tests.cli.test_prepare", "--die", death, *args)
        assert killed.returncode == -signal.SIGKILL, (moment, killed.out, killed.err)
        assert json.loads((flo / ".x.partial/record.json").read_text())["done"] == recorded, moment
        assert (flo / "x_maps.npy").exists() == (recorded == COUNT), moment
    done("--dataset", "flo")
    for end in (".mat", "_maps.npy", ".json"):
        assert (flo / f"x{end}").read_bytes() == (flo / f"whole{end}").read_bytes(), end
    assert not list(flo.glob(".*"))


if __name__ == "__main__":
    sys.argv.pop(1)
    where, _, number = sys.argv.pop(1).partition(":")
    extract._RECORD_SECONDS = 0
    kill_at(where, int(number))
    prepare.COMMAND(prepare.main)
