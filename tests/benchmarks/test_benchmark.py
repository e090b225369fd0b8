"""What a Benchmark refuses, and what stage "tune" is made of."""

import dataclasses
import re

import numpy as np
import pytest

from tests.support.tiny import tiny
from zslkeras.benchmarks import tune_stage
from zslkeras.errors import InputError

TINY = tiny()  # classes 0..7 seen with 16 training and 4 test rows each, 8..11 unseen with 20


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


EMBEDDINGS, LABELS = TINY.class_embeddings, TINY.labels
# field: value -> the sentence
WRONG = [
    ({"labels": LABELS[:-1]}, "labels: 239 of them; wanted one for each of the 240 inputs"),
    ({"class_embeddings": EMBEDDINGS[:-1]}, "class_embeddings: shape (11, 6); wanted (12, A), one row per class"),
    ({"class_embeddings": EMBEDDINGS[:, 0]}, "class_embeddings: shape (12,); wanted (12, A), one row per class"),
    (
        {"class_embeddings": changed(EMBEDDINGS, (3, 2), np.nan)},
        "class_embeddings: nan at row 3, position 2; wanted finite numbers",
    ),
    (
        {"class_embeddings": changed(EMBEDDINGS, 9, 0)},
        "class_embeddings: all zero, or as good as that, for class class9; wanted an embedding for every class",
    ),
    (
        {"class_embeddings": changed(EMBEDDINGS, 3, 1e-40)},
        "class_embeddings: all zero, or as good as that, for class class3; wanted an embedding for every class",
    ),
    ({"class_names": (*TINY.class_names[:-1], "class4")}, "class_names: class4 twice; wanted different names"),
    ({"labels": changed(LABELS, 7, 12)}, "labels: 12 out of range; wanted ids in 0..11"),
    ({"labels": changed(LABELS, 7, -2)}, "labels: -2 out of range; wanted ids in 0..11"),
    ({"seen_classes": np.arange(-1, 8)}, "seen_classes: -1 out of range; wanted ids in 0..11"),
    ({"unseen_classes": np.array([8, 12, 13])}, "unseen_classes: 12, 13 out of range; wanted ids in 0..11"),
    (
        {"unseen_classes": np.array([2, 8, 9, 10, 11])},
        "seen_classes and unseen_classes share classes 2; wanted none shared",
    ),
    ({"validation_classes": np.array([3, 9])}, "validation_classes: 9 not seen; wanted some of the seen classes"),
    ({"train": np.append(TINY.train, 240)}, "train: 240 out of range; wanted ids in 0..239"),
    ({"test_unseen": np.append(-1, TINY.test_unseen)}, "test_unseen: -1 out of range; wanted ids in 0..239"),
    ({"train": np.append(TINY.train, TINY.train[0])}, "train: a row twice; wanted each row once"),
    (
        {"train": np.append(TINY.train, TINY.test_unseen[5])},
        "train: row 165 has class class8; wanted rows of seen classes only",
    ),
    (
        {"labels": changed(LABELS, TINY.test_seen[1], -1)},
        "test_seen: row 1 has class none of this stage; wanted rows of seen classes only",
    ),
    (
        {"test_unseen": np.append(TINY.test_unseen, 100)},
        "test_unseen: row 100 has class class5; wanted rows of unseen classes only",
    ),
    ({"train": TINY.train[:0]}, "train: no rows; wanted at least one"),
    (
        {"test_seen": np.append(TINY.test_seen, TINY.train)},
        "train and test_seen share rows 4, 5, 6, 7, 8, ...; wanted none shared",
    ),
    (
        {"attribute_names": ("red", "round")},
        "attribute_names: 2 of them; wanted 6, one per column of the class embeddings",
    ),
    (
        {"attribute_vectors": np.ones((5, 3), np.float32)},
        "attribute_vectors: 5 of them; wanted 6, one per column of the class embeddings",
    ),
    (
        {"attribute_vectors": changed(TINY.attribute_vectors, (5, 1), -np.inf)},
        "attribute_vectors: -inf at row 5, position 1; wanted finite numbers",
    ),
    (
        {"attribute_vectors": np.ones((6, 0), np.float32)},
        "attribute_vectors: shape (6, 0); wanted (6, V), with V of at least 1",
    ),
]


@pytest.mark.parametrize(("fields", "sentence"), WRONG, ids=[sentence.split(";")[0] for _, sentence in WRONG])
def test_a_wrong_benchmark_is_one_sentence(fields, sentence):
    with pytest.raises(InputError, match=f"^tiny: {re.escape(sentence)}$"):
        dataclasses.replace(TINY, **fields)


