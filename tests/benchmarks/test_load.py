"""`load` and `images`: which reader reads a dataset, and which options it takes."""

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny import write_tiny
from zslkeras import benchmarks
from zslkeras.benchmarks import load
from zslkeras.errors import InputError

CLASSES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture
def root(tmp_path):
    """A data root with FLO in the field's own format."""
    write_tiny(tmp_path / "root/FLO", classes=6, unseen=2, rows=5)
    return tmp_path / "root"


@pytest.fixture
def mine(tmp_path):
    """A benchmark of the user's in that format."""
    write_tiny(tmp_path / "somewhere/MYDATA", classes=6, unseen=2, rows=5)
    return tmp_path / "somewhere/MYDATA"


@pytest.fixture
def pets(tmp_path):
    """A folder of images with a table."""
    for name in CLASSES:
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (40 * number, 80, 120)).save(tmp_path / "pets" / name / f"{number}.png")
    write_table(tmp_path / "pets")
    return tmp_path / "pets"


def write_table(folder):
    rows = (f"{name},{number},{number**2}\n" for number, name in enumerate(CLASSES, 1))
    (folder / "classes.csv").write_text("class,size,legs\n" + "".join(rows))


def refusal(name, call=load, **options):
    with pytest.raises(InputError) as caught:
        call(str(name), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["FLO", "flo", "Flo"])
def test_the_six_are_named_in_any_case(root, name):
    assert load(name, root, "final").name == "flo"
    assert load(name, root, "tune").stage == "tune"


def test_a_folder_of_images_is_named_by_its_path(pets):
    assert load(str(pets), stage="final", inputs="images").name == "pets"
    tune = load(f"{pets}/", stage="tune", inputs="images", unseen="ant")
    assert tune.class_names == ("bee", "cat", "dog", "elk")


def test_a_folder_in_the_field_s_format_is_named_by_its_path(mine):
    final = load(str(mine), "no root", "final")
    assert (final.name, len(final.seen_classes), len(final.unseen_classes)) == ("mydata", 4, 2)
    assert final.source == str(mine / "res101.mat")
    assert load(f"{mine}/", stage="tune").stage == "tune"
    assert load(str(mine), stage="final", negatives="zero", normalize=False).name == "mydata"


@pytest.mark.parametrize("name", ["./MYDATA", "MYDATA/", "./MYDATA/../MYDATA", "."])
def test_its_name_is_the_folder_s_however_the_path_is_written(mine, name, monkeypatch):
    monkeypatch.chdir(mine if name == "." else mine.parent)
    assert load(name, stage="final").digest == load(str(mine), stage="final").digest


def test_by_its_path_a_benchmark_of_the_six_is_the_same(root):
    assert load(str(root / "FLO"), stage="final").digest == load("flo", root, "final").digest


def test_labels_are_enough_where_maps_hold_the_inputs(mine):
    (mine / "res101.mat").rename(mine / "labels.mat")
    maps = np.random.default_rng(0).random((30, 2, 2, 3), np.float32)
    np.save(mine / "net_maps.npy", maps)
    np.testing.assert_array_equal(load(str(mine), stage="final", inputs="maps").take([3, 1]), maps[[3, 1]])


def test_pictures_of_both_kinds_of_folders(mine, pets):
    (mine / "images").mkdir()
    for number in range(30):
        (mine / f"images/{number:05d}.jpg").touch()
    found = benchmarks.pictures(str(mine))
    assert (found.folder, len(found.files), found.files[7]) == (mine, 30, "00007.jpg")
    assert found.paths[7] == str(mine / "images/00007.jpg") and found.labels[7] == 2
    assert benchmarks.pictures(str(pets)).files[:2] == ("ant/0.png", "ant/1.png")


def test_what_is_missing_says_how_to_make_it_for_that_path(mine):
    (mine / "res101.mat").unlink()
    message = refusal(mine)
    assert message.startswith(f"mydata: missing res101.mat in {mine}; for other features run ")
    assert f"`zslkeras prepare --dataset {mine} --name NAME`" in message
    assert "ZSLKERAS_DATA" not in message and "http" not in message


