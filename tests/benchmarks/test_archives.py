"""The table of published archives: it makes sense, and what it takes comes to where the reader looks."""

import dataclasses
import io
import pathlib
import re

import numpy as np
import pytest
import scipy.io

from tests.benchmarks.conftest import fetched, tarred, zipped
from tests.support.tiny import write_tiny
from zslkeras.benchmarks import load, xlsa
from zslkeras.benchmarks.archives import DATASETS
from zslkeras.errors import InputError
from zslkeras.names import BENCHMARKS

TABLE = sorted({part.archive for parts in DATASETS.values() for part in parts}, key=lambda archive: archive.name)


@pytest.mark.parametrize("archive", TABLE, ids=lambda archive: archive.name)
def test_an_archive_of_the_table_makes_sense(archive):
    assert re.fullmatch(r"https://[a-z0-9.-]+/[\w~./-]+", archive.url)
    assert re.fullmatch(r"\w[\w.-]*\.(zip|tgz|tar|tar\.gz|mat)", archive.name)
    assert archive.sha256 is None or re.fullmatch("[0-9a-f]{64}", archive.sha256)
    assert 0 < (archive.size or 1) <= archive.most_bytes
    assert (archive.size or 1) <= archive.most_unpacked and archive.most_members > 0


def test_the_table_has_each_archive_once():
    for values in ([a.name.casefold() for a in TABLE], [a.url for a in TABLE], [a.sha256 for a in TABLE if a.sha256]):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_dataset_has_what_its_reader_needs(name, tmp_path):
    parts = DATASETS[name]
    assert parts[0].gives == ("res101.mat", "att_splits.mat") and not parts[0].pictures
    assert any(part.pictures for part in parts) == (name != "AWA1")
    for part in parts:
        assert part.gives and part.files >= 1
        for given in part.gives:
            assert not pathlib.PurePosixPath(given).is_absolute() and ".." not in given
        for pattern, target in part.take:
            assert re.compile(pattern).groups or "\\" not in target
    with pytest.raises(InputError) as caught:
        xlsa.read(name, tmp_path, "features")
    assert f"--dataset {name.lower()} --download` fetches" in str(caught.value)
    assert parts[0].archive.url in str(caught.value)


def test_the_table_has_no_other_dataset():
    assert set(DATASETS) == set(BENCHMARKS)


# Names of the images in res101.mat, and in the published archives. APY's names in res101.mat are a guess.
PUBLISHED = {
    "CUB": (
        "/BS/Deep_Fragments/work/MSc/CUB_200_2011/CUB_200_2011/images/{0:03d}.Bird/Bird_{1}.jpg",
        {"CUB_200_2011.tgz": "CUB_200_2011/images/{0:03d}.Bird/Bird_{1}.jpg"},
    ),
    "SUN": (
        "/BS/Deep_Fragments/work/MSc/data/SUN/images/a/abbey{0}/inside/sun_{1}.jpg",
        {"SUNAttributeDB_Images.tar.gz": "images/a/abbey{0}/inside/sun_{1}.jpg"},
    ),
    "AWA1": (None, {}),
    "AWA2": (
        "/BS/xian/work/data/Animals_with_Attributes2//JPEGImages/ox{0}/ox{0}_{1}.jpg",
        {"AwA2-data.zip": "Animals_with_Attributes2/JPEGImages/ox{0}/ox{0}_{1}.jpg"},
    ),
    "APY": (
        "/BS/somewhere/{2}",
        {
            "VOCtrainval_14-Jul-2008.tar": "VOCdevkit/VOC2008/JPEGImages/2008_{1:06d}.jpg",
            "ayahoo_test_images.tar.gz": "ayahoo_test_images/bag_{1}.jpg",
        },
    ),
    "FLO": ("/BS/xian/work/data/FLO/jpg/image_{1:05d}.jpg", {"102flowers.tgz": "jpg/image_{1:05d}.jpg"}),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_is_published_comes_to_where_the_reader_looks(name, server, monkeypatch, tmp_path):
    recorded, published = PUBLISHED[name]
    write_tiny(tmp_path / "source", classes=6, unseen=2, rows=5)
    res101 = scipy.io.loadmat(tmp_path / "source" / "res101.mat")
    rows, members = [], {archive: [] for archive in published}
    for row, label in enumerate(res101["labels"][:, 0]):
        archive = sorted(published)[row % len(published)] if published else None
        member = published[archive].format(label, row) if published else "none"
        rows.append((recorded or "").format(label, row, member.rpartition("/")[2]))
        members.setdefault(archive, []).append((member, f"picture {row}".encode()))
    res101["image_files"] = np.array(rows, object)[:, None]
    pooled = io.BytesIO()
    scipy.io.savemat(pooled, {key: value for key, value in res101.items() if not key.startswith("_")})
    splits = (tmp_path / "source" / "att_splits.mat").read_bytes()
    for folder in ("xlsa17", "cvpr18xian"):
        server.content[f"{folder}.zip"] = zipped(
            [
                (f"{folder}/data/{name}/res101.mat", pooled.getvalue()),
                (f"{folder}/data/{name}/att_splits.mat", splits),
                (f"{folder}/data/OTHER{name}/res101.mat", b"not this one"),
                (f"{folder}/data/{name}/binaryAtt_splits.mat", b"nor this"),
                (f"__MACOSX/data/{name}/._res101.mat", b"nor this"),
            ]
        )
    server.content["AwA2-base.zip"] = zipped(
        [("Animals_with_Attributes2/predicates.txt", b"".join(b"%d\tp%d\n" % (i, i) for i in range(8)))]
    )
    for single in ("imagelabels.mat", "setid.mat"):
        server.content[single] = splits
    for archive, pictures in members.items():
        extra = [("./attributes.txt", b"".join(b"%d a::%d\n" % (i, i) for i in range(8))), ("other/x.txt", b"x")]
        pack = {"zip": zipped, "tar": lambda content: tarred(content, "w")}.get(str(archive).rpartition(".")[2], tarred)
        server.content[archive] = pack(pictures + extra)
    here = f"http://127.0.0.1:{server.server_port}/"
    parts = [
        dataclasses.replace(
            part,
            archive=dataclasses.replace(part.archive, url=here + part.archive.name, size=None, sha256=None),
            files=1,
            gives=tuple(re.sub("2008_000008|bag_5", lambda m: {"b": "bag_1"}.get(m[0][0], "2008_000000"), given)
                        for given in part.gives),
        )
        for part in DATASETS[name]
    ]  # fmt: skip
    monkeypatch.setitem(DATASETS, name, tuple(parts))
    root = tmp_path / "data"
    fetched(root, name.lower(), pictures=False)
    assert load(name, root, stage="final").train.size and not any(root.rglob("*.jpg"))
    fetched(root, name.lower())
    if name == "AWA1":
        return
    benchmark = load(name, root, stage="final", inputs="images")
    contents = [pathlib.Path(path).read_bytes() for path in benchmark.inputs]
    assert contents == [f"picture {row}".encode() for row in range(len(contents))]
    assert bool(benchmark.attribute_names) == (name in ("CUB", "AWA2"))
