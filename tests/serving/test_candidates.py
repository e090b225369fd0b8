"""Classes by their attributes: what is missing is filled in, in the scale of the known classes."""

import numpy as np
import pytest

from zslkeras.benchmarks import files
from zslkeras.errors import InputError
from zslkeras.serving import candidates

NAMES = ("wings", "feathers", "legs", "fins")


def known(unit_length=False, classes=40, seed=0):
    """Attributes that go together: feathers as wings, fins as no legs."""
    generator = np.random.default_rng(seed)
    wings, legs = generator.random((2, classes))
    table = np.stack([wings, 0.8 * wings + 0.1, legs, 1 - legs], axis=1)
    return files.unit_rows(table) if unit_length else table


def described(table, seen=None):
    lengths = np.linalg.norm(table, axis=1)
    own = candidates.Classes(
        tuple(f"class{place}" for place in range(len(table))),
        table.astype(np.float32),
        np.ones(len(table), bool) if seen is None else seen,
    )
    attributes = {
        "number": table.shape[1],
        "names": list(NAMES),
        "unit_length": bool(np.allclose(lengths, 1)),
        "has_negatives": False,
        "lengths": [float(lengths.min()), float(lengths.max())],
    }
    return own, attributes


def test_missing_attributes_are_what_goes_together_with_the_given_ones():
    row = np.array([0.9, np.nan, 0.2, np.nan])
    got = candidates.filled(row, known(classes=400))
    np.testing.assert_array_equal(got[[0, 2]], row[[0, 2]])
    other, truth = candidates.filled(row, known(classes=400), way="mean"), [0.82, 0.8]
    np.testing.assert_allclose(other[[1, 3]], known(classes=400)[:, [1, 3]].mean(axis=0))
    assert (np.abs(got[[1, 3]] - truth) < 0.6 * np.abs(other[[1, 3]] - truth)).all()  # the ridge draws to the mean


def test_with_little_ridge_the_missing_follow_from_the_given(monkeypatch):
    monkeypatch.setattr(candidates, "RIDGE", 1e-6)
    got = candidates.filled([0.9, np.nan, 0.2, np.nan], known())
    np.testing.assert_allclose(got, [0.9, 0.82, 0.2, 0.8], atol=1e-3)


def test_a_whole_row_stays_as_it_is_and_the_given_array_is_not_changed():
    row, lacking = np.array([0.9, 0.1, 0.2, 0.3]), np.array([0.9, np.nan, 0.2, np.nan])
    for unit_length in (False, True):
        np.testing.assert_array_equal(candidates.filled(row, known(), unit_length), row)
        candidates.filled(lacking, known(), unit_length)
    assert np.isnan(lacking).sum() == 2


def test_beside_classes_of_unit_length_any_scale_means_the_same():
    table, rows = known(unit_length=True, classes=400), known(classes=100, seed=1)
    lacking = rows.copy()
    lacking[:, [1, 3]] = np.nan
    cosines = {}
    for way in candidates.WAYS:
        one, other = ([candidates.filled(factor * row, table, True, way) for row in lacking] for factor in (1, 100))
        np.testing.assert_allclose(one, other)
        np.testing.assert_allclose(np.array(one)[:, 0] / np.array(one)[:, 2], rows[:, 0] / rows[:, 2])
        cosines[way] = np.sum(files.unit_rows(np.array(one)) * files.unit_rows(rows), axis=1).mean()
    assert cosines["conditional"] > 0.94 > cosines["mean"]


@pytest.mark.parametrize("row", [[0, np.nan, 0, np.nan], [np.nan, np.nan, 1, np.nan], [0.5, np.nan, 0.5, 0.5]])
@pytest.mark.parametrize("table", [known(True), known(True)[:1], np.full((5, 4), 0.5)], ids=["many", "one", "same"])
def test_odd_tables_and_rows_still_give_numbers_within_what_is_known(row, table):
    got = candidates.filled(row, table, unit_length=True)
    missing = np.isnan(row)
    assert np.isfinite(got).all() and (got[missing] >= table[:, missing].min(axis=0) - 1e-12).all()
    assert (got[missing] <= table[:, missing].max(axis=0) + 1e-12).all()


@pytest.mark.parametrize("unit_length", [False, True])
def test_given_classes_count_as_unseen_unless_the_model_knows_their_name(unit_length):
    own, attributes = described(known(unit_length), np.arange(40) < 30)
    whole = {"okapi": [0.2, 0.2, 0.9, 0.2], "class3": [0.5, 0.5, 0.5, 0.4], "class35": [0.1, 0.5, 0.5, 0.4]}
    both, notes = candidates.among(own, attributes, whole)
    alone, _ = candidates.among(own, attributes, whole, known=False)
    assert not notes and both.names == (*own.names, "okapi") and alone.names == tuple(whole)
    assert alone.seen.tolist() == [False, True, False] and both.seen.sum() == 30
    np.testing.assert_array_equal(both.embeddings[[40, 3, 35]], alone.embeddings)
    assert np.allclose(np.linalg.norm(alone.embeddings, axis=1), 1) == unit_length


def test_empty_cells_and_absent_columns_of_a_table_are_filled_in_and_said_in_one_line(tmp_path):
    own, attributes = described(known(True))
    (tmp_path / "new.csv").write_text("class,legs,wings\nokapi,0.9,\ngnu,0.8,0.1\n")
    classes, notes = candidates.among(own, attributes, tmp_path / "new.csv", known=False)
    assert classes.names == ("okapi", "gnu") and np.isfinite(classes.embeddings).all()
    (note,) = notes
    assert note.endswith(
        "new.csv: filled in 2 to 3 of 4 attributes of 2 classes, okapi first, by what goes together "
        "in the known classes"
    )
    with pytest.raises(InputError, match="new.csv: attribute wings and 2 more of class okapi missing; wanted all 4"):
        candidates.among(own, attributes, tmp_path / "new.csv", missing="refuse")


def test_duplicates_are_named_whatever_their_scale():
    own, attributes = described(known(True))
    twin = {"okapi": 3 * own.embeddings[7], "gnu": [0.1, 0.2, 0.3, 0.4], "wildebeest": [0.2, 0.4, 0.6, 0.8]}
    _, (note,) = candidates.among(own, attributes, twin)
    assert note.startswith("classes: okapi is a duplicate of class7; wildebeest is a duplicate of gnu: nothing but")
    _, notes = candidates.among(own, attributes, {"class7": own.embeddings[7]})
    assert not notes  # it is that class


def test_a_scale_that_cannot_be_the_models_is_refused():
    """Where embeddings are as long as they come; of unit vectors the length says nothing."""
    attributes = {"unit_length": False, "has_negatives": False, "lengths": [1.0, 2.0]}
    for factor in (0.01, 100):
        with pytest.raises(InputError, match="wanted the same scale"):
            candidates._require_scale("new.csv", "zebra", factor * np.ones(3), attributes)
        candidates._require_scale("new.csv", "zebra", factor * np.ones(3), attributes | {"unit_length": True})
    candidates._require_scale("new.csv", "zebra", np.ones(3), attributes)
    candidates._require_scale("new.csv", "zebra", np.array([0.1, np.nan, np.nan]), attributes, whole=False)


def test_attributes_without_names_are_numbered():
    own, attributes = described(known(True))
    attributes["names"] = []
    classes, (note,) = candidates.among(own, attributes, {"okapi": {"attribute 2": 1, "attribute 3": 0.5}}, known=False)
    assert classes.embeddings[0, 1] == pytest.approx(2 * classes.embeddings[0, 2])
    assert "filled in 2 of 4" in note