def test_levels_have_one_row_a_label_each():
    levels = tiny("levels")
    with pytest.raises(InputError, match="tiny: labels: 240 of them; wanted one for each of the 239 inputs"):
        dataclasses.replace(levels, inputs=(levels.inputs[0], levels.inputs[1][:-1]))


def test_shapes_and_masks_of_each_kind():
    shapes = {"features": (16,), "maps": (4, 4, 16), "levels": ((8, 8, 8), (4, 4, 16)), "images": (32, 32, 3)}
    for kind, shape in shapes.items():
        assert tiny(kind).input_shape == shape
    np.testing.assert_array_equal(TINY.seen_mask, [True] * 8 + [False] * 4)


def test_take_keeps_the_order_of_rows():
    rows = [30, 2, 2, 100]
    np.testing.assert_array_equal(TINY.take(rows), TINY.inputs[rows])
    for taken, level in zip(tiny("levels").take(rows), tiny("levels").inputs, strict=True):
        np.testing.assert_array_equal(taken, level[rows])


def test_known_to_be_finite_is_not_looked_at_again():
    known = dataclasses.replace(TINY, inputs=changed(TINY.inputs, (2, 3), np.nan), finite=True)
    assert np.isnan(known.take([1, 2])[1, 3])


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": changed(TINY.inputs, (TINY.test_unseen[0], 0), 7)},
        {"class_embeddings": changed(EMBEDDINGS, (0, 0), 7)},
        {"train": TINY.train[1:]},
        {"test_seen": TINY.test_seen[:-1]},
        {"labels": changed(LABELS, TINY.train[0], 1)},
        {"stage": "tune"},
        {"class_names": (*TINY.class_names[:-1], "other")},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_digest_follows_the_content(fields):
    assert dataclasses.replace(TINY, **fields).digest != TINY.digest == tiny().digest


@pytest.fixture(scope="module", params=[None, np.array([1, 4, 6])], ids=["drawn", "published"])
def tuned(request):
    return tune_stage(dataclasses.replace(TINY, validation_classes=request.param))


def test_tune_holds_nothing_of_the_test_set(tuned):
    """It has no test row, no label of one, and nothing of an unseen class."""
    used = np.concatenate([tuned.train, tuned.test_seen, tuned.test_unseen])
    np.testing.assert_array_equal(np.sort(used), TINY.train)
    outside = np.setdiff1d(np.arange(240), TINY.train)
    assert (tuned.labels[outside] == -1).all() and (tuned.labels[TINY.train] >= 0).all()
    assert tuned.class_names == TINY.class_names[:8]
    np.testing.assert_array_equal(tuned.class_embeddings, EMBEDDINGS[:8])
    assert tuned.stage == "tune" and tuned.validation_classes is None


def test_tune_renumbers_classes():
    """A class keeps its name, its embedding and its rows where seen and unseen classes interleave."""
    seen = np.array([1, 2, 5, 6, 8, 11])
    interleaved = dataclasses.replace(
        TINY,
        seen_classes=seen,
        unseen_classes=np.setdiff1d(np.arange(12), seen),
        train=np.flatnonzero(np.isin(LABELS, seen)),
        test_seen=np.array([], int),
        test_unseen=np.flatnonzero(~np.isin(LABELS, seen)),
        validation_classes=np.array([5, 11]),
    )
    tuned = tune_stage(interleaved)
    np.testing.assert_array_equal(tuned.unseen_classes, [2, 5])
    np.testing.assert_array_equal(tuned.seen_classes, [0, 1, 3, 4])
    np.testing.assert_array_equal(tuned.class_embeddings, EMBEDDINGS[seen])
    assert tuned.class_names == tuple(f"class{c}" for c in seen)
    for row in interleaved.train:
        assert seen[tuned.labels[row]] == LABELS[row]


def test_published_validation_classes_play_unseen():
    tuned = tune_stage(dataclasses.replace(TINY, validation_classes=np.array([6, 1, 4])))
    np.testing.assert_array_equal(np.sort(tuned.unseen_classes), [1, 4, 6])
    np.testing.assert_array_equal(tuned.test_unseen, TINY.train[np.isin(LABELS[TINY.train], [1, 4, 6])])
    assert not any("drawn" in note for note in tuned.notes)