def test_a_path_with_a_space_is_quoted_for_the_shell(mine):
    spaced = mine.rename(mine.with_name("MY DATA"))
    (spaced / "res101.mat").unlink()
    assert f"`zslkeras prepare --dataset '{spaced}' --name NAME`" in refusal(spaced)


@pytest.mark.parametrize("splits", ["sent_splits", "my_own"])
def test_splits_of_another_name_are_enough(mine, splits):
    (mine / "att_splits.mat").rename(mine / f"{splits}.mat")
    assert load(str(mine), stage="final", splits=splits).name == "mydata"


def test_options_of_the_other_reader_are_refused(mine, pets):
    for option in ("unseen", "classes"):
        assert refusal(mine, **{option: "ant"}) == (
            f"{option}: has no meaning for dataset {mine}; "
            "wanted one of features, splits, images, attribute_vectors, normalize, negatives"
        )
    for option in ("splits", "images", "negatives", "draw"):
        message = refusal(pets, inputs="images", **{option: "x"})
        assert message.startswith(f"{option}: has no meaning for dataset {pets}; wanted one of classes, unseen, ")
    assert refusal("flo", unseen="x").startswith("unseen: has no meaning for dataset flo; wanted one of features, ")
    assert refusal("shapes", unseen="x") == "unseen: has no meaning for dataset shapes; wanted one of draw"
    assert "wanted one of splits, images" in refusal(mine, benchmarks.pictures, classes="x")


def test_of_a_table_and_splits_an_option_chooses(mine, pets):
    (pets / "att_splits.mat").write_bytes((mine / "att_splits.mat").read_bytes())
    (pets / "res101.mat").write_bytes((mine / "res101.mat").read_bytes())
    choice = f"wanted one, or classes={pets / 'classes.csv'} or splits=att_splits"
    assert refusal(pets) == f"dataset: {pets} has both classes.csv and att_splits.mat; {choice}"
    assert refusal(pets, benchmarks.pictures) == refusal(pets)
    assert load(str(pets), stage="final", splits="att_splits").kind == "features"
    assert load(str(pets), stage="final", inputs="images", classes=pets / "classes.csv").class_names == CLASSES
    assert benchmarks.pictures(str(pets), classes=pets / "classes.csv").files[0] == "ant/0.png"
    assert "splits: has no meaning" in refusal(pets, classes=pets / "classes.csv", splits="att_splits")


def test_a_folder_with_neither_is_one_sentence(tmp_path):
    message = refusal(tmp_path)
    for words in (
        f"classes: no file {tmp_path}/classes.csv or {tmp_path}/classes.tsv",
        "a table with",
        "att_splits.mat",
    ):
        assert words in message


def test_a_table_elsewhere_makes_any_folder_one_of_images(pets, tmp_path):
    (pets / "classes.csv").rename(tmp_path / "mine.csv")
    assert load(str(pets), stage="final", inputs="images", classes=tmp_path / "mine.csv").class_names == CLASSES


def test_no_folder_is_said_before_any_option(tmp_path):
    for options in ({}, {"splits": "att_splits"}, {"classes": "x.csv"}):
        assert f"dataset: no folder {tmp_path / 'none'}; wanted one of images" in refusal(tmp_path / "none", **options)


@pytest.mark.parametrize("name", ["flowers", "awa", ""])
def test_a_name_that_nobody_knows(name):
    message = refusal(name)
    assert message.startswith(f"dataset: got {name!r}; wanted shapes, cub, sun, awa1, awa2, apy, flo, or the path of")
    assert message.endswith("written with a slash: ./flowers")


def test_shapes_need_no_preparation():
    assert "got shapes, which needs no preparation" in refusal("shapes", benchmarks.pictures)


def test_unknown_stages_and_inputs():
    assert refusal("flo", stage="test") == "stage: got 'test'; wanted one of tune, final"
    assert refusal("flo", inputs="map") == "inputs: got 'map'; wanted one of features, maps, levels, images"
