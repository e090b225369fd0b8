"""Answers to many images: as `recognise` has them, in a file that grows and goes on where it was killed."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from zslkeras.errors import InputError
from zslkeras.serving import answer_file, recognise


@pytest.fixture(scope="module")
def model(exported):
    return recognise.Exported(exported.run)


@pytest.fixture
def images(exported, tmp_path):
    """More than two batches, of which none is whole at the end."""
    found = answer_file.images_in([exported.pictures])
    assert len(found) == 160
    return found[: 2 * recognise.AT_ONCE + 6]


def written(model, images, path, top=2, **options):
    answer_file.write(model, images, path, model.asking(), top, say=lambda _: None, **options)
    return path.read_text()


def test_lines_are_what_recognise_finds(model, images, tmp_path):
    wanted = model.recognise(images, top=2)
    lines = written(model, images, tmp_path / "a.jsonl").splitlines()
    assert list(map(json.loads, lines)) == wanted
    rows = list(csv.DictReader(written(model, images, tmp_path / "a.csv").splitlines()))
    assert [row["picture"] for row in rows] == list(map(str, images))
    for row, one in zip(rows, wanted, strict=True):
        for end, answer in (("", one), ("_1", one["top"][0]), ("_2", one["top"][1])):
            got = row[f"class{end}"], float(row[f"score{end}"]), row[f"trained{end}"]
            assert got == (answer["class"], answer["score"], str(answer["trained"]))
        assert row["error"] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.jsonl"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("batches", [0, 1, 2])
def test_it_goes_on_where_it_was_killed(name, batches, model, images, tmp_path, monkeypatch):
    """Also where the record is older than the file, and where the last line is torn."""
    monkeypatch.setattr(answer_file, "_RECORD_SECONDS", 0.0)
    wanted = written(model, images, tmp_path / name)
    path, asked = tmp_path / f"killed-{name}", []

    class Dies:
        def __getattr__(self, attribute):
            return getattr(model, attribute)

        def answers(self, *args):
            for number, batch in enumerate(model.answers(*args)):
                if number == batches:
                    raise MemoryError
                yield batch

    class Counts(Dies):
        def answers(self, *args):
            for batch in model.answers(*args):
                asked.extend(batch)
                yield batch

    with pytest.raises(MemoryError):
        written(Dies(), images, path)
    if batches:
        with open(path, "a") as file:
            file.write("torn")
    else:
        assert not path.exists()
    assert written(Counts(), images, path) == wanted
    again = recognise.AT_ONCE * max(0, batches - 1)  # the record is of the start of the last batch that was written
    assert len(asked) == len(images) - again
    assert not list(tmp_path.glob(".*"))


def test_others_than_were_begun_are_refused(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(answer_file, "_RECORD_SECONDS", 0.0)
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(InputError, match="a.csv exists already; wanted another name"):
        written(model, images, path)
    assert path.read_text() == "mine"
    path.unlink()

    def dies(*args):
        yield from list(original(*args))[:1]
        raise MemoryError

    original = model.answers
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(model, "answers", dies)
        written(model, images, path)
    begun = path.read_text()
    for other in ({"images": images[:-1]}, {"top": 3}):
        with pytest.raises(InputError, match="was begun with other images or flags; wanted the same"):
            written(**{"model": model, "images": images, "path": path} | other)
    path.write_text(begun[:9])
    with pytest.raises(InputError, match=r"a.csv has 9 bytes; wanted the \d+ that were written to it"):
        written(model, images, path)


def test_what_does_not_decode_ends_it_or_is_said_in_its_line(model, images, tmp_path):
    """A file that is no image, and one that breaks off, which shows only in the middle of decoding."""
    places = {3: b"no image", recognise.AT_ONCE + 1: images[0].read_bytes()[:-400]}
    images = list(images)
    for row, content in places.items():
        images[row] = tmp_path / f"{row}.png"
        images[row].write_bytes(content)
    with pytest.raises(InputError, match="3.png: cannot be read"):
        written(model, images, tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()
    found = list(map(json.loads, written(model, images, tmp_path / "a.jsonl", skip_bad=True).splitlines()))
    assert [one["picture"] for one in found] == list(map(str, images))
    bad = {row: one["error"] for row, one in enumerate(found) if "error" in one}
    assert list(bad) == list(places)
    assert "cannot be read" in bad[3] and "does not decode" in bad[recognise.AT_ONCE + 1]
    good = [row for row in range(len(images)) if row not in places]
    wanted = model.recognise([images[row] for row in good], top=2)
    for row, one in zip(good, wanted, strict=True):
        assert found[row]["class"] == one["class"]
        np.testing.assert_allclose(found[row]["score"], one["score"], rtol=1e-5)  # batches are others
    rows = list(csv.DictReader(written(model, images, tmp_path / "b.csv", skip_bad=True).splitlines()))
    assert [row["error"] for row in rows] == [bad.get(row, "") for row in range(len(images))]


def test_no_more_than_a_few_batches_are_read_ahead(model, images, monkeypatch):
    read = []
    monkeypatch.setattr(recognise.decode, "read", lambda path: read.append(path) or path.read_bytes())
    batches = model.answers(images * 5, model.asking())
    next(batches)
    assert len(read) <= 5 * recognise.AT_ONCE
    batches.close()


def test_rejected_images_have_no_class(model, images, tmp_path):
    asking = dataclasses.replace(model.asking(), rule=lambda found: (found, np.arange(len(found["label"])) == 1))
    asking.rule.rate, asking.rule.asked = 0.5, asking.classes
    answer_file.write(model, images[:3], tmp_path / "a.csv", asking, 1, say=lambda _: None)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [bool(row["class"]) for row in rows] == [True, False, True] and all(row["class_1"] for row in rows)


def test_a_path_with_line_breaks_stays_in_its_cell(model, exported, tmp_path):
    odd = tmp_path / "a\rb\nc, d.png"
    odd.write_bytes(next(exported.pictures.glob("*/0.png")).read_bytes())
    answer_file.write(model, [odd], tmp_path / "a.csv", model.asking(), 1, say=lambda _: None)
    with open(tmp_path / "a.csv", newline="") as file:
        assert [row["picture"] for row in csv.DictReader(file)] == [str(odd)]


def test_folders_stand_for_their_images(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "b/notes.txt", "a/deep/3.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = answer_file.images_in([tmp_path / "b", "one.gif", tmp_path])
    assert [path.name for path in found] == ["1.png", "2.JPG", "one.gif", "3.webp", "1.png", "2.JPG"]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/b").symlink_to(tmp_path / "b")
    (tmp_path / "b/round").symlink_to(tmp_path / "b")
    assert [path.name for path in answer_file.images_in([tmp_path / "linked"])] == ["1.png", "2.JPG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no image in it; wanted one"):
        answer_file.images_in([tmp_path / "empty"])