def test_validation_classes_are_drawn_where_none_are_published():
    """Their share of the seen classes is that of the unseen ones among all: 4 of 12, so 3 of 8; a note says so."""
    tuned = tune_stage(TINY)
    assert len(tuned.unseen_classes) == 3
    names = ", ".join(tuned.class_names[c] for c in tuned.unseen_classes)
    assert tuned.notes[0] == f"validation classes drawn (fold 0, seed 0): 3 of 8 seen: {names}"


@pytest.mark.parametrize(("number", "drawn"), [(0, 2), (1, 2), (8, 4), (99, 4)])
def test_as_many_are_drawn_as_there_are_unseen_ones_but_a_fifth_where_there_are_none_and_at_most_half(number, drawn):
    """Of 8 seen classes."""
    count = len(TINY.class_names) - len(TINY.unseen_classes)
    more = tuple(f"more{place}" for place in range(number))
    embeddings = np.concatenate([TINY.class_embeddings[TINY.seen_classes], np.ones((number, 6), np.float32)])
    ids = np.searchsorted(TINY.seen_classes, TINY.labels)
    final = dataclasses.replace(
        TINY,
        labels=np.where(np.isin(TINY.labels, TINY.seen_classes), ids, -1).astype(np.int32),
        class_embeddings=embeddings,
        class_names=tuple(TINY.class_names[c] for c in TINY.seen_classes) + more,
        seen_classes=np.arange(count),
        unseen_classes=np.arange(count, count + number),
        test_unseen=np.array([], int),
    )
    assert len(tune_stage(final).unseen_classes) == drawn


def test_folds_and_seeds_draw_other_classes():
    published = dataclasses.replace(TINY, validation_classes=np.array([1, 4]))
    drawn = {(fold, seed): tuple(tune_stage(TINY, fold, seed).unseen_classes) for fold in range(4) for seed in (0, 1)}
    assert len(set(drawn.values())) >= 6  # of 56
    assert all(len(tune_stage(published, fold).unseen_classes) == 2 for fold in range(4))
    assert tuple(tune_stage(published, 1).unseen_classes) != (1, 4)
    assert tune_stage(TINY, 2, 5).digest == tune_stage(TINY, 2, 5).digest != tune_stage(TINY, 2, 6).digest


def test_a_fifth_of_the_rows_of_each_class_is_held_out(tuned):
    """3 of 16 rows, which are not the first ones."""
    held_out = np.bincount(tuned.labels[tuned.test_seen], minlength=8)
    np.testing.assert_array_equal(held_out[tuned.seen_classes], [3] * 5)
    assert held_out.sum() == 15
    places = np.array([np.flatnonzero(TINY.train == row)[0] % 16 for row in tuned.test_seen])
    assert len(np.unique(places)) > 4


@pytest.mark.parametrize(("rows", "held_out"), [(1, 0), (2, 1), (3, 1), (7, 1), (8, 2), (16, 3)])
def test_small_classes_hold_out_one_row_but_not_their_only_one(rows, held_out):
    own = TINY.train[LABELS[TINY.train] == 0]
    final = dataclasses.replace(TINY, train=np.setdiff1d(TINY.train, own[rows:]), validation_classes=np.array([1, 4]))
    tuned = tune_stage(final)
    assert np.sum(tuned.labels[tuned.test_seen] == 0) == held_out
    assert np.sum(tuned.labels[tuned.train] == 0) == rows - held_out


def test_tune_needs_a_class_to_train_on():
    everything = dataclasses.replace(TINY, validation_classes=np.arange(8))
    wanted = "at least 10: 8 play validation classes, and 2 have to be left to learn from"
    with pytest.raises(InputError, match=f"^tiny: seen_classes: 8; wanted {wanted}$"):
        tune_stage(everything)


@pytest.mark.parametrize(("keep", "got"), [(1, "1 column"), (6, "the same for all seen classes")])
def test_tune_needs_embeddings_that_tell_classes_apart(keep, got):
    embeddings = TINY.class_embeddings[:, :keep].copy()
    embeddings[TINY.seen_classes] = embeddings[0]
    poor = dataclasses.replace(TINY, class_embeddings=embeddings, attribute_names=(), attribute_vectors=None)
    wanted = "at least two columns that tell classes apart"
    with pytest.raises(InputError, match=f"^tiny: class_embeddings: {got}; wanted {wanted}$"):
        tune_stage(poor)


def test_few_validation_classes_are_told_to_be_rough():
    assert any("only 3 validation classes: one of them more or less moves" in note for note in tune_stage(TINY).notes)
    many = dataclasses.replace(TINY, validation_classes=np.arange(5))
    assert tune_stage(many).notes == ()
