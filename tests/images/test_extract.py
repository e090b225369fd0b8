"""Features of images: what they are, and that they are whole however the run ended."""

import errno
import json
import os
import shutil

import keras
import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests.images.test_decode import field_way
from tests.support import damage
from zslkeras.benchmarks.files import Pictures
from zslkeras.errors import InputError
from zslkeras.images import backbones, decode, extract
from zslkeras.images.pooling import pooled

SIZE, COUNT, BATCH = 32, 23, 4


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file of random weights with batch statistics that change the maps."""
    keras.utils.set_random_seed(3)
    model = backbones.backbone("small", size=SIZE)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(0.1 * np.random.default_rng(0).standard_normal(layer.moving_mean.shape))
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture(scope="session")
def make(weights):
    """Extractors of the small backbone, each made once."""
    made = {}

    def get(*what, **options):
        key = (what, *options.items())
        if key not in made:
            made[key] = extract.Extractor("small", weights, SIZE, what or ("pooled", "maps"), **options)
        return made[key]

    return get


@pytest.fixture
def pictures(tmp_path):
    """Pictures of four classes; the third and the eleventh have a mode of their own."""
    folder, generator = tmp_path / "data", np.random.default_rng(0)
    (folder / "jpg").mkdir(parents=True)
    files = [f"jpg/{number:02d}.{'png' if number % 3 else 'jpg'}" for number in range(COUNT)]
    for number, file in enumerate(files):
        shape = generator.integers(20, 60, 2)
        image = Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8))
        image.convert({2: "L", 10: "P"}.get(number, "RGB")).save(folder / file)
    return Pictures(folder, tuple(files), tuple(str(folder / file) for file in files), np.arange(COUNT) % 4 + 1)


@pytest.fixture
def run(pictures, make):
    """Extracts under the name x; every batch is recorded."""

    def call(extractor=None, **options):
        said = []
        extract.extract(extractor or make(), pictures, "x", **{"batch_size": BATCH, "say": said.append, **options})
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "_RECORD_SECONDS", 0)
        yield call


def refusal(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def spoil(path):
    with open(path, "wb") as file:
        file.write(b"no picture")


def results(pictures):
    """Every file of the results, by name."""
    return {path.name: path.read_bytes() for path in pictures.folder.iterdir() if path.is_file()}


def stopping_after(batches):
    """A backbone that fails after some batches, as if the process were killed."""

    class Stopped(Exception):
        pass

    original, count = extract.Extractor.__call__, 0

    def dying(self, pixels):
        nonlocal count
        count += 1
        if count > batches:
            raise Stopped
        return original(self, pixels)

    patch = pytest.MonkeyPatch()
    patch.setattr(extract.Extractor, "__call__", dying)
    return patch, Stopped


def stop(run, batches, **options):
    patch, stopped = stopping_after(batches)
    with patch.context(), pytest.raises(stopped):
        run(**options)
    patch.undo()


# What they are.


def test_features_are_those_of_the_backbone(run, pictures, make, weights):
    run(make("pooled", "maps", "levels", layers=("stage2", "stage3"), dtype="float32"))
    shown = np.stack([field_way(Image.open(path), SIZE) for path in pictures.paths]) / 127.5 - 1
    model = backbones.backbone("small", weights, SIZE)
    stages = keras.Model(model.input, [model.get_layer(f"stage{stage}").output for stage in (2, 3, 4)])
    expected = [stage.numpy() for stage in stages(shown.astype(np.float32))]
    for file, wanted in zip(("x_stage2", "x_stage3", "x_maps"), expected, strict=True):
        got = np.load(pictures.folder / f"{file}.npy", mmap_mode="r")
        assert (got.shape, got.dtype) == (wanted.shape, np.float32)
        np.testing.assert_allclose(got, wanted, atol=0.05 * wanted.std())  # pixels differ by one here and there
    fields = scipy.io.loadmat(pictures.folder / "x.mat")
    np.testing.assert_allclose(fields["features"].T, np.load(pictures.folder / "x_maps.npy").mean((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(fields["labels"], pictures.labels[:, None])
    assert [str(cell[0][0]) for cell in fields["image_files"]] == list(pictures.files)


def test_maps_pool_to_the_pooled_features(run, pictures):
    run()
    maps = np.load(pictures.folder / "x_maps.npy")
    assert maps.dtype == np.float16
    pooled = scipy.io.loadmat(pictures.folder / "x.mat")["features"].T
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(maps.astype(np.float32).mean((1, 2)), pooled, rtol=2**-10, atol=2**-14)
    assert pooled.std() > 0.01


def test_the_batch_size_changes_next_to_nothing(run, pictures):
    run(batch_size=COUNT)
    whole = np.load(pictures.folder / "x_maps.npy").astype(float)
    run(batch_size=1, overwrite=True)
    single = np.load(pictures.folder / "x_maps.npy").astype(float)
    assert np.abs(whole - single).max() <= 1e-3 * np.abs(whole).max()


def test_twice_is_the_same_to_the_byte(run, pictures, monkeypatch):
    run()
    first = results(pictures)
    assert first.keys() == {"x.mat", "x_maps.npy", "x.json"}
    monkeypatch.setattr("time.time", lambda: 1e9)
    monkeypatch.setattr("time.asctime", lambda *_: "another day")
    run(overwrite=True)
    assert results(pictures) == first


def test_the_sidecar(run, pictures, make):
    run(make("pooled", "levels", layers=("stage2", "stage4"), preprocessing="torch"))
    sidecar = json.loads((pictures.folder / "x.json").read_text())
    expected = {
        "backbone": "small",
        "preprocessing": "torch",
        "size": SIZE,
        "what": ["pooled", "levels"],
        "layers": ["stage2", "stage4"],
        "dtype": "float16",
        "rows": COUNT,
        "skipped": 0,
        "finite": True,
    }
    assert {key: sidecar[key] for key in expected} == expected
    assert sidecar["versions"]["keras"] == keras.__version__
    assert not (pictures.folder / "x_maps.npy").exists()
    assert not list(pictures.folder.glob(".*"))


def test_weights_and_preprocessing_make_a_difference(run, pictures, make):
    maps = {}
    for style in ("own", "caffe"):
        run(make("maps", preprocessing=style), overwrite=True)
        maps[style] = np.load(pictures.folder / "x_maps.npy").astype(float)
        assert "features" not in scipy.io.loadmat(pictures.folder / "x.mat")  # which still says what the rows are
    assert np.abs(maps["own"] - maps["caffe"]).max() > 0.1


def test_pooled_features_of_several_layers_in_several_ways(run, pictures, make):
    layers, ways = ("stage2", "stage3"), ("max", "gem")
    said = run(make("pooled", "levels", layers=layers, dtype="float32", pooling=ways, pool_layers=("stage3", "stage2")))
    assert said[0] == f"{pictures.folder / 'x.mat'}: [{COUNT}, {2 * (64 + 128)}] float32, 0.00 GB"
    fine, coarse = (np.load(pictures.folder / f"x_{layer}.npy") for layer in layers)
    features = scipy.io.loadmat(pictures.folder / "x.mat")["features"].T
    np.testing.assert_allclose(features, pooled([coarse, fine], ways), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 2, rtol=1e-5)
    sidecar = json.loads((pictures.folder / "x.json").read_text())
    assert (sidecar["pooling"], sidecar["pool_layers"]) == (["max", "gem"], ["stage3", "stage2"])


@pytest.mark.parametrize(
    ("pooling", "layers"), [(("mean", "max"), ()), (("gem",), ()), (("mean",), ("stage2", "stage4")), (("mean",), ())]
)
def test_a_record_remakes_its_features_row_by_row(run, pictures, make, weights, pooling, layers):
    run(make("pooled", "maps", pooling=pooling, pool_layers=layers))
    record = json.loads((pictures.folder / "x.json").read_text())
    again = extract.Extractor.again(record, weights, ["pooled"])
    stored = scipy.io.loadmat(pictures.folder / "x.mat")["features"].T
    assert len(stored) == COUNT
    for row, one in zip(stored, decode.stream(pictures.paths, SIZE), strict=True):
        made, _ = again(one[None])
        np.testing.assert_allclose(made["pooled"][0], row, rtol=1e-4, atol=1e-6)


def test_the_mean_of_the_last_map_is_what_it_was_before_there_were_others(run, pictures, make):
    run()
    first = results(pictures)
    assert not {"pooling", "pool_layers"} & json.loads(first["x.json"]).keys()
    run(make(pooling=("mean",), pool_layers=()), overwrite=True)
    assert results(pictures) == first
    maps = make("maps", pooling=("max",))  # nothing is pooled
    assert "pooling" not in maps.settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": ("median",)}, "pooling: got 'median'; did you mean mean?"),
        ({"pooling": ("max", "gem", "max")}, "pooling: got max twice; wanted each once"),
        ({"pool_layers": ("stage2", "stage2")}, "pool_layers: got stage2 twice; wanted each once"),
        ({"pool_layers": ("stage7",)}, "pool_layers: no 'stage7' in small; did you mean "),
    ],
)
def test_unknown_poolings_and_layers_are_refused(make, options, words):
    assert words in refusal(make, "pooled", **options)


def test_it_says_how_large_it_will_be(run, pictures):
    said = run()
    assert said[0] == f"{pictures.folder / 'x.mat'}: [{COUNT}, 256] float32, 0.00 GB"
    assert said[1].startswith(f"{pictures.folder / 'x_maps.npy'}: [{COUNT}, 2, 2, 256] float16")


# Going on.


@pytest.mark.parametrize("batches", [0, 1, 5])
def test_a_stopped_run_goes_on_where_it_was(run, pictures, batches, monkeypatch):
    run()
    whole = results(pictures)
    for name in whole:
        (pictures.folder / name).unlink()
    stop(run, batches)
    assert not results(pictures)  # nothing that could be taken for a result
    made = []
    original = extract.Extractor.__call__
    monkeypatch.setattr(
        extract.Extractor, "__call__", lambda self, pixels: made.append(len(pixels)) or original(self, pixels)
    )
    run()
    assert sum(made) == COUNT - BATCH * batches
    assert results(pictures) == whole
    assert not list(pictures.folder.glob(".*"))


def test_what_stands_behind_the_last_whole_row_is_made_again(run, pictures):
    run()
    whole = results(pictures)
    for name in whole:
        (pictures.folder / name).unlink()
    stop(run, 2)
    for store in ("maps", "pooled"):
        with (pictures.folder / f".x.partial/{store}.npy").open("ab") as file:
            file.write(b"half a row, and garbage")
    run()
    assert results(pictures) == whole


def test_another_job_does_not_go_on(run, pictures, make):
    stop(run, 2)
    mended = make(preprocessing="caffe")
    words = refusal(run, mended)
    assert "begun with preprocessing own, now caffe; wanted the same; overwrite starts over" in words
    assert "begun with batch_size 4, now 5" in refusal(run, batch_size=5)
    richer = make(pooling=("mean", "max"))
    assert "begun with pooling None, now ['mean', 'max']" in refusal(run, richer)
    os.utime(pictures.paths[1], (0, 0))  # another image may have as many bytes
    assert "begun with pictures " in refusal(run)
    Image.new("RGB", (9, 9)).save(pictures.paths[1])
    assert "begun with pictures " in refusal(run)
    run(mended, overwrite=True)
    after = results(pictures)
    run(mended, overwrite=True)
    assert results(pictures) == after


def test_a_job_of_one_pooling_does_not_go_on_with_another(run, pictures, make):
    begun = make("pooled", pooling=("max",), pool_layers=("stage2",))
    stop(run, 2, extractor=begun)
    assert "begun with pooling ['max'], now None" in refusal(run, make("pooled"))
    assert "begun with pooling ['max'], now ['gem']" in refusal(run, make("pooled", pooling=("gem",)))
    other = make("pooled", pooling=("max",), pool_layers=("stage3",))
    assert "begun with pool_layers ['stage2'], now ['stage3']" in refusal(run, other)
    run(begun)
    after = results(pictures)
    run(begun, overwrite=True)
    assert results(pictures) == after


def test_a_store_that_was_cut_short_is_not_filled_up_with_zeros(run, pictures):
    stop(run, 3)
    with (pictures.folder / ".x.partial/maps.npy").open("r+b") as file:
        file.truncate(300)
    assert "maps.npy is shorter than its 12 rows" in refusal(run)
    run(overwrite=True)
    assert np.load(pictures.folder / "x_maps.npy").any(axis=(1, 2, 3)).all()


def test_pictures_that_come_later_may_change(run, pictures):
    """Images that were not read yet may be repaired, or a run that stops at a bad image could never continue."""
    whole = Image.open(pictures.paths[9]).convert("RGB")
    spoil(pictures.paths[9])
    words = refusal(run)
    assert f"{pictures.paths[9]}: cannot be read" in words and "skip_bad leaves out such images" in words
    whole.save(pictures.paths[9])
    run()
    assert len(np.load(pictures.folder / "x_maps.npy")) == COUNT


def test_a_damaged_record_is_one_sentence(run, pictures, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract._Job, "publish", lambda *_: None)  # as if it was killed before
        run()
    record = pictures.folder / ".x.partial/record.json"
    monkeypatch.setattr(extract._Job, "fill", lambda *_: None)
    monkeypatch.setattr(extract._Job, "publish", lambda *_: None)
    refused = damage.refusals_of_file(record, run)
    assert {"no done", "no skipped", "no settings", "done: x", "settings: [1]"} <= set(refused)


def test_one_process_at_a_time(run, pictures):
    original = decode.stream

    def meanwhile(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decode, "stream", original)
            assert "works there; wanted one at a time" in refusal(run)
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "stream", meanwhile)
        run()
    assert (pictures.folder / "x.json").exists()


# Overwriting.


def test_results_are_overwritten_only_when_told(run, pictures, make):
    run(make("pooled", "maps", "levels", layers=("stage2",)))
    before = results(pictures)
    assert refusal(run) == f"name: {pictures.folder / 'x.mat'} exists already; wanted another name, or overwrite"
    assert results(pictures) == before
    run(make("pooled"), overwrite=True)
    assert results(pictures).keys() == {"x.mat", "x.json"}  # no former files that would not match the new ones


def test_until_the_new_is_done_the_old_is_there(run, pictures, make):
    run()
    before = results(pictures)
    stop(run, 3, extractor=make(preprocessing="caffe"), overwrite=True)
    assert results(pictures) == before


def test_files_of_others_are_never_overwritten(run, pictures):
    scipy.io.savemat(pictures.folder / "x.mat", {"att": np.eye(3)})
    before = results(pictures)
    for overwrite in (False, True):
        refusal(run, overwrite=overwrite)
    assert "x.mat is no result of this command (no x.json); wanted another name" in refusal(run, overwrite=True)
    assert results(pictures) == before
    assert not list(pictures.folder.glob(".*"))


# Disks and numbers.


def test_a_short_disk_is_refused_at_the_start(run, pictures, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    words = refusal(run)
    assert "0.00 GB are free; wanted the 0.0" in words
    assert not list(pictures.folder.glob(".*"))


def test_a_disk_that_fills_up(run, pictures, monkeypatch):
    run()
    whole = results(pictures)
    for name in whole:
        (pictures.folder / name).unlink()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    original, count = extract._Job._write, 0

    def write(self, stores, batch):
        nonlocal count
        count += 1
        if count == 4:
            stores["maps"].write(b"half a row")
            full()
        original(self, stores, batch)

    with monkeypatch.context() as patch:
        patch.setattr(extract._Job, "_write", write)
        words = refusal(run)
        assert f"{pictures.folder}: No space left on device after 12 of {COUNT} images; free 0.0" in words
        assert words.endswith("run the same command again, which continues from there")
    with monkeypatch.context() as patch:
        patch.setattr(scipy.io, "savemat", full)  # everything else is in its place by then
        assert f"after {COUNT} of {COUNT} images" in refusal(run)
    run()
    assert results(pictures) == whole


def test_numbers_that_do_not_fit_are_refused(run, pictures, tmp_path):
    model = backbones.backbone("small", size=SIZE)
    model.get_layer("stage4_norm").gamma.assign(1e6 * np.ones(256))
    model.save_weights(tmp_path / "large.weights.h5")
    large = extract.Extractor("small", tmp_path / "large.weights.h5", SIZE, ["maps"])
    words = refusal(run, large)
    assert f"{pictures.paths[0]}: its features are not finite in float16" in words
    assert words.endswith("wanted other weights or another dtype")


# Images that do not decode.


def test_bad_pictures_are_left_out_together_with_their_rows(run, pictures):
    run()
    whole = np.load(pictures.folder / "x_maps.npy")
    bad = [0, 7, 22]
    for row in bad:
        spoil(pictures.paths[row])
    assert f"{pictures.paths[0]}: cannot be read" in refusal(run, overwrite=True)
    said = run(overwrite=True, skip_bad=True)
    assert said[-1] == f"{pictures.folder / 'x_skipped.txt'}: 3 images left out"
    kept = np.setdiff1d(np.arange(COUNT), bad)
    maps, fields = np.load(pictures.folder / "x_maps.npy"), scipy.io.loadmat(pictures.folder / "x.mat")
    np.testing.assert_allclose(maps.astype(float), whole[kept], atol=1e-3 * whole.max())  # in other batches
    assert fields["features"].shape == (256, COUNT - 3)
    np.testing.assert_array_equal(fields["labels"].ravel(), pictures.labels[kept])
    assert [str(cell[0][0]) for cell in fields["image_files"]] == [pictures.files[row] for row in kept]
    assert fields["skipped_rows"].ravel().tolist() == [row + 1 for row in bad]
    lines = (pictures.folder / "x_skipped.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == [pictures.files[row] for row in bad]
    assert "cannot be read" in lines[0]


def test_bad_pictures_and_a_stop(run, pictures):
    for row in (2, 4, 5, 6, 7, 12):  # a batch without any image among them
        spoil(pictures.paths[row])
    run(skip_bad=True)
    whole = results(pictures)
    for name in whole:
        (pictures.folder / name).unlink()
    stop(run, 2, skip_bad=True)
    assert "begun with skip_bad; wanted it again; overwrite starts over" in refusal(run)
    run(skip_bad=True)
    assert results(pictures) == whole


def test_a_class_without_a_picture_is_refused(run, pictures):
    for path in pictures.paths[1::4]:
        spoil(path)
    assert "no image of class 2 decodes; wanted one of each class" in refusal(run, skip_bad=True)
    assert not results(pictures)
