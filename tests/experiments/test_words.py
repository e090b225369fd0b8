"""What words are worth on validation classes, beside attributes."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest

from experiments import worded, words
from tests.support import commands
from tests.support.exported import draw
from tests.support.words import Bag
from zslkeras import benchmarks
from zslkeras.cli import flags
from zslkeras.errors import InputError
from zslkeras.text import encoders

# T and H of prototypes with all-MiniLM-L6-v2, percent.
REAL = {
    "attributes": (67.2, 66.7),
    "text: names": (35.4, 40.3),
    "text: sentences": (45.8, 48.8),
    "attributes by regression: sentences": (49.9, 52.5),
    "attributes by similarity: sentences": (34.3, 35.4),
}
ROWS = ["attributes", "text: names"]


def attributes_of(benchmark):
    return benchmark.class_embeddings


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Stage tune of a folder of drawn images, whose classes have names that say what they are."""
    folder = draw(tmp_path_factory.mktemp("drawn") / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "load", lambda name: Bag())
        return benchmarks.load(f"{folder}/", text_encoder="bag", unseen="0.2", features="filters")


def test_trained_classes_keep_their_attributes_and_the_others_get_those_of_words(stage):
    seen, unseen = stage.seen_classes, stage.unseen_classes
    for name, embed in worded.ways(Bag(), stage.words, 5).items():
        got = embed(stage)
        assert got.shape[0] == len(stage.class_names) and np.isfinite(got).all()
        if name.startswith("attributes by"):
            np.testing.assert_allclose(got[seen], stage.class_embeddings[seen], atol=1e-6)
            mean = stage.class_embeddings[seen].mean(axis=0)
            error, without = (np.square(one - stage.class_embeddings[unseen]).mean() for one in (got[unseen], mean))
            assert 0 < error < (without if "regression: sentences" in name else np.inf)


def test_the_attributes_of_validation_classes_take_no_part_in_the_guess(stage):
    """But for the sentences that are made of them."""
    changed = stage.class_embeddings.copy()
    changed[stage.unseen_classes] = changed[stage.unseen_classes][:, ::-1]
    other = dataclasses.replace(stage, class_embeddings=changed)
    for way in (worded.regression(Bag()), worded.similarity(Bag(), lambda one: one.class_names)):
        embed = worded.guessed(way, lambda one: Bag().encode(list(one.class_names)))
        np.testing.assert_array_equal(embed(other)[stage.unseen_classes], embed(stage)[stage.unseen_classes])


@pytest.mark.long
@pytest.mark.skipif(
    {"ZSLKERAS_TEXT_ENCODER", "ZSLKERAS_DATA"} - set(os.environ), reason="no real encoder, or no folder with CUB100"
)
def test_on_real_birds_words_are_worth_what_the_notes_say(capsys):
    """docs/notes/words.md, by features called mnv2."""
    root = pathlib.Path(os.environ["ZSLKERAS_DATA"]) / "CUB100"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    encoder = os.environ["ZSLKERAS_TEXT_ENCODER"]
    data = flags.Data(dataset=f"{root}/images", unseen=str(root / "unseen.txt"), features="mnv2", text_encoder=encoder)
    worded.measure(words.Settings(model="prototypes", row=tuple(REAL), data=data))
    lines = [line.rsplit(maxsplit=2) for line in capsys.readouterr().out.splitlines()[-1 - len(REAL) : -1]]
    found = {name.strip(): numbers for name, *numbers in lines}
    for name, wanted in REAL.items():
        np.testing.assert_allclose(list(map(float, found[name])), wanted, atol=1, err_msg=name)


def test_only_validation_classes_are_opened():
    with pytest.raises(InputError, match="stage: got final; wanted tune"):
        worded.Worded("shapes", None, {}, attributes_of).load("final", "features")


def test_the_command_prints_a_row_for_each_way(tmp_path, stage, monkeypatch):
    monkeypatch.setattr(encoders, "load", lambda name: Bag())
    args = (
        "--dataset",
        stage.source,
        "--features",
        "filters",
        "--unseen",
        "0.2",
        "--text_encoder",
        "bag",
        "--folds",
        "1",
        *(f"--row={row}" for row in ROWS),
    )
    ran = commands.call(words, tmp_path, tmp_path, tmp_path / "cache", *args)
    lines = [line.strip() for line in ran.out.splitlines()]
    assert ran.code == 0 and "eszsl on pictures, validation classes, 1 folds, percent" in lines[0], ran.err
    for row in ROWS:
        assert any(line.startswith(f"{row} ") for line in lines)
    assert lines[-1].split() == ["chance", "33.3"]
    commands.assert_refused(
        commands.call(words, tmp_path, tmp_path, tmp_path / "cache", *args, "--model", "msdn"),
        "--model: msdn takes maps; wanted one that takes features",
    )
    commands.assert_refused(
        commands.call(words, tmp_path, tmp_path, tmp_path / "cache", *args, "--row", "text: name"),
        "--row: got 'text: name'; did you mean text: names?",
    )
